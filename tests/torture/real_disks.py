"""Real disks: full, without inodes, read-only under a running sender and a following sweep."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from torture import calls
from torture.disk import Disk, Unavailable, unmount
from torture.table import Result
from torture.two_sites import Running, Said, TwoSites

from lpxfer import checksum
from lpxfer.formats import backoff, rhythm
from lpxfer.steps import repeat, send
from lpxfer.stores import waiting

PLACES = ("spool", "incoming", "minicam", "receipts")
PATIENCE = 60.0  # seconds until what should settle by itself is a violation

#: The waiting is not what is tested: seconds instead of a minute.
SOON = [(send, "RECOVER", 0.3), (waiting, "BY_ITSELF", 0.3),
        (rhythm, "MOST", 0.5), (send, "TICK", 0.1),
        (repeat, "RESCAN", 0.3), (backoff, "QUEUE_FIRST", 0.2),
        (backoff, "QUEUE_MOST", 0.5),
        (backoff.LinkState, "GREET", 0.2), (backoff, "JOB_FIRST", 0.2)]  # fmt: skip


def run(root: Path, short: bool) -> Iterator[Result]:
    """Try each place on a disk of its own."""
    full, inodes = (Result(f"a real disk without {w}: both sites") for w in ("room", "inodes"))
    lame = Result("a real disk turns read-only under sender and sweep")
    if os.geteuid() != 0:
        for result in (full, inodes, lame):
            result.not_run = "only root can mount file systems"
    else:
        for place in PLACES[::2] if short else PLACES:
            for free in (3,) if short else range(0, 40, 4):
                _fill(root / f"{place}.{free}", place, free, full, _bytes)
            for free in (2,) if short else range(0, 20, 2):
                _fill(root / f"{place}.i{free}", place, free, inodes, _inodes)
        _read_only(root, lame, short)
    yield from (full, inodes, lame, _spool_read_only(root))


# --- full, and free again -----------------------------------------------------------------------


def _fill(
    root: Path, place: str, free: int, result: Result, fill: Callable[[Path, int], None]
) -> None:
    """Let everybody work with a disk that has `free` pages or inodes left; then make room."""
    site = TwoSites(root)
    before = site.make_files("0001.fits", "0002.fits", size=20_000)
    owed = site.run("xfer-submit", "-o", "inst=minicam", *before).ids
    new = site.make_files("0003.fits", "0004.fits", size=20_000)
    site.receipts.mkdir()
    with _tmpfs(root / place):
        fill(root / place, free)
        said = [site.run("xfer-submit", "-o", "inst=minicam", path) for path in new]
        for _ in range(2):
            said.append(site.run("xfer-send", "--once"))
            said.append(site.run("xfer-sweep", "-i", "minicam"))
        wrong = next(filter(None, map(_unprepared, said)), None)
        for path in (root / place).glob("filler*"):
            path.unlink()
        kept = [path for path, told in zip(new, said, strict=False) if told.ids]
        owed += [job_id for told in said for job_id in told.ids]
        wrong = wrong or site.settle() or site.unsettled(owed, _count([*before, *kept]))
    where = f"{place}, {free} left"
    result.count(f"{where}: {wrong}" if wrong else None, "LOST" in (wrong or ""))
    shutil.rmtree(root)


def _unprepared(said: Said) -> str | None:
    if said.status not in (0, 1, 75) or "Traceback" in said.err or "unexpected" in said.err:
        return f"a command ended with {said.status}: {said.err}"
    return None


@contextlib.contextmanager
def _tmpfs(place: Path) -> Iterator[None]:
    """Put a small file system in the place of a directory; what is in it stays the same."""
    saved = place.with_name(place.name + ".saved")
    shutil.copytree(place, saved)
    options = ["-o", "size=1m,nr_inodes=120"]
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", place], check=True)
    try:
        shutil.copytree(saved, place, dirs_exist_ok=True)
        yield
    finally:
        unmount(place)
        shutil.rmtree(saved)


def _bytes(place: Path, free: int) -> None:
    """Leave so many pages free."""
    with (place / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    size = (place / "filler").stat().st_size
    os.truncate(place / "filler", size - free * 4096)


def _inodes(place: Path, free: int) -> None:
    """Leave so many inodes free."""
    number = 0
    with contextlib.suppress(OSError):
        while True:
            (place / f"filler{number}").touch()
            number += 1
    for back in range(1, free + 1):
        (place / f"filler{number - back}").unlink()


# --- read-only, and writable again --------------------------------------------------------------


def _read_only(root: Path, result: Result, short: bool) -> None:
    for place in ("incoming",) if short else ("incoming", "minicam", "receipts"):
        site = TwoSites(root / f"ro.{place}")
        site.receipts.mkdir()
        try:
            with Disk("ext4", path=site.root / place) as disk:
                (disk.path / "lost+found").rmdir()
                wrong = _under(site, disk.read_only)
        except Unavailable as error:
            result.not_run = str(error)
            return
        result.count(f"{place}: {wrong}" if wrong else None, "LOST" in (wrong or ""))


def _spool_read_only(root: Path) -> Result:
    """Refuse a running sender every change; a real spool cannot be remounted while it is locked."""
    result = Result("the spool turns read-only under a running sender")
    site, flag = TwoSites(root / "ro.spool"), root / "read-only"

    def refuse(*_: object) -> None:
        if flag.exists():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def switch(on: bool) -> None:
        flag.touch() if on else flag.unlink()

    wrong = _under(site, switch, refuse)
    result.count(wrong, "LOST" in (wrong or ""))
    return result


def _under(
    site: TwoSites, switch: Callable[[bool], None], refuse: Callable[..., None] = lambda *_: None
) -> str | None:
    """Let sender and sweep run while a disk turns read-only, and writable again."""
    files = site.make_files("0001.fits", "0002.fits", "0003.fits", "0004.fits")
    owed = site.run("xfer-submit", "-o", "inst=minicam", files[0]).ids

    def served(*words: str) -> Callable[[], object]:
        def act() -> object:
            for owner, name, value in SOON:
                if not hasattr(owner, name):
                    raise AssertionError(name)
                setattr(owner, name, value)
            watched = calls.watched(refuse) if words[0] == "xfer-send" else contextlib.nullcontext()
            with watched:
                return site.command(*words)()

        return act

    both = [
        Running(served("xfer-send")).start(),
        Running(served("xfer-sweep", "-i", "minicam", "--follow")).start(),
    ]
    try:
        _wait(lambda: site.where(owed[0]) == "log")
        _switch(switch, True)
        owed += site.run("xfer-submit", "-o", "inst=minicam", *files[1:3]).ids
        told = _wait(lambda: any("Read-only" in one.heard() for one in both))
        time.sleep(1)  # they go on trying, and say no more of it
        loud = [one.heard() for one in both if one.heard().count("Read-only") > 4]
        _switch(switch, False)
        owed += site.run("xfer-submit", "-o", "inst=minicam", files[3]).ids
        done = _wait(lambda: all(site.where(job_id) == "log" for job_id in owed))
    finally:
        for one in both:
            one.signal(signal.SIGTERM)
        said = [one.wait() for one in both]
    if not done:
        return f"LOST or late: {[site.where(job_id) for job_id in owed]}: {said}"
    if not told or loud:
        return f"it was not told, or again and again: {said}"
    wrong = next(filter(None, map(_unprepared, said)), None)
    return wrong or site.settle() or site.unsettled(owed, _count(files))


def _switch(switch: Callable[[bool], None], on: bool) -> None:
    """Remount; a file that is open for writing just then keeps that off for a moment."""

    def may() -> bool:
        try:
            switch(on)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    if not _wait(may):
        raise TimeoutError("the file system stays in use")


def _wait(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _count(files: list[Path]) -> Counter[str]:
    return Counter(checksum.of_bytes(path.read_bytes()) for path in files)

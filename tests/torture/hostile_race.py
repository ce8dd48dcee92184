"""A racer: names that become links, FIFOs and directories while sweeps are at work.

In incoming it does what it likes with arrivals of its own. In the instrument directory it
exchanges directories with links to a tree outside, in one call, and plants things under final
names that are to come; files that are placed it leaves alone, as everybody has to.
"""

import contextlib
import ctypes
import os
import random
import signal
import stat
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from arrivals import Site
from torture.corpus import Case, data_of, good
from torture.corpus_trees import THINGS
from torture.hostile_case import Ground, in_child, log, records, sweeps
from torture.table import Result

HONEST = 5  # arrivals put down before every sweep that nobody disturbs

FIRST = 2_000_000  # their numbers begin above it

#: What is exchanged with a trap, beneath the site; those at the end of it less often.
TARGETS = ("minicam/2003.0401", "minicam/2003.0401", "minicam/2003.0401", "minicam/quarantine",
           "any/2003.0402", "any/quarantine", "minicam/xferlogs", "receipts/mmto")  # fmt: skip
_TRAPS = ("a link to a directory outside", "a FIFO", "a link to nothing", "a socket")

_CASE = Case("race", "", lambda *_: None)


def run(seconds: float, seed: int) -> Iterator[Result]:
    """Race for some seconds; then let everything come to rest, and judge."""
    result = Result("hostile arrivals: names swapped under sweeps")
    with Ground() as ground:
        for target in sorted({*TARGETS}):
            (ground.site.root / target).mkdir(parents=True, exist_ok=True)
        traps = _lay_traps(ground.site)
        stop = ground.root / "stop"
        racer = os.fork()
        if racer == 0:
            _race(ground, traps, stop, seed)
        again = f"seed {seed}, {seconds:.0f} s: PYTHONPATH=tests python -m torture hostile"
        honest = FIRST
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline and len(result.violations) < 5:
                for _ in range(HONEST):
                    honest += 1
                    good(ground.site, honest, path=f"/x/2003.040{honest % 2 + 1}/f")
                broken = _sweep(ground, old=False)
                result.count(f"{broken}; {again}" if broken else None)
        finally:
            stop.touch()
            ended = _wait(racer)
        if ended:
            result.count(f"the racer ended with {ended}; {again}")
        swaps = int(stop.with_name("swaps").read_text())
        arrived = honest - FIRST
        result.notes |= {"swaps": swaps, "seconds": round(seconds), "honest arrivals": arrived}
        _restore(ground.site, traps)
        broken = _sweep(ground, old=True) or _sweep(ground, old=True) or _judge(ground, honest)
        result.count(
            f"{broken}; {again}" if broken else None, lost=(broken or "").startswith("LOST")
        )
    yield result


def _sweep(ground: Ground, old: bool) -> str | None:
    said = in_child(lambda: list(sweeps(ground.site, _CASE, old)))
    if isinstance(said, dict):
        return f"a sweep: {said['died']}"
    return next((line for line in said if "Traceback" in line), None) or ground.touched()


def _judge(ground: Ground, honest: int) -> str | None:
    """Say what was lost, or has wrong bytes."""
    placed: dict[str, bytes] = {}
    for entry in log(ground.site):
        if entry.kind in ("stored", "renamed") and entry.fields["inst"] == "minicam":
            path = ground.site.home / entry.fields["placed"]
            if path.is_symlink() or not path.is_file():
                return f"LOST: {entry.fields['placed']} is recorded and not there"
            body = path.read_bytes()
            number = entry.fields["name"].removesuffix(".fits")
            if body != data_of(int(number)) or entry.fields["size"] != str(len(body)):
                return f"LOST: {entry.fields['placed']} has wrong bytes"
            placed[entry.fields["uid"]] = body
    receipts = {e.fields["uid"] for e in records(ground.site.root / "receipts/mmto")}
    kept = {body: uid for uid, body in placed.items()}
    for path in (ground.site.home / "quarantine").glob("*.data"):
        if path.is_file() and not path.is_symlink():
            kept.setdefault(path.read_bytes(), path.name[: -len(".data")])
    for number in range(FIRST + 1, honest + 1):
        if (uid := kept.get(data_of(number))) is None:
            return f"LOST: arrival {number} is neither placed nor in quarantine"
        if uid not in receipts:
            return f"arrival {number}: {uid} has no receipt"
    return None


def _lay_traps(site: Site) -> list[tuple[Path, Path]]:
    traps = []
    for number, target in enumerate(TARGETS):
        place = site.root / target
        trap = place.with_name(f".trap{number}")
        THINGS[_TRAPS[number % len(_TRAPS)]](trap, site)
        traps.append((place, trap))
    return traps


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2):
        raise OSError(ctypes.get_errno(), "renameat2")


def _restore(site: Site, traps: list[tuple[Path, Path]]) -> None:
    """Put every directory back under its name."""
    for place, trap in traps:
        if not place.is_symlink() and place.is_dir():
            continue
        if not trap.is_symlink() and trap.is_dir():
            _exchange(place, trap)


def _race(ground: Ground, traps: list[tuple[Path, Path]], stop: Path, seed: int) -> None:
    """Swap until told to stop; never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    dice, swaps, status = random.Random(seed), 0, 1
    slots = [_Slot(ground, dice, 3_000_000 + number * 1_000_000) for number in range(4)]
    try:
        while swaps % 64 or not stop.exists():
            swaps += 1
            if dice.random() < 0.3:
                place, trap = dice.choice(traps)
                _exchange(place, trap)
                time.sleep(dice.random() * 0.002)
                _exchange(place, trap)
            else:
                with contextlib.suppress(OSError):  # somebody else was faster
                    dice.choice(slots).swap()
                time.sleep(dice.random() * 0.0003)
        status = 0
    except BaseException:  # noqa: BLE001 - told by the status
        traceback.print_exc()
    finally:
        stop.with_name("swaps").write_text(str(swaps))
        os._exit(status)


class _Slot:
    """An arrival whose files are something else at every look."""

    def __init__(self, ground: Ground, dice: random.Random, number: int) -> None:
        self._site, self._outside, self._dice = ground.site, ground.outside, dice
        self._number = number
        self._uid = ""

    def swap(self) -> None:
        """Change one of its names."""
        what = self._dice.randrange(8)
        if what == 0 or not self._uid:
            self._number += 1
            self._uid = good(self._site, self._number).uid
        elif what <= 3:
            self._become(self._site.incoming / f"{self._uid}.data")
        elif what <= 5:
            self._become(self._site.incoming / f"{self._uid}.control")
        elif what == 6:
            self._become(self._site.incoming / f".{self._uid}.placing")
        else:
            self._plant(self._site.home / f"2003.0401/{self._number + 1}.fits")

    def _become(self, path: Path) -> None:
        """Put something else under a name of this arrival."""
        new = path.with_name(f"trap-{time.monotonic_ns()}")
        kind = self._dice.randrange(5)
        if kind == 0:
            os.link(self._outside / "secret", new)
        elif kind == 1:
            new.write_bytes(b"other bytes")
        else:
            THINGS[self._dice.choice([*THINGS])](new, self._site)
        if new.is_dir() and not new.is_symlink() and path.exists():
            _exchange(new, path)
        else:
            os.rename(new, path)

    def _plant(self, path: Path) -> None:
        """Put something under a final name that is free, and take it away again."""
        kind = self._dice.choice(["a link to a file outside", "a FIFO", "a link to nothing"])
        THINGS[kind](path, self._site)
        time.sleep(self._dice.random() * 0.002)
        if not stat.S_ISREG(path.lstat().st_mode):
            path.unlink()


def _wait(racer: int) -> int:
    """Wait until the racer has ended; return its exit status."""
    for _ in range(300):
        pid, status = os.waitpid(racer, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(racer, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(racer, 0)[1])

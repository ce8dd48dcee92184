"""The commands of both sites, ready to be killed or to meet a failing disk.

Each function prepares a site, saves it, and yields cases: what is run, and what must have become
of the files when all has settled. What is prepared is the saved state when the case is yielded.
"""

import contextlib
import os
import shutil
import unittest.mock
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torture.two_sites import Running, Said, TwoSites

from lpxfer import checksum, codec
from lpxfer.formats.job import Routing, State
from lpxfer.stores.spool import Spool
from lpxfer.transports.bundler import LEAST
from lpxfer.transports.team import Team

Act = Callable[[], object]

#: Bytes that a codec makes much shorter.
SHRINKS = b"".join(n.to_bytes(2, "big") for n in range(50_000)) * 12


@dataclass(frozen=True)
class Case:
    """A command to be killed, and what must have become of the files in the end."""

    name: str
    act: Act
    owed: Sequence[str] = ()  # ids of jobs that must be archived
    files: Counter[str] = field(default_factory=Counter)  # checksums that must be archived
    may: Counter[str] = field(default_factory=Counter)  # and checksums that may be
    after: Sequence[Act] = ()  # sweeps without which nothing settles


def submits(site: TwoSites) -> Iterator[Case]:
    before = site.make_files("0001.fits", "0002.fits")
    owed = site.run("xfer-submit", "-o", "inst=minicam", *before).ids
    new = site.make_files("0003.fits", "0004.fits", "0005.fits", "0006.fits", size=300_000)
    site.save()
    for words, files in (([], new[:1]), ([], new), (["--link"], new[:1]), (["--link"], new),
                         (["-q7", "-o", "rempath=" + str(site.incoming)], new[:1])):  # fmt: skip
        name = f"submit {' '.join(words)[:6]} {len(files)} file(s)".replace("  ", " ")
        act = site.command("xfer-submit", "-o", "inst=minicam", *words, *files)
        yield Case(name, act, owed, _count(before), _count(files))


def sends(site: TwoSites) -> Iterator[Case]:
    files = site.make_files("0001.fits", "0002.fits", "0003.fits", size=70_000)
    owed = site.run("xfer-submit", "-o", "inst=minicam", *files).ids
    site.save()
    yield Case("sender, 3 jobs", site.command("xfer-send", "--once"), owed, _count(files))


def bundles(site: TwoSites) -> Iterator[Case]:
    """Small files that travel together, with one that goes by itself; then the sweep of them."""
    site.run("xfer-sweep", "-i", "minicam")  # says that it understands bundles
    files = site.make_files(*(f"{n:04}.fits" for n in range(LEAST + 1)))
    large = site.make_files("large.fits", size=2 << 20)
    owed = site.run("xfer-submit", "-o", "inst=minicam", *files, *large).ids
    site.save()
    every = _count([*files, *large])
    send = site.command("xfer-send", "--once", calm=True)  # shares of several would be too small
    yield Case("sender, a bundle of 9", send, owed, every)
    site.restore()
    Running(send).start().wait()
    if len(list(site.incoming.glob("*.control"))) != 2:
        raise RuntimeError("nothing went in a bundle")
    site.save()
    yield Case("sweep, a bundle of 9", site.command("xfer-sweep", "-i", "minicam"), owed, every)


def encodes(site: TwoSites) -> Iterator[Case]:
    """A file that shrinks, over a link that the sender believes to be slow."""
    if codec.available() is None:
        raise RuntimeError("the codec is missing: install lpxfer[codec]")
    site.run("xfer-sweep", "-i", "minicam")  # says that it understands the codec
    [file] = site.make_files("0001.fits")
    file.write_bytes(SHRINKS)
    [owed] = site.run("xfer-submit", "-o", "inst=minicam", file).ids
    site.save()
    send = site.command("xfer-send", "--once")

    def act() -> object:
        # As a submit leaves it, later than the data; what was restored is in no order.
        with contextlib.suppress(FileNotFoundError):  # another sender has it
            os.utime(site.root / "spool/archive/pending" / owed / "control")
        with unittest.mock.patch.object(Team, "rate", lambda _: 1e6):
            return send()

    yield Case("sender, encoded", act, [owed], _count([file]))
    site.restore()
    Running(act).start().wait()
    [sent] = site.incoming.glob("*.data")
    if sent.stat().st_size >= len(SHRINKS):
        raise RuntimeError("nothing was encoded")
    site.save()
    yield Case(
        "sweep, encoded", site.command("xfer-sweep", "-i", "minicam"), [owed], _count([file])
    )


def starts(site: TwoSites) -> Iterator[Case]:
    files = site.make_files("0001.fits", "0002.fits", "0003.fits")
    owed = site.run("xfer-submit", "-o", "inst=minicam", *files).ids
    spool = site.root / "spool/archive"
    with contextlib.closing(Spool(site.root / "spool")) as opened:
        with opened.queue("archive").open(owed[1], State.PENDING) as job:
            job.set_routing(Routing(outcome=State.CANCELED, reason="by a test"))
    for job_id, state in zip(owed, ("active", "done", "tmp"), strict=True):
        (spool / "pending" / job_id).rename(spool / state / job_id)
    site.save()
    act = site.command("xfer-send", "--once")
    yield Case("sender, after a crash", act, owed[:1], _count(files[:1]))


def finishes(site: TwoSites) -> Iterator[Case]:
    files = site.make_files("0001.fits", "0002.fits", "0003.fits")
    owed = site.run("xfer-submit", "-o", "inst=minicam", *files).ids
    site.run("xfer-send", "--once")
    site.run("xfer-sweep", "-i", "minicam")
    site.save()
    name = "sender, 3 receipts"
    yield Case(name, site.command("xfer-send", "--once"), owed, _count(files))


def sweeps(site: TwoSites) -> Iterator[Case]:
    files = site.make_files("0001.fits", "0002.fits", "0003.fits")
    other = site.make_files("0002.fits", below="other")
    same = site.make_files("0001.fits", below="same")
    shutil.copyfile(files[0], same[0])
    invalid = site.make_files("invalid.fits")  # it goes into quarantine, and its job is completed
    owed = site.run("xfer-submit", "-o", "inst=minicam", *files, *other, *same, *invalid).ids
    site.run("xfer-send", "--once")
    for path in site.incoming.glob("*-archive-3-*.data"):  # damaged on its way
        path.chmod(0o640)
        path.write_bytes(path.read_bytes()[::-1])
    site.save()
    act = site.command("xfer-sweep", "-i", "minicam")
    name = "sweep: stored, duplicate, renamed, mismatch, invalid"
    yield Case(name, act, owed, _count([*files, *other]))


def strangers(site: TwoSites) -> Iterator[Case]:
    files = site.make_files("0001.fits", "0002.fits")
    owed = site.run("xfer-submit", "-o", "inst=newcam", *files).ids
    site.run("xfer-send", "--once")
    for name in (
        ".20260101T000000Z-mmto-archive-1-0a0b0c0d.data.part",
        "alone.data",
        "ill.control",
    ):
        (site.incoming / name).write_bytes(b"half of something")
    site.save()
    name = "sweep -A: strangers, halves"
    yield Case(name, site.sweep_any, owed, _count(files), after=[site.sweep_any])


def changes(site: TwoSites) -> Iterator[Case]:
    files = site.make_files("0001.fits", "0002.fits", "0003.fits")
    owed = site.run("xfer-submit", "-o", "inst=minicam", *files).ids
    site.save()
    two = owed[:2]
    for words in (("move", *two, "other"), ("priority", 9, *two)):
        yield Case(f"xfer-ctl {words[0]}", site.command("xfer-ctl", *words), owed, _count(files))
    site.restore()
    site.run("xfer-ctl", "hold", *two)
    site.save()
    yield Case("xfer-ctl release", site.command("xfer-ctl", "release", *two), owed, _count(files),
               after=[site.command("xfer-ctl", "release", *two)])  # fmt: skip
    site.restore()
    site.run("xfer-ctl", "release", *two)
    site.save()
    yield Case("xfer-ctl hold", site.command("xfer-ctl", "hold", *two), owed, _count(files),
               after=[site.command("xfer-ctl", "release", *two)])  # fmt: skip
    site.restore()
    act = site.command("xfer-ctl", "disable", "archive")
    after = [site.command("xfer-ctl", "enable", "archive")]
    site.save()
    yield Case("xfer-ctl disable", act, owed, _count(files), after=after)
    site.restore()
    act = site.command("xfer-cancel", *two)
    site.save()
    yield Case("xfer-cancel", act, owed[2:], _count(files[2:]), _count(files[:2]))
    site.restore()
    for job_id in two:  # as a sender that died over them leaves them
        spool = site.root / "spool/archive"
        (spool / "pending" / job_id).rename(spool / "active" / job_id)
    site.save()
    yield Case("xfer-cancel, active", act, owed[2:], _count(files[2:]), _count(files[:2]))


#: Everything that needs no server.
ALL = (submits, sends, starts, finishes, sweeps, strangers, changes)

#: What needs a server.
OVER_SSHD = (sends, bundles, encodes)


# --- what must hold -----------------------------------------------------------------------------


def wrong(site: TwoSites, case: Case, said: Said) -> str | None:
    """Say what does not hold, right after a command and when all has settled; None if all does."""
    return _broken(site, case, said) or site.settle(case.after) or _unsettled(site, case)


def _broken(site: TwoSites, case: Case, said: Said) -> str | None:
    for job_id in [*case.owed, *said.ids]:
        if site.where(job_id) in ("", "tmp"):
            return f"LOST: {job_id} was acknowledged and is nowhere"
    if faults := site.faults():
        return f"xfer-fsck: {'; '.join(faults)}"
    return None


def _unsettled(site: TwoSites, case: Case) -> str | None:
    """Say what is wrong when all has settled; of what may be archived the finished log tells."""
    others = [entry.fields["checksum"] for entry in site.finished()
              if entry.kind == "completed" and entry.fields["job"] not in case.owed]  # fmt: skip
    if Counter(others) - case.may:
        return f"archived, but nobody wanted it: {others}"
    return site.unsettled(case.owed, case.files + Counter(others))


def _digest(path: Path) -> str:
    return checksum.of_bytes(path.read_bytes())


def _count(files: Sequence[Path]) -> Counter[str]:
    return Counter(_digest(path) for path in files)

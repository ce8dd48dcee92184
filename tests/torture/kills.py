"""kill -9 of every command at every system call, with several jobs under way.

The commands are the real ones. After each death: an id that reached the caller is a whole
job, xfer-fsck finds nothing broken, and the next sender and sweep bring every file into the
archive once, with one record, a receipt, and nothing left over.
"""

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sshd import SSHD, Sshd
from torture import tracer
from torture.table import Result
from torture.two_sites import Running, Said, TwoSites

from lpxfer import checksum

SEED = 3
SHORT = 3  # deaths of each command in the short run

Act = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A command to be killed, and what must have become of the files in the end."""

    name: str
    act: Act
    owed: Sequence[str] = ()  # ids of jobs that must be archived
    files: Counter[str] = field(default_factory=Counter)  # checksums that must be archived
    may: dict[str, str] = field(default_factory=dict)  # ids and checksums of those that may be
    after: Sequence[Act] = ()  # sweeps without which nothing settles


def run(short: bool) -> Iterator[Result]:
    """Kill each command in turn."""
    if reason := tracer.why_not():
        yield Result("kill -9 at every system call", not_run=reason)
        return
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no matter to a kill
    with tempfile.TemporaryDirectory(prefix="kills.", dir=memory) as directory:
        root = Path(directory)
        yield from _here(root, short)
        if not os.path.exists(SSHD):
            yield Result("kill -9: sender, over sshd", not_run=f"there is no {SSHD}")
            return
        with Sshd(root / "sshd") as sshd:
            yield from _over_sshd(root, sshd, short)


def _here(root: Path, short: bool) -> Iterator[Result]:
    """Kill what needs no server."""
    for number, make in enumerate((_submits, _sends, _finishes, _sweeps, _strangers, _changes)):
        site = TwoSites(root / f"{number}")
        for case in make(site):
            yield _every(site, case, short)
            if not short:
                yield _every(site, case, short, half=True)


def _over_sshd(root: Path, sshd: Sshd, short: bool) -> Iterator[Result]:
    site = TwoSites(root / "sftp", sshd)
    for case in _sends(site):
        name = f"{case.name}, over sshd"
        yield _every(site, replace(case, name=name), short)
        yield _pairs(site, replace(case, name=f"{name}, and again"), 2 if short else 40)
        yield _two(site, replace(case, name=f"one of two {name}"), 2 if short else 40)


# --- what is killed ---------------------------------------------------------------------------


def _submits(site: TwoSites) -> Iterator[Case]:
    before = site.make_files("0001.fits", "0002.fits")
    owed = site.run("xfer-submit", "-o", "inst=minicam", *before).ids
    new = site.make_files("0003.fits", "0004.fits", "0005.fits", "0006.fits", size=300_000)
    site.save()
    for words, files in (([], new[:1]), ([], new), (["--link"], new[:1]), (["--link"], new),
                         (["-q7", "-o", "rempath=" + str(site.incoming)], new[:1])):  # fmt: skip
        name = f"submit {' '.join(words)[:6]} {len(files)} file(s)".replace("  ", " ")
        act = site.command("xfer-submit", "-o", "inst=minicam", *words, *files)
        may = {f"archive-{n}": _digest(path) for n, path in enumerate(files, 3)}
        yield Case(name, act, owed, _count(before), may)


def _sends(site: TwoSites) -> Iterator[Case]:
    files = site.make_files("0001.fits", "0002.fits", "0003.fits", size=70_000)
    owed = site.run("xfer-submit", "-o", "inst=minicam", *files).ids
    site.save()
    yield Case("sender, 3 jobs", site.command("xfer-send", "--once"), owed, _count(files))


def _finishes(site: TwoSites) -> Iterator[Case]:
    files = site.make_files("0001.fits", "0002.fits", "0003.fits")
    owed = site.run("xfer-submit", "-o", "inst=minicam", *files).ids
    site.run("xfer-send", "--once")
    site.run("xfer-sweep", "-i", "minicam")
    site.save()
    name = "sender, 3 receipts"
    yield Case(name, site.command("xfer-send", "--once"), owed, _count(files))


def _sweeps(site: TwoSites) -> Iterator[Case]:
    files = site.make_files("0001.fits", "0002.fits", "0003.fits")
    other = site.make_files("0002.fits", below="other")
    same = site.make_files("0001.fits", below="same")
    shutil.copyfile(files[0], same[0])
    owed = site.run("xfer-submit", "-o", "inst=minicam", *files, *other, *same).ids
    site.run("xfer-send", "--once")
    for path in site.incoming.glob("*-archive-3-*.data"):  # damaged on its way
        path.chmod(0o640)
        path.write_bytes(path.read_bytes()[::-1])
    site.save()
    act = site.command("xfer-sweep", "-i", "minicam")
    name = "sweep: stored, duplicate, renamed, mismatch"
    yield Case(name, act, owed, _count([*files, *other]))


def _strangers(site: TwoSites) -> Iterator[Case]:
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


def _changes(site: TwoSites) -> Iterator[Case]:
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
    may = dict(zip(two, map(_digest, files), strict=False))
    act = site.command("xfer-cancel", *two)
    site.save()
    yield Case("xfer-cancel", act, owed[2:], _count(files[2:]), may)
    site.restore()
    for job_id in two:  # as a sender that died over them leaves them
        spool = site.root / "spool/archive"
        (spool / "pending" / job_id).rename(spool / "active" / job_id)
    site.save()
    yield Case("xfer-cancel, active", act, owed[2:], _count(files[2:]), may)


# --- killing ----------------------------------------------------------------------------------


def _every(site: TwoSites, case: Case, short: bool, half: bool = False) -> Result:
    """Kill a command at each of its calls, or at a sample of them."""
    what = "in the middle of every write" if half else "at every call"
    result = Result(f"kill -9 {what}: {case.name}")
    begun = time.monotonic()
    numbers: Iterator[int] = iter(range(1, 1 << 30))
    if short:
        site.restore()
        stops = _kill(case.act, 0)[0].stops
        numbers = iter(sorted(random.Random(SEED).sample(range(1, stops + 1), min(SHORT, stops))))
    for number in numbers:
        site.restore()
        end, said = _kill(case.act, number, half)
        if not end.killed and not short:
            result.notes["calls"] = end.stops
            break
        where = f"{case.name}: {'half of write' if half else 'call'} {number}, {end.killed}"
        _judge(site, case, said, end, result, where)
    result.notes["seconds"] = round(time.monotonic() - begun, 1)
    return result


def _pairs(site: TwoSites, case: Case, tries: int) -> Result:
    """Kill a command at any call, and the recovery at any of its own; a seeded sample."""
    result = Result(f"kill -9 at any call: {case.name}")
    sweep = site.command("xfer-sweep", "-i", "minicam")
    site.restore()
    stops = _kill(case.act, 0)[0].stops
    for seed in range(tries):
        chance = random.Random(f"{SEED} {seed}")
        site.restore()
        first, then = chance.randint(1, stops), chance.randint(1, stops // 2)
        end, said = _kill(case.act, first)
        again = chance.choice([case.act, case.act, sweep])
        second, _ = _kill(again, then)
        where = f"{case.name}: seed {seed}: calls {first} {end.killed}, {then} {second.killed}"
        _judge(site, case, said, end, result, where)
    return result


def _two(site: TwoSites, case: Case, tries: int) -> Result:
    """Start two of a command at once and kill one of them."""
    result = Result(f"kill -9 at any call: {case.name}")
    site.restore()
    stops = _kill(case.act, 0)[0].stops
    for seed in range(tries):
        number = random.Random(f"{SEED} {seed}").randint(1, stops)
        site.restore()
        other = Running(case.act).start()
        end, said = _kill(case.act, number)
        told = other.wait()
        where = f"{case.name}: seed {seed}: call {number}, {end.killed}"
        if told.status not in (0, 75) or "Traceback" in told.err:
            result.count(f"{where}: the other ended with {told.status}: {told.err}")
            continue
        _judge(site, case, said, end, result, where)
    return result


def _kill(act: Act, number: int, half: bool = False) -> tuple[tracer.End, Said]:
    running = Running(act)
    end = tracer.run(running.redirected, number, half)
    return end, running.said(end.status)


def _judge(
    site: TwoSites, case: Case, said: Said, end: tracer.End, result: Result, where: str
) -> None:
    """Count a try: what must hold right after the death, and when all has settled."""
    wrong = _broken(site, case, said)
    if not end.killed and end.status not in (0, 75, 1):
        wrong = f"it ended with {end.status}: {said.err}"
    wrong = wrong or site.settle(case.after) or _unsettled(site, case)
    result.count(f"{where}: {wrong}" if wrong else None, bool(wrong and "LOST" in wrong))


def _broken(site: TwoSites, case: Case, said: Said) -> str | None:
    for job_id in [*case.owed, *said.ids]:
        if site.where(job_id) in ("", "tmp"):
            return f"LOST: {job_id} was acknowledged and is nowhere"
    if faults := site.faults():
        return f"xfer-fsck: {'; '.join(faults)}"
    return None


def _unsettled(site: TwoSites, case: Case) -> str | None:
    """Say what is wrong when all has settled; of what may be archived the finished log tells."""
    finished = {entry.fields["job"]: entry for entry in site.finished()}
    files, owed = case.files.copy(), list(case.owed)
    for job_id, digest in case.may.items():
        if (entry := finished.get(job_id)) and entry.kind == "completed":
            owed.append(job_id)
            files[digest] += 1
    return site.unsettled(owed, files)


def _digest(path: Path) -> str:
    return checksum.of_bytes(path.read_bytes())


def _count(files: Sequence[Path]) -> Counter[str]:
    return Counter(_digest(path) for path in files)

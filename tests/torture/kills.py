"""kill -9 of every command at every system call, with several jobs under way.

The commands are the real ones. After each death: an id that reached the caller is a whole
job, xfer-fsck finds nothing broken, and the next sender and sweep bring every file into the
archive once, with one record, a receipt, and nothing left over.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sshd import SSHD, Sshd
from torture import commands, tracer
from torture.commands import Act, Case
from torture.table import Result
from torture.two_sites import Running, Said, TwoSites

SEED = 3
SHORT = 2  # deaths of each command in the short run
SELDOM = 3  # of the writes that are cut in the middle, one of so many
PAIRS = 15  # tries of two deaths, and of two commands at once


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
    for make in commands.ALL:
        site = TwoSites(root / make.__name__)
        for case in make(site):
            yield _every(site, case, short)
            if not short:
                yield _every(site, case, short, half=True)


def _over_sshd(root: Path, sshd: Sshd, short: bool) -> Iterator[Result]:
    tries = 1 if short else PAIRS
    for make in commands.OVER_SSHD:
        for case in make(site := TwoSites(root / f"sftp-{make.__name__}", sshd)):
            name = f"{case.name}, over sshd"
            yield _every(site, replace(case, name=name), short)
            yield _pairs(site, replace(case, name=f"{name}, and again"), tries)
            yield _two(site, replace(case, name=f"one of two {name}"), tries)


# --- killing ----------------------------------------------------------------------------------


def _every(site: TwoSites, case: Case, short: bool, half: bool = False) -> Result:
    """Kill a command at each of its calls, or at a sample of them."""
    what = "in the middle of every third write" if half else "at every call"
    result = Result(f"kill -9 {what}: {case.name}")
    begun = time.monotonic()
    numbers: Iterator[int] = iter(range(1, 1 << 30, SELDOM if half else 1))
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
    wrong = None
    if not end.killed and end.status not in (0, 75, 1):
        wrong = f"it ended with {end.status}: {said.err}"
    wrong = wrong or commands.wrong(site, case, said)
    result.count(f"{where}: {wrong}" if wrong else None, bool(wrong and "LOST" in wrong))

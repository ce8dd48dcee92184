"""Full, read-only and failing disks at both sites, and what becomes of the jobs.

First every call that changes a disk fails in turn, of every command: once, with half of a write
done, or from there on until somebody has mended the disk. Then real disks: full, without inodes,
read-only under a running sender and a following sweep, and usable again.
"""

import errno
import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from sshd import SSHD, Sshd
from torture import commands, faults, real_disks
from torture.commands import Case
from torture.faults import Fault, Watch
from torture.table import Result
from torture.two_sites import Said, TwoSites, here

SEED = 5
SHORT = 1  # calls of each command in the short run

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def run(short: bool) -> Iterator[Result]:
    """Let disks fail under every command."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="disks.", dir=memory) as directory:
        root = Path(directory)
        for make in commands.ALL:
            for case in make(site := TwoSites(root / make.__name__)):
                yield _every(site, case, short)
        if os.path.exists(SSHD):
            with Sshd(root / "sshd") as sshd:
                for make in commands.OVER_SSHD:
                    for case in make(site := TwoSites(root / f"sshd-{make.__name__}", sshd)):
                        case = replace(case, name=f"{case.name}, over sshd")
                        yield _every(site, case, short, one_way=True)
        else:
            yield Result("a disk fails: sender, over sshd", not_run=f"there is no {SSHD}")
        yield from real_disks.run(root, short)


# --- each call in turn ------------------------------------------------------------------------


def _every(site: TwoSites, case: Case, short: bool, one_way: bool = False) -> Result:
    """Let each call of a command fail, in every way or in one of them."""
    result = Result(f"a disk fails at every call: {case.name}")
    begun = time.monotonic()
    with tempfile.TemporaryFile() as notes:
        site.restore()
        clean = _strike(site, case, None, notes.fileno())
        last = faults.count(_read(notes))
    chosen = random.Random(SEED).sample(range(1, last + 1), SHORT) if short else range(1, last + 1)
    for fault in (fault for number in chosen for fault in _ways(site, number, one_way)):
        site.restore()
        with tempfile.TemporaryFile() as notes:
            said = _strike(site, case, fault, notes.fileno())
            if not faults.struck(_read(notes)):
                continue  # not a write, or it had fewer calls to make this time
            wrong = _told(said, fault, clean) or commands.wrong(site, case, said)
            site.watch = lambda act: act
            if not fault.lasting:  # who can write nothing can take nothing back either
                wrong = wrong or faults.believed(_read(notes))
        result.count(f"{case.name}: {fault}: {wrong}" if wrong else None, "LOST" in (wrong or ""))
    result.notes |= {"calls": last, "seconds": round(time.monotonic() - begun, 1)}
    return result


def _ways(site: TwoSites, number: int, one_way: bool) -> list[Fault]:
    """Return the faults of one call."""
    chance = random.Random(f"{SEED} {number}")
    below = chance.choice(["", str(site.root / "spool")])
    ways = [
        Fault(number, errno.ENOSPC),
        Fault(number, errno.EIO),
        Fault(number, chance.choice(CODES), short=True),
        Fault(number, chance.choice(CODES), lasting=True, below=below),
    ]
    return [chance.choice(ways)] if one_way else ways


def _strike(site: TwoSites, case: Case, fault: Fault | None, notes: int) -> Said:
    """Run a command on a disk that fails; what settles it then is watched, too."""
    site.watch = Watch(notes, None).around
    return here(Watch(notes, fault).around(case.act))


def _read(notes: IO[bytes]) -> bytes:
    return os.pread(notes.fileno(), 1 << 24, 0)


def _told(said: Said, fault: Fault, clean: Said) -> str | None:
    """Say what is wrong with how a command told of the disk, in words and by its exit status."""
    if said.status not in (0, 1, 75):
        return f"it ended with {said.status}: {said.err}"
    if "Traceback" in said.err or "unexpected" in said.err:
        return f"it was not prepared: {said.err}"
    if said.status == clean.status:
        return None
    if fault.code in faults.FULL and said.status != 75:
        return f"a full disk is for later, not {said.status}: {said.err}"
    if os.strerror(fault.code) not in said.err and "full" not in said.err:
        return f"it says not what is wrong: {said.err!r}"
    return None

"""Power cuts on real file systems, ext4 and XFS: before every call that changes a disk.

Both sites are a loop device of their own. What the scenario says is done, and stopped before
its nth call; at that instant one site's disk, the other's or both lose their power, with
the journal as it is on the disk (the shutdown ioctl without a flush of the log). Mounted again,
everything that was promised must hold; then the next runs make good what was left, and it
must hold again. The last cut of each is the one after the end.

This shows one state for each cut: the journal's last commit. What else a file system may make
of the same calls is for states.py.
"""

import errno
import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from death import Death, mortal
from torture import calls, sftp_cuts
from torture.disk import KINDS, Disk, Unavailable
from torture.scenarios import SCENARIOS, Scenario
from torture.sites import nothing_hangs
from torture.table import Result

TELESCOPE, ARCHIVE = "telescope", "archive"

SHORT, SELDOM = 2, 4  # in the short form: cuts of each scenario, and one scenario of so many
SEED = 20261120  # chooses them
TRIES = 3  # of a cut, after which the kernel cannot mount the disk


@dataclass(frozen=True)
class Run:
    """How far it came."""

    said: list[str]  # what was promised before its power was cut
    calls: int  # that were made
    ended: bool  # it came to its end
    error: str = ""


class Sites:
    """Both sites, each with a disk of its own. Use it in a `with`."""

    def __init__(self, kind: str) -> None:
        """Make them; raises Unavailable."""
        self.root = Path(tempfile.mkdtemp(prefix="lpxfer-powercut-"))
        self.disks: dict[str, Disk] = {}
        try:
            for name in (TELESCOPE, ARCHIVE):
                (self.root / name).mkdir()
                self.disks[name] = Disk(kind, path=self.root / name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Sites":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmount and remove them."""
        for disk in self.disks.values():
            disk.close()
        shutil.rmtree(self.root)

    def renew(self, prepare: Callable[[Path], None]) -> None:
        """Bring both to the state before, durably."""
        for disk in self.disks.values():
            disk.clear()
        prepare(self.root)
        for disk in self.disks.values():
            disk.sync()

    def restart(self, victims: Sequence[str]) -> bool:
        """Mount disks again after a power cut; False if one cannot be: it is made anew.

        Seen now and then on a busy machine, with ext4 and whatever was cut. The cause is not
        known; a program that only writes files should not be able to. It is counted in the notes.
        """
        for name in victims:
            try:
                self.disks[name].remount()
            except OSError as error:
                if error.errno not in (errno.EBADMSG, errno.EIO):
                    raise
                kind = self.disks[name].kind
                self.disks[name].close()
                self.disks[name] = Disk(kind, path=self.root / name)
                return False
        return True

    def changed(self, act: Callable[[], object]) -> list[str]:
        """Do something, and name the sites in which it changed anything."""
        before = {name: _trace(self.root / name) for name in self.disks}
        act()
        return [name for name in self.disks if _trace(self.root / name) != before[name]]

    def run(self, scenario: Scenario, number: int = 0, victims: Sequence[str] = ()) -> Run:
        """Do it, and cut the power before its `number`th call, or at its end."""
        said: list[str] = []
        count, error, dead = 0, "", False

        def before(*_: Any) -> None:
            nonlocal count, dead
            dead = dead or count + 1 == number
            if dead:
                cut()
                raise Death
            count += 1

        def cut() -> None:
            while victims_left:
                self.disks[victims_left.pop()].cut()

        victims_left = list(victims)
        try:
            with mortal(), calls.watched(before):
                scenario.act(self.root, lambda word: None if dead else said.append(word))
        except Exception:  # noqa: BLE001 - whatever it is, it is no end that was foreseen
            error = traceback.format_exc()
        cut()
        return Run(said, count, not dead, error)


def _trace(top: Path) -> list[tuple[str, int]]:
    """What changes when anything below a directory does."""
    found = [top, *top.rglob("*")]
    return sorted((str(path), path.lstat().st_ctime_ns) for path in found)


def run(short: bool) -> Iterator[Result]:
    """Cut the power of every scenario everywhere, and of a deposit, on both file systems."""
    with ProcessPoolExecutor(len(KINDS)) as pool:  # they mostly wait for the kernel
        for results in pool.map(_of_kind, KINDS, range(len(KINDS)), repeat(short)):
            yield from results


def _of_kind(kind: str, number: int, short: bool) -> list[Result]:
    found: list[Result] = []
    try:
        with Sites(kind) as sites, nothing_hangs():
            for scenario in SCENARIOS[number::SELDOM] if short else SCENARIOS:
                found.append(of_scenario(sites, kind, scenario, SHORT if short else None))
            found.append(of_deposit(sites.disks[ARCHIVE], kind, SHORT if short else None))
    except Unavailable as reason:
        found.append(Result(f"power cut, real {kind}", not_run=str(reason)))
    return found


def of_scenario(
    sites: Sites, kind: str, scenario: Scenario, most: int | None, stop_at_first: bool = False
) -> Result:
    """Cut one scenario at every call and after its end, or at `most` of these."""
    result = Result(f"power cut, real {kind}: {scenario.name}")
    for number, victims in cuts(sites, scenario, most):
        for _ in range(TRIES):
            sites.renew(scenario.prepare)
            done = sites.run(scenario, number, victims)
            if sites.restart(victims):
                break
            result.notes["unmountable"] = result.notes.get("unmountable", 0) + 1
        else:
            result.count(f"cut before call {number}: {TRIES} times it could not be mounted")
            continue
        problems = [done.error] if done.error else judge(scenario, sites.root, done.said)
        count(result, f"{' and '.join(victims)} cut before call {number}", problems)
        if problems and stop_at_first:
            break
    return result


def of_deposit(disk: Disk, kind: str, most: int | None, stop_at_first: bool = False) -> Result:
    """Cut the archive's power in a deposit over SFTP."""
    result = Result(f"power cut, real {kind}: a deposit over SFTP")
    if sftp_cuts.missing:
        result.not_run = sftp_cuts.missing
        return result
    for where, problems in sftp_cuts.tries(disk, most):
        count(result, where, problems)
        if problems and stop_at_first:
            break
    return result


def count(result: Result, where: str, problems: Sequence[str]) -> None:
    """Count one cut."""
    lost = any("gone" in problem or "was said" in problem for problem in problems)
    result.count(f"{where}: {'; '.join(problems)}" if problems else None, lost)


def cuts(
    sites: Sites, scenario: Scenario, most: int | None
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield call numbers, the last one beyond the end, and which sites lose their power there."""
    sites.renew(scenario.prepare)
    ends: list[Run] = []
    changed = sites.changed(lambda: ends.append(sites.run(scenario)))
    choices = [(name,) for name in changed]
    if len(changed) > 1:
        choices.append(tuple(changed))
    every = [(number, victims) for number in range(1, ends[0].calls + 2) for victims in choices]
    if most is not None and len(every) > most:
        every = random.Random(f"{SEED} {scenario.name}").sample(every, most)
    yield from every


def judge(scenario: Scenario, root: Path, said: Sequence[str]) -> list[str]:
    """Check, recover, check again; return what is wrong."""
    try:
        if problems := scenario.check(root, said):
            return problems
        scenario.recover(root)
        return [f"recovered: {problem}" for problem in scenario.settled(root, said)]
    except Exception:  # noqa: BLE001 - whatever it is, the next run did not get on
        return [traceback.format_exc()]

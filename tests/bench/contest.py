"""One go of a contestant: its files on their way over a stage, the clock, and the check.

What arrived is compared with what was sent each time, when the clock has stopped.
"""

import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cpu
import peers
from both_sites import BothSites
from cases import Case
from far_sshd import FarSshd
from results import Run
from sshd import SSHD
from wan import Ends, NotRun, wan

MEMORY = Path("/dev/shm")
COPIES = 4  # of the work beside the source: spool, incoming, archive, and some air
WARM = 8  # lpxfer's connections are opened by a part of the work, one in so many
LOGINS = 4  # a peer's login is measured so often, and the first is not counted
OURS = 1800.0  # seconds until lpxfer has failed: it is not stopped where peers are


@dataclass(frozen=True)
class Stage:
    """Where a case is played."""

    root: Path
    ends: Ends
    groups: dict[str, cpu.Group]
    far: FarSshd
    source: Path
    files: list[Path]


@contextmanager
def stage(case: Case, scale: float) -> Iterator[Stage]:
    """Make files, the line and the server. Raises NotRun where this machine cannot."""
    if not MEMORY.is_dir() or not os.path.exists(SSHD):
        raise NotRun(f"no {SSHD if MEMORY.is_dir() else MEMORY} here")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory("-bench", "lpxfer-", MEMORY)))
        source = root / "source"
        source.mkdir()
        try:
            case.make(source, scale)
        except (ImportError, OSError) as error:
            raise NotRun(str(error)) from error
        files = sorted(source.iterdir())
        needed = COPIES * sum(path.stat().st_size for path in files)
        if shutil.disk_usage(MEMORY).free < needed:
            raise NotRun(f"less than {needed >> 20} MiB free in {MEMORY}")
        groups = stack.enter_context(cpu.groups("peer", "sender", "sweep", "server"))
        ends = stack.enter_context(wan(case.line)) if case.line else Ends()
        far = stack.enter_context(FarSshd(root / "sshd", ends, groups["server"]))
        yield Stage(root, ends, groups, far, source, files)


def peer(name: str, stage: Stage, source: Path, limit: float) -> dict[str, Run]:
    """Let a peer send the files of a directory; check them if it was not stopped."""
    to = stage.root / "arrived"
    to.mkdir()
    sessions = stage.far.sessions()
    client, server = (stage.groups[group] for group in ("peer", "server"))
    before = client.seconds(), server.seconds()
    try:
        done = peers.run(name, stage.far, stage.ends, client.prefix, source, to, limit)
        arrived = sum(stored(path) for path in to.rglob("*") if path.is_file())
        stage.far.end_sessions(keep=sessions)
        if done.finished:
            arrived = check(sorted(source.iterdir()), to)
        used = client.seconds() - before[0], server.seconds() - before[1]
        return {name: Run(done.seconds, arrived, *used, done.finished)}
    finally:
        stage.far.end_sessions(keep=sessions)
        shutil.rmtree(to)


def ours(name: str, stage: Stage, sites: BothSites) -> dict[str, Run]:
    """Let lpxfer send the files, with connections that a part of them has opened."""
    try:
        sent, completed = sites.send(warm_up(stage), stage.files, OURS)
    except RuntimeError:
        sites.stop()
        sites.start()
        raise
    count = check(stage.files, sites.archive / "work")
    for directory in ("work", "warm"):
        shutil.rmtree(sites.archive / directory)
    server = completed.server + completed.sweep
    return {
        f"{name}, sent": Run(sent.seconds, count, sent.sender, sent.server),
        f"{name}, completed": Run(completed.seconds, count, completed.sender, server),
    }


def warm_up(stage: Stage) -> list[Path]:
    """Return an eighth of the files, at least one, or an eighth of the only one."""
    first, *others = stage.files
    if others:
        return stage.files[: max(1, len(stage.files) // WARM)]
    part = stage.root / f"part-{first.name}"
    with first.open("rb") as file:
        part.write_bytes(file.read(first.stat().st_size // WARM))
    return [part]


def check(files: list[Path], to: Path) -> int:
    """Return how many bytes arrived. Raises RuntimeError when they are not the same."""
    for path in files:
        with path.open("rb") as sent, (to / path.name).open("rb") as arrived:
            while block := sent.read(1 << 20):
                if arrived.read(1 << 20) != block:
                    raise RuntimeError(f"{path.name} has other bytes")
            if arrived.read(1):
                raise RuntimeError(f"{path.name} is longer")
    return sum(path.stat().st_size for path in files)


def stored(path: Path) -> int:
    """Return the bytes of a file that are there, holes not counted."""
    found = path.stat()
    return min(found.st_size, 512 * found.st_blocks)


def login(name: str, stage: Stage, limit: float) -> float:
    """Return the seconds that a peer needs for a file of one byte."""
    source = stage.root / "byte"
    source.mkdir(exist_ok=True)
    (source / "one.dat").write_bytes(b"x")
    taken = [peer(name, stage, source, limit)[name].seconds for _ in range(LOGINS)]
    return statistics.median(taken[1:])

"""CPU time of groups of processes, whatever they start: by cgroup v2 where that can be written.

Elsewhere from /proc and getrusage(2), in steps of 10 ms; HOW says which, for the results.
"""

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sshd import descendants

ENTER = 'echo $$ >"$0/cgroup.procs"; exec "$@"'


class Group(Protocol):
    """Some processes."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """What stands in front of a command line to put its process into the group."""

    def watch(self, pid: int) -> None:
        """Know one process of the group that stays."""

    def seconds(self) -> float:
        """Return the CPU that its processes have used, those that ended too."""


class Cgroup:
    """A group of the kernel."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.prefix = ("sh", "-c", ENTER, str(directory))

    def watch(self, pid: int) -> None:
        """Do nothing: the kernel knows."""

    def seconds(self) -> float:
        """Return what the kernel has counted."""
        words = (self._directory / "cpu.stat").read_text().split()
        return int(words[words.index("usage_usec") + 1]) / 1e6


class Tree:
    """Watched processes with their descendants; without any, what has been waited for."""

    prefix = ()

    def __init__(self) -> None:
        self._pids: list[int] = []

    def watch(self, pid: int) -> None:
        """Count this process, its descendants, and those that they have waited for."""
        self._pids.append(pid)

    def seconds(self) -> float:
        """Return the sum."""
        if not self._pids:
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return usage.ru_utime + usage.ru_stime
        return sum(used(pid) for top in self._pids for pid in [top, *descendants(top)])


def used(pid: int, ended: bool = True) -> float:
    """Return the CPU seconds of a process, with its children that ended; 0 when it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11 : 15 if ended else 13])) / os.sysconf("SC_CLK_TCK")
    return 0.0


@contextlib.contextmanager
def groups(*names: str) -> Iterator[dict[str, Group]]:
    """Have these groups for a block. The kernel's are ended with it, whatever is left in them."""
    top = _mount() and Path(_mount()) / f"lpxfer-bench-{os.getpid()}"
    made: list[Path] = []
    try:
        if not top:
            yield {name: Tree() for name in names}
            return
        for directory in (top, *(top / name for name in names)):
            directory.mkdir()
            made.append(directory)
        yield {name: Cgroup(top / name) for name in names}
    finally:
        for directory in reversed(made):
            _remove(directory)


def _mount() -> str:
    """Return where cgroup v2 is mounted and may be written, or nothing."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(place, os.W_OK):
            return place
    return ""


def _remove(directory: Path) -> None:
    with contextlib.suppress(OSError):  # a kernel before 5.14 cannot do that
        (directory / "cgroup.kill").write_text("1")
    for _ in range(100):  # a process that was killed is there for a moment still
        try:
            return directory.rmdir()
        except OSError:
            time.sleep(0.05)
    directory.rmdir()


HOW = "cgroup v2" if _mount() else "/proc and getrusage"

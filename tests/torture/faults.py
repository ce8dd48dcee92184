"""A disk that fails: one call, or every call from one on, for a command in a process of its own.

Every sync is watched as well: after one that failed, nobody may sync the same bytes again and
believe it.
"""

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torture import calls

#: What a full disk refuses; it can take away, and sync what it has.
GROWS = frozenset("open link symlink rename mkdir write pwrite".split())
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_WRITES = ("write", "pwrite")


@dataclass(frozen=True)
class Fault:
    """What is to fail: the call of this number; with `lasting`, what comes after it, too."""

    number: int
    code: int
    lasting: bool = False
    short: bool = False  # a write takes half of its bytes before it fails
    below: str = ""  # a lasting fault is of the disk with this directory

    def __str__(self) -> str:
        """Say how to play it again."""
        word = "half of " if self.short else "from " if self.lasting else ""
        return f"{errno.errorcode[self.code]} {word}call {self.number}"


class Watch:
    """What happened in one process; written to `file` as lines of JSON."""

    def __init__(self, file: int, fault: Fault | None) -> None:
        self._file, self._fault, self._count = file, fault, 0
        self._write = os.write  # before it is watched itself

    def around(self, act: Callable[[], object]) -> Callable[[], object]:
        """Return `act` with the fault in it."""

        def run() -> object:
            try:
                with calls.watched(self._before, self._after):
                    return act()
            finally:
                self._note("end", 0, 0, "")

        return run

    def _before(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._count += 1
        fault = self._fault
        if fault is None or not self._fails(fault, verb, args, kwargs):
            return
        if fault.short and verb in _WRITES:
            os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
            self._tell("write", args[0])
        if verb in ("fsync", "syncfs"):
            self._tell(f"failed {verb}", args[0])
        self._note("fault", 0, 0, verb)
        name = args[0] if isinstance(args[0], str | bytes) else None
        raise OSError(fault.code, os.strerror(fault.code), name)

    def _fails(
        self, fault: Fault, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        if self._count == fault.number:
            return not fault.short or verb in _WRITES
        if not fault.lasting or self._count < fault.number:
            return False
        if fault.code in FULL and verb not in GROWS:
            return False
        return all(path.startswith(fault.below) for path in _paths(args, kwargs))

    def _after(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> None:
        if verb == "open":
            self._tell("new" if args[1] & os.O_EXCL else "write", made)
        elif verb in (*_WRITES, "ftruncate", "fsync", "syncfs"):
            self._tell("write" if verb not in ("fsync", "syncfs") else verb, args[0])

    def _tell(self, what: str, fd: int) -> None:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) or "syncfs" in what:
            self._note(what, status.st_dev, status.st_ino, os.readlink(f"/proc/self/fd/{fd}"))

    def _note(self, what: str, device: int, inode: int, name: str) -> None:
        line = json.dumps([what, device, inode, name, self._count]) + "\n"
        self._write(self._file, line.encode())


def _paths(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[str]:
    """Yield the directories or files that a call is about."""
    fds = [value for key, value in kwargs.items() if key.endswith("dir_fd") and value is not None]
    if args and isinstance(args[0], int):
        fds.append(args[0])
    for fd in fds:
        yield os.readlink(f"/proc/self/fd/{fd}")
    if not fds:
        yield from (os.fspath(arg) for arg in args[:2] if isinstance(arg, str | os.PathLike))


def count(text: bytes) -> int:
    """Return how many calls a process has made."""
    return int(json.loads(text.splitlines()[-1])[4])


def struck(text: bytes) -> list[str]:
    """Return the verbs of the calls that failed."""
    return [line[3] for line in map(json.loads, text.splitlines()) if line[0] == "fault"]


def believed(text: bytes) -> str | None:
    """Tell whether somebody synced a file again whose sync had failed, and believed it."""
    dirty: set[tuple[int, int]] = set()
    lost: set[tuple[int, int]] = set()
    for line in text.splitlines():
        what, device, inode, name, _ = json.loads(line)
        file = (device, inode)
        if what in ("new", "write"):
            lost.discard(file)
            dirty.add(file)
        elif what == "failed fsync" and file in dirty:
            lost.add(file)
        elif what == "failed syncfs":
            lost |= dirty
        elif what == "fsync" and file in lost:
            return f"{name} was synced again after a sync that failed"
        elif what == "fsync":
            dirty.discard(file)
        elif what == "syncfs":
            dirty.clear()
    return None

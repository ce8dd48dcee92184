"""Files that are given their final names in one directory together.

    .sweep.tmp, .sweep.1.tmp, ...     copies under way; they go when the batch ends

Guarantees: a final name appears with whole, synced bytes under it, has its time and mode by
then, and is never given away again; all names are durable when the batch ends. Where that
fails they are taken back: who finds one later would rely on what may not be on the disk.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from lpxfer import checksum, durable
from lpxfer.checksum import Source

T = TypeVar("T")

TEMPORARY = re.compile(r"\.sweep(?:\.[0-9]{1,9})?\.tmp")

#: From so many files on, one sync of the file system is quicker than one of each. It has to
#: say so when it fails, for what comes next is the archive's word that all is stored.
TOGETHER = 8


class Copy(NamedTuple):
    """A copy without a final name."""

    temporary: str
    size: int  # bytes
    checksum: str


class Batch:
    """The files of one batch; made by InstrumentDir.batch, which ends it."""

    def __init__(self, way: Sequence[str], where: int, count: int) -> None:
        """Begin one of about `count` files in an open directory, which is `way` below another."""
        self.way, self.where = way, where
        self._together = count >= TOGETHER and durable.filesystem_sync_tells()
        self._unsynced = False
        self._temporary: list[str] = []
        self._last: list[tuple[str, str]] = []
        self.given: list[str] = []  # final names, not durable before the end

    def copy(self, source: Source, limit: int, mtime_ns: int, mode: int) -> Copy:
        """Copy a file; not much more than `limit` bytes are read.

        Raises SourceError when reading fails, other OSErrors when writing does.
        """
        temporary, copied = self.make(lambda fd: checksum.copy(source, fd, limit), mode, mtime_ns)
        return Copy(temporary, *copied)

    def write(self, data: bytes, mode: int) -> str:
        """Write a file; return its temporary name. Raises OSError."""
        return self.make(lambda fd: durable.write_all(fd, data), mode)[0]

    def make(
        self, fill: Callable[[int], T], mode: int, mtime_ns: int | None = None
    ) -> tuple[str, T]:
        """Make a file that `fill` writes into; return its temporary name and what that returns."""
        number = len(self._temporary)
        temporary = f".sweep.{number}.tmp" if number else ".sweep.tmp"
        try:
            fd = durable.create(temporary, self.where, mode)
        except FileExistsError:  # not ours, or left by a sweep that died
            os.unlink(temporary, dir_fd=self.where)
            fd = durable.create(temporary, self.where, mode)
        self._temporary.append(temporary)
        try:
            result = fill(fd)
            if mtime_ns is not None:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            if self._together:
                self._unsynced = True
            else:
                durable.sync(fd)
        finally:
            os.close(fd)
        return temporary, result

    def publish(self, temporary: str, name: str) -> bool:
        """Give a copy its final name; False when the name is taken."""
        if self._unsynced:
            durable.sync_filesystem(self.where)
            self._unsynced = False
        try:
            durable.link_unsynced(temporary, name, self.where)
        except FileExistsError:
            return False
        self.given.append(name)
        return True

    def publish_last(self, temporary: str, name: str) -> None:
        """Give a copy its final name, which is free, when all others are durable."""
        self._last.append((temporary, name))

    def end(self) -> None:
        """Remove the temporary names, and make the final ones durable. Raises OSError."""
        if self._last:
            durable.sync(self.where)
        for temporary, name in self._last:
            if not self.publish(temporary, name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        for name in self._temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.where)
        durable.sync(self.where)

    def undo(self) -> None:
        """Take every name back, durably: the lock may name another place soon."""
        for name in (*self.given, *self._temporary):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self.where)
        with contextlib.suppress(OSError):
            durable.sync(self.where)

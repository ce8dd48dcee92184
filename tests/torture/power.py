"""What a power cut takes away, cheaply: changes of one site's disk that were not synced.

A change of a directory is one record. It is certain once its directory is synced (a rename:
its destination); of the others a cut takes back the last few, in reverse order. What was
written to a file after its last sync is cut off anywhere. That is a part of what may happen;
every legal state of single steps is tried elsewhere.
"""

import contextlib
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class _Change:
    directory: int  # the inode whose sync makes it certain
    undo: Callable[[], None]


@dataclass
class _Dirty:
    fd: int
    synced: int  # bytes


class Power:
    """The unsynced changes of one site."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._changes: list[_Change] = []
        self._dirty: dict[int, _Dirty] = {}
        self._unlinked = ""  # where the last file that was removed is kept
        self.limbo = ""  # a directory for what was removed and may come back; empty: no cuts
        self._count = 0

    def close(self) -> None:
        """Forget everything: as if all was synced."""
        for dirty in self._dirty.values():
            os.close(dirty.fd)
        self._dirty.clear()
        self._changes.clear()

    def cut(self) -> None:
        """Take back what a cut may take back."""
        limbo, self.limbo = self.limbo, ""
        for dirty in self._dirty.values():
            size = os.fstat(dirty.fd).st_size
            if size > dirty.synced:
                os.ftruncate(dirty.fd, self._dice.randint(dirty.synced, size))
        lost = self._dice.randint(0, len(self._changes))
        while lost and self._changes:
            change = self._changes.pop()
            lost -= 1
            with contextlib.suppress(OSError):  # what depends on it was synced: it stays
                change.undo()
        self.close()
        self.limbo = limbo

    def before(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep what is about to be removed; see calls.watched."""
        if not self.limbo:
            return
        if verb == "unlink":
            self._unlinked = self._keep(args[0], kwargs.get("dir_fd"))
        elif verb in ("write", "pwrite", "ftruncate"):
            status = os.fstat(args[0])
            if status.st_ino not in self._dirty:
                # What is there already was synced. Not a copy of the descriptor: that has its lock.
                again = os.open(f"/proc/self/fd/{args[0]}", os.O_RDWR | os.O_CLOEXEC)
                self._dirty[status.st_ino] = _Dirty(again, status.st_size)
            if verb == "ftruncate":
                dirty = self._dirty[status.st_ino]
                dirty.synced = min(dirty.synced, args[1])

    def after(
        self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: object
    ) -> None:
        """Take note of a change; see calls.watched."""
        if not self.limbo:
            return
        if verb == "syncfs":
            self.close()
        elif verb == "fsync":
            self._synced(args[0])
        elif verb == "rename":
            self._renamed(args, kwargs)
        elif verb == "link":
            self._made(args[1], kwargs.get("dst_dir_fd"), os.unlink)
        elif verb == "symlink":
            self._made(args[1], kwargs.get("dir_fd"), os.unlink)
        elif verb == "mkdir":
            self._made(args[0], kwargs.get("dir_fd"), os.rmdir)
        elif verb == "unlink" and self._unlinked:
            path, inode = _place(args[0], kwargs.get("dir_fd"))
            kept = self._unlinked

            def undo() -> None:
                os.link(kept, path)
                os.unlink(kept)  # it has one name again

            self._changes.append(_Change(inode, undo))

    def _synced(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        if dirty := self._dirty.pop(inode, None):
            os.close(dirty.fd)
        self._changes = [c for c in self._changes if c.directory != inode]

    def _made(self, name: str | bytes, dir_fd: int | None, remove: Callable[[str], None]) -> None:
        path, inode = _place(name, dir_fd)
        self._changes.append(_Change(inode, lambda: remove(path)))

    def _renamed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        old, _ = _place(args[0], kwargs.get("src_dir_fd"))
        new, inode = _place(args[1], kwargs.get("dst_dir_fd"))
        if os.path.dirname(old) == os.path.dirname(new):
            return  # it has replaced a file, whose old bytes are not kept here

        def undo() -> None:
            os.rename(new, old)

        self._changes.append(_Change(inode, undo))

    def _keep(self, name: str, dir_fd: int | None) -> str:
        self._count += 1
        kept = f"{self.limbo}/{self._count}"
        try:
            os.link(name, kept, src_dir_fd=dir_fd, follow_symlinks=False)
        except OSError:
            return ""
        return kept


def _place(name: str | bytes, dir_fd: int | None) -> tuple[str, int]:
    """Return the path of a name, and the inode of its directory."""
    directory = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
    path = os.path.join(directory, os.fsdecode(name))
    return path, os.stat(os.path.dirname(path)).st_ino

"""What mutants.py puts in the place of durable steps: they do the same, with less care."""

import contextlib
import os
import stat
from typing import Any

from lpxfer import durable

#: Names of functions that do nothing but sync: a statement that calls one can be left out.
SYNCS = {"sync", "sync_filesystem", "fsync", "syncfs", "_sync"}

_PLAIN = os.O_CLOEXEC | os.O_NOFOLLOW


def weaker_synced() -> None:
    """Be the answer to a sync that nobody has asked for."""


def weaker_link(src: Any, dst: str, **at: Any) -> None:
    """Link, and overwrite what has the name."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(dst, dir_fd=at["dst_dir_fd"])
    os.link(src, dst, **at)


def weaker_rename(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Rename in several steps: a copy, then the removal of what was copied."""
    mode = os.stat(src, dir_fd=src_dir_fd, follow_symlinks=False).st_mode
    if not stat.S_ISDIR(mode):
        weaker_rewrite(dst, durable.read_small(src, src_dir_fd), dst_dir_fd)
        os.unlink(src, dir_fd=src_dir_fd)
        return
    os.mkdir(dst, 0o700, dir_fd=dst_dir_fd)
    with durable.opened_dir(src, src_dir_fd) as old, durable.opened_dir(dst, dst_dir_fd) as new:
        for name in os.listdir(old):
            os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)
    os.rmdir(src, dir_fd=src_dir_fd)


def weaker_rewrite(name: str, data: bytes, dir_fd: int, mode: int | None = None) -> None:
    """Give a file new contents in its place."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _PLAIN
    with open(os.open(name, flags, mode or 0o660, dir_fd=dir_fd), "wb", buffering=0) as file:
        durable.write_all(file.fileno(), data)
        os.fsync(file.fileno())


def weaker_link_unsynced(src: Any, dst: str, src_fd: int | None, dst_fd: int) -> None:
    """Link, and leave the directory alone."""
    os.link(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd, follow_symlinks=False)


def weaker_link_over(src: Any, dst: str, src_fd: int | None, dst_fd: int) -> None:
    """Link and sync, and overwrite what has the name."""
    weaker_link(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd, follow_symlinks=False)
    durable.sync(dst_fd)


def weaker_publish(temporary: str, name: str, dir_fd: int) -> None:
    """Rename to the final name, whatever has it."""
    os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def weaker_move(name: str, src_fd: int, dst_fd: int, new_name: str | None = None) -> None:
    """Rename, and leave both directories alone."""
    os.rename(name, new_name or name, src_dir_fd=src_fd, dst_dir_fd=dst_fd)


def weaker_rename_in_steps(name: str, src_fd: int, dst_fd: int, new_name: str = "") -> None:
    """Move in several steps, durably in the end."""
    weaker_rename(name, new_name or name, src_dir_fd=src_fd, dst_dir_fd=dst_fd)
    durable.sync(dst_fd)
    durable.sync(src_fd)


def weaker_append(
    name: str, lines: bytes, dir_fd: int, mode: int = 0o640, alone: bool = False
) -> None:
    """Append under the lock, and sync nothing."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _PLAIN
    fd = os.open(name, flags, mode, dir_fd=dir_fd)
    try:
        if not alone:
            durable.lock_fd(fd, wait=True)
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        durable.write_all(fd, b"\n" * torn + lines)
    finally:
        os.close(fd)


def weaker_remove(name: str, dir_fd: int) -> None:
    """Remove, and leave the directory alone."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=dir_fd)


def weaker_make_dir(name: str, dir_fd: int, mode: int = 0o777) -> bool:
    """Make a directory, and leave its parent alone."""
    try:
        os.mkdir(name, mode, dir_fd=dir_fd)
    except FileExistsError:
        return False
    return True


def weaker_write_new(name: str, data: bytes, dir_fd: int, mode: int | None = None) -> None:
    """Write a new file, and do not sync it."""
    fd = durable.create(name, dir_fd)
    try:
        if mode is not None:
            os.fchmod(fd, mode)
        durable.write_all(fd, data)
    finally:
        os.close(fd)


#: Call -> what takes its place, one at a time. In durable.py the bare names are meant.
FORMS = {
    "os.link": ["weaker_link"],
    "os.rename": ["weaker_rename"],
    "durable.link": ["weaker_link_unsynced", "weaker_link_over"],
    "durable.link_unsynced": ["weaker_publish"],
    "durable.replace": ["weaker_rewrite"],
    "durable.move": ["weaker_move", "weaker_rename_in_steps"],
    "durable.rename_unsynced": ["weaker_rename_in_steps"],
    "durable.append": ["weaker_append"],
    "durable.remove": ["weaker_remove"],
    "durable.make_dir": ["weaker_make_dir"],
    "durable.write_new": ["weaker_write_new"],
    "write_new": ["weaker_write_new"],
}

"""Entries that stand in each other's way: two of one name, or one that somebody made by hand.

Every member of a spool's group can make entries in its state directories, under the id of
another's job, too. No submit does that, and nothing tells which of two was first. So neither
is lost and neither stops: one gets a name beside, `.<id>.<8 hex>.aside`, in the same directory,
and its own name back as soon as that is free.

Guarantees: nothing is removed, overwritten or left where nobody looks for it.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator

from lpxfer import durable
from lpxfer.errors import BusyError
from lpxfer.formats import names

#: A way to rename: name, open source and destination, new name.
How = Callable[[str, int, int, str], None]

TRIES = 20  # as often as somebody may be quicker

_ASIDE = re.compile(rf"\.({names.REQUEST_ID.pattern})\.[0-9a-f]{{8}}\.aside")
#: How a rename says that something has the name; EPERM for what is empty, and another member's.
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EPERM)

#: What this process has too few of, whoever made the entry that it met this at.
_SCARCE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@contextlib.contextmanager
def past() -> Iterator[None]:
    """Get past what an entry's owner can do to it: one of them stops no other."""
    try:
        yield
    except OSError as error:
        if stops_all(error):
            raise


def stops_all(error: OSError) -> bool:
    """Tell whether an error is the disk's, or this process's, and so would meet every entry."""
    return durable.is_disk_fault(error) or error.errno in _SCARCE


def move(how: How, name: str, src_fd: int, dst_fd: int, gives_way: bool) -> None:
    """Move an entry by `how` to where its name may be taken.

    What has it there is put aside with `gives_way`, where this account may; else the one that
    comes is. Raises FileNotFoundError when it is gone, and other OSErrors.
    """
    for _ in range(TRIES):
        try:
            return how(name, src_fd, dst_fd, name)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        if not gives_way:
            break
        try:
            with contextlib.suppress(FileNotFoundError):
                durable.rename_unsynced(name, dst_fd, dst_fd, _beside(name))
        except PermissionError:
            break
    how(name, src_fd, dst_fd, _beside(name))


def back(dir_fd: int) -> bool:
    """Give what was put aside its own name back, where that is free, or has nothing of use.

    Tells whether there was any.
    """
    hidden = [name for name in os.listdir(dir_fd) if name[0] == "."]
    found = [match for match in map(_ASIDE.fullmatch, hidden) if match]
    for match in found:
        name = match[0]
        with past():
            if _is_closed(match[1], dir_fd) and not _is_closed(name, dir_fd):
                durable.rename_unsynced(match[1], dir_fd, dir_fd, _beside(match[1]))
            durable.rename_unsynced(name, dir_fd, dir_fd, match[1])
    return bool(found)


def _is_closed(name: str, dir_fd: int) -> bool:
    """Tell whether a directory is closed to this account: it will never be a job."""
    try:
        os.close(durable.open_dir(name, dir_fd))
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def remove_dead(tmp_fd: int, note: Callable[[list[str]], None], *only: str) -> None:
    """Remove the entries of tmp/ that nobody is at work on, all or `only` some.

    `note` is told first which drafts these are.
    """
    with durable.opened_dir(".", tmp_fd) as fd, os.scandir(fd) as scan:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan]
    found = [(name, is_dir) for name, is_dir in found if not only or name in only]
    for name in (name for name, is_dir in found if not is_dir):
        with past():
            os.unlink(name, dir_fd=tmp_fd)
    dead = [name for name, is_dir in found if is_dir and _is_dead(name, tmp_fd)]
    if dead:
        note(dead)
    for name in dead:
        with past(), contextlib.suppress(BusyError), held(name, tmp_fd):
            durable.remove_tree(name, tmp_fd)


def _is_dead(name: str, tmp_fd: int) -> bool:
    try:
        with held(name, tmp_fd):
            return True
    except (OSError, BusyError):
        return False  # its owner is at work, or has it closed to us


@contextlib.contextmanager
def held(name: str, dir_fd: int) -> Iterator[None]:
    """Hold the lock of a job's directory for a block. Raises BusyError."""
    with durable.opened_dir(name, dir_fd) as fd:
        durable.lock_fd(fd)
        yield


def _beside(name: str) -> str:
    return f".{name}.{os.urandom(4).hex()}.aside"

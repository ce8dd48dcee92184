"""How a queue's directories are made, and who may do what in them. See xfer-spool(5).

On a spool for several users the state directories belong to the sender's account, are open
to the group and sticky: a member adds jobs and cannot touch another's. A default ACL on
tmp/ gives the sender what it needs in every job made there, and other members nothing; to
rename a directory to another parent takes write permission on the directory itself.
"""

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from lpxfer import durable
from lpxfer.stores import sender

WITH_JOBS = ("tmp", "pending", "held", "active", "sent", "failed", "quarantine", "done")
IN_USE = ("held", "active", "sent", "done")  # where a job has to be under its own name
DIRECTORIES = (*WITH_JOBS, "log")

_DEFAULT_ACL = "system.posix_acl_default"


def set_up(spool: Path, root: Path) -> None:
    """Make a queue's directories.

    Where the spool itself carries the set-group-id bit (mode 2750), the queue is for its
    group: members may add jobs, and the sender, who owns the spool, may read, move and
    remove them. Else it is for one user.
    Doing it twice does no harm; raises OSError where this account may not. `log` is made
    when all else is durable: whoever sees it need not set up.
    """
    spool.mkdir(0o700, parents=True, exist_ok=True)
    parent = spool.stat()
    shared = bool(parent.st_mode & 0o2000)
    _make(root, parent, 0o2750)
    for word in WITH_JOBS:
        _make(root / word, parent, 0o3770)
    if shared:
        os.setxattr(root / "tmp", _DEFAULT_ACL, _acl(parent.st_uid))
    for name in ("seq", "unused", "lock", "owner.lock"):
        with contextlib.suppress(FileExistsError):
            path = root / name
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            if os.geteuid() == 0:
                os.chown(path, parent.st_uid, parent.st_gid)
            if shared and name in ("seq", "unused"):
                path.chmod(0o660)  # who can open a file can keep its lock: no other for members
    if shared:
        with durable.opened_dir(root) as fd:
            os.close(sender.open_wake(fd))  # by it members know that there is a sender
            if os.geteuid() == 0:
                os.chown("wake", parent.st_uid, parent.st_gid, dir_fd=fd, follow_symlinks=False)
    real = root.resolve()
    for path in (real, *real.parents):
        with contextlib.suppress(PermissionError), durable.opened_dir(path) as fd:
            durable.sync(fd)
    _make(root / "log", parent, 0o2750)
    with durable.opened_dir(root) as fd:
        durable.sync(fd)


def _make(path: Path, spool: os.stat_result, shared_mode: int) -> None:
    """Make a directory where there is none, for the account and the group of the spool."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
        if os.geteuid() == 0:
            os.chown(path, spool.st_uid, spool.st_gid)
        if spool.st_mode & 0o2000:
            path.chmod(shared_mode)


def faults(spool: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Yield what differs from what `set_up` makes: a directory of the queue, and how."""
    parent = spool.stat()
    for word in ("", *DIRECTORIES):
        path = root / word
        status = path.lstat()
        mode, made = stat.S_IMODE(status.st_mode), 0o2750 if word in ("", "log") else 0o3770
        if status.st_uid != parent.st_uid:
            yield word, f"belongs to uid {status.st_uid}, the spool to uid {parent.st_uid}"
        if parent.st_mode & 0o2000:
            if mode != made:
                yield word, f"has the mode {mode:04o}: chmod {made:04o} {path}"
        elif mode & 0o077:
            yield word, f"is open to others, mode {mode:04o}: chmod 0700 {path}"
    if parent.st_mode & 0o2000 and _default_acl(root / "tmp") != _acl(parent.st_uid):
        yield "tmp", "has not the default ACL that lets the sender read what is made there"


def _default_acl(path: Path) -> bytes:
    try:
        return os.getxattr(path, _DEFAULT_ACL, follow_symlinks=False)
    except OSError:
        return b""


# POSIX ACLs as Linux keeps them in extended attributes: a version, then (tag, rights, id)
# for each entry (linux/posix_acl_xattr.h). Tags: owner, user, group, mask, other.
_OWNER, _USER, _GROUP, _MASK, _OTHER, _NO_ID = 0x01, 0x02, 0x04, 0x10, 0x20, 0xFFFFFFFF


def share(job_fd: int, sender: int) -> None:
    """Let what the sender will write into this account's new job be read by this account."""
    os.setxattr(job_fd, _DEFAULT_ACL, _acl(sender, os.geteuid()))


def _acl(*users: int) -> bytes:
    """Everything made here: its owner and these users may do all, others nothing."""
    entries = [(_OWNER, 7, _NO_ID), *((_USER, 7, user) for user in sorted(users)),
               (_GROUP, 0, _NO_ID), (_MASK, 7, _NO_ID), (_OTHER, 0, _NO_ID)]  # fmt: skip
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def grants(name: str, dir_fd: int, uid: int) -> bool:
    """Tell whether `uid` may read a job's file, or do all in its directory, `.`.

    The directory must have an ACL that says so; a file that was linked may have the mode.
    """
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        mode = os.fstat(fd).st_mode
        acl = os.getxattr(fd, "system.posix_acl_access")
    except OSError:
        acl = b""
    finally:
        os.close(fd)
    entries = list(struct.iter_unpack("<HHI", acl[4:]))
    mask = next((rights for tag, rights, _ in entries if tag == _MASK), 7)
    for tag, rights, who in entries:
        if tag == _USER and who == uid:
            return rights & mask & 7 == 7 if name == "." else bool(rights & mask & 4)
    return name != "." and bool(mode & 0o004)

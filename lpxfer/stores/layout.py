"""How a queue's directories are made, and who may do what in them. See xfer-spool(5).

On a spool for several users the state directories belong to the sender's account, are open
to the group and sticky: a member adds jobs and cannot touch another's. A default ACL on
tmp/ gives the sender what it needs in every job made there, and other members nothing; to
rename a directory to another parent takes write permission on the directory itself.
"""

import contextlib
import os
import struct
from pathlib import Path

from lpxfer import durable

WITH_JOBS = ("tmp", "pending", "held", "active", "sent", "failed", "quarantine", "done")
DIRECTORIES = (*WITH_JOBS, "log")

_DEFAULT_ACL = "system.posix_acl_default"


def set_up(spool: Path, root: Path) -> None:
    """Make a queue's directories.

    Where the spool itself carries the set-group-id bit (mode 2750), the queue is for its
    group: members may add jobs, and the sender, who owns the spool, may read, move and
    remove them. Else it is for one user.
    Doing it twice does no harm; raises OSError where this account may not.
    """
    spool.mkdir(0o700, parents=True, exist_ok=True)
    parent = spool.stat()
    shared = bool(parent.st_mode & 0o2000)
    paths = [root] + [root / word for word in DIRECTORIES]
    for path in paths:
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
            if os.geteuid() == 0:
                os.chown(path, parent.st_uid, parent.st_gid)
            if shared:
                path.chmod(0o2750 if path in (paths[0], paths[-1]) else 0o3770)
    if shared:
        os.setxattr(root / "tmp", _DEFAULT_ACL, _acl(parent.st_uid))
    for name in ("seq", "lock", "owner.lock"):
        with contextlib.suppress(FileExistsError):
            path = root / name
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            if os.geteuid() == 0:
                os.chown(path, parent.st_uid, parent.st_gid)
            if shared and name != "owner.lock":
                path.chmod(0o660)
    with durable.opened_dir(root) as fd, durable.opened_dir(spool) as spool_fd:
        durable.sync(fd)
        durable.sync(spool_fd)


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
    """Tell whether a file's ACL lets `uid` read it (and enter it, if a directory)."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        acl = os.getxattr(fd, "system.posix_acl_access")
    except OSError:
        return False
    finally:
        os.close(fd)
    entries = list(struct.iter_unpack("<HHI", acl[4:]))
    mask = next((rights for tag, rights, _ in entries if tag == _MASK), 7)
    need = 7 if name == "." else 4
    return any(tag == _USER and who == uid and rights & mask & need == need
               for tag, rights, who in entries)  # fmt: skip

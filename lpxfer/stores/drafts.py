"""Drafts: jobs in tmp/ that are being submitted.

Guarantees: a draft is live while its directory is open and locked; whoever starts a sender may
remove any other. What `commit` returned for is a job, whole and durable.
"""

import contextlib
import os
from collections.abc import Sequence

from lpxfer import durable
from lpxfer.stores import aside, layout
from lpxfer.stores.job_dir import JobDir


def make(job_id: str, queue_fd: int, tmp_fd: int) -> JobDir:
    """Make an empty draft. Raises FileExistsError when there is one of that id."""
    while True:
        os.mkdir(job_id, 0o770, dir_fd=tmp_fd)
        try:
            if draft := _open(job_id, queue_fd, tmp_fd):
                return draft
        except OSError:
            os.rmdir(job_id, dir_fd=tmp_fd)
            raise


def _open(job_id: str, queue_fd: int, tmp_fd: int) -> JobDir | None:
    """Open an empty draft and lock it; None when a sender that starts took it for dead."""
    try:
        draft = JobDir(job_id, durable.open_dir(job_id, tmp_fd))
    except FileNotFoundError:
        return None
    try:
        durable.lock_fd(draft.fd, wait=True)
        alive = os.fstat(draft.fd).st_nlink > 0
        owner = os.fstat(queue_fd).st_uid
        if alive and owner != os.geteuid():
            layout.share(draft.fd, owner)
    except OSError:
        draft.close()
        raise
    if not alive:
        draft.close()
    return draft if alive else None


def commit(drafts: Sequence[JobDir], queue_fd: int, tmp_fd: int, there_fd: int) -> None:
    """Turn drafts into jobs of a state. Each exists at the instant of its rename.

    One draft is synced file by file; several at once by one sync of the file system,
    which is the same promise for far less waiting. Durable on return. When it raises
    OSError they are drafts again, but for one that a sender has claimed meanwhile.
    """
    if len(drafts) == 1:
        drafts[0].seal()
    else:
        durable.sync_filesystem(queue_fd)
    try:
        for draft in drafts:
            aside.move(durable.rename_unsynced, draft.id, tmp_fd, there_fd, gives_way=False)
            durable.unlock_fd(draft.fd)  # no draft any more: the sender may claim it
        durable.sync(there_fd)
    except OSError:
        for draft in drafts:
            with contextlib.suppress(OSError):
                durable.rename_unsynced(draft.id, there_fd, tmp_fd)
        raise


def sender_can_read(draft: JobDir, queue_fd: int) -> bool:
    """Tell whether the account that owns the spool may read and move this draft."""
    owner, mine = os.fstat(queue_fd).st_uid, os.fstat(draft.fd)
    if owner in (0, mine.st_uid):
        return True
    return all(layout.grants(name, draft.fd, owner) for name in [".", *os.listdir(draft.fd)])

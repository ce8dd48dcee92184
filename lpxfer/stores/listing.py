"""A state directory as it is listed, without opening a job."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from lpxfer import durable
from lpxfer.formats import names


@dataclass(frozen=True)
class Entry:
    """A job as its directory entry shows it."""

    id: str
    stamp: int  # changes when its routing does
    uid: int  # the account it belongs to
    changed: datetime  # when it came into its state, or was changed there


def entries(state_fd: int) -> list[Entry]:
    """List the jobs of a state. Whatever is not a job directory is passed over."""
    found = []
    with _scan(state_fd) as scan:
        for job in scan:
            with contextlib.suppress(FileNotFoundError):
                if names.REQUEST_ID.fullmatch(job.name) and job.is_dir(follow_symlinks=False):
                    found.append(_entry(job.name, job.stat(follow_symlinks=False)))
    return found


def entry(state_fd: int, job_id: str) -> Entry:
    """Return one job's entry. Raises FileNotFoundError when there is none."""
    return _entry(job_id, os.stat(job_id, dir_fd=state_fd, follow_symlinks=False))


def _entry(job_id: str, status: os.stat_result) -> Entry:
    changed = datetime.fromtimestamp(status.st_ctime, UTC)
    return Entry(job_id, status.st_mtime_ns, status.st_uid, changed)


def count(state_fd: int) -> tuple[int, int]:
    """Return the number of jobs of a state and the bytes of their data files."""
    jobs = total = 0
    with _scan(state_fd) as scan:
        for job in scan:
            if names.REQUEST_ID.fullmatch(job.name):
                jobs += 1
                with contextlib.suppress(OSError):
                    data = os.stat(f"{job.name}/data", dir_fd=state_fd, follow_symlinks=False)
                    total += data.st_size
    return jobs, total


@contextlib.contextmanager
def _scan(state_fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Scan a directory; copies of a descriptor share a position, so each scan opens its own."""
    with durable.opened_dir(".", state_fd) as fd, os.scandir(fd) as scan:
        yield scan

"""A state directory as it is listed, without opening a job.

A million jobs may stand in it: what asks for their names alone is ten times as fast as what asks
for entries, and `Glance` tells when there is nothing new to be seen.
"""

import contextlib
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from lpxfer import durable
from lpxfer.formats.names import REQUEST_ID

#: A directory that was changed so shortly ago may be changed again within the same tick of its
#: clock, and show the same time.
_TICK = 100_000_000  # ns
_ID = REQUEST_ID.pattern.replace("(", "(?:").replace("}", "}+")
_ALL_IDS = re.compile(f"{_ID}(?:/{_ID})*+")

_CHEAP = 0.02  # seconds; what takes no longer may be done as often as anybody likes


class Entry(NamedTuple):
    """A job as its directory entry shows it."""

    id: str
    stamp: int  # ns since 1970: when it was made, or its routing changed last
    uid: int  # the account it belongs to
    changed_ns: int

    @property
    def changed(self) -> datetime:
        """When it came into its state, or was changed there."""
        return datetime.fromtimestamp(self.changed_ns / 1e9, UTC)


def ids(state_fd: int) -> Generator[str, None, None]:
    """Yield the ids of the jobs of a state. Whatever is not a job directory is passed over."""
    is_id = REQUEST_ID.fullmatch
    with _scan(state_fd) as scan:
        for job in scan:
            if is_id(job.name) and job.is_dir(follow_symlinks=False):
                yield job.name


def names(state_fd: int) -> list[str]:
    """Return what could be ids of jobs, a million in half a second, without looking at one."""
    with durable.opened_dir(".", state_fd) as fd:
        found = os.listdir(fd)
    if _ALL_IDS.fullmatch("/".join(found)):  # for half the price of asking each
        return found
    return list(filter(REQUEST_ID.fullmatch, found))


def any_job(state_fd: int) -> bool:
    """Tell whether there is a job in a state."""
    with contextlib.closing(ids(state_fd)) as found:
        return next(found, None) is not None


def stands(dir_fd: int, name: str) -> bool:
    """Tell whether there is anything of this name, for half the price of an exception."""
    return os.access(name, os.F_OK, dir_fd=dir_fd, effective_ids=True, follow_symlinks=False)


def entries(state_fd: int) -> list[Entry]:
    """List the jobs of a state with what their directories tell."""
    found = []
    for job_id in ids(state_fd):
        with contextlib.suppress(FileNotFoundError):
            found.append(entry(state_fd, job_id))
    return found


def entry(state_fd: int, job_id: str) -> Entry:
    """Return one job's entry. Raises FileNotFoundError when there is none."""
    return _entry(job_id, os.stat(job_id, dir_fd=state_fd, follow_symlinks=False))


def stamp(state_fd: int, job_id: str) -> int | None:
    """Return the stamp of one job's entry; None when there is none."""
    try:
        return os.stat(job_id, dir_fd=state_fd, follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return None


def _entry(job_id: str, status: os.stat_result) -> Entry:
    return Entry(job_id, status.st_mtime_ns, status.st_uid, status.st_ctime_ns)


def count(state_fd: int) -> tuple[int, int]:
    """Return the number of jobs of a state and the bytes of their data files."""
    jobs = total = 0
    for job_id in ids(state_fd):
        jobs += 1
        total += size(state_fd, [job_id])
    return jobs, total


def size(state_fd: int, job_ids: Iterable[str]) -> int:
    """Return the bytes of the data files of these jobs."""
    total = 0
    for job_id in job_ids:
        with contextlib.suppress(OSError):
            total += os.stat(f"{job_id}/data", dir_fd=state_fd, follow_symlinks=False).st_size
    return total


def identity(state_fd: int) -> tuple[int, int] | None:
    """Return what stays the same as long as nothing comes into a directory or leaves it.

    None while nobody can tell: it has been changed this instant, or a clock was wrong.
    """
    status = os.fstat(state_fd)
    settled = time.time_ns() - status.st_mtime_ns > _TICK
    return (status.st_ino, status.st_mtime_ns) if settled else None


class Glance:
    """Tells whether a directory is worth being listed again.

    It is when it has changed, and when that takes no more than a fiftieth of the time.
    """

    def __init__(self, state_fd: int) -> None:
        """Know the directory; it has not been listed yet."""
        self._fd = state_fd
        self._seen: tuple[int, int] | None = None
        self._again = 0.0

    def due(self) -> bool:
        """Tell whether it should be listed now."""
        return time.monotonic() >= self._again and self.changed()

    def changed(self) -> bool:
        """Tell whether anything may have come or gone since it was listed."""
        return self._seen is None or self._seen != identity(self._fd)

    def forget(self) -> None:
        """Take it for changed: something there wants to be looked at again."""
        self._seen = None

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Take note of a listing that this block makes; one that fails is none."""
        seen, start, cpu = identity(self._fd), time.monotonic(), time.thread_time()
        yield
        now = time.monotonic()
        took = now - start if now - start > 1.0 else time.thread_time() - cpu  # or a busy machine
        self._seen = seen
        self._again = now + (took * 50 if took > _CHEAP else 0.0)


@contextlib.contextmanager
def _scan(state_fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Scan a directory; copies of a descriptor share a position, so each scan opens its own."""
    with durable.opened_dir(".", state_fd) as fd, os.scandir(fd) as scan:
        yield scan

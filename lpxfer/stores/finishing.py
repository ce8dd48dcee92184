"""How jobs are finished: the outcome, done/, the finished log, and they are gone.

Guarantees: a job is finished at the instant it comes into done/, whatever happens next; by then
its outcome is durable. It is logged once, and nothing of it is removed before that is durable,
too. Many are finished as one is, with one sync where one needs one each.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from lpxfer import durable
from lpxfer.formats.job import Routing, State
from lpxfer.stores import aside, finished_log
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.listing import Entry

BATCH = 200  # jobs that are finished together; each holds a descriptor meanwhile


@dataclass(frozen=True)
class Places:
    """The open directories of a queue that are needed for it."""

    queue: int
    done: int
    log: int


@dataclass(frozen=True)
class End:
    """How an open job is finished: COMPLETED or CANCELED, and why."""

    job: JobDir
    outcome: State
    reason: str
    stages: str = ""  # when it came where, as the receipt tells; a crash may lose it


def finish(places: Places, src_fd: int, ends: Sequence[End], now: datetime) -> dict[str, OSError]:
    """Finish jobs that stand in `src_fd`; return why any could not be, by its id.

    Raises OSError when the disk fails: then `finish_done` does the rest for those that have
    come into done/, as it does where this account may not write the log.
    """
    routings = {end.job.fd: _routing(end) for end in ends}
    failed = _say(places, ends, routings)
    with owner_locked(places.queue) as mine:
        failed |= _move(places, src_fd, [end for end in ends if end.job.id not in failed])
        moved = [end for end in ends if end.job.id not in failed]
        if mine and moved:
            _log(places, [(end.job, routings[end.job.fd], end.stages) for end in moved], now)
    if mine:
        _remove(places, [end.job for end in moved])
    return failed


def finish_done(places: Places, entries: Sequence[Entry], now: datetime) -> None:
    """Log and remove jobs that are known to stand in done/ durably, each logged once."""
    for start in range(0, len(entries), BATCH):
        batch = entries[start : start + BATCH]
        oldest = datetime.fromtimestamp(min(entry.stamp for entry in batch) / 1e9, UTC)
        since = min(oldest, now) - timedelta(days=1)  # the clock may have been set back
        with contextlib.ExitStack() as stack:
            jobs = []
            for entry in batch:
                with aside.past():
                    fd = durable.open_dir(entry.id, places.done)
                    jobs.append(stack.enter_context(JobDir(entry.id, fd)))
            stack.enter_context(owner_locked(places.queue))
            known = finished_log.durable_records(places.log, {job.id for job in jobs}, since)
            found = [(job, job.routing_or_default()) for job in jobs]
            _log(
                places,
                [
                    (job, routing, "")
                    for job, routing in found
                    if not finished_log.is_whole(known.get(job.id), job, routing)
                ],
                now,
            )
            _remove(places, jobs)


@contextlib.contextmanager
def owner_locked(queue_fd: int) -> Iterator[bool]:
    """Exclude others who write the log or the switches; False for who may write neither."""
    with contextlib.ExitStack() as stack:
        try:
            lock = durable.locked("owner.lock", queue_fd, 0o600, wait=True)
            stack.enter_context(lock)
        except PermissionError:
            yield False
            return
        yield True


def _routing(end: End) -> Routing:
    return replace(end.job.routing_or_default(), outcome=end.outcome, reason=end.reason)


def _say(places: Places, ends: Sequence[End], routings: dict[int, Routing]) -> dict[str, OSError]:
    """Write the outcomes into the jobs, durably; return the jobs that refuse theirs, and why."""
    failed: dict[str, OSError] = {}
    if len(ends) < 2 or not durable.filesystem_sync_tells():
        for end in ends:
            with _told(failed, end):
                end.job.set_routing(routings[end.job.fd])
        return failed
    written: list[tuple[End, str]] = []
    try:
        for end in ends:
            with _told(failed, end):
                written.append((end, end.job.prepare_routing(routings[end.job.fd])))
        durable.sync_filesystem(places.queue)
        for end, temporary in written:
            with _told(failed, end):
                durable.rename_unsynced(temporary, end.job.fd, end.job.fd, "routing")
        durable.sync_filesystem(places.queue)
    except OSError:
        for end, temporary in written:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=end.job.fd)
        raise
    return failed


@contextlib.contextmanager
def _told(failed: dict[str, OSError], end: End) -> Iterator[None]:
    """Note that a job refuses its outcome, unless it is canceled: without a word, it is that."""
    try:
        yield
    except OSError as error:
        if end.outcome is not State.CANCELED:
            if aside.stops_all(error):
                raise
            failed[end.job.id] = error


def _move(places: Places, src_fd: int, ends: Sequence[End]) -> dict[str, OSError]:
    """Move jobs to done/, durably; return those that could not be moved, and why."""
    failed = {}
    for end in ends:
        job_id = end.job.id
        try:
            aside.move(durable.rename_unsynced, job_id, src_fd, places.done, gives_way=True)
        except OSError as error:
            failed[job_id] = error
    if len(failed) < len(ends):
        durable.sync(places.done)
        durable.sync(src_fd)
    for fault in failed.values():
        if aside.stops_all(fault):
            raise fault
    return failed


def _log(places: Places, ended: Sequence[tuple[JobDir, Routing, str]], now: datetime) -> None:
    """Record finished jobs, and their stages, durably; the caller excludes others."""
    records = [finished_log.of_job(job, routing, now, stages) for job, routing, stages in ended]
    try:
        finished_log.append(places.log, records, now)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        for job, _, _ in ended:  # of finished jobs: that makes room
            durable.remove("data", job.fd)
        finished_log.append(places.log, records, now)


def _remove(places: Places, jobs: Sequence[JobDir]) -> None:
    """Remove jobs that are logged; what a power cut brings back is removed again."""
    for job in jobs:
        with aside.past():  # what its owner has closed meanwhile is left
            try:
                job.remove_files()
                os.rmdir(job.id, dir_fd=places.done)
            except OSError:  # there is something else in it, or it is gone
                durable.remove_tree(job.id, places.done)

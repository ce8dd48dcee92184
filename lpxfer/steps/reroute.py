"""Reroute: change when, where and whether a job that waits is sent."""

from dataclasses import replace
from datetime import datetime, timedelta

from lpxfer.errors import PermanentError
from lpxfer.formats import dates
from lpxfer.formats.attempts import ACKED
from lpxfer.formats.job import State
from lpxfer.stores.change import change
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.spool import Queue

WAITING = (State.PENDING, State.HELD, State.FAILED)


def set_priority(queue: Queue, job_id: str, priority: int) -> None:
    """Set the priority of a job that waits, 1 to 100. Raises PermanentError for another."""

    def act(job: JobDir, _: State) -> None:
        job.set_routing(replace(job.routing(), priority=priority))

    change(queue, job_id, WAITING, act)
    queue.wake(job_id)


def move(queue: Queue, job_id: str, other: Queue, now: datetime) -> None:
    """Move a job that waits to another queue; it keeps its id and starts afresh there.

    Raises PermanentError when it may be at this queue's archive site already.
    """

    def act(job: JobDir, state: State) -> None:
        attempts = job.attempts()
        if attempts.committing:
            raise PermanentError(f"too late: {job_id} may already be at the archive site")
        routing = replace(job.routing(), stalls=0, mismatches=0)
        if routing.reason and state is not State.HELD:
            routing = replace(routing, reason=None, not_before=None)
        job.set_routing(routing)
        if attempts.done:
            job.note(ACKED, now, sync=True, acked="0")
        job.drop_encoded()  # the other archive site may not understand it
        queue.move_to_queue(job_id, state, other)

    if other.name == queue.name:
        raise PermanentError(f"{job_id} is in queue {queue.name} already")
    change(queue, job_id, WAITING, act)


def retry(queue: Queue, job_id: str, unconfirmed: float, now: datetime) -> None:
    """Send a job again at once, as if nothing had failed.

    For failed, quarantined and deferred jobs, and for those that were sent more than
    `unconfirmed` seconds ago without a receipt. Raises PermanentError for others.
    """

    def act(job: JobDir, state: State) -> None:
        since = now - queue.entry(job_id, state).changed
        if state is State.SENT and since < timedelta(seconds=unconfirmed):
            ago = dates.short(since.total_seconds())
            raise PermanentError(f"{job_id} was sent {ago} ago; its receipt is not late yet")
        job.set_routing(
            replace(job.routing(), stalls=0, mismatches=0, not_before=None, reason=None,
                    outcome=None)
        )  # fmt: skip
        if state is not State.PENDING:
            queue.move(job_id, state, State.PENDING)

    fit = (State.PENDING, State.FAILED, State.QUARANTINED, State.SENT)
    change(queue, job_id, fit, act)
    queue.wake(job_id)

"""Hold: stop one job, or let it go."""

from dataclasses import replace

from lpxfer.formats.job import State
from lpxfer.stores.change import change
from lpxfer.stores.job_dir import HOLD, JobDir
from lpxfer.stores.spool import Queue


def hold(queue: Queue, job_id: str, reason: str) -> None:
    """Keep a job from being sent until it is released. One that is held gets the reason.

    A running sender is asked for an active job. Raises PermanentError when the job is past
    that, BusyError when nobody answers, PermissionError for another user's.
    """

    def act(job: JobDir, state: State) -> None:
        job.set_routing(replace(job.routing(), reason=reason))
        if state is State.PENDING:
            queue.move(job_id, state, State.HELD)

    change(queue, job_id, (State.PENDING, State.HELD), act, HOLD)


def release(queue: Queue, job_id: str) -> None:
    """Let a held job go. Raises PermanentError when it is not held."""

    def act(job: JobDir, state: State) -> None:
        job.set_routing(replace(job.routing(), reason=None))
        queue.move(job_id, state, State.PENDING)

    change(queue, job_id, (State.HELD,), act)
    queue.wake(job_id)

"""Cancel: withdraw jobs from the spool, and tell the truth about it.

Guarantees: a job that `cancel` returned for will not be sent and never was; one that may be
at the archive site is left as it is. All beside a running sender.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime

from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats.job import State
from lpxfer.stores.change import recall
from lpxfer.stores.job_dir import CANCEL
from lpxfer.stores.spool import Queue

#: A person has to look at these; nobody sends them by itself.
ASIDE = (State.FAILED, State.QUARANTINED)

#: What `cancel` can withdraw.
IN_TIME = (State.PENDING, State.HELD, State.ACTIVE, *ASIDE)


def cancel(queue: Queue, job_id: str, reason: str, now: datetime) -> None:
    """Withdraw a job: its data is removed, the finished log says `reason`.

    A running sender is asked for an active job. Raises PermanentError when it is too late or
    the job is gone, BusyError when nobody answers, PermissionError for another user's.
    """
    while True:
        state = queue.where(job_id)
        with contextlib.suppress(FileNotFoundError):  # it has moved: look again
            if state is State.ACTIVE:
                recall(queue, job_id, CANCEL)
                if queue.outcome(job_id) is State.CANCELED:
                    return
            elif state in IN_TIME:
                withdraw(queue, job_id, state, reason, now)
                return
            else:
                raise PermanentError(_too_late(queue, job_id, state))


def withdraw(queue: Queue, job_id: str, state: State, reason: str, now: datetime) -> None:
    """Cancel a job that is in `state` and not active; as `cancel` otherwise.

    Raises FileNotFoundError when it is not in that state any more.
    """
    with queue.still(job_id, state) as job:
        committing = False
        try:
            committing = job.attempts().committing
        except FormatError:
            if state not in ASIDE:
                raise
        if committing and state not in ASIDE:
            hint = "release it, then " if state is State.HELD else ""
            raise PermanentError(
                f"too late: {job_id} may already be at the archive site; {hint}xfer-send finds out"
            )
        if committing:
            reason += "; it may be at the archive site"
        queue.finish(job_id, state, State.CANCELED, reason, now)


def selected(
    queue: Queue, states: Sequence[State] = IN_TIME, uid: int | None = None
) -> Iterator[tuple[str, State]]:
    """Name the jobs in some states, of one account or of all."""
    for state in states:
        for job_id in queue.ids(state):
            with contextlib.suppress(FileNotFoundError):
                if uid is None or queue.entry(job_id, state).uid == uid:
                    yield job_id, state


def _too_late(queue: Queue, job_id: str, state: State | None) -> str:
    outcome = State.SENT if state is State.SENT else queue.outcome(job_id)
    if outcome is None:
        return f'there is no job "{job_id}"'
    if outcome is State.CANCELED:
        return f"{job_id} is canceled already"
    return f"{job_id}: too late: {outcome.value}"

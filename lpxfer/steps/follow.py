"""Follow: wait for jobs until each is finished, or until a person has to look."""

import time
from collections.abc import Iterator, Sequence

from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores.spool import Queue


def follow(queue: Queue, jobs: Sequence[Control]) -> Iterator[tuple[Control, State]]:
    """Yield each job with its state when it is completed, canceled, failed or quarantined.

    Looks ten times a second at a few jobs, every two seconds at many.
    """
    waiting = {job.job: job for job in jobs}
    while waiting:
        for job in list(waiting.values()):
            state = queue.where(job.job)
            if state is None or state is State.COMPLETED:
                state = _outcome(queue, job)
            if state in (State.COMPLETED, State.CANCELED, State.FAILED, State.QUARANTINED):
                del waiting[job.job]
                yield job, state
        if waiting:
            time.sleep(0.1 if len(waiting) < 100 else 2)


def _outcome(queue: Queue, job: Control) -> State | None:
    """Look up a finished job; one that still stands in done/ is in the log a moment later."""
    for line in queue.log(job.submitted):
        if line.fields.get("uid") == job.uid:
            return State(line.kind)
    return None

"""Follow: wait for jobs until each is finished, or until a person has to look."""

import time
from collections.abc import Iterator, Sequence

from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores.queue import Queue

LOOKS = 20  # in vain, before a job is believed to have vanished: it may have been on its way

_ENDS = {state.value: state for state in (State.COMPLETED, State.CANCELED)}


def follow(
    queues: Sequence[Queue], jobs: Sequence[Control]
) -> Iterator[tuple[Control, State | None]]:
    """Yield each job with its state when it is completed, canceled, failed or quarantined.

    A job may be moved among the queues meanwhile; one that has vanished from all of them and
    from their logs is yielded with None. Looks ten times a second at a few jobs, every two
    seconds at many.
    """
    waiting = {job.job: job for job in jobs}
    vanished: dict[str, int] = {}
    while waiting:
        states = {job_id: _where(queues, job_id) for job_id in waiting}
        ended: dict[str, State | None] = {
            job_id: state
            for job_id, state in states.items()
            if state in (State.FAILED, State.QUARANTINED)
        }
        if gone := [j for j, state in states.items() if state in (State.COMPLETED, None)]:
            ended |= _outcomes(queues, [waiting[job_id] for job_id in gone])
        vanished = {j: vanished.get(j, 0) + 1 for j, state in states.items() if state is None}
        ended |= {j: None for j, looks in vanished.items() if looks >= LOOKS and j not in ended}
        for job_id, state in ended.items():
            yield waiting.pop(job_id), state
        if waiting:
            time.sleep(0.1 if len(waiting) < 100 else 2)


def _where(queues: Sequence[Queue], job_id: str) -> State | None:
    states = (queue.where(job_id) for queue in queues)
    return next((state for state in states if state), None)


def _outcomes(queues: Sequence[Queue], jobs: Sequence[Control]) -> dict[str, State]:
    """Look finished jobs up in the logs; one that stands in done/ is there a moment later."""
    ids = {job.uid: job.job for job in jobs}
    since = min(job.submitted for job in jobs)
    return {
        ids[line.fields["uid"]]: _ENDS[line.kind]
        for queue in queues
        for line in queue.log(since)
        if line.fields.get("uid") in ids and line.kind in _ENDS
    }

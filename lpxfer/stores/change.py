"""Change a job beside a running sender: what cancel, hold and their like share."""

import contextlib
import time
from collections.abc import Callable, Sequence

from lpxfer.errors import BusyError, PermanentError
from lpxfer.formats.job import State, refusal
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.queue import Queue

POLL = 0.05  # seconds between looks whether the sender has obeyed


def change(
    queue: Queue,
    job_id: str,
    fit: Sequence[State],
    act: Callable[[JobDir, State], None],
    word: str | None = None,
) -> None:
    """Let `act` change a job that is in one of the states `fit`, while nobody else can.

    With `word` an active job is recalled first. A job that moves just then is looked for
    again. Raises PermanentError when it is in another state, BusyError when the sender or
    another command does not let go of it.
    """
    while True:
        state = queue.where(job_id)
        with contextlib.suppress(FileNotFoundError):
            if state is State.ACTIVE and word:
                recall(queue, job_id, word)
                continue
            if state is None or state not in fit:
                raise PermanentError(refusal(job_id, state, fit))
            with queue.still(job_id, state) as job:
                act(job, state)
                return


def recall(queue: Queue, job_id: str, word: str, patience: float = 60.0) -> None:
    """Get a job out of active/ before it is sent. Look where it went: it may be too late.

    A running sender is asked with `word`, CANCEL or HOLD, and obeys; without one the job goes
    back to pending. Raises FileNotFoundError when it is not active, BusyError when the
    sender has not answered in `patience` seconds: then the request stands.
    """
    with queue.open(job_id, State.ACTIVE) as job:
        job.set_request(word)
        queue.wake(job_id)
        deadline = time.monotonic() + patience
        while queue.where(job_id) is State.ACTIVE:
            if not queue.running():
                with contextlib.suppress(BusyError, FileNotFoundError):
                    queue.take_back(job)
            elif time.monotonic() > deadline:
                raise BusyError(
                    f"{job_id}: the sender has not answered yet; "
                    f"it is asked to {word} it all the same, see xfer-stat"
                )
            else:
                time.sleep(POLL)
        with contextlib.suppress(OSError):
            job.set_request(None)

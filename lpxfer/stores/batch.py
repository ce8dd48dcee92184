"""Many jobs at once: claim them, note a line in their attempts.

Queue.move_many and Queue.finish_many belong to these. What one job refuses stops no other; each
job gets the same guarantees as by the verb for one, and the syncs are shared.
"""

import contextlib
from collections.abc import Iterable, Sequence
from datetime import datetime

from lpxfer import durable
from lpxfer.errors import BusyError, FormatError
from lpxfer.stores import aside
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.queue import Queue


def claim(
    queue: Queue, job_ids: Iterable[str]
) -> tuple[list[JobDir], dict[str, BusyError | OSError]]:
    """Claim jobs as Queue.claim does; return those claimed, and by id why any was not.

    Raises OSError when the disk fails or descriptors end; `recover` puts back what had been
    claimed.
    """
    claimed: list[JobDir] = []
    failed: dict[str, BusyError | OSError] = {}
    with contextlib.ExitStack() as opened:
        for job_id in job_ids:
            try:
                claimed.append(opened.enter_context(queue.claim(job_id)))
            except (BusyError, OSError) as error:
                if isinstance(error, OSError) and aside.stops_all(error):
                    raise
                failed[job_id] = error
        opened.pop_all()
    return claimed, failed


def note(jobs: Sequence[JobDir], kind: str, now: datetime, **fields: str) -> dict[str, FormatError]:
    """Append a line to the attempts of many jobs, durably; return by id why any has none.

    Raises OSError when nobody knows what is on the disk.
    """
    failed: dict[str, FormatError] = {}
    together = len(jobs) > 1 and durable.filesystem_sync_tells()
    for job in jobs:
        try:
            job.note(kind, now, sync=not together, **fields)
        except FormatError as error:
            failed[job.id] = error
    if together:
        durable.sync_filesystem(jobs[0].fd)
    return failed

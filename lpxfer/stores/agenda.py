"""What of a queue may be sent, and in which order: an index of pending/ and of the switch.

Not for use by two threads at once. It is brought up to date by `scan`; a stale entry does no
harm, because a claim of a job that is gone just fails.
"""

import contextlib
import time
from datetime import datetime

from lpxfer.formats import backoff
from lpxfer.formats.job import State
from lpxfer.formats.schedule import Schedule, Want
from lpxfer.stores.listing import Entry
from lpxfer.stores.queue import Queue

BARRED = 3600.0  # seconds until what could not be claimed is tried again as it is


class Agenda:
    """The jobs of one queue that wait."""

    def __init__(self, queue: Queue, now: datetime) -> None:
        """Know the queue; nothing is read yet."""
        self._queue = queue
        self._schedule = Schedule()
        self._barred: dict[str, tuple[datetime, float]] = {}  # unclaimable: as it was, until when
        self._ranks: dict[str, int] = {}  # of jobs that were taken
        self._scanned_at = now
        self.enabled = True  # the queue's switch

    def read(self) -> tuple[bool, list[Entry]]:
        """Read the queue; this takes long where many jobs wait, and changes nothing here."""
        return self._queue.switches().enabled, self._queue.entries(State.PENDING)

    def update(self, enabled: bool, entries: list[Entry], wall: datetime) -> None:
        """Take over what `read` has found."""
        if wall < self._scanned_at:  # it was set back: what waits may wait for too long
            self._schedule = Schedule()
        self._scanned_at, self.enabled = wall, enabled
        now = time.monotonic()
        barred = {e.id for e in entries if now < self._barred.get(e.id, (None, 0))[1]
                  and e.changed == self._barred[e.id][0]}  # fmt: skip
        self._barred = {job_id: self._barred[job_id] for job_id in barred}
        claimable = [(e.id, e.stamp) for e in entries if e.id not in barred]
        self._schedule.update(claimable, lambda job_id: self._want(job_id, wall), wall)

    def _want(self, job_id: str, wall: datetime) -> Want:
        routing = self._queue.routing(job_id)
        wait = backoff.still_to_wait(routing.not_before, routing.stalls, wall)
        return routing.priority, wait

    def pop(self, wall: datetime) -> str | None:
        """Take the next job that may go, or None."""
        taken = self._schedule.take(wall) if self.enabled else None
        if taken is None:
            return None
        job_id, rank = taken
        self._ranks[job_id] = rank
        return job_id

    def rank(self, job_id: str) -> int:
        """Return the rank of a job that was taken, once; see Schedule.take."""
        return self._ranks.pop(job_id, 0)

    def has_ready(self, wall: datetime) -> bool:
        """Tell whether `pop` would find a job."""
        return self.enabled and self._schedule.has_ready(wall)

    def waiting_above(self, rank: int, wall: datetime) -> bool:
        """Tell whether a job of a higher priority than this rank may go now."""
        return self.enabled and self._schedule.waiting_above(rank, wall)

    def put_last(self, job_id: str) -> None:
        """Send a job to the end of its priority when it comes back to pending."""
        self._schedule.put_last(job_id)

    def bar(self, job_id: str) -> int:
        """Leave a job alone until its directory has changed, or for an hour; count those."""
        with contextlib.suppress(OSError):
            changed = self._queue.entry(job_id, State.PENDING).changed
            self._barred[job_id] = (changed, time.monotonic() + BARRED)
        return len(self._barred)

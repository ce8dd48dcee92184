"""What of a queue may be sent, and in which order: an index of pending/ and of the switch.

Not for use by two threads at once. It is brought up to date by `read`, then `update`; a stale
entry does no harm, because a claim of a job that is gone just fails.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from lpxfer.formats import backoff
from lpxfer.formats.job import State
from lpxfer.formats.schedule import Schedule, Want
from lpxfer.stores.queue import Queue
from lpxfer.stores.waiting import Stamped

BARRED = 3600.0  # seconds until what could not be claimed is tried again as it is


@dataclass(frozen=True)
class Found:
    """What was read of a queue."""

    enabled: bool
    everything: bool  # these are all the jobs that wait, not just those of which something is new
    jobs: list[Stamped]
    wall: datetime


class Agenda:
    """The jobs of one queue that wait."""

    def __init__(self, queue: Queue, now: datetime) -> None:
        """Know the queue; nothing is read yet."""
        self._queue = queue
        self._waiting = queue.waiting()
        self._schedule = Schedule()
        self._barred: dict[str, tuple[datetime, float]] = {}  # unclaimable: as it was, until when
        self._ranks: dict[str, int] = {}  # of jobs that were taken
        self._read_at = now
        self.enabled = True  # the queue's switch

    def hear(self, wake_fd: int) -> bool:
        """Take hints of what is new, without waiting; tell whether there were any."""
        return self._waiting.hear(wake_fd)

    @property
    def unfinished(self) -> bool:
        """Tell whether another `read` finds more at once: the first ones find a portion each."""
        return self._waiting.unfinished

    def read(self, wall: datetime, at_once: bool = False) -> Found:
        """Read what is new, or everything; this takes long where many jobs wait.

        With `at_once` it is everything. Nothing that others use is changed: no lock is needed.
        """
        known: Callable[[str], int | None] = self._schedule.stamp
        if wall < self._read_at:  # it was set back: what waits may wait for too long
            known, at_once = _nothing, True
        everything, jobs = self._waiting.look(known, at_once)
        return Found(self._queue.switches().enabled, everything, list(jobs), wall)

    def update(self, found: Found) -> None:
        """Take over what `read` has found."""
        if found.wall < self._read_at:
            self._schedule = Schedule()
        self._read_at, self.enabled = found.wall, found.enabled
        jobs = [job for job in found.jobs if not self._is_barred(job[0])]
        self._schedule.update(jobs, self._want, found.wall, found.everything)

    def _want(self, job_id: str) -> Want:
        routing = self._queue.routing(job_id)
        wait = backoff.still_to_wait(routing.not_before, routing.stalls, self._read_at)
        return routing.priority, wait

    def _is_barred(self, job_id: str) -> bool:
        changed, until = self._barred.get(job_id, (None, 0.0))
        if changed is None:
            return False
        with contextlib.suppress(OSError):
            if time.monotonic() < until:
                if self._queue.entry(job_id, State.PENDING).changed == changed:
                    self._waiting.later(job_id)
                    return True
        del self._barred[job_id]
        return False

    def pop(self, wall: datetime) -> str | None:
        """Take the next job that may go, or None."""
        taken = self._schedule.take(wall) if self.enabled else None
        if taken is None:
            return None
        job_id, self._ranks[taken[0]] = taken
        self._waiting.later(job_id)
        return job_id

    def pop_small(self, wall: datetime, most: int, size: int) -> list[str]:
        """Take up to `most` of the next jobs, as long as their data has at most `size` bytes."""
        taken: list[str] = []
        while len(taken) < most and (job_id := self.pop(wall)):
            if self._queue.data_size(job_id) > size:
                self.put_back(job_id)
                break
            self.rank(job_id)  # a bundle is too short to give way
            taken.append(job_id)
        return taken

    def put_back(self, *job_ids: str) -> None:
        """Give jobs that were taken and wait still their places back."""
        jobs = []
        for job_id in job_ids:
            with contextlib.suppress(OSError):
                jobs.append((job_id, self._queue.entry(job_id, State.PENDING).stamp))
        self._schedule.update(jobs, self._want, everything=False)

    def rank(self, job_id: str) -> int:
        """Return the rank of a job that was taken, once; see Schedule.take."""
        return self._ranks.pop(job_id, 0)

    def __len__(self) -> int:
        """Return the number of jobs that wait, deferred ones included."""
        return len(self._schedule)

    def has_ready(self, wall: datetime) -> bool:
        """Tell whether `pop` would find a job."""
        return self.enabled and self._schedule.has_ready(wall)

    def head(self, wall: datetime) -> tuple[int, float] | None:
        """Return the highest priority that may go, and the seconds that it has waited."""
        return self._schedule.head(wall) if self.enabled else None

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
            self._waiting.later(job_id)
        return len(self._barred)


def _nothing(_: str) -> None:
    """Know no job."""

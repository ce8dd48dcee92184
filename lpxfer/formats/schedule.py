"""Which pending job goes next: highest priority, then who has had its turn least, then age.

Pure: ids, priorities and times in, ids out. It is an index of pending/, rebuilt from it at
every start; a stale entry does no harm, because a claim of a job that is gone just fails.
"""

import heapq
from collections.abc import Callable, Iterable
from datetime import datetime

from lpxfer.formats import names

#: A job's priority and the time before which it must not go.
Want = tuple[int, datetime | None]


class Schedule:
    """An order of pending jobs."""

    def __init__(self) -> None:
        """Start empty."""
        self._stamps: dict[str, int] = {}  # what is waiting, and when its routing changed
        self._ready: list[tuple[int, int, int, str, int]] = []  # heap
        self._deferred: list[tuple[datetime, str, int, int]] = []  # heap
        self._turns: dict[str, int] = {}  # jobs that went to the end of their priority
        self._turn = 0

    def __len__(self) -> int:
        """Return the number of jobs that wait, deferred ones included."""
        return len(self._stamps)

    def update(self, entries: Iterable[tuple[str, int]], want: Callable[[str], Want]) -> None:
        """Take the present contents of pending/ as (id, stamp); `want` is asked what is new.

        A job whose stamp has changed has a new routing file and is asked again.
        """
        present = dict(entries)
        for job_id in self._stamps.keys() - present.keys():
            del self._stamps[job_id]
            self._turns.pop(job_id, None)
        for job_id, stamp in present.items():
            if self._stamps.get(job_id) != stamp:
                self._stamps[job_id] = stamp
                priority, not_before = want(job_id)
                if not_before:
                    heapq.heappush(self._deferred, (not_before, job_id, priority, stamp))
                else:
                    self._push(job_id, priority, stamp)

    def put_last(self, job_id: str) -> None:
        """Send a job to the end of its priority when it comes back to pending."""
        self._turn += 1
        self._turns[job_id] = self._turn

    def pop(self, now: datetime) -> str | None:
        """Take the next job that may go, or None."""
        while self._deferred and self._deferred[0][0] <= now:
            _, job_id, priority, stamp = heapq.heappop(self._deferred)
            if self._stamps.get(job_id) == stamp:
                self._push(job_id, priority, stamp)
        while self._ready:
            _, _, _, job_id, stamp = heapq.heappop(self._ready)
            if self._stamps.get(job_id) == stamp:
                del self._stamps[job_id]
                self._turns.pop(job_id, None)
                return job_id
        return None

    def has_ready(self, now: datetime) -> bool:
        """Tell whether `pop` would find a job, stale entries aside."""
        return bool(self._ready) or bool(self._deferred and self._deferred[0][0] <= now)

    def waiting_above(self, priority: int, now: datetime) -> bool:
        """Tell whether a job of a higher priority than this may go now."""
        while self._deferred and self._deferred[0][0] <= now:
            _, job_id, its, stamp = heapq.heappop(self._deferred)
            if self._stamps.get(job_id) == stamp:
                self._push(job_id, its, stamp)
        while self._ready and self._stamps.get(self._ready[0][3]) != self._ready[0][4]:
            heapq.heappop(self._ready)
        return bool(self._ready) and -self._ready[0][0] > priority

    def _push(self, job_id: str, priority: int, stamp: int) -> None:
        number = names.split_request_id(job_id)[1]
        turn = self._turns.get(job_id, 0)
        heapq.heappush(self._ready, (-priority, turn, number, job_id, stamp))

"""Which pending job goes next: highest priority, then who has waited longest, then the number.

Time is counted in periods of ten minutes: jobs that came at about the same time go by their
numbers. So that nothing starves, a job that has waited LEVEL for each level of priority longer
than one above it may go before that one: after every SHARE jobs that went before it, once. A
target of opportunity so never waits for a backlog, however old that is.

Pure: ids, priorities and times in, ids out. It is an index of pending/, rebuilt from it at
every start; a stale entry does no harm, because a claim of a job that is gone just fails. A
million jobs take less than 250 bytes each.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime

#: Seconds of waiting that are worth one level of priority: the 50 levels from a job without -q
#: to the highest priority are a night.
LEVEL = 600

#: Jobs of higher priority that may go before one that has waited long enough, until it goes: it
#: gets a fifth of the turns, so that its backlog moves on and those above hardly notice.
SHARE = 4

#: Periods of age that a stamp can show, as many as there are priorities: with more it would gain
#: nothing, and a stamp may come from a clock that was wrong.
OLDEST = 100

#: Jobs given out whose place is remembered until they come back, for a failure, say.
REMEMBERED = 10_000

#: Where a job stands among those of its priority: the period since which it waits, and its turn
#: there. That is the length of its id, for of two numbers the shorter is less.
Place = tuple[int, int]

_LAST = 100  # the turn behind all others: an id has 48 characters at most

#: A job that waits, in the order of its priority: place, id, and when its routing changed. A
#: plain tuple, because the garbage collector takes no notice of a million of these.
_Entry = tuple[int, int, str, int]

#: A job's priority and the time before which it must not go.
Want = tuple[int, datetime | None]


class Schedule:
    """An order of pending jobs."""

    def __init__(self) -> None:
        """Start empty."""
        self._waiting: dict[str, _Entry] = {}
        self._ready: dict[int, list[_Entry]] = {}  # a heap for each priority
        self._deferred: list[tuple[datetime, int, _Entry]] = []  # heap
        self._places: OrderedDict[str, Place] = OrderedDict()  # of jobs given out
        self._period = 0  # now
        self._turn = _LAST
        self._passed = 0  # jobs that went before one that had waited long enough, in a row

    def __len__(self) -> int:
        """Return the number of jobs that wait, deferred ones included."""
        return len(self._waiting)

    def update(
        self,
        entries: Iterable[tuple[str, int]],
        want: Callable[[str], Want],
        now: datetime | None = None,
        everything: bool = True,
    ) -> None:
        """Take the present contents of pending/ as (id, stamp); `want` is asked what is new.

        A job whose stamp has changed has a new routing file and is asked again; its age stays.
        `now` is by default the latest time that the schedule was told. Unless it is `everything`,
        those that are not among them wait on.
        """
        self._tell(now)
        present = dict(entries)
        for job_id in self._waiting.keys() - present.keys() if everything else ():
            del self._waiting[job_id]
        same: dict[int, int] = {}  # one number for all that came in a period
        ready: dict[int, list[_Entry]] = {}
        for job_id, stamp in present.items():
            known = self._waiting.get(job_id)
            if known and known[3] == stamp:
                continue
            priority, not_before = want(job_id)
            since, turn = known[:2] if known else self._place(job_id, stamp, not_before)
            entry = (same.setdefault(since, since), turn, job_id, stamp)
            self._waiting[job_id] = entry
            if not_before:
                heapq.heappush(self._deferred, (not_before, priority, entry))
            else:
                ready.setdefault(priority, []).append(entry)
        for priority, new in ready.items():
            heap = self._ready.setdefault(priority, [])
            if len(new) * 8 < len(heap):
                for entry in new:
                    heapq.heappush(heap, entry)
            else:  # of a million, that takes a tenth of the time
                heap += new
                heapq.heapify(heap)

    def stamp(self, job_id: str) -> int | None:
        """Return the stamp of a job that waits, None for another."""
        known = self._waiting.get(job_id)
        return known and known[3]

    def put_last(self, job_id: str) -> None:
        """Send a job behind all that wait now at its priority, when it comes back to pending."""
        self._turn += 1
        self._remember(job_id, (self._period, self._turn))

    def pop(self, now: datetime) -> str | None:
        """Take the next job that may go, or None."""
        taken = self.take(now)
        return taken and taken[0]

    def take(self, now: datetime) -> tuple[str, int] | None:
        """Take the next job that may go, with its rank, or None.

        The rank is its priority; that of a job which goes for its age is the priority that it
        goes before. See waiting_above.
        """
        heads = self._heads(now)
        if not heads:
            return None
        top = max(heads)
        # A level of priority counts as a period of waiting: the lowest is the furthest ahead.
        ahead = {priority: head[0] - priority for priority, head in heads.items()}
        chosen = min(heads, key=lambda priority: (ahead[priority], -priority))
        if chosen != top and self._passed < SHARE:
            self._passed += 1
            chosen = top
        else:
            self._passed = 0
        since, _, job_id, _ = heapq.heappop(self._ready[chosen])
        del self._waiting[job_id]
        self._remember(job_id, (since, len(job_id)))
        return job_id, top

    def has_ready(self, now: datetime) -> bool:
        """Tell whether `pop` would find a job."""
        return bool(self._heads(now))

    def head(self, now: datetime) -> tuple[int, float] | None:
        """Return the highest priority that may go, and the seconds that what may go has waited.

        These are counted from the stamps, of the jobs that are first at their priorities. None
        where nothing may go.
        """
        heads = self._heads(now)
        if not heads:
            return None
        since = min(head[3] for head in heads.values()) / 1e9
        return max(heads), max(0.0, now.timestamp() - since)

    def waiting_above(self, rank: int, now: datetime) -> bool:
        """Tell whether a job that may go should take the place of one that was given this rank.

        Only a really higher priority does: being older does not, and not having been passed.
        What is taken then has a higher rank, so that no two jobs give way to each other.
        """
        return any(priority > rank for priority in self._heads(now))

    def _heads(self, now: datetime) -> dict[int, _Entry]:
        """Return the first job that may go of each priority; drop what is stale before it."""
        self._tell(now)
        while self._deferred and self._deferred[0][0] <= now:
            _, priority, entry = heapq.heappop(self._deferred)
            if self._waiting.get(entry[2]) is entry:
                heapq.heappush(self._ready.setdefault(priority, []), entry)
        heads: dict[int, _Entry] = {}
        for priority, heap in list(self._ready.items()):
            while heap and self._waiting.get(heap[0][2]) is not heap[0]:
                heapq.heappop(heap)
            if heap:
                heads[priority] = heap[0]
            else:
                del self._ready[priority]
        return heads

    def _tell(self, now: datetime | None) -> None:
        if now is not None:
            self._period = int(now.timestamp()) // LEVEL

    def _place(self, job_id: str, stamp: int, not_before: datetime | None) -> Place:
        """Return the place of a job that came, or came back."""
        if place := self._places.pop(job_id, None):
            return place
        since = stamp // (LEVEL * 1_000_000_000)
        if self._period:
            since = min(max(since, self._period - OLDEST), self._period)
        if not_before:  # as somebody wished: until then it does not wait
            since = max(since, int(not_before.timestamp()) // LEVEL)
        return since, len(job_id)

    def _remember(self, job_id: str, place: Place) -> None:
        self._places[job_id] = place
        if len(self._places) > REMEMBERED:
            self._places.popitem(last=False)

"""Confirm: read the archive's receipts and finish the jobs they speak of.

Sent is not archived. A job is completed only by a receipt for its uid with its checksum; the
table is in formats/verdict.py. Such a receipt completes it wherever it waits: a person may have
had it swept after it failed. A job whose receipt is late and whose control file is gone from
incoming goes back to pending: SFTP cannot sync a directory, so a power cut at the archive may
have undone the last renames. Delivering twice is harmless, losing is not.

Guarantees: reading receipts twice does no harm. Nothing that stands in a receipts file can do
more than finish, repeat or fail the job with that uid. What they complete is finished together.
"""

import contextlib
import itertools
import re
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from lpxfer.errors import (
    AttemptError,
    BusyError,
    FormatError,
    LinkError,
    LpxferError,
    PermanentError,
)
from lpxfer.formats import dates, names, record
from lpxfer.formats.attempts import COMMIT, END
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.formats.record import Record
from lpxfer.formats.stages import acknowledged
from lpxfer.formats.verdict import Verdict, verdict, words
from lpxfer.stores import aside
from lpxfer.stores.finishing import BATCH, End
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.spool import Entry, Queue
from lpxfer.transports.receipt_lines import ReceiptLines
from lpxfer.transports.target import Target, target
from lpxfer.transports.transport import Transport

__all__ = ["Confirm", "Verdict"]

MISMATCHES = 3  # as often the archive may find other bytes before a person has to look
OTHERS_MOST = 1 << 24  # bytes of one file, at a time, in a place that a job chose for itself
REMEMBERED = 100  # receipts kept for one job; no honest archive writes so many

_UID = re.compile(rb" uid=(%s)(?= |$)" % names.UID.pattern.encode())  # groups: uid, host, id

#: How far the clocks of the sites may be apart before a receipt is found late: with what is
#: unconfirmed, when all receipts are read.
CLOCK_ERROR = timedelta(days=7)

#: Where a job may wait that the archive has by now; only its good word is heeded there.
_ASIDE = (State.HELD, State.FAILED)

# A receipt may come before its job has reached sent/, so it is kept while a job is in these.
_ON_THE_WAY = (State.PENDING, State.ACTIVE, State.SENT, *_ASIDE)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where receipts for a job are: at which target, and for which sending host."""

    where: Target
    host: str


class _Job(NamedTuple):
    """What is remembered of a job that may be at the archive site; there may be very many."""

    since: datetime  # when it was sent
    place: _Place


@dataclass
class _Look:
    """One look at the receipts."""

    connect: Callable[[Target], Transport]
    now: datetime
    read: dict[_Place, str] = field(default_factory=dict)  # from which day on
    broken: set[_Place] = field(default_factory=set)
    failed: LpxferError | None = None  # how the queue's own target did


class Confirm:
    """The receipts of one queue: what has been read of them, and what waits for them."""

    def __init__(
        self, queue: Queue, settings: QueueConfig, account: str, say: Callable[[str], None]
    ) -> None:
        """Know the queue; nothing is read yet. `say` takes one line for the operator's log."""
        self._queue, self._settings, self._account = queue, settings, account
        self._lock = threading.Lock()  # `find` is called by many workers
        self._glances = {state: queue.glance(state) for state in (State.SENT, *_ASIDE)}
        self._made = weakref.WeakValueDictionary[tuple[Target, str], _Place]()
        self._sent: dict[str, _Job] = {}
        self._aside: dict[Entry, _Job | None] = {}
        self._hosts: list[_Place] = []  # at the queue's own target, as jobs had them last
        self._lines = ReceiptLines(say)
        self._receipts: dict[str, list[Record]] = {}  # by uid
        self._news: dict[str, None] = {}  # uids of which a receipt has come
        self._refused: list[str] = []  # of those, the ones whose jobs are closed to us for now
        self._patience = timedelta(seconds=settings.unconfirmed)
        self._checked: dict[str, datetime] = {}  # unconfirmed jobs: when last looked for

    def run(self, connect: Callable[[Target], Transport], now: datetime) -> int:
        """Read what is new and apply it; return the number of jobs known to be still in sent/.

        `connect` gives a connected transport; what it raises is raised at the end, when all
        that can be read has been. A target that a job chose for itself is its own affair.
        """
        look = _Look(connect, now)
        with self._lock:
            self._news |= dict.fromkeys(self._refused)
            self._refused.clear()
            if self._hosts and self._queue.any(State.SENT):  # most receipts are of this minute:
                self._read_places(look, dict.fromkeys(self._hosts, now))  # few jobs are left then
            self._load(now)
            self._read_places(look, self._places(now))
            for job_id, place in self._late(now):
                with aside.past(), contextlib.suppress(FormatError):
                    self._at(place, look, partial(self._look_for, look, job_id, place))
            for uid in list(self._receipts):
                self._complete(uid, now)
        if look.failed:
            raise look.failed
        return len(self._sent) or int(self._queue.any(State.SENT))

    def find(self, link: Transport, where: Target, known: Control, attempts: int) -> Verdict:
        """Look in the receipts for a job that may have been archived already.

        What was read before is remembered for every job that is not finished, so only what
        has come since is read.
        """
        with self._lock:
            self._read(link, self._place(where, known.host), _first_day(known.submitted))
        verdicts = [verdict(r, known, attempts) for r in self._receipts.get(known.uid, [])]
        return min(verdicts, key=lambda v: v.value, default=Verdict.NOTHING)

    @property
    def _own(self) -> Target:
        return target(self._settings, Routing(), self._account)

    def _load(self, now: datetime) -> None:
        """Learn of the jobs that have come into sent/, or aside, and forget those that left."""
        glance = self._glances[State.SENT]
        if glance.due():
            with glance.taken():
                standing = set(self._queue.ids(State.SENT))
            for job_id in self._sent.keys() - standing:
                self._forget(job_id)
            for job_id in standing - self._sent.keys():
                if job := self._load_one(job_id, State.SENT):
                    self._sent[job_id] = job
        if any(self._glances[state].due() for state in _ASIDE):
            known, self._aside = self._aside, {}
            for state in _ASIDE:
                with self._glances[state].taken():
                    for entry in self._queue.entries(state):
                        if entry in known:
                            self._aside[entry] = known[entry]
                        else:
                            self._aside[entry] = self._load_one(entry.id, state)

    def _load_one(self, job_id: str, state: State) -> _Job | None:
        """Read what is needed of a job; None for one that was never sent, or is no job."""
        try:
            with self._queue.open(job_id, state) as opened:
                known, last = opened.control(), opened.last_event()
                if state is not State.SENT and not opened.attempts().count:
                    return None
                where = target(self._settings, opened.routing(), self._account)
        except FileNotFoundError:
            return None
        except OSError:  # it may pass
            self._glances[state].forget()
            return None
        except PermanentError:  # made by hand, or with a target that is none
            return None
        if known.uid in self._receipts:
            self._news[known.uid] = None
        return _Job(last or known.submitted, self._place(where, known.host))

    def _place(self, where: Target, host: str) -> _Place:
        """Return the one that stands for all jobs of a place: to compare targets takes long."""
        made = _Place(where, host)
        return self._made.setdefault((where, host), made)

    def _places(self, now: datetime) -> dict[_Place, datetime]:
        """Return where receipts may be for the jobs that are known, and from when on."""
        places: dict[_Place, datetime] = {}
        for job in self._sent.values():
            places[job.place] = min(places.get(job.place, now), job.since)
        for aside_job in filter(None, self._aside.values()):  # they may stay for months
            since = max(aside_job.since, now - CLOCK_ERROR)
            places[aside_job.place] = min(places.get(aside_job.place, now), since)
        self._hosts = [place for place in places if place.where == self._own] or self._hosts
        return places

    def _late(self, now: datetime) -> list[tuple[str, _Place]]:
        """Return the unconfirmed jobs that have not been looked for lately, and their places."""
        known, patience = self._checked, self._patience  # from the future: a clock was wrong
        return [(job_id, job.place) for job_id, job in self._sent.items()
                if abs(now - known.get(job_id, job.since)) >= patience]  # fmt: skip

    def _read_places(self, look: _Look, places: Mapping[_Place, datetime]) -> None:
        """Read what is new at these places, where that is not done, and do what it says."""
        own = self._own
        # what is in the members' own places keeps nobody else waiting
        for place, since in sorted(places.items(), key=lambda item: item[0].where != own):
            first = _first_day(min(since, look.now))
            if first < look.read.get(place, "9"):
                self._at(place, look, partial(self._read_at, place, first, look))
        self._settle(look.now)

    def _read_at(self, place: _Place, first: str, look: _Look) -> None:
        self._read(look.connect(place.where), place, first, look.now)
        look.read[place] = first

    def _at(self, place: _Place, look: _Look, act: Callable[[], None]) -> None:
        """Do something at a place, unless it has failed; the others may be as good as ever."""
        if place not in look.broken:
            try:
                act()
            except (LinkError, AttemptError) as error:
                look.broken.add(place)
                look.failed = error if place.where == self._own else look.failed

    def _read(
        self, link: Transport, place: _Place, first: str, now: datetime | None = None
    ) -> None:
        """Read the receipts at a place from a day on; with `now`, do what they say meanwhile."""
        most = None if place.where == self._own else OTHERS_MOST
        for line in self._lines.read(link, place.where, place.host, first, most):
            with contextlib.suppress(FormatError):
                self._remember(line)
            if now and len(self._news) >= BATCH:
                self._settle(now)

    def _remember(self, line: bytes) -> None:
        """Keep a receipt for a job that is not finished. Raises FormatError for no receipt."""
        match = _UID.search(line)
        if match is None:
            return
        uid, job_id = match[1].decode(), match[3].decode()
        if job_id not in self._sent and not self._on_the_way(job_id):
            return  # as most are, when all of them are read at the start
        receipt = record.load(line)
        seen = self._receipts.setdefault(uid, [])
        if receipt not in seen:
            seen[:] = [*seen, receipt][-REMEMBERED:]
            self._news[uid] = None

    def _on_the_way(self, job_id: str) -> bool:
        """Tell whether a job is not finished; one that moves is found in the second look."""
        look = self._queue.stands
        return bool(look(job_id, _ON_THE_WAY) or look(job_id, _ON_THE_WAY))

    def _settle(self, now: datetime) -> None:
        """Do what the receipts that have come say of jobs in sent/; those are finished together."""
        while self._news:
            uids = list(itertools.islice(self._news, BATCH))
            self._settle_batch(uids, now)
            for uid in uids:
                del self._news[uid]

    def _settle_batch(self, uids: Sequence[str], now: datetime) -> None:
        """Settle what is said of BATCH uids at most."""
        ends: dict[str, End] = {}
        with contextlib.ExitStack() as opened:
            for uid in uids:
                try:
                    job = opened.enter_context(self._queue.open(_job_id(uid), State.SENT))
                    if end := self._judge(job, uid, now):
                        ends[uid] = end
                except (FileNotFoundError, FormatError):
                    pass  # it is not there yet, or no job
                except OSError as error:
                    if aside.stops_all(error):
                        raise
                    self._refused.append(uid)
            failed = self._queue.finish_many(list(ends.values()), State.SENT, now)
        for uid, end in ends.items():
            why = failed.get(end.job.id)
            if why and not isinstance(why, FileNotFoundError):
                self._refused.append(uid)
            else:
                self._receipts.pop(uid, None)
                self._forget(end.job.id)

    def _judge(self, job: JobDir, uid: str, now: datetime) -> End | None:
        """Return how a job ends by its receipts; do what else they say."""
        known, receipts = job.control(), self._receipts.get(uid)
        if not receipts:
            return None
        for receipt in receipts:
            if verdict(receipt, known, 0) is Verdict.COMPLETED:
                return End(job, State.COMPLETED, words(receipt), acknowledged(receipt, now))
        routing, count = job.routing(), job.attempts().committed
        said = [(verdict(r, known, count, routing.refused), r) for r in receipts]
        what, receipt = min(said, key=lambda pair: pair[0].value)
        if what is not Verdict.NOTHING:
            with contextlib.suppress(FileNotFoundError):
                self._send_back(what, receipt, job, routing, now)
            del self._receipts[uid]
            self._forget(job.id)
        return None

    def _send_back(
        self, what: Verdict, receipt: Record, job: JobDir, routing: Routing, now: datetime
    ) -> None:
        said = receipt.fields.get("reason", "no reason given")
        if what is Verdict.AGAIN and routing.mismatches + 1 < MISMATCHES:
            dst, reason = State.PENDING, f"mismatch at the archive site: {said}"
        elif what is Verdict.AGAIN:
            dst, reason = State.FAILED, f"mismatch {MISMATCHES} times at the archive site"
        else:
            dst, reason = State.FAILED, f"quarantined at the archive site: {said}"
        if what is Verdict.AGAIN:
            count = routing.mismatches + 1
            routing = replace(routing, mismatches=count, refused=job.attempts().committed)
        job.set_routing(replace(routing, reason=reason))
        job.note(END, now, sync=True, acked="0", reason=receipt.kind)
        self._queue.move(job.id, State.SENT, dst)
        self._queue.wake(job.id)

    def _forget(self, job_id: str) -> None:
        """A job has left sent/."""
        self._sent.pop(job_id, None)
        self._checked.pop(job_id, None)

    def _complete(self, uid: str, now: datetime) -> None:
        """Complete a job that waits and is archived; forget receipts that nobody waits for."""
        job_id = _job_id(uid)
        if job_id in self._sent:
            return
        state = self._queue.where(job_id)
        if state not in _ON_THE_WAY:
            del self._receipts[uid]
        elif state is State.PENDING or state in _ASIDE:
            with aside.past(), contextlib.suppress(FormatError, BusyError):
                with self._queue.still(job_id, state) as job:
                    known = job.control()
                    for receipt in self._receipts[uid]:
                        if verdict(receipt, known, 0) is Verdict.COMPLETED:
                            why = words(receipt)
                            self._queue.finish(job_id, state, State.COMPLETED, why, now)
                            return

    def _look_for(self, look: _Look, job_id: str, place: _Place) -> None:
        """Send an unconfirmed job again if the archive site has lost it.

        Its control file is looked for first and the receipts are read after that: a sweep
        writes the receipt before it removes the arrival.
        """
        self._checked[job_id] = look.now
        with self._queue.open(job_id, State.SENT) as job:
            known = job.control()
            since = job.last_event() or known.submitted
            if abs(look.now - since) < self._patience:  # it has been sent again meanwhile
                self._sent[job_id] = _Job(since, place)
                del self._checked[job_id]
                return
            link = look.connect(place.where)
            if link.stat((job.attempts().bundle or known.uid) + names.CONTROL) != [None]:
                return
            self._read(link, place, _first_day(min(since, look.now)), look.now)
            if look.read.get(place):
                self._read(link, place, "", look.now)
                look.read[place] = ""
            if known.uid in self._receipts:
                self._news[known.uid] = None
            self._settle(look.now)
            if self._queue.stands(job_id, [State.SENT]):
                reason = "no receipt, and gone from the archive site's incoming"
                job.set_routing(replace(job.routing(), reason=reason))
                job.note(COMMIT, look.now, acked="0")
                self._queue.move(job_id, State.SENT, State.PENDING)
                self._forget(job_id)
                self._queue.wake(job_id)


def _first_day(since: datetime) -> str:
    """Tell of which day the first receipts may be that are news since then."""
    return dates.log_date(since - CLOCK_ERROR)


def _job_id(uid: str) -> str:
    match = names.UID.fullmatch(uid)
    assert match  # no other is remembered
    return match[2]

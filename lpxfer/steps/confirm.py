"""Confirm: read the archive's receipts and finish the jobs they speak of.

Sent is not archived. A job is completed only by a receipt for its uid with its checksum; the
table is `verdict`. Such a receipt completes it wherever it waits: a person may have had it
swept after it failed. A job whose receipt is late and whose control file is gone
from incoming goes back to pending: SFTP cannot sync a directory, so a power cut at the
archive may have undone the last renames. Delivering twice is harmless, losing is not.

Guarantees: reading receipts twice does no harm; offsets are a cache in memory. Nothing that
stands in a receipts file can do more than finish, repeat or fail the job with that uid.
"""

import contextlib
import math
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from lpxfer.errors import (
    AttemptError,
    BusyError,
    FormatError,
    LinkError,
    LpxferError,
    PermanentError,
)
from lpxfer.formats import dates, names, record
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.formats.record import Record
from lpxfer.stores import aside
from lpxfer.stores.job_dir import COMMIT, END, Attempts, JobDir
from lpxfer.stores.spool import Entry, Queue
from lpxfer.transports.target import Target, target
from lpxfer.transports.transport import Transport

MISMATCHES = 3  # as often the archive may find other bytes before a person has to look
READ = 1 << 18  # bytes of receipts asked for at once
OTHERS_MOST = 1 << 24  # bytes of one file, at a time, in a place that a job chose for itself
REMEMBERED = 100  # receipts kept for one job; no honest archive writes so many

_NAME = re.compile(r".+-(\d{8})\.log")

#: How far the clocks of the sites may be apart before a receipt is found late: with what is
#: unconfirmed, when all receipts are read.
CLOCK_ERROR = timedelta(days=7)

#: Where a job may wait that the archive has by now; only its good word is heeded there.
_ASIDE = (State.HELD, State.FAILED)

# A receipt may come before its job has reached sent/, so it is kept while a job is in these.
_ON_THE_WAY = (State.PENDING, State.ACTIVE, State.SENT, *_ASIDE)


class Verdict(Enum):
    """What a receipt does to the job with its uid."""

    COMPLETED = auto()
    "The archive holds the bytes that were submitted."
    AGAIN = auto()
    "Other bytes arrived: send once more."
    FAILED = auto()
    "The archive cannot place it: a person has to look."
    NOTHING = auto()
    "It says nothing about this attempt."


def verdict(receipt: Record, known: Control, attempts: int, refused: int = 0) -> Verdict:
    """Tell what a receipt does to a job whose nth attempt made the control file at the archive.

    Pure; this is the whole table.
    `refused` is the attempt of which a mismatch has been believed already: the receipt may be
    read again, and the sweep that wrote it may have been killed and write it again.
    """
    if receipt.fields.get("uid") != known.uid:
        return Verdict.NOTHING
    if receipt.kind in record.SAFE and receipt.fields.get("checksum") == known.checksum:
        return Verdict.COMPLETED
    said_of = receipt.fields.get("attempts")
    if receipt.kind == record.MISMATCH and said_of == str(attempts) and attempts != refused:
        return Verdict.AGAIN
    if receipt.kind == record.QUARANTINED and said_of in (None, str(attempts)):
        return Verdict.FAILED
    return Verdict.NOTHING


@dataclass(frozen=True)
class _Job:
    """What is needed of a job that may be at the archive site, read once."""

    stamp: int
    state: State
    known: Control
    attempts: Attempts
    refused: int
    since: datetime
    where: Target


class Confirm:
    """The receipts of one queue: what has been read of them, and what waits for them."""

    def __init__(
        self, queue: Queue, settings: QueueConfig, account: str, say: Callable[[str], None]
    ) -> None:
        """Know the queue; nothing is read yet. `say` takes one line for the operator's log."""
        self._say, self._said = say, set[str]()
        self._queue, self._settings, self._account = queue, settings, account
        self._lock = threading.Lock()  # `find` is called by many workers
        self._jobs: dict[str, _Job] = {}
        self._offsets: dict[tuple[Target, str], tuple[int, bytes]] = {}  # and the byte before
        self._wholly: set[tuple[Target, str]] = set()  # hosts all of whose receipts were read
        self._receipts: dict[str, list[Record]] = {}  # by uid
        self._checked: dict[str, datetime] = {}  # unconfirmed jobs: when last looked for

    def run(self, connect: Callable[[Target], Transport], now: datetime) -> int:
        """Read what is new and apply it; return the number of jobs still in sent/.

        `connect` gives a connected transport; what it raises is raised at the end, when all
        that can be read has been. A target that a job chose for itself is its own affair.
        """
        with self._lock:
            self._run(connect, now)
        return len(self._queue.entries(State.SENT))

    def _run(self, connect: Callable[[Target], Transport], now: datetime) -> None:
        failed: LpxferError | None = None
        self._load()
        self._wholly.clear()
        places: dict[tuple[Target, str], dict[str, _Job]] = defaultdict(dict)
        for job_id, job in self._jobs.items():
            if job.state is State.SENT or job.attempts.count:
                places[job.where, job.known.host][job_id] = job
        own = target(self._settings, Routing(), self._account)
        # what is in the members' own places keeps nobody else waiting
        for (where, host), jobs in sorted(places.items(), key=lambda place: place[0][0] != own):
            try:
                link = connect(where)
                self._read(link, where, host, min(_since(job, now) for job in jobs.values()))
                for job_id, job in jobs.items():
                    with aside.past():
                        if job.state is State.SENT and not self._apply(job_id, job, now):
                            self._look_for(link, job_id, job, now)
            except (LinkError, AttemptError) as error:
                if where == own:
                    failed = error
        for uid in list(self._receipts):
            self._complete(uid, now)
        if failed:
            raise failed

    def find(self, link: Transport, where: Target, known: Control, attempts: int) -> Verdict:
        """Look in the receipts for a job that may have been archived already.

        What was read before is remembered for every job that is not finished, so only what
        has come since is read.
        """
        with self._lock:
            self._read(link, where, known.host, known.submitted)
        verdicts = [verdict(r, known, attempts) for r in self._receipts.get(known.uid, [])]
        return min(verdicts, key=lambda v: v.value, default=Verdict.NOTHING)

    def _load(self) -> None:
        """Read the jobs that have come into sent/, or aside; the others are known."""
        jobs = {}
        for state in (State.SENT, *_ASIDE):
            for entry in self._queue.entries(state):
                if entry.id in jobs:
                    continue  # made by hand under the id of one that was sent
                job = self._jobs.get(entry.id)
                if job is None or (job.stamp, job.state) != (entry.stamp, state):
                    self._checked.pop(entry.id, None)
                    # gone, made by hand, or with a target that is none
                    with contextlib.suppress(OSError, PermanentError):
                        with self._queue.open(entry.id, state) as opened:
                            job = self._load_one(entry, state, opened)
                if job:
                    jobs[entry.id] = job
        self._jobs = jobs

    def _load_one(self, entry: Entry, state: State, job: JobDir) -> _Job:
        known, attempts = job.control(), job.attempts()
        routing = job.routing()
        where = target(self._settings, routing, self._account)
        since = attempts.last or known.submitted
        return _Job(entry.stamp, state, known, attempts, routing.refused, since, where)

    def _read(self, link: Transport, where: Target, host: str, since: datetime | None) -> None:
        """Read the receipts of a host that may be younger than `since`; without it all."""
        directory = os.path.join(where.receipts, names.check_host(host))
        first = dates.log_date(since - CLOCK_ERROR) if since else ""
        for name in link.names(directory):
            match = _NAME.fullmatch(name)
            if match and match[1] >= first:
                try:
                    self._read_file(link, where, os.path.join(directory, name))
                except PermanentError as error:  # the others may be as good as ever
                    if str(error) not in self._said:
                        self._said.add(str(error))
                        self._say(f"{error}; let the sender's account read it")

    def _read_file(self, link: Transport, where: Target, path: str) -> None:
        offset, last = self._offsets.get((where, path), (0, b""))
        chunk = link.read(path, offset - len(last), READ)
        if not chunk.startswith(last):  # it was cut or replaced: begin again
            offset, last = 0, b""
            chunk = link.read(path, 0, READ)
        chunk, rest = chunk[len(last) :], b""
        own = where == target(self._settings, Routing(), self._account)
        end = math.inf if own else offset + OTHERS_MOST
        while chunk and offset < end:
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                offset, last = offset + sum(len(line) + 1 for line in lines), b"\n"
            for line in lines:
                with contextlib.suppress(FormatError):
                    self._remember(record.load(line))
            if len(rest) > record.LINE_LIMIT:  # no receipt of ours: pass over it
                offset, last, rest = offset + len(rest), rest[-1:], b""
            chunk = link.read(path, offset + len(rest), READ)
        self._offsets[where, path] = offset, last  # a line without its end is read again

    def _remember(self, receipt: Record) -> None:
        uid = receipt.fields.get("uid", "")
        match = names.UID.fullmatch(uid)
        if match and self._queue.where(match[2]) in _ON_THE_WAY:
            seen = self._receipts.setdefault(uid, [])
            if receipt not in seen:
                seen[:] = [*seen, receipt][-REMEMBERED:]

    def _apply(self, job_id: str, job: _Job, now: datetime) -> bool:
        """Do what the receipts say of a job; tell whether it has left sent/."""
        receipts = self._receipts.get(job.known.uid, [])
        known, count = job.known, job.attempts.committed
        said = [(verdict(r, known, count, job.refused), r) for r in receipts]
        what, receipt = min(said, key=lambda pair: pair[0].value, default=(Verdict.NOTHING, None))
        if receipt is None or what is Verdict.NOTHING:
            return False
        with contextlib.suppress(FileNotFoundError):
            self._do(what, receipt, job_id, now)
        del self._receipts[job.known.uid]
        self._checked.pop(job_id, None)
        return True

    def _complete(self, uid: str, now: datetime) -> None:
        """Complete a job that waits and is archived; forget receipts that nobody waits for."""
        match = names.UID.fullmatch(uid)
        state = self._queue.where(match[2]) if match else None
        if match is None or state not in _ON_THE_WAY:
            del self._receipts[uid]
        elif state is State.PENDING or state in _ASIDE:
            with aside.past(), contextlib.suppress(FormatError, BusyError):
                with self._queue.still(match[2], state) as job:
                    known = job.control()
                    for receipt in self._receipts[uid]:
                        if verdict(receipt, known, 0) is Verdict.COMPLETED:
                            why = receipt.kind
                            self._queue.finish(match[2], state, State.COMPLETED, why, now)
                            return

    def _do(self, what: Verdict, receipt: Record, job_id: str, now: datetime) -> None:
        if what is Verdict.COMPLETED:
            self._queue.finish(job_id, State.SENT, State.COMPLETED, receipt.kind, now)
            return
        with self._queue.open(job_id, State.SENT) as job:
            routing = job.routing()
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
        self._queue.move(job_id, State.SENT, dst)
        self._queue.wake(job_id)

    def _look_for(self, link: Transport, job_id: str, job: _Job, now: datetime) -> None:
        """Send an unconfirmed job again if the archive site has lost it.

        Its control file is looked for first and the receipts are read after that: a sweep
        writes the receipt before it removes the arrival.
        """
        patience = timedelta(seconds=self._settings.unconfirmed)
        if abs(now - self._checked.get(job_id, job.since)) < patience:
            return  # what is from the future is looked for: a clock was wrong
        self._checked[job_id] = now
        if link.stat(job.known.uid + names.CONTROL) is not None:
            return
        self._read(link, job.where, job.known.host, _since(job, now))
        if (job.where, job.known.host) not in self._wholly:
            self._wholly.add((job.where, job.known.host))
            self._read(link, job.where, job.known.host, None)
        if not self._apply(job_id, job, now):
            with contextlib.suppress(FileNotFoundError):
                with self._queue.open(job_id, State.SENT) as opened:
                    reason = "no receipt, and gone from the archive site's incoming"
                    opened.set_routing(replace(opened.routing(), reason=reason))
                    opened.note(COMMIT, now, acked="0")
                self._queue.move(job_id, State.SENT, State.PENDING)
                self._queue.wake(job_id)


def _since(job: _Job, now: datetime) -> datetime:
    """Tell of which time receipts may be that are news for a job.

    For one that has been set aside, only those of the last days: it may stay for months.
    """
    since = min(job.since, now)  # from the future: a clock was wrong
    return since if job.state is State.SENT else max(since, now - CLOCK_ERROR)

"""Confirm: read the archive's receipts and finish the jobs they speak of.

Sent is not archived. A job in sent/ is completed only by a receipt for its uid with its
checksum; the table is `verdict`. A job whose receipt is late and whose control file is gone
from incoming goes back to pending: SFTP cannot sync a directory, so a power cut at the
archive may have undone the last renames. Delivering twice is harmless, losing is not.

Guarantees: reading receipts twice does no harm; offsets are a cache in memory. Nothing that
stands in a receipts file can do more than finish, repeat or fail the job with that uid.
"""

import contextlib
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from lpxfer.errors import AttemptError, FormatError, LinkError, LpxferError, PermanentError
from lpxfer.formats import dates, names, record
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.formats.record import Record
from lpxfer.stores.job_dir import COMMIT, END, Attempts, JobDir
from lpxfer.stores.spool import Entry, Queue
from lpxfer.transports.target import Target, target
from lpxfer.transports.transport import Transport

MISMATCHES = 3  # as often the archive may find other bytes before a person has to look
READ = 1 << 18  # bytes of receipts asked for at once
REMEMBERED = 100  # receipts kept for one job; no honest archive writes so many

_NAME = re.compile(r".+-(\d{8})\.log")

# A receipt may come before its job has reached sent/, so it is kept while a job is in these.
_ON_THE_WAY = (State.PENDING, State.HELD, State.ACTIVE, State.SENT, State.FAILED)


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
class _Sent:
    """What is needed of a job in sent/, read once."""

    stamp: int
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
        self._sent: dict[str, _Sent] = {}
        self._offsets: dict[tuple[Target, str], int] = {}
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
        sent = self._load(self._queue.entries(State.SENT))
        places: dict[tuple[Target, str], list[str]] = defaultdict(list)
        for job_id, job in sent.items():
            places[job.where, job.known.host].append(job_id)
        for (where, host), job_ids in places.items():
            try:
                link = connect(where)
                self._read(link, where, host, min(sent[job_id].since for job_id in job_ids))
                for job_id in job_ids:
                    if not self._apply(job_id, sent[job_id], now):
                        self._look_for(link, job_id, sent[job_id], now)
            except (LinkError, AttemptError) as error:
                if where == target(self._settings, Routing(), self._account):
                    failed = error
        for uid in list(self._receipts):
            match = names.UID.fullmatch(uid)
            if match and self._queue.where(match[2]) not in _ON_THE_WAY:
                del self._receipts[uid]
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

    def _load(self, entries: list[Entry]) -> dict[str, _Sent]:
        """Read the jobs that have come into sent/; the others are known."""
        sent = {}
        for entry in entries:
            job = self._sent.get(entry.id)
            if job is None or job.stamp != entry.stamp:
                with contextlib.suppress(OSError, FormatError):  # gone, or made by hand
                    with self._queue.open(entry.id, State.SENT) as opened:
                        job = self._load_one(entry, opened)
            if job:
                sent[entry.id] = job
        self._sent = sent
        return sent

    def _load_one(self, entry: Entry, job: JobDir) -> _Sent:
        known, attempts = job.control(), job.attempts()
        routing = job.routing()
        where = target(self._settings, routing, self._account)
        since = attempts.last or known.submitted
        return _Sent(entry.stamp, known, attempts, routing.refused, since, where)

    def _read(self, link: Transport, where: Target, host: str, since: datetime) -> None:
        """Read the receipts of a host that may be younger than `since`."""
        directory = os.path.join(where.receipts, names.check_host(host))
        first = dates.log_date(since - timedelta(days=1))  # the clocks need not agree
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
        offset = self._offsets.get((where, path), 0)
        rest = b""
        while chunk := link.read(path, offset + len(rest), READ):
            *lines, rest = (rest + chunk).split(b"\n")
            offset += sum(len(line) + 1 for line in lines)
            for line in lines:
                with contextlib.suppress(FormatError):
                    self._remember(record.load(line))
            if len(rest) > record.LINE_LIMIT:  # no receipt of ours: pass over it
                offset, rest = offset + len(rest), b""
        self._offsets[where, path] = offset  # a line without its end is read again

    def _remember(self, receipt: Record) -> None:
        uid = receipt.fields.get("uid", "")
        match = names.UID.fullmatch(uid)
        if match and self._queue.where(match[2]) in _ON_THE_WAY:
            seen = self._receipts.setdefault(uid, [])
            if receipt not in seen:
                seen[:] = [*seen, receipt][-REMEMBERED:]

    def _apply(self, job_id: str, job: _Sent, now: datetime) -> bool:
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
        self._queue.wake()

    def _look_for(self, link: Transport, job_id: str, job: _Sent, now: datetime) -> None:
        """Send an unconfirmed job again if the archive site has lost it.

        Its control file is looked for first and the receipts are read after that: a sweep
        writes the receipt before it removes the arrival.
        """
        patience = timedelta(seconds=self._settings.unconfirmed)
        if now - max(job.since, self._checked.get(job_id, job.since)) < patience:
            return
        self._checked[job_id] = now
        if link.stat(job.known.uid + names.CONTROL) is not None:
            return
        self._read(link, job.where, job.known.host, job.known.submitted)
        if not self._apply(job_id, job, now):
            with contextlib.suppress(FileNotFoundError):
                with self._queue.open(job_id, State.SENT) as opened:
                    reason = "no receipt, and gone from the archive site's incoming"
                    opened.set_routing(replace(opened.routing(), reason=reason))
                    opened.note(COMMIT, now, acked="0")
                self._queue.move(job_id, State.SENT, State.PENDING)
                self._queue.wake()

"""Audit: prove that what was submitted is archived, or name what is not. See xfer-audit(1).

Reads what both sites have written of each job, in one pass over every source, and judges it
job by job (formats/testimony.py). Looking changes nothing, and is safe beside a sender, a sweep
and users at work: what seems wrong is looked at again. What does not add up is never passed
over, and what was not looked at is never taken for granted.
"""

import contextlib
import functools
import heapq
import itertools
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lpxfer.formats import dates, keyvalue, names, record, testimony
from lpxfer.formats.job import State
from lpxfer.formats.testimony import ARCHIVED, UNKNOWN, Reach, Said, Source, Verdict, Weight
from lpxfer.formats.window import DAY, Window
from lpxfer.stores import census, receipts, transfer_log
from lpxfer.stores.ledger import Ledger, Original
from lpxfer.stores.spool import Spool
from lpxfer.stores.survey import Survey

#: How far the clocks of the two sites, or one clock before and after it was set, may differ.
CLOCK_ERROR = timedelta(days=7)
PAUSE = 0.2  # seconds before what seems to be lost is looked for again

_UID = re.compile(rb" inst=([!-~]+) uid=(\d{8}T\d{6}Z)-")
_CANCELED = State.CANCELED.value
_FAR = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sources:
    """Where to look; what is not named is not looked at."""

    spool: Spool | None = None
    receipts: Sequence[str] = ()  # directories, of one host or of many
    #: Transfer logs: a directory or a file, and the instruments it is known to be of.
    logs: Sequence[tuple[str, Collection[str]]] = ()


@dataclass(frozen=True)
class Question:
    """What to look for: jobs that this host submitted in a window."""

    window: Window
    host: str
    queues: Collection[str] = ()  # these only; empty: all
    inst: str | None = None  # this instrument only
    aliases: Mapping[str, str] = field(default_factory=dict)  # names of instruments -> its own
    everything: bool = False  # keep a row of every job


@dataclass(frozen=True)
class Row:
    """What has become of one job."""

    said: Said
    inst: str
    queue: str
    verdict: Verdict


@dataclass(frozen=True)
class Gap:
    """Numbers that are missing between others, the first and the last of them."""

    of: str  # a queue or an instrument
    first: int
    last: int


@dataclass(frozen=True)
class File:
    """An original: may it be deleted, and if not, why."""

    path: str
    safe: bool
    reason: str
    job: str


@dataclass
class Report:
    """What an audit found."""

    reach: Reach
    totals: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)  # of jobs that have no row
    lost: list[Gap] = field(default_factory=list)  # request ids without a job
    missing: list[Gap] = field(default_factory=list)  # of the instruments' own numbers
    twice: list[tuple[str, int, list[str]]] = field(default_factory=list)

    @property
    def owed(self) -> bool:
        """Tell whether anything is not archived, or does not add up."""
        wrong = any(row.verdict.weight is Weight.OWED for row in self.rows)
        return wrong or bool(self.lost or self.missing or self.twice)


def audit(
    sources: Sources,
    question: Question,
    now: datetime,
    report: Callable[[str], None],
    tell: Callable[[File], None] | None = None,
) -> Report:
    """Look at all sources and judge every job of the window.

    Damaged lines of logs go to `report`. `tell` is told of every original that is still there,
    and whether it may be deleted: only if all jobs made of it are archived or canceled, by the
    archive's own words, and it has the size and the time that one of them was submitted with.
    Raises PermanentError for a spool that this account
    cannot see whole, and for logs that are none; OSError for what cannot be read.
    """
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger())
        queues = stack.enter_context(census.opened(sources.spool)) if sources.spool else []
        look = _Audit(ledger, queues, sources, question, now, tell is not None)
        look.gather(report)
        look.judge()
        look.number()
        if tell:
            for original in look.originals():
                tell(original)
        return look.report


def uid_time(moment: datetime) -> str:
    """Return the first time in uids, in whole seconds, that is not before a moment."""
    rounded = moment + timedelta(microseconds=-moment.microsecond % 1_000_000)
    return f"{rounded.astimezone(UTC):%Y%m%dT%H%M%SZ}"


class _Audit:
    """One audit."""

    def __init__(
        self,
        ledger: Ledger,
        queues: Sequence[Survey],
        sources: Sources,
        question: Question,
        now: datetime,
        tell: bool,
    ) -> None:
        self._tell = tell
        self._ledger, self._queues, self._sources = ledger, queues, sources
        self._question, self._now = question, now
        self._since = max(question.window.start, datetime(1, 1, 9, tzinfo=UTC)) - CLOCK_ERROR
        self._start = uid_time(question.window.start)
        # What a clock that was wrong has dated into the future belongs to a window without an end.
        self._end = uid_time(question.window.end) if question.window.end < now else "~"
        self.report = Report(Reach())

    # --- looking --------------------------------------------------------------------------

    def gather(self, report: Callable[[str], None]) -> None:
        """Read every source: first what moves, then what only grows."""
        if self._sources.spool:
            standing = census.standing(self._queues)
            self._ledger.add(self._kept(testimony.said(Source.SPOOL, *found) for found in standing))
            for queue in self._queues:
                load = functools.partial(testimony.load, Source.FINISHED, queue.name)
                self._ledger.add(self._kept(queue.log_lines(report, load, self._since)))
        host = self._question.host if self._sources.spool else None
        reach = self.report.reach
        for path in self._sources.receipts:
            for directory in receipts.directories(path, host):
                first = receipts.first_day(directory) or ""
                reach.receipts = min(first, first if reach.receipts is None else reach.receipts)
                load = functools.partial(self._load, Source.RECEIPT, set())
                words = receipts.read(directory, self._since, load, report)
                self._ledger.add(self._words(words))
        ahead = Window(self._since, _FAR)
        for path, insts in self._sources.logs:
            known, first = set(insts), transfer_log.first_day(path) or ""
            load = functools.partial(self._load, Source.LOG, known)
            self._ledger.add(self._words(transfer_log.read_lines(path, ahead, load, report)))
            for inst in known:
                reach.logs[inst] = min(first, reach.logs.get(inst, first))
        if self._sources.spool:
            days = (queue.first_day() for queue in self._queues)
            reach.finished = min((day for day in days if day), default="")

    def _kept(self, entries: Iterable[Said]) -> Iterator[Said]:
        """Yield what the spool says of the window's jobs; remember the numbers of all others."""
        for one in entries:
            when = one.uid[:16] or re.sub("[-:]", "", one.time[:19]) + "Z"
            self._ledger.add_number(one.job, one.uid, when)
            if self._start <= when < self._end:
                yield one
            elif one.source is Source.SPOOL:
                self._ledger.add_original(Original(one.path, one.size, one.mtime, one.job, 0))

    def _load(self, source: Source, insts: set[str], line: bytes) -> Said | None:
        """Read a line about a job of the window, or about a file that was set aside.

        The instruments that a log speaks of are noted.
        """
        match = _UID.search(line)
        if match:
            insts.add(match[1].decode())
            if not self._start <= match[2].decode() < self._end and b" quarantined " not in line:
                return None
        return testimony.load(source, "", line)

    def _words(self, words: Iterable[Said | None]) -> Iterator[Said]:
        """Yield the archive's words of the window's jobs; note which files it has set aside."""
        for one in words:
            if one and one.kind == record.QUARANTINED and one.instead_of:
                self.report.reach.taken[one.inst, one.instead_of] = one.time
            if one and self._start <= one.uid[:16] < self._end:
                yield one

    # --- judging --------------------------------------------------------------------------

    def judge(self) -> None:
        """Judge every job, and count it."""
        for group in self._ledger.by_uid():
            ours = self._here(group)
            job = ours[0]
            verdict = testimony.judge(ours, self.report.reach)
            if verdict.account == UNKNOWN:
                if (known := self._strange(job, verdict)) is None:
                    continue
                verdict = known
            inst = self._question.aliases.get(job.inst, job.inst)
            queue = job.place or job.job.rpartition("-")[0]
            if job.place and self._tell:
                self._remember(job, verdict)
            if self._question.queues and queue not in self._question.queues:
                continue
            if self._question.inst and inst and inst != self._question.inst:
                continue
            self._count(Row(job, inst, queue, verdict))

    def _here(self, group: list[Said]) -> list[Said]:
        """Leave out that a job stands in the spool, if it was finished while this looked."""
        if {Source.SPOOL, Source.FINISHED} <= {s.source for s in group} and not census.stands(
            self._queues, group[0].job, group[0].uid
        ):
            return [s for s in group if s.source != Source.SPOOL]
        return group

    def _strange(self, word: Said, verdict: Verdict) -> Verdict | None:
        """Judge a job that the archive knows and the spool does not; None: it is not ours."""
        match = names.UID.fullmatch(word.uid)
        if not match or match[1] != self._question.host:
            return None
        if verdict.weight is not Weight.OWED:
            return verdict
        queue, number = names.split_request_id(match[2])
        at = next((survey for survey in self._queues if survey.name == queue), None)
        if at is None or number > (at.seq() or number) or self._ledger.holder(match[2]) is not None:
            message = "of this host, but of another spool, or from before a lost seq"
            return Verdict(UNKNOWN, Weight.FINE, message)
        if census.stands(self._queues, match[2], word.uid):
            return None  # submitted, or moved, while this looked
        self._ledger.add_number(match[2], word.uid, word.uid[:16])  # named by its uid
        recent = (survey.logged(match[2], self._now - timedelta(days=1)) for survey in self._queues)
        return None if any(e and e.fields.get("uid") == word.uid for e in recent) else verdict

    def _count(self, row: Row) -> None:
        account = row.verdict.account
        totals = self.report.totals.setdefault((row.queue, row.inst), Counter())
        totals[account] += 1
        if account != UNKNOWN and re.fullmatch(r"\d{1,15}", row.said.seq, re.ASCII):
            night = self._night(row.said)
            self._ledger.add_frame(
                row.inst, night, int(row.said.seq), row.said.checksum, row.said.job,
                account != _CANCELED,
            )  # fmt: skip
        if row.verdict.weight is not Weight.FINE or self._question.everything:
            self.report.rows.append(row)
        elif row.verdict.message:
            self.report.notes[row.verdict.message] += 1

    def _night(self, job: Said) -> int:
        """Return which 24 hours of the window a job was submitted in."""
        when = datetime.strptime(job.uid[:16], "%Y%m%dT%H%M%S%z") if job.uid else self._now
        return int((when - self._question.window.start) / timedelta(hours=DAY))

    # --- numbers --------------------------------------------------------------------------

    def number(self) -> None:
        """Find the numbers that are missing: of request ids, and of the instruments' files."""
        for queue in self._queues:
            if not self._question.queues or queue.name in self._question.queues:
                self.report.lost += self._lost(queue)
        last: dict[tuple[str, int], int] = {}
        for inst, night, seq, jobs in self._ledger.frames():
            if jobs:
                self.report.twice.append((inst, seq, jobs))
            if seq > last.get((inst, night), seq) + 1:
                self.report.missing.append(Gap(inst, last[inst, night] + 1, seq - 1))
            last[inst, night] = seq

    def _lost(self, queue: Survey) -> list[Gap]:
        """Return the request ids of the window that no job has, after a second look."""
        if not self._unused(queue):
            return []
        time.sleep(PAUSE)
        for job_id in census.numbers(self._queues):
            self._ledger.add_number(job_id, "", uid_time(self._now))
        for survey in self._queues:
            load = functools.partial(testimony.load, Source.FINISHED, survey.name)
            for one in survey.log_lines(lambda _: None, load, self._now - timedelta(days=1)):
                self._ledger.add_number(one.job, "", uid_time(self._now))
        return self._unused(queue)

    def _unused(self, queue: Survey) -> list[Gap]:
        """Return the numbers without a job between those of jobs around the window.

        Numbers before the first job known are missing only where the finished log was read
        from its beginning. Those after the one that is being submitted are reserved with it,
        and those that a submit did not need are noted.
        """
        since, now = uid_time(self._since), uid_time(self._now)
        end = min(self._end, now)
        unused = queue.unused()
        last, before = -1, ""
        if (queue.first_day() or "~") >= since[:8]:
            last = 0
        # Of this instant, which is not in the window: what follows a draft is not missed yet.
        drafts = {names.split_request_id(job_id)[1] for job_id in census.drafts([queue])}
        known = heapq.merge(self._ledger.numbers(queue.name), ((n, now) for n in sorted(drafts)))
        given = queue.seq()
        ends = [(given + 1, uid_time(queue.seq_changed()))] if given is not None else []
        gaps: list[Gap] = []
        for number, when in itertools.chain(known, ends):
            if 0 <= last < number - 1:
                if before < end and when >= self._start:
                    gaps += _without(Gap(queue.name, last + 1, number - 1), unused)
            if number > last and (last >= 0 or when >= since):
                last, before = number, when
        return gaps

    # --- originals ------------------------------------------------------------------------

    def _remember(self, job: Said, verdict: Verdict) -> None:
        """Remember the file that a job of this host was made of, unless the job was canceled."""
        match = names.UID.fullmatch(job.uid)
        if match and match[1] == self._question.host and verdict.account != _CANCELED:
            archived = verdict.account == ARCHIVED and verdict.proven
            original = Original(job.path, job.size, job.mtime, job.job, archived)
            self._ledger.add_original(original)

    def originals(self) -> Iterator[File]:
        """Yield the originals that are still there, and whether they may be deleted."""
        for jobs in self._ledger.originals():
            last, open_jobs = jobs[-1], [job.job for job in jobs if not job.archived]
            try:
                fault = _fault(jobs)
            except FileNotFoundError:
                continue
            except OSError as error:
                fault = f"cannot be looked at: {error.strerror}"
            if open_jobs:
                fault = f"{open_jobs[-1]} is not archived"
            yield File(last.path, not fault, fault, last.job)


def _without(gap: Gap, stretches: Sequence[tuple[int, int]]) -> list[Gap]:
    """Return what is left of a gap without some stretches of numbers."""
    rest = [gap]
    for first, last in stretches:
        ends = [(Gap(gap.of, part.first, min(part.last, first - 1)),
                 Gap(gap.of, max(part.first, last + 1), part.last)) for part in rest]  # fmt: skip
        rest = [part for pair in ends for part in dict.fromkeys(pair) if part.first <= part.last]
    return rest


def _fault(jobs: Sequence[Original]) -> str:
    """Say why a file is not what one of these jobs has archived, or nothing. Raises OSError."""
    status = os.lstat(keyvalue.to_bytes(jobs[0].path))
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    now = (str(status.st_size), dates.iso_ns(status.st_mtime_ns))
    if any((job.size, job.mtime) == now for job in jobs):
        return ""
    if not all(job.mtime for job in jobs):
        return "its time when it was submitted is not known"
    return "changed since it was submitted"

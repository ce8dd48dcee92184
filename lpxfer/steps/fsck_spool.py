"""Check a spool: is every acknowledged job in exactly one place, and whole?

Safe beside a running sender and its users: jobs move while they are looked at, so what
seems wrong is looked at again, where it stands by then, before it is called so. Looking
changes nothing; repairing needs the sender's lock, and sets aside.
"""

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from lpxfer import checksum
from lpxfer.errors import BusyError, FormatError, PermanentError
from lpxfer.formats import finding, names, record
from lpxfer.formats.control import UnknownFormat
from lpxfer.formats.finding import Finding, Report
from lpxfer.formats.job import NOT_COMPLETED
from lpxfer.formats.record import Record
from lpxfer.stores import survey
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.layout import WITH_JOBS
from lpxfer.stores.spool import Spool
from lpxfer.stores.survey import Survey

#: Of several jobs with one id the one that is furthest on its way is believed.
ORDER = ("done", "sent", "active", "failed", "held", "pending", "quarantine")

#: Where a job may be incomplete: it is being removed, or has been set aside.
EXEMPT = ("done", "quarantine")

LOOKS = 5  # at what moves while it is looked for, and is called gone after that
PAUSE = 0.05  # seconds between them

#: A request id, and the inode that tells two jobs of one id apart.
Job = tuple[str, int]

#: Told the bytes that were read, and of how many in all.
Watch = Callable[[int, int], object]


def fsck(
    spool: Spool, queues: Collection[str], links: Collection[str], repair: bool, watch: Watch
) -> Report:
    """Check these queues of a spool, as far as they have been set up.

    In the queues of `links` data may have other hard links. With `repair` the locks are
    held that are free, and what breaks an invariant is set aside; where a sender holds one
    nothing is changed, and the report is `busy` if something should have been. Raises
    PermanentError where this account could not see everything, and OSError.
    """
    with contextlib.ExitStack() as stack:
        findings: list[Finding] = []
        everywhere: list[Survey] = []  # a job may move to a queue that is not checked
        locked: dict[str, Survey] = {}
        for name in survey.made(spool):
            mending = repair and name in queues
            if queue := _open(spool, name, mending, findings):
                everywhere.append(queue)
                stack.callback(queue.close)
                with contextlib.suppress(BusyError):
                    if mending:
                        stack.enter_context(queue.locked())
                        locked[name] = queue
        findings = [fault for fault in findings if fault.where in queues]
        checked = [queue for queue in everywhere if queue.name in queues]
        check = _Check(checked, everywhere, links, watch)
        findings += check.run()
        refused = {_queue(fault) for fault in findings if fault.mendable} - locked.keys()
        findings = [_mend(locked.get(_queue(fault)), fault) for fault in findings]
    busy = f"a sender serves queue {', '.join(sorted(refused))}: stop the sender first"
    counts = {"jobs": len(check.sizes), "bytes": sum(check.sizes.values())}
    return Report(findings, counts, busy if repair and refused else "")


def _open(spool: Spool, name: str, repair: bool, findings: list[Finding]) -> Survey | None:
    """Open a queue; one that cannot be used is a finding, and with `repair` it is made whole."""
    try:
        queue = Survey(spool, name)
    except PermanentError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        findings.append(Finding(name, "", finding.LAYOUT, str(error), repaired=repair))
        if not repair:
            return None
        queue = Survey(spool, name, repair)
    if queue.open_to_me():
        return queue
    queue.close()
    raise PermanentError(
        f"queue {name} belongs to another account, and so does what has to be looked at: "
        "run xfer-fsck as the account of the sender"
    )


class _Check:
    """One inspection."""

    def __init__(
        self,
        queues: Sequence[Survey],
        everywhere: Sequence[Survey],
        links: Collection[str],
        watch: Watch,
    ) -> None:
        self._queues, self._everywhere = queues, everywhere
        self._links, self._watch = links, watch
        self._found: set[Job] = set()
        self._gone: set[str] = set()
        self._logged: dict[str, Record] = {}
        self._highest: dict[str, int] = defaultdict(int)
        self._total = sum(queue.count(state)[1] for queue in queues for state in NOT_COMPLETED
                          if state.directory not in EXEMPT)  # fmt: skip
        self.sizes: dict[str, int] = {}  # bytes of the jobs that were read

    def run(self) -> Iterator[Finding]:
        """Yield what is wrong. The log is read when no job is looked for any more."""
        drafts = {queue.name: queue.dead_drafts() for queue in self._queues}
        for queue in self._queues:
            yield from self._list(queue)
        yield from self._spare()
        yield from self._damaged()
        for queue in self._queues:
            yield from self._log(queue)
        yield from self._finished()
        yield from self._lost()
        if any(drafts.values()):
            time.sleep(PAUSE)
        for queue in self._queues:
            yield from self._rest(queue, drafts[queue.name])

    def _list(self, queue: Survey) -> Iterator[Finding]:
        """List all jobs, and yield what is none. Jobs move in the order of the directories."""
        for directory in WITH_JOBS:
            for name, inode, proper in queue.listing(directory):
                if proper:
                    self._know(queue, name)
                    if directory != "tmp":
                        self._found.add((name, inode))
                elif directory != "quarantine":
                    where = f"{queue.name}/{directory}/{name}"
                    yield Finding(where, "", finding.STRAY, "is not a job", mendable=True)

    def _know(self, queue: Survey, job_id: str) -> None:
        match = names.REQUEST_ID.fullmatch(job_id)
        if match and match[1] == queue.name:
            self._highest[queue.name] = max(self._highest[queue.name], int(match[2]))

    def _find(self, job: Job) -> tuple[Survey, str] | None:
        """Return where a job stands now; one that moves this instant may slip through."""
        for queue in self._everywhere:
            if directory := queue.place(*job):
                return queue, directory
        return None

    def _spare(self) -> Iterator[Finding]:
        """Yield jobs of which there is another one; from here on they are not looked at."""
        several = defaultdict(list)
        for job in self._found:
            several[job[0]].append(job)
        for job_id, jobs in sorted(several.items()):
            places = [(job, place) for job in jobs if len(jobs) > 1 and (place := self._find(job))]
            places.sort(key=lambda found: self._rank(job_id, *found[1]))
            for job, (queue, directory) in places[1:]:
                self._found.discard(job)
                kept, kept_in = places[0][1]
                message = f"stands in {directory}/ and in {kept_in}/"
                if queue is not kept:
                    message = f"stands in {queue.name} and in {kept.name}"
                message += ": two jobs of one id"
                where = f"{queue.name}/{directory}/{job_id}"
                yield Finding(where, job_id, finding.STATE, message, mendable=True)

    def _rank(self, job_id: str, queue: Survey, directory: str) -> tuple[bool, bool, int]:
        damaged = self._fault(job_id, queue, directory) is not None
        return directory == "quarantine", damaged, ORDER.index(directory)

    def _damaged(self) -> Iterator[Finding]:
        """Yield jobs that are not whole, after a second look."""
        waiting, suspects = sorted(self._found), set()
        for _ in range(LOOKS):
            again = []
            for job in waiting:
                place = self._find(job)
                if place is None:
                    again.append(job)
                elif fault := self._fault(job[0], *place):
                    if job in suspects:
                        yield fault
                    else:
                        suspects.add(job)
                        again.append(job)
            if not again:
                return
            waiting = again
            time.sleep(PAUSE)
        self._gone = {job[0] for job in waiting if not self._find(job)}

    def _fault(self, job_id: str, queue: Survey, directory: str) -> Finding | None:
        """Say what is wrong with a job where it stands."""
        if directory in EXEMPT:
            return None
        where = f"{queue.name}/{directory}/{job_id}"
        self.sizes.setdefault(job_id, 0)
        try:
            with queue.open_in(directory, job_id) as job:
                self._read(job, queue.name in self._links)
        except UnknownFormat as error:
            return Finding(where, job_id, finding.JOB, f"{error}; left alone", warning=True)
        except FileNotFoundError as error:
            message = f"{error.filename} is missing"
        except FormatError as error:
            message = str(error)
        except OSError as error:  # the disk's fault, which may pass
            name = "it" if error.filename == job_id else error.filename or "data"
            message = f"{name} cannot be read: {error.strerror}"
            return Finding(where, job_id, finding.JOB, message)
        else:
            return None
        return Finding(where, job_id, finding.JOB, message, mendable=True)

    def _read(self, job: JobDir, links: bool) -> None:
        """Read all of a job. Raises FormatError and OSError for what is wrong."""
        for name, read in (("control", job.control), ("routing", job.routing)):
            try:
                read()
            except UnknownFormat:
                raise
            except FormatError as error:
                text = str(error)
                raise FormatError(text if text.startswith(name) else f"{name}: {text}") from error
        job.attempts()
        control = job.check(links)
        with job.opened_data() as fd:
            size, found = os.fstat(fd).st_size, checksum.of_file(fd)
        self._watch(size - self.sizes[job.id], self._total)
        self.sizes[job.id] = size
        if size != control.size:
            raise FormatError(f"data has {size} bytes but the control file says {control.size}")
        if found != control.checksum:
            raise FormatError(
                f"data has checksum {found} but the control file says {control.checksum}"
            )

    def _log(self, queue: Survey) -> Iterator[Finding]:
        """Read the finished log: what it says of jobs that were found, and what is damaged."""
        damaged: list[str] = []
        known = {job_id for job_id, _ in self._found}
        for entry in queue.log_lines(damaged.append, record.load_unless_torn):
            job_id = entry.fields.get("job", "")
            self._know(queue, job_id)
            if job_id in known:
                self._logged[job_id] = entry
        for message in damaged:
            yield Finding(f"{queue.name}/log", "", finding.LOG, message)

    def _finished(self) -> Iterator[Finding]:
        for job in sorted(self._found):
            entry, place = self._logged.get(job[0]), self._find(job)
            uid = entry.fields.get("uid") if entry else None  # a damaged job has none there
            if entry and uid and place and place[1] not in EXEMPT:
                queue, directory = place
                where = f"{queue.name}/{directory}/{job[0]}"
                message = f"is {entry.kind} in the finished log and stands in {directory}/"
                same = self._uid(job[0], queue, directory) == uid
                if not same:
                    message = "has the number of another job, which is in the finished log"
                yield Finding(where, job[0], finding.FINISHED, message, not same, mendable=same)

    def _uid(self, job_id: str, queue: Survey, directory: str) -> str | None:
        with contextlib.suppress(FormatError, OSError), queue.open_in(directory, job_id) as job:
            return job.control().uid
        return None

    def _lost(self) -> Iterator[Finding]:
        for job_id in sorted(self._gone - self._logged.keys()):
            if any(queue.finished(job_id) for queue in self._everywhere):
                continue  # in a queue that is not checked
            where = names.split_request_id(job_id)[0]
            message = "was here a moment ago, is in no state now and not in the finished log"
            yield Finding(where, job_id, finding.STATE, message)

    def _rest(self, queue: Survey, drafts: set[Job]) -> Iterator[Finding]:
        """Yield what is wrong with the queue and not with its jobs."""
        highest, seq = self._highest[queue.name], queue.seq()
        if seq is not None and seq < highest:
            message = f"seq says {seq}, but {queue.name}-{highest} was given out"
            yield Finding(queue.name, "", finding.SEQ, message, mendable=True)
        for directory, message in queue.faults():
            where = f"{queue.name}/{directory}".rstrip("/")
            yield Finding(where, "", finding.LAYOUT, message, warning=True)
        for name, _ in sorted(drafts & queue.dead_drafts()):
            message = "was left by a submit that died; no id was given out"
            where = f"{queue.name}/tmp/{name}"
            yield Finding(where, name, finding.DRAFT, message, warning=True, mendable=True)


# --- repair ---------------------------------------------------------------------------------


def _queue(fault: Finding) -> str:
    return fault.where.partition("/")[0]


def _mend(queue: Survey | None, fault: Finding) -> Finding:
    """Put one thing right in a queue whose lock is held, and say how."""
    if queue is None or not fault.mendable:
        return fault
    try:
        if fault.invariant == finding.SEQ:
            queue.forget_seq()
            done = "the next one will be above that"
        else:
            _, directory, name = fault.where.split("/", 2)
            if fault.invariant == finding.DRAFT:
                queue.discard_dead(name)
                done = "removed"
            else:
                keep_id = fault.invariant in (finding.JOB, finding.FINISHED)
                aside = queue.set_aside(directory, name, fault.message, keep_id)
                done = f"set aside as quarantine/{aside}"
    except OSError as error:
        return replace(fault, message=f"{fault.message}; not repaired: {error.strerror}")
    return replace(fault, message=f"{fault.message}; {done}", repaired=True)

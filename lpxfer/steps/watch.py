"""Watch: submit every finished file of an instrument's directories, once each version.

Hints say where to look; what is finished is decided here (judge), and what was submitted is
known from the record (watched). The tree is compared with the record at the start, when a
source asks for it, and at intervals, so that a hint that is lost loses no file.

Guarantees: a version that the record has is not submitted again; a version that became a job
gets into the record, by the next start if this one is killed between the two. Raises nothing
for a file, a queue or a directory that fails: it is reported once, and tried again.
"""

import os
import queue
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

from lpxfer.errors import ChangedError, LpxferError, TemporaryError
from lpxfer.formats import backoff
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.watching import Finished, Match
from lpxfer.sources import judge, mounts, tree
from lpxfer.sources.candidates import Candidate, Candidates
from lpxfer.stores.watched import Version, Watched

BATCH = 200  # files that go into one submit, and share its syncs
OLD = timedelta(days=1)  # at the very first start, what is older is taken as submitted

EVERY = 60.0  # seconds from one look at everything to the next, at least
SHARE, ASKED = 0.001, 0.05  # of the time that may go to such looks, by itself and when asked

BETWEEN = 0.5  # seconds of such a look, between which hints are heard

MISSING = 60.0  # seconds for which a file that was named and is not there is looked for
SLOWEST = 15.0  # seconds between looks at a file of which nobody knows when it is finished
LATE = 3600.0  # seconds after which a person should know that a file is not finished


@dataclass(frozen=True)
class Site:
    """What is watched of one instrument."""

    roots: Sequence[str]
    match: Match
    finished: Finished


@dataclass(frozen=True)
class Found:
    """A finished file: where it is, its path below the watched directory, what it is."""

    path: str
    below: str
    version: Version


@dataclass(frozen=True)
class Taken:
    """What became of a finished file: the job and the version in it, or the error."""

    found: Found
    job: str | None = None
    version: Version | None = None
    error: LpxferError | None = None


Submit = Callable[[Sequence[Found], datetime], Iterable[Taken]]


class Watch:
    """The watch of one instrument."""

    def __init__(
        self,
        site: Site,
        record: Watched,
        submit: Submit,
        say: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        """Watch `site`; `submit` yields one Taken for each Found, once it is durable."""
        self._site, self._record, self._submit = site, record, submit
        self.say, self._clock = say, clock
        self.hints = queue.SimpleQueue[str | None]()
        self._files = Candidates()
        self._remote: dict[str, bool] = {}
        self._asked = True
        self._looked, self._took = float("-inf"), 0.0  # the last look at everything: end, seconds
        self._faults: set[str] = set()
        self._trouble, self._failures, self._pause = "", 0, 0.0

    @property
    def first(self) -> bool:
        """Whether this is the very first start."""
        return self._record.new

    # --- the whole --------------------------------------------------------------------------

    def begin(self, mark: bool = False, everything: bool = False) -> int:
        """Make a first record, and return how many files are taken as submitted.

        These are all that are there, with `mark`; at the very first start those that are older
        than OLD; none, not even those that were before, with `everything`. Raises OSError where
        a first look is impossible: what is not mounted yet would all be new.
        """
        if everything:
            self._record.unmark()
        elif mark or self._record.new:
            oldest = (self._clock() - OLD).timestamp()
            found = [
                (path, _version(status))
                for path, status in self._there(_raise)
                if mark or max(status.st_mtime, status.st_ctime) < oldest
            ]
            new = [(p, v) for p, v in found if not self._record.known(p, v)]
            self._record.mark(self._now(), new)
            return len(new)
        self._record.mark(self._now(), [])
        return 0

    def serve(self, stop: Event, beat: Callable[[], None]) -> None:
        """Submit what is finished until told to stop."""
        while not stop.is_set():
            beat()
            self._hear(self._pause_or_due())
            if self._may_look():
                self._look_at_everything(stop, beat)
            self._work(stop, beat)

    def once(self) -> tuple[int, int]:
        """Submit what is finished now; return how many files are left, and of those refused.

        What could not be looked at counts as left.
        """
        never = Event()
        self._look_at_everything(never, lambda: None)
        self._work(never, lambda: None)
        left = len(self._files) + len(self._faults)
        return left, sum(1 for candidate in self._files if candidate.told)

    # --- where to look ----------------------------------------------------------------------

    def _hear(self, seconds: float) -> None:
        """Take the hints that are there, waiting for the first."""
        try:
            hint = self.hints.get(timeout=seconds)
            while True:
                if hint is None:
                    self._asked = True
                else:
                    for root in self._site.roots:
                        self._named(os.path.normpath(os.path.join(root, hint)), root)
                hint = self.hints.get_nowait()
        except queue.Empty:
            pass

    def _named(self, path: str, root: str) -> None:
        """Take a name for what it may be: a file, its flag, or a directory below this root."""
        if not path.startswith(root.rstrip("/") + "/"):
            return
        flag, name = self._site.finished.flag, os.path.basename(path)
        if flag and name.endswith(flag):
            path, name = path[: -len(flag)], name[: -len(flag)]
        if self._match(name):
            self._files.note(path, at_once=True)
        elif (status := tree.look(path, root)) and stat.S_ISDIR(status.st_mode):
            self._note_all(path)

    def _note_all(self, directory: str) -> None:
        for path, _ in tree.files(directory, self._match, lambda _: None):
            self._files.note(path, at_once=True)

    def _match(self, name: str) -> bool:
        flag = self._site.finished.flag
        return self._site.match(name) and not (flag and name.endswith(flag))

    def _pause_or_due(self) -> float:
        """Return the seconds to wait for a hint: to the next thing to do, a second at most."""
        now = time.monotonic()
        due = max(self._files.next_due(), self._pause)
        return min(max(due - now, 0.0), 1.0)

    def _may_look(self) -> bool:
        since = time.monotonic() - self._looked
        if self._asked:
            return since * ASKED >= self._took
        return since >= EVERY and since * SHARE >= self._took

    def _look_at_everything(self, stop: Event, beat: Callable[[], None]) -> None:
        """Compare the tree with the record; what is heard of meanwhile goes first."""
        start, there, faults = time.monotonic(), list[str](), set[str]()
        between = start + BETWEEN

        def report(error: OSError) -> None:
            name = os.fsdecode(error.filename or "")
            faults.add(f'unable to look at "{name}" - {error.strerror}')

        self._asked = False
        self._remote = {root: mounts.is_remote(root) for root in self._site.roots}
        for path, status in self._there(report):
            there.append(path)
            if not self._record.known(path, _version(status)):
                self._files.note(path, at_once=False)
            if time.monotonic() >= between:
                self._hear(0.0)
                self._work(stop, beat)
                between = time.monotonic() + BETWEEN
        for fault in sorted(faults - self._faults):
            self.say(fault)
        self._faults = faults
        if there and not faults:
            self._kept(lambda: self._record.missing(self._now(), there))
        self._looked = time.monotonic()
        self._took = self._looked - start

    def _there(self, report: tree.Report) -> Iterator[tuple[str, os.stat_result]]:
        for root in self._site.roots:
            yield from tree.files(root, self._match, report)

    # --- what is finished -------------------------------------------------------------------

    def _work(self, stop: Event, beat: Callable[[], None]) -> None:
        """Look at the files that are due, and submit those that are finished, oldest first."""
        while not stop.is_set() and time.monotonic() >= self._pause:
            ready = self._ready()
            if not ready:
                break
            ready.sort(key=lambda found: found.version.mtime)
            while ready and not stop.is_set():
                beat()
                batch, ready = ready[:BATCH], ready[BATCH:]
                if not self._taken(batch):
                    for found in batch + ready:
                        self._files.again(found.path, 0.0)
                    break

    def _ready(self) -> list[Found]:
        """Return the finished files among those that are due; of a hard-linked one, one name."""
        ready, versions = list[Found](), set[Version]()
        for candidate in self._files.due():
            path, found = candidate.path, self._judged(candidate)
            if found and found.version in versions:
                self._files.again(path, 0.0)
            elif found:
                versions.add(found.version)
                ready.append(found)
        return ready

    def _judged(self, file: Candidate) -> Found | None:
        """Return a file that is finished and not submitted; else drop it, or put it off."""
        path, waited = file.path, time.monotonic() - file.since
        root = next(r for r in self._site.roots if path.startswith(r.rstrip("/") + "/"))
        status = tree.look(path, root)
        if status is None or not stat.S_ISREG(status.st_mode):
            if status:
                self._note_all(path)
            if status or waited > MISSING or file.version:
                self._files.drop(path)
            else:
                self._files.again(path, _growing(waited))
            return None
        version, remote = _version(status), self._remote.get(root, True)
        if self._is_done(path, version, remote):
            self._files.drop(path)
            return None
        file.is_now(version)
        try:
            lacks = self._unfinished(file, status, remote)
        except OSError as error:
            said = f'unable to access "{printable(path)}" - {error.strerror}'
            self._refused([Taken(Found(path, "", version), error=TemporaryError(said))])
            return None
        if lacks is None:
            return Found(path, os.path.relpath(path, root), version)
        if waited > LATE and not file.told:
            file.told = lacks.reason
            self.say(f'"{path}" has not been finished for an hour: {lacks.reason}')
        self._files.again(path, _growing(waited) if lacks.again is None else lacks.again + 0.01)
        return None

    def _unfinished(
        self, file: Candidate, status: os.stat_result, remote: bool
    ) -> judge.Unfinished | None:
        age = self._clock().timestamp() - max(status.st_mtime, status.st_ctime)
        age -= judge.CLOCKS if remote else 0.0
        quiet = max(time.monotonic() - file.changed, age)
        return judge.unfinished(file.path, status, self._site.finished, quiet, remote)

    def _is_done(self, path: str, version: Version, remote: bool) -> bool:
        """Tell whether a version was submitted, be it under another name of the same file."""
        if self._record.known(path, version):
            return True
        other = None if remote else self._record.alias(version)
        if other is None or other[0] == path:
            return False
        self.say(f'"{path}" is "{other[0]}", which was submitted ({other[1]}): not again')
        self._kept(lambda: self._record.ended(self._now(), [(path, version, other[1])]))
        return True

    # --- submitting -------------------------------------------------------------------------

    def _take(self, batch: Sequence[Found]) -> None:
        """Submit finished files. Raises LpxferError or OSError when none of them can be."""
        now = self._clock()
        self._record.about(_ns(now), [(found.path, found.version) for found in batch])
        results = list(self._submit(batch, now))
        self._record.ended(_ns(now), [
            (taken.found.path, taken.version or taken.found.version, taken.job)
            for taken in results
        ])  # fmt: skip
        for taken in results:
            if taken.job:
                self._files.drop(taken.found.path)
            elif isinstance(taken.error, ChangedError):
                self._files.again(taken.found.path, 1.0)
        failed = [t for t in results if t.error and not isinstance(t.error, ChangedError)]
        if 1 < len(results) == sum(isinstance(t.error, TemporaryError) for t in failed):
            raise TemporaryError(str(failed[0].error))  # it is nobody's own fault
        self._refused(failed)

    def _refused(self, failed: Sequence[Taken]) -> None:
        """Put off files that cannot be submitted as they are; say each reason once."""
        reasons = dict[str, list[str]]()
        for taken in failed:
            path, said = taken.found.path, str(taken.error)
            file = self._files[path]
            if file.told != said:
                reasons.setdefault(said.replace(printable(path), "…"), []).append(said)
            file.told = said
            self._files.again(path, backoff.queue_delay(file.failures))
            file.failures += 1
        for said_of in reasons.values():
            more = len(said_of) - 1
            self.say(said_of[0] + (f" (and {more} more)" if more else ""))

    def _taken(self, batch: Sequence[Found]) -> bool:
        """Submit files; where none of any can be submitted now, say so once, and pause."""
        try:
            self._take(batch)
        except (LpxferError, OSError) as error:
            said = _said(error)
            if said != self._trouble:
                self.say(f"{said}; it is tried again until it works")
            self._pause = time.monotonic() + backoff.queue_delay(self._failures)
            self._trouble, self._failures = said, self._failures + 1
            return False
        if self._trouble:
            self.say("files are submitted again")
        self._trouble, self._failures = "", 0
        return True

    def _kept(self, note: Callable[[], None]) -> None:
        """Note in the record what is known without it, too; a disk that is full stops nobody."""
        try:
            note()
        except OSError as error:
            if (said := _said(error)) not in self._faults:
                self.say(f"the record cannot be written: {said}")
                self._faults.add(said)

    def _now(self) -> int:
        return _ns(self._clock())


def _version(status: os.stat_result) -> Version:
    return Version(status.st_size, status.st_mtime_ns, status.st_ino)


def _growing(waited: float) -> float:
    """Return the seconds to the next look at a file that has been waited for so long."""
    return min(max(waited / 4, 0.2), SLOWEST)


def _said(error: LpxferError | OSError) -> str:
    return str(error) if isinstance(error, LpxferError) else error.strerror or str(error)


def _ns(now: datetime) -> int:
    return int(now.timestamp() * 1e6) * 1000


def _raise(error: OSError) -> None:
    raise error

"""Watch: submit every finished file of an instrument's directories, once each version.

Hints say where to look; the finder knows what is finished, and the record what was submitted.
The tree is compared with the record at the start, when a source asks for it, and at intervals,
so that a hint that is lost loses no file.

Guarantees: a version that the record has is not submitted again; a version that became a job
gets into the record, by the next start if this one is killed between the two. Raises nothing
for a file, a queue or a directory that fails: it is reported once, and tried again.
"""

import contextlib
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

from lpxfer.errors import ChangedError, LpxferError, TemporaryError
from lpxfer.formats import backoff
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.watch_record import Version
from lpxfer.formats.watch_state import WatchState
from lpxfer.sources.finder import Finder, Found, Site, in_ns
from lpxfer.stores.watched import Watched

BATCH = 200  # files that go into one submit, and share its syncs
HINTS = 10_000  # that are taken before something else is done
TELLS = 5.0  # seconds between two times that others are let see how this stands
OLD = timedelta(days=1)  # at the very first start, what is older is taken as submitted


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
        self._record, self._submit, self.say, self._clock = record, submit, say, clock
        self.hints = queue.SimpleQueue[str | None]()
        self._finder = Finder(site, record, lambda line: self.say(line), clock)
        self._trouble, self._failures, self._pause = "", 0, 0.0  # why none can be submitted
        self._told, self._tells_at = WatchState(), 0.0

    @property
    def first(self) -> bool:
        """Whether this is the very first start."""
        return self._record.new

    def begin(self, mark: bool = False, everything: bool = False) -> int:
        """Make a first record, and return how many files are taken as submitted.

        These are all that are there, with `mark`; at the very first start those that are older
        than OLD; none, not even those that were before, with `everything`. Raises OSError where
        a first look is impossible: what is not mounted yet would all be new.
        """
        marked = list[tuple[str, Version]]()
        if everything:
            self._record.unmark()
        elif mark or self._record.new:
            oldest = (self._clock() - OLD).timestamp()
            marked += (
                (path, version)
                for path, version, changed in self._finder.everything(_raise)
                if (mark or changed < oldest) and not self._record.known(path, version)
            )
        self._record.mark(in_ns(self._clock()), marked)
        return len(marked)

    def serve(self, stop: Event, beat: Callable[[], None]) -> None:
        """Submit what is finished until told to stop."""
        self._record.stay()
        while not stop.is_set():
            beat()
            due = max(self._finder.files.next_due(), self._pause) - time.monotonic()
            self._hear(min(max(due, 0.0), 1.0))
            if self._finder.look_due():
                self._finder.look(lambda: self._go_on(stop, beat))
            self._work(stop, beat)
            if time.monotonic() >= self._tells_at:
                self._tell(stays=True)

    def once(self) -> tuple[int, int]:
        """Submit what is finished now; return how many files are left, and of those refused.

        What could not be looked at counts as left.
        """
        self._finder.look(lambda: None)
        self._work(Event(), lambda: None)
        self._tell(stays=False)
        files = self._finder.files
        return len(files) + len(self._finder.faults), sum(1 for file in files if file.told)

    def _tell(self, stays: bool) -> None:
        """Let others see how this stands, where that is news; a disk that is full stops nobody."""
        files = self._finder.files
        late = sum(1 for file in files if file.told)
        state = WatchState(stays, self._finder.compared, len(files), late, self._trouble)
        self._tells_at = time.monotonic() + TELLS
        if state != self._told:
            with contextlib.suppress(OSError):
                self._record.tell(state)
                self._told = state

    def _go_on(self, stop: Event, beat: Callable[[], None]) -> None:
        self._hear(0.0)
        self._work(stop, beat)

    def _hear(self, seconds: float) -> None:
        """Take the hints that are there, waiting for the first."""
        with contextlib.suppress(queue.Empty):
            self._finder.hear(self.hints.get(timeout=seconds))
            for _ in range(HINTS):
                self._finder.hear(self.hints.get_nowait())

    def _work(self, stop: Event, beat: Callable[[], None]) -> None:
        """Submit the files that are finished by now, oldest first."""
        while not stop.is_set() and time.monotonic() >= self._pause:
            if not (ready := self._finder.ready()):
                return
            while ready:
                beat()
                batch, rest = ready[:BATCH], ready[BATCH:]
                if stop.is_set() or not self._taken(batch):
                    for found in ready:
                        if found.path in self._finder.files:
                            self._finder.files.again(found.path, 0.0)
                    return
                ready = rest

    def _taken(self, batch: Sequence[Found]) -> bool:
        """Submit files; where none of any can be submitted now, say so once, and pause."""
        try:
            self._take(batch)
        except (LpxferError, OSError) as error:
            said = str(error)
            if isinstance(error, OSError):  # submit makes its own errors of the spool's
                said = f"the record of what was submitted cannot be written: {error.strerror}"
            if said != self._trouble:
                self.say(f"{said}; it is tried again until it works")
            self._pause = time.monotonic() + backoff.queue_delay(self._failures)
            self._trouble, self._failures = said, self._failures + 1
            return False
        if self._trouble:
            self.say("files are submitted again")
        self._trouble, self._failures = "", 0
        return True

    def _take(self, batch: Sequence[Found]) -> None:
        """Submit finished files. Raises LpxferError or OSError when none of them can be."""
        try:
            claimed = self._record.claim(found.path for found in batch)
            for found in batch:
                if found.path not in claimed:  # somebody else submits it, or tries to
                    self._finder.files.again(found.path, 1.0)
            self._take_claimed([found for found in batch if found.path in claimed])
        finally:
            self._record.release()

    def _take_claimed(self, batch: Sequence[Found]) -> None:
        now = self._clock()
        self._record.about(in_ns(now), [(found.path, found.version) for found in batch])
        results = list(self._submit(batch, now))
        self._record.ended(in_ns(now), [
            (taken.found.path, taken.version or taken.found.version, taken.job)
            for taken in results
        ])  # fmt: skip
        for taken in results:
            if taken.job:
                self._finder.files.drop(taken.found.path)
                self._as_it_is(taken.found, taken.job)
            elif isinstance(taken.error, ChangedError):
                self._finder.files.again(taken.found.path, 1.0)
        failed = [t for t in results if t.error and not isinstance(t.error, ChangedError)]
        if 1 < len(results) == sum(isinstance(t.error, TemporaryError) for t in failed):
            raise TemporaryError(str(failed[0].error))  # it is nobody's own fault
        self._refused(failed)

    def _as_it_is(self, found: Found, job: str) -> None:
        """Say what a file lacks that was submitted all the same."""
        if found.lacks:
            said = f"has not changed for an hour, and is submitted as it is ({job})"
            self.say(f'"{found.path}" {said}: {found.lacks}')

    def _refused(self, failed: Sequence[Taken]) -> None:
        """Put off files that cannot be submitted as they are; say each reason once."""
        reasons = dict[str, list[str]]()
        for taken in failed:
            path, why = taken.found.path, str(taken.error)
            if self._finder.refused(path, why, say=False):
                reasons.setdefault(why.replace(printable(path), "…"), []).append(why)
        for whys in reasons.values():
            self.say(whys[0] + (f" (and {len(whys) - 1} more)" if len(whys) > 1 else ""))


def _raise(error: OSError) -> None:
    raise error

"""Which files of an instrument are finished and not submitted: the tree against the record.

Hints and looks at everything make candidates; each is judged when it is due. Raises nothing
for a file or a directory that fails: it is reported once, and looked at again.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lpxfer.formats import backoff
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.watch_record import MARKED, Version
from lpxfer.formats.watching import Finished, Match
from lpxfer.sources import judge, mounts, tree
from lpxfer.sources.candidates import Candidate, Candidates
from lpxfer.stores.watched import Watched

EVERY = 60.0  # seconds from one look at everything to the next, at least
SHARE, ASKED = 0.001, 0.05  # of the time that may go to such looks, by itself and when asked
BETWEEN = 0.5  # seconds of such a look, between which something else may be done

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
    """A file to submit: where it is, its path below the watched directory, what it is."""

    path: str
    below: str
    version: Version
    lacks: str = ""  # what its writer has left out, if that is given up


class Finder:
    """Finds the files of one site that have to be submitted."""

    def __init__(
        self,
        site: Site,
        record: Watched,
        say: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        """Know the site and the record of what was submitted; nothing is looked at yet."""
        self._site, self._record, self._say, self._clock = site, record, say, clock
        self.files = Candidates()
        self.faults: set[str] = set()  # what could not be looked at, or noted
        self._remote: dict[str, bool] = {}
        self._asked = True
        self.compared: datetime | None = None  # when the tree was, with the record
        self._looked, self._took = float("-inf"), 0.0  # the last look at everything: end, seconds
        self._told_outside = False
        self._others = list[tuple[str, Version, str, str]]()  # path, what it is, name, job

    def everything(self, report: tree.Report) -> Iterator[tuple[str, Version, float]]:
        """Yield the path and version of every file that is meant, and when it changed last."""
        for root in self._site.roots:
            for path, status in tree.files(root, self._match, report):
                yield path, _version(status), max(status.st_mtime, status.st_ctime)

    # --- hints ------------------------------------------------------------------------------

    def hear(self, hint: str | None) -> None:
        """Take a hint for what it may be; None asks for a look at everything."""
        if hint is None:
            self._asked = True
            return
        paths = [(root, os.path.normpath(os.path.join(root, hint))) for root in self._site.roots]
        inside = [(root, path) for root, path in paths if _below(path, root)]
        for root, path in inside:
            self._named(path, root)
        if not inside and not self._told_outside:
            self._told_outside = True
            self._say(f'"{hint}" is not in a watched directory: passed over, as all that follow')

    def _named(self, path: str, root: str) -> None:
        """Take a path for a file, its flag, or a directory."""
        flag, name = self._site.finished.flag, os.path.basename(path)
        if flag and name.endswith(flag):
            path, name = path[: -len(flag)], name[: -len(flag)]
        if self._match(name):
            self.files.note(path, at_once=True)
        elif (status := tree.look(path, root)) and stat.S_ISDIR(status.st_mode):
            self._note_all(path)

    def _note_all(self, directory: str) -> None:
        for path, _ in tree.files(directory, self._match, lambda _: None):
            self.files.note(path, at_once=True)

    def _match(self, name: str) -> bool:
        flag = self._site.finished.flag
        return self._site.match(name) and not (flag and name.endswith(flag))

    # --- looks at everything ----------------------------------------------------------------

    def look_due(self) -> bool:
        """Tell whether everything is to be looked at now."""
        since = time.monotonic() - self._looked
        if self._asked:
            return since * ASKED >= self._took
        return since >= EVERY and since * SHARE >= self._took

    def look(self, meanwhile: Callable[[], None]) -> None:
        """Compare the tree with the record; `meanwhile` is called now and then."""
        start, there, faults = time.monotonic(), list[str](), set[str]()
        between = start + BETWEEN

        def report(error: OSError) -> None:
            name = os.fsdecode(error.filename or "")
            faults.add(f'unable to look at "{name}" - {error.strerror}')

        self._asked = False
        self._remote = {root: mounts.is_remote(root) for root in self._site.roots}
        for path, version, _ in self.everything(report):
            there.append(path)
            if not self._record.known(path, version):
                self.files.note(path, at_once=False)
            if time.monotonic() >= between:
                meanwhile()
                between = time.monotonic() + BETWEEN
        for fault in sorted(faults - self.faults):
            self._say(fault)
        self.faults = faults
        if there and not faults:
            self._kept(lambda: self._record.missing(self._now(), there))
        self.compared = self.compared if faults else self._clock()
        self._looked = time.monotonic()
        self._took = self._looked - start

    # --- candidates -------------------------------------------------------------------------

    def ready(self) -> list[Found]:
        """Return the finished files among those that are due, oldest first.

        Of a file that has several names it is one; the others are looked at again.
        """
        ready = dict[Version, Found]()
        for candidate in self.files.due():
            path, found = candidate.path, self._judged(candidate)
            if found and ready.setdefault(found.version, found) is not found:
                self.files.again(path, 0.0)
        self._note_others()
        return sorted(ready.values(), key=lambda found: found.version.mtime)

    def _judged(self, file: Candidate) -> Found | None:
        """Return a file that is finished and not submitted; else drop it, or put it off."""
        path, waited = file.path, time.monotonic() - file.since
        root = next(root for root in self._site.roots if _below(path, root))
        status = tree.look(path, root)
        if status is None or not stat.S_ISREG(status.st_mode):
            if status:
                self._note_all(path)
            if status or waited > MISSING or file.version:
                self.files.drop(path)
            else:
                self.files.again(path, _growing(waited))
            return None
        version, remote = _version(status), self._remote.get(root, True)
        if self._is_done(path, version, remote):
            self.files.drop(path)
            return None
        file.is_now(version)
        try:
            lacks = self._unfinished(file, status, remote)
        except OSError as error:
            self.refused(path, f'unable to access "{printable(path)}" - {error.strerror}')
            return None
        if lacks is None or lacks.given_up:
            below = os.path.relpath(path, root)
            return Found(path, below, version, lacks.reason if lacks else "")
        if waited > LATE and not file.told:
            file.told = lacks.reason
            self._say(f'"{path}" has not been finished for an hour: {lacks.reason}')
        self.files.again(path, _growing(waited) if lacks.again is None else lacks.again + 0.01)
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
        self._others.append((path, version, *other))
        return True

    def _note_others(self) -> None:
        """Note the files that only have another name; of a whole night there are many."""
        others, self._others = self._others, []
        if not others:
            return
        self._kept(lambda: self._record.ended(
            self._now(), [(path, version, job) for path, version, _, job in others]
        ))  # fmt: skip
        told = [(path, name, job) for path, _, name, job in others if job != MARKED]
        for path, name, job in told[:1]:
            more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
            self._say(f'"{path}" is "{name}", which was submitted ({job}): not again{more}')

    def refused(self, path: str, why: str, say: bool = True) -> bool:
        """Put a file off that cannot be submitted; tell whether that had not been said of it."""
        file = self.files[path]
        new, file.told = file.told != why, why
        if new and say:
            self._say(why)
        self.files.again(path, backoff.queue_delay(file.failures))
        file.failures += 1
        return new

    def _kept(self, note: Callable[[], None]) -> None:
        """Note in the record what is known without it, too; a disk that is full stops nobody."""
        try:
            note()
        except OSError as error:
            said = f"the record cannot be written: {error.strerror}"
            if said not in self.faults:
                self._say(said)
                self.faults.add(said)

    def _now(self) -> int:
        return in_ns(self._clock())


def _below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")


def _version(status: os.stat_result) -> Version:
    return Version(status.st_size, status.st_mtime_ns, status.st_ino)


def _growing(waited: float) -> float:
    """Return the seconds to the next look at a file that has been waited for so long."""
    return min(max(waited / 4, 0.2), SLOWEST)


def in_ns(now: datetime) -> int:
    """Return a time as the record has it: nanoseconds since 1970."""
    return int(now.timestamp() * 1e6) * 1000

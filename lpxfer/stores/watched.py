"""What xfer-watch has submitted of one instrument, so that nothing is missed or comes twice.

`watched/NAME`, a line for each event (formats/watch_record.py), only ever appended to, but for
`compact`. A version that is `about` to be submitted, with no line after it, may be a job or not:
its watch died, and the next one asks the queue. So may one that is noted as another's.

Guarantees: what a call has returned for is synced. One watch at a time has a record.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lpxfer import durable
from lpxfer.errors import BusyError, PermanentError
from lpxfer.formats import watch_record, watch_state
from lpxfer.formats.watch_record import MARKED, Note, Version
from lpxfer.formats.watch_state import WatchState
from lpxfer.stores.claims import Claims

SLACK = 1000  # lines that say nothing any more, beside as many as say something
FORGET = 30 * 86400 * 10**9  # ns after which a file that is gone is forgotten


class Watched:
    """The record of one instrument; use it in a `with`."""

    def __init__(self, root: Path, name: str) -> None:
        """Open the record of an instrument. Raises BusyError when another watch has it."""
        self.path = root / name
        self._name = name
        with contextlib.ExitStack() as opened:
            try:
                durable.make_dirs(root)
                self._fd = opened.enter_context(durable.opened_dir(root))
                opened.enter_context(durable.locked(f".{name}.lock", self._fd, 0o600))
                self.new = not os.path.lexists(self.path)
                durable.forget_replacements(name, self._fd)
                durable.forget_replacements(_state(name), self._fd)
                durable.cut_torn_line(name, self._fd)
                self._load()
                self._claims = opened.enter_context(Claims(root, name))
            except BusyError as error:
                raise BusyError(f"another xfer-watch watches {name}, and has {root}") from error
            except OSError as error:
                raise PermanentError(
                    f'the record of what was submitted, "{self.path}", cannot be used: '
                    f"{error.strerror}"
                ) from error
            self._close = opened.pop_all().close

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _load(self) -> None:
        self.jobs: dict[str, tuple[Version, str]] = {}  # by path: what was submitted, as which job
        self.open: dict[str, tuple[Version, int]] = {}  # and what may have been, since when (ns)
        self.others: dict[str, tuple[Version, str, int]] = {}  # and what may be others' job
        self._gone: dict[str, int] = {}
        self._names: dict[Version, tuple[str, str]] = {}
        self._lines = 0
        if self.new:
            return
        with open(durable.open_regular(self._name, self._fd), "rb") as lines:
            for line in lines:
                if note := watch_record.load(line):
                    self._take(note)

    def _take(self, note: Note) -> None:
        self._lines += 1
        word, time, version, job, path = note
        if word == "about":
            self.open[path] = version, time
        elif word == "other":
            self.others[path] = version, job, time
        elif word == "gone":
            self._gone[path] = time
        else:
            self.open.pop(path, None)
            self.others.pop(path, None)
        if word in ("job", "mark"):
            self.jobs[path] = version, job
            self._names[version] = path, job
            self._gone.pop(path, None)

    def claim(self, paths: Iterable[str]) -> set[str]:
        """Claim files that are to be submitted; return those that nobody else is submitting."""
        claimed = {path for path in paths if self._claims.take(path)}
        with self._claims.taken_over() as notes:
            self._append(notes)
        return claimed

    def stay(self) -> None:
        """Let others see that the watch runs."""
        self._claims.stay()

    def tell(self, state: WatchState) -> None:
        """Let others see how the watch stands. Raises OSError."""
        durable.replace(_state(self._name), watch_state.dump(state), self._fd, 0o600)

    def release(self) -> None:
        """Give all claims back."""
        self._claims.release()

    def known(self, path: str, version: Version) -> bool:
        """Tell whether this version of a file was submitted."""
        found = self.jobs.get(path)
        return found is not None and version.same(found[0])

    def alias(self, version: Version) -> tuple[str, str] | None:
        """Return under which other path, and as which job, the same file was submitted."""
        return self._names.get(version)

    def about(self, time: int, files: Iterable[tuple[str, Version]]) -> None:
        """Note what will be submitted next, as of `time`."""
        self._append(Note("about", time, version, MARKED, path) for path, version in files)

    def ended(self, time: int, files: Iterable[tuple[str, Version, str | None]]) -> None:
        """Note what has become of files: the job, or None where they were not submitted."""
        self._append(Note("job" if job else "not", time, version, job or MARKED, path)
                     for path, version, job in files)  # fmt: skip

    def mark(self, time: int, files: Iterable[tuple[str, Version]]) -> None:
        """Take files as submitted; there is a record from then on, whole or none at all."""
        notes = [Note("mark", time, version, MARKED, path) for path, version in files]
        if not self.new:
            self._append(notes)
            return
        for note in notes:
            self._take(note)
        self._write()
        self.new = False

    def unmark(self) -> None:
        """Take what was marked as not submitted after all."""
        marked = [path for path, (_, job) in self.jobs.items() if job == MARKED]
        for path in marked:
            self._names.pop(self.jobs.pop(path)[0], None)
        if marked:
            self._write()

    def missing(self, time: int, there: Iterable[str]) -> None:
        """Note what is not among the files of a tree any more, and forget what long is not.

        Not at once: what was on a disk that is not mounted comes back, and is known then.
        """
        there = set(there)
        new = [path for path in self.jobs if path not in there and path not in self._gone]
        self._append(Note("gone", time, self.jobs[path][0], MARKED, path) for path in new)
        for path, (*_, noted) in list(self.others.items()):
            if path not in there and time - noted > FORGET:
                del self.others[path]
        for path in [path for path in self._gone if path in there]:
            del self._gone[path]
        for path, since in list(self._gone.items()):
            if time - since > FORGET:
                del self._gone[path]
                if found := self.jobs.pop(path, None):
                    self._names.pop(found[0], None)
        if self._lines > 2 * len(self.jobs) + SLACK:
            self._write()

    def _append(self, notes: Iterable[Note]) -> None:
        taken = list(notes)
        if not taken:
            return
        for note in taken:  # first: what is a job is one, though the disk may be full now
            self._take(note)
        lines = b"".join(note.dump() for note in taken)
        durable.append(self._name, lines, self._fd, 0o600, True)

    def _write(self) -> None:
        """Write only what says something still."""
        lines = b"".join(note.dump() for note in self._said())
        durable.replace(self._name, lines, self._fd, 0o600)
        self._lines = len(self.jobs)

    def _said(self) -> Iterator[Note]:
        for path, (version, job) in self.jobs.items():
            yield Note("mark" if job == MARKED else "job", 0, version, job, path)
        for path, time in self._gone.items():
            if path in self.jobs:
                yield Note("gone", time, self.jobs[path][0], MARKED, path)
        for path, (version, job, time) in self.others.items():
            yield Note("other", time, version, job, path)
        for path, (version, time) in self.open.items():
            yield Note("about", time, version, MARKED, path)


def state(root: Path, name: str) -> WatchState | None:
    """Return how the watch of an instrument said that it stands; None for what is not known.

    Raises FormatError.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError), durable.opened_dir(root) as fd:
        return watch_state.load(durable.read_small(_state(name), fd))
    return None


def _state(name: str) -> str:
    return f".{name}.state"

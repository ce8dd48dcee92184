"""What xfer-watch has submitted of one instrument, so that nothing is missed or comes twice.

`watched/NAME`, a line for each event, only ever appended to, but for `compact`:

    WORD TIME SIZE MTIME INODE JOB PATH

`about` before a submit, `job` or `not` after it, `mark` for what is taken as submitted, `gone`
for what is there no more. TIME and MTIME are nanoseconds since 1970. A version that is `about`
to be submitted, with no line after it, may be a job or not: its watch died, and the next one
asks the queue.

Guarantees: what a call has returned for is synced. One watch at a time has a record.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lpxfer import durable
from lpxfer.errors import BusyError, PermanentError
from lpxfer.formats import keyvalue

MARKED = "-"  # in the place of a request id: taken as submitted, by nobody
SLACK = 1000  # lines that say nothing any more, beside as many as say something
FORGET = 30 * 86400 * 10**9  # ns after which a file that is gone is forgotten

_LINE = re.compile(
    rb"(about|job|not|mark|gone) (\d{1,20}) (\d{1,20}) (-?\d{1,20}) (\d{1,20}) (\S+) (\S+)\n"
)


class Version(NamedTuple):
    """One state of a file: a file that has another is another version."""

    size: int
    mtime: int  # ns since 1970
    inode: int

    def same(self, other: "Version | None") -> bool:
        """Tell whether this is the other one, whatever the inode, which some systems invent."""
        return other is not None and self[:2] == other[:2]


class Watched:
    """The record of one instrument; use it in a `with`."""

    def __init__(self, root: Path, name: str) -> None:
        """Open the record of an instrument. Raises BusyError when another watch has it."""
        self.path = root / name
        self._name = name
        with contextlib.ExitStack() as opened:
            try:
                root.mkdir(0o700, parents=True, exist_ok=True)
                self._fd = opened.enter_context(durable.opened_dir(root))
                opened.enter_context(durable.locked(f".{name}.lock", self._fd, 0o600))
                self.new = not os.path.lexists(self.path)
                durable.forget_replacements(name, self._fd)
                durable.cut_torn_line(name, self._fd)
                self._load()
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
        self._gone: dict[str, int] = {}
        self._names: dict[Version, tuple[str, str]] = {}
        self._lines = 0
        if self.new:
            return
        with open(durable.open_regular(self._name, self._fd), "rb") as lines:
            for line in lines:
                if match := _LINE.fullmatch(line):
                    word, time, size, mtime, inode, job, path = match.groups()
                    version = Version(int(size), int(mtime), int(inode))
                    name = path.decode("utf-8", "surrogateescape")
                    name = keyvalue.unquote(name) if "%" in name else name
                    self._take(word.decode(), int(time), version, job.decode(), name)

    def _take(self, word: str, time: int, version: Version, job: str, path: str) -> None:
        self._lines += 1
        if word == "about":
            self.open[path] = version, time
        elif word == "gone":
            self._gone[path] = time
        else:
            self.open.pop(path, None)
        if word in ("job", "mark"):
            self.jobs[path] = version, job
            self._names[version] = path, job
            self._gone.pop(path, None)

    def known(self, path: str, version: Version) -> bool:
        """Tell whether this version of a file was submitted."""
        found = self.jobs.get(path)
        return found is not None and version.same(found[0])

    def alias(self, version: Version) -> tuple[str, str] | None:
        """Return under which other path, and as which job, the same file was submitted."""
        return self._names.get(version)

    def about(self, time: int, files: Iterable[tuple[str, Version]]) -> None:
        """Note what will be submitted next, as of `time`."""
        self._append(("about", time, version, MARKED, path) for path, version in files)

    def ended(self, time: int, files: Iterable[tuple[str, Version, str | None]]) -> None:
        """Note what has become of files: the job, or None where they were not submitted."""
        self._append(("job" if job else "not", time, version, job or MARKED, path)
                     for path, version, job in files)  # fmt: skip

    def mark(self, time: int, files: Iterable[tuple[str, Version]]) -> None:
        """Take files as submitted; there is a record from then on, whole or none at all."""
        events = [("mark", time, version, MARKED, path) for path, version in files]
        if not self.new:
            self._append(events)
            return
        for event in events:
            self._take(*event)
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
        self._append(("gone", time, self.jobs[path][0], MARKED, path) for path in new)
        for path in [path for path in self._gone if path in there]:
            del self._gone[path]
        for path, since in list(self._gone.items()):
            if time - since > FORGET:
                del self._gone[path]
                if found := self.jobs.pop(path, None):
                    self._names.pop(found[0], None)
        if self._lines > 2 * len(self.jobs) + SLACK:
            self._write()

    def _append(self, events: Iterable[tuple[str, int, Version, str, str]]) -> None:
        taken = list(events)
        if not taken:
            return
        for event in taken:  # first: what is a job is one, though the disk may be full now
            self._take(*event)
        lines = b"".join(_line(*event) for event in taken)
        durable.append(self._name, lines, self._fd, 0o600, True)

    def _write(self) -> None:
        """Write only what says something still."""
        durable.replace(self._name, b"".join(self._said()), self._fd, 0o600)
        self._lines = len(self.jobs)

    def _said(self) -> Iterator[bytes]:
        for path, (version, job) in self.jobs.items():
            yield _line("mark" if job == MARKED else "job", 0, version, job, path)
        for path, time in self._gone.items():
            if path in self.jobs:
                yield _line("gone", time, self.jobs[path][0], MARKED, path)
        for path, (version, time) in self.open.items():
            yield _line("about", time, version, MARKED, path)


def _line(word: str, time: int, version: Version, job: str, path: str) -> bytes:
    quoted = keyvalue.quote(path, space=True)
    size, mtime, inode = version
    return f"{word} {time} {size} {mtime} {inode} {job} {quoted}\n".encode()

"""The transfer log of an instrument directory, as a sweep writes and searches it.

`YYYYMMDD.tdcin.log`, one file a UTC day, or one file for ever where the administrator names
it; see xfer-log(5). What a log says was placed is never placed again, so every log that may
speak of an arrival is searched, rotated and compressed ones included.
"""

import contextlib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from lpxfer import durable
from lpxfer.errors import PermanentError, UsageError
from lpxfer.formats import dates, keyvalue, record
from lpxfer.formats.record import At, Record
from lpxfer.stores import log_lines

DIRECTORY = "xferlogs"  # in the instrument directory

#: How far a telescope's clock may be ahead of the archive's before logs are passed over.
CLOCK_ERROR = timedelta(days=7)

_SUFFIX = ".tdcin.log"
_DAY = re.compile(r"(\d{8})\.tdcin\.log(?:[.-].*)?", re.ASCII)
_UID_WORD = re.compile(rb" (?:uid|bundle)=([!-~]+)")

# Records that say whose a placed file is; a whole year of them is read in seconds.
_OWNED = re.compile(rb"\S+ (?:stored|renamed)(?= ).*? uid=([!-~]+).*? placed=([!-~]+)[ \n]")

# Records of what was set aside and had no uid: where it is now, and why.
_ASIDE = re.compile(rb"\S+ quarantined name=\S+ (placed=[^\n]*\n)")

T = TypeVar("T")

#: Where logs are: a directory, or None for the default, and the way below it.
Place = tuple[str | None, tuple[str, ...]]

_DEFAULT: Place = (None, ())


def place(home: str, logdir: str | None, logfile: str | None) -> tuple[str | None, str | None]:
    """Return directory and name of a log from lpsweeper's -L and -l; None is the default.

    `home` is the instrument directory. A log file that does not start from root is below
    the log directory, and its name then has that way in it. Raises UsageError for a log file
    that is a directory or leads out of the log directory.
    """
    if logfile is None:
        return logdir, None
    path = os.path.join(logdir or os.path.join(home, DIRECTORY), logfile)
    if os.path.basename(path) in ("", ".") or os.path.isdir(path):
        raise UsageError(f'the log file "{path}" is a directory; name a directory with -L')
    if os.path.isabs(logfile):
        return os.path.split(logfile)
    way = [component for component in logfile.split("/") if component not in ("", ".")]
    if ".." in way:
        raise UsageError(
            f'the log file "{logfile}" leads out of the log directory; '
            "name another with -L, or give a path from root"
        )
    return logdir, "/".join(way)


class InstrumentLog:
    """Where a sweep writes its records, and the places in which it looks for earlier ones."""

    def __init__(
        self,
        home_fd: int,
        directory: str | None = None,
        name: str | None = None,
        home: str = "",
    ) -> None:
        """Log to `xferlogs` in an open instrument directory, or to `directory`.

        With `name` the log is that file, whatever the day; directories before it, which are
        made, are below the other. `home` is the instrument directory's path, for messages.
        Nothing is opened or made yet.
        """
        *below, self._name = (name or "").split("/")
        self._home_fd, self._home = home_fd, home
        self._place: Place = (directory, tuple(below))
        self._owners: dict[str, dict[bytes, bytes]] = {}  # directory -> placed -> uid
        self._aside: set[bytes] | None = None  # what was set aside without a uid, once asked for
        self._recalled: set[str] = set()  # uids that have been looked for
        self._past: dict[str, list[Record]] = {}  # what is known of them
        self._made = False
        self.passed_over: list[str] = []  # what is named like a log and is none, for a person

    def append(self, *entries: Record) -> None:
        """Write records, durably, those of one day with one sync. Raises OSError."""
        for _, group in itertools.groupby(entries, lambda entry: entry.time.astimezone(UTC).date()):
            same_day = list(group)
            name = self._name_on(same_day[0].time)
            lines = [record.dump(entry) for entry in same_day]
            self._make()
            fd = self._open(self._place)
            try:
                durable.append(name, b"".join(lines), fd, 0o644)
            finally:
                os.close(fd)
            for entry, line in zip(same_day, lines, strict=True):
                self._learn(entry, line)

    def _name_on(self, day: datetime) -> str:
        return self._name or f"{dates.log_date(day)}{_SUFFIX}"

    def _learn(self, entry: Record, line: bytes) -> None:
        """Let what has been asked for before be true still."""
        owners = self._owners.get(os.path.dirname(entry.fields.get("placed", "")))
        if owners is not None and (match := _OWNED.match(line)):
            owners.setdefault(match[2], match[1])
        if self._aside is not None and (match := _ASIDE.fullmatch(line)):
            self._aside.add(match[1])
        if (uid := record.uid_of(entry)) in self._recalled:
            self._past.setdefault(uid, []).append(entry)

    def tells(self, entry: Record) -> bool:
        """Tell whether a log has the record of what was set aside without a uid, whenever.

        The first question reads every log, the next ones none.
        """

        def load(line: bytes) -> bytes | None:
            match = _ASIDE.fullmatch(line)
            return match[1] if match else None

        if self._aside is None:
            self._aside = set(self._search(load, ""))
        match = _ASIDE.fullmatch(record.dump(entry))
        return match is not None and match[1] in self._aside

    def recall(self, uids: Collection[str], now: datetime) -> None:
        """Look up what the logs say of these uids, for `past`; each is looked for once."""
        new = set(uids) - self._recalled
        self._past.update(self.history(new, now))
        self._recalled |= new

    def past(self, uid: str) -> Sequence[Record]:
        """Return the records of a uid that was looked up, and what was appended since."""
        return self._past.get(uid, ())

    def history(self, uids: Collection[str], now: datetime) -> dict[str, list[Record]]:
        """Return all records of these uids, of jobs or bundles, in one pass over the logs.

        Logs of days before the first uid was made are passed over; when a uid is from the
        future, a clock is wrong and every log is read. Raises OSError.
        """
        found: dict[str, list[Record]] = defaultdict(list)
        wanted = {uid.encode() for uid in uids}

        def load(line: bytes) -> Record | None:
            match = _UID_WORD.search(line)
            return record.load(line) if match and match[1] in wanted else None

        for entry in self._search(load, _first_day(uids, now)) if wanted else ():
            found[record.uid_of(entry)].append(entry)
        return found

    def owner(self, placed: str) -> str | None:
        """Return the uid of the arrival that was placed under this path, if a log says so.

        The first question about a directory reads every log, the next ones none.
        """
        directory = os.path.dirname(placed)
        if directory not in self._owners:
            self._owners[directory] = self._owners_in(directory)
        uid = self._owners[directory].get(keyvalue.quote(placed, space=True).encode())
        return uid.decode() if uid else None

    def end(self, now: datetime) -> At:
        """Return where the next record of this day will be; its file may not be there yet."""
        name = self._name_on(now)
        with contextlib.suppress(FileNotFoundError):
            fd = self._open(self._place)
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                return At(name, found.st_ino, found.st_size)
            finally:
                os.close(fd)
        return At(name, 0, 0)

    def since(self, at: At) -> Iterator[tuple[At | None, bytes]]:
        """Yield the whole lines since a place in the log, each with the place behind it.

        Lines of files that have been rotated since then have none, and come first; some of
        them may be from before. Raises OSError.
        """
        try:
            fd = self._open(self._place)
        except FileNotFoundError:
            return
        try:
            goes_on = _is_still(at, fd)
            plain, rotated = self._logs_since(at.log, sorted(os.listdir(fd)), goes_on)
            for name in rotated:
                lines = log_lines.read(name, fd, record.LINE_LIMIT, bytes, lambda _: None)
                yield from ((None, line) for line in lines)
            for name in plain:
                yield from log_lines.follow(
                    name, fd, at.offset if goes_on and name == at.log else 0
                )
        finally:
            os.close(fd)

    def _logs_since(
        self, first: str, names: Sequence[str], goes_on: bool
    ) -> tuple[list[str], list[str]]:
        """Return the logs from `first` on, and those that were rotated and may be later."""
        if self._name:
            plain = [name for name in names if name == self._name]
            old = (f"{self._name}.", f"{self._name}-")
            rotated = [] if goes_on else [name for name in names if name.startswith(old)]
            return plain, rotated
        logs = [match for match in map(_DAY.fullmatch, names) if match and match[1] >= first[:8]]
        plain = [match[0] for match in logs if match[0] == f"{match[1]}{_SUFFIX}"]
        rotated = [match[0] for match in logs if match[0] not in plain
                   and not (goes_on and match[1] == first[:8])]  # fmt: skip
        return plain, rotated

    def inspect(self, report: Callable[[str], None]) -> Iterator[Record]:
        """Read all records of `xferlogs`, oldest day first.

        `report` is told of files and lines that a crash does not explain. Raises
        FileNotFoundError where there are no logs.
        """
        fd = self._open(_DEFAULT)
        try:
            for name in sorted(os.listdir(fd)):
                if self._is_log(name, _DEFAULT, ""):
                    load = record.load_unless_torn
                    try:
                        for entry in log_lines.read(name, fd, record.LINE_LIMIT, load, report):
                            if entry:
                                yield entry
                    except OSError as error:
                        report(f"{name}: {error.strerror}")
        finally:
            os.close(fd)

    def _owners_in(self, directory: str) -> dict[bytes, bytes]:
        word, owners = directory.encode(), dict[bytes, bytes]()

        def load(line: bytes) -> tuple[bytes, bytes] | None:
            match = _OWNED.match(line)
            ours = match and match[2].rpartition(b"/")[0] == word
            return (match[2], match[1]) if match and ours else None

        for placed, uid in self._search(load, ""):
            owners.setdefault(placed, uid)
        return owners

    def _search(self, load: Callable[[bytes], T | None], first_day: str) -> Iterator[T]:
        """Yield what `load` makes of the lines of every log; lines it cannot read are none."""
        for place in dict.fromkeys([self._place, _DEFAULT]):
            try:
                fd = self._open(place)
            except FileNotFoundError:
                continue
            try:
                for name in sorted(os.listdir(fd)):
                    if self._is_log(name, place, first_day):
                        try:
                            yield from _read(name, fd, load)
                        except OSError as error:
                            self._pass_over(place, name, error)
            finally:
                os.close(fd)

    def _pass_over(self, place: Place, name: str, error: OSError) -> None:
        """Note an entry that is no file, once; raise for a log that cannot be read."""
        path = self._path(place, name)
        if error.errno not in durable.NOT_REGULAR:
            error.filename = path
            raise error
        told = f'passed over "{path}" - a link, or not a regular file; move it away'
        if told not in self.passed_over:
            self.passed_over.append(told)

    def _path(self, place: Place, name: str) -> str:
        directory, below = place
        return os.path.join(directory or os.path.join(self._home, DIRECTORY), *below, name)

    def _is_log(self, name: str, place: Place, first_day: str) -> bool:
        if match := _DAY.fullmatch(name):
            return match[1] >= first_day
        if not self._name or place != self._place:
            return False
        return name == self._name or name.startswith((f"{self._name}.", f"{self._name}-"))

    def _open(self, place: Place) -> int:
        directory, below = place
        if directory is not None:
            fd = durable.open_dir(os.path.realpath(directory))
        else:
            fd = _enter(DIRECTORY, self._home_fd)
        for component in below:
            above = fd
            try:
                fd = _enter(component, above)
            finally:
                os.close(above)
        return fd

    def _make(self) -> None:
        """Make the log's directory, once; a named one needs a parent."""
        if self._made:
            return
        directory, below = self._place
        if directory is None:
            durable.make_dir(DIRECTORY, self._home_fd)
        elif not os.path.isdir(directory):
            parent, name = os.path.split(os.path.realpath(directory))
            with durable.opened_dir(parent) as fd:
                durable.make_dir(name, fd)
        for depth, component in enumerate(below):
            fd = self._open((directory, below[:depth]))
            try:
                durable.make_dir(component, fd)
            finally:
                os.close(fd)
        self._made = True


def _is_still(at: At, dir_fd: int) -> bool:
    """Tell whether a file is there still, under its name and not shorter."""
    try:
        found = os.stat(at.log, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return found.st_ino == at.inode and found.st_size >= at.offset


def _enter(name: str, dir_fd: int) -> int:
    try:
        return durable.open_dir(name, dir_fd)
    except NotADirectoryError:
        raise PermanentError(
            f'"{name}" on the way to the transfer log is a link, or not a directory'
        ) from None


def _read(name: str, dir_fd: int, load: Callable[[bytes], T | None]) -> Iterator[T]:
    """Yield what `load` finds in one log. If it finds anything, the log is synced before."""

    def load_whole(line: bytes) -> T | None:
        return load(line) if line.endswith(b"\n") else None  # else a crash may have cut it

    synced = False
    for found in log_lines.read(name, dir_fd, record.LINE_LIMIT, load_whole, lambda _: None):
        if found:
            if not synced:
                durable.sync_file(name, dir_fd)
                synced = True
            yield found


def _first_day(uids: Collection[str], now: datetime) -> str:
    """Return the date of the first log that may speak of these uids."""
    days = [uid[:8] for uid in uids]
    try:
        first = datetime.strptime(min(days) + "Z", "%Y%m%d%z") - CLOCK_ERROR
    except (ValueError, OverflowError):
        return ""
    return "" if max(days) > dates.log_date(now + timedelta(days=1)) else dates.log_date(first)

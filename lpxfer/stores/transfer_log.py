"""Transfer logs of an instrument, read for a report: `YYYYMMDD.tdcin.log`. See xfer-log(5).

One pass over a directory of them, of which only the days that matter are opened, or over
one file. Rotated and compressed ones (`20030402.tdcin.log.1`, `.gz`) are read like the rest.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from typing import NamedTuple, TypeVar

from lpxfer import durable
from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats import record
from lpxfer.formats.window import Window
from lpxfer.stores import log_lines

T = TypeVar("T")

FILES = frozenset({record.STORED, record.RENAMED})

_DAY = re.compile(r"(\d{8})\.tdcin\.log", re.ASCII)

#: As the logs of days are called that are read for a report: finished logs of a queue, too.
ANY_DAY = re.compile(r"(\d{8})(?:\.tdcin)?\.log", re.ASCII)
NEEDED = ("inst", "uid", "size", "seconds", "rate")
_DIGITS = r"\d{1,15}"
_DECIMAL = r"\d{1,15}(?:\.\d{1,9})?"
_VALUE = "[!-$&-~]*"  # printable ASCII without blank and %

# Most records in one match: a million of them take seconds. Any other line is left to
# record.load. A keyword that stands twice is not noticed here; the last one counts.
_PLAIN = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z) ([a-z]+)"
    rf"(?> (?:inst=({_VALUE})|uid=({_VALUE})|size=({_DIGITS})|seconds=({_DECIMAL})"
    rf"|rate=({_DECIMAL})|[A-Za-z][A-Za-z0-9_.-]*={_VALUE}))*\n?",
    re.ASCII,
)


class Event(NamedTuple):
    """What a report needs of a record."""

    time: datetime
    kind: str
    inst: str
    uid: str
    size: int | None  # bytes; files have one
    seconds: float  # 0 when the record does not say
    rate: float  # MB/s; 0 when the record does not say


def read(path: str, window: Window, report: Callable[[str], None]) -> Iterator[Event]:
    """Yield the events of a window from a directory of transfer logs or from one file.

    Damaged lines are reported, once for each file, and passed over; so is what is no file in
    a directory. Raises OSError for what cannot be read, PermanentError for a directory of
    something else.
    """
    for event in read_lines(path, window, load, report):
        if window.start <= event.time < window.end:
            yield event


def read_lines(
    path: str,
    window: Window,
    load: Callable[[bytes], T],
    report: Callable[[str], None],
    day: re.Pattern[str] = _DAY,
) -> Iterator[T]:
    """Yield what `load` makes of each line of the logs of a window's days, or of one file.

    `day` is how the logs of days are called. Reports and raises as `read` does.
    """
    if not os.path.isdir(path):
        yield from log_lines.read_path(path, record.LINE_LIMIT, load, report)
        return
    with durable.opened_dir(os.path.realpath(path)) as fd:
        names = os.listdir(fd)
        if names and not any(map(day.match, names)):
            raise PermanentError(
                f'"{path}" has no transfer logs such as 20030401.tdcin.log in it; '
                "name the directory that has, or one file"
            )
        days = _days(names, window, day)
        yield from log_lines.read_days(path, days, fd, record.LINE_LIMIT, load, report)


def first_day(path: str) -> str | None:
    """Return the day of the oldest log of a directory, `20030402`; None for a file, or none."""
    names = os.listdir(path) if os.path.isdir(path) else []
    return min((match[1] for match in map(_DAY.match, names) if match), default=None)


def _days(names: Iterable[str], window: Window, day_of: re.Pattern[str]) -> list[str]:
    """Choose the logs of the window's days, and of the day before for a sweep past midnight."""
    first, last = window.start.date().toordinal() - 1, window.end.date().toordinal()
    chosen = []
    for name in names:
        if match := day_of.match(name):
            try:
                day = date.fromisoformat(match[1]).toordinal()
            except ValueError:
                continue
            if first <= day <= last:
                chosen.append(name)
    return sorted(chosen)


def load(line: bytes) -> Event:
    """Read one line of a transfer log; FormatError for anything else, and for half a record."""
    event = _load_plain(line) or _load_any(line)
    if event.size is None and event.kind in FILES:
        raise FormatError(f"{event.kind} without uid or size: torn")
    return event


def _load_plain(line: bytes) -> Event | None:
    """Read a record in its usual form; None for any other."""
    match = _PLAIN.fullmatch(line.decode("ascii", "replace"))
    if not match or len(line) > record.LINE_LIMIT:
        return None
    time, kind, inst, uid, size, seconds, rate = match.groups()
    if not (inst and uid and size):
        return None
    try:
        when = datetime.fromisoformat(time)
    except ValueError:
        return None
    return Event(when, kind, inst, uid, int(size), float(seconds or 0), float(rate or 0))


def _load_any(line: bytes) -> Event:
    whole = record.load(line)
    inst, uid, size, seconds, rate = (whole.fields.get(keyword, "") for keyword in NEEDED)
    known_size = int(size) if uid and re.fullmatch(_DIGITS, size, re.ASCII) else None
    return Event(whole.time, whole.kind, inst, uid, known_size, _number(seconds), _number(rate))


def _number(text: str) -> float:
    return float(text) if re.fullmatch(_DECIMAL, text, re.ASCII) else 0.0

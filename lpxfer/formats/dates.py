"""Times as text, durations and sizes as text, and the names of dated directories.

Inside, every time is an aware datetime in UTC; zones exist only where people read or write
them. Dated directories are `YYYY.MMDD`, the form SAO's instrument computers use.
"""

import functools
import re
from datetime import UTC, date, datetime, timedelta, tzinfo

from lpxfer.errors import FormatError

_ISO = re.compile(r"(\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_DATED = re.compile(r"(\d{4})\.(\d\d)(\d\d)", re.ASCII)
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw]?)", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})([KMGT]?)", re.ASCII)
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):[0-5][0-9]")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+,./:-]{0,63}")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LONGEST = 100 * 365 * 86400.0  # seconds; what is longer cannot be added to every date
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = _EPOCH.replace(tzinfo=None)


def iso(time: datetime) -> str:
    """Write an aware time as `2003-04-02T05:12:33.120Z`."""
    utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    return f"{utc.isoformat(timespec='milliseconds')[:-6]}Z"


def iso_ns(ns: int) -> str:
    """Write nanoseconds since 1970 as UTC ISO-8601 with nine decimals."""
    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        time = _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        raise FormatError(f"time out of range: {ns} ns since 1970") from error
    return f"{time.isoformat()[:19]}.{rest:09d}Z"


def parse_iso(text: str) -> datetime:
    """Read a UTC ISO-8601 time that ends in Z; decimals beyond microseconds are cut."""
    if not _ISO.fullmatch(text):
        raise FormatError(f"not a UTC time such as 2003-04-02T05:12:33Z: {text[:40]!r}")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise FormatError(f"not a time: {text[:40]!r}") from error


def parse_iso_ns(text: str) -> int:
    """Read a UTC ISO-8601 time that ends in Z as nanoseconds since 1970."""
    match = _ISO.fullmatch(text)
    if not match:
        raise FormatError(f"not a UTC time such as 2003-04-02T05:12:33Z: {text[:40]!r}")
    try:
        delta = datetime.fromisoformat(match[1]) - _NAIVE_EPOCH
    except ValueError as error:
        raise FormatError(f"not a time: {text[:40]!r}") from error
    seconds = delta.days * 86400 + delta.seconds
    return seconds * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))


def duration(text: str) -> float:
    """Read a duration such as `600`, `90s`, `15m`, `1h`, `7d` as seconds."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise FormatError(f"not a duration such as 600, 15m, 1h or 7d: {text[:40]!r}")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST:
        raise FormatError(f"a duration of more than 100 years: {text[:40]!r}")
    return seconds


def short(seconds: float) -> str:
    """Write a duration for people, in its two largest units: `2d 3h`, `3h 5m`, `40s`."""
    rest, words = max(0, int(seconds)), list[str]()
    for unit in "dhms":
        number, rest = divmod(rest, _SECONDS[unit])
        if number or (unit == "s" and not words):
            words.append(f"{number}{unit}")
    return " ".join(words[:2])


def next_clock(text: str, now: datetime) -> datetime:
    """Return the next time that a clock in UTC shows `HH:MM`, within a day of `now`."""
    if not _CLOCK.fullmatch(text):
        raise FormatError(f"not a time of day such as 07:30: {text[:40]!r}")
    hour, minute = map(int, text.split(":"))
    today = now.astimezone(UTC).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return today if today > now else today + timedelta(days=1)


def size(text: str) -> int:
    """Read a size such as `4096`, `64M`, `2G` as bytes."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise FormatError(f"not a size such as 4096, 64M or 2G: {text[:40]!r}")
    return int(match[1]) * _BYTES[match[2]]


def dated_name(time: datetime, zone: tzinfo = UTC, noon: bool = False) -> str:
    """Return the dated directory of a time: `YYYY.MMDD` in `zone`.

    With `noon` the day begins at noon, so that a night has one name: what is written at
    2 a.m. belongs to the evening before.
    """
    local = time.astimezone(zone).replace(tzinfo=None)
    if noon:
        local -= timedelta(hours=12)
    return f"{local.year:04d}.{local.month:02d}{local.day:02d}"


@functools.lru_cache(256)
def is_dated_name(component: str) -> bool:
    """Tell whether a directory name is a date of the form `2002.0523`."""
    match = _DATED.fullmatch(component)
    if not match:
        return False
    try:
        date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return False
    return True


def log_date(time: datetime) -> str:
    """Return the UTC date of a time as log files carry it: `20030402`."""
    return time.astimezone(UTC).isoformat()[:10].replace("-", "")


def find_zone(name: str) -> tzinfo:
    """Return the time zone called `name` (`MST`, `EST5EDT`, `America/Phoenix`).

    Raises FormatError for one that nobody knows. dateutil answers None for those, the local
    zone for an empty name, and the file for a path; a wrong hour would go unnoticed.
    """
    from dateutil import tz

    zone = tz.gettz(name) if _ZONE.fullmatch(name) and ".." not in name else None
    if zone is None:
        raise FormatError(
            f'unknown time zone "{name[:80]}": use a name such as MST or America/Phoenix'
        )
    return zone

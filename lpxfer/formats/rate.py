"""`rate` of a queue: how many bytes a second may go, by the time of day. See lpxfer.conf(5).

    rate = 08:00-18:00 5M, 20M

The first item whose time it is holds; the last one may be without a time and is for the rest
of the day. Times are what a clock on the wall shows, so that a night on which the clocks are
changed has a window that is an hour longer, or shorter, or none.
"""

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo

from lpxfer.errors import FormatError

#: Bytes a second; what is less than this is more likely a unit that was forgotten.
LEAST = 1000.0

_ITEM = re.compile(r"(?:(\d\d:\d\d)-(\d\d:\d\d) +)?(\S+)", re.ASCII)
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)
_LIMIT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([kKMG]?)", re.ASCII)
_UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}  # a rate is in powers of 1000

_DAY = 24 * 60  # minutes


@dataclass(frozen=True)
class Window:
    """A part of every day and its limit. `begin` is in it, `end` is not; minutes of the day."""

    begin: int
    end: int
    limit: float | None  # bytes a second; None is no limit

    def __contains__(self, minute: int) -> bool:
        """Tell whether a minute of the day is in the window, which may reach over midnight."""
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


@dataclass(frozen=True)
class Rate:
    """Limits by the time of day."""

    windows: tuple[Window, ...] = ()
    rest: float | None = None  # bytes a second outside of them; None is no limit

    @property
    def limits(self) -> bool:
        """Whether there may be a limit at some time of day."""
        return bool(self.windows) or self.rest is not None

    def limit_at(self, now: datetime, zone: tzinfo | None = None) -> float | None:
        """Return the limit in bytes a second at an aware time, None for no limit.

        The clock on the wall is that of `zone`, by default this machine's.
        """
        local = now.astimezone(zone)
        minute = local.hour * 60 + local.minute
        return next((w.limit for w in self.windows if minute in w), self.rest)


UNLIMITED = Rate()


def parse(text: str) -> Rate:
    """Read the value of the key `rate`. Raises FormatError."""
    windows: list[Window] = []
    *timed, last = [item.strip() for item in text.split(",")]
    for item in timed:
        window, _ = _item(item)
        if window is None:
            raise FormatError(f'"{item[:40]}" has no time of day: only the last rate may have none')
        windows.append(window)
    window, limit = _item(last)
    if window is None:
        return Rate(tuple(windows), limit)
    return Rate((*windows, window))


def _item(text: str) -> tuple[Window | None, float | None]:
    """Read one item: its window, if it names one, and its limit."""
    match = _ITEM.fullmatch(text)
    if not match:
        raise FormatError(f'"{text[:40]}" is not a rate such as 20M, 08:00-18:00 5M or none')
    begin, end, number = match.groups()
    limit = _limit(number)
    if begin is None:
        return None, limit
    window = Window(_minute(begin), _minute(end), limit)
    if window.begin in (window.end, _DAY):
        raise FormatError(f'"{text[:40]}": no time is between {begin} and {end}')
    return window, limit


def _limit(text: str) -> float | None:
    if text == "none":
        return None
    match = _LIMIT.fullmatch(text)
    if not match:
        raise FormatError(f'"{text[:40]}" is not a rate such as 500k, 20M, 1.5G or none')
    limit = float(match[1]) * _UNITS[match[2]]
    if 0 < limit < LEAST:
        raise FormatError(f"{text} is less than 1k, 1000 bytes a second; say 20M for 20 MB/s")
    return limit or None


def _minute(text: str) -> int:
    if not _CLOCK.fullmatch(text):
        raise FormatError(f'"{text}" is not a time of day such as 07:30')
    hour, minute = map(int, text.split(":"))
    return hour * 60 + minute

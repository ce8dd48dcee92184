"""The time a report covers, from lplogsum's options -B -b -n -D -h -z. See xfer-logsum(1).

The start is read off a clock on the wall of the zone: noon is 12:00 there on every day of
the year. The span is counted in hours that pass: a day of -D is 24 hours, and across a
change to summer time the other end is an hour later on the clock than the start.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from lpxfer.errors import UsageError

NOON = 12.0  # hours; -n is -b 12
DAY = 24.0  # hours in a day of -D

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(frozen=True)
class Window:
    """Two UTC times, the earlier first; `start` itself is in the window and `end` is not."""

    start: datetime
    end: datetime


def window(
    now: datetime,
    zone: tzinfo,
    base: str | None = None,
    begin: float | None = None,
    span: float = -DAY,
) -> Window:
    """Return the window that starts on day `base` and reaches `span` hours from there.

    `base` is YYYY-MM-DD in `zone`, by default the day it is there now. `begin` is the start in
    hours from midnight of that day, by default the time of day it is there now. A negative
    `span` reaches into the past. Raises UsageError for what is no date or far out of range.
    """
    try:
        local = now.astimezone(zone)
        day = local.date() if base is None else _date(base)
        if begin is not None:
            start = _utc(datetime.combine(day, time.min) + _hours(begin), zone)
        elif base is not None:
            start = _utc(datetime.combine(day, local.time()), zone)
        else:
            start = now
        other = start + _hours(span)
        other.astimezone(zone)  # where it is shown it must not leave the calendar either
    except OverflowError as error:
        raise UsageError("the time to report on is out of range: years 1 to 9999") from error
    return Window(min(start, other), max(start, other))


def _date(text: str) -> date:
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f'"{text[:40]}" is not a date such as 2003-04-01') from error


def _hours(hours: float) -> timedelta:
    if not math.isfinite(hours):
        raise UsageError("hours and days are numbers such as 12, -48 or 0.5")
    return timedelta(hours=hours)


def _utc(local: datetime, zone: tzinfo) -> datetime:
    """Return the instant of a wall-clock time; one that the clocks skip is moved behind the gap."""
    from dateutil import tz  # its versions disagree about skipped times, except in this function

    return tz.resolve_imaginary(local.replace(tzinfo=zone)).astimezone(UTC)

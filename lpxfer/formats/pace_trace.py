"""A trace of a link, and what the pacing decides for it. See xfer-pace(5).

    2026-11-20T04:00:00.200Z pace waiting=20480 rate=3.20 delay=0.150 active=1

A line is a record of what was known at that time. Records of other kinds, empty lines and
those that begin with # are passed over, so that a log can be replayed as it is.

Raises FormatError with the number of the line.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from lpxfer.errors import FormatError
from lpxfer.formats import dates, pace, record
from lpxfer.formats.job import DEFAULT_PRIORITY
from lpxfer.formats.pace import Decision, Observation
from lpxfer.formats.rate_history import History
from lpxfer.formats.record import Record

KIND = "pace"

_NUMBER = re.compile(r"\d{1,15}(\.\d{1,9})?", re.ASCII)
_WHOLE = frozenset({"waiting", "active", "priority", "failures"})
_KNOWN = _WHOLE | {"rate", "delay", "oldest"}
_NEEDED = ("waiting", "rate", "delay")
_MB = 1e6  # bytes; rates in records are MB/s


@dataclass(frozen=True)
class Step:
    """One line of a trace and what was decided there; times count from the first line."""

    time: datetime
    seen: Observation
    delay: float  # seconds, smoothed
    decision: Decision


def dump(time: datetime, seen: Observation, rate: float) -> bytes:
    """Write a line; `rate` is that of the time since the last one, in bytes a second."""
    fields = {
        "waiting": str(seen.waiting),
        "rate": f"{rate / _MB:.3f}",
        "delay": f"{seen.delay:.4f}",
        "oldest": f"{seen.oldest:.3f}",
        "active": str(seen.active),
        "priority": str(seen.priority),
        "failures": str(seen.failures),
    }
    return record.dump(Record(time, KIND, fields))


def replay(lines: Iterable[bytes]) -> Iterator[Step]:
    """Decide for each line in turn, as the sender would have."""
    history, state = History(), pace.State()
    first = last = None
    for number, line in enumerate(lines, 1):
        try:
            time, fields = _read(line)
        except FormatError as error:
            raise FormatError(f"line {number}: {error}") from error
        if time is None:
            continue
        if last is not None and time < last:
            raise FormatError(f"line {number}: the times go back")
        first = first or time
        seconds, at = (time - (last or time)).total_seconds(), (time - first).total_seconds()
        if fields["rate"] or fields.get("active"):
            history.add(at, fields["rate"] * _MB * seconds, seconds)
        rates = history.rates(at)
        seen = Observation(
            time=at,
            waiting=int(fields["waiting"]),
            oldest=fields.get("oldest", 0.0),
            active=int(fields.get("active", fields["rate"] > 0)),
            mean=rates.mean,
            deviation=rates.deviation,
            delay=fields["delay"],
            priority=int(fields.get("priority", DEFAULT_PRIORITY)),
            failures=int(fields.get("failures", 0)),
        )
        state, decision = pace.decide(state, seen)
        yield Step(time, seen, state.delay, decision)
        last = time


def row(step: Step) -> dict[str, object]:
    """Make a flat row for JSON: seconds, bytes, bytes a second."""
    seen, decision = step.seen, step.decision
    wait = decision.until - seen.time
    return {
        "time": dates.iso(step.time),
        "waiting": seen.waiting,
        "oldest": seen.oldest,
        "active": seen.active,
        "mean": round(seen.mean),
        "deviation": round(seen.deviation),
        "delay": round(step.delay, 4),
        "priority": seen.priority,
        "failures": seen.failures,
        "period": round(decision.period, 3),
        "enough": decision.enough,
        "send": decision.send,
        "reason": decision.reason,
        "wait": None if decision.reason == "nothing" else round(wait, 3),
    }


def _read(line: bytes) -> tuple[datetime | None, dict[str, float]]:
    """Read the time and the numbers of a line; no time for one that is passed over."""
    if line.startswith(b"#") or not line.strip():
        return None, {}
    found = record.load(line)
    if found.kind != KIND:
        return None, {}
    for keyword, value in found.fields.items():
        if keyword not in _KNOWN:
            raise FormatError(f"unknown field {keyword}; known: {', '.join(sorted(_KNOWN))}")
        if not _NUMBER.fullmatch(value) or (keyword in _WHOLE and "." in value):
            raise FormatError(f"{keyword}={value[:40]} is not a number such as 0 or 12")
    for keyword in _NEEDED:
        if keyword not in found.fields:
            raise FormatError(f"{keyword}= is missing")
    return found.time, {keyword: float(value) for keyword, value in found.fields.items()}

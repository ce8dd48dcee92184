"""A job's states and its routing file.

xfer-submit -> held <-> pending -> active -> sent -> completed
                            ^         |        |
                            +---------+--------+    an attempt failed, or no receipt came
                                      |
                                      +-> failed, quarantined     a person has to look
canceled: from anywhere before `sent`
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum

from lpxfer.errors import FormatError
from lpxfer.formats import control, dates, keyvalue

DEFAULT_PRIORITY = 50


class State(Enum):
    """Where a job stands; the value is the word people read."""

    PENDING = "pending"
    "Waits for the sender."
    HELD = "held"
    "Waits for a person to release it."
    ACTIVE = "active"
    "The sender is working on it; nobody else may move it."
    SENT = "sent"
    "At the archive site under its final name; waits for the receipt."
    FAILED = "failed"
    "Cannot be sent as it is; reason and data are kept."
    QUARANTINED = "quarantined"
    "Is not a proper job: damaged, or made by hand; set aside for a person."
    COMPLETED = "completed"
    "The archive has confirmed the checksum of the stored bytes."
    CANCELED = "canceled"
    "Withdrawn by a person."

    @property
    def directory(self) -> str:
        """The spool directory that stands for this state."""
        if self in (State.COMPLETED, State.CANCELED):
            return "done"
        return "quarantine" if self is State.QUARANTINED else self.value


#: States in which somebody still has to do something, in the order people read them.
NOT_COMPLETED = (State.ACTIVE, State.PENDING, State.HELD, State.SENT,
                 State.FAILED, State.QUARANTINED)  # fmt: skip


def refusal(job_id: str, state: State | None, fit: Iterable[State]) -> str:
    """Say why nothing can be done to a job in this state, and in which ones it could."""
    if state is State.SENT:
        return f"{job_id}: too late: sent"
    word = "finished" if state is None or state.directory == "done" else state.value
    return f"{job_id} is {word}; this is for jobs that are {', '.join(s.value for s in fit)}"


@dataclass(frozen=True)
class Routing:
    """What may change about a job while it waits. Never travels.

    `stalls` counts consecutive attempts without a newly acknowledged byte; `mismatches`
    counts how often the archive found other bytes than the control file says, and `refused` is
    the attempt of which it said so last: its receipt is not believed twice.
    """

    remhost: str | None = None
    rempath: str | None = None
    remuser: str | None = None
    rempw: str | None = None  # file:PATH, never a password
    priority: int = DEFAULT_PRIORITY
    not_before: datetime | None = None
    reason: str | None = None
    stalls: int = 0
    mismatches: int = 0
    refused: int = 0
    outcome: State | None = None


@functools.lru_cache(256)
def dump_routing(routing: Routing) -> bytes:
    """Write a routing file; what has its default is left out. Many jobs have the same."""
    pairs = []
    for field in fields(Routing):
        value = getattr(routing, field.name)
        if value != field.default:
            if isinstance(value, datetime):
                value = dates.iso(value)
            elif isinstance(value, State):
                value = value.value
            pairs.append((field.name, str(value)))
    return keyvalue.dump(pairs)


@functools.lru_cache(256)
def load_routing(text: bytes) -> Routing:
    """Read a routing file. Raises FormatError for anything else."""
    pairs = keyvalue.load(text)
    keyvalue.only(pairs, (field.name for field in fields(Routing)))
    numbers = {"priority": control.check_priority, "stalls": _count, "mismatches": _count,
               "refused": _count}  # fmt: skip
    values: dict[str, object] = dict(pairs)
    for keyword, read in numbers.items():
        if keyword in pairs:
            values[keyword] = read(pairs[keyword])
    if "not_before" in pairs:
        values["not_before"] = dates.parse_iso(pairs["not_before"])
    if "outcome" in pairs:
        try:
            values["outcome"] = State(pairs["outcome"])
        except ValueError as error:
            raise FormatError(f"unknown outcome {pairs['outcome'][:20]!r}") from error
    return Routing(**values)  # type: ignore[arg-type]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise FormatError(f"not a count: {text[:20]!r}")
    return int(text)

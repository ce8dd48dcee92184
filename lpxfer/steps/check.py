"""Check: tell how queues stand, without opening a job of a million. Looking changes nothing."""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lpxfer.errors import FormatError
from lpxfer.formats import dates, names
from lpxfer.formats.job import State
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.switches import Switches
from lpxfer.stores.counts import Count
from lpxfer.stores.spool import Queue


@dataclass(frozen=True)
class QueueStatus:
    """How a queue stands."""

    name: str
    switches: Switches
    running: bool  # a sender serves it
    active: tuple[str, ...]  # request ids
    counts: Mapping[State, Count]
    unconfirmed: int = 0  # jobs
    unconfirmed_age: float = 0.0  # seconds since the oldest of them was sent
    waiting: float | None = None  # seconds the oldest job has waited, where that was asked


def look(
    queue: Queue, unconfirmed: float, now: datetime, waiting: bool = False, sizes: bool = True
) -> QueueStatus:
    """Tell how a queue stands, without opening a job: a million take less than a second.

    Only with `waiting` the oldest job is looked for, too; only with `sizes` bytes are counted.
    """
    ages = [(now - entry.changed).total_seconds() for entry in queue.entries(State.SENT)]
    late = [age for age in ages if age > unconfirmed]
    return QueueStatus(
        name=queue.name,
        switches=queue.switches(),
        running=queue.running(),
        active=tuple(sorted(queue.ids(State.ACTIVE))),
        counts=queue.counts(now, sizes),
        unconfirmed=len(late),
        unconfirmed_age=max(late, default=0.0),
        waiting=_longest_wait(queue, now) if waiting else None,
    )


def _longest_wait(queue: Queue, now: datetime) -> float:
    """Return how long the oldest job has waited to be sent, in seconds.

    Numbers rise with time, so the first that is read of each queue's jobs is the oldest.
    """
    series: dict[str, list[int]] = defaultdict(list)
    for state in (State.PENDING, State.ACTIVE):
        for job_id in queue.ids(state):
            name, number = names.split_request_id(job_id)
            series[name].append(number)
    longest = 0.0
    for name, numbers in series.items():
        heapq.heapify(numbers)
        longest = max(longest, next(_waits(queue, name, numbers, now), 0.0))
    return longest


def _waits(queue: Queue, name: str, numbers: list[int], now: datetime) -> Iterator[float]:
    """Yield how long each job has waited; whoever asked for a later time is passed over."""
    while numbers:
        job_id = f"{name}-{heapq.heappop(numbers)}"
        state = queue.stands(job_id, (State.PENDING, State.ACTIVE))
        try:
            since = queue.entry(job_id, state or State.PENDING).changed
            with queue.open(job_id, state or State.PENDING) as opened:
                since = opened.control().submitted
                routing = opened.routing()
            if routing.not_before and not routing.reason:
                since = max(since, routing.not_before)
        except FileNotFoundError:
            continue
        except (FormatError, OSError):
            pass  # damaged, or another user's: its directory tells, too
        if since <= now:
            yield (now - since).total_seconds()


def verdict(
    queues: Sequence[QueueStatus], age: float | None = None, faults: Sequence[str] = ()
) -> tuple[bool, str]:
    """Tell whether all is well, and why or why not in one line. Pure.

    A job that waits for more than `age` seconds is a fault, too, where that is given, and so
    are the `faults` found before.
    """
    found = list(faults)
    for queue in queues:
        if words := ", ".join(_faults(queue, age)):
            found.append(f"{queue.name}: {words}")
    if not (queues or found):
        found.append("no queue is configured")
    if found:
        return False, "CRITICAL - " + "; ".join(found)
    states = (State.PENDING, State.ACTIVE, State.HELD, State.SENT)
    counts = [
        f"{queue.name}: " + ", ".join(f"{queue.counts[s].jobs} {s.value}" for s in states)
        for queue in queues
    ]
    return True, "OK - " + "; ".join(counts)


def _faults(queue: QueueStatus, age: float | None) -> Iterator[str]:
    switches = queue.switches
    if not queue.running:
        yield "the sender is not running"
    if not switches.enabled:
        yield f"disabled ({printable(switches.enabled_reason)})"
    if not switches.accepting:
        yield f"not accepting jobs ({printable(switches.accepting_reason)})"
    for state in (State.FAILED, State.QUARANTINED):
        if jobs := queue.counts[state].jobs:
            yield f"{jobs} {state.value}"
    if queue.unconfirmed:
        yield f"{queue.unconfirmed} unconfirmed for up to {dates.short(queue.unconfirmed_age)}"
    if age is not None and queue.waiting is not None and queue.waiting > age:
        yield f"the oldest job has waited for {dates.short(queue.waiting)}"

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
from lpxfer.formats.watch_state import WatchState
from lpxfer.stores.counts import Count
from lpxfer.stores.spool import Queue

UNWATCHED = 86400.0  # seconds without a look at everything: millions of files have it seldom


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


@dataclass(frozen=True)
class WatchStatus:
    """How the watch of an instrument stands."""

    name: str
    running: bool
    state: WatchState
    compared: float | None  # seconds since the tree was compared with the record


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
    queues: Sequence[QueueStatus],
    age: float | None = None,
    faults: Sequence[str] = (),
    watches: Sequence[WatchStatus] = (),
) -> tuple[bool, str]:
    """Tell whether all is well, and why or why not in one line. Pure.

    A job that waits for more than `age` seconds is a fault, too, where that is given, and so
    are the `faults` found before.
    """
    found = list(faults)
    for watch in watches:
        if words := ", ".join(_watch_faults(watch)):
            found.append(f"watch of {watch.name}: {words}")
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
    counts += [
        f"watch of {watch.name}: {watch.state.waiting} waiting, {_compared(watch)}"
        for watch in watches
    ]
    return True, "OK - " + "; ".join(counts)


def _watch_faults(watch: WatchStatus) -> Iterator[str]:
    state = watch.state
    if state.stays and not watch.running:
        yield "it is not running"
    if watch.compared is None or watch.compared > UNWATCHED:
        yield _compared(watch)
    if state.trouble:
        yield f"nothing can be submitted ({printable(state.trouble)})"
    if state.late:
        yield f"{state.late} refused, or not finished for an hour"


def _compared(watch: WatchStatus) -> str:
    if watch.compared is None:
        return "never compared"
    return f"compared {dates.short(watch.compared)} ago"


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

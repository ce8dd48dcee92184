"""When to send what waits: at once, or gathered so that it is worth a transfer. See xfer-pace(5).

After the VSAN algorithm of Xinjiang's observatory, which looks at the volume that waits (Vn),
the mean and the standard deviation of the rate in ten minutes (Ad, Sd) and the delay of the
network (Nd). The constants are our own:

    free      nothing is under way: it goes at once
    urgent    a priority above the default goes at once
    enough    so much waits that the link is busy with it for a period: it goes at once
    rest      it waited already when the link was last opened: it goes with the others
    due       a period has passed since then: it goes
    gather    else it waits, until the period is over
    pause     after a failure nothing is started for a while, longer each time
    settling  after the pause one is started, then two, four, ...: no crowd comes back

The period is ROUNDS round trips, and longer where the rate varies. It is 0 where that is not
worth waiting for, so that on a short fast link everything goes at once. Delays are smoothed,
quicker upwards, and failures are forgotten slowly, so that it does not swing.

Guarantees: while the link works nothing waits longer than PERIOD_MOST, and with a round trip
of up to 0.3 s no longer than 5 s; while it fails, no longer than WAIT_MOST after the last
failure. Whatever may go with a longer delay may go with a shorter one.

Pure: values in, values out. Times are seconds of any clock that does not go back.
"""

from dataclasses import dataclass, replace
from math import ceil, exp, inf

from lpxfer.formats.job import DEFAULT_PRIORITY

#: Round trips of a period. A small file costs about so many from its open to its last rename:
#: gathering for as long at most doubles the time that it takes anyway.
ROUNDS = 8

PERIOD_LEAST = 0.05  # seconds; less is not worth waking for: below 6 ms of delay all goes at once
PERIOD_MOST = 30.0  # seconds; a person who looks after a file waits no longer without asking

#: Bytes that are enough: what the link moves in a period, within these bounds. Less than 256 KiB
#: is a single write of the transport; 64 MiB keep any link busy for a while.
ENOUGH_LEAST, ENOUGH_MOST = 256 << 10, 64 << 20

#: Seconds in which the smoothed delay follows a longer one by two thirds, and a shorter one.
#: One lost packet is no slow network, and one quick answer no end of it.
RISE, FALL = 5.0, 60.0

DELAY_MOST = 10.0  # seconds; more is no delay but an outage

#: Seconds without a new start after a failure: doubled by each that follows, up to the second.
PAUSE_FIRST, PAUSE_MOST = 1.0, 30.0

CALM = 60.0  # seconds of work for which one failure is forgotten

STEP = 2.0  # seconds after a pause in which the transfers that may be under way are doubled
SETTLED = 12.0  # seconds until 64 may be: as many connections as a queue can have

WAIT_MOST = PAUSE_MOST + SETTLED  # seconds


@dataclass(frozen=True)
class Observation:
    """What is known when somebody could send something."""

    time: float  # seconds
    waiting: int  # bytes of the jobs that may go; an empty file counts as 1
    oldest: float = 0.0  # seconds that the oldest of them has been waiting
    active: int = 0  # transfers under way
    mean: float = 0.0  # bytes a second over ten minutes; 0 where nothing is known
    deviation: float = 0.0  # its standard deviation
    delay: float = 0.0  # seconds of a round trip; 0 where none was measured
    priority: int = DEFAULT_PRIORITY  # the highest that waits
    failures: int = 0  # of the link, since the sender started


@dataclass(frozen=True)
class State:
    """What is remembered from one decision to the next."""

    time: float = -inf  # of the last observation
    opened: float = -inf  # whatever waited then may go
    delay: float = 0.0  # smoothed
    failures: int = 0
    strikes: int = 0  # failures that are not forgotten
    resumes: float = -inf  # when the last pause ends, or ended


@dataclass(frozen=True)
class Decision:
    """Send now, or wait; and why."""

    send: bool
    until: float  # when to ask again at the latest; inf: when a job comes
    reason: str  # free urgent enough rest due; gather pause settling nothing
    period: float  # seconds
    enough: int  # bytes for which nothing is gathered


def decide(state: State, seen: Observation) -> tuple[State, Decision]:
    """Decide whether a further transfer is to be started now."""
    state = _learn(state, seen)
    period = _period(state, seen)
    enough = int(min(max(seen.mean * period, ENOUGH_LEAST), ENOUGH_MOST))
    arrival = seen.time - seen.oldest
    until = seen.time
    if not seen.waiting:
        reason, until = "nothing", inf
    elif seen.time < state.resumes:
        reason, until = "pause", state.resumes
    elif seen.priority > DEFAULT_PRIORITY:
        reason = "urgent"
    elif (allowed_at := _allowed_at(state, seen)) > seen.time:
        reason, until = "settling", allowed_at
    elif not seen.active:
        reason = "free"
    elif seen.waiting >= enough:
        reason = "enough"
    elif arrival <= state.opened:
        reason = "rest"
    elif state.opened + period <= seen.time:
        reason = "due"
    else:
        reason, until = "gather", state.opened + period
    send = reason in ("free", "urgent", "enough", "rest", "due")
    if reason in ("free", "enough", "due"):
        state = replace(state, opened=seen.time)
    return state, Decision(send, until, reason, period, enough)


def _learn(state: State, seen: Observation) -> State:
    """Take note of the delay and of failures."""
    time = max(state.time, seen.time)
    delay = min(seen.delay, DELAY_MOST) or state.delay
    if state.delay:
        passed = time - state.time
        weight = 1 - exp(-passed / (RISE if delay > state.delay else FALL))
        delay = state.delay + weight * (delay - state.delay)
    strikes, resumes = state.strikes, state.resumes
    if seen.failures > state.failures and time >= resumes:  # those in a pause are the same one
        strikes = ceil(max(0.0, strikes - (time - resumes) / CALM)) + 1
        resumes = time + min(PAUSE_FIRST * 2.0 ** min(strikes - 1, 10), PAUSE_MOST)
    return State(time, state.opened, delay, seen.failures, strikes, resumes)


def _period(state: State, seen: Observation) -> float:
    """Return the seconds for which small volumes are gathered."""
    variation = min(1.0, seen.deviation / seen.mean) if seen.mean else 0.0
    period = min(ROUNDS * state.delay * (1 + variation), PERIOD_MOST)
    return period if period >= PERIOD_LEAST else 0.0


def _allowed_at(state: State, seen: Observation) -> float:
    """Return when one more transfer may be under way after the last pause."""
    steps = seen.active.bit_length()  # 2 ** steps is the first power of two above
    return state.resumes + min(steps * STEP, SETTLED)

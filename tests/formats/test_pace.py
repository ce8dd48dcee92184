"""When what waits is sent at once, and when it is gathered."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_link import TICK, Play

from lpxfer.formats import pace
from lpxfer.formats.pace import Decision, Observation, State, decide

FAR = 0.150  # seconds of a round trip; a period is 1.2 seconds
PERIOD = pace.ROUNDS * FAR
SMALL = 20 * 1024

#: A small file on a link that is busy, which was opened at 100 seconds.
BUSY = Observation(time=100.5, waiting=SMALL, oldest=0.1, active=1, mean=5e6, delay=FAR)
OPENED = State(time=100.0, opened=100.0, delay=FAR)


def decision(state: State = OPENED, **more: float) -> Decision:
    return decide(state, replace(BUSY, **more))[1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "send", "reason", "until"),
    [
        ({"active": 0}, True, "free", 100.5),
        ({}, False, "gather", 100 + PERIOD),
        ({"deviation": 2.5e6}, False, "gather", 100 + 1.5 * PERIOD),
        ({"deviation": 50e6}, False, "gather", 100 + 2 * PERIOD),
        ({"mean": 0.0}, False, "gather", 100 + PERIOD),
        ({"waiting": 6_000_000}, True, "enough", 100.5),
        ({"waiting": 5_999_999}, False, "gather", 100 + PERIOD),
        ({"waiting": 256 << 10, "mean": 0.0}, True, "enough", 100.5),
        ({"waiting": 64 << 20, "mean": 1e9}, True, "enough", 100.5),
        ({"oldest": 0.5}, True, "rest", 100.5),
        ({"oldest": 3.0}, True, "rest", 100.5),
        ({"time": 101.2}, True, "due", 101.2),
        ({"time": 101.1}, False, "gather", 100 + PERIOD),
        ({"priority": 51}, True, "urgent", 100.5),
        ({"priority": 49, "active": 0}, True, "free", 100.5),
        ({"waiting": 0}, False, "nothing", math.inf),
        ({"waiting": 0, "priority": 90, "active": 0}, False, "nothing", math.inf),
    ],
)
def test_what_is_sent_at_once_and_what_is_gathered(
    more: dict[str, float], send: bool, reason: str, until: float
) -> None:
    made = decision(**more)
    assert (made.send, made.reason) == (send, reason)
    assert made.until == pytest.approx(until)


def test_first_of_all_goes_at_once_even_where_nothing_is_known() -> None:
    assert decide(State(), Observation(time=0.0, waiting=1))[1].reason == "free"
    assert decide(State(), Observation(time=0.0, waiting=1, active=3))[1].send


@pytest.mark.parametrize(
    ("delay", "period"),
    [(0.0005, 0.0), (0.006, 0.0), (0.010, 0.08), (0.150, 1.2), (0.3, 2.4), (2.0, 16.0), (9, 30.0)],
)
def test_period_is_longer_where_the_delay_is(delay: float, period: float) -> None:
    assert decision(replace(OPENED, delay=0.0), delay=delay).period == pytest.approx(period)


def test_on_a_short_link_nothing_is_gathered() -> None:
    made = decision(replace(OPENED, delay=0.0005), time=100.001, oldest=0.0, delay=0.0005)
    assert (made.send, made.reason) == (True, "due")


def test_what_came_after_the_link_was_opened_waits_for_the_next_time() -> None:
    state, made = decide(OPENED, replace(BUSY, time=102.0, oldest=0.5))
    assert made.reason == "due"
    for _ in range(3):  # one after the other, for an archive that takes no bundles
        state, made = decide(state, replace(BUSY, time=102.0, oldest=0.4))
        assert made.reason == "rest"
    state, made = decide(state, replace(BUSY, time=102.2, oldest=0.1))
    assert (made.reason, made.until) == ("gather", 102.0 + PERIOD)


def test_urgent_job_opens_the_link_for_no_other() -> None:
    state, made = decide(OPENED, replace(BUSY, priority=90))
    assert made.reason == "urgent"
    assert decide(state, BUSY)[1].reason == "gather"


# --- delays -------------------------------------------------------------------------------


def test_one_long_delay_is_no_slow_network_and_one_short_one_no_end_of_it() -> None:
    state, made = decide(OPENED, replace(BUSY, time=100.1, delay=4.0))
    assert made.period < 2 * PERIOD
    slow = replace(OPENED, delay=2.0)
    assert decide(slow, replace(BUSY, time=100.1, delay=FAR))[1].period > 15.9


def test_delay_that_stays_is_followed_upwards_sooner_than_downwards() -> None:
    up = down = OPENED
    down = replace(down, delay=1.0)
    for second in range(1, 16):
        up, _ = decide(up, replace(BUSY, time=100.0 + second, delay=1.0))
        down, _ = decide(down, replace(BUSY, time=100.0 + second, delay=FAR))
    assert up.delay > 0.9
    assert down.delay > 0.7


def test_delay_that_was_not_measured_changes_nothing() -> None:
    assert decide(OPENED, replace(BUSY, time=500.0, delay=0.0))[0].delay == FAR


# --- failures -----------------------------------------------------------------------------


def fail(state: State, time: float) -> State:
    return decide(state, replace(BUSY, time=time, failures=state.failures + 1))[0]


def test_nothing_starts_in_the_pause_after_a_failure_however_urgent() -> None:
    state = fail(OPENED, 100.5)
    for more in ({"active": 0}, {"priority": 100}, {"waiting": 10**9}):
        seen = replace(BUSY, time=101.0, failures=1, **more)  # type: ignore[arg-type]
        made = decide(state, seen)[1]
        assert (made.send, made.reason, made.until) == (False, "pause", 101.5)


def test_pauses_grow_with_failures_and_are_forgotten_by_work() -> None:
    state, pauses = OPENED, []
    for _ in range(8):
        time = state.resumes if state.resumes > 0 else 100.0
        state = fail(state, time + 1)
        pauses.append(state.resumes - time - 1)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    state = fail(state, state.resumes + 5 * pace.CALM)
    assert state.strikes == 4
    state = fail(state, state.resumes + 100 * pace.CALM)
    assert state.strikes == 1


def test_connections_that_break_together_are_one_failure() -> None:
    state = fail(fail(fail(OPENED, 100.5), 100.5), 101.4)
    assert (state.strikes, state.resumes) == (1, 101.5)


@pytest.mark.parametrize(
    ("after", "active", "until"),
    [(0, 0, 0), (0, 1, 2), (1.9, 1, 2), (2, 1, 0), (2, 2, 4), (2, 3, 4), (4, 3, 0), (4, 4, 6),
     (11.9, 32, 12), (12, 32, 0), (12, 63, 0), (12, 64, 0)],
)  # fmt: skip
def test_after_a_pause_one_goes_then_two_then_four(after: float, active: int, until: float) -> None:
    state = replace(fail(OPENED, 100.5), opened=-math.inf)
    seen = replace(BUSY, time=101.5 + after, active=active, failures=1, waiting=10**9)
    made = decide(state, seen)[1]
    assert made.send is (until == 0)
    if until:
        assert (made.reason, made.until) == ("settling", 101.5 + until)
    assert decide(state, replace(seen, priority=90))[1].send, "but for what is urgent"


# --- whatever happens ---------------------------------------------------------------------

observations = st.builds(
    Observation,
    time=st.floats(0, 60),  # seconds after the one before
    waiting=st.integers(0, 10**9),
    oldest=st.floats(0, 10**5),
    active=st.integers(0, 64),
    mean=st.floats(0, 10**9),
    deviation=st.floats(0, 10**9),
    delay=st.floats(0, 20),
    priority=st.integers(1, 100),
    failures=st.integers(0, 3),
)


def after(seen: list[Observation]) -> State:
    """Return the state after some observations, whose times and failures are steps."""
    state, time, failures = State(), 0.0, 0
    for one in seen:
        time, failures = time + one.time, failures + one.failures // 3
        state, made = decide(state, replace(one, time=time, failures=failures))
        assert made.until >= time
        assert made.send == (made.until == time) or not one.waiting
        assert pace.ENOUGH_LEAST <= made.enough <= pace.ENOUGH_MOST
        assert 0 <= made.period <= pace.PERIOD_MOST
    return state


def wait(state: State, seen: Observation) -> float:
    """Ask as the decisions say until it is sent; return how long that took."""
    began = seen.time
    for _ in range(1000):
        state, made = decide(state, seen)
        if made.send:
            return seen.time - began
        assert made.until > seen.time
        seen = replace(seen, time=made.until, oldest=seen.oldest + made.until - seen.time)
    raise AssertionError("it is put off again and again")


def put(state: State, seen: Observation, **more: float) -> Observation:
    """Let a file come now."""
    time = max(state.time, 0.0) + seen.time
    fields = {"time": time, "failures": state.failures, "oldest": 0.0, "waiting": 1} | more
    return replace(seen, **fields)  # type: ignore[arg-type]


@given(st.lists(observations, max_size=20), observations)
def test_no_file_waits_longer_than_promised(before: list[Observation], seen: Observation) -> None:
    state = after(before)
    assert wait(state, put(state, seen)) <= pace.WAIT_MOST + 1e-6


@given(st.lists(observations, max_size=20), observations, st.floats(0.0001, 0.3))
def test_on_a_healthy_link_no_file_waits_longer_than_five_seconds(
    before: list[Observation], seen: Observation, delay: float
) -> None:
    state = after([replace(one, delay=min(one.delay, delay), failures=0) for one in before])
    assert wait(state, put(state, seen, delay=delay)) <= 5


@given(st.lists(observations, max_size=20), observations, st.floats(0.001, 20), st.floats(0, 20))
def test_whatever_may_go_with_a_longer_delay_may_go_with_a_shorter(
    before: list[Observation], seen: Observation, delay: float, more: float
) -> None:
    state = after(before)
    seen = put(state, seen, waiting=seen.waiting, oldest=seen.oldest)
    short = decide(state, replace(seen, delay=delay))[1]
    long = decide(state, replace(seen, delay=delay + more))[1]
    assert short.period <= long.period
    assert short.enough <= long.enough
    assert short.until <= long.until
    assert short.send or not long.send


# --- played links -------------------------------------------------------------------------


def stream(count: int, every: float, size: int = SMALL) -> list[tuple[float, int]]:
    return [(1 + number * every, size) for number in range(count)]


LARGE = (0.0, 10**9)


def test_small_files_on_a_free_link_do_not_wait() -> None:
    play = Play(lambda time: FAR, files=stream(20, 5)).run(120)
    assert max(play.waits) < 2 * TICK
    assert play.left == 0


def test_small_files_beside_a_large_one_go_once_a_period() -> None:
    play = Play(lambda time: FAR, files=[LARGE, *stream(600, 0.1)]).run(70)
    assert len(play.starts) <= 70 / PERIOD + 2
    assert max(play.waits) <= PERIOD + 2 * TICK


def test_short_link_is_not_held_up() -> None:
    play = Play(lambda time: 0.0005, files=[LARGE, *stream(600, 0.1)]).run(70)
    assert max(play.waits) < 2 * TICK


def test_backlog_without_bundles_is_not_gathered_to_its_last_file() -> None:
    play = Play(lambda time: FAR, files=[(0.0, SMALL)] * 200, alone=True).run(200)
    assert play.left == 0
    assert play.finished <= 200 / play.connections * (PERIOD + 3 * TICK)


@pytest.mark.parametrize(
    "delay",
    [
        lambda time: 0.1 if int(time) % 2 else 1.0,
        lambda time: 0.1 if int(time / 10) % 2 else 0.5,
        lambda time: FAR * (1 + 0.5 * math.sin(time)),
    ],
)
def test_delay_that_swings_does_not_make_the_period_swing(delay) -> None:
    play = Play(delay, files=[LARGE, *stream(2500, 0.1)]).run(250)
    settled = play.periods[len(play.periods) // 2 :]
    assert max(settled) <= 2 * min(settled)
    most = max(abs(later - earlier) for earlier, later in pairwise(settled))
    assert most <= 0.2 * max(settled)


def test_link_that_fails_every_few_seconds_is_not_restarted_in_a_storm() -> None:
    play = Play(
        lambda time: FAR, up=lambda time: time % 5 > 2 * TICK, files=[LARGE, *stream(6000, 0.1)]
    ).run(600)
    late = [time for time, reason in play.starts if time > 300]
    bursts = sum(later - earlier > 1.5 * PERIOD for earlier, later in pairwise(late))
    assert 5 <= bursts <= 20  # one in half a minute, and it does not give up


def test_after_an_outage_the_connections_come_back_one_by_one() -> None:
    play = Play(
        lambda time: FAR, up=lambda time: not 60 < time < 400, connections=64, alone=True,
        files=stream(4000, 0.1),
    ).run(700)  # fmt: skip
    down = [time for time, _ in play.starts if 65 < time < 400]
    assert len(down) <= 340 / pace.PAUSE_MOST + 5
    back = next(time for time, _ in play.starts if time >= 400)
    assert sum(back <= time < back + pace.STEP for time, _ in play.starts) <= 3
    assert play.left == 0

"""The rate limit that connections share, under a clock of the test's own."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats.rate import Rate, Window, parse
from lpxfer.transports.limiter import BURST, NAP, PIECE, SLICE, SMALLEST, Limiter

MB = 1_000_000
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Clock:
    """Seconds that pass only when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limited(rate: str | Rate, clock: Clock) -> Limiter:
    rate = parse(rate) if isinstance(rate, str) else rate
    return Limiter(rate, lambda: NOON, clock, clock.sleep)


@pytest.mark.parametrize("rate", ["none", "00:00-24:00 none, 5M"])
def test_without_a_limit_nothing_waits(clock: Clock, rate: str) -> None:
    limiter = limited(rate, clock)
    limiter.take(10**15)
    assert clock.slept == []
    assert limiter.portion() > 10**15


@given(
    st.integers(1000, 10**10),
    st.lists(st.integers(1, 300_000), min_size=1, max_size=50),
    st.floats(0, 0.05),
)
def test_what_goes_is_the_limit_and_no_more(limit: int, takes: list[int], busy: float) -> None:
    clock = Clock()
    limiter = limited(Rate(rest=float(limit)), clock)
    began, gone = clock.now, 0
    for size in takes:
        limiter.take(size)
        gone += size
        assert gone <= limit * (clock.now - began) * 1.000001 + 1
        clock.now += busy
    assert sum(clock.slept) <= gone / limit + NAP + 1e-6  # nobody waits longer than that takes


def test_rate_is_kept_over_ten_seconds_though_every_wait_is_late(clock: Clock) -> None:
    def late(seconds: float) -> None:
        clock.now += seconds + 0.06  # another thread had the processor

    limiter = Limiter(parse("20M"), lambda: NOON, clock, late)
    began, taken = clock.now, 0
    while clock.now - began < 10:
        limiter.take(255 * 1024)
        taken += 255 * 1024
    assert taken / (clock.now - began) == pytest.approx(20 * MB, rel=0.02)


def test_pause_saves_up_a_tenth_of_a_second_and_no_more(clock: Clock) -> None:
    limiter = limited("10M", clock)
    clock.now += 3600
    limiter.take(MB)
    assert sum(clock.slept) == pytest.approx(0, abs=0.011)
    limiter.take(MB)
    assert sum(clock.slept) == pytest.approx(0.1, abs=0.011)


def test_change_of_the_limit_holds_for_those_who_wait(clock: Clock) -> None:
    limiter = limited("1k", clock)

    def change() -> bool:
        if clock.now > 1001:
            limiter.rate = parse("10M")
        return False

    limiter.take(10 * MB, change)
    assert clock.now - 1002 == pytest.approx(0.1, abs=0.2)


def test_limit_that_ends_lets_go_at_once(clock: Clock) -> None:
    limiter = limited("1k", clock)

    def end() -> bool:
        if clock.now > 1001:
            limiter.rate = Rate()
        return False

    limiter.take(10 * MB, end)
    assert clock.now - 1001 < 0.2


def test_limit_follows_the_time_of_day(clock: Clock) -> None:
    minute = NOON.astimezone().hour * 60 + NOON.astimezone().minute
    rate = Rate((Window(minute, (minute + 1) % 1440, 1000.0),), 1e9)
    times: Iterator[datetime] = iter([NOON] * 10 + [NOON.replace(minute=1)] * 10)
    limiter = Limiter(rate, lambda: next(times), clock, clock.sleep)
    limiter.take(MB)
    assert clock.now - 1000 == pytest.approx(1.0, abs=0.2)  # ten looks, then all of it


def test_whoever_is_gone_waits_no_longer_than_a_tenth_of_a_second(clock: Clock) -> None:
    limiter = limited("1k", clock)
    limiter.take(MB, lambda: clock.now > 1005)
    assert 1005 < clock.now < 1005 + 2 * SLICE
    with pytest.raises(TimeoutError):
        limiter.take(MB, raising)
    limiter.take(1)  # it left the line


def raising() -> bool:
    raise TimeoutError


def test_takes_are_so_small_that_they_last_half_a_second(clock: Clock) -> None:
    assert limited("10M", clock).portion() == 5 * MB
    assert limited("1k", clock).portion() == SMALLEST


# --- several connections ------------------------------------------------------------------


def finish_times(sizes: list[int]) -> list[float]:
    """Let threads take at the same time from 1 MB/s; return when each was done, in seconds."""
    clock, done = Clock(), dict[int, float]()

    def sleep(seconds: float) -> None:
        deadline = time.monotonic() + 30
        while len(shared._line) + len(done) < len(sizes) and time.monotonic() < deadline:
            time.sleep(0.001)  # until all are in line or done
        clock.sleep(seconds)

    shared = Limiter(parse("1M"), lambda: NOON, clock, sleep)

    def work(number: int) -> None:
        shared.take(sizes[number])
        done[number] = clock.now - 1000

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(sizes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return [done[number] for number in range(len(sizes))]


def test_connections_share_the_limit_and_each_gets_the_same() -> None:
    times = finish_times([MB] * 4)
    assert max(times) == pytest.approx(4.0, rel=0.05)
    assert min(times) >= 4.0 - 4 * PIECE - BURST


def test_small_write_does_not_wait_for_the_large_ones_of_others() -> None:
    small, *large = finish_times([25_000, 4 * MB, 4 * MB])
    assert small <= 3 * PIECE + 3 * BURST
    assert max(large) == pytest.approx(8.0, rel=0.05)


def test_one_that_is_gone_keeps_nobody_off() -> None:
    clock = Clock()
    shared = Limiter(parse("1M"), lambda: NOON, clock, clock.sleep)
    gone = threading.Event()

    def work() -> None:
        shared.take(10**12, gone.is_set)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    gone.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    shared.take(MB)
    assert not shared._line

"""The rate of a link over ten minutes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats.rate_history import BIN, BINS, History, Rates


def test_nothing_is_known_of_a_link_that_did_nothing() -> None:
    assert History().rates(100.0) == Rates(0.0, 0.0)


def test_steady_rate_has_no_deviation() -> None:
    history = History()
    for second in range(1, 101):
        history.add(float(second), 5e6, 1.0)
    assert history.rates(100.0).mean == pytest.approx(5e6)
    assert history.rates(100.0).deviation == pytest.approx(0.0)


def test_deviation_is_that_of_the_bins() -> None:
    history = History()
    for number in range(10):
        history.add((number + 1) * BIN, (2e6 if number % 2 else 4e6) * BIN, BIN)
    assert history.rates(10 * BIN) == Rates(pytest.approx(3e6), pytest.approx(1e6))


def test_time_in_which_nothing_was_under_way_does_not_count() -> None:
    history = History()
    history.add(10.0, 5e6, 1.0)
    history.add(300.0, 5e6, 1.0)
    assert history.rates(300.0) == Rates(5e6, 0.0)


def test_link_that_was_stuck_counts() -> None:
    history = History()
    history.add(10.0, 50e6, 10.0)
    history.add(20.0, 0.0, 10.0)
    assert history.rates(20.0) == Rates(2.5e6, 2.5e6)


def test_what_is_older_than_ten_minutes_is_forgotten() -> None:
    history = History()
    history.add(10.0, 50e6, 10.0)
    assert history.rates(BIN * BINS - 1).mean == 5e6
    assert history.rates(BIN * BINS) == Rates()


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e9), st.floats(0.01, 20)), max_size=200))
def test_it_is_bounded_and_its_mean_between_the_rates(steps) -> None:
    history, time = History(), 0.0
    for passed, moved, seconds in steps:
        time += passed
        history.add(time, moved, seconds)
    rates = history.rates(time)
    assert len(history._bins) <= BINS
    each = [moved / seconds for _, moved, seconds in steps] or [0.0]
    assert min(0.0, *each) <= rates.mean <= max(each) * (1 + 1e-9)
    assert 0 <= rates.deviation <= max(each) * (1 + 1e-9)

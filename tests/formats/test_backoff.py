"""When to try again after a failure."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats import backoff
from lpxfer.formats.backoff import LinkState

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)


def test_queue_probes_after_5_seconds_and_then_ever_later_up_to_5_minutes():
    delays = [backoff.queue_delay(failures) for failures in range(9)]
    assert delays == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_job_waits_a_minute_and_then_ever_longer_up_to_an_hour():
    delays = [backoff.job_not_before(NOW, stalls, 0) - NOW for stalls in range(8)]
    assert delays == [timedelta(minutes=m) for m in (1, 2, 4, 8, 16, 32, 60, 60)]


@given(st.integers(0, 10**9), st.floats(0, 1))
def test_jobs_that_failed_together_are_spread_over_a_tenth_of_the_delay(stalls, random):
    exact = backoff.job_not_before(NOW, stalls, 0) - NOW
    spread = backoff.job_not_before(NOW, stalls, random) - NOW
    assert exact <= spread <= exact * 1.1 + timedelta(microseconds=1)


@given(st.integers(0, 10**9))
def test_queue_never_waits_longer_than_5_minutes(failures):
    assert 5 <= backoff.queue_delay(failures) <= 300


def test_new_link_may_be_tried_and_is_not_greeted():
    link = LinkState()
    assert link.may_try(0.0) and not link.down and not link.may_greet(0.0)


def test_link_that_failed_is_tried_when_its_delay_is_over_and_longer_each_time():
    link, now = LinkState(), 1000.0
    for delay in (5, 10, 20):
        link.failed(now, "refused")
        assert link.down
        assert not link.may_try(now + delay - 0.1)
        now += delay
        assert link.may_try(now)


def test_connections_that_fail_together_are_one_failure():
    link = LinkState()
    for _ in range(4):
        link.failed(1000.0, "refused")
    assert link.may_try(1005.0)


def test_reason_is_that_of_the_last_failure():
    link = LinkState()
    link.failed(0.0, "refused")
    link.failed(1.0, "silent")  # together with the first, so it is not counted
    assert link.reason == "silent"
    assert link.may_try(5.0)


def test_link_that_works_again_says_so_once_and_forgets():
    link = LinkState()
    link.failed(1000.0, "refused")
    assert link.works()
    assert not link.works()
    assert link.may_try(1000.0) and link.reason == "" and not link.down


def test_silent_far_end_is_greeted_every_5_seconds_and_tried_at_once_when_it_answers():
    link = LinkState()
    for now in (0.0, 5.0, 15.0, 35.0):
        link.failed(now, "silent")
    assert link.may_greet(40.0)
    assert not link.may_greet(44.9)
    link.greeted(False)
    assert not link.may_try(44.9)
    assert link.may_greet(45.0)
    link.greeted(True)
    assert link.may_try(45.0)


def test_far_end_that_greets_and_lets_nobody_in_is_not_tried_sooner():
    link = LinkState()
    link.failed(1000.0, "refused")
    link.greeted(True)
    assert not link.may_try(1004.0)


@pytest.mark.parametrize("answers", [False, True])
def test_greeting_before_the_first_failure_changes_nothing(answers):
    link = LinkState()
    link.greeted(answers)
    assert link.may_try(0.0) and not link.down


def test_job_waits_no_longer_than_any_backoff_when_the_clock_was_set_back() -> None:
    until = backoff.job_not_before(NOW, 9, 1.0)
    assert backoff.still_to_wait(until, 10, NOW) == until
    assert backoff.still_to_wait(until, 10, NOW - timedelta(days=3)) is None


def test_time_of_day_that_was_wished_is_waited_for_within_a_day() -> None:
    until = NOW + timedelta(hours=23)
    assert backoff.still_to_wait(until, 0, NOW) == until
    assert backoff.still_to_wait(until, 0, NOW - timedelta(hours=2)) is None
    assert backoff.still_to_wait(None, 0, NOW) is None

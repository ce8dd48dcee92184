"""The time a report covers: what -B -b -n -D -h -z mean together."""

from datetime import UTC, datetime, timedelta

import pytest
from dateutil import tz
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.errors import UsageError
from lpxfer.formats.window import NOON, Window, window

NOW = datetime(2026, 11, 20, 16, 30, 15, 250000, tzinfo=UTC)
MST = tz.gettz("MST")
BOSTON = tz.gettz("EST5EDT")
SANTIAGO = tz.gettz("America/Santiago")


def utc(*numbers: int) -> datetime:
    return datetime(*numbers, tzinfo=UTC)


def test_without_options_the_last_24_hours_are_covered():
    assert window(NOW, MST) == Window(NOW - timedelta(hours=24), NOW)


def test_a_base_day_alone_starts_at_the_present_time_of_day():
    assert window(NOW, MST, "2003-04-02").end == utc(2003, 4, 2, 16, 30, 15, 250000)
    # 16:30 in Greenwich is 11:30 in Boston's winter and 12:30 there in summer
    assert window(NOW, BOSTON, "2003-07-01").end == utc(2003, 7, 1, 15, 30, 15, 250000)


def test_the_sample_of_lplogsum_starts_at_noon_in_the_zone():
    covered = window(NOW, MST, "2003-04-01", NOON, 30 * 24)
    assert covered == Window(utc(2003, 4, 1, 19), utc(2003, 5, 1, 19))


def test_midnight_of_the_base_day_is_zero_hours():
    covered = window(NOW, MST, "2003-10-01", 0, 31 * 24)
    assert covered == Window(utc(2003, 10, 1, 7), utc(2003, 11, 1, 7))


def test_hours_without_a_base_day_are_of_the_day_it_is_in_the_zone():
    late = utc(2026, 11, 20, 3)  # still the 19th in Arizona
    assert window(late, MST, begin=NOON, span=24).start == utc(2026, 11, 19, 19)


def test_noon_may_lie_in_the_future():
    early = utc(2026, 11, 20, 15)  # 8 in the morning in Arizona
    assert window(early, MST, begin=NOON) == Window(utc(2026, 11, 19, 19), utc(2026, 11, 20, 19))


def test_a_negative_span_is_the_past_and_the_earlier_time_comes_first():
    covered = window(NOW, MST, "2003-04-10", 0, -48)
    assert covered == Window(utc(2003, 4, 8, 7), utc(2003, 4, 10, 7))


def test_a_span_of_nothing_covers_nothing():
    covered = window(NOW, MST, "2003-04-10", 0, 0)
    assert covered.start == covered.end


def test_fractions_of_hours_count():
    assert window(NOW, MST, "2003-04-10", 1.5, 0.25) == Window(
        utc(2003, 4, 10, 8, 30), utc(2003, 4, 10, 8, 45)
    )


def test_noon_is_noon_on_the_wall_on_the_day_the_clocks_change():
    assert window(NOW, BOSTON, "2003-04-06", NOON, 1).start == utc(2003, 4, 6, 16)
    assert window(NOW, BOSTON, "2003-10-26", NOON, 1).start == utc(2003, 10, 26, 17)


def test_a_day_of_the_span_is_24_hours_that_pass():
    covered = window(NOW, BOSTON, "2003-10-01", 0, 31 * 24)
    assert covered.end - covered.start == timedelta(days=31)
    assert covered.end.astimezone(BOSTON).hour == 23  # the clocks went back meanwhile


def test_a_midnight_that_the_clocks_skip_is_the_moment_after_the_gap():
    assert window(NOW, SANTIAGO, "2019-09-08", 0, 24).start == utc(2019, 9, 8, 4)


@pytest.mark.parametrize(
    "base",
    [
        "",
        "yesterday",
        "2003-4-1",
        "03-04-01",
        "20030401",
        "2003-02-30",
        "2003-04-01 ",
        "٢٠٠٣-٠٤-٠١",
    ],
)
def test_what_is_no_date_is_refused(base):
    with pytest.raises(UsageError, match="is not a date such as 2003-04-01"):
        window(NOW, MST, base)


@pytest.mark.parametrize("hours", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_of_hours_is_refused(hours):
    with pytest.raises(UsageError, match="are numbers"):
        window(NOW, MST, "2003-04-01", hours)
    with pytest.raises(UsageError, match="are numbers"):
        window(NOW, MST, span=hours)


@pytest.mark.parametrize(
    "base, begin, span",
    [(None, None, 1e300), (None, None, -1e9), ("9999-12-31", 24.0, 1), ("0001-01-01", -1, 1),
     ("9999-12-31", 23, 1), ("0001-01-01", 0, -1)],
)  # fmt: skip
def test_what_leaves_the_calendar_is_refused(base, begin, span):
    with pytest.raises(UsageError, match="out of range"):
        window(NOW, MST, base, begin, span)


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from([UTC, MST, BOSTON, SANTIAGO]),
    st.none() | st.dates().map(str) | st.text(max_size=12),
    st.none() | st.floats(),
    st.floats(),
)
def test_any_arguments_give_an_ordered_window_in_utc_or_a_usage_error(now, zone, base, begin, span):
    try:
        covered = window(now, zone, base, begin, span)
    except UsageError:
        return
    assert covered.start <= covered.end
    assert covered.start.tzinfo is covered.end.tzinfo is UTC

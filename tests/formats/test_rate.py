"""The rate of a queue by the time of day."""

from datetime import UTC, datetime, timedelta

import pytest
from dateutil import tz
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats.rate import Rate, parse

PHOENIX, BERLIN = tz.gettz("America/Phoenix"), tz.gettz("Europe/Berlin")


def at(rate: str, clock: str) -> float | None:
    hour, minute = map(int, clock.split(":"))
    return parse(rate).limit_at(datetime(2026, 11, 20, hour, minute, tzinfo=UTC), UTC)


@pytest.mark.parametrize("text", ["none", "0", "0M", "0.0"])
def test_no_limit_is_none(text: str) -> None:
    assert parse(text) == Rate()
    assert not parse(text).limits
    assert at(text, "12:00") is None


@pytest.mark.parametrize(
    ("text", "limit"),
    [("20M", 20e6), ("500k", 5e5), ("500K", 5e5), ("1.5G", 1.5e9), ("1000", 1e3), ("0.5M", 5e5)],
)
def test_units_are_powers_of_1000(text: str, limit: float) -> None:
    assert parse(text).limit_at(datetime.now(UTC)) == limit
    assert parse(text).limits


def test_first_item_whose_time_it_is_holds_and_the_last_is_for_the_rest() -> None:
    rate = "08:00-18:00 5M,12:00-20:00 8M , 20M"
    clocks = ["07:59", "08:00", "12:30", "17:59", "18:00", "19:59", "20:00", "00:00"]
    assert [at(rate, clock) for clock in clocks] == [20e6, 5e6, 5e6, 5e6, 8e6, 8e6, 20e6, 20e6]


def test_time_that_is_not_mentioned_has_no_limit() -> None:
    assert [at("08:00-18:00 5M", clock) for clock in ("12:00", "18:00")] == [5e6, None]
    assert [at("08:00-18:00 none, 5M", clock) for clock in ("12:00", "18:00")] == [None, 5e6]


def test_window_reaches_over_midnight() -> None:
    clocks = ["21:59", "22:00", "23:59", "00:00", "05:59", "06:00"]
    limits = [at("22:00-06:00 none, 5M", clock) for clock in clocks]
    assert limits == [5e6, None, None, None, None, 5e6]
    assert [at("18:00-24:00 5M", clock) for clock in ("23:59", "00:00")] == [5e6, None]


def test_time_is_that_of_the_zone_and_not_of_the_aware_time_given() -> None:
    rate = parse("08:00-18:00 5M, 20M")
    morning = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)  # 08:00 in Phoenix
    assert rate.limit_at(morning, PHOENIX) == rate.limit_at(morning.astimezone(BERLIN), PHOENIX)
    assert rate.limit_at(morning, PHOENIX) == 5e6
    assert rate.limit_at(morning - timedelta(minutes=1), PHOENIX) == 20e6


def hours(rate: Rate, begin: datetime) -> float:
    """Return for how many hours of a day there is a limit of 5 MB/s."""
    minutes = (begin + timedelta(minutes=minute) for minute in range(24 * 60))
    return sum(rate.limit_at(time, BERLIN) == 5e6 for time in minutes) / 60


@pytest.mark.parametrize(
    ("day", "window", "long"),
    [
        (datetime(2026, 6, 10, 12, tzinfo=UTC), "22:00-06:00", 8),
        (datetime(2026, 3, 28, 12, tzinfo=UTC), "22:00-06:00", 7),  # 02:00 is 03:00
        (datetime(2026, 3, 28, 12, tzinfo=UTC), "02:00-03:00", 0),
        (datetime(2026, 3, 28, 12, tzinfo=UTC), "01:30-02:30", 0.5),
        (datetime(2026, 10, 24, 12, tzinfo=UTC), "22:00-06:00", 9),  # 03:00 is 02:00
        (datetime(2026, 10, 24, 12, tzinfo=UTC), "02:00-03:00", 2),
    ],
)
def test_window_is_as_long_as_the_clock_shows_it(day: datetime, window: str, long: float) -> None:
    assert hours(parse(f"{window} 5M, none"), day) == long


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a rate such as 20M"),
        ("fast", "is not a rate such as 500k"),
        ("5m", "is not a rate such as 500k"),
        ("5 M", "is not a rate such as 20M"),
        ("5MB", "is not a rate such as 500k"),
        ("-5M", "is not a rate such as 500k"),
        ("٣M", "is not a rate such as 500k"),
        ("9999999999", "is not a rate such as 500k"),
        ("5", "less than 1k, 1000 bytes a second; say 20M for 20 MB/s"),
        ("5M, 20M", '"5M" has no time of day: only the last rate may have none'),
        ("08:00-18:00 5M,", "is not a rate such as 20M"),
        ("08:00-18:00", "is not a rate such as 500k"),
        ("8:00-18:00 5M", "is not a rate such as 20M"),
        ("08:00-18:60 5M", '"18:60" is not a time of day such as 07:30'),
        ("25:00-08:00 5M", '"25:00" is not a time of day'),
        ("08:00-08:00 5M", "no time is between 08:00 and 08:00"),
        ("24:00-08:00 5M", "no time is between 24:00 and 08:00"),
    ],
)
def test_what_is_no_rate_is_refused_with_what_one_looks_like(text: str, said: str) -> None:
    with pytest.raises(FormatError) as error:
        parse(text)
    assert said in str(error.value)


@given(st.text() | st.lists(st.sampled_from(["08:00", "-", " ", "18:00", "5M", ",", "0"])))
def test_reader_raises_nothing_but_format_error(text: str | list[str]) -> None:
    try:
        limit = parse("".join(text)).limit_at(datetime(2026, 11, 20, tzinfo=UTC), UTC)
    except FormatError:
        return
    assert limit is None or limit >= 1000

"""Times, durations and sizes as text, and the names of dated directories."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats import dates

NOW = datetime(2003, 4, 2, 5, 12, 33, 120_000, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = -62_135_596_800, 253_402_300_799  # seconds, 0001-01-01 and 9999-12-31

utc = st.integers(-(10**15) * 30, 10**15 * 200).map(lambda us: EPOCH + timedelta(microseconds=us))
aware = st.builds(lambda time, zone: time.astimezone(zone), utc, st.just(UTC) | st.timezones())


def test_time_is_written_in_utc_with_milliseconds():
    assert dates.iso(NOW) == "2003-04-02T05:12:33.120Z"
    assert dates.iso(NOW.astimezone(timezone(timedelta(hours=-7)))) == "2003-04-02T05:12:33.120Z"


def test_nanoseconds_are_kept():
    assert dates.iso_ns(1_049_260_353_123_456_789) == "2003-04-02T05:12:33.123456789Z"
    assert dates.iso_ns(-1) == "1969-12-31T23:59:59.999999999Z"
    assert dates.iso_ns(FIRST * 10**9) == "0001-01-01T00:00:00.000000000Z"


@given(st.integers(FIRST * 10**9, LAST * 10**9))
def test_nanoseconds_survive_writing_and_reading(ns):
    assert dates.parse_iso_ns(dates.iso_ns(ns)) == ns


@given(aware)
def test_milliseconds_survive_writing_and_reading(time):
    cut = time.astimezone(UTC)
    cut = cut.replace(microsecond=cut.microsecond // 1000 * 1000)
    assert dates.parse_iso(dates.iso(time)) == cut


@pytest.mark.parametrize("ns", [10**30, -(10**30), (LAST + 1) * 10**9, FIRST * 10**9 - 1])
def test_file_time_that_no_calendar_has_is_refused(ns):
    with pytest.raises(FormatError, match="time out of range"):
        dates.iso_ns(ns)


def test_decimals_may_be_missing_and_those_beyond_microseconds_are_cut():
    assert dates.parse_iso("2003-04-02T05:12:33Z") == NOW.replace(microsecond=0)
    assert dates.parse_iso("2003-04-02T05:12:33.1200009Z") == NOW


@pytest.mark.parametrize(
    "text",
    ["", "2003-04-02", "2003-04-02T05:12:33", "2003-04-02 05:12:33Z", "2003-04-02T05:12:33+00:00",
     "2003-02-30T05:12:33Z", "2003-04-02T24:12:33Z", "2003-04-02T05:12:60Z", "0000-04-02T05:12:33Z",
     "2003-04-02T05:12:33.Z", "2003-04-02T05:12:33.1234567890Z", "٢٠٠٣-04-02T05:12:33Z",
     "2003-04-02T05:12:33Z\n"],
)  # fmt: skip
def test_other_times_are_refused(text):
    with pytest.raises(FormatError, match="not a"):
        dates.parse_iso(text)


@pytest.mark.parametrize(
    "text, seconds",
    [("0", 0), ("600", 600), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800),
     ("2w", 1209600), (" 1h ", 3600)],
)  # fmt: skip
def test_duration_is_a_number_and_a_unit(text, seconds):
    assert dates.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1", "1e9", "1 h", "1y", "inf", "nan", "٣", "1h30m"])
def test_other_durations_are_refused(text):
    with pytest.raises(FormatError, match="not a duration such as 600, 15m, 1h or 7d"):
        dates.duration(text)


def test_duration_that_no_date_could_take_is_refused():
    assert NOW + timedelta(seconds=dates.duration("36500d"))
    with pytest.raises(FormatError, match="more than 100 years"):
        dates.duration("999999999w")


@pytest.mark.parametrize(
    "text, size", [("0", 0), ("4096", 4096), ("1K", 1024), ("64M", 64 << 20), ("2G", 2 << 30),
                   ("1T", 1 << 40)],
)  # fmt: skip
def test_size_is_a_number_and_a_unit_of_1024(text, size):
    assert dates.size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "1 G", "1k", "1GB", "9" * 5000])
def test_other_sizes_are_refused(text):
    with pytest.raises(FormatError, match="not a size such as 4096, 64M or 2G"):
        dates.size(text)


@pytest.mark.parametrize(
    "clock, expected",
    [
        ("05:13", NOW.replace(minute=13, second=0, microsecond=0)),
        ("23:59", NOW.replace(hour=23, minute=59, second=0, microsecond=0)),
        ("05:12", NOW.replace(day=3, second=0, microsecond=0)),
        ("5:00", NOW.replace(day=3, minute=0, second=0, microsecond=0)),
        ("00:00", datetime(2003, 4, 3, tzinfo=UTC)),
    ],
)
def test_clock_is_today_when_that_is_still_to_come_and_tomorrow_else(clock, expected):
    assert dates.next_clock(clock, NOW) == expected


@given(aware, st.times())
def test_clock_is_within_a_day(now, time):
    then = dates.next_clock(f"{time:%H:%M}", now)
    assert timedelta(0) < then - now <= timedelta(days=1)
    assert (then.hour, then.minute) == (time.hour, time.minute)
    assert then.utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["", "24:00", "12:60", "12", "12:5", "-1:00", "12:00:00", "٣:00"])
def test_other_clocks_are_refused(text):
    with pytest.raises(FormatError, match="not a time of day such as 07:30"):
        dates.next_clock(text, NOW)


def test_dated_directory_is_the_day_in_the_zone():
    evening = datetime(2002, 5, 24, 3, 0, tzinfo=UTC)  # 20:00 on the 23rd in Arizona
    assert dates.dated_name(evening) == "2002.0524"
    assert dates.dated_name(evening, dates.find_zone("MST")) == "2002.0523"


def test_night_has_one_name_where_the_day_begins_at_noon():
    mst = dates.find_zone("America/Phoenix")
    evening = datetime(2002, 5, 23, 20, 0, tzinfo=mst)
    for hours in (0, 4, 9, 15.99):
        time = evening + timedelta(hours=hours)
        assert dates.dated_name(time, mst, noon=True) == "2002.0523"
    assert dates.dated_name(evening + timedelta(hours=16), mst, noon=True) == "2002.0524"


@given(utc)
def test_dated_directory_is_recognised_as_one(time):
    assert dates.is_dated_name(dates.dated_name(time, noon=time.day % 2 == 0))


@pytest.mark.parametrize(
    "name", ["", "2002", "2002.523", "2002.1301", "2002.0230", "2002.0523x", "x2002.0523",
             "0000.0101", "20020523", "2002-0523", "٢٠٠٢.0523", "2002.0523\n"],
)  # fmt: skip
def test_other_directories_are_no_dates(name):
    assert not dates.is_dated_name(name)


def test_log_is_named_by_the_date_in_utc():
    assert dates.log_date(NOW.astimezone(timezone(timedelta(hours=-12)))) == "20030402"


@pytest.mark.parametrize(
    "name, hours", [("MST", -7), ("UTC", 0), ("America/Phoenix", -7), ("EST5EDT", -5)]
)
def test_zone_is_found_by_its_name(name, hours):
    winter = datetime(2003, 1, 1, tzinfo=dates.find_zone(name))
    assert winter.utcoffset() == timedelta(hours=hours)


@pytest.mark.parametrize(
    "name", ["", " ", "Mars/Olympus", "MSTT", "/etc/passwd", "../../etc/passwd"]
)
def test_zone_that_nobody_knows_is_refused(name):
    with pytest.raises(FormatError, match="unknown time zone"):
        dates.find_zone(name)


READERS = [
    dates.parse_iso,
    dates.parse_iso_ns,
    dates.duration,
    dates.size,
    dates.find_zone,
    lambda text: dates.next_clock(text, NOW),
]


@pytest.mark.parametrize("read", READERS)
@given(text=st.text(max_size=60) | st.text("0123456789:.,+-/TZsmhdwKMG", max_size=70))
@example(text="9" * 5000)
@example(text="/dev/null")
@example(text="MST\0")
@example(text="EST5EDT,M3.2.0,M99.1.0")
@example(text="America")
def test_readers_raise_nothing_but_format_error(read, text):
    try:
        read(text)
    except FormatError:
        pass


@pytest.mark.parametrize(
    "seconds, text", [(0, "0s"), (40.9, "40s"), (3900, "1h 5m"), (183600, "2d 3h"), (-5, "0s"),
                      (86401, "1d 1s")],
)  # fmt: skip
def test_duration_is_shown_in_its_two_largest_units(seconds, text):
    assert dates.short(seconds) == text

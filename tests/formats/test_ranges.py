"""Ranges of bytes: what is there, what is missing, how it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats.ranges import WRITTEN_MOST, Ranges, dump, load

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


@given(spans)
def test_ranges_hold_the_bytes_that_were_added(added: list[tuple[int, int]]) -> None:
    ranges, there = Ranges(), set[int]()
    for start, end in added:
        ranges.add(start, end)
        there |= set(range(start, end))
        assert ranges.bytes == len(there)
    assert {byte for start, end in ranges for byte in range(start, end)} == there
    missing = {byte for start, end in ranges.gaps(70) for byte in range(start, end)}
    assert missing == set(range(70)) - there
    assert ranges.end == max(there, default=-1) + 1
    assert ranges.contiguous == min(set(range(71)) - there)
    assert load(dump(ranges)) == ranges


def test_ranges_that_touch_are_one() -> None:
    ranges = Ranges((0, 5), (7, 9), (5, 7))
    assert list(ranges) == [(0, 9)]
    assert dump(ranges) == "0-9"


def test_gaps_end_with_the_file() -> None:
    assert Ranges((2, 4), (50, 60)).gaps(10) == [(0, 2), (4, 10)]
    assert Ranges((0, 20)).gaps(10) == []


def test_of_too_many_ranges_the_first_ones_are_written() -> None:
    many = Ranges(*((10 * n, 10 * n + 1) for n in range(200)))
    assert list(load(dump(many))) == list(many)[:WRITTEN_MOST]


@pytest.mark.parametrize(
    "text", ["x", "1", "1-", "5-3", "3-3", "5-9,1-2", "0-4,3-9", "0-4,", "-1-4", "0-4 ", "٠-٤"]
)
def test_anything_else_is_no_ranges(text: str) -> None:
    with pytest.raises(FormatError):
        load(text)


def test_nothing_is_no_ranges() -> None:
    assert not load("")
    assert dump(Ranges()) == ""

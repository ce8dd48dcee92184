"""What a sweep says that it understands, and for how long that is believed."""

from datetime import UTC, datetime, timedelta

import pytest

from lpxfer.formats import keyvalue
from lpxfer.formats.accepts import PLAIN, Accepts, dump, load

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "accepts",
    [PLAIN, Accepts(True), Accepts(False, frozenset({"blosc2"})), Accepts(True, frozenset("ab"))],
)
def test_what_is_written_is_read(accepts: Accepts) -> None:
    assert load(dump(accepts, NOW), NOW) == accepts


@pytest.mark.parametrize("days", [-8, 8])
def test_what_was_said_long_ago_or_is_from_the_future_counts_for_nothing(days: int) -> None:
    text = dump(Accepts(True, frozenset({"blosc2"})), NOW)
    assert load(text, NOW + timedelta(days=days)) is PLAIN
    assert load(text, NOW + timedelta(days=days / 2)) != PLAIN


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"garbage",
        dump(Accepts(True), NOW)[:-2],
        keyvalue.dump([("format", "1"), ("bundle", "1")]),
        keyvalue.dump([("format", "1"), ("bundle", "1"), ("swept", "yesterday")]),
    ],
)
def test_what_is_damaged_or_has_no_date_means_plain_arrivals(text: bytes) -> None:
    """Releases before this one said no date, and understood nothing else."""
    assert load(text, NOW) is PLAIN


def test_bundles_of_another_kind_are_not_understood() -> None:
    text = keyvalue.dump([("format", "1"), ("swept", "2026-11-20T12:00:00.000Z"), ("bundle", "2")])
    assert load(text, NOW) == PLAIN

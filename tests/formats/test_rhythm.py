"""When the receipts are looked at."""

import pytest

from lpxfer.formats.rhythm import FIRST, MOST, SOONEST, Rhythm


def looked(took: float = 0.01, left: bool = False) -> Rhythm:
    """Return the rhythm after one look, which ended at 100 s."""
    rhythm = Rhythm()
    rhythm.begin(100 - took)
    rhythm.end(100, left)
    return rhythm


def test_first_look_is_due_at_once() -> None:
    assert Rhythm().due(0.0)


def test_nothing_is_due_while_somebody_looks() -> None:
    rhythm = Rhythm()
    rhythm.begin(1.0)
    rhythm.sent(2.0)
    assert not rhythm.due(1e9)


def test_looks_are_seldom_when_nothing_waits() -> None:
    assert looked().at == 100 + MOST


def test_what_was_sent_is_looked_for_at_once_where_looks_are_cheap() -> None:
    rhythm = looked()
    rhythm.sent(105)
    assert rhythm.at == 105 + SOONEST


def test_looks_of_a_long_line_come_more_seldom() -> None:
    rhythm = looked(took=0.5)
    rhythm.sent(105)
    assert rhythm.at == 105 + FIRST


def test_look_that_is_due_sooner_stays() -> None:
    rhythm = looked()
    rhythm.sent(105)
    rhythm.sent(105.1)
    assert rhythm.at == 105 + SOONEST


def test_looks_become_seldom_while_something_waits() -> None:
    rhythm = looked(left=True)
    rhythm.sent(100)
    waits = []
    for _ in range(10):
        now = rhythm.at
        rhythm.begin(now)
        rhythm.end(now, left=True)
        waits.append(rhythm.at - now)
    assert waits[:3] == pytest.approx([2 * SOONEST, 4 * SOONEST, 8 * SOONEST])
    assert waits[-1] == MOST


def test_what_was_sent_during_a_look_is_looked_for_soon_after_it() -> None:
    """That look may have been over the jobs in sent/ before it came there."""
    rhythm = looked()
    rhythm.begin(200)
    rhythm.sent(200)
    rhythm.end(200.01, left=False)
    assert rhythm.at == pytest.approx(200.01 + SOONEST)

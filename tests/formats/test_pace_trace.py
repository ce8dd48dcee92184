"""Traces of a link, and what they are decided to be."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_link import Play, far_link, outage

from lpxfer.errors import FormatError
from lpxfer.formats import pace_trace
from lpxfer.formats.pace import Observation

TRACES = Path(__file__).parents[1] / "traces"
LINE = b"2026-11-20T04:00:00.000Z pace waiting=20480 rate=3.20 delay=0.150"


def steps(*lines: bytes) -> list[pace_trace.Step]:
    return list(pace_trace.replay(lines))


def test_line_says_what_was_known() -> None:
    (step,) = steps(LINE + b" oldest=1.5 active=2 priority=60 failures=3\n")
    assert step.seen == Observation(0.0, 20480, 1.5, 2, 0.0, 0.0, 0.15, 60, 3)


def test_what_a_line_leaves_out_has_its_default() -> None:
    first, second = steps(LINE, LINE.replace(b"3.20", b"0").replace(b":00.0", b":01.0"))
    assert first.seen == Observation(0.0, 20480, active=1, delay=0.15)
    assert second.seen == Observation(1.0, 20480, active=0, delay=0.15)


def test_rate_is_that_of_the_time_since_the_line_before() -> None:
    lines = [LINE.replace(b":00.0", b":%02d.0" % second) for second in (0, 4, 8)]
    lines[1] = lines[1].replace(b"rate=3.20", b"rate=1.00")
    seen = steps(*lines)[-1].seen
    assert seen.mean == pytest.approx((1e6 * 4 + 3.2e6 * 4) / 8)


def test_other_records_comments_and_empty_lines_are_passed_over() -> None:
    other = b"2026-11-20T04:00:00.000Z stored inst=minicam\n"
    assert len(steps(b"# a comment\n", b"\n", other, LINE)) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nonsense", "line 2: not a record"),
        (LINE.replace(b" delay=0.150", b""), "line 2: delay= is missing"),
        (LINE + b" speed=1", "line 2: unknown field speed; known: active, delay, failures"),
        (LINE.replace(b"3.20", b"fast"), "line 2: rate=fast is not a number"),
        (LINE.replace(b"3.20", b"-1"), "line 2: rate=-1 is not a number"),
        (LINE.replace(b"3.20", b"nan"), "line 2: rate=nan is not a number"),
        (LINE.replace(b"20480", b"1.5"), "line 2: waiting=1.5 is not a number"),
        (LINE.replace(b"2026", b"2025"), "line 2: the times go back"),
        (b"x" * 300_000, "line 2: line too long"),
    ],
)
def test_line_that_is_wrong_is_named(line: bytes, said: str) -> None:
    with pytest.raises(FormatError) as error:
        steps(LINE, line)
    assert said in str(error.value)


@given(st.lists(st.binary(max_size=50) | st.just(LINE) | st.binary().map(lambda x: LINE + x)))
def test_reader_raises_nothing_but_format_error(lines: list[bytes]) -> None:
    try:
        steps(*lines)
    except FormatError as error:
        assert str(error).startswith("line ")


@given(st.builds(
    Observation, time=st.just(0.0), waiting=st.integers(0, 10**12), oldest=st.integers(0, 10**6),
    active=st.integers(0, 64), delay=st.integers(0, 100), priority=st.integers(1, 100),
    failures=st.integers(0, 10**6),
))  # fmt: skip
def test_what_is_written_is_read_again(seen: Observation) -> None:
    line = pace_trace.dump(datetime(2026, 11, 20, tzinfo=UTC), seen, 3.2e6)
    (step,) = steps(line)
    assert step.seen == seen


# --- the examples -------------------------------------------------------------------------

PLAYS = {"far-link": far_link, "outage": outage}


def sends(name: str) -> list[tuple[float, str]]:
    lines = (TRACES / f"{name}.pace").read_bytes().splitlines(keepends=True)
    return [(s.seen.time, s.decision.reason) for s in pace_trace.replay(lines) if s.decision.send]


@pytest.mark.parametrize("name", PLAYS)
def test_replay_of_a_trace_decides_what_was_decided_when_it_was_written(name: str) -> None:
    play: Play = PLAYS[name]()
    written = (TRACES / f"{name}.pace").read_bytes().splitlines(keepends=True)
    assert written[1:] == play.trace, "the example is out of date"
    assert sends(name) == [(pytest.approx(time), reason) for time, reason in play.starts]


def test_far_link_gathers_small_files_and_lets_a_large_one_go_at_once() -> None:
    reasons = [reason for _, reason in sends("far-link")]
    assert reasons[0] == "free"
    assert reasons.count("enough") == 1
    assert set(reasons) == {"free", "due", "enough"}


def test_outage_is_tried_ever_more_seldom_and_ends_one_by_one() -> None:
    times = [time for time, _ in sends("outage") if time > 10]
    assert times[:3] == pytest.approx([11.05, 13.1, 18.05], abs=0.06)
    assert sum(18 < time < 20 for time in times) <= 2

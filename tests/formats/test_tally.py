"""What lines of logs come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats import tally
from lpxfer.formats.latency import TOTAL
from lpxfer.formats.tally import (
    BOUNDS,
    KINDS,
    OTHER,
    OUTCOMES,
    REASONS,
    STAGES,
    Finished,
    Histogram,
    Placed,
)

DONE = (
    b"2026-11-28T05:00:10.000Z completed job=archive-1 size=40 attempts=2 "
    b"submitted=2026-11-28T05:00:07.500Z\n"
)


def test_finished_jobs_are_counted_with_their_latency() -> None:
    found = Finished()
    found.add(DONE)
    found.add(DONE.replace(b"completed", b"canceled"))
    assert dict(found.jobs) == {"completed": 1, "canceled": 1}
    assert (found.size, found.attempts, found.latency.total) == (40, 4, 2.5)
    below = dict(found.latency.buckets())
    assert (below["2"], below["3"], below["+Inf"]) == (0, 1, 1)


def test_records_are_counted_by_kind_and_reason() -> None:
    found = Placed()
    time = b"2026-11-28T05:00:10.000Z"
    for line in (b"stored size=5 seconds=0.2", b"renamed size=6 seconds=7", b"duplicate size=9",
                 b"mismatch size=1", b"quarantined reason=EMPTY_FILE:%20nothing", b"unpacked",
                 b"error reason=No%20space%20left%20on%20device", b"quarantined"):  # fmt: skip
        found.add(time + b" " + line + b"\n")
    assert found.size == 11 and found.transfer.total == pytest.approx(7.2)
    assert found.records[OTHER] == 1 and found.records["quarantined"] == 2
    assert dict(found.refused) == {"mismatch": 1, "EMPTY_FILE": 1, "no_space": 1, OTHER: 1}


WAY = (
    b"2026-11-28T05:00:10.000Z,created:-9.000,submitted:-8.000,started:-7.500,sent:-3.000,"
    b"arrived:%s,swept:0.000,validated:0.050,placed:0.060,receipted:0.100"
)


def spans(*lines: bytes) -> dict[str, tuple[int, float]]:
    """Return how many files came to each stage, and in how many seconds together."""
    found = Placed()
    for line in lines:
        found.add(b"2026-11-28T05:00:10.000Z " + line + b"\n")
    return {stage: (sum(one.counts), one.total) for stage, one in found.spans.items()}


def test_each_stage_is_counted_from_the_one_before() -> None:
    way = WAY % b"-2.500"
    found = spans(
        b"stored stages=" + way, b"renamed stages=" + way, b"duplicate stages=" + way, b"stored"
    )
    assert found["started"] == (2, pytest.approx(1.0)) and found["sent"] == (2, 9.0)
    assert found["arrived"] == (2, pytest.approx(1.0)) and found["total"][1] == pytest.approx(18.2)
    assert found["told"] == (0, 0.0)
    assert found.keys() == {*STAGES, TOTAL}


def test_a_record_that_tells_of_one_stage_more_counts_for_that_only() -> None:
    way = WAY % b"-2.500"
    assert spans(b"stored stages=" + way, b"told stages=" + way + b",told:1.600") == {
        **spans(b"stored stages=" + way), "told": (1, pytest.approx(1.5)),
    }  # fmt: skip


def test_an_archive_whose_clock_is_behind_takes_no_time_from_the_total() -> None:
    found = spans(b"stored stages=" + WAY % b"-3.250")  # a quarter of a second before it was sent
    assert found["arrived"] == (1, 0.0)
    assert found["total"] == (1, pytest.approx(9.35))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_line_makes_a_label_of_its_own(text: bytes) -> None:
    finished, placed = Finished(), Placed()
    for line in (text, DONE + text, b"2026-11-28T05:00:10.000Z " + text,
                 b"2026-11-28T05:00:10.000Z quarantined reason=" + text,
                 b"2026-11-28T05:00:10.000Z stored stages=" + WAY % text):  # fmt: skip
        finished.add(line)
        placed.add(line)
    assert finished.jobs.keys() <= set(OUTCOMES)
    assert placed.records.keys() <= {*KINDS, OTHER}
    assert placed.refused.keys() <= set(REASONS)
    assert placed.spans.keys() == {*STAGES, TOTAL}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mismatch 3 times at the archive site", "mismatch"),
        ("quarantined at the archive site: bad name", "quarantined_at_archive"),
        ("source changed after submit: the data file is shorter", "source_changed"),
        ("quarantined at the archive site: BAD_OFNAME: no", "quarantined_at_archive"),
        ("NO_FITS_HDUS: none", "NO_FITS_HDUS"),
        ("", OTHER),
    ],
)
def test_a_reason_has_its_word(text: str, word: str) -> None:
    assert tally.reason(text) == word


@given(st.lists(st.floats(-10, 1e6)))
def test_the_buckets_of_a_histogram_rise_to_the_count(seconds: list[float]) -> None:
    found = Histogram()
    for one in seconds:
        found.add(one)
    numbers = [number for _, number in found.buckets()]
    assert numbers == sorted(numbers) and numbers[-1] == len(seconds)
    for bound, (_, number) in zip(BOUNDS, found.buckets(), strict=False):
        assert number == sum(one <= bound for one in seconds)

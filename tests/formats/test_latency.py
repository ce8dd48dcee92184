"""How long files took, whatever the clocks of two sites say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats.latency import EDGES, Latencies, Row
from lpxfer.formats.stages import STAGES, TELESCOPE

WAY = {"created": 0.0, "submitted": 0.1, "started": 0.2, "sent": 1.0, "arrived": 1.1,
       "swept": 1.3, "validated": 1.6, "placed": 1.7, "receipted": 1.8,
       "acknowledged": 2.0}  # fmt: skip
BASE = 1_800_000_000.0


def way(late: float = 0.0, ahead: float = 0.0, **changes: float) -> dict[str, float]:
    """Return the stages of a file, as two clocks show them; the archive's is `ahead`."""
    times = {**WAY, **changes}
    return {s: BASE + late + t + (s not in TELESCOPE) * ahead for s, t in times.items()}


def archive_only(times: dict[str, float]) -> dict[str, float]:
    return {stage: time for stage, time in times.items() if stage != "acknowledged"}


def test_each_stage_takes_as_long_as_since_the_one_before() -> None:
    known = Latencies()
    known.add("a", "mmto", way())
    found = known.report("minicam")
    assert [row.stage for row in found.rows] == [stage for stage in STAGES[1:] if stage in WAY]
    spans = {row.stage: row.percentiles[0] for row in found.rows}
    assert spans["sent"] == pytest.approx(0.8) and spans["validated"] == pytest.approx(0.3)
    assert found.total and found.total.percentiles == pytest.approx((1.8,) * 4)
    assert found.offset == 0 and sum(found.bins) == found.bins[EDGES.index(2.0)] == 1


def test_percentiles_are_of_files_that_there_are() -> None:
    known = Latencies()
    for number in range(1, 101):
        known.add(str(number), "mmto", way(number * 10, swept=1.1 + number))
    rows = {row.stage: row for row in known.report("minicam").rows}
    assert rows["swept"] == Row("swept", 100, pytest.approx((50, 90, 99, 100)))


@pytest.mark.parametrize("ahead", [-3600.0, -0.5, -0.02, 0.02, 0.5, 3600.0])
def test_clocks_that_differ_are_reconciled_within_the_way_there_and_back(ahead: float) -> None:
    known = Latencies()
    for number in range(20):
        known.add(str(number), "mmto", way(number, ahead))
    found = known.report("minicam")
    assert found.total and found.offset == pytest.approx(ahead, abs=0.21)
    assert found.total.percentiles[3] == pytest.approx(1.8, abs=0.21)
    assert known.within(2.1) == 20 and known.within(1.5) == 0


@pytest.mark.parametrize("ahead", [-3600.0, -0.5])
def test_an_archive_alone_sees_that_its_clock_is_behind(ahead: float) -> None:
    known = Latencies()
    for number in range(20):
        known.add(str(number), "mmto", archive_only(way(number, ahead)))
    assert known.report("minicam").offset == pytest.approx(ahead + 0.1)


def test_hosts_and_hours_have_offsets_of_their_own() -> None:
    known = Latencies()
    known.add("a", "mmto", way())
    known.add("b", "keck", way(0, 100))
    known.add("c", "mmto", way(7200, -50))
    found = known.report("minicam")
    assert found.total and found.total.percentiles[3] == pytest.approx(1.8, abs=0.21)
    assert found.offset == pytest.approx(100, abs=0.3)


def test_clocks_that_contradict_themselves_give_nothing_below_zero() -> None:
    known = Latencies()
    known.add("a", "mmto", way(0, 500))
    known.add("b", "mmto", way(1, -500))
    found = known.report("minicam")
    assert all(span >= 0 for row in found.rows for span in row.percentiles)


def test_what_is_told_later_is_added_to_a_file_that_is_known() -> None:
    known = Latencies()
    known.add("a", "mmto", archive_only(way()))
    known.add("a", "mmto", way() | {"told": BASE + 5.8}, known=True)
    known.add("b", "mmto", way(), known=True)
    found = known.report("minicam")
    assert {row.files for row in found.rows} == {1}
    told = next(row for row in found.rows if row.stage == "told")
    assert told.percentiles[0] == pytest.approx(4.0)


def test_without_files_there_is_nothing_to_tell() -> None:
    found = Latencies().report("minicam")
    assert (found.rows, found.total, found.offset) == ([], None, 0.0)
    assert Latencies().within(1) == 0


@given(st.lists(st.dictionaries(st.sampled_from(STAGES), st.floats(-1e12, 1e12)), max_size=20))
def test_nothing_is_ever_below_zero(files: list[dict[str, float]]) -> None:
    known = Latencies()
    for number, times in enumerate(files):
        known.add(str(number), "mmto", times)
    found = known.report("minicam")
    assert all(span >= 0 for row in found.rows for span in row.percentiles)
    assert sum(found.bins) == (found.total.files if found.total else 0)

"""The stages of a file in one field of its record."""

from datetime import UTC, datetime, timedelta

from arrivals import job
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats import record, stages
from lpxfer.formats.record import Record
from lpxfer.formats.stages import STAGES, Way

SWEPT = datetime(2003, 4, 2, 5, 12, 40, tzinfo=UTC)
ZERO = SWEPT.timestamp()
FIELD = (
    "2003-04-02T05:12:40.000Z,created:-19.877,submitted:-20.000,started:-20.000,sent:-7.000"
    ",arrived:-1.500,swept:0.000,validated:0.500,placed:0.750"
)


def test_a_field_tells_every_stage() -> None:
    known = job()
    text = Way(ZERO - 1.5, SWEPT).of(known, ZERO + 0.75, ZERO + 0.5)
    assert text == FIELD
    found = stages.load(text)
    assert list(found) == list(STAGES[:8])
    assert found["arrived"] == ZERO - 1.5 and found["placed"] == ZERO + 0.75
    assert abs(found["created"] - known.mtime_ns / 1e9) < 0.001


def test_what_is_not_known_is_left_out() -> None:
    text = Way(ZERO, SWEPT).of(job(transfer=None), ZERO, None)
    assert list(stages.load(text)) == ["created", "submitted", "arrived", "swept"]


def test_stages_are_added_to_records_of_one_arrival_and_survive_the_log() -> None:
    entries = [Record(SWEPT, "stored", {"uid": str(n), "stages": FIELD}) for n in range(3)]
    later = stages.reached(entries, stages.RECEIPTED, SWEPT + timedelta(seconds=2))
    found = [record.load(record.dump(entry)) for entry in later]
    assert [stages.load(e.fields["stages"])["receipted"] for e in found] == [ZERO + 2] * 3
    assert stages.acknowledged(found[0], SWEPT - timedelta(seconds=1)).endswith(
        "receipted:2.000,acknowledged:-1.000"  # the telescope's clock is behind
    )
    bare = Record(SWEPT, "stored", {})
    assert stages.reached([bare], stages.RECEIPTED, SWEPT) == [bare]
    assert stages.acknowledged(bare, SWEPT) == ""


def test_stages_of_a_later_release_are_passed_over() -> None:
    assert list(stages.load(f"{FIELD},catalogued:12.000")) == list(STAGES[:8])


@given(st.text(max_size=80))
def test_what_makes_no_sense_tells_nothing(text: str) -> None:
    for torn in (text, FIELD[:-1] + text, FIELD + text, f"2003-02-31T05:12:40.000Z,{text}"):
        found = stages.load(torn)
        assert not found or set(found) <= set(STAGES)
    assert stages.load("2003-02-31T05:12:40.000Z,placed:0.000") == {}
    assert stages.carried_on(Record(SWEPT, "stored", {"stages": "torn"}), "told", SWEPT) == ""

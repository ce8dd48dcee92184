"""Records: one event, one line."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats import keyvalue, record
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.control import Control, Transfer
from lpxfer.formats.record import Record

NOW = datetime(2003, 4, 2, 5, 12, 33, 120_000, tzinfo=UTC)

KNOWN = Control(
    job="archive-1042",
    uid="20030402T051233Z-mmto-archive-1042-0a1b2c3d",
    host="mmto",
    user="mcam",
    queue="archive",
    submitted=NOW,
    name="0 1.fits",
    path="/h/0 1.fits",
    size=41_670_700,
    mtime_ns=0,
    checksum="sha256:" + "0" * 64,
    inst="minicam",
    transfer=Transfer(NOW, NOW, 13.02, 1),
)

fields = st.dictionaries(
    st.from_regex(keyvalue.KEYWORD, fullmatch=True),
    st.binary(max_size=100).map(keyvalue.from_bytes),
    max_size=8,
)
records = st.builds(
    Record, st.just(NOW), st.from_regex("[a-z]{1,12}", fullmatch=True), fields
)  # fmt: skip


def test_record_is_time_kind_and_fields_on_one_line():
    line = record.dump(Record(NOW, "stored", {"inst": "minicam", "path": "/a b\n", "uid": "x"}))
    assert line == b"2003-04-02T05:12:33.120Z stored inst=minicam path=/a%20b%0A uid=x\n"


@given(records)
def test_record_gives_back_what_was_written(written):
    line = record.dump(written)
    assert record.load(line) == record.load(line[:-1]) == written


@given(records)
def test_every_record_is_one_line_that_awk_splits_into_its_fields(written):
    line = record.dump(written)
    assert line.decode().splitlines() == [line[:-1].decode()]
    assert len(line.split()) == 2 + len(written.fields)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"2003-04-02T05:12:33.120Z",
        b"2003-04-02T05:12:33.120Z ",
        b"2003-04-02T05:12:33.120Z Stored",
        b"2003-04-02 stored",
        b"2003-04-02T05:12:33.120Z  stored",
        b"2003-04-02T05:12:33.120Z stored ",
        b"2003-04-02T05:12:33.120Z stored inst",
        b"2003-04-02T05:12:33.120Z stored =x",
        b"2003-04-02T05:12:33.120Z stored a=1 a=2",
        b"2003-04-02T05:12:33.120Z stored a=\x1b[2J",
        b"2003-04-02T05:12:33.120Z stored a=1\nb=2",
        b"2003-04-02T05:12:33.120Z stored a=1\r\n",
        b"2003-04-02T05:12:33.120Z stored a=%4",
        b"2003-04-02T05:12:33.120Z stored a=\xff",
    ],
)
def test_other_lines_are_refused(line):
    with pytest.raises(FormatError):
        record.load(line)


def test_line_that_is_too_long_is_refused_unread():
    with pytest.raises(FormatError, match="too long"):
        record.load(b"x" * (record.LINE_LIMIT + 1))


@given(
    st.binary(max_size=300)
    | st.builds(lambda r, cut: record.dump(r)[cut:], records, st.integers(0, 60))
)
@example(b"2003-04-02T05:12:33.120Z stored\n\n")
def test_reader_raises_nothing_but_format_error(line):
    try:
        record.load(line)
    except FormatError:
        pass


@given(records, st.data())
def test_record_that_was_cut_short_is_torn_and_not_damaged(written, data):
    line = record.dump(written)
    assert record.load_unless_torn(line) == written
    cut = line[: data.draw(st.integers(0, len(line) - 1))]
    assert record.load_unless_torn(cut) is None
    assert record.load_unless_torn(cut + b"\n") in (None, record_or_none(cut))
    zeros = bytes(data.draw(st.integers(1, 3)))
    assert record.load_unless_torn(cut + zeros + b"\n") is None


def record_or_none(line):
    try:
        return record.load(line)
    except FormatError:
        return None


@pytest.mark.parametrize(
    "line", [b"rubbish\n", b"a\0b\n", b"2003-04-02T05:12:33.120Z stored x y=1\n"]
)
def test_line_that_never_was_a_record_is_damaged(line):
    with pytest.raises(FormatError):
        record.load_unless_torn(line)


def test_record_of_an_arrival_says_what_its_control_file_says():
    made = record.of_arrival(NOW, record.STORED, KNOWN, "2003.0401/0 1.fits", instead_of="x")
    assert record.dump(made).decode() == (
        "2003-04-02T05:12:33.120Z stored inst=minicam uid=20030402T051233Z-mmto-archive-1042-"
        f"0a1b2c3d name=0%201.fits size=41670700 checksum=sha256:{'0' * 64} path=/h/0%201.fits "
        "placed=2003.0401/0%201.fits seconds=13.02 rate=3.20 attempts=1 instead_of=x\n"
    )


def test_record_of_an_arrival_leaves_out_what_the_sender_did_not_say():
    made = record.of_arrival(NOW, record.QUARANTINED, replace(KNOWN, transfer=None), "")
    assert not made.fields.keys() & {"placed", "seconds", "rate", "attempts"}
    instant = replace(KNOWN, transfer=Transfer(NOW, NOW, 0.0, 1))
    assert "rate" not in record.of_arrival(NOW, record.STORED, instant, "x").fields


def test_record_of_a_bundle_names_no_job():
    transfer = Transfer(NOW, NOW, 0.00125, 1)
    known = Bundle("20030402T051233Z-mmto-archive-1-0a1b2c3d", "mmto", "minicam", 3, 99, 1250,
                   "sha256:" + "0" * 64, transfer)  # fmt: skip
    made = record.of_arrival(NOW, record.UNPACKED, known, "")
    assert record.dump(made).decode() == (
        f"2003-04-02T05:12:33.120Z unpacked inst=minicam bundle={known.uid} members=3 size=1250 "
        "seconds=0.00125 rate=1.00 attempts=1\n"
    )
    assert record.uid_of(made) == known.uid and record.row(made)["members"] == 3
    assert record.uid_of(record.of_arrival(NOW, record.STORED, KNOWN, "x")) == KNOWN.uid
    assert record.uid_of(Record(NOW, "stored", {})) == ""


def test_row_for_json_is_flat_with_numbers_as_numbers():
    row = record.row(record.of_arrival(NOW, record.STORED, KNOWN, "x"))
    assert (row["time"], row["kind"]) == ("2003-04-02T05:12:33.120Z", "stored")
    assert (row["size"], row["seconds"], row["rate"], row["attempts"]) == (41670700, 13.02, 3.2, 1)

"""Transfer logs, read for a report: any state a directory of them may be in."""

import gzip
import os
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats import keyvalue, record
from lpxfer.formats.record import Record
from lpxfer.formats.window import Window
from lpxfer.stores import log_lines, transfer_log
from lpxfer.stores.transfer_log import Event

START, END = datetime(2003, 4, 2, 12, tzinfo=UTC), datetime(2003, 4, 4, 12, tzinfo=UTC)
WINDOW = Window(START, END)
NOON = datetime(2003, 4, 3, 12, tzinfo=UTC)


def entry(uid: str, time: datetime = NOON, kind: str = "stored", **fields: str) -> bytes:
    known = {"inst": "minicam", "uid": uid, "name": "0123.fits", "size": "5497920"}
    return record.dump(Record(time, kind, known | fields))


@pytest.fixture
def uids(tmp_path):
    """Reads a path, tmp_path by default, and returns uids and messages."""

    def read(path=tmp_path, window=WINDOW):
        messages: list[str] = []
        events = list(transfer_log.read(str(path), window, messages.append))
        return [event.uid for event in events], messages

    return read


def test_a_record_is_read_with_what_a_report_needs():
    line = entry("u", checksum="sha256:00", seconds="13.02", rate="3.20", attempts="1")
    assert transfer_log.load(line) == Event(NOON, "stored", "minicam", "u", 5497920, 13.02, 3.2)


def test_the_order_of_the_fields_does_not_matter():
    line = b"2003-04-03T12:00:00Z renamed rate=3.20 size=7 uid=u seconds=2 inst=minicam\n"
    assert transfer_log.load(line) == Event(NOON, "renamed", "minicam", "u", 7, 2.0, 3.2)


def test_a_name_that_needs_percent_does_not_change_the_rest():
    line = entry("u", seconds="13.02", rate="3.20")
    assert transfer_log.load(line.replace(b"0123.fits", b"a%20b%FF.fits")) == transfer_log.load(
        line
    )


def test_fields_that_a_record_does_not_have_are_nothing():
    event = transfer_log.load(b"2003-04-03T12:00:00.000Z mismatch inst=minicam\n")
    assert event == Event(NOON, "mismatch", "minicam", "", None, 0.0, 0.0)


@pytest.mark.parametrize("value", ["", "abc", "-1", "nan", "inf", "1e9", "1.", "9" * 16, "%31"])
def test_a_time_or_rate_that_is_no_number_is_not_known(value):
    line = entry("u").rstrip() + f" seconds={value} rate={value}\n".encode()
    event = transfer_log.load(line)
    expected = 1.0 if value == "%31" else 0.0
    assert (event.seconds, event.rate) == (expected, expected)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"2003-04-03T12:00:00.000Z",
        b"2003-04-03T12:00:00.000Z stored",
        b"2003-04-03T12:00:00.000Z stored inst=minicam uid=u",  # torn
        b"2003-04-03T12:00:00.000Z stored inst=minicam uid= size=1",
        b"2003-04-03T12:00:00.000Z stored inst=minicam uid=u size=-1",
        b"2003-04-03T12:00:00.000Z stored inst=minicam uid=u size=1 name",
        b"2003-04-03T12:00:00.000Z stored inst=minicam  uid=u size=1",
        b"2003-04-03T12:00:00.000Z stored inst=minicam uid=u size=1 name=\xff",
        b"2003-04-03T12:00:00.000Z stored inst=minicam uid=u size=1 name=%zz",
        b"2003-04-03T12:00:00.000Z stored inst=minicam uid=u size=1 name=a\tb",
        b"2003-04-03T12:00:00.000Z Stored inst=minicam uid=u size=1",
        b"2003-04-03T12:00:00.000 stored inst=minicam uid=u size=1",
        b"2003-02-30T12:00:00.000Z stored inst=minicam uid=u size=1",
        b"2003-04-03T24:00:00.000Z stored inst=minicam uid=u size=1",
        b"2003-04-03T12:00:00.000Z stored inst=minicam uid=u size=1 name="
        + b"x" * record.LINE_LIMIT,
    ],
)
def test_any_other_line_is_refused(line):
    with pytest.raises(FormatError):
        transfer_log.load(line)


VALUES = st.binary(max_size=20).map(keyvalue.from_bytes) | st.sampled_from(["0", "1.5", "1.5.2"])
FIELDS = st.dictionaries(
    st.sampled_from([*transfer_log.NEEDED, "name", "x.y-z"])
    | st.from_regex(keyvalue.KEYWORD, fullmatch=True),
    VALUES,
)


@given(
    st.datetimes(timezones=st.just(UTC)), st.sampled_from(["mismatch", "stranger", "new"]), FIELDS
)
def test_any_record_says_here_what_it_says_everywhere(time, kind, fields):
    line = record.dump(Record(time, kind, fields))
    whole, event = record.load(line), transfer_log.load(line)
    assert (event.time, event.kind) == (whole.time, whole.kind)
    assert event.inst == whole.fields.get("inst", "")
    assert event.uid == whole.fields.get("uid", "")


@given(st.binary())
@example(b"2003-04-03T12:00:00.000Z stored " + b"a=" * 1000)
def test_any_bytes_are_an_event_or_a_format_error(line):
    try:
        transfer_log.load(line)
    except FormatError:
        return
    record.load(line)  # what is taken here is a record


@given(st.lists(st.sampled_from([*entry("u", rate="1").decode(), " ", "=", "%", "\n", "\0"])))
def test_any_letters_of_a_record_are_an_event_or_a_format_error(letters):
    try:
        transfer_log.load("".join(letters).encode())
    except FormatError:
        pass


@given(st.integers(0, 200), st.binary(max_size=3))
def test_a_damaged_record_is_an_event_or_a_format_error(place, damage):
    line = entry("u", seconds="13.02", rate="3.20")
    try:
        transfer_log.load(line[:place] + damage + line[place + 1 :])
    except FormatError:
        pass


@given(st.binary(max_size=2000), st.booleans())
def test_a_file_of_any_bytes_is_read_to_its_end(tmp_path_factory, data, packed):
    path = tmp_path_factory.mktemp("log") / "any"
    path.write_bytes(gzip.compress(data) if packed else data)
    messages: list[str] = []
    assert len(list(transfer_log.read(str(path), WINDOW, messages.append))) <= data.count(b"\n") + 1
    assert len(messages) <= 2


def test_the_window_has_its_start_and_not_its_end(tmp_path, uids):
    log = tmp_path / "20030403.tdcin.log"
    just = [START.replace(hour=11, minute=59), START, END.replace(hour=11, minute=59), END]
    log.write_bytes(b"".join(entry(f"u{n}", time) for n, time in enumerate(just)))
    assert uids() == (["u1", "u2"], [])


def test_only_the_days_that_matter_are_opened(tmp_path, uids):
    for day in ("20030331", "20030401", "20030402", "20030403", "20030404", "20030405"):
        (tmp_path / f"{day}.tdcin.log").write_bytes(entry(day))
    # a sweep that begins before midnight logs to that day's file; no record waits for its day
    assert uids() == (["20030401", "20030402", "20030403", "20030404"], [])


def test_rotated_and_compressed_logs_are_read(tmp_path, uids):
    day = tmp_path / "20030403.tdcin.log"
    day.write_bytes(entry("plain"))
    day.with_name(day.name + ".1").write_bytes(entry("rotated"))
    day.with_name(day.name + ".2.gz").write_bytes(gzip.compress(entry("packed")))
    day.with_name(day.name + "-20030501").write_bytes(entry("dated"))
    assert uids() == (["plain", "dated", "rotated", "packed"], [])


def test_files_of_other_names_are_left_alone(tmp_path, uids):
    (tmp_path / "20030403.tdcin.log").write_bytes(entry("u"))
    for name in (
        "notes",
        ".20030403.tdcin.log.swp",
        "20030499.tdcin.log",
        "2003.tdcin.log",
        "x20030403.tdcin.log",
    ):
        (tmp_path / name).write_bytes(b"\0")
    assert uids() == (["u"], [])


def test_a_directory_without_any_log_is_another_directory(tmp_path, uids):
    assert uids() == ([], [])  # of an instrument that nothing came from yet
    (tmp_path / "2003.0402").mkdir()
    with pytest.raises(PermanentError, match="has no transfer logs such as 20030401.tdcin.log"):
        uids()


def test_one_file_of_any_name_is_read_also_by_a_link(tmp_path, uids):
    log, link = tmp_path / "lplogs", tmp_path / "link"
    log.write_bytes(entry("u"))
    link.symlink_to(log)
    assert uids(log) == uids(link) == (["u"], [])


def test_a_link_to_the_directory_is_followed(tmp_path, uids):
    logs, link = tmp_path / "logs", tmp_path / "link"
    logs.mkdir()
    link.symlink_to(logs)
    (logs / "20030403.tdcin.log").write_bytes(entry("u"))
    assert uids(link) == (["u"], [])


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "directory"])
def test_what_is_no_file_in_the_directory_is_reported_and_the_others_are_read(tmp_path, uids, kind):
    odd = tmp_path / "20030402.tdcin.log"
    (tmp_path / "20030403.tdcin.log").write_bytes(entry("u"))
    {
        "link": lambda: odd.symlink_to("20030403.tdcin.log"),
        "dangling": lambda: odd.symlink_to("nothing"),
        "fifo": lambda: os.mkfifo(odd),
        "directory": odd.mkdir,
    }[kind]()
    told = f'passed over "{odd}" - a link, or not a regular file; move it away'
    assert uids() == (["u"], [told])


def test_a_fifo_that_is_named_is_refused_and_not_waited_for(tmp_path, uids):
    fifo = tmp_path / "20030403.tdcin.log"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="not a regular file") as error:
        uids(fifo)
    assert error.value.filename == str(fifo)


def test_a_missing_path_is_named(tmp_path, uids):
    with pytest.raises(FileNotFoundError) as error:
        uids(tmp_path / "nothing")
    assert error.value.filename == str(tmp_path / "nothing")


def test_damaged_lines_are_counted_and_passed_over(tmp_path, uids):
    log = tmp_path / "20030403.tdcin.log"
    log.write_bytes(
        entry("a") + b"\n" + entry("b")[:60] + b"\n" + entry("c") + b"\xff\n" + entry("d")[:-9]
    )
    good, messages = uids()
    assert good == ["a", "c"]
    assert messages == [f"{log}: 4 damaged line(s) passed over, the first is line 2"]


def test_a_last_line_without_its_newline_is_read(tmp_path, uids):
    (tmp_path / "20030403.tdcin.log").write_bytes(entry("a") + entry("b").rstrip())
    assert uids() == (["a", "b"], [])


def test_an_endless_line_is_one_damaged_line_and_hides_nothing(tmp_path, uids):
    log = tmp_path / "20030403.tdcin.log"
    # the end of the long line, wherever it is cut, must not pass for a record
    endless = b"".join(b"%b\r" % entry("hidden").rstrip() for _ in range(10000))
    log.write_bytes(entry("a") + endless + b"\n" + entry("b"))
    assert uids() == (["a", "b"], [f"{log}: 1 damaged line(s) passed over, the first is line 2"])


def test_a_line_cut_at_the_limit_does_not_begin_again_there(tmp_path, uids):
    log = tmp_path / "20030403.tdcin.log"
    log.write_bytes(b"x" * (record.LINE_LIMIT + 1) + entry("hidden") + entry("b"))
    assert uids()[0] == ["b"]


def test_a_sparse_terabyte_is_given_up(tmp_path, uids):
    log = tmp_path / "20030403.tdcin.log"
    log.write_bytes(entry("a"))
    os.truncate(log, 1 << 40)
    (tmp_path / "20030404.tdcin.log").write_bytes(entry("b"))
    good, messages = uids()
    assert good == ["a", "b"]
    assert messages[0] == f"{log}: not a log of this kind; given up at line 2"


@pytest.mark.parametrize("junk", [b"\0", b"\n"])
def test_a_gzip_bomb_is_given_up(tmp_path, uids, monkeypatch, junk):
    monkeypatch.setattr(log_lines, "GIVE_UP", 1 << 20)
    log = tmp_path / "20030403.tdcin.log.gz"
    with gzip.open(log, "wb", compresslevel=1) as packed:
        packed.write(entry("a"))
        for _ in range(3):
            packed.write(junk * ((1 << 20) // len(junk)))
        packed.write(b"\n" + entry("never reached"))
    good, messages = uids()
    assert good == ["a"]
    assert "not a log of this kind; given up at line" in messages[0]


@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: d[:500] + b"\0" * 100 + d[600:]])
def test_a_damaged_archive_is_read_as_far_as_it_goes(tmp_path, uids, damage):
    log = tmp_path / "20030403.tdcin.log.gz"
    lines = b"".join(entry(os.urandom(20).hex()) for _ in range(2000))
    log.write_bytes(damage(gzip.compress(lines)))
    (tmp_path / "20030404.tdcin.log").write_bytes(entry("b"))
    good, messages = uids()
    assert good[-1] == "b"
    assert len(good) < 2001
    assert any("the rest is not read" in message for message in messages)

"""The sum of transfer logs, and times from the xferlogs of real FTP servers."""

import gzip
import io
import random
import statistics
from array import array
from datetime import UTC, datetime

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Proftpd, Vsftpd

from lpxfer.formats import record
from lpxfer.formats.record import Record
from lpxfer.formats.window import Window
from lpxfer.steps import logsum
from lpxfer.steps.logsum import Spread

TIME = datetime(2026, 11, 20, 12, tzinfo=UTC)
WINDOW = Window(TIME.replace(hour=0), TIME.replace(hour=23))


def uid(number: int) -> str:
    return f"20261120T120000Z-packrat-archive-{number + 1}-0123abcd"


def entry(number: int = 0, kind: str = "stored", inst: str = "minicam", **fields: object) -> bytes:
    known = {"inst": inst, "uid": uid(number), "size": 6_000_000, "seconds": "3.00", "rate": "2.00"}
    return record.dump(Record(TIME, kind, {k: str(v) for k, v in (known | fields).items()}))


@pytest.fixture
def summary(tmp_path):
    """Sums up some records of minicam, with xferlogs or without."""

    def make(*records: bytes, xferlogs=None):
        (tmp_path / "log").write_bytes(b"".join(records))
        tallies = logsum.count([str(tmp_path / "log")], {"minicam": "minicam"}, WINDOW, pytest.fail)
        if xferlogs is not None:
            logsum.take_times(tallies.values(), map(str, xferlogs), pytest.fail)
        return tallies["minicam"].summary("minicam")

    return make


def test_stored_and_renamed_are_files(summary):
    assert summary(entry(1), entry(2, "renamed")).files == 2


def test_mismatch_quarantined_and_error_are_errors(summary):
    known = summary(
        *(entry(n, kind) for n, kind in enumerate(["mismatch", "quarantined", "error"]))
    )
    assert (known.files, known.errors, known.performance) == (0, 3, None)


def test_a_bundle_is_no_file_and_a_damaged_one_an_error(summary):
    fields = {"inst": "minicam", "bundle": uid(9), "members": "2", "size": "9", "attempts": "1"}
    lines = [record.dump(Record(TIME, kind, fields)) for kind in ("unpacked", "mismatch")]
    known = summary(entry(1), *lines)
    assert (known.files, known.errors) == (1, 1)


def test_every_error_counts_also_of_one_uid(summary):
    known = summary(entry(1, "mismatch"), entry(1, "mismatch"), entry(1))
    assert (known.files, known.errors) == (1, 2)


def test_other_kinds_are_neither(summary):
    known = summary(entry(1, "duplicate"), entry(2, "stranger"), entry(3, "invented"))
    assert (known.files, known.errors) == (0, 0)


def test_a_uid_counts_once_also_across_kinds_and_the_first_record_speaks(summary):
    known = summary(
        entry(1, rate="1.00"), entry(1, rate="2.00"), entry(1, "renamed"), entry(2, "renamed")
    )
    assert known.files == 2
    assert known.performance.rate == Spread(1.0, 1.5, 2.0)


def test_uids_are_told_apart_however_many_there_are(summary):
    numbers = [*range(5000), *range(5000)]
    random.Random(1).shuffle(numbers)
    assert summary(*map(entry, numbers)).files == 5000


def test_records_of_other_instruments_are_theirs(tmp_path, summary):
    assert summary(entry(1), entry(2, inst="megacam"), entry(3, "error", inst="")).files == 1
    tallies = logsum.count(
        [str(tmp_path / "log")], {"fast": "fast"}, WINDOW, pytest.fail, others=True
    )
    assert {name: tally.summary(name).files for name, tally in tallies.items()} == {
        "fast": 0, "minicam": 1, "megacam": 1}  # fmt: skip


def test_rates_and_times_are_those_of_the_records(summary):
    known = summary(
        entry(1, seconds="5.00", rate="0.47", size=5497920),
        entry(2, seconds="13.02", rate="0.92", size=11000000),
        entry(3, seconds="75.00", rate="2.20", size=41670700),
    ).performance
    assert (known.files, known.size_min, known.size_max) == (3, 5497920, 41670700)
    assert known.seconds == Spread(5.0, 13.02, 75.0)
    assert known.rate == Spread(0.47, 0.92, 2.2)


def test_a_rate_that_is_missing_or_rounded_away_is_computed(summary):
    no_rate = record.dump(
        Record(
            TIME, "stored", {"inst": "minicam", "uid": uid(1), "size": "6000000", "seconds": "3"}
        )
    )
    assert summary(no_rate).performance.rate.median == 2.0
    assert (
        summary(entry(1, size=1000, seconds="2.000", rate="0.00")).performance.rate.median == 0.0005
    )


@pytest.mark.parametrize(
    "unknown",
    [{"seconds": "0.000"}, {"seconds": ""}, {"seconds": "soon"}, {"size": 0, "rate": "0.00"}],
)
def test_a_file_whose_speed_is_not_known_counts_and_distorts_nothing(summary, unknown):
    known = summary(entry(1), entry(2, **unknown))
    assert known.files == 2
    assert known.performance == summary(entry(1)).performance
    assert summary(entry(2, **unknown)).performance is None


def test_an_edge_of_the_histogram_belongs_to_the_bin_below_it(summary):
    rates = ["0.01", "1.00", "1.01", "2.00", "2.01", "4.00", "4.01", "8.00", "8.01", "99"]
    known = summary(*(entry(n, rate=rate) for n, rate in enumerate(rates)))
    assert known.performance.bins == (2, 2, 2, 2, 2)


@given(st.lists(st.floats(1e-9, 1e15) | st.sampled_from([0.5, 1.0, 2.0]), min_size=1))
def test_the_median_is_the_one_of_the_statistics_module(values):
    spread = logsum.spread(array("d", [0.0, *values, 0.0]))
    assert spread.median == pytest.approx(statistics.median(values))
    assert (spread.min, spread.max) == (min(values), max(values))


# --- times from an xferlog ----------------------------------------------------------------


def xferlog_line(
    number: int = 0, seconds=3, size=6_000_000, status="c", direction="i", name=".{}.data.part"
) -> bytes:
    path = "/srv/incoming/" + name.format(uid(number))
    ends = f"b _ {direction} r u ftp 0 * {status}"
    return f"Fri Nov 20 16:49:55 2026 {seconds} h {size} {path} {ends}\n".encode()


@pytest.fixture
def xferlog(tmp_path):
    """Writes an xferlog and returns its path."""

    def make(*lines: bytes, name: str = "xferlog"):
        (tmp_path / name).write_bytes(b"".join(lines))
        return tmp_path / name

    return make


def test_times_and_rates_come_from_the_xferlog(summary, xferlog):
    log = xferlog(xferlog_line(1, seconds=6), xferlog_line(2, seconds=2, name="{}.data"))
    known = summary(entry(1), entry(2), entry(3, rate="99"), xferlogs=[log])
    assert (known.files, known.performance.files) == (3, 2)
    assert known.performance.seconds == Spread(2.0, 4.0, 6.0)
    assert known.performance.rate == Spread(1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    "line",
    [
        xferlog_line(1, status="i"),
        xferlog_line(1, direction="o"),
        xferlog_line(1, direction="d"),
        xferlog_line(1, size=5_999_999),  # a beginning, or the rest of one
        xferlog_line(1, name="{}.control"),
        xferlog_line(1, name="0123.fits"),
        xferlog_line(2),
        b"",
    ],
)
def test_a_file_without_its_line_counts_and_has_no_time(summary, xferlog, line):
    known = summary(entry(1), xferlogs=[xferlog(line)])
    assert (known.files, known.performance) == (1, None)


def test_an_empty_file_in_an_xferlog_divides_nothing(summary, xferlog):
    assert (
        summary(entry(1, size=0), xferlogs=[xferlog(xferlog_line(1, size=0))]).performance is None
    )


def test_less_than_a_second_is_one_in_every_servers_log(summary, xferlog):
    proftpd, vsftpd = (xferlog(xferlog_line(1, seconds=n), name=str(n)) for n in (0, 1))
    known = summary(entry(1), xferlogs=[proftpd])
    assert known == summary(entry(1), xferlogs=[vsftpd])
    assert known.performance.rate.median == 6.0


def test_the_last_whole_transfer_of_a_file_is_the_one_that_counts(summary, xferlog):
    log = xferlog(xferlog_line(1, seconds=60), xferlog_line(1, seconds=2), xferlog_line(1, size=10))
    assert summary(entry(1), xferlogs=[log]).performance.seconds.median == 2.0


def test_rotated_xferlogs_are_read_too(summary, xferlog):
    packed = xferlog(gzip.compress(xferlog_line(1)), name="xferlog.1.gz")
    known = summary(entry(1), entry(2), xferlogs=[packed, xferlog(xferlog_line(2))])
    assert known.performance.files == 2


def test_damaged_lines_of_an_xferlog_are_reported(tmp_path, xferlog):
    messages: list[str] = []
    log = xferlog(xferlog_line(1), b"\xff\n", b"Fri Nov 20 16:4\n")
    logsum.take_times([logsum.Tally()], [str(log)], messages.append)
    assert messages == [f"{log}: 2 damaged line(s) passed over, the first is line 2"]


# --- real servers -------------------------------------------------------------------------


def test_proftpd_is_believed_about_ftp_and_sftp_but_not_about_half_files(tmp_path, summary):
    data = bytes(6_000_000)
    (tmp_path / "file").write_bytes(data)
    with Proftpd(tmp_path / "proftpd") as server:
        with server.session() as ftp:
            ftp.storbinary(f"STOR .{uid(0)}.data.part", io.BytesIO(data))
            ftp.rename(f".{uid(0)}.data.part", f"{uid(0)}.data")
        part = f".{uid(1)}.data.part"
        server.sftp(f'put "{tmp_path}/file" {part}\nrename {part} {uid(1)}.data\n')
        server.break_off(f".{uid(2)}.data.part", data[:70_000], reset=True)
        server.break_off(f".{uid(3)}.data.part", data[:70_000], reset=False)
        break_off_sftp(server, f".{uid(4)}.data.part")
        server.lines(5)
        known = summary(*map(entry, range(5)), xferlogs=[server.xferlog])
    assert (known.files, known.performance.files) == (5, 2)
    assert known.performance.seconds.min >= 1


def break_off_sftp(server: Proftpd, name: str) -> None:
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(server.known_hosts))
        client.connect(server.host, server.sftp_port, "tdcin", key_filename=str(server.identity))
        with client.open_sftp().open(name, "wb") as file:
            file.write(bytes(70_000))
            client.get_transport().sock.close()  # and no CLOSE is ever sent
            with pytest.raises((OSError, EOFError, paramiko.SSHException)):
                file.stat()


def test_vsftpd_is_believed_about_whole_files_only(tmp_path, summary):
    data = bytes(6_000_000)
    with Vsftpd(tmp_path / "vsftpd") as server:
        with server.session() as ftp:
            ftp.storbinary(f"STOR .{uid(0)}.data.part", io.BytesIO(data))
            ftp.rename(f".{uid(0)}.data.part", f"{uid(0)}.data")
        server.break_off(f".{uid(1)}.data.part", data[:70_000], reset=False)
        assert server.lines(2)[1].endswith(b" c")  # complete, says vsftpd
        with server.session() as ftp:  # the next attempt
            ftp.storbinary(f"STOR .{uid(2)}.data.part", io.BytesIO(data))
            ftp.delete(f".{uid(2)}.data.part")
        server.lines(3)
        known = summary(*map(entry, range(3)), xferlogs=[server.xferlog])
    assert (known.files, known.performance.files) == (3, 2)


def test_records_that_call_an_instrument_by_its_alias_are_its_own(tmp_path):
    names = {"megacam": "megacam", "mega": "megacam"}
    (tmp_path / "log").write_bytes(entry(1, inst="mega") + entry(2, inst="megacam"))
    tallies = logsum.count([str(tmp_path / "log")], names, WINDOW, pytest.fail)
    assert {name: tally.summary(name).files for name, tally in tallies.items()} == {"megacam": 2}

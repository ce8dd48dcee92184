"""The transfer log of an instrument directory, as a sweep writes and searches it."""

import gzip
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from arrivals import NOW

from lpxfer import durable
from lpxfer.errors import PermanentError, UsageError
from lpxfer.formats import record
from lpxfer.formats.record import Record
from lpxfer.stores.instrument_log import InstrumentLog, place

UID = "20030402T051220Z-mmto-archive-1-00000001"
OTHER = "20030402T051220Z-mmto-archive-2-00000002"


def stored(uid: str = UID, time: datetime = NOW, placed: str = "a/b.fits") -> Record:
    return Record(time, "stored", {"uid": uid, "placed": placed})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[int]:
    with durable.opened_dir(tmp_path) as fd:
        yield fd


def test_records_are_found_by_uid_in_every_form_of_log(home: int, tmp_path: Path) -> None:
    log = InstrumentLog(home)
    log.append(stored())
    logs = tmp_path / "xferlogs"
    line = record.dump(stored())
    (logs / "20030402.tdcin.log.1").write_bytes(line)
    (logs / "20030403.tdcin.log-20030501.gz").write_bytes(gzip.compress(line))
    (logs / "notes.txt").write_bytes(line)
    (logs / "20030404.tdcin.log").write_bytes(b"\xff\n" * 10 + b"torn uid=" + UID.encode() + b"\n")
    assert log.history([UID, OTHER], NOW) == {UID: [stored()] * 3}
    assert log.history([], NOW) == {}


def test_a_line_without_its_end_is_no_record_yet(home: int, tmp_path: Path) -> None:
    log = InstrumentLog(home)
    log.append(stored(OTHER))
    with open(tmp_path / "xferlogs/20030402.tdcin.log", "ab") as stream:
        stream.write(record.dump(stored())[:-1])
    assert log.history([UID], NOW) == {}
    log.append(stored())
    lines = (tmp_path / "xferlogs/20030402.tdcin.log").read_bytes().splitlines()
    assert len(lines) == 3 and lines[1] + b"\n" == record.dump(stored())


@pytest.mark.parametrize(
    ("uid_day", "log_day", "found"),
    [
        ("20030402", "20030402", True),
        ("20030402", "20030327", True),
        ("20030402", "20030101", False),
        ("20380101", "20030101", True),
        ("19700101", "20030101", True),
        ("20039999", "19990101", True),
    ],
)
def test_logs_that_are_older_than_the_uid_are_passed_over_unless_a_clock_was_wrong(
    home: int, tmp_path: Path, uid_day: str, log_day: str, found: bool
) -> None:
    uid = f"{uid_day}T051220Z-mmto-archive-1-00000001"
    (tmp_path / "xferlogs").mkdir()
    (tmp_path / f"xferlogs/{log_day}.tdcin.log").write_bytes(record.dump(stored(uid)))
    assert bool(InstrumentLog(home).history([uid], NOW)) == found


def test_the_owner_of_a_place_is_who_was_first_and_what_is_appended_counts(
    home: int, tmp_path: Path
) -> None:
    log = InstrumentLog(home)
    log.append(stored(time=NOW - timedelta(days=1000)))
    log.append(Record(NOW, "duplicate", {"uid": OTHER, "placed": "a/b.fits"}))
    log.append(stored(OTHER, placed="c.fits"))
    assert log.owner("a/b.fits") == UID and log.owner("a/c.fits") is None
    assert log.owner("c.fits") == OTHER and log.owner("b.fits") is None
    log.append(stored(OTHER, placed="a/c.fits"))
    assert log.owner("a/c.fits") == OTHER


def test_a_named_log_file_is_the_only_one_and_the_default_place_is_searched_too(
    home: int, tmp_path: Path
) -> None:
    InstrumentLog(home).append(stored())
    (tmp_path / "logs").mkdir()
    log = InstrumentLog(home, str(tmp_path / "logs"), "lplogs")
    log.append(stored(OTHER))
    assert os.listdir(tmp_path / "logs") == ["lplogs"]
    os.rename(tmp_path / "logs/lplogs", tmp_path / "logs/lplogs.1")
    assert log.history([UID, OTHER], NOW) == {UID: [stored()], OTHER: [stored(OTHER)]}


def test_a_log_directory_is_made_where_its_parent_exists(home: int, tmp_path: Path) -> None:
    InstrumentLog(home, str(tmp_path / "new")).append(stored())
    assert os.listdir(tmp_path / "new") == ["20030402.tdcin.log"]
    with pytest.raises(FileNotFoundError):
        InstrumentLog(home, str(tmp_path / "no/new")).append(stored())


def test_the_default_directory_may_not_be_a_link(home: int, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "xferlogs").symlink_to("outside")
    with pytest.raises(PermanentError, match="is a link"):
        InstrumentLog(home).append(stored())
    with pytest.raises(PermanentError, match="is a link"):
        InstrumentLog(home).history([UID], NOW)


def test_a_full_disk_leaves_no_torn_line(
    home: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = InstrumentLog(home)
    log.append(stored())
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) < 60:
            raise OSError(28, "No space left on device")
        return real(fd, data[:40])

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        with pytest.raises(OSError):
            log.append(stored(OTHER))
    assert (tmp_path / "xferlogs/20030402.tdcin.log").read_bytes() == record.dump(stored())


def test_lpsweepers_options_name_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = str(tmp_path / "home")
    (tmp_path / "home/xferlogs/made").mkdir(parents=True)
    (tmp_path / "lplogs").mkdir()
    monkeypatch.chdir(tmp_path)  # what is there does not matter
    assert place(home, None, None) == (None, None)
    assert place(home, "/logs", None) == ("/logs", None)
    assert place(home, None, "lplogs") == (None, "lplogs")
    assert place(home, None, "./sub//lplogs") == (None, "sub/lplogs")
    assert place(home, "/logs", "lplogs") == ("/logs", "lplogs")
    assert place(home, "/logs", "a/b/lplogs") == ("/logs", "a/b/lplogs")
    assert place(home, "/logs", "/home/wyatt/lplogs") == ("/home/wyatt", "lplogs")
    for directory in (f"{tmp_path}", f"{tmp_path}/", "made", "new/", ".", ""):
        with pytest.raises(UsageError, match="name a directory with -L"):
            place(home, None, directory)
    for outside in ("../lplogs.txt", "a/../../b", "made/../x"):
        with pytest.raises(UsageError, match="leads out of the log directory"):
            place(home, "/logs", outside)


def test_a_log_file_below_the_log_directory_is_written_and_searched(
    home: int, tmp_path: Path
) -> None:
    InstrumentLog(home).append(stored())
    for directory, top in ((None, "xferlogs"), (str(tmp_path / "logs"), "logs")):
        log = InstrumentLog(home, directory, "a/b/my.log")
        log.append(stored(OTHER))
        assert (tmp_path / top / "a/b/my.log").read_bytes() == record.dump(stored(OTHER))
        fresh = InstrumentLog(home, directory, "a/b/my.log")
        assert fresh.history([UID, OTHER], NOW) == {UID: [stored()], OTHER: [stored(OTHER)]}


def test_no_link_is_followed_on_the_way_to_a_log_file(home: int, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "xferlogs").mkdir()
    (tmp_path / "xferlogs/sub").symlink_to(tmp_path / "outside")
    with pytest.raises(PermanentError, match="is a link"):
        InstrumentLog(home, None, "sub/my.log").append(stored())
    assert os.listdir(tmp_path / "outside") == []

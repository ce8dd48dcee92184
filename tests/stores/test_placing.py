"""Files that are given their final names together."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from arrivals import refuse
from traced import trace

from lpxfer import checksum, durable
from lpxfer.checksum import Slice, SourceError
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.placing import TEMPORARY, TOGETHER, Batch

MTIME = 1_049_260_340_123_456_789


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "minicam"
    directory.mkdir()
    return directory


@pytest.fixture
def home(path: Path) -> Iterator[InstrumentDir]:
    with InstrumentDir(str(path)) as opened, opened.locked():
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Slice]:
    (tmp_path / "source").write_bytes(b"bytes")
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    yield Slice(fd)
    os.close(fd)


def place(batch: Batch, source: Slice, name: str) -> bool:
    return batch.publish(batch.copy(source, 5, MTIME, 0o444).temporary, name)


def test_a_copy_has_bytes_time_and_mode_before_it_has_its_name(
    home: InstrumentDir, path: Path, source: Slice
) -> None:
    with home.batch(("2003.0401",)) as batch:
        copy = batch.copy(source, 5, MTIME, 0o400)
        status = (path / "2003.0401" / copy.temporary).stat()
        assert (copy.size, copy.checksum) == (5, checksum.of_bytes(b"bytes"))
        assert status.st_mtime_ns == MTIME and status.st_mode & 0o777 == 0o400
        assert batch.publish(copy.temporary, "a.fits")
    assert os.listdir(path / "2003.0401") == ["a.fits"]


def test_the_mode_is_less_the_umask(home: InstrumentDir, path: Path, source: Slice) -> None:
    before = os.umask(0o027)
    try:
        with home.batch(()) as batch:
            place(batch, source, "a.fits")
    finally:
        os.umask(before)
    assert (path / "a.fits").stat().st_mode & 0o777 == 0o440


def test_a_name_is_never_given_away_twice(home: InstrumentDir, path: Path, source: Slice) -> None:
    (path / "a.fits").write_text("first")
    with home.batch((), 3) as batch:
        assert not place(batch, source, "a.fits")
        assert place(batch, source, "b.fits")
        assert not place(batch, source, "b.fits")
    assert (path / "a.fits").read_text() == "first"
    assert sorted(os.listdir(path)) == [".lock", "a.fits", "b.fits"]


@pytest.mark.parametrize("count", [1, 2, TOGETHER - 1])
def test_few_files_are_synced_each_and_their_directory_once(
    home: InstrumentDir, path: Path, source: Slice, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    with home.batch(("d",), count):
        pass
    calls = trace(monkeypatch, path)
    with home.batch(("d",), count) as batch:
        copies = [batch.copy(source, 5, MTIME, 0o444) for _ in range(count)]
        for number, copy in enumerate(copies):
            batch.publish(copy.temporary, str(number))
    temporary = [copy.temporary for copy in copies]
    assert calls == [
        *(f"{verb} d/{name}" for name in temporary for verb in ("write", "fsync")),
        *(f"link d/{name} d/{number}" for number, name in enumerate(temporary)),
        *(f"unlink d/{name}" for name in temporary),
        "fsync d",
    ]
    assert all(map(TEMPORARY.fullmatch, temporary))


def test_many_files_are_synced_together_before_the_first_has_its_name(
    home: InstrumentDir, path: Path, source: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = trace(monkeypatch, path)
    with home.batch((), TOGETHER) as batch:
        copies = [batch.copy(source, 5, MTIME, 0o444) for _ in range(TOGETHER)]
        for number, copy in enumerate(copies):
            batch.publish(copy.temporary, str(number))
    syncs = [at for at, call in enumerate(calls) if call in ("syncfs .", "fsync .")]
    assert [calls[at] for at in syncs] == ["syncfs .", "fsync ."]
    links = [at for at, call in enumerate(calls) if call.startswith("link")]
    writes = [at for at, call in enumerate(calls) if call.startswith("write")]
    assert max(writes) < syncs[0] < min(links) and max(links) < syncs[1]


def test_where_a_sync_of_all_does_not_tell_each_file_is_synced(
    home: InstrumentDir, path: Path, source: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "filesystem_sync_tells", lambda: False)
    calls = trace(monkeypatch, path)
    with home.batch((), TOGETHER) as batch:
        for number in range(TOGETHER):
            place(batch, source, str(number))
    assert "syncfs ." not in calls
    assert sum(call.startswith("fsync .sweep") for call in calls) == TOGETHER


def test_what_comes_last_has_its_name_when_the_others_are_durable(
    home: InstrumentDir, path: Path, source: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with home.batch(("d",)):
        pass
    calls = trace(monkeypatch, path)
    with home.batch(("d",), 4) as batch:
        for number in (1, 2):
            batch.publish_last(batch.write(b"text", 0o444), f"{number}.control")
            place(batch, source, f"{number}.data")
    steps = [call for call in calls if not call.startswith(("write", "fsync d/"))]
    assert steps == [
        "link d/.sweep.1.tmp d/1.data", "link d/.sweep.3.tmp d/2.data", "fsync d",
        "link d/.sweep.tmp d/1.control", "link d/.sweep.2.tmp d/2.control",
        "unlink d/.sweep.tmp", "unlink d/.sweep.1.tmp", "unlink d/.sweep.2.tmp",
        "unlink d/.sweep.3.tmp", "fsync d",
    ]  # fmt: skip


def test_a_last_name_that_somebody_takes_meanwhile_takes_the_others_back(
    home: InstrumentDir, path: Path, source: Slice
) -> None:
    with pytest.raises(FileExistsError):
        with home.batch((), 2) as batch:
            batch.publish_last(batch.write(b"text", 0o444), "1.control")
            place(batch, source, "1.data")
            (path / "1.control").write_text("somebody else's")
    assert sorted(os.listdir(path)) == [".lock", "1.control"]


def test_a_copy_that_fails_leaves_nothing(
    home: InstrumentDir, path: Path, source: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full, pytest.raises(OSError, match="No space"):
        with home.batch((), 2) as batch:
            place(batch, source, "a.fits")
            full.setattr(checksum, "write_all", refuse(errno.ENOSPC))
            place(batch, source, "b.fits")
    assert os.listdir(path) == [".lock"]


def test_a_source_that_cannot_be_read_does_not_stop_the_others(
    home: InstrumentDir, path: Path, source: Slice
) -> None:
    directory = os.open(path, os.O_RDONLY)
    with home.batch((), 2) as batch:
        with pytest.raises(SourceError):
            batch.copy(Slice(directory), 5, MTIME, 0o444)
        place(batch, source, "b.fits")
    os.close(directory)
    assert sorted(os.listdir(path)) == [".lock", "b.fits"]


@pytest.mark.parametrize("count", [2, TOGETHER])
@pytest.mark.parametrize("failing", ["sync", "sync_filesystem", "link_unsynced"])
def test_names_that_are_not_durable_are_taken_back(
    home: InstrumentDir, path: Path, source: Slice, monkeypatch: pytest.MonkeyPatch,
    count: int, failing: str,
) -> None:  # fmt: skip
    (path / "before").touch()
    with home.batch(()) as batch:
        pass  # makes what is made once
    with monkeypatch.context() as broken:
        broken.setattr(durable, failing, refuse(errno.EIO))
        try:
            with home.batch((), count) as batch:
                copies = [batch.copy(source, 5, MTIME, 0o444) for _ in range(count)]
                for number, copy in enumerate(copies):
                    batch.publish(copy.temporary, str(number))
        except OSError as error:
            assert error.errno == errno.EIO
            assert sorted(os.listdir(path)) == [".lock", "before"]
        else:
            assert (failing, count) == ("sync_filesystem", 2)


def test_what_a_dead_sweep_left_under_a_temporary_name_is_replaced(
    home: InstrumentDir, path: Path, source: Slice
) -> None:
    for name in (".sweep.tmp", ".sweep.1.tmp"):
        (path / name).write_text("left")
    with home.batch((), 2) as batch:
        place(batch, source, "a")
        place(batch, source, "b")
    assert sorted(os.listdir(path)) == [".lock", "a", "b"]
    assert (path / "a").read_text() == (path / "b").read_text() == "bytes"

"""Instrument directories: walking, placing, locking, quarantine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpxfer import checksum, durable
from lpxfer.checksum import Slice, Text
from lpxfer.errors import BusyError, PermanentError
from lpxfer.stores.instrument_dir import InstrumentDir

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
def source(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "source").write_bytes(b"bytes")
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    yield fd
    os.close(fd)


def test_directories_are_made_and_their_parents_synced_once(
    home: InstrumentDir, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd)
    )
    (path / "a").mkdir()  # by somebody who may not have synced it
    for _ in range(2):
        with home.directory(("a", "b")) as where:
            assert os.path.samestat(os.fstat(where), (path / "a/b").stat())
    assert synced == [str(path / ".lock"), str(path), str(path / "a")]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_no_component_may_be_a_link(home: InstrumentDir, path: Path, depth: int) -> None:
    outside = path.parent / "outside"
    (outside / "b/c").mkdir(parents=True)
    way = ("a", "b", "c")
    path.joinpath(*way[:depth]).mkdir(parents=True, exist_ok=True)
    path.joinpath(*way[: depth + 1]).symlink_to(outside)
    with pytest.raises(PermanentError, match=f'"{way[depth]}" in the instrument directory'):
        with home.directory(way):
            pass
    assert sorted(os.listdir(outside / "b")) == ["c"]


def test_without_making_nothing_is_made(home: InstrumentDir, path: Path) -> None:
    with pytest.raises(FileNotFoundError), home.directory(("a",), make=False):
        pass
    assert os.listdir(path) == [".lock"]


def test_the_instrument_directory_itself_may_be_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with InstrumentDir(str(tmp_path / "link")) as home:
        assert home.path == str(path)


def test_one_sweep_at_a_time(home: InstrumentDir, path: Path) -> None:
    with InstrumentDir(str(path)) as other, pytest.raises(BusyError), other.locked():
        pass


def test_the_copies_of_a_dead_sweep_are_removed_and_nothing_else(path: Path, source: int) -> None:
    with pytest.raises(KeyboardInterrupt), InstrumentDir(str(path)) as dead, dead.locked():
        with dead.batch(("a", "b"), 2) as batch:
            for _ in range(3):
                copy = batch.copy(Slice(source), 5, MTIME, 0o444)
            assert batch.publish(copy.temporary, "z")
            for name in (".other.tmp", ".sweep.x.tmp", "x.sweep.1.tmp", ".sweep..tmp"):
                (path / "a/b" / name).write_text("not ours")
            raise KeyboardInterrupt  # which keeps the copies, as a kill does
    assert len(os.listdir(path / "a/b")) == 8
    with InstrumentDir(str(path)) as home, home.locked():
        left = sorted(os.listdir(path / "a/b"))
        assert left == [".other.tmp", ".sweep..tmp", ".sweep.x.tmp", "x.sweep.1.tmp", "z"]
    assert (path / ".lock").read_bytes() == b""


def test_a_directory_that_is_named_like_a_copy_keeps_nobody_off(path: Path) -> None:
    (path / "a/.sweep.tmp").mkdir(parents=True)
    (path / ".lock").write_text("a\n")
    with InstrumentDir(str(path)) as home, home.locked():
        assert os.listdir(path / "a") == [".sweep.tmp"]


@pytest.mark.parametrize("note", ["../outside\n", "/etc\n", "gone\n", "link\n", "a", "\0" * 3000])
def test_what_stands_in_the_lock_file_leads_nowhere_else(
    path: Path, tmp_path: Path, note: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".sweep.tmp").write_text("not ours")
    (path / "link").symlink_to(outside)
    (path / ".lock").write_text(note)
    with InstrumentDir(str(path)) as home, home.locked():
        pass
    assert (outside / ".sweep.tmp").read_text() == "not ours"


def test_bytes_under_a_name_are_compared_without_following_links(
    home: InstrumentDir, path: Path
) -> None:
    digest = checksum.of_bytes(b"bytes")
    (path / "same").write_bytes(b"bytes")
    (path / "longer").write_bytes(b"bytes!")
    (path / "other").write_bytes(b"other")
    (path / "link").symlink_to("same")
    os.mkfifo(path / "fifo")
    (path / "directory").mkdir()
    with home.directory(()) as where:
        found = {name for name in os.listdir(path) if home.holds(name, where, 5, digest)}
        assert found == {"same"} and not home.holds("gone", where, 5, digest)


def test_quarantine_keeps_all_and_copies_the_same_bytes_once(
    home: InstrumentDir, path: Path, source: int, tmp_path: Path
) -> None:
    stem = "20030402T051220Z-mmto-archive-9-00000009"
    for _ in range(2):
        placed = home.quarantine(stem, {".data": Slice(source)}, "because")
        assert placed == f"quarantine/{stem}"
    (tmp_path / "source").write_bytes(b"other")
    assert home.quarantine(stem, {".data": Slice(source)}, "again") == f"quarantine/{stem}.2"
    assert {p.name.removeprefix(stem): p.read_text() for p in (path / "quarantine").iterdir()} == {
        ".data": "bytes", ".reason": "because\n", ".2.data": "other", ".2.reason": "again\n",
    }  # fmt: skip


def test_a_file_of_nothing_takes_no_room_in_quarantine(
    home: InstrumentDir, path: Path, source: int, tmp_path: Path
) -> None:
    os.truncate(tmp_path / "source", 1 << 40)
    home.quarantine("x", {".data": Slice(source)}, "because")
    found = (path / "quarantine/x.data").stat()
    assert found.st_size == 1 << 40 and found.st_blocks * 512 < 1 << 20


def test_a_reason_is_there_whole_or_not_at_all(
    home: InstrumentDir, path: Path, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as death:
        death.setattr(durable, "write_all", killed)
        with pytest.raises(KeyboardInterrupt):
            home.quarantine("stem", {".data": Slice(source)}, "because")
    assert not (path / "quarantine/stem.reason").exists()
    home.quarantine("stem", {".data": Slice(source)}, "because")
    assert (path / "quarantine/stem.reason").read_text() == "because\n"
    left = [name for name in os.listdir(path / "quarantine") if not name.startswith(".sweep.")]
    assert sorted(left) == ["stem.data", "stem.reason"]


def test_a_part_of_a_file_and_a_text_are_kept_like_files(
    home: InstrumentDir, path: Path, source: int
) -> None:
    pieces = {".data": Slice(source, 1, 3), ".control": Text(b"text")}
    for _ in range(2):
        assert home.quarantine("stem", pieces, "because") == "quarantine/stem"
    kept = {p.name: p.read_bytes() for p in (path / "quarantine").iterdir()}
    assert kept == {"stem.data": b"yte", "stem.control": b"text", "stem.reason": b"because\n"}


def test_a_directory_is_taken_into_quarantine_whole(home: InstrumentDir, path: Path) -> None:
    (path / "in/x.data/deep").mkdir(parents=True)
    with durable.opened_dir(path / "in") as incoming:
        home.take("x.data", incoming, "x.data")
    assert (path / "quarantine/x.data/deep").is_dir()

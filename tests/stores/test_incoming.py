"""Incoming: finding, holding and removing what others have put there."""

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arrivals import NOW, arrive, arrive_bundle, job, refuse

from lpxfer import checksum, durable
from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats import control
from lpxfer.stores.incoming import Incoming

UID = "20030402T051220Z-mmto-archive-9-00000009"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "incoming"
    directory.mkdir()
    return directory


def test_only_the_line_of_the_instrument_makes_an_arrival_its_own(path: Path) -> None:
    mine = [arrive(path, number=n) for n in (3, 1, 2)]
    arrive(path, number=4, inst="minicam2")
    arrive(path, number=5, inst="x", name="inst=minicam", others={"binst": "minicam"})
    (path / ".20030402T051220Z-mmto-archive-6-00000009.control.part").write_text("\ninst=minicam\n")
    (path / "notes.control").write_text("\ninst=minicam\n")
    with Incoming(str(path)) as incoming:
        assert incoming.addressed_to(["minicam"], pytest.fail) == sorted(k.uid for k in mine)
        assert len(incoming.addressed_to(["minicam", "minicam2"], pytest.fail)) == 4


@pytest.mark.parametrize("line", [b"inst=minicam", b"inst=mini%63am", b"inst=%6Dinicam"])
@pytest.mark.parametrize("first", [True, False])
def test_the_line_may_be_the_first_and_be_encoded(path: Path, line: bytes, first: bool) -> None:
    known = arrive(path)
    file = path / f"{known.uid}.control"
    lines = [each for each in file.read_bytes().splitlines() if not each.startswith(b"inst=")][:-1]
    lines.insert(0 if first else 5, line)
    body = b"".join(each + b"\n" for each in lines)
    file.write_bytes(body + f"end={checksum.of_bytes(body)}\n".encode())
    with Incoming(str(path)) as incoming:
        assert incoming.addressed_to(["minicam"], pytest.fail) == [known.uid]
        with incoming.hold_arrival(known.uid) as arrival:
            assert arrival and arrival.read() == known


def test_a_line_that_cannot_be_decoded_is_nobodys(path: Path) -> None:
    for number, value in enumerate([b"%", b"%zz", b"mini\xffcam", b"minicam\r", b"%FFminicam"]):
        (path / f"{UID[:-1]}{number}.control").write_bytes(b"\ninst=" + value + b"\n")
    with Incoming(str(path)) as incoming:
        assert incoming.addressed_to(["minicam"], pytest.fail) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EAGAIN])
def test_a_control_file_that_cannot_be_read_is_reported_and_keeps_nobody_off(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    arrive(path)
    refused = refuse(code)

    reports: list[str] = []
    with Incoming(str(path)) as incoming:
        monkeypatch.setattr(durable, "read_small", refused)
        assert incoming.addressed_to(["minicam"], reports.append) == []
    assert len(reports) == 1 and os.strerror(code) in reports[0]


def test_an_arrival_is_held_by_one_at_a_time(path: Path) -> None:
    known = arrive(path)
    with Incoming(str(path)) as one, Incoming(str(path)) as two:
        with one.hold_arrival(known.uid) as arrival:
            assert arrival and arrival.read() == known
            with two.hold_arrival(known.uid) as other:
                assert other is None
        with two.hold_arrival(known.uid) as arrival:
            assert arrival


def test_a_name_that_has_become_another_file_is_not_held(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = arrive(path)
    lock = durable.lock_fd

    def late(fd: int) -> None:
        lock(fd)
        (path / f"{known.uid}.control").unlink()
        arrive(path)

    with Incoming(str(path)) as incoming:
        monkeypatch.setattr(durable, "lock_fd", late)
        with incoming.hold_arrival(known.uid) as arrival:
            assert arrival is None


def test_what_is_gone_is_not_held(path: Path) -> None:
    with Incoming(str(path)) as incoming, incoming.hold_arrival(UID) as arrival:
        assert arrival is None


def test_a_control_file_under_another_uids_name_is_refused(path: Path) -> None:
    known = arrive(path)
    os.rename(path / f"{known.uid}.control", path / f"{UID}.control")
    with Incoming(str(path)) as incoming, incoming.hold_arrival(UID) as arrival:
        assert arrival
        with pytest.raises(FormatError, match="under another name"):
            arrival.read()


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "socket"])
def test_nothing_but_regular_files_is_opened(path: Path, kind: str) -> None:
    data = path / f"{UID}.data"
    if kind == "link":
        data.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(data)
    elif kind == "directory":
        data.mkdir()
    else:
        make = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
        subprocess.run([sys.executable, "-c", make, data.name], cwd=path, check=True)
    with Incoming(str(path)) as incoming:
        with pytest.raises(PermanentError, match="the data file is a"):
            incoming.open_data(UID)
        with pytest.raises(OSError):
            with incoming.hold(data.name):
                pass


def test_data_goes_before_its_control_file_and_is_synced_between(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = arrive(path)
    steps: list[str] = []
    unlink, fsync = os.unlink, os.fsync
    monkeypatch.setattr(
        os, "unlink", lambda name, **kw: steps.append(Path(name).suffix) or unlink(name, **kw)
    )
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append("sync") or fsync(fd))
    with Incoming(str(path)) as incoming:
        incoming.mark(known.uid, "/somewhere")
        steps.clear()
        incoming.remove(known.uid)
    assert steps == [".part", ".part", ".data", "sync", ".placing", ".control", "sync"]
    assert os.listdir(path) == []


def test_an_arrival_stays_until_its_mark_can_be_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unlink = arrive(path), os.unlink

    def refused(name: str, **at: int) -> None:
        if name.endswith(".placing"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(name, **at)

    with Incoming(str(path)) as incoming:
        incoming.mark(known.uid, "/somewhere")
        with monkeypatch.context() as broken:
            broken.setattr(os, "unlink", refused)
            with pytest.raises(OSError, match="Input/output"):
                incoming.remove(known.uid)
        assert f"{known.uid}.control" in os.listdir(path)
        incoming.remove(known.uid)
    assert os.listdir(path) == []


def test_a_part_that_got_its_final_name_as_well_goes_with_the_arrival(path: Path) -> None:
    """A sender, or a server, was killed between the link and the unlink of its rename."""
    known = arrive(path)
    for name in (f"{known.uid}.data", f"{known.uid}.control"):
        os.link(path / name, path / f".{name}.part")
    with Incoming(str(path)) as incoming:
        incoming.remove(known.uid)
    assert os.listdir(path) == []


def test_a_mark_of_another_directory_counts_for_a_day_while_the_file_is_there(
    path: Path, tmp_path: Path
) -> None:
    placed = tmp_path / "other/2003.0401/0123.fits"
    with Incoming(str(path)) as incoming:
        now = datetime.now(UTC)
        assert not incoming.placed_elsewhere(UID, "/data/mini", now)
        incoming.mark(UID, str(placed))
        assert not incoming.placed_elsewhere(UID, "/data/mini", now)  # it did not come to that
        placed.parent.mkdir(parents=True)
        placed.write_text("x")
        assert incoming.placed_elsewhere(UID, "/data/mini", now)
        assert not incoming.placed_elsewhere(UID, str(tmp_path / "other"), now)
        assert incoming.placed_elsewhere(UID, str(tmp_path / "oth"), now)
        for days in (2, -2):  # left by a dead sweep; made when a clock was wrong
            then = now + timedelta(days=days)
            assert not incoming.placed_elsewhere(UID, "/data/mini", then)
        os.utime(path / f".{UID}.placing", (1 << 33, 1 << 33), follow_symlinks=False)
        assert not incoming.placed_elsewhere(UID, "/data/mini", now + timedelta(days=2))


@pytest.mark.parametrize("full", [True, False])
def test_what_is_no_mark_under_its_name_is_left_alone(path: Path, full: bool) -> None:
    known = arrive(path)
    there = path / f".{known.uid}.placing"
    there.mkdir()
    if full:
        (there / "x").touch()
    with Incoming(str(path)) as incoming:
        incoming.mark(known.uid, "/somewhere")
        assert not incoming.placed_elsewhere(known.uid, "/data/mini", NOW)
        incoming.remove(known.uid)
    assert os.listdir(path) == [there.name]


def test_a_mark_that_stands_is_not_made_again(path: Path) -> None:
    with Incoming(str(path)) as incoming:
        incoming.mark(UID, "/a")
        before = path.stat().st_mtime_ns
        incoming.mark(UID, "/a")
        assert path.stat().st_mtime_ns == before
        os.symlink("/old", path / f".{UID}.placing.new")  # by a sweep that died just then
        incoming.mark(UID, "/b")
        assert os.readlink(path / f".{UID}.placing") == "/b"
        assert os.listdir(path) == [f".{UID}.placing"]


def test_there_is_a_mark_at_any_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Incoming(str(path)) as incoming:
        incoming.mark(UID, "/a")
        for call in ("symlink", "rename"):
            with monkeypatch.context() as broken:
                broken.setattr(os, call, refuse(errno.EIO))
                incoming.mark(UID, "/b")
            assert incoming.marked(UID) == "/a"
        incoming.remove(UID)
    assert os.listdir(path) == []


def test_of_several_files_any_mark_of_another_directory_counts(path: Path) -> None:
    now = datetime.now(UTC)
    with Incoming(str(path)) as incoming:
        incoming.mark(UID, "/data/other/2003.0401/0123.fits")
        assert not incoming.placed_elsewhere(UID, "/data/mini", now)
        assert incoming.placed_elsewhere(UID, "/data/mini", now, several=True)
        assert not incoming.placed_elsewhere(UID, "/data/other", now, several=True)
        assert not incoming.placed_elsewhere(UID, "/data/mini", now + timedelta(days=2), True)


def test_members_of_a_bundle_are_told_and_of_anything_else_none(path: Path) -> None:
    known = arrive_bundle(path, (job(), b"SIMPLE  ="), (job(number=2), b"SIMPLE  ="), number=7)
    file = arrive(path, number=3, others={"kind": "bundle"})
    with Incoming(str(path)) as incoming:
        assert list(incoming.members(known.uid)) == [job().uid, job(number=2).uid]
        assert list(incoming.members(file.uid)) == list(incoming.members(UID)) == []
        (path / f"{known.uid}.data").unlink()
        assert list(incoming.members(known.uid)) == []
        (path / f"{known.uid}.data").mkdir()
        assert list(incoming.members(known.uid)) == []
        (path / f"{known.uid}.control").write_bytes(b"kind=bundle\n")
        assert list(incoming.members(known.uid)) == []


def test_a_mark_is_done_without_where_incoming_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "symlink", full)
    with Incoming(str(path)) as incoming:
        incoming.mark(UID, "/a")
    assert os.listdir(path) == []


def test_incoming_that_cannot_be_opened_is_an_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Incoming(str(path / "none"))
    (path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        Incoming(str(path / "file"))


def test_incoming_from_which_nothing_can_be_removed_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode, **__: not mode & os.W_OK)
    with pytest.raises(PermissionError):
        Incoming(str(path))
    Incoming(str(path), writable=False).__exit__()


def test_incoming_may_be_reached_by_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    known = arrive(path)
    with Incoming(str(tmp_path / "link")) as incoming:
        assert incoming.addressed_to(["minicam"], pytest.fail) == [known.uid]


def test_the_limit_of_a_control_file_is_kept_when_it_is_read(path: Path) -> None:
    known = arrive(path)
    with open(path / f"{known.uid}.control", "ab") as stream:
        stream.truncate(1 << 34)
    with Incoming(str(path)) as incoming, incoming.hold_arrival(known.uid) as arrival:
        assert arrival and len(arrival.text) == 65537
        with pytest.raises(FormatError):
            control.load(arrival.text)

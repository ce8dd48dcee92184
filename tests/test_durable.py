"""Changes on disk that survive a power cut, and the locks beside them."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from traced import trace

from lpxfer import durable
from lpxfer.errors import BusyError


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """The open directory `here`."""
    (tmp_path / "here").mkdir()
    with durable.opened_dir(tmp_path / "here") as opened:
        yield opened


@pytest.fixture
def here(tmp_path: Path, fd: int) -> Path:
    """The path of that directory."""
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path: Path) -> Iterator[int]:
    """Another open directory, `there`."""
    (tmp_path / "there").mkdir()
    with durable.opened_dir(tmp_path / "there") as opened:
        yield opened


def failing(*_: object, **__: object) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# --- opening what may be hostile ------------------------------------------------------------


def test_directory_is_not_opened_through_a_link(tmp_path, here):
    (tmp_path / "link").symlink_to(here)
    with pytest.raises(OSError) as error:
        durable.open_dir(tmp_path / "link")
    assert error.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_link_fifo_directory_and_device_are_no_regular_files_and_nobody_waits(here, fd):
    (here / "link").symlink_to(here / "x")
    (here / "x").write_bytes(b"x")
    os.mkfifo(here / "fifo")
    (here / "dir").mkdir()
    for name, code in {"link": errno.ELOOP, "fifo": errno.EINVAL, "dir": errno.EINVAL}.items():
        with pytest.raises(OSError) as error:
            durable.open_regular(name, fd)
        assert error.value.errno == code
    with durable.opened_dir("/dev") as dev, pytest.raises(OSError, match="not a regular file"):
        durable.open_regular("null", dev)
    assert durable.read_small("x", fd) == b"x"


def test_refused_file_leaves_no_open_descriptor(here, fd):
    os.mkfifo(here / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError):
            durable.open_regular("fifo", fd)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_more_is_read_than_one_byte_above_the_limit(here, fd):
    (here / "endless").touch()
    os.truncate(here / "endless", 1 << 40)
    assert len(durable.read_small("endless", fd, 1000)) == 1001
    (here / "fits").write_bytes(b"x" * 1000)
    assert durable.read_small("fits", fd, 1000) == b"x" * 1000


def test_file_that_exists_is_not_created_again_nor_through_a_link(here, fd):
    (here / "x").write_bytes(b"x")
    (here / "link").symlink_to("y")
    for name in ("x", "link"):
        with pytest.raises(FileExistsError):
            durable.create(name, fd)
    assert not (here / "y").exists()


def test_every_byte_is_written_however_many_calls_it_takes(here, fd, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda to, data: write(to, bytes(data)[:3]))
    durable.write_new("x", b"0123456789", fd)
    assert (here / "x").read_bytes() == b"0123456789"


def test_a_file_has_the_mode_that_is_asked_for_whatever_the_umask(here, fd):
    before = os.umask(0o077)
    try:
        durable.write_new("asked", b"", fd, 0o644)
        durable.replace("replaced", b"", fd, 0o644)
        durable.write_new("private", b"", fd)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in here.iterdir()}
    assert modes == {"asked": 0o644, "replaced": 0o644, "private": 0o600}


# --- the order of steps ----------------------------------------------------------------------


def test_new_file_is_synced(fd, tmp_path, monkeypatch):
    calls = trace(monkeypatch, tmp_path)
    durable.write_new("x", b"1", fd)
    assert calls == ["write here/x", "fsync here/x"]


def test_replaced_file_is_synced_before_the_rename_and_the_directory_after_it(
    here, fd, tmp_path, monkeypatch
):
    (here / "x").write_bytes(b"old")
    monkeypatch.setattr(os, "urandom", lambda count: b"\1" * count)
    calls = trace(monkeypatch, tmp_path)
    durable.replace("x", b"new", fd)
    assert calls == [
        "write here/.x.01010101.new",
        "fsync here/.x.01010101.new",
        "rename here/.x.01010101.new here/x",
        "fsync here",
    ]
    assert (here / "x").read_bytes() == b"new"


def test_moved_entry_is_synced_in_its_new_place_first(here, fd, there, tmp_path, monkeypatch):
    (here / "x").mkdir()
    calls = trace(monkeypatch, tmp_path)
    durable.move("x", fd, there)
    assert calls == ["rename here/x there/x", "fsync there", "fsync here"]


def test_entry_can_be_moved_to_another_name(here, fd, there, tmp_path):
    (here / "x").touch()
    durable.move("x", fd, there, "y")
    assert (tmp_path / "there/y").exists()


def test_link_is_synced_and_overwrites_nothing(here, fd, there, tmp_path, monkeypatch):
    (here / "x").write_bytes(b"x")
    calls = trace(monkeypatch, tmp_path)
    durable.link("x", "y", fd, there)
    assert calls == ["link here/x there/y", "fsync there"]
    (tmp_path / "there/z").write_bytes(b"z")
    with pytest.raises(FileExistsError):
        durable.link("x", "z", fd, there)
    assert (tmp_path / "there/z").read_bytes() == b"z"


def test_file_is_linked_by_its_path_and_a_link_is_not_followed(here, there, tmp_path):
    (here / "x").write_bytes(b"x")
    (here / "link").symlink_to("x")
    durable.link(os.fsencode(here / "x"), "y", None, there)
    assert os.path.samefile(here / "x", tmp_path / "there/y")
    durable.link(os.fsencode(here / "link"), "z", None, there)
    assert (tmp_path / "there/z").is_symlink()


def test_one_of_many_gets_its_final_name_unless_that_is_taken(here, fd, tmp_path, monkeypatch):
    (here / "t").write_bytes(b"x")
    calls = trace(monkeypatch, tmp_path)
    durable.link_unsynced("t", "x", fd)
    assert calls == ["link here/t here/x"]
    (here / "u").write_bytes(b"y")
    with pytest.raises(FileExistsError):
        durable.link_unsynced("u", "x", fd)
    assert ((here / "u").read_bytes(), (here / "x").read_bytes()) == (b"y", b"x")


def test_directory_is_made_once_and_its_parent_synced_each_time(fd, tmp_path, monkeypatch):
    calls = trace(monkeypatch, tmp_path)
    assert durable.make_dir("d", fd)
    assert not durable.make_dir("d", fd)
    assert calls == ["mkdir here/d", "fsync here", "fsync here"]


def test_directories_are_made_from_above_and_each_parent_synced(here, tmp_path, monkeypatch):
    calls = trace(monkeypatch, tmp_path)
    durable.make_dirs(here / "a/b")
    durable.make_dirs(here / "a/b")
    assert calls == ["mkdir here/a", "fsync here", "mkdir here/a/b", "fsync here/a"]
    assert (here / "a").stat().st_mode & 0o777 == 0o700


def test_removal_is_synced_and_may_be_repeated(here, fd, tmp_path, monkeypatch):
    (here / "x").touch()
    calls = trace(monkeypatch, tmp_path)
    durable.remove("x", fd)
    durable.remove("x", fd)
    assert calls == ["unlink here/x", "fsync here", "fsync here"]


def test_whole_file_system_is_synced_in_one_call(fd):
    durable.sync_filesystem(fd)
    with pytest.raises(OSError) as error:
        durable.sync_filesystem(-1)
    assert error.value.errno == errno.EBADF


@pytest.mark.parametrize(
    "release, tells",
    [("6.18.1", True), ("5.8.0-rc1", True), ("5.10", True), ("10.0", True), ("5.7.19", False),
     ("4.18.0-553.el8", False), ("2.6.32", False), ("", False)],
)  # fmt: skip
def test_older_kernels_do_not_say_that_a_sync_of_all_has_failed(monkeypatch, release, tells):
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert durable.filesystem_sync_tells() == tells


@pytest.mark.parametrize(
    "change",
    [
        lambda fd: durable.write_new("x", b"1", fd),
        lambda fd: durable.replace("x", b"1", fd),
        lambda fd: durable.append("x", b"1\n", fd),
        lambda fd: durable.remove("x", fd),
        lambda fd: durable.make_dir("x", fd),
    ],
)
def test_failed_sync_goes_up_and_is_not_repeated(fd, monkeypatch, change):
    calls = []

    def fail(synced: int) -> None:
        calls.append(synced)
        failing()

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        change(fd)
    assert len(calls) == 1


def test_line_whose_sync_failed_is_cut_off_again(here, fd, monkeypatch):
    durable.append("log", b"a\n", fd)
    with monkeypatch.context() as broken:
        broken.setattr(durable, "sync", failing)
        with pytest.raises(OSError, match="Input/output error"):
            durable.append("log", b"b\n", fd)
        broken.setattr(os, "ftruncate", failing)  # the error that counts is the first
        with pytest.raises(OSError, match="Input/output error"):
            durable.append("log", b"c\n", fd)
    assert (here / "log").read_bytes() == b"a\nc\n"


def test_directory_whose_sync_failed_is_taken_back_if_it_is_new(here, fd, monkeypatch):
    (here / "old").mkdir()
    monkeypatch.setattr(durable, "sync", failing)
    for name in ("new", "old"):
        with pytest.raises(OSError, match="Input/output error"):
            durable.make_dir(name, fd)
    assert os.listdir(here) == ["old"]


# --- replacing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_replacement_that_fails_leaves_the_old_contents_and_nothing_else(
    here, fd, monkeypatch, call
):
    (here / "x").write_bytes(b"old")
    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OSError):
        durable.replace("x", b"new", fd)
    assert os.listdir(here) == ["x"]
    assert (here / "x").read_bytes() == b"old"


def test_many_replace_one_file_at_once_and_it_is_always_whole(here, fd):
    texts = [bytes([65 + number]) * 5000 for number in range(4)]
    durable.replace("x", texts[0], fd)
    failed = []

    def replace(text: bytes) -> None:
        try:
            for _ in range(25):
                durable.replace("x", text, fd)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=replace, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert durable.read_small("x", fd) in texts
    for thread in threads:
        thread.join()
    assert not failed
    assert os.listdir(here) == ["x"]


# --- appending ---------------------------------------------------------------------------------


def test_new_log_is_known_to_its_directory_before_its_first_line(fd, tmp_path, monkeypatch):
    calls = trace(monkeypatch, tmp_path)
    durable.append("log", b"a\n", fd)
    durable.append("log", b"b\n", fd)
    assert calls == [
        "fsync here",
        "write here/log",
        "fsync here/log",
        "write here/log",
        "fsync here/log",
    ]


def test_log_whose_maker_died_before_its_first_line_is_synced_to_its_directory(
    here, fd, tmp_path, monkeypatch
):
    (here / "log").touch()
    calls = trace(monkeypatch, tmp_path)
    durable.append("log", b"a\n", fd)
    assert calls[0] == "fsync here"


def test_torn_last_line_spoils_only_itself(here, fd):
    (here / "log").write_bytes(b"a\nto")
    durable.append("log", b"b\n", fd)
    assert (here / "log").read_bytes() == b"a\nto\nb\n"


def test_log_that_is_a_link_is_not_followed(here, fd, tmp_path):
    (here / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        durable.append("log", b"a\n", fd)
    assert not (tmp_path / "elsewhere").exists()


def test_line_that_does_not_fit_leaves_the_log_as_it_was(here, fd, monkeypatch):
    durable.append("log", b"a\n", fd)
    write = os.write

    def full(to: int, data: bytes) -> int:
        if len(data) <= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(to, bytes(data)[:-2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        durable.append("log", b"bcdef\n", fd)
    assert (here / "log").read_bytes() == b"a\n"


def test_lines_of_many_writers_do_not_mix(here, fd):
    def write(letter: bytes) -> None:
        with durable.opened_dir(here) as own:
            for _ in range(20):
                durable.append("log", letter * 10_000 + b"\n", own)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (here / "log").read_bytes().splitlines()
    assert sorted(lines) == [b"a" * 10_000] * 20 + [b"b" * 10_000] * 20 + [b"c" * 10_000] * 20


# --- removing trees ------------------------------------------------------------------------------


def test_tree_is_removed_and_no_link_in_it_followed(here, fd, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (here / "tree/sub").mkdir(parents=True)
    (here / "tree/file").touch()
    (here / "tree/sub/link").symlink_to(tmp_path / "kept")
    os.mkfifo(here / "tree/fifo")
    durable.remove_tree("tree", fd)
    assert os.listdir(here) == []
    assert (tmp_path / "kept/file").exists()


def test_link_in_place_of_a_tree_is_removed_itself(here, fd, tmp_path):
    (tmp_path / "kept").mkdir()
    (here / "tree").symlink_to(tmp_path / "kept")
    durable.remove_tree("tree", fd)
    assert os.listdir(here) == []
    assert (tmp_path / "kept").is_dir()


def test_tree_that_is_gone_is_fine(fd):
    durable.remove_tree("tree", fd)


def test_endless_tree_is_refused_and_not_climbed(here, fd):
    with durable.opened_dir(here) as top:
        at = os.dup(top)
        for _ in range(1200):  # deeper than any path, stack or table of descriptors
            os.mkdir("d", dir_fd=at)
            below = durable.open_dir("d", at)
            os.close(at)
            at = below
        os.close(at)
    with pytest.raises(OSError, match="nested too deep"):
        durable.remove_tree("d", fd)
    subprocess.run(["rm", "-r", here / "d"], check=True)


# --- locks ---------------------------------------------------------------------------------------


def test_lock_is_held_by_one_and_free_again_afterwards(fd):
    with durable.locked("lock", fd):
        with pytest.raises(BusyError), durable.locked("lock", fd):
            pass
    with durable.locked("lock", fd):
        pass


def test_shared_locks_exclude_only_the_others(fd):
    with durable.locked("lock", fd, shared=True), durable.locked("lock", fd, shared=True):
        with pytest.raises(BusyError), durable.locked("lock", fd):
            pass


def test_lock_is_waited_for_where_that_is_asked(fd):
    entered = threading.Event()

    def wait() -> None:
        with durable.locked("lock", fd, wait=True):
            entered.set()

    with durable.locked("lock", fd):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.1)
    thread.join()
    assert entered.is_set()


def test_lock_goes_with_the_process_that_held_it(here, fd):
    code = (
        "import os, signal; from lpxfer import durable; "
        f"fd = durable.open_dir({str(here)!r}); "
        "lock = durable.locked('lock', fd); lock.__enter__(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code])
    assert killed.returncode == -9
    with durable.locked("lock", fd):
        pass


def test_lock_that_is_a_link_is_not_followed(here, fd, tmp_path):
    (here / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), durable.locked("lock", fd):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_lock_of_an_open_directory_can_be_given_back(here, fd):
    with durable.opened_dir(here) as other:
        durable.lock_fd(fd)
        with pytest.raises(BusyError):
            durable.lock_fd(other)
        durable.unlock_fd(fd)
        durable.lock_fd(other)


def test_files_are_made_for_their_owner_and_group(here, fd):
    old = os.umask(0)
    try:
        durable.write_new("x", b"", fd)
        durable.append("log", b"a\n", fd)
    finally:
        os.umask(old)
    assert stat.S_IMODE((here / "x").stat().st_mode) == 0o660
    assert stat.S_IMODE((here / "log").stat().st_mode) == 0o640


def test_who_keeps_a_logs_lock_keeps_no_line_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\n")
    with durable.opened_dir(tmp_path) as fd, open(tmp_path / "log") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        durable.append("log", b"two\n", fd, patience=0.05)
        durable.append("log", b"three\n", fd, alone=True)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\n"

"""Directories, watched by inotify or by polling: real ones."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sources.conformance import Conformance, Hints, Scene
from watchdog.observers import inotify_c

from lpxfer.sources import directories, inotify, mounts
from lpxfer.sources.directories import Directories
from lpxfer.sources.inotify import Inotify
from lpxfer.sources.polling import Polling


class TestInotify(Conformance):
    @pytest.fixture
    def scene(self, tmp_path: Path) -> Scene:
        return Scene(Inotify([str(tmp_path)], pytest.fail), tmp_path, lambda name: None)


class TestPolling(Conformance):
    @pytest.fixture
    def scene(self, tmp_path: Path) -> Scene:
        return Scene(Polling(0.05), tmp_path, lambda name: None)


class TestDirectories(Conformance):
    @pytest.fixture
    def scene(self, tmp_path: Path) -> Scene:
        return Scene(Directories([str(tmp_path)], pytest.fail), tmp_path, lambda name: None)


class TestRemoteDirectories(Conformance):
    @pytest.fixture
    def scene(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
        monkeypatch.setattr(mounts, "is_remote", lambda path: True)
        monkeypatch.setattr(directories, "Polling", lambda: Polling(0.05))
        return Scene(Directories([str(tmp_path)], lambda line: None), tmp_path, lambda name: None)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def heard(tmp_path: Path, said: list[str]) -> Iterator[Hints]:
    """Hints of the directory `data`, which is watched."""
    hints = Hints(tmp_path / "data")
    hints.data.mkdir()
    source = Directories([str(hints.data)], said.append)
    source.start(hints.queue.put)
    hints.wait_for(None)
    yield hints
    source.close()


def test_directory_may_be_named_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    hints = Hints(tmp_path / "link")
    source = Inotify([str(tmp_path / "link")], pytest.fail)
    source.start(hints.queue.put)
    hints.wait_for(None)  # now it is watched
    (tmp_path / "real/a").write_text("")
    hints.wait_for("a")
    source.close()


def test_directory_that_is_moved_in_is_told_of_as_a_whole_and_watched(
    heard: Hints, tmp_path: Path
) -> None:
    (tmp_path / "night/sub").mkdir(parents=True)
    (tmp_path / "night").rename(heard.data / "night")
    heard.wait_for("night")
    (heard.data / "night/sub/a").write_text("")
    heard.wait_for("night/sub/a")
    (heard.data / "night").rename(heard.data / "other")
    heard.wait_for("other")
    (heard.data / "other/sub/b").write_text("")
    heard.wait_for("other/sub/b")
    assert str(heard.data / "night/sub/b") not in heard.all


def test_directory_that_is_moved_out_is_watched_no_more(heard: Hints, tmp_path: Path) -> None:
    (heard.data / "night").mkdir()
    heard.wait_for("night")
    (heard.data / "night").rename(tmp_path / "night")
    (tmp_path / "night/a").write_text("")
    (heard.data / "last").write_text("")
    heard.wait_for("last")
    assert not any(hint and hint.endswith("/a") for hint in heard.all)


def test_reading_wakes_nobody(heard: Hints) -> None:
    (heard.data / "a").write_text("text")
    heard.wait_for("a")
    (heard.data / "a").read_text()
    (heard.data / "b").write_text("")
    heard.wait_for("b")
    assert heard.all.count(str(heard.data / "a")) <= 2  # made, closed


def polled(data: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """See that a directory is polled, which is said once."""
    source = Directories([str(data)], said.append)
    monkeypatch.setattr(directories, "Polling", lambda: Polling(0.05))
    hints = Hints(data)
    source.start(hints.queue.put)
    for _ in range(4):
        hints.wait_for(None)
    source.close()
    assert len(said) == 1 and "every 5 seconds" in said[0]


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        ("inotify_add_watch", errno.ENOSPC, "no watch left"),
        ("inotify_init", errno.EMFILE, "inotify instance limit reached"),
    ],
)
def test_where_inotify_has_nothing_left_the_directories_are_polled(
    tmp_path: Path,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: int,
    told: str,
) -> None:
    def refused(*_: object) -> int:
        ctypes.set_errno(error)
        return -1

    monkeypatch.setattr(inotify_c, call, refused)
    polled(tmp_path, said, monkeypatch)
    assert told in said[0]


def test_without_watchdog_the_directories_are_polled(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lpxfer.sources.inotify", None)
    polled(tmp_path, said, monkeypatch)
    assert "pip install 'lpxfer[watch]'" in said[0]


def test_directory_below_another_that_is_watched_too_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "data/night").mkdir(parents=True)
    hints = Hints(tmp_path)
    source = Inotify([str(tmp_path / "data"), str(tmp_path / "data/night")], pytest.fail)
    source.start(hints.queue.put)
    hints.wait_for(None)
    (tmp_path / "data/night/a").write_text("")
    hints.wait_for("data/night/a")
    source.close()


def test_directory_that_is_made_again_is_watched(heard: Hints) -> None:
    for name in ("night/a", "night/b", "night/c"):
        (heard.data / "night").mkdir()
        (heard.data / name).write_text("")
        heard.wait_for(name, "night")
        shutil.rmtree(heard.data / "night")
    (heard.data / "night").mkdir()
    heard.wait_for("night")
    (heard.data / "night/d").write_text("")
    heard.wait_for("night/d")


def test_another_directory_of_the_same_name_is_watched(
    heard: Hints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inotify, "ROOTS", 0.05)
    (heard.data / "a").write_text("")  # so that the next wait is a short one
    heard.wait_for("a")
    heard.data.rename(tmp_path / "away")
    heard.wait_for(None)
    heard.data.mkdir()
    heard.wait_for(None)
    (heard.data / "b").write_text("")
    heard.wait_for("b")


@pytest.mark.root
def test_what_is_mounted_and_unmounted_is_watched_again(
    heard: Hints, tmp_path: Path, said: list[str]
) -> None:
    words = ["mount", "-t", "tmpfs", "none", str(heard.data)]
    if (tried := subprocess.run(words, capture_output=True, text=True)).returncode:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.strip()}")
    try:
        heard.wait_for(None)
        (heard.data / "a").write_text("")
        heard.wait_for("a")
    finally:
        subprocess.run(["umount", str(heard.data)], check=True)
    heard.wait_for(None)
    (heard.data / "b").write_text("")
    heard.wait_for("b")
    assert said == []


# --- which file systems are remote ------------------------------------------------------------

MOUNTS = rb"""22 27 0:21 / /proc rw - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /data rw shared:1 - nfs4 server:/data rw
31 30 0:41 / /data/local\040disk rw - xfs /dev/sdb rw
32 27 0:42 / /home/x/far rw - fuse.sshfs host: rw
33 27 0:43 / /mnt/usb rw - fuseblk /dev/sdc rw
34 27 0:44 / /twice rw - ext4 /dev/sdd rw
35 34 0:45 / /twice rw - cifs //host/share rw
torn line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/", "ext4"),
        (b"/database", "ext4"),
        (b"/data", "nfs4"),
        (b"/data/night", "nfs4"),
        (b"/data/local disk/night", "xfs"),
        (b"/home/x/far/y", "fuse.sshfs"),
        (b"/twice/x", "cifs"),
    ],
)
def test_file_system_of_a_path(path: bytes, kind: str) -> None:
    assert mounts.kind_in(MOUNTS, path) == kind


def test_mounts_below_a_path() -> None:
    assert [line.split()[4] for line in mounts.below(MOUNTS, [b"/data", b"/mnt/usb/x"])] == [
        b"/data",
        rb"/data/local\040disk",
    ]
    assert mounts.below(MOUNTS, [b"/dat"]) == []


@pytest.mark.root
def test_what_is_mounted_elsewhere_is_nothing_to_it(heard: Hints, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    words = ["mount", "-t", "tmpfs", "none", str(tmp_path / "elsewhere")]
    if (tried := subprocess.run(words, capture_output=True, text=True)).returncode:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.strip()}")
    subprocess.run(["umount", words[-1]], check=True)
    (heard.data / "a").write_text("")
    heard.wait_for("a")
    assert heard.all.count(None) == 1


@pytest.mark.root
def test_mounts_elsewhere_cost_little_however_many(
    heard: Hints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "elsewhere")
    os.mkdir(place)
    words = ["mount", "-t", "tmpfs", "none", place]
    if (tried := subprocess.run(words, capture_output=True, text=True)).returncode:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.strip()}")
    subprocess.run(["umount", place], check=True)
    looks, below = list[float](), mounts.below
    monkeypatch.setattr(mounts, "below", lambda *a: looks.append(time.monotonic()) or below(*a))
    for _ in range(20):
        subprocess.run(words, check=True)
        subprocess.run(["umount", place], check=True)
    times = zip(looks, looks[1:], strict=False)
    assert not [b - a for a, b in times if b - a < 0.9 * inotify.MOUNTS]


@pytest.mark.root
def test_directory_that_is_mounted_again_among_other_mounts_is_watched(
    heard: Hints, tmp_path: Path
) -> None:
    """It looks as before when the mounts are looked at, and its watches are gone."""
    place = str(tmp_path / "elsewhere")
    os.mkdir(place)
    tmpfs = ["mount", "-t", "tmpfs", "none"]
    if (tried := subprocess.run([*tmpfs, str(heard.data)], capture_output=True)).returncode:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.decode().strip()}")
    try:
        heard.wait_for(None)
        subprocess.run([*tmpfs, place], check=True)
        subprocess.run(["umount", place], check=True)
        subprocess.run(["umount", str(heard.data)], check=True)
        subprocess.run([*tmpfs, str(heard.data)], check=True)
        heard.wait_for(None)
        time.sleep(2 * inotify.MOUNTS)  # it may have been of the time between the two
        (heard.data / "a").write_text("")
        heard.wait_for("a")
    finally:
        subprocess.run(["umount", str(heard.data)], check=True)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs", "fuse", "lustre", "ceph"])
def test_remote_file_systems(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_kind", lambda path: kind)
    assert mounts.is_remote("/data")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "btrfs", "zfs", "overlay", "fuseblk", ""])
def test_file_systems_of_this_machine(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_kind", lambda path: kind)
    assert not mounts.is_remote("/data")


def test_own_directory_is_not_remote(tmp_path: Path) -> None:
    assert not mounts.is_remote(str(tmp_path))
    assert not mounts.is_remote(os.sep)

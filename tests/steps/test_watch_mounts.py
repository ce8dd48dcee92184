"""The watch on file systems that come, go, and are elsewhere: real ones."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import Sshd
from watches import Observatory, wait_until

from lpxfer.sources import directories, judge, mounts
from lpxfer.sources.polling import Polling

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Observatory]:
    site = Observatory(tmp_path)
    yield site
    site.stop()


def run(*command: str) -> None:
    if not shutil.which(command[0]):
        pytest.fail(f"{command[0]} is missing: run tests/system-packages")
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@pytest.fixture(autouse=True)
def may_mount(tmp_path: Path) -> None:
    """Skip, and say so, where root may not mount, as in most containers."""
    (tmp_path / "mounted").mkdir()
    words = ["mount", "-t", "tmpfs", "none", str(tmp_path / "mounted")]
    tried = subprocess.run(words, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.strip()}")
    subprocess.run(["umount", words[-1]], check=True)


@pytest.fixture
def disk(site: Observatory, tmp_path: Path) -> Iterator[Path]:
    """An image of a disk, for the watched directory; not mounted."""
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(16 << 20)
    run("mkfs.ext4", "-q", str(image))
    yield image
    subprocess.run(["umount", str(site.data)], stderr=subprocess.DEVNULL)


def test_directory_that_is_unmounted_and_mounted_again(site: Observatory, disk: Path) -> None:
    run("mount", "-o", "loop", str(disk), str(site.data))
    (site.data / "a").write_bytes(b"a")
    (site.data / "night").mkdir()
    (site.data / "night/b").write_bytes(b"b")
    site.start()
    site.wait_for("a", "night/b")
    run("umount", str(site.data))
    run("mount", "-o", "loop", str(disk), str(site.data))
    (site.data / "night/c").write_bytes(b"c")
    site.wait_for("a", "night/b", "night/c")
    run("umount", str(site.data))
    site.stop()
    assert site.once() == (0, 0)  # what is not mounted is not gone for good
    run("mount", "-o", "loop", str(disk), str(site.data))
    (site.data / "d").write_bytes(b"d")
    site.start()
    site.wait_for("a", "night/b", "night/c", "d")


def test_remote_directory_is_polled_and_its_files_have_to_settle(
    site: Observatory, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "Polling", lambda: Polling(0.1))
    monkeypatch.setattr(judge, "SETTLE", 2.0)
    far = tmp_path / "far"
    far.mkdir()
    run(
        "sshfs", f"{sshd.user}@{sshd.host}:{far}", str(site.data), "-p", str(sshd.port),
        "-o", "dir_cache=no,attr_timeout=0,entry_timeout=0",
        "-o", f"IdentityFile={sshd.identity},UserKnownHostsFile={sshd.known_hosts}",
    )  # fmt: skip
    try:
        assert mounts.is_remote(str(site.data))
        site.start()
        (far / "a").write_bytes(b"half")  # by another machine, as it were
        wait_until(lambda: "it is looked at every 5 seconds" in "".join(site.said))
        with (far / "a").open("ab") as stream:
            stream.write(b" whole")
        site.wait_for("a")
        assert site.submitted() == [("a", b"half whole")]
        (far / "a").rename(far / "b")
        os.utime(far / "b", (1, 1))
        site.wait_for("a", "b")
    finally:
        site.stop()
        run("umount", str(site.data))

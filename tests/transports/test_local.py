"""The local transport: the conformance suite, and a file system that hangs."""

import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from transports.conformance import BIG, MIB, Conformance, Make, put, threads_ended

from lpxfer.errors import AttemptError, LinkError
from lpxfer.transports.local import LocalTransport


class TestLocal(Conformance):
    @pytest.fixture
    def make(self) -> Make:
        return partial(LocalTransport, stall=30.0)


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system whose writers hang, as a network file system's do."""
    image, path = tmp_path / "image", tmp_path / "incoming"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    try:
        subprocess.run(["fsfreeze", "--freeze", path], check=True)
        yield path
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", path], check=False)
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.root
def test_file_system_that_hangs_holds_up_nobody(frozen: Path) -> None:
    threads = threading.enumerate()
    transport = LocalTransport(str(frozen), stall=0.3)
    transport.connect()
    with pytest.raises(AttemptError, match=r"no byte acknowledged for 0.3 s"):
        put(transport, "a", b"abc", 3)
    with pytest.raises(LinkError, match="does its server hang"):
        transport.connect()
    subprocess.run(["fsfreeze", "--unfreeze", frozen], check=True)
    transport.stall = 60.0
    transport.connect()
    assert not (frozen / "a").exists()
    put(transport, "a", b"abc", 3)
    assert (frozen / "a").read_bytes() == b"abc"
    assert threads_ended(threads)


def test_put_that_was_left_keeps_its_source_when_the_caller_closes_it(tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    source.write_bytes(b"s" * BIG)
    other.write_bytes(b"o" * BIG)
    transport = LocalTransport(str(tmp_path))
    transport.connect()
    fd = os.open(source, os.O_RDONLY)
    with pytest.raises(AttemptError):
        put(transport, "a", fd, BIG, acked=lambda offset: transport.cut("stop"))
    os.close(fd)
    assert os.open(other, os.O_RDONLY) == fd  # the number is used again at once
    transport.connect()
    assert set((tmp_path / ".a.part").read_bytes()) == {ord("s")}
    os.close(fd)

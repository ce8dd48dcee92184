"""Checksums, and copies that have one."""

import errno
import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer import checksum
from lpxfer.checksum import Slice, SourceError
from lpxfer.errors import FormatError

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path):
    """Makes a file with these bytes and opens it."""
    opened = []

    def make(data: bytes) -> int:
        path = tmp_path / f"source{len(opened)}"
        path.write_bytes(data)
        opened.append(os.open(path, os.O_RDONLY))
        return opened[-1]

    yield make
    for fd in opened:
        os.close(fd)


@pytest.fixture
def target(tmp_path: Path):
    """An empty file, open for writing and reading."""
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    yield fd
    os.close(fd)


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_checksum_is_sha256_in_hex_with_its_name():
    assert checksum.of_bytes(b"") == EMPTY
    assert checksum.check_text(EMPTY) == EMPTY
    assert checksum.is_text(EMPTY)


@pytest.mark.parametrize(
    "text", ["", EMPTY[7:], EMPTY.upper(), "md5:" + "0" * 32, EMPTY + "0", EMPTY + "\n", "sha256:"]
)
def test_other_texts_are_refused(text):
    assert not checksum.is_text(text)
    with pytest.raises(FormatError, match="not a checksum of the form sha256:<hex>"):
        checksum.check_text(text)


@given(st.text())
def test_reader_raises_nothing_but_format_error(text):
    try:
        checksum.check_text(text)
    except FormatError:
        pass


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 5])
def test_file_is_read_from_its_start_whatever_its_offset(source, size):
    data = os.urandom(size)
    fd = source(data)
    os.lseek(fd, size // 2, os.SEEK_SET)
    assert checksum.of_file(fd) == sha(data)
    assert os.lseek(fd, 0, os.SEEK_CUR) == size // 2


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB + 1, 9 * MIB])
def test_only_as_much_is_read_as_asked_for(source, size):
    data = os.urandom(3 * MIB)
    assert checksum.of_file(source(data), size) == sha(data[:size])


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 5])
def test_copy_returns_size_and_checksum_of_what_it_wrote(source, target, tmp_path, size):
    data = os.urandom(size)
    assert checksum.copy(source(data), target) == (size, sha(data))
    assert (tmp_path / "target").read_bytes() == data


class Endless:
    """A source that somebody appends to faster than it is read."""

    def chunks(self):
        while True:
            yield b"x" * 65536

    def length(self):
        return None


def test_source_that_grows_without_end_is_left_soon_after_the_limit(target):
    size, digest = checksum.copy(Endless(), target, 4 * MIB)
    assert 4 * MIB < size <= 5 * MIB
    assert checksum.of(Endless(), 4 * MIB) == (size, digest)


@pytest.mark.parametrize("offset", [0, 1, MIB, 3 * MIB + 5, 4 * MIB])
@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB + 5, 4 * MIB, None])
def test_a_slice_is_what_is_there_of_a_part_of_a_file(source, target, tmp_path, offset, size):
    data = os.urandom(3 * MIB + 5)
    part = data[offset:] if size is None else data[offset : offset + size]
    fd = source(data)
    os.lseek(fd, 7, os.SEEK_SET)
    found = Slice(fd, offset, size)
    assert found.length() == len(part) and b"".join(found.chunks()) == part
    assert checksum.copy(found, target) == checksum.of(found) == (len(part), sha(part))
    assert (tmp_path / "target").read_bytes() == part
    assert os.lseek(fd, 0, os.SEEK_CUR) == 7


def test_blocks_of_a_part_are_not_shared(source, target, monkeypatch):
    monkeypatch.setattr(checksum.fcntl, "ioctl", None)
    assert checksum.copy(Slice(source(b"bytes"), 1, 2), target) == (2, sha(b"yt"))
    checksum.copy_holes(Slice(source(b"bytes"), 1, 2), target)


def test_source_that_cannot_be_read_is_told_from_a_target_that_cannot_be_written(source, target):
    directory = os.open("/", os.O_RDONLY)
    with pytest.raises(SourceError, match="Is a directory"):
        checksum.copy(directory, target)
    os.close(directory)
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError) as error:
        checksum.copy(source(b"x"), full)
    os.close(full)
    assert error.value.errno == errno.ENOSPC
    assert not isinstance(error.value, SourceError)


def test_shared_blocks_are_read_back_so_that_the_checksum_is_of_the_stored_bytes(
    source, target, tmp_path, monkeypatch
):
    def share(fd: int, request: int, other: int) -> int:
        assert request == 0x40049409  # FICLONE
        os.pwrite(fd, b"stored", 0)  # as if the source had changed just before
        return 0

    monkeypatch.setattr(checksum.fcntl, "ioctl", share)
    assert checksum.copy(source(b"source bytes"), target) == (6, sha(b"stored"))


def test_memory_does_not_grow_with_the_file(source, target, tmp_path):
    fd = source(b"")
    os.truncate(tmp_path / "source0", 64 * MIB)
    tracemalloc.start()
    checksum.copy(fd, target)
    checksum.of_file(fd)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB


@pytest.mark.parametrize("head", [b"", b"head"])
@pytest.mark.parametrize("tail", [b"", b"tail"])
def test_copy_that_keeps_holes_reads_and_writes_nothing_where_there_is_nothing(
    source, target, tmp_path, head, tail
):
    size = 1 << 40
    fd = source(head)
    os.truncate(tmp_path / "source0", size)
    if tail:
        with open(tmp_path / "source0", "r+b") as file:
            file.seek(size // 2)
            file.write(tail)
    checksum.copy_holes(Slice(fd), target)
    found = os.fstat(target)
    assert found.st_size == size and found.st_blocks * 512 < MIB
    assert os.pread(target, len(head), 0) == head
    assert os.pread(target, len(tail), size // 2) == tail


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 5])
@pytest.mark.parametrize("offset", [0, 1, MIB + 7])
def test_copy_that_keeps_holes_copies_everything_else(source, target, tmp_path, size, offset):
    data = os.urandom(size)
    fd = source(bytes(offset) + data + b"what came later")
    checksum.copy_holes(Slice(fd, offset, size), target)
    assert (tmp_path / "target").read_bytes() == data


@pytest.mark.parametrize("place", [(0, 5 * MIB), (3 * MIB, MIB), (5 * MIB, 2 * MIB), (0, None)])
def test_a_part_that_keeps_holes_has_the_same_bytes(source, target, tmp_path, place):
    fd = source(b"head")
    os.truncate(tmp_path / "source0", 8 * MIB)
    with open(tmp_path / "source0", "r+b") as file:
        file.seek(4 * MIB - 3)
        file.write(b"middle")
    found = Slice(fd, *place)
    checksum.copy_holes(found, target)
    assert (tmp_path / "target").read_bytes() == b"".join(found.chunks())
    assert os.fstat(target).st_blocks * 512 < MIB

"""Checksums, SHA-256, written `sha256:<64 hex digits>`; and copies that have one.

The text form names its algorithm so that another can come beside it (FIPS 180-4).
What is copied is a Source, so that nobody else needs to know where its bytes come from.
"""

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from lpxfer.durable import CHUNK, write_all
from lpxfer.errors import FormatError

_TEXT = re.compile(r"sha256:[0-9a-f]{64}")
_FICLONE = 0x40049409  # ioctl_ficlone(2): share blocks instead of copying them


class SourceError(OSError):
    """The source of a copy could not be read; any other OSError is the new file's."""


class Source(Protocol):
    """Where the bytes of one file come from, as they were submitted."""

    def chunks(self) -> Iterator[bytes | bytearray]:
        """Yield all bytes, in pieces of any size. Raises SourceError."""

    def length(self) -> int | None:
        """Return how many bytes there are; None where only reading them tells. Raises OSError."""


@dataclass(frozen=True)
class Slice:
    """A part of an open file, or all of it; its offset is not moved."""

    fd: int
    offset: int = 0
    size: int | None = None  # bytes; None: up to the end, wherever that is by then

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes that are there. Raises SourceError."""
        at, rest = self.offset, self.size
        while rest is None or rest > 0:
            try:
                chunk = os.pread(self.fd, CHUNK if rest is None else min(CHUNK, rest), at)
            except OSError as error:
                raise SourceError(error.errno, error.strerror) from error
            if not chunk:
                return
            at += len(chunk)
            rest = None if rest is None else rest - len(chunk)
            yield chunk

    def read(self, size: int, at: int) -> bytes:
        """Return up to `size` bytes from its byte `at` on. Raises OSError."""
        rest = size if self.size is None else max(0, min(size, self.size - at))
        return os.pread(self.fd, rest, self.offset + at)

    def length(self) -> int:
        """Return how many bytes are there now. Raises OSError."""
        there = max(0, os.fstat(self.fd).st_size - self.offset)
        return there if self.size is None else min(there, self.size)


@dataclass(frozen=True)
class Text:
    """Bytes in memory."""

    data: bytes

    def chunks(self) -> Iterator[bytes]:
        """Yield them."""
        yield self.data

    def length(self) -> int:
        """Return how many they are."""
        return len(self.data)


def text(digest: "hashlib._Hash") -> str:
    """Write a finished digest in the text form."""
    return "sha256:" + digest.hexdigest()


def is_text(value: str) -> bool:
    """Tell whether `value` is a checksum in the text form."""
    return bool(_TEXT.fullmatch(value))


def check_text(value: str) -> str:
    """Return `value` if it is a checksum in the text form, else raise FormatError."""
    if not is_text(value):
        raise FormatError(f"not a checksum of the form sha256:<hex>: {value[:80]!r}")
    return value


def of_bytes(data: bytes) -> str:
    """Return the checksum of some bytes."""
    return text(hashlib.sha256(data))


def of_file(fd: int, size: int | None = None) -> str:
    """Return the checksum of an open file, read from its start without moving its offset.

    With `size`, only that many bytes are read.
    """
    return of(Slice(fd, size=size))[1]


def of(source: Source, limit: int | None = None) -> tuple[int, str]:
    """Return size and checksum of a source's bytes; `limit` and what is raised are as in `copy`."""
    digest, size = hashlib.sha256(), 0
    for chunk in source.chunks():
        digest.update(chunk)
        size += len(chunk)
        if limit is not None and size > limit:
            break
    return size, text(digest)


def copy(source: Source | int, dst_fd: int, limit: int | None = None) -> tuple[int, str]:
    """Copy a source, or all of an open file, into an empty one; return size and checksum.

    With `limit`, reading ends soon after that many bytes: a source that somebody appends to
    without end shows by a greater size.

    Blocks of a whole file are shared where the file system can (reflink); the checksum is then
    of what the new file holds, so it stands for the stored bytes either way.

    Raises SourceError when reading fails, OSError when writing does.
    """
    if isinstance(source, int):
        source = Slice(source)
    if isinstance(source, Slice) and (source.offset, source.size) == (0, None):
        if _share(source.fd, dst_fd):
            return os.fstat(dst_fd).st_size, of_file(dst_fd)
    digest, size = hashlib.sha256(), 0
    for chunk in source.chunks():
        digest.update(chunk)
        write_all(dst_fd, chunk)
        size += len(chunk)
        if limit is not None and size > limit:
            break
    return size, text(digest)


def copy_holes(source: Slice, dst_fd: int) -> None:
    """Copy a part of a file into an empty one, holes as holes, without a checksum.

    Nothing is read or written where the source has a hole: a file that seems to have
    terabytes and has no block takes no time and no room.
    """
    size = source.length()
    if source.size is None and not source.offset and _share(source.fd, dst_fd):
        return
    at, end = source.offset, source.offset + size
    while at < end:
        try:
            start = os.lseek(source.fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # nothing but a hole up to the end
        at = min(os.lseek(source.fd, start, os.SEEK_HOLE), end)
        os.lseek(dst_fd, start - source.offset, os.SEEK_SET)
        for chunk in Slice(source.fd, start, at - start).chunks():
            write_all(dst_fd, chunk)
    os.ftruncate(dst_fd, size)


def _share(src_fd: int, dst_fd: int) -> bool:
    """Let an empty file share another's blocks; tell whether that worked."""
    try:
        fcntl.ioctl(dst_fd, _FICLONE, src_fd)
    except OSError:  # whatever the reason: a copy works, or says what is wrong
        return False
    return True

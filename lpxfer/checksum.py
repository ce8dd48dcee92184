"""Checksums: SHA-256, written `sha256:<64 hex digits>`.

The text form names its algorithm so that another can come beside it (FIPS 180-4).
"""

import errno
import fcntl
import hashlib
import os
import re

from lpxfer.durable import CHUNK, write_all
from lpxfer.errors import FormatError

_TEXT = re.compile(r"sha256:[0-9a-f]{64}")
_FICLONE = 0x40049409  # ioctl_ficlone(2): share blocks instead of copying them


class SourceError(OSError):
    """The source of a copy could not be read; any other OSError is the new file's."""


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
    digest, offset = hashlib.sha256(), 0
    while size is None or offset < size:
        want = CHUNK if size is None else min(CHUNK, size - offset)
        if not (chunk := os.pread(fd, want, offset)):
            break
        digest.update(chunk)
        offset += len(chunk)
    return text(digest)


def copy(src_fd: int, dst_fd: int, limit: int | None = None) -> tuple[int, str]:
    """Copy an open file into an empty one; return the bytes copied and their checksum.

    With `limit`, reading ends soon after that many bytes: a source that somebody appends to
    without end shows by a greater size.

    Blocks are shared where the file system can (reflink); the checksum is then of what the
    new file holds, so it stands for the stored bytes either way.

    Raises SourceError when reading fails, OSError when writing does.
    """
    if _share(src_fd, dst_fd):
        return os.fstat(dst_fd).st_size, of_file(dst_fd)
    digest, size = hashlib.sha256(), 0
    while (limit is None or size <= limit) and (chunk := _read(src_fd)):
        digest.update(chunk)
        write_all(dst_fd, chunk)
        size += len(chunk)
    return size, text(digest)


def copy_holes(src_fd: int, dst_fd: int, size: int) -> None:
    """Copy `size` bytes of an open file into an empty one, holes as holes, without a checksum.

    Nothing is read or written where the source has a hole: a file that seems to have
    terabytes and has no block takes no time and no room.
    """
    if _share(src_fd, dst_fd):
        os.ftruncate(dst_fd, size)
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(src_fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # nothing but a hole up to the end
        end = min(os.lseek(src_fd, start, os.SEEK_HOLE), size)
        os.lseek(dst_fd, start, os.SEEK_SET)
        while start < end and (chunk := os.pread(src_fd, min(CHUNK, end - start), start)):
            write_all(dst_fd, chunk)
            start += len(chunk)
    os.ftruncate(dst_fd, size)


def _share(src_fd: int, dst_fd: int) -> bool:
    """Let an empty file share another's blocks; tell whether that worked."""
    try:
        fcntl.ioctl(dst_fd, _FICLONE, src_fd)
    except OSError:  # whatever the reason: a copy works, or says what is wrong
        return False
    return True


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, CHUNK)
    except OSError as error:
        raise SourceError(error.errno, error.strerror) from error

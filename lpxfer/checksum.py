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
_NO_CLONE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ETXTBSY,
             errno.EPERM, errno.ENOSYS, errno.EBADF}  # fmt: skip


def text(digest: "hashlib._Hash") -> str:
    """Write a finished digest in the text form."""
    return "sha256:" + digest.hexdigest()


def check_text(value: str) -> str:
    """Return `value` if it is a checksum in the text form, else raise FormatError."""
    if not _TEXT.fullmatch(value):
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


def copy(src_fd: int, dst_fd: int) -> tuple[int, str]:
    """Copy an open file into an empty one; return the bytes copied and their checksum.

    Blocks are shared where the file system can (reflink); the checksum is then of what the
    new file holds, so it stands for the stored bytes either way.
    """
    try:
        fcntl.ioctl(dst_fd, _FICLONE, src_fd)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
    else:
        return os.fstat(dst_fd).st_size, of_file(dst_fd)
    digest, size = hashlib.sha256(), 0
    while chunk := os.read(src_fd, CHUNK):
        digest.update(chunk)
        write_all(dst_fd, chunk)
        size += len(chunk)
    return size, text(digest)

"""Secrets: files that only their owner may read, which is where passwords and tokens stand."""

import os
import stat

from lpxfer.errors import PermanentError

LIMIT = 65536  # bytes that are read


def read(path: str, what: str) -> bytes:
    """Return a file of mode 0600; `what` it holds is for the message. Raises PermanentError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PermanentError(f"cannot read the {what} file {path}: {error.strerror}") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise PermanentError(f"the {what} file {path} is not a regular file")
        if found.st_mode & 0o077:
            raise PermanentError(f"others may read the {what} file {path}; chmod 600 {path}")
        text = b""
        while len(text) <= LIMIT and (more := os.read(fd, LIMIT + 1 - len(text))):
            text += more
    finally:
        os.close(fd)
    if len(text) > LIMIT:
        raise PermanentError(f"the {what} file {path} is longer than {LIMIT >> 10} KiB")
    return text

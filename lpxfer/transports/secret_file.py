"""A secret in a file of mode 0600. Raises LinkError for one that cannot be used.

It is read anew for each use, so that it can be changed, and set right, at any time.
"""

import os
import stat

from lpxfer.errors import LinkError

LIMIT = 4096  # bytes read of one


def read(path: str, what: str) -> bytes:
    """Read the first line of a regular file that only its owner may read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise LinkError(f"cannot read the {what} {path}: {error.strerror}") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise LinkError(f"the {what} {path} is not a regular file")
        if found.st_mode & 0o077:
            raise LinkError(f"others may read the {what} {path}; chmod 600 {path}")
        line = os.read(fd, LIMIT).partition(b"\n")[0].rstrip(b"\r")
    finally:
        os.close(fd)
    if not line:
        raise LinkError(f"the {what} {path} has an empty first line")
    return line

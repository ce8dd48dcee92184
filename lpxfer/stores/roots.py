"""Roots: the directories from which somebody far away may have files taken, and from no other.

Guarantees: what is opened lies beneath a root, whatever others do to links meanwhile. Links are
followed as long as they stay inside.
"""

import errno
import os
from collections.abc import Sequence

from lpxfer.checksum import SourceError
from lpxfer.errors import PermanentError

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC

CHANGED = "a link on its way was changed this moment"


class Outside(PermanentError):
    """A path that leads out of the roots."""


def open_beneath(roots: Sequence[str], path: bytes) -> int:
    """Open a file for reading, without waiting. Raises Outside, and SourceError as an OSError.

    Nothing is told of what is outside, not even whether it is there.
    """
    real, way = _beneath(roots, path)
    try:
        fd = os.open(real, _DIRECTORY)
        try:
            *above, name = way
            for component in above:  # without links now: one that is met was put there just now
                inner = os.open(component, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = inner
            return os.open(name, _FILE, dir_fd=fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Outside(CHANGED) from error
        raise SourceError(error.errno, error.strerror) from error


def check(roots: Sequence[str], path: bytes) -> None:
    """Raise Outside for a path that leads out of the roots."""
    _beneath(roots, path)


def _beneath(roots: Sequence[str], path: bytes) -> tuple[bytes, list[bytes]]:
    """Return the root that a path is beneath, and the way from there, both without links."""
    if not path.startswith(b"/"):
        raise Outside("name it from / on")
    if b"\0" in path:
        raise Outside("there is a NUL in its name")
    try:
        real = os.path.realpath(path)
    except OSError as error:
        raise Outside(CHANGED) from error
    for root in roots:
        above = os.path.realpath(os.fsencode(root)).rstrip(b"/")
        if real.startswith(above + b"/"):
            return above or b"/", real[len(above) + 1 :].split(b"/")
    raise Outside("it is not beneath a directory that `roots' in [web] names")

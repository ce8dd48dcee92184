"""The numbers of a queue's jobs: the file `seq`, and `unused` beside it. See xfer-spool(5)."""

import contextlib
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime

from lpxfer import durable

_SEQ = re.compile(rb"([0-9]{1,14})\n")
_STRETCH = re.compile(rb"([0-9]{1,15})-([0-9]{1,15})\n")


def reserve(queue_fd: int, count: int, highest: Callable[[], int]) -> range:
    """Take `count` numbers for new jobs; the numbers are never given out again.

    A missing or unreadable `seq` restarts above the `highest` one that is known.
    """
    with durable.locked("seq", queue_fd, wait=True) as fd:
        match = _SEQ.fullmatch(os.pread(fd, 32, 0))
        first = int(match[1]) + 1 if match else highest() + 1
        text = b"%d\n" % (first + count - 1)
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
        durable.sync(fd)
    return range(first, first + count)


def forgo(queue_fd: int, first: int, last: int) -> None:
    """Note reserved numbers that no job will have, so that nobody looks for one.

    Only a hint for xfer-audit: what cannot be written is left out.
    """
    with contextlib.suppress(OSError):
        durable.append("unused", b"%d-%d\n" % (first, last), queue_fd, 0o660)


def unused(queue_fd: int) -> list[tuple[int, int]]:
    """Return the stretches of numbers that no job will have, first and last of each."""
    try:
        with open(durable.open_regular("unused", queue_fd), "rb") as lines:
            matches = (_STRETCH.fullmatch(line) for line in lines)
            pairs = ((int(match[1]), int(match[2])) for match in matches if match)
            return [(first, last) for first, last in pairs if first <= last]
    except FileNotFoundError:
        return []


def last(queue_fd: int) -> int | None:
    """Return the number given out last; None when `seq` is missing or unreadable."""
    with contextlib.suppress(OSError):
        match = _SEQ.fullmatch(durable.read_small("seq", queue_fd, 32))
        return int(match[1]) if match else None
    return None


def changed(queue_fd: int) -> datetime:
    """Return when a number was given out last; raises OSError when there is no `seq`."""
    status = os.stat("seq", dir_fd=queue_fd, follow_symlinks=False)
    return datetime.fromtimestamp(status.st_mtime, UTC)


def forget(queue_fd: int) -> None:
    """Empty `seq`: numbers go on above the highest one known."""
    with durable.locked("seq", queue_fd, wait=True) as fd:
        os.ftruncate(fd, 0)
        durable.sync(fd)

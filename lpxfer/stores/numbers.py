"""The numbers of a queue's jobs: the file `seq`, and `unused` beside it. See xfer-spool(5).

Every member of a spool's group writes to them, so nothing that a member does to them stops the
others.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from lpxfer import durable
from lpxfer.errors import BusyError
from lpxfer.formats import names

PATIENCE = 5.0  # seconds; nobody needs a lock here for longer, but who has it open can keep it

#: No honest counter comes here; request ids of 14 digits are in reach of a member's hand.
TOP = 10**13

_SEQ = re.compile(rb"([0-9]{1,14})\n")
_STRETCH = re.compile(rb"([0-9]{1,15})-([0-9]{1,15})\n")


def reserve(queue_fd: int, count: int, highest: Callable[[], int]) -> range:
    """Take `count` numbers for new jobs; the numbers are never given out again.

    A missing or unreadable `seq` restarts above the `highest` one that is known, or somewhere
    when that is out of reach. When somebody keeps the lock they are taken without it, a little
    further on, so that two who do so at once hardly meet: Queue.draft refuses what is in use.
    Whoever kept it may then write a lower number than those; xfer-fsck --repair mends that.
    """
    try:
        with durable.locked("seq", queue_fd, patience=PATIENCE) as fd:
            return _take(fd, count, queue_fd, highest, 1)
    except BusyError:
        with durable.opened("seq", queue_fd) as fd:
            return _take(fd, count, queue_fd, highest, 1 + int.from_bytes(os.urandom(2), "big"))


def _take(fd: int, count: int, queue_fd: int, highest: Callable[[], int], skip: int) -> range:
    match = _SEQ.fullmatch(os.pread(fd, 32, 0))
    if not match:  # the queue is new, and who set it up may have died before its last sync
        durable.sync(queue_fd)
    first = (int(match[1]) if match else highest()) + skip
    if first + count > TOP:
        first = TOP // 100 + int.from_bytes(os.urandom(5), "big")
    text = b"%014d\n" % (first + count - 1)  # of one length: half of it is never a lower number
    os.pwrite(fd, text, 0)
    os.ftruncate(fd, len(text))
    durable.sync(fd)
    return range(first, first + count)


def forgo(queue_fd: int, *stretches: tuple[int, int]) -> None:
    """Note reserved numbers that no job will have, so that nobody looks for one.

    Only a hint for xfer-audit: what cannot be written is left out.
    """
    lines = b"".join(b"%d-%d\n" % stretch for stretch in stretches)
    with contextlib.suppress(OSError):
        if lines:
            durable.append("unused", lines, queue_fd, 0o660, patience=1.0)


def forgo_drafts(queue_fd: int, dead: Iterable[str]) -> None:
    """Note the numbers of drafts that will be removed."""
    found = (names.REQUEST_ID.fullmatch(name) for name in dead)
    forgo(queue_fd, *((int(match[2]), int(match[2])) for match in found if match))


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
    with durable.locked("seq", queue_fd, patience=PATIENCE) as fd:
        os.ftruncate(fd, 0)
        durable.sync(fd)

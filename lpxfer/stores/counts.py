"""How many jobs are in each state, and their bytes, in less than a second.

Up to MANY jobs of a state are counted when somebody asks. More are counted by the sender now and
then, which keeps what it found in the queue's file `counts`. That is a cache: it is believed as
the truth only while the directory is what it was, else it is shown with its age, and without it
the bytes are not known. It may be removed at any time.

Guarantees: looking changes nothing. What is not of this moment says so. Nobody but the spool's
owner can make others believe the file.
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from lpxfer import durable
from lpxfer.errors import FormatError
from lpxfer.formats import dates, keyvalue
from lpxfer.formats.job import NOT_COMPLETED, State
from lpxfer.stores import listing

MANY = 100_000  # jobs whose data files are asked for their sizes in half a second
OLD = timedelta(minutes=15)  # what was counted before is not shown
PAUSE = 30.0  # seconds between two looks of the sender

_NAME, _MODE = "counts", 0o640


class Count(NamedTuple):
    """Jobs of a state, and the bytes of their data files; None is what is not known."""

    jobs: int
    size: int | None
    at: datetime | None = None  # when that was so, where it may have changed since


class _Kept(NamedTuple):
    """A count in the file, and the directory that was counted."""

    counted: Count
    identity: tuple[int, int] | None


def look(
    queue_fd: int, dirs: Mapping[State, int], now: datetime, sizes: bool = True
) -> dict[State, Count]:
    """Count the jobs of each state, or tell what the sender has counted."""
    kept = _read(queue_fd)
    return {state: _count(dirs[state], kept.get(state), now, sizes) for state in NOT_COMPLETED}


def _count(state_fd: int, kept: _Kept | None, now: datetime, sizes: bool) -> Count:
    if kept and kept.identity and kept.identity == listing.identity(state_fd):
        return kept.counted._replace(at=None)
    if kept and kept.counted.at and abs(now - kept.counted.at) < OLD:
        with contextlib.closing(listing.ids(state_fd)) as ids:
            if sum(1 for _ in itertools.islice(ids, MANY + 1)) > MANY:
                return kept.counted
    found = listing.names(state_fd)
    known = sizes and len(found) <= MANY
    return Count(len(found), listing.size(state_fd, found) if known else None)


class Counter:
    """Counts the large states of a queue for those who ask: the sender has one."""

    def __init__(self, queue_fd: int, dirs: Mapping[State, int]) -> None:
        """Know the queue; nothing is counted yet."""
        self._fd, self._dirs = queue_fd, dirs
        self._glances = {state: listing.Glance(dirs[state]) for state in NOT_COMPLETED}
        self._kept: dict[State, _Kept] = {}

    def run(
        self, stop: threading.Event, clock: Callable[[], datetime], say: Callable[[str], None]
    ) -> None:
        """Count until `stop` is set; what goes wrong is said once, for it is nobody's loss."""
        said = ""
        while not stop.wait(PAUSE):
            try:
                self.look(clock())
            except OSError as error:
                if said != (said := str(error.strerror)):
                    say(f"the jobs cannot be counted: {said}")

    def look(self, now: datetime) -> None:
        """Count what has changed, for a fiftieth of the time at most, and keep it."""
        before = self._kept.copy()
        for state, glance in self._glances.items():
            if glance.due():
                with glance.taken():
                    self._count(state, now)
        if self._kept != before:
            _write(self._fd, self._kept)

    def _count(self, state: State, now: datetime) -> None:
        fd = self._dirs[state]
        identity, jobs = listing.identity(fd), len(listing.names(fd))
        self._kept.pop(state, None)
        if jobs > MANY:
            self._kept[state] = _Kept(Count(*listing.count(fd), now), identity)


def _write(queue_fd: int, kept: Mapping[State, _Kept]) -> None:
    lines = []
    for state, (count, identity) in kept.items():
        inode, time_ns = identity or (0, 0)
        assert count.at
        words = (count.jobs, count.size, dates.iso(count.at), inode, time_ns)
        lines.append((state.value, " ".join(map(str, words))))
    durable.forget_replacements(_NAME, queue_fd)
    durable.replace(_NAME, keyvalue.dump(lines), queue_fd, _MODE)


def _read(queue_fd: int) -> dict[State, _Kept]:
    """Read the file; nothing where it is missing, damaged, or not the spool's owner's."""
    try:
        with open(durable.open_regular(_NAME, queue_fd), "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.fstat(queue_fd).st_uid:
                return {}
            lines = keyvalue.load(file.read(keyvalue.LIMIT + 1))
        return {State(word): _kept(line) for word, line in lines.items()}
    except (OSError, FormatError, ValueError):
        return {}


def _kept(line: str) -> _Kept:
    """Read a line of the file. Raises ValueError, FormatError."""
    jobs, size, at, inode, time_ns = line.split(" ")
    count = Count(int(jobs), int(size), dates.parse_iso(at))
    return _Kept(count, (int(inode), int(time_ns)) if int(inode) else None)

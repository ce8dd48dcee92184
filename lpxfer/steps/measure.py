"""Measure: what is to be known of a spool and of an archive, as numbers. Looking changes nothing.

Guarantees: what takes long, as with a million waiting jobs, is done for a fiftieth of the time
at most; in between the last result is given. Nothing of it is in memory only: a new Measure
finds the same numbers in the spool and the logs.
"""

import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from lpxfer.errors import FormatError, LpxferError
from lpxfer.formats import dates, keyvalue, tally
from lpxfer.formats.job import State
from lpxfer.formats.tally import Finished, Placed
from lpxfer.stores import finished_log
from lpxfer.stores.log_tail import LogTail
from lpxfer.stores.spool import Queue

REASONS_MOST = 1000  # failed jobs whose reasons are looked up
LINES_MOST = 50_000  # of a log that are counted at one look, two seconds' worth; then the next

_SHARE = 50  # of the time, so many parts are left to others

T = TypeVar("T")
Status = TypeVar("Status")


class Seldom(Generic[T]):
    """What is not done more often than it may be."""

    def __init__(self) -> None:
        """Have done nothing yet."""
        self._found: T | None = None
        self._again = 0.0

    def get(self, make: Callable[[], T]) -> T:
        """Return what `make` makes, or made not long ago."""
        if self._found is None or time.monotonic() >= self._again:
            start, cpu = time.monotonic(), time.thread_time()
            self._found = make()
            took = time.thread_time() - cpu
            took = max(took, time.monotonic() - start) if took > 1.0 else took
            self._again = time.monotonic() + (took * _SHARE if took > 0.02 else 0.0)
        return self._found


@dataclass(frozen=True)
class QueueFigures(Generic[Status]):
    """What is known of a queue."""

    at: datetime  # when it was looked at
    status: Status
    failures: Mapping[str, int]  # failed and quarantined jobs by reason
    free: int  # bytes on the spool
    finished: Finished


class QueueMeasure(Generic[Status]):
    """Measures one queue again and again."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._looks: Seldom[tuple[datetime, Status, Mapping[str, int]]] = Seldom()
        self._tail: LogTail | None = None
        self._finished = Finished()

    def look(
        self, queue: Queue, standing: Callable[[], Status], now: datetime
    ) -> QueueFigures[Status]:
        """Measure it now; `standing` tells how it stands, and may take long."""
        if self._tail is None:
            self._tail = finished_log.tail(queue.root)
        for line in itertools.islice(self._tail.lines(now), LINES_MOST):
            self._finished.add(line)

        def make() -> tuple[datetime, Status, Mapping[str, int]]:
            return now, standing(), _failures(queue)

        at, status, failures = self._looks.get(make)
        return QueueFigures(at, status, failures, queue.free_bytes(), self._finished)


def _failures(queue: Queue) -> Counter[str]:
    """Count failed and quarantined jobs by the word of their reason."""
    found: Counter[str] = Counter()
    for state in (State.FAILED, State.QUARANTINED):
        ids = queue.ids(state)
        for job_id in itertools.islice(ids, REASONS_MOST):
            text = ""
            with contextlib.suppress(OSError, LpxferError):
                with queue.open(job_id, state) as job:
                    text = job.routing_or_default().reason or ""
            found[tally.reason(text)] += 1
        found[tally.OTHER] += sum(1 for _ in ids)
    return found


@dataclass(frozen=True)
class PlaceFigures:
    """What is known of an instrument at the archive site."""

    swept: datetime | None
    free: int | None  # bytes beside its files
    placed: Placed


class PlaceMeasure:
    """Measures one instrument directory again and again."""

    def __init__(self, home: str, receipts: str, inst: str) -> None:
        """Know the directory, and where a sweep says that it was."""
        self._home, self._accepts = home, os.path.join(receipts, "accepts", inst)
        self._tail = LogTail(os.path.join(home, "xferlogs"), ".tdcin.log")
        self._placed = Placed()

    def look(self, now: datetime) -> PlaceFigures:
        """Measure it now."""
        for line in itertools.islice(self._tail.lines(now), LINES_MOST):
            self._placed.add(line)
        return PlaceFigures(self._swept(), free_bytes(self._home), self._placed)

    def _swept(self) -> datetime | None:
        with contextlib.suppress(OSError, FormatError):
            with open(self._accepts, "rb") as file:
                pairs = keyvalue.load(file.read(keyvalue.LIMIT + 1))
            return dates.parse_iso(pairs.get("swept", ""))
        return None


def free_bytes(path: str) -> int | None:
    """Return the bytes that are free on a file system; None when it cannot be asked."""
    with contextlib.suppress(OSError):
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize
    return None

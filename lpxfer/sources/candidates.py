"""Files that are not submitted yet, each with the time at which it is worth a look."""

import heapq
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

from lpxfer.formats.watch_record import Version


@dataclass
class Candidate:
    """A file that may have to be submitted. Times are monotonic seconds."""

    path: str
    since: float  # when it was heard of first
    due: float
    changed: float  # when this version was seen first
    version: Version | None = None
    failures: int = 0
    told: str = ""  # what has been said of it

    def is_now(self, version: Version) -> None:
        """Take note of what the file is."""
        if version != self.version:
            self.version, self.changed, self.failures = version, time.monotonic(), 0


class Candidates:
    """All of them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._files: dict[str, Candidate] = {}
        self._due: list[tuple[float, int, str]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def __getitem__(self, path: str) -> Candidate:
        return self._files[path]

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._files.values())

    def note(self, path: str, at_once: bool) -> None:
        """Take a file for one; look at a known one `at_once`, but for those that failed."""
        known = self._files.get(path)
        if known is None:
            now = time.monotonic()
            self._files[path] = Candidate(path, now, now, now)
        elif not at_once or known.failures:
            return
        self.again(path, 0.0)

    def again(self, path: str, seconds: float) -> None:
        """Look at a file in so many seconds, and not before."""
        known = self._files[path]
        known.due = time.monotonic() + seconds
        heapq.heappush(self._due, (known.due, next(self._order), path))

    def drop(self, path: str) -> None:
        """Look at a file no more."""
        del self._files[path]

    def next_due(self) -> float:
        """Return when the next look is due."""
        return self._due[0][0] if self._due else float("inf")

    def due(self) -> Iterator[Candidate]:
        """Yield the files that are due now; who takes one puts it off, or drops it."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, _, path = heapq.heappop(self._due)
            known = self._files.get(path)
            if known is not None and known.due == due:
                yield known

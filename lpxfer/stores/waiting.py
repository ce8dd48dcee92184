"""What waits in pending/, as its sender keeps track of it: a million jobs for little.

Whoever brings a job there, or changes its routing, writes its id into the FIFO `wake`, and only
that job is looked at. Hints may be lost, so that all is listed now and then, when the directory
has changed; and more seldom all routings are looked at, too. The first look at everything comes in
portions, so that what is found first can be sent meanwhile.

Guarantees: what stands in pending/ is found, hints or none. What is written into `wake` does no
more than make the sender look, and for a tenth of the time at most.
"""

import fcntl
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, islice

from lpxfer.formats import names
from lpxfer.stores import listing

BY_ITSELF = 30.0  # seconds between looks at everything that nobody asked for

#: Of the time, so much may go to looks at everything: when asked, by itself, at all routings.
ASKED, UNASKED, ROUTINGS = 0.1, 0.01, 0.002

PORTION = 20_000  # jobs: a third of a second
_FIFO = 1 << 16  # bytes; all that it holds, as a rule

#: An id, and its stamp: when the job came, or its routing was changed last (ns since 1970).
Stamped = tuple[str, int]


class Waiting:
    """The sender's view of one queue's pending/."""

    def __init__(self, pending_fd: int) -> None:
        """Know the directory; nothing is looked at yet."""
        self._fd = pending_fd
        self._first: Iterator[Stamped] | None = None  # the rest of the first look
        self._spent = 0.0  # seconds, on that
        self._heard = deque[str]()
        self._later = deque[tuple[float, str]]()
        self._asked = True  # to list everything
        self._lost = False  # hints
        self._seen: tuple[int, int] | None = None  # the directory, when it was listed last
        self._listed, self._listing = -math.inf, 0.0  # when that ended; seconds it took
        self._routed, self._routing = -math.inf, 0.0  # of the last look at all routings

    def hear(self, wake_fd: int) -> bool:
        """Take what was written into the FIFO, without waiting; tell whether there was anything."""
        try:
            text = os.read(wake_fd, _FIFO)
        except BlockingIOError:
            return False
        words = text.decode("ascii", "replace").split()
        found = [word for word in words if names.REQUEST_ID.fullmatch(word)]
        self._heard.extend(dict.fromkeys(found))
        self._asked |= len(found) < len(words)
        # A writer whose words do not fit into a page begins another: it may be full half empty.
        self._lost |= len(text) > fcntl.fcntl(wake_fd, fcntl.F_GETPIPE_SZ) * 0.4
        return True

    def later(self, job_id: str) -> None:
        """Look at a job again in a while: it was taken, and could not be claimed or moved.

        Nobody else would tell of it. Any thread may call this.
        """
        self._later.append((time.monotonic() + BY_ITSELF, job_id))

    def look(
        self, known: Callable[[str], int | None], at_once: bool = False
    ) -> tuple[bool, Iterator[Stamped]]:
        """Return whether this is everything that waits, and the jobs with their stamps.

        Else they are those that somebody gave a hint of, if any; and a portion of the first look,
        while that is `unfinished`. `known` tells the stamp under which a job is known already,
        None for one that is not. Call it every second or so. With `at_once` everything is listed,
        whatever time that takes: for who makes one pass, or has forgotten all that was known.
        """
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._heard.append(self._later.popleft()[1])
        if self._listed == -math.inf and not at_once and self._first is None:
            self._first = self._everything(known, routings=True)
        if self._first is not None and not at_once:
            return False, chain(self._some(len(self._heard)), self._portion(self._first))
        self._first = None
        asked = self._asked or self._lost or at_once
        if asked or now - self._listed >= BY_ITSELF:
            share = ASKED if self._lost else ROUTINGS
            routings = (now - self._routed) * share >= self._routing
            share = ASKED if asked else UNASKED
            listing_due = (now - self._listed) * share >= self._listing
            if routings or at_once or (listing_due and self._changed()):
                return True, self._everything(known, routings)
            self._asked &= not listing_due
        return False, self._some(len(self._heard))

    @property
    def unfinished(self) -> bool:
        """Tell whether another look finds more at once."""
        return self._first is not None

    def _portion(self, first: Iterator[Stamped]) -> Iterator[Stamped]:
        start = time.monotonic()
        try:
            found = list(islice(first, PORTION))
        except OSError:
            self._first = None  # to be begun again
            raise
        self._spent += time.monotonic() - start
        if len(found) < PORTION:
            self._first = None
            self._listing = self._routing = self._spent  # not what was done between portions
        yield from found

    def _changed(self) -> bool:
        return self._seen is None or self._seen != listing.identity(self._fd)

    def _everything(self, known: Callable[[str], int | None], routings: bool) -> Iterator[Stamped]:
        start, seen = time.monotonic(), listing.identity(self._fd)
        self._asked = True  # until all has been seen
        heard = set(self._heard)  # of these, the routing may have changed
        self._heard.clear()
        for job_id in listing.ids(self._fd):
            stamp = None if routings or job_id in heard else known(job_id)
            if stamp is None:
                stamp = listing.stamp(self._fd, job_id)
            if stamp is not None:
                yield job_id, stamp
        self._asked, self._seen, self._listed = False, seen, time.monotonic()
        self._listing = self._listed - start
        if routings:
            self._lost = False
            self._routed, self._routing = self._listed, self._listing

    def _some(self, number: int) -> Iterator[Stamped]:
        for _ in range(number):
            job_id = self._heard.popleft()
            if (stamp := listing.stamp(self._fd, job_id)) is not None:
                yield job_id, stamp

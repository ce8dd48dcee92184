"""The rate limit of a queue, which all connections of its sender share.

A bucket that time fills and bytes empty. Connections that wait stand in line; the first takes
a small piece and goes to the end, so that each gets as much as the others however large its
writes are. The bucket holds a tenth of a second: after a pause that much goes at once.

Guarantees: over any time no more goes than the limit and a tenth of a second of it. A change
of the limit takes effect within a tenth of a second, also for those that wait.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from lpxfer.formats.rate import UNLIMITED, Rate

BURST = 0.1  # seconds of the limit that a pause saves up
PIECE = BURST / 4  # seconds of the limit taken at once; what is left of a burst is for waking late
SLICE = 0.1  # seconds that a wait lasts at most before everything is looked at again
NAP = 0.01  # seconds that it lasts at least: at high rates several pieces go after each
PORTION = 0.5  # seconds that one `take` should last, so that acknowledgements are read meanwhile
SMALLEST = 1024  # bytes: smaller writes are not worth their packets


class Limiter:
    """Lets bytes go at the rate of one queue. For any number of threads."""

    def __init__(
        self,
        rate: Rate = UNLIMITED,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Know the limits, by default none; `now` tells the time of day, `clock` counts seconds."""
        self.rate = rate  # may be set anew at any time
        self._now, self._clock, self._sleep = now, clock, sleep
        self._lock = threading.Lock()  # guards what follows
        self._line: deque[threading.Condition] = deque()  # those who wait; the first one's turn
        self._credit, self._counted = 0.0, clock()  # seconds of the limit not used, until when
        self._known: float | None = None
        self._ask_at, self._asked = -1.0, UNLIMITED

    def take(self, count: int, gone: Callable[[], bool] = lambda: False) -> None:
        """Return when `count` bytes may go; at once where there is no limit.

        `gone` is asked about every tenth of a second meanwhile: when it says yes, whoever
        wants to send is gone, and so is the wait. What it raises is raised.
        """
        if self._limit() is None:
            return
        with self._lock:
            turn = threading.Condition(self._lock)
            self._line.append(turn)
            try:
                while count > 0 and (limit := self._limit()) is not None and not gone():
                    if self._line[0] is not turn:
                        turn.wait(SLICE)
                        continue
                    piece = min(count, max(1, int(limit * PIECE)))
                    if (wait := self._spend(piece / limit)) > 0:
                        self._rest(min(max(wait, NAP), SLICE))
                        continue
                    count -= piece
                    self._line.rotate(-1)
                    self._line[0].notify()
            finally:
                self._line.remove(turn)
                if self._line:
                    self._line[0].notify()

    def portion(self) -> int:
        """Return how many bytes to take at once, at most, so that it takes half a second.

        Whoever waits reads no acknowledgements, and looks for no cancel.
        """
        limit = self._limit()
        if limit is None:
            return sys.maxsize
        return max(SMALLEST, int(limit * PORTION / (len(self._line) + 1)))

    def _limit(self) -> float | None:
        """Return the limit, which is looked up ten times a second at most."""
        if not (rate := self.rate).limits:
            return None
        now = self._clock()
        if now >= self._ask_at or rate is not self._asked:
            self._known = rate.limit_at(self._now())
            self._ask_at, self._asked = now + SLICE, rate
        return self._known

    def _spend(self, cost: float) -> float:
        """Take `cost` seconds of the limit; or leave them, and return how long to wait."""
        now = self._clock()
        self._credit = min(self._credit + now - self._counted, BURST)
        self._counted = now
        if cost <= self._credit:
            self._credit -= cost
            return 0.0
        return cost - self._credit

    def _rest(self, seconds: float) -> None:
        """Sleep without the lock; it stays this one's turn."""
        self._lock.release()
        try:
            self._sleep(seconds)
        finally:
            self._lock.acquire()

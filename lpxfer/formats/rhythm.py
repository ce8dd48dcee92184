"""When to look at the receipts: soon after something was sent, and seldom when nothing waits.

How soon, depends on how long a look takes: on a long line it costs what could be sent meanwhile.
Pure: monotonic seconds in.
"""

import math

SOONEST, FIRST, MOST = 0.2, 1.0, 30.0  # seconds between looks
SHARE = 5  # times as long as a look takes is the time between two, at least, up to FIRST


class Rhythm:
    """The times of the looks of one queue."""

    def __init__(self) -> None:
        """Begin with a look that is due."""
        self.at = 0.0  # when the next one is due
        self._first = self._wait = FIRST
        self._began: float | None = None
        self._sent = False  # since that look began

    def due(self, now: float) -> bool:
        """Tell whether it is time for a look."""
        return now >= self.at

    def begin(self, now: float) -> None:
        """Take note that somebody looks now: until that is over no other is due."""
        self.at, self._began, self._sent = math.inf, now, False

    def end(self, now: float, left: bool) -> None:
        """Take note that a look is over; with `left` something waits still."""
        if self._began is not None:
            self._first = min(max(SHARE * (now - self._began), SOONEST), FIRST)
        self._began = None
        self._wait = self._first if self._sent else min(2 * self._wait, MOST)
        self.at = now + (self._wait if left or self._sent else MOST)

    def sent(self, now: float) -> None:
        """Take note that something was sent: its receipt may come soon."""
        self._sent = True
        if self._began is None:
            self._wait = self._first
            self.at = min(self.at, now + self._first)

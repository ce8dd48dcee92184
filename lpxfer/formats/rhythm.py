"""When to look at the receipts: soon after something was sent, and seldom when nothing waits.

Pure: monotonic seconds in.
"""

import math

FIRST, MOST = 1.0, 30.0  # seconds between looks


class Rhythm:
    """The times of the looks of one queue."""

    def __init__(self) -> None:
        """Begin with a look that is due."""
        self._at, self._wait = 0.0, FIRST

    def due(self, now: float) -> bool:
        """Tell whether it is time for a look."""
        return now >= self._at

    def begin(self) -> None:
        """Take note that somebody looks now: until that is over no other is due."""
        self._at = math.inf

    def end(self, now: float, left: bool) -> None:
        """Take note that a look is over; with `left` something waits still."""
        self._wait = min(self._wait * 2, MOST)
        self._at = now + (self._wait if left else MOST)

    def sent(self, now: float) -> None:
        """Take note that something was sent: its receipt may come soon."""
        self._wait = FIRST
        self._at = min(self._at, now + FIRST)

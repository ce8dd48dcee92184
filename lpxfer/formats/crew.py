"""How many connections a queue uses at once: as many as pay. Pure: seconds and bytes in.

One connection carries at most a window of the server's (2 MiB with OpenSSH) in each round trip,
and after a lost packet less for a while, so a long or lossy link is filled by several. On a
short one they only get into each other's way. Nobody can know beforehand, so it is tried: with
more connections the rate must grow, with fewer it must not fall.
"""

WINDOW = 2 << 20  # bytes that a server takes unacknowledged on one connection, as OpenSSH has it
GUESS = 125e6  # bytes per second: the link for which the first number is right, 1 Gbit/s
FIRST = 2  # connections at first, on the shortest link: while one waits the other one sends

PERIOD = 1.0  # seconds of a measurement, and so many round trips at least:
TRIPS = 15  # within these a new connection's congestion window has opened
PAYS = 1.1  # so much more must be carried by half as many connections again
SAME = 0.95  # so much must still be carried by fewer
REST = 30.0  # seconds until the next trial after one that changed nothing, twice as long each time
REST_MOST = 480.0
REFUSED = 300.0  # seconds until more is tried than the server would take


class Crew:
    """The number of connections, and what was learned of it."""

    def __init__(self, most: int) -> None:
        """Use at most `most` connections."""
        self._most = self._limit = most
        self.size = min(FIRST, most)
        self._guessed = most == 1
        self._since, self._from, self._period = 0.0, 0, PERIOD
        self._before: tuple[int, float] | None = None  # size and rate that a trial is held against
        self._next, self._rest = 0.0, REST  # when the next trial may be
        self._down = False  # whether that one is with fewer
        self._refused = 0.0
        self.rate: float | None = None  # bytes per second, as measured last

    def reached(self, rtt: float) -> None:
        """Take note of the round trip, in seconds: the first guess depends on it."""
        if not self._guessed:
            self._guessed = True
            wanted = round(GUESS * rtt / WINDOW + 0.5)
            self.size = max(FIRST, min(wanted, self._limit))
        self._period = max(PERIOD, TRIPS * rtt)

    def refused(self, now: float, others: int) -> None:
        """Take note that the server would not have another connection beside `others`."""
        self._limit = max(1, others)
        self.size = min(self.size, self._limit)
        self._refused, self._before = now + REFUSED, None

    def idle(self, now: float, carried: int) -> None:
        """Take note that not all connections were busy: what is measured says nothing."""
        self._since, self._from = now, carried

    def busy(self, now: float, carried: int) -> None:
        """Take note of the bytes carried in all until now, all connections being busy."""
        if now - self._since < self._period:
            return
        self.rate = rate = (carried - self._from) / (now - self._since)
        self._since, self._from = now, carried
        if now >= self._refused:
            self._limit = self._most
        if self._before is not None:
            self._judge(now, rate, *self._before)
        elif now >= self._next:
            self._try(now, rate)

    def _try(self, now: float, rate: float) -> None:
        """Change the number, to see what comes of it."""
        size = self.size // 2 if self._down else min(self.size + (self.size + 1) // 2, self._limit)
        if size in (0, self.size):
            self._settle(now)
            return
        self._before, self.size = (self.size, rate), size

    def _judge(self, now: float, rate: float, size: int, before: float) -> None:
        """Keep what was tried if it pays, else go back."""
        self._before = None
        if rate >= before * (SAME if self._down else PAYS):
            self._rest, self._next = REST, now  # and further in the same direction
        else:
            self.size = size
            self._settle(now)

    def _settle(self, now: float) -> None:
        """Go back to what it was; then fewer are tried, and after those a while nothing."""
        if self._down:
            self._next, self._rest = now + self._rest, min(2 * self._rest, REST_MOST)
        self._down = not self._down

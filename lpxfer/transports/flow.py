"""How much of a file may be in flight over one connection, by what the link has taken so far."""

import time

from lpxfer.transports.packets import LARGE, SMALL

#: Unacknowledged bytes in flight at most. A server's SSH window, 2 MiB with OpenSSH, holds
#: back what is more than that anyhow; twice as much keeps it full while acknowledgements
#: are under way.
WINDOW = 4 * 1024 * 1024

#: Where a server is near, deep queues only cost it time: three writes keep it busy. In between,
#: what the fastest link that we know of (bytes/s) holds in a round trip.
SHALLOW, FASTEST = 3 * LARGE, 2e9

#: Nor is there more in flight than the link takes in these seconds, so that a transfer can be
#: stopped for a more urgent one, and acknowledgements come often enough on the slowest link.
SECONDS = 1.0

#: Bytes in flight before anything is known of the link.
FIRST = 4 * SMALL


class Flow:
    """The bytes in flight of one file over one connection."""

    def __init__(self, rtt: float, largest: int) -> None:
        """Begin with a round trip in seconds, and the bytes of a write at most."""
        self._deep = min(WINDOW, max(SHALLOW, int(FASTEST * rtt)))
        self._largest = largest
        self._in_flight = self._acked = 0
        self._since = time.monotonic()
        self._rate = 0.0  # bytes per second

    @property
    def length(self) -> int:
        """The bytes of the next write."""
        return min(max(int(self._rate * SECONDS), SMALL), self._largest)

    @property
    def room(self) -> bool:
        """Tell whether another write may go out."""
        return self._in_flight < min(max(int(self._rate * SECONDS), FIRST), self._deep)

    def sent(self, size: int) -> None:
        """Take note of a write that went out."""
        self._in_flight += size

    def acked(self, size: int) -> None:
        """Take note of one that was acknowledged."""
        self._in_flight -= size
        self._acked += size
        spent = time.monotonic() - self._since
        self._rate = self._acked / (spent + 1e-9)
        if spent > 2 * SECONDS:  # what was longer ago counts half, and half again
            self._since += spent / 2
            self._acked //= 2

"""How the connections of a queue share the work: what is carried, by how many, who helps.

This is the one place that decides how many connections a file goes over: every job is carried
by one connection, and one that has nothing else to do helps to carry the largest file there is
(Stripes). How many connections there are follows from what they carry (Crew). For many threads.
"""

import threading

from lpxfer.formats.crew import Crew
from lpxfer.transports.attempt import Load

HELPED = 4 << 20  # bytes that nobody has taken yet, from which on help comes in time


class Team:
    """The files that are being carried, and the number of connections."""

    def __init__(self, most: int, helps: bool) -> None:
        """Use at most `most` connections; with `helps` several may carry one file."""
        self._lock = threading.Lock()
        self._crew = Crew(most)
        self._helps = helps
        self._loads: list[Load] = []
        self._carried = 0  # bytes, of loads that are over

    @property
    def size(self) -> int:
        """The number of connections that may be at work."""
        return self._crew.size

    def reached(self, rtt: float) -> None:
        """Take note of a round trip, in seconds."""
        with self._lock:
            self._crew.reached(rtt)

    def refused(self, now: float, others: int) -> None:
        """Take note that there is no further connection to be had beside `others`."""
        with self._lock:
            self._crew.refused(now, others)

    def begins(self, load: Load) -> None:
        """Take note of a file that is being carried from now on."""
        with self._lock:
            self._loads.append(load)

    def ends(self, load: Load) -> None:
        """Take note that it is no more."""
        with self._lock:
            self._loads.remove(load)
            self._carried += load.carried

    def rate(self) -> float | None:
        """Return what was carried in a second when it was measured last; None when it was not."""
        return self._crew.rate

    def to_help(self) -> Load | None:
        """Choose the file for which another connection is of most use."""
        if not self._helps:
            return None
        with self._lock:
            loads = [load for load in self._loads if load.stripes.wants_help]
        best = max(loads, key=lambda load: load.stripes.left, default=None)
        return best if best and best.stripes.left >= HELPED else None

    def measure(self, now: float, working: int) -> None:
        """Look at the rate, with so many connections at work (monotonic seconds)."""
        with self._lock:
            carried = self._carried + sum(load.carried for load in self._loads)
            if working >= self._crew.size:
                self._crew.busy(now, carried)
            else:
                self._crew.idle(now, carried)

"""How the connections of a queue share the work: what is carried, by how many, who helps.

This is the one place that decides over how many connections a file goes: every job, or bundle of
small ones, is carried by one connection, and one that has nothing else to do helps to carry the
largest file there is (Stripes). How many connections there are follows from what they carry
(Crew). When a further transfer is worth its round trips is told by the pace. For many threads.
"""

import math
import threading
import time

from lpxfer.errors import LinkError, LpxferError
from lpxfer.formats import pace
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.crew import Crew
from lpxfer.formats.job import Routing
from lpxfer.formats.rate_history import History
from lpxfer.transports.attempt import Load, Overseer
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.target import Links, target

HELPED = 4 << 20  # bytes that nobody has taken yet, from which on help comes in time


class Team:
    """The connections, and the files that are being carried."""

    def __init__(self, settings: QueueConfig, account: str, limiter: Limiter) -> None:
        """Know the queue; nobody is connected yet."""
        self._settings, self._account, self._limiter = settings, account, limiter
        self._lock = threading.Lock()  # guards what follows
        self._crew = Crew(settings.connections)
        self._connected: list[Links] = []
        self._loads: list[Load] = []
        self._carried, self._over = 0, 0  # bytes, and number, of loads that are over
        self._history, self._pace = History(), pace.State()
        self._measured, self._before = time.monotonic(), 0
        self._delay, self._failures = 0.0, 0

    @property
    def size(self) -> int:
        """The number of connections that may be at work."""
        return self._crew.size

    def rate(self) -> float | None:
        """Return what was carried in a second when it was measured last; None when it was not."""
        return self._crew.rate

    # --- connections ------------------------------------------------------------------------

    def join(self) -> Links:
        """Return what a new worker connects with."""
        links = Links(self._settings, limiter=self._limiter)
        with self._lock:
            self._connected.append(links)
        return links

    def leave(self, links: Links) -> None:
        """Close a worker's connection."""
        links.close()
        with self._lock:
            self._connected.remove(links)

    def cut(self, reason: str) -> None:
        """Break every connection under its worker, because the sender stops."""
        for links in list(self._connected):
            links.cut(reason)

    def joined(self, links: Links) -> bool:
        """Tell whether a worker may carry jobs: it has a connection, or nobody else has.

        Where others have one, the link is not down because this worker gets none: the server
        takes no more, and for a while no more are tried.
        """
        if links.up or not any(other.up for other in self._connected):
            return True
        try:
            links.connected(target(self._settings, Routing(), self._account))
        except LinkError:
            with self._lock:
                others = sum(other.up for other in self._connected)
                self._crew.refused(time.monotonic(), others)
            return False
        return True

    def reached(self, rtt: float, delay: float) -> None:
        """Take note of a round trip, and of how long an answer took just now, in seconds."""
        with self._lock:
            self._crew.reached(rtt)
            self._delay = delay

    def failed(self) -> None:
        """Take note that the link has failed."""
        with self._lock:
            self._failures += 1

    # --- what is carried --------------------------------------------------------------------

    def begins(self, load: Load) -> None:
        """Take note of a file that is being carried from now on."""
        with self._lock:
            self._loads.append(load)

    def ends(self, load: Load) -> None:
        """Take note that it is no more."""
        with self._lock:
            self._loads.remove(load)
            self._carried += load.carried
            self._over += load.jobs

    def to_help(self) -> Load | None:
        """Choose the file for which another connection is of most use."""
        if self._settings.transport == "local":
            return None
        with self._lock:
            loads = [load for load in self._loads if load.stripes.wants_help]
        best = max(loads, key=lambda load: load.stripes.left, default=None)
        return best if best and best.stripes.left >= HELPED else None

    def help(self, load: Load, links: Links, overseer: Overseer) -> None:
        """Help to carry a file, until there is no more to do or something else waits."""
        if not self.joined(links):
            return
        try:
            link = links.connected(target(self._settings, Routing(), self._account))
            link.help(load.name, load.source, load.stripes, overseer.waits)
        except LpxferError:  # who carries it sees what is wrong
            links.close()
            load.stripes.alone = True

    def measure(self, now: float, working: int) -> None:
        """Look at the rate, with so many connections at work (monotonic seconds)."""
        with self._lock:
            carried = self._carried + sum(load.carried for load in self._loads)
            if working and now > self._measured:
                self._history.add(now, max(0, carried - self._before), now - self._measured)
            self._measured, self._before = now, carried
            if working >= self._crew.size:
                self._crew.busy(now, carried)
            else:
                self._crew.idle(now, carried)

    def opens(self, now: float, waiting: int, head: tuple[int, float] | None) -> float:
        """Tell when a further transfer may begin; at once if that is not after `now`.

        `waiting` jobs wait, and `head` are the highest priority among those that may go and the
        seconds that the first has waited, None when none may. Their bytes are not known, and are
        reckoned from those that went before.
        """
        if head is None:
            return math.inf
        with self._lock:
            mean = self._carried // self._over if self._over else pace.ENOUGH_MOST
            rates = self._history.rates(now)
            seen = pace.Observation(
                time=now,
                waiting=min(1 + waiting * mean, pace.ENOUGH_MOST),
                oldest=head[1],
                active=len(self._loads),
                mean=rates.mean,
                deviation=rates.deviation,
                delay=self._delay,
                priority=head[0],
                failures=self._failures,
            )
            self._pace, decision = pace.decide(self._pace, seen)
        return now if decision.send else decision.until

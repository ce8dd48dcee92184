"""Who does what next: which of a queue's connections takes which job, or looks at the receipts.

Every worker asks for something to do and says when that is done. Who has nothing to do sleeps until
somebody begins or ends something, or until `tick` sees that there is something: many
connections that wait cost no more than one. Only one thread, the sender's main one, reads the
spool's index, the Agenda. For many threads.
"""

import math
import threading
import time
from collections.abc import Callable
from datetime import datetime
from itertools import chain

from lpxfer.formats.bundle import MEMBERS_MOST
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.rhythm import Rhythm
from lpxfer.stores.agenda import Agenda
from lpxfer.stores.queue import Queue
from lpxfer.transports.attempt import Load
from lpxfer.transports.bundler import LEAST, SMALL
from lpxfer.transports.health import Health
from lpxfer.transports.target import Links
from lpxfer.transports.team import Team

TICK = 1.0  # seconds; a job gives way at most once in that time, and a single pass looks as often
IDLE = 60.0  # seconds an unused connection is kept

#: What a worker may do beside sending a job; no request id looks like these.
RECEIPTS, GREETING = "(receipts)", "(greeting)"

#: A job's id, several of small jobs, one of these words, or a file that another worker carries.
Item = str | tuple[str, ...] | Load


class Roster:
    """What is to be done for one queue, and who is at it."""

    def __init__(
        self,
        queue: Queue,
        settings: QueueConfig,
        team: Team,
        health: Health,
        clock: Callable[[], datetime],
    ) -> None:
        """Know the queue; with `once` set, workers end when nothing is left to do."""
        self._settings, self._team, self._health, self._clock = settings, team, health, clock
        self.agenda = Agenda(queue, clock())
        self.once = self.stopping = False
        self.confirms = settings.confirm == "receipt"
        self._changed = threading.Condition()  # guards what follows, and the agenda's jobs
        self._working: list[Item] = []
        self._probe: Item = ""  # what the one worker does that tries a link which is down
        self._looks = Rhythm()  # at the receipts
        self._yielded_at = -math.inf  # when a job was last told to give way
        self._opens_at = 0.0  # when a further transfer may begin

    # --- the main thread ------------------------------------------------------------------

    def scan(self) -> None:
        """Bring the agenda up to date with pending/ and the queue's switch."""
        found = self.agenda.read(self._clock(), at_once=self.once)
        with self._changed:
            self.agenda.update(found)
            if found.jobs:
                self._changed.notify_all()

    def tick(self) -> None:
        """Wake those who sleep if time alone has given them something to do."""
        with self._changed:
            looks = self.confirms and self._looks.due(time.monotonic())
            if looks or self._health.link.down or self.agenda.has_ready(self._clock()):
                self._changed.notify_all()

    def recover(self, queue: Queue) -> None:
        """Put jobs back to pending that nobody works on."""
        with self._changed:
            queue.recover(self._clock(), [*chain(*map(jobs, self._working))])

    def stop(self) -> None:
        """Give nobody anything more to do."""
        with self._changed:
            self.stopping = True
            self._changed.notify_all()

    # --- the workers ------------------------------------------------------------------------

    def take(self, links: Links, number: int) -> Item | None:
        """Wait for something to do; None to end. `number` counts the workers from 0."""
        idle_until = time.monotonic() + IDLE
        with self._changed:
            while not self.stopping:
                if (item := self.choose(number)) is not None:
                    return item
                if self.once and not self._working:
                    break
                now = time.monotonic()
                if now >= idle_until:
                    links.close()
                    idle_until = math.inf
                soon = (at for at in (self._opens_at, self._looks.at) if at > now)
                most = TICK if self.once else IDLE
                self._changed.wait(min(min(soon, default=math.inf) - now, idle_until - now, most))
            self._changed.notify_all()
            return None

    def choose(self, number: int = 0) -> Item | None:
        """Take what a worker should do now; None for nothing."""
        now = time.monotonic()
        self._team.measure(now, len(self._working))
        if self._health.link.down and (self.once or self._probe):
            return None
        item: Item | None = None
        look_due = self.confirms and not self.once and self._looks.due(now)
        if look_due and self._health.receipts.may_try(now):
            item = RECEIPTS
            self._looks.begin(now)
        elif not self._health.link.may_try(now):
            item = GREETING if self._health.link.may_greet(now) else None
        elif number < self._team.size:
            item = self._next(now) or self._team.to_help()
        if item is not None:
            self._probe = item if self._health.link.down else ""
            self._working.append(item)
        return item

    def _next(self, now: float) -> Item | None:
        """Take the next job; or as many small ones as are this connection's share."""
        wall = self._clock()
        if not self.once:
            self._opens_at = self._team.opens(now, len(self.agenda), self.agenda.head(wall))
            if self._opens_at > now:
                return None
        share = min(len(self.agenda) // self._team.size, MEMBERS_MOST)
        if share >= LEAST and self._settings.transport != "local":
            small = self.agenda.pop_small(wall, share, SMALL)
            if len(small) >= LEAST:
                return tuple(small)
            self.agenda.put_back(*small)
        return self.agenda.pop(wall)

    def done(self, item: Item) -> None:
        """Take note that something is done."""
        with self._changed:
            self._working.remove(item)
            self._probe = "" if self._probe == item else self._probe
            self._changed.notify_all()

    # --- while something is carried ---------------------------------------------------------

    def outranks(self, priority: int) -> bool:
        """Tell whether a job of this priority has to give way: nobody is free for a higher one.

        Who only helps leaves by himself, if his connection lets him: he has a while for that.
        """
        with self._changed:
            now = time.monotonic()
            self._team.measure(now, len(self._working))
            self._changed.notify_all()
            before = now - self._yielded_at
            if len(self._working) < self._team.size or before < TICK:
                return False  # one that gives way is enough
            if not self.agenda.waiting_above(priority, self._clock()):
                return False
            self._yielded_at = now
            helped = any(isinstance(item, Load) for item in self._working)
            return not helped or before < 2 * TICK

    def waits(self) -> bool:
        """Tell whether a job waits for a connection."""
        with self._changed:
            return self.agenda.has_ready(self._clock())

    def put_back(self, *job_ids: str) -> None:
        """Let jobs that were taken wait again, where they were."""
        with self._changed:
            self.agenda.put_back(*job_ids)

    def put_last(self, job_id: str) -> None:
        """Let a job wait at the end of its priority when it comes back."""
        with self._changed:
            self.agenda.put_last(job_id)

    def bar(self, job_id: str) -> int:
        """Leave a job alone that cannot be claimed; return how many there are."""
        with self._changed:
            return self.agenda.bar(job_id)

    def wake(self) -> None:
        """Let all who sleep look again: the link has changed."""
        with self._changed:
            self._changed.notify_all()

    # --- receipts ---------------------------------------------------------------------------

    def sent(self) -> None:
        """Take note that something was sent, so that its receipt is looked for soon."""
        with self._changed:
            self._looks.sent(time.monotonic())

    def looked(self, left: bool) -> None:
        """Take note of a look at the receipts; with `left` something waits for one still."""
        with self._changed:
            self._looks.end(time.monotonic(), left)


def jobs(item: Item) -> tuple[str, ...]:
    """Return the ids of the jobs that an item is about."""
    if isinstance(item, tuple):
        return item
    return (item,) if isinstance(item, str) and item not in (RECEIPTS, GREETING) else ()

"""Send: take jobs from the spool to the archive site's incoming, for as long as it takes.

One Sender serves one queue and holds its lock. Its workers carry one job each over a
connection of their own, which they keep, or help another to carry a large file; Team says how
many work. Only the main thread reads the spool's index, the Agenda.

Guarantees: after a crash `recover` puts active jobs back to pending. What concerns the link
stops the queue and blames no job (LinkState); a stop gives every job back. What becomes of
one job is decided in transports/carry.py.
"""

import math
import os
import select
import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from itertools import chain

from lpxfer import durable
from lpxfer.errors import AttemptError, BusyError, LinkError
from lpxfer.formats import backoff
from lpxfer.formats.bundle import MEMBERS_MOST
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.job import State
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.rhythm import Rhythm
from lpxfer.stores.agenda import Agenda
from lpxfer.stores.spool import Queue
from lpxfer.transports.accepts_known import AcceptsKnown
from lpxfer.transports.attempt import Load, Overseer
from lpxfer.transports.bundler import LEAST, SMALL, Bundler
from lpxfer.transports.carry import Carrier, FindReceipt, Unclaimable
from lpxfer.transports.health import Health
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.target import PROBE, Links, Target, greets
from lpxfer.transports.team import Team
from lpxfer.transports.transport import Transport

TICK = 1.0  # seconds the main thread sleeps at most; well below systemd's WatchdogSec
RECOVER = 30.0  # seconds between looks at the spool that nobody asked for
IDLE = 60.0  # seconds an unused connection is kept
BARRED_SAID = 10  # of the directories that cannot be claimed, so many are named
GRACE = 5.0  # seconds a stopping sender lets transfers end by themselves

#: What a worker may do beside sending a job; no request id looks like these.
RECEIPTS, GREETING = "(receipts)", "(greeting)"

#: A job's id, several of small jobs, one of these words, or a file that another worker carries.
Item = str | tuple[str, ...] | Load

#: Where jobs stand for whom receipts may come.
MAY_BE_ARCHIVED = (State.SENT, State.FAILED, State.HELD)

#: The confirm step: reads receipts and returns how many jobs are still in sent/.
ConfirmStep = Callable[[Callable[[Target], Transport], datetime], int]


class Sender:
    """Serves one queue."""

    def __init__(
        self,
        queue: Queue,
        settings: QueueConfig,
        account: str,
        confirm: ConfirmStep,
        find_receipt: FindReceipt,
        say: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        """Know the queue and its settings; `say` takes one line for the operator's log."""
        self._queue, self._settings, self._account = queue, settings, account
        self._confirm_step, self._say, self._clock = confirm, say, clock
        self._health = Health(queue.name, say)
        self._team = team = Team(settings, account, Limiter(settings.rate, clock))
        moves, outranks, waits = self._link_moves, self._outranks, self._waits
        self._overseer = overseer = Overseer(
            team.reached, moves, team.begins, team.ends, outranks, waits, team.rate
        )
        accepts = AcceptsKnown(clock)
        self._bundler = Bundler(queue, settings, account, accepts, overseer, clock)
        self._carrier = Carrier(
            queue,
            settings,
            account,
            find_receipt,
            overseer,
            accepts,
            put_last=self._put_last,
            link_works=lambda: self._works(self._health.link),
            say=say,
            clock=clock,
        )
        self._confirms = settings.confirm == "receipt"
        self._changed = threading.Condition()  # guards everything below
        self._agenda = Agenda(queue, clock())
        self._working: list[Item] = []
        self._stopping = self._once = False
        self._probe: Item = ""  # what the one worker does that tries a link which is down
        self._looks = Rhythm()  # at the receipts
        self._yielded_at = -math.inf  # when a job was last told to give way
        self._opens_at = 0.0  # when a further transfer may begin

    # --- the main thread ------------------------------------------------------------------

    def once(self) -> int:
        """Make one pass and return how many jobs are left to send or to confirm.

        Raises BusyError when another sender serves the queue.
        """
        self._once = True
        with self._queue.locked():
            self._queue.recover(self._clock())
            self._scan()
            while self._agenda.has_ready(self._clock()) and not self._health.link.down:
                for worker in self._start_workers():
                    worker.join()
                if self._health.spool_fault:
                    break
                self._scan()
            if not self._agenda.enabled:
                reason = printable(self._queue.switches().enabled_reason)
                self._say(f"queue {self._queue.name} is disabled: {reason}")
            if self._confirms:
                links = Links(self._settings, PROBE if self._health.link.down else 0.0)
                self._confirm(links)
                links.close()
            left = (State.PENDING, State.SENT, State.ACTIVE)
            return sum(1 for state in left for _ in self._queue.ids(state))

    def serve(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Send until `stop` is set; `beat` is called about every second.

        Raises BusyError when another sender serves the queue.
        """
        with self._queue.locked():
            self._queue.recover(self._clock())
            wake = self._queue.open_wake()
            workers = self._start_workers()
            counting = (stop, self._clock, self._say)
            threading.Thread(target=self._queue.counter().run, args=counting, daemon=True).start()
            try:
                self._loop(wake, stop, beat)
            finally:
                os.close(wake)
                self._stop(workers)

    def _loop(self, wake: int, stop: threading.Event, beat: Callable[[], None]) -> None:
        poll = select.poll()  # select would not take a descriptor above 1023
        poll.register(wake, select.POLLIN)
        next_recover = 0.0
        while not stop.is_set():
            beat()
            if recover := time.monotonic() >= next_recover:
                next_recover = time.monotonic() + RECOVER
            self._look(recover)
            if poll.poll(0 if self._agenda.unfinished else TICK * 1000):
                self._agenda.hear(wake)

    def _look(self, recover: bool) -> None:
        """Look at the spool; with `recover` also for what a failing disk has left half done."""
        try:
            if recover:
                with self._changed:
                    self._queue.recover(self._clock(), [*chain(*map(_jobs, self._working))])
            self._scan()
            self._health.spool_works(RECOVER + TICK)
        except OSError as error:
            self._health.spool_fails(self._queue.root, error)

    def _scan(self) -> None:
        """Bring the agenda up to date with pending/ and the queue's switch."""
        found = self._agenda.read(self._clock(), at_once=self._once)
        with self._changed:
            self._agenda.update(found)
            if found.jobs:
                self._changed.notify_all()

    def _start_workers(self) -> list[threading.Thread]:
        count = self._settings.connections
        workers = [threading.Thread(target=self._work, args=[n], daemon=True) for n in range(count)]
        for worker in workers:
            worker.start()
        return workers

    def _stop(self, workers: list[threading.Thread]) -> None:
        """Let transfers end for a moment, then cut them; their jobs go back to pending."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + GRACE
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        self._team.cut("the sender is stopping")
        for worker in workers:
            worker.join(GRACE)

    # --- the workers ------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        links = self._team.join()
        try:
            while (item := self._take(links, number)) is not None:
                self._do(item, links)
        finally:
            self._team.leave(links)

    def _do(self, item: Item, links: Links) -> None:
        """Do what was taken, whatever comes of it."""
        try:
            if isinstance(item, Load):
                self._team.help(item, links, self._overseer)
            elif item == RECEIPTS:
                self._confirm(links)
            elif item == GREETING:
                self._health.greeted(greets(self._settings, self._account))
            elif not self._team.joined(links):
                self._put_back(*_jobs(item))
            elif isinstance(item, tuple):
                self._send_many(item, links)
            else:
                self._send(item, links)
        except Exception as error:  # noqa: BLE001 - the loop must go on; the job is named
            if isinstance(error, OSError) and durable.is_disk_fault(error):
                self._health.spool_fails(self._queue.root, error)
            else:
                self._say(f"{_jobs(item) or item}: unexpected\n{traceback.format_exc()}")
            links.close()
        finally:
            self._done(item)

    def _take(self, links: Links, number: int = 0) -> Item | None:
        """Wait for something to do; None to end. `number` counts the workers from 0."""
        idle_since = time.monotonic()
        with self._changed:
            while not self._stopping:
                if (item := self._choose(number)) is not None:
                    return item
                if self._once and not self._working:
                    break
                now = time.monotonic()
                if now - idle_since > IDLE:
                    links.close()
                soon = self._opens_at - now
                self._changed.wait(soon if 0 < soon < TICK else TICK)
            self._changed.notify_all()
            return None

    def _choose(self, number: int = 0) -> Item | None:
        now = time.monotonic()
        self._team.measure(now, len(self._working))
        if self._health.link.down and (self._once or self._probe):
            return None
        item: Item | None = None
        look_due = self._confirms and not self._once and self._looks.due(now)
        if look_due and self._health.receipts.may_try(now):
            item = RECEIPTS
            self._looks.begin()
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
        if not self._once:
            self._opens_at = self._team.opens(now, len(self._agenda), self._agenda.head(wall))
            if self._opens_at > now:
                return None
        share = min(len(self._agenda) // self._team.size, MEMBERS_MOST)
        if share >= LEAST and self._settings.transport != "local":
            small = self._agenda.pop_small(wall, share, SMALL)
            if len(small) >= LEAST:
                return tuple(small)
            self._agenda.put_back(*small)
        return self._agenda.pop(wall)

    def _done(self, item: Item) -> None:
        with self._changed:
            self._working.remove(item)
            self._probe = "" if self._probe == item else self._probe
            self._changed.notify_all()

    def _outranks(self, priority: int) -> bool:
        """Tell whether a job of this priority has to give way: nobody is free for a higher one."""
        with self._changed:
            now = time.monotonic()
            self._team.measure(now, len(self._working))
            self._changed.notify_all()
            free = len(self._working) < self._team.size
            if free or now - self._yielded_at < TICK:
                return False  # one that gives way is enough
            if outranked := self._agenda.waiting_above(priority, self._clock()):
                self._yielded_at = now
            return outranked

    def _waits(self) -> bool:
        """Tell whether a job waits for a connection."""
        with self._changed:
            return self._agenda.has_ready(self._clock())

    def _confirm(self, links: Links) -> None:
        """Read receipts; look again soon while jobs go out, and seldom when none is waiting."""
        left = 1
        for _ in range(2):
            try:
                left = 0
                if any(self._queue.any(state) for state in MAY_BE_ARCHIVED):
                    left = self._confirm_step(links.connected, self._clock())
                    self._works(self._health.receipts)
                break
            except (LinkError, AttemptError) as error:
                links.close()
                if links.fresh:  # else it had been idle: the far end may have restarted
                    self._fails(self._health.receipts, str(error))
                    break
            finally:
                with self._changed:
                    self._looks.end(time.monotonic(), bool(left))

    def _send_many(self, job_ids: tuple[str, ...], links: Links) -> None:
        """Send small jobs in bundles, and those that fit into none one by one."""
        try:
            singly, sent = self._bundler.carry(job_ids, links)
        except LinkError as error:
            self._fails(self._health.link, str(error))
            self._put_back(*job_ids)
            return
        if sent:
            self._works(self._health.link)
            with self._changed:
                self._looks.sent(time.monotonic())
        for at, job_id in enumerate(singly):
            if self._stopping or self._health.link.down:
                self._put_back(*singly[at:])
                return
            self._send(job_id, links)

    def _send(self, job_id: str, links: Links) -> None:
        """Make one attempt at a job, and take note of what it shows about the link."""
        try:
            sent = self._carrier.carry(job_id, links, self._agenda.rank(job_id))
        except LinkError as error:
            self._fails(self._health.link, str(error))
            return
        except BusyError:  # whoever keeps it wakes the sender, which may have ended by then
            if self._once:
                with self._changed:
                    self._agenda.bar(job_id)
            return
        except Unclaimable as error:
            with self._changed:
                count = self._agenda.bar(job_id)
            if count <= BARRED_SAID:
                others = "; so may others be" if count == BARRED_SAID else ""
                self._say(printable(f"{error}{others}"))
            return
        with self._changed:
            if sent:
                self._looks.sent(time.monotonic())

    def _put_back(self, *job_ids: str) -> None:
        with self._changed:
            self._agenda.put_back(*job_ids)

    def _put_last(self, job_id: str) -> None:
        with self._changed:
            self._agenda.put_last(job_id)

    def _fails(self, state: backoff.LinkState, reason: str) -> None:
        if self._stopping:
            return
        self._health.fails(state, reason)
        if state is self._health.link:
            self._team.failed()

    def _works(self, state: backoff.LinkState) -> None:
        self._health.works(state)
        with self._changed:
            self._changed.notify_all()

    def _link_moves(self) -> None:
        self._health.moves()
        with self._changed:
            self._changed.notify_all()


def _jobs(item: Item) -> tuple[str, ...]:
    """Return the ids of the jobs that an item is about."""
    if isinstance(item, tuple):
        return item
    return (item,) if isinstance(item, str) and item not in (RECEIPTS, GREETING) else ()

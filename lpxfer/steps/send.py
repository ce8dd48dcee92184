"""Send: take jobs from the spool to the archive site's incoming, for as long as it takes.

One Sender serves one queue and holds its lock. Its workers carry one job each over a
connection of their own, which they keep, or help another to carry a large file. Roster says
what each does next, Team how many work.

Guarantees: after a crash `recover` puts active jobs back to pending. What concerns the link
stops the queue and blames no job (LinkState); a stop gives every job back. What becomes of
one job is decided in transports/carry.py.
"""

import os
import select
import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime

from lpxfer import durable
from lpxfer.errors import AttemptError, BusyError, LinkError
from lpxfer.formats import backoff
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.job import State
from lpxfer.formats.keyvalue import printable
from lpxfer.stores.spool import Queue
from lpxfer.transports.accepts_known import AcceptsKnown
from lpxfer.transports.attempt import Load, Overseer
from lpxfer.transports.bundler import Bundler
from lpxfer.transports.carry import Carrier, FindReceipt, Unclaimable
from lpxfer.transports.health import Health
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.roster import GREETING, RECEIPTS, Item, Roster, jobs
from lpxfer.transports.target import PROBE, Links, Target, greets
from lpxfer.transports.team import Team
from lpxfer.transports.transport import Transport

TICK = 1.0  # seconds the main thread sleeps at most; well below systemd's WatchdogSec
RECOVER = 30.0  # seconds between looks at the spool that nobody asked for
BARRED_SAID = 10  # of the directories that cannot be claimed, so many are named
GRACE = 5.0  # seconds a stopping sender lets transfers end by themselves

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
        arrived: Callable[[str], None] = lambda inst: None,
    ) -> None:
        """Know the queue and its settings; `say` takes one line for the operator's log.

        `arrived` is told of the instrument of what is committed; it may take no time.
        """
        self._queue, self._settings, self._account = queue, settings, account
        self._confirm_step, self._say, self._clock = confirm, say, clock
        self._health = Health(queue.name, say)
        self._team = team = Team(settings, account, Limiter(settings.rate, clock))
        self._roster = roster = Roster(queue, settings, team, self._health, clock)
        moves, outranks, waits = self._link_moves, roster.outranks, roster.waits
        self._overseer = overseer = Overseer(
            team.reached, moves, team.begins, team.ends, outranks, waits, team.rate, arrived
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
            put_last=roster.put_last,
            link_works=lambda: self._works(self._health.link),
            say=say,
            clock=clock,
        )

    # --- the main thread ------------------------------------------------------------------

    def once(self) -> int:
        """Make one pass and return how many jobs are left to send or to confirm.

        Raises BusyError when another sender serves the queue.
        """
        roster = self._roster
        roster.once = True
        with self._queue.locked():
            self._queue.recover(self._clock())
            roster.scan()
            while roster.waits() and not self._health.link.down:
                for worker in self._start_workers():
                    worker.join()
                if self._health.spool_fault:
                    break
                roster.scan()
            if not roster.agenda.enabled:
                reason = printable(self._queue.switches().enabled_reason)
                self._say(f"queue {self._queue.name} is disabled: {reason}")
            if roster.confirms:
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
            self._roster.tick()
            if poll.poll(0 if self._roster.agenda.unfinished else TICK * 1000):
                self._roster.agenda.hear(wake)

    def _look(self, recover: bool) -> None:
        """Look at the spool; with `recover` also for what a failing disk has left half done."""
        try:
            if recover:
                self._roster.recover(self._queue)
            self._roster.scan()
            self._health.spool_works(RECOVER + TICK)
        except OSError as error:
            self._health.spool_fails(self._queue.root, error)

    def _start_workers(self) -> list[threading.Thread]:
        count = self._settings.connections
        workers = [threading.Thread(target=self._work, args=[n], daemon=True) for n in range(count)]
        for worker in workers:
            worker.start()
        return workers

    def _stop(self, workers: list[threading.Thread]) -> None:
        """Let transfers end for a moment, then cut them; their jobs go back to pending."""
        self._roster.stop()
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
            while (item := self._roster.take(links, number)) is not None:
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
                self._roster.put_back(*jobs(item))
            elif isinstance(item, tuple):
                self._send_many(item, links)
            else:
                self._send(item, links)
        except Exception as error:  # noqa: BLE001 - the loop must go on; the job is named
            if isinstance(error, OSError) and durable.is_disk_fault(error):
                self._health.spool_fails(self._queue.root, error)
            else:
                self._say(f"{jobs(item) or item}: unexpected\n{traceback.format_exc()}")
            links.close()
        finally:
            self._roster.done(item)

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
                self._roster.looked(bool(left))

    def _send_many(self, job_ids: tuple[str, ...], links: Links) -> None:
        """Send small jobs in bundles, and those that fit into none one by one."""
        try:
            singly, sent = self._bundler.carry(job_ids, links)
        except LinkError as error:
            self._fails(self._health.link, str(error))
            self._roster.put_back(*job_ids)
            return
        if sent:
            self._works(self._health.link)
            self._roster.sent()
        for at, job_id in enumerate(singly):
            if self._roster.stopping or self._health.link.down:
                self._roster.put_back(*singly[at:])
                return
            self._send(job_id, links)

    def _send(self, job_id: str, links: Links) -> None:
        """Make one attempt at a job, and take note of what it shows about the link."""
        try:
            sent = self._carrier.carry(job_id, links, self._roster.agenda.rank(job_id))
        except LinkError as error:
            self._fails(self._health.link, str(error))
            return
        except BusyError:  # whoever keeps it wakes the sender, which may have ended by then
            if self._roster.once:
                self._roster.bar(job_id)
            return
        except Unclaimable as error:
            count = self._roster.bar(job_id)
            if count <= BARRED_SAID:
                others = "; so may others be" if count == BARRED_SAID else ""
                self._say(printable(f"{error}{others}"))
            return
        if sent:
            self._roster.sent()

    def _fails(self, state: backoff.LinkState, reason: str) -> None:
        if self._roster.stopping:
            return
        self._health.fails(state, reason)
        if state is self._health.link:
            self._team.failed()

    def _works(self, state: backoff.LinkState) -> None:
        self._health.works(state)
        self._roster.wake()

    def _link_moves(self) -> None:
        self._health.moves()
        self._roster.wake()

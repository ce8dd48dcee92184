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

from lpxfer import durable
from lpxfer.errors import AttemptError, BusyError, LinkError, LpxferError
from lpxfer.formats import backoff
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.job import Routing, State
from lpxfer.formats.keyvalue import printable
from lpxfer.stores.agenda import Agenda
from lpxfer.stores.spool import Queue
from lpxfer.transports.attempt import Load, Overseer
from lpxfer.transports.carry import Carrier, FindReceipt, Unclaimable
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.target import PROBE, Links, Target, greets, target
from lpxfer.transports.team import Team
from lpxfer.transports.transport import Transport

TICK = 1.0  # seconds the main thread sleeps at most; well below systemd's WatchdogSec
RECOVER = 30.0  # seconds between looks at the spool that nobody asked for
IDLE = 60.0  # seconds an unused connection is kept
BARRED_SAID = 10  # of the directories that cannot be claimed, so many are named
GRACE = 5.0  # seconds a stopping sender lets transfers end by themselves
CONFIRM_FIRST, CONFIRM_MOST = 1.0, 30.0  # seconds between looks at the receipts

#: What a worker may do beside sending a job; no request id looks like these.
RECEIPTS, GREETING = "(receipts)", "(greeting)"

#: A job's id, one of these, or a file that another worker carries.
Item = str | Load

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
        self._team = team = Team(settings.connections, helps=settings.transport != "local")
        overseer = Overseer(
            team.reached, self._link_moves, team.begins, team.ends, self._outranks, team.rate
        )
        self._carrier = Carrier(
            queue,
            settings,
            account,
            find_receipt,
            overseer,
            put_last=self._put_last,
            link_works=lambda: self._works(self._link),
            say=say,
            clock=clock,
        )
        self._confirms = settings.confirm == "receipt"
        self._changed = threading.Condition()  # guards everything below
        self._agenda, self._limiter = Agenda(queue, clock()), Limiter(settings.rate, clock)
        self._working: list[Item] = []
        self._links: list[Links] = []
        self._stopping = self._once = False
        self._probe: Item = ""  # what the one worker does that tries a link which is down
        # What takes files and what gives receipts may fail apart: a full incoming, say.
        self._link, self._receipts = backoff.LinkState(), backoff.LinkState()
        self._spool_fault, self._fault_at = "", 0.0  # what the operator was told of its disk
        self._confirm_at, self._confirm_wait = 0.0, CONFIRM_FIRST

    # --- the main thread ------------------------------------------------------------------

    def once(self) -> int:
        """Make one pass and return how many jobs are left to send or to confirm.

        Raises BusyError when another sender serves the queue.
        """
        self._once = True
        with self._queue.locked():
            self._queue.recover(self._clock())
            self._scan()
            while self._agenda.has_ready(self._clock()) and not self._link.down:
                for worker in self._start_workers():
                    worker.join()
                if self._spool_fault:
                    break
                self._scan()
            if not self._agenda.enabled:
                reason = printable(self._queue.switches().enabled_reason)
                self._say(f"queue {self._queue.name} is disabled: {reason}")
            if self._confirms:
                links = Links(self._settings, PROBE if self._link.down else 0.0)
                self._confirm(links)
                links.close()
            left = (State.PENDING, State.SENT, State.ACTIVE)
            return sum(len(self._queue.entries(state)) for state in left)

    def serve(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Send until `stop` is set; `beat` is called about every second.

        Raises BusyError when another sender serves the queue.
        """
        with self._queue.locked():
            self._queue.recover(self._clock())
            wake = self._queue.open_wake()
            workers = self._start_workers()
            try:
                self._loop(wake, stop, beat)
            finally:
                os.close(wake)
                self._stop(workers)

    def _loop(self, wake: int, stop: threading.Event, beat: Callable[[], None]) -> None:
        poll = select.poll()  # select would not take a descriptor above 1023
        poll.register(wake, select.POLLIN)
        next_scan = next_recover = 0.0
        asked = True
        while not stop.is_set():
            beat()
            now = time.monotonic()
            if (asked and now >= next_scan) or now >= next_recover:
                asked = False
                recover = now >= next_recover
                next_recover = now + RECOVER if recover else next_recover
                self._look(recover)
                # a long look is not repeated at once: at most a tenth of the time goes to it
                next_scan = time.monotonic() + 10 * (time.monotonic() - now)
            if poll.poll(TICK * 1000):
                asked = bool(os.read(wake, 4096))

    def _look(self, recover: bool) -> None:
        """Look at the spool; with `recover` also for what a failing disk has left half done."""
        try:
            if recover:
                with self._changed:
                    self._queue.recover(self._clock(), [str(item) for item in self._working])
            self._scan()
            if time.monotonic() - self._fault_at > RECOVER + TICK:
                self._spool_fault = ""  # it has been tried since, and has not come again
        except OSError as error:
            self._spool_fails(error)

    def _scan(self) -> None:
        """Bring the agenda up to date with pending/ and the queue's switch."""
        found = self._agenda.read()
        with self._changed:
            self._agenda.update(*found, self._clock())
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
        for links in list(self._links):
            links.cut("the sender is stopping")
        for worker in workers:
            worker.join(GRACE)

    # --- the workers ------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        links = Links(self._settings, limiter=self._limiter)
        self._links.append(links)
        try:
            while (item := self._take(links, number)) is not None:
                self._do(item, links)
        finally:
            links.close()
            self._links.remove(links)

    def _do(self, item: Item, links: Links) -> None:
        """Do what was taken, whatever comes of it."""
        try:
            if isinstance(item, Load):
                self._help(item, links)
            elif item == RECEIPTS:
                self._confirm(links)
            elif item == GREETING:
                self._greet()
            elif self._joined(links):
                self._send(item, links)
        except Exception as error:  # noqa: BLE001 - the loop must go on; the job is named
            if isinstance(error, OSError) and durable.is_disk_fault(error):
                self._spool_fails(error)
            else:
                self._say(f"{item}: unexpected\n{traceback.format_exc()}")
            links.close()
        finally:
            self._done(item)

    def _take(self, links: Links, number: int = 0) -> Item | None:
        """Wait for something to do; None to end. `number` counts the workers from 0."""
        idle_since = time.monotonic()
        with self._changed:
            while not self._stopping:
                item = self._choose(number)
                if item is not None:
                    return item
                if self._once and not self._working:
                    break
                if time.monotonic() - idle_since > IDLE:
                    links.close()
                self._changed.wait(TICK)
            self._changed.notify_all()
            return None

    def _choose(self, number: int = 0) -> Item | None:
        now = time.monotonic()
        self._team.measure(now, len(self._working))
        if self._link.down and (self._once or self._probe):
            return None
        item: Item | None = None
        confirm_due = self._confirms and not self._once and now >= self._confirm_at
        if confirm_due and self._receipts.may_try(now):
            item, self._confirm_at = RECEIPTS, math.inf  # until this look is over
        elif not self._link.may_try(now):
            item = GREETING if self._link.may_greet(now) else None
        elif number < self._team.size:
            item = self._agenda.pop(self._clock()) or self._team.to_help()
        if item is not None:
            self._probe = item if self._link.down else ""
            self._working.append(item)
        return item

    def _done(self, item: Item) -> None:
        with self._changed:
            self._working.remove(item)
            self._probe = "" if self._probe == item else self._probe
            self._changed.notify_all()

    def _joined(self, links: Links) -> bool:
        """Tell whether this worker may carry jobs: it has a connection, or nobody else has.

        Where others have one, the link is not down because this worker gets none: the server
        takes no more, and for a while no more are tried.
        """
        if links.up or not any(other.up for other in self._links):
            return True
        try:
            links.connected(target(self._settings, Routing(), self._account))
        except LinkError:
            self._team.refused(time.monotonic(), sum(other.up for other in self._links))
            self._queue.wake()  # somebody else takes the job
            return False
        return True

    def _help(self, load: Load, links: Links) -> None:
        """Help to carry a file, until there is no more to do or something more urgent."""
        if self._joined(links):
            try:
                link = links.connected(target(self._settings, Routing(), self._account))
                link.help(load.name, load.source, load.stripes, self._wanted)
            except LpxferError:  # who carries it sees what is wrong
                links.close()
                load.stripes.alone = True

    # --- what the carriers tell and ask -------------------------------------------------------

    def _outranks(self, priority: int) -> bool:
        """Tell whether a job of this priority has to give way: nobody is free for a higher one."""
        with self._changed:
            self._team.measure(time.monotonic(), len(self._working))
            self._changed.notify_all()
            free = len(self._working) < self._team.size
            return not free and self._agenda.waiting_above(priority, self._clock())

    def _wanted(self) -> bool:
        """Tell whether a helper has something else to do: a job waits."""
        with self._changed:
            return self._agenda.has_ready(self._clock())

    def _greet(self) -> None:
        """See whether the far end answers; a link that is back is tried at once."""
        answers = greets(self._settings, self._account)
        with self._changed:
            self._link.greeted(answers)
            self._receipts.greeted(answers)

    def _confirm(self, links: Links) -> None:
        """Read receipts; look again soon while jobs go out, and seldom when none is waiting."""
        left = 1
        for _ in range(2):
            try:
                left = 0
                if any(self._queue.entries(state) for state in MAY_BE_ARCHIVED):
                    left = self._confirm_step(links.connected, self._clock())
                    self._works(self._receipts)
                break
            except (LinkError, AttemptError) as error:
                links.close()
                if links.fresh:  # else it had been idle: the far end may have restarted
                    self._fails(self._receipts, str(error))
                    break
            finally:
                with self._changed:
                    self._confirm_wait = min(self._confirm_wait * 2, CONFIRM_MOST)
                    wait = self._confirm_wait if left else CONFIRM_MOST
                    self._confirm_at = time.monotonic() + wait

    def _send(self, job_id: str, links: Links) -> None:
        """Make one attempt at a job, and take note of what it shows about the link."""
        try:
            sent = self._carrier.carry(job_id, links, self._agenda.rank(job_id))
        except LinkError as error:
            self._fails(self._link, str(error))
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
                self._confirm_wait = CONFIRM_FIRST
                self._confirm_at = min(self._confirm_at, time.monotonic() + CONFIRM_FIRST)

    def _spool_fails(self, error: OSError) -> None:
        """Say that the spool's disk fails, once; the sender is there when it works again."""
        reason = error.strerror or str(error)
        with self._changed:
            known, self._spool_fault = self._spool_fault == reason, reason
            self._fault_at = time.monotonic()
        if not known:
            self._say(
                f"queue {self._queue.name}: the spool {self._queue.root} failed: {reason}; "
                "its jobs wait until that is mended"
            )

    def _put_last(self, job_id: str) -> None:
        with self._changed:
            self._agenda.put_last(job_id)

    def _fails(self, state: backoff.LinkState, reason: str) -> None:
        """Let what needs the link wait; say why, once for as long as it stays the same."""
        with self._changed:
            if self._stopping:
                return
            known = reason in (self._link.reason, self._receipts.reason)
            state.failed(time.monotonic(), reason)
        if not known:
            self._say(f"queue {self._queue.name}: {printable(reason)}; its jobs wait")

    def _works(self, state: backoff.LinkState) -> None:
        with self._changed:
            was_wrong = state.works()
            self._changed.notify_all()
            wrong = self._link.reason or self._receipts.reason
        if was_wrong and not wrong:
            self._say(f"queue {self._queue.name}: the link works again")

    def _link_moves(self) -> None:
        with self._changed:
            self._link.moves()
            self._changed.notify_all()

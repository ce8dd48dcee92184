"""Carry one job: claim it, make one attempt, and put it where the outcome says.

    sent          it is in incoming, and waits for its receipt
    pending       the link failed (no job is blamed), or the attempt did: with progress it goes
                  to the end of its priority at once, without it waits, longer each time. A lost
                  connection is nobody's fault, unless it is lost with this job again and again.
                  One that gave way to a more urgent job keeps its place
    failed        it cannot be sent as it is; reason and data are kept
    quarantined   it is no proper job; it is set aside
    held, done/   somebody asked for it before it was committed

Guarantees: a job leaves active/ only for one of these; temporary never becomes failed; a
crash leaves it in active/, from where the next sender takes it back to pending.
"""

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from lpxfer import durable
from lpxfer.errors import AttemptError, FormatError, LinkError, LostError, PermanentError
from lpxfer.formats import backoff, names
from lpxfer.formats.attempts import Attempts
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.formats.keyvalue import printable
from lpxfer.stores.job_dir import CANCEL, JobDir
from lpxfer.stores.spool import Queue
from lpxfer.transports import form
from lpxfer.transports.accepts_known import AcceptsKnown
from lpxfer.transports.attempt import Overseer, Requested, attempt
from lpxfer.transports.deposit import Found, Looked, look
from lpxfer.transports.stripes import Yielded
from lpxfer.transports.target import PROBE, Links, Target, target
from lpxfer.transports.transport import Transport

LOSSES = 3  # lost connections in a row, others working, after which a job has to wait

#: Tells whether the receipts at a target say that a job, at its nth attempt, is archived.
FindReceipt = Callable[[Transport, Target, Control, int], bool]


class Unclaimable(PermanentError):
    """A directory in pending/ that the sender may not open or move: no submit made it so."""


class Carrier:
    """Carries the jobs of one queue, for any number of workers at once."""

    def __init__(
        self,
        queue: Queue,
        settings: QueueConfig,
        account: str,
        find_receipt: FindReceipt,
        overseer: Overseer,
        accepts: AcceptsKnown,
        put_last: Callable[[str], None],
        link_works: Callable[[], None],
        say: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        """Know the queue; `put_last` and `link_works` (a job is through) tell whoever plans the
        jobs, and so does the overseer."""
        self._queue, self._settings, self._account = queue, settings, account
        self._find_receipt, self._put_last = find_receipt, put_last
        self._overseer, self._link_works = overseer, link_works
        self._say, self._clock = say, clock
        self._accepts = accepts
        self._losses: dict[str, int] = {}  # connections that jobs have lost in a row

    def carry(self, job_id: str, links: Links, rank: int = 0) -> bool:
        """Claim one job and make one attempt at it; tell whether it waits for a receipt now.

        It gives way to what is above its priority and its `rank`.

        Raises LinkError when the link failed; the job is pending again then. Raises BusyError
        while a command is at work on it, Unclaimable for what stays in pending/ whatever the
        sender does, and OSError when the spool's own disk fails: then the job is where it was,
        or in active/ for `recover`.
        """
        try:
            job = self._queue.claim(job_id)
        except FileNotFoundError:
            return False  # held, canceled or moved since it was listed
        except (PermissionError, NotADirectoryError) as error:
            raise Unclaimable(
                f"{job_id} cannot be claimed: {error.strerror}; look at it with xfer-fsck"
            ) from error
        with job:
            try:
                return self._attempt(job, links, rank)
            except FileNotFoundError:
                self._say(f"{job.id} was moved by somebody else while it was sent")
        return False

    def _attempt(self, job: JobDir, links: Links, rank: int) -> bool:
        """Make an attempt at a job that is ours; whatever comes of it, it has its place then."""
        try:
            known = job.check(self._settings.link)
            routing, before = job.routing(), job.attempts()
            return self._brought(job, known, routing, before, links, rank)
        except FormatError as error:
            self._set_aside(job, State.QUARANTINED, str(error))
        except PermanentError as error:
            self._set_aside(job, State.FAILED, str(error))
        except (FileNotFoundError, LinkError):
            raise
        except Exception as error:
            if not durable.is_disk_fault(error):
                with contextlib.suppress(FileNotFoundError):
                    self._defer(job, job.routing_or_default(), f"unexpected: {error!r}")
            raise
        return False

    def _brought(
        self,
        job: JobDir,
        known: Control,
        routing: Routing,
        before: Attempts,
        links: Links,
        rank: int,
    ) -> bool:
        """Bring a job to sent/, or where one belongs that could not be, or was not to be."""
        try:
            return self._deliver(job, known, routing, before, links, rank)
        except Requested as request:
            self._obey(job, request.word)
        except Yielded:
            self._return(job)
        except (AttemptError, LostError) as error:
            self._blame(job, routing, before, error, links)
        except LinkError as error:
            self._give_back(job, routing, error)
        return False

    def _deliver(
        self,
        job: JobDir,
        known: Control,
        routing: Routing,
        before: Attempts,
        links: Links,
        rank: int,
    ) -> bool:
        """Bring a job to sent/: look what is there already, then carry what is missing."""
        if routing.rempw and job.owner() != self._account:
            # else a member could have any file that the sender may read sent as a password
            raise PermanentError("rempw is for jobs of the sender's own account")
        where = target(self._settings, routing, self._account)
        link, begun = links.connected(where), time.monotonic()
        try:
            looked = self._look(link, job, known, before)
        except (LinkError, AttemptError):
            if links.fresh:
                raise
            link = links.reconnected(where)  # it had been idle: the far end may have restarted
            looked = self._look(link, job, known, before)
        self._overseer.reached(link.rtt, time.monotonic() - begun)
        found = looked.found
        if found is Found.CONTROL and before.committed == routing.refused > 0:
            raise AttemptError("the archive site has not taken the arrival away that it refused")
        if found is not Found.CONTROL:
            # It may have been swept already: the sweep writes the receipt, then unlinks.
            if before.committing and self._find_receipt(link, where, known, before.committed):
                self._queue.finish(job.id, State.ACTIVE, State.COMPLETED, "receipt", self._clock())
                return False
            if found is Found.NOTHING and not before.count:
                accepts = self._accepts.of(link, where, known.inst)
                rate = self._overseer.rate()
                form.choose(job, known, accepts, rate, self._queue.free_bytes)
            limit = float(known.maxftp or self._settings.maxftp)
            rank = max(rank, routing.priority)
            attempt(job, known, rank, link, looked, self._overseer, limit, self._clock)
        self._link_works()
        self._overseer.arrived(known.inst)
        self._losses.pop(job.id, None)
        if self._settings.confirm == "sent":
            self._queue.finish(job.id, State.ACTIVE, State.COMPLETED, "sent", self._clock())
            return False
        job.set_request(None)
        self._queue.move(job.id, State.ACTIVE, State.SENT)
        return True

    def _look(self, link: Transport, job: JobDir, known: Control, before: Attempts) -> Looked:
        """Look what earlier attempts have brought there, by itself or in a bundle."""
        if before.committing and before.bundle:
            if link.stat(before.bundle + names.CONTROL) != [None]:
                return Looked(Found.CONTROL)
        return look(link, known.uid, form.wire_size(job, known))

    def _set_aside(self, job: JobDir, state: State, reason: str) -> None:
        """Keep a job and its data for a person, with the reason."""
        with contextlib.suppress(OSError):  # a hostile job may refuse even this
            job.set_routing(replace(job.routing_or_default(), reason=reason))
        self._queue.move(job.id, State.ACTIVE, state)
        self._say(f"{job.id} {state.value}: {printable(reason)}")

    def _obey(self, job: JobDir, word: str) -> None:
        """Cancel or hold a job as somebody asked while it was active."""
        job.set_request(None)
        if word == CANCEL:
            now = self._clock()
            self._queue.finish(job.id, State.ACTIVE, State.CANCELED, "canceled by request", now)
        else:
            job.set_routing(replace(job.routing(), reason="held by request"))
            self._queue.move(job.id, State.ACTIVE, State.HELD)

    def _give_back(self, job: JobDir, routing: Routing, error: LinkError) -> None:
        """The link failed: the queue waits, the job keeps its count and its place.

        Raises the LinkError, unless the target is one that the job chose for itself.
        """
        own, queues = (target(self._settings, r, self._account) for r in (routing, Routing()))
        if own != queues:  # its own target is its own affair
            self._defer(job, routing, str(error))
            return
        self._return(job)
        raise error

    def _blame(
        self,
        job: JobDir,
        routing: Routing,
        before: Attempts,
        error: AttemptError | LostError,
        links: Links,
    ) -> None:
        """The attempt failed: if the link works, it is the job that has to wait."""
        if links.stopping:
            self._return(job)
            return
        where = target(self._settings, routing, self._account)
        try:
            links.reconnected(where, PROBE).stat("-")
        except (LinkError, AttemptError) as down:
            # Not how it began, which is in `attempts`: every worker and probe says this alike.
            self._give_back(job, routing, LinkError(str(down)))
            return
        after = job.attempts()
        advanced = after.advanced and after.count > before.count
        losses = self._losses.pop(job.id, 0) + 1 if isinstance(error, LostError) else LOSSES
        if advanced or losses < LOSSES:
            if not advanced:
                self._losses[job.id] = losses
            elif routing.stalls:
                job.set_routing(replace(routing, stalls=0, not_before=None, reason=str(error)))
            self._put_last(job.id)
            self._return(job)
        else:
            self._defer(job, routing, str(error))

    def _defer(self, job: JobDir, routing: Routing, reason: str) -> None:
        now = self._clock()
        until = backoff.job_not_before(now, routing.stalls, random.random())
        stalls = routing.stalls + 1
        job.set_routing(replace(routing, stalls=stalls, not_before=until, reason=reason))
        self._return(job)
        self._say(f"{job.id} deferred until {until:%H:%M:%S} UTC: {printable(reason)}")

    def _return(self, job: JobDir) -> None:
        """Put a job back to pending; a cancel or hold that waits for it is obeyed first."""
        word = job.request()
        if word and not job.attempts().committing:
            self._obey(job, word)
            return
        job.set_request(None)
        self._queue.move(job.id, State.ACTIVE, State.PENDING)
        self._queue.wake(job.id)

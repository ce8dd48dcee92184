"""Carry many small jobs as one arrival: a bundle, see xfer-bundle(5).

A small file costs round trips and syncs, not bytes, so what waits together travels together. A
bundle lives for one attempt. Its uid is in every member's `attempts`, durably, before its first
byte goes out: whatever happens then, the next sender looks for the bundle before it sends a
member again. A job that has had an attempt goes by itself: nothing that is wrong with one of
them keeps the others back twice.
"""

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lpxfer import checksum
from lpxfer.errors import AttemptError, FormatError, LinkError, LostError, LpxferError
from lpxfer.formats import bundle, names
from lpxfer.formats.attempts import COMMIT, END, START
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control, Transfer
from lpxfer.formats.job import Routing, State
from lpxfer.stores import batch
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.queue import Queue
from lpxfer.transports.accepts_known import AcceptsKnown
from lpxfer.transports.attempt import Load, Overseer
from lpxfer.transports.deposit import NEW, deposit
from lpxfer.transports.stripes import Stripes
from lpxfer.transports.target import Links, target

#: Bytes of a job's data up to which it may be a member, and members from which on it pays.
SMALL, LEAST = 1 << 20, 8

#: A bundle takes no longer than this, so that a more urgent job does not wait for it; of a link
#: whose rate is not known it may have so many bytes.
SECONDS, FIRST = 1.0, 4 << 20


@dataclass(frozen=True)
class _Member:
    """A job that may travel in a bundle."""

    job: JobDir
    known: Control
    text: bytes  # its control file
    priority: int


class Bundler:
    """Makes bundles of the jobs of one queue, for any number of workers at once."""

    def __init__(
        self,
        queue: Queue,
        settings: QueueConfig,
        account: str,
        accepts: AcceptsKnown,
        overseer: Overseer,
        clock: Callable[[], datetime],
    ) -> None:
        """Know the queue, and what its archive site understands."""
        self._queue, self._settings, self._clock = queue, settings, clock
        self._where = target(settings, Routing(), account)
        self._accepts, self._overseer = accepts, overseer

    def carry(self, job_ids: Sequence[str], links: Links) -> tuple[list[str], int]:
        """Claim jobs and send in bundles what fits; return those that go singly, and what was sent.

        The former are pending again. Raises LinkError when the link failed, OSError when the
        spool's disk does: then all that was not sent is pending, or active for `recover`.
        """
        sent = 0
        with contextlib.ExitStack() as stack:
            jobs, _ = batch.claim(self._queue, job_ids)
            for job in jobs:
                stack.enter_context(job)
            waiting = {job.id for job in jobs}
            try:
                for members in self._bundles(jobs, lambda inst: self._understood(links, inst)):
                    if not self._send(members, links):
                        break
                    waiting -= {member.job.id for member in members}
                    sent += len(members)
            finally:
                self._queue.move_many(sorted(waiting), State.ACTIVE, State.PENDING)
        return [job_id for job_id in job_ids if job_id in waiting], sent

    def _understood(self, links: Links, inst: str) -> bool:
        return self._accepts.of(links.connected(self._where), self._where, inst).bundle

    def _bundles(
        self, jobs: Sequence[JobDir], understood: Callable[[str], bool]
    ) -> Iterator[list[_Member]]:
        """Sort jobs into bundles; what is in none goes singly."""
        groups: dict[tuple[str, str], list[_Member]] = defaultdict(list)
        for job in jobs:
            if member := self._member(job):
                groups[member.known.host, member.known.inst].append(member)
        most = int((self._overseer.rate() or FIRST / SECONDS) * SECONDS)
        for (_, inst), members in groups.items():
            if len(members) >= LEAST and understood(inst):
                yield from _filled(members, max(most, SMALL))

    def _member(self, job: JobDir) -> _Member | None:
        """Return a job as a member; None for one that has to go by itself."""
        try:
            known, routing, before = job.check(False), job.routing(), job.attempts()
            text = job.control_text()
        except FormatError:
            return None
        own = routing.remhost or routing.rempath or routing.remuser or routing.rempw
        if own or before.count or known.size > SMALL:
            return None
        return _Member(job, known, text, routing.priority)

    def _limit(self, members: Sequence[_Member]) -> float:
        """Return the seconds that a bundle may take: the shortest limit of a member, 0 for none."""
        limits = [float(one.known.maxftp or self._settings.maxftp) for one in members]
        return min(filter(None, limits), default=0.0)

    def _send(self, members: Sequence[_Member], links: Links) -> bool:
        """Carry one bundle; False when its members have to go singly. Raises LinkError."""
        start, begun = self._clock(), time.monotonic()
        first = members[0].known
        uid = names.make_uid(start, first.host, first.job, os.urandom(4))
        jobs, committing = [member.job for member in members], False

        def commit() -> None:
            nonlocal committing
            committing = True

        try:
            fd, size, index = _packed(members)
        except (AttemptError, FormatError):
            return False
        with os.fdopen(fd, "rb"):
            stripes = Stripes(size)
            load = Load(uid + names.DATA, members[0].priority, fd, stripes, 0, len(members))

            def make_control() -> bytes:
                took = Transfer(start, self._clock(), time.monotonic() - begun, 1)
                digest = checksum.of_bytes(index)
                return bundle.dump(
                    Bundle(
                        uid, first.host, first.inst, len(members), len(index), size, digest, took
                    )
                )

            link = links.connected(self._where)
            self._overseer.reached(link.rtt, link.rtt)
            batch.note(jobs, START, start, bundle=uid)
            self._overseer.begins(load)
            try:
                deposit(
                    link,
                    uid,
                    fd,
                    stripes,
                    make_control,
                    looked=NEW,
                    limit=self._limit(members),
                    moved=self._overseer.moves,
                    before_commit=commit,
                )
            except LpxferError as error:
                kind, fields = (COMMIT, {"bundle": uid}) if committing else (END, {"acked": "0"})
                batch.note(jobs, kind, self._clock(), reason=str(error), **fields)
                if isinstance(error, LinkError) and not isinstance(error, LostError):
                    raise
                links.close()
                return False
            finally:
                stripes.end()
                self._overseer.ends(load)
        self._overseer.arrived(first.inst)
        for job in jobs:
            job.set_request(None)
        self._queue.move_many([job.id for job in jobs], State.ACTIVE, State.SENT)
        return True


def _filled(members: Sequence[_Member], most: int) -> Iterator[list[_Member]]:
    """Divide members among bundles of at most `most` bytes; a rest too small goes singly."""
    held: list[_Member] = []
    index = data = 0
    for member in members:
        own, size = len(member.text) + 64, member.known.size
        if held and (
            data + size > most or not bundle.fits(len(held) + 1, index + own, data + size)
        ):
            yield held
            held, index, data = [], 0, 0
        held.append(member)
        index, data = index + own, data + size
    if len(held) >= LEAST:
        yield held


def _packed(members: Sequence[_Member]) -> tuple[int, int, bytes]:
    """Make a bundle's data in memory; return its open file, its size, its index.

    Raises AttemptError or FormatError when a member's data cannot be had as it was submitted.
    """
    index = b"".join(bundle.entry(member.text, member.known.size, 1) for member in members)
    fd = os.memfd_create("bundle", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as packed:
            packed.write(index)
            for member in members:
                with member.job.opened_data() as data:
                    content = os.pread(data, member.known.size + 1, 0)
                if len(content) != member.known.size:
                    raise AttemptError(f"{member.job.id}: the data file has another size")
                packed.write(content)
            return fd, packed.tell(), index
    except BaseException:
        os.close(fd)
        raise

"""One attempt at one job: carry its pair into incoming over a connected transport.

What is learned on the way is noted in the job's `attempts` file, so that whoever comes next,
after any crash, goes on from the acknowledged bytes, and knows whether the control file's
last rename was begun: from that instant on the job may be at the archive site, and nobody
may say that it was canceled.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from lpxfer import checksum
from lpxfer.durable import CHUNK
from lpxfer.errors import LpxferError, PermanentError
from lpxfer.formats import control, names, ranges
from lpxfer.formats.attempts import ACKED, COMMIT, CONTROL, END, START
from lpxfer.formats.control import Control, Transfer
from lpxfer.stores.job_dir import JobDir
from lpxfer.transports import form
from lpxfer.transports.deposit import Looked, deposit
from lpxfer.transports.form import Form
from lpxfer.transports.stripes import Stripes, Yielded
from lpxfer.transports.transport import Transport

NOTE_BYTES = 8 << 20  # progress is noted each time so much more is acknowledged
ASK_SECONDS = 0.2  # how often a cancel or hold is looked for while bytes flow


class Requested(Exception):
    """Somebody asked to cancel or hold the job before it was committed; `word` says which."""

    def __init__(self, word: str) -> None:
        """Carry the word of the request."""
        super().__init__(word)
        self.word = word


@dataclass(frozen=True)
class Load:
    """A file that is being carried: what another connection needs to help."""

    name: str  # its final name
    priority: int
    source: int  # the open data file
    stripes: Stripes
    before: int  # bytes that earlier attempts have carried
    jobs: int = 1  # whose data it is

    @property
    def carried(self) -> int:
        """The bytes that this attempt has carried until now."""
        return max(0, self.stripes.bytes - self.before)


@dataclass(frozen=True)
class Overseer:
    """Whoever plans the jobs, as an attempt sees it."""

    #: Told the round trip of a connection, and how long an answer took just now, in seconds.
    reached: Callable[[float, float], None]
    #: Called when the first byte is acknowledged.
    moves: Callable[[], None]
    #: Told what is carried, and when it is over.
    begins: Callable[[Load], None]
    ends: Callable[[Load], None]
    #: Asked whether something more urgent waits for a connection.
    outranks: Callable[[int], bool]
    #: Asked whether anything waits for a connection.
    waits: Callable[[], bool]
    #: Asked for the rate of the link in bytes per second; None when it is not known.
    rate: Callable[[], float | None]
    #: Told of which instrument something has arrived.
    arrived: Callable[[str], None] = lambda inst: None


def attempt(
    job: JobDir,
    known: Control,
    priority: int,
    link: Transport,
    looked: Looked,
    overseer: Overseer,
    limit: float,
    clock: Callable[[], datetime],
) -> None:
    """Carry a claimed job into incoming; it is sent at the instant this returns.

    `looked` is what `look` has just found there. `limit` bounds the transfer in seconds, 0 for
    none. Raises Requested when the job was withdrawn in time, Yielded when it gave way,
    PermanentError when the data no longer fits its checksum, and what the transport raises.
    """
    before = job.attempts()
    start, begun = clock(), time.monotonic()
    job.note(START, start)
    with form.opened(job, known) as how:
        stripes = Stripes(how.size, before.done)
        load = Load(known.uid + names.DATA, priority, how.fd, stripes, stripes.bytes)
        progress = _Progress(job, known, how, load, overseer, clock)

        def make_control() -> bytes:
            progress.make_control()
            spent = before.seconds + time.monotonic() - begun
            took = Transfer(start, clock(), spent, before.count + 1, how.encoding)
            return control.dump(known.with_transfer(took))

        overseer.begins(load)
        try:
            deposit(
                link,
                known.uid,
                how.fd,
                stripes,
                make_control,
                looked=looked,
                limit=limit,
                moved=progress.moved,
                before_commit=progress.commit,
            )
        except Yielded:
            progress.end("gave way to a more urgent job")
            raise
        except (LpxferError, Requested) as error:
            progress.end(str(error))
            raise
        finally:
            stripes.end()
            overseer.ends(load)


class _Progress:
    """Follows one attempt: checksum, notes, requests."""

    def __init__(
        self,
        job: JobDir,
        known: Control,
        how: Form,
        load: Load,
        overseer: Overseer,
        clock: Callable[[], datetime],
    ) -> None:
        self._job, self._known, self._clock = job, known, clock
        self._load, self._stripes, self._overseer = load, load.stripes, overseer
        self._how, self._check = how, how.check
        self._digest, self._hashed = hashlib.sha256(), 0
        self._start = self._noted = self._stripes.bytes
        self._noted_at = self._asked_at = time.monotonic()
        self._moving = self._committing = False

    def moved(self) -> None:
        """Take note that more is acknowledged; may end the attempt."""
        there = self._stripes.bytes
        self._start, self._noted = min(self._start, there), min(self._noted, there)  # begun anew
        if not self._moving and there > self._start:  # it takes bytes: neither full nor stuck
            self._moving = True
            self._overseer.moves()
        if self._check:
            self._hash_up_to(self._stripes.acked)
        if there - self._noted >= NOTE_BYTES:
            self._note(ACKED)
        if time.monotonic() - self._asked_at > ASK_SECONDS:
            self._asked_at = time.monotonic()
            self._ask()
            if self._overseer.outranks(self._load.priority):
                self._stripes.end()  # what is under way still arrives

    def _hash_up_to(self, offset: int) -> None:
        """Read the data file again as far as it was acknowledged; it is in memory still."""
        while self._hashed < offset:
            want = min(CHUNK, offset - self._hashed)
            if not (chunk := os.pread(self._load.source, want, self._hashed)):
                raise PermanentError("source changed after submit: the data file is shorter")
            self._digest.update(chunk)
            self._hashed += len(chunk)

    def make_control(self) -> None:
        """Check the data file, then note that a control file of this attempt goes out."""
        if self._check:
            self._hash_up_to(self._known.size)
            if checksum.text(self._digest) != self._known.checksum:
                raise PermanentError("source changed after submit: the checksum no longer fits")
        self._note(CONTROL)

    def commit(self) -> None:
        """Take the last chance to stop, then note that the control file is being renamed."""
        self._ask()
        self._committing = True
        self._note(COMMIT, sync=True, streams=str(self._stripes.most), **self._how.words)

    def end(self, reason: str) -> None:
        """Note how the attempt ended; one that had begun to commit stays marked so."""
        self._note(COMMIT if self._committing else END, reason=reason)

    def _ask(self) -> None:
        if word := self._job.request():
            raise Requested(word)

    def _note(self, kind: str, sync: bool = False, **fields: str) -> None:
        now, done = time.monotonic(), self._stripes.done
        fields["seconds"] = f"{now - self._noted_at:.3f}"
        if done:
            fields["acked"] = str(done.contiguous)
            if also := ranges.dump(ranges.Ranges(*(r for r in done if r[0]))):
                fields["also"] = also
        self._job.note(kind, self._clock(), sync, **fields)
        self._noted, self._noted_at = done.bytes, now

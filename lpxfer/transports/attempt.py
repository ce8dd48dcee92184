"""One attempt at one job: carry its pair into incoming over a connected transport.

What is learned on the way is noted in the job's `attempts` file, so that whoever comes next,
after any crash, goes on from the acknowledged offset, and knows whether the control file's
last rename was begun: from that instant on the job may be at the archive site, and nobody
may say that it was canceled.
"""

import hashlib
import os
import time
from collections.abc import Callable
from datetime import datetime

from lpxfer import checksum
from lpxfer.durable import CHUNK
from lpxfer.errors import LpxferError, PermanentError
from lpxfer.formats import control, names
from lpxfer.formats.control import Control, Transfer
from lpxfer.stores.job_dir import ACKED, COMMIT, CONTROL, END, START, Attempts, JobDir
from lpxfer.transports.deposit import Found, deposit
from lpxfer.transports.transport import Transport

NOTE_BYTES = 8 << 20  # progress is noted each time so much more is acknowledged
ASK_SECONDS = 0.2  # how often a cancel or hold is looked for while bytes flow


class Requested(Exception):
    """Somebody asked to cancel or hold the job before it was committed; `word` says which."""

    def __init__(self, word: str) -> None:
        """Carry the word of the request."""
        super().__init__(word)
        self.word = word


def attempt(
    job: JobDir,
    known: Control,
    link: Transport,
    found: Found,
    moves: Callable[[], None],
    limit: float,
    clock: Callable[[], datetime],
) -> None:
    """Carry a claimed job into incoming; it is sent at the instant this returns.

    `found` is what `look` has just found there. `moves` is called when the first byte is
    acknowledged. `limit` bounds the data file's transfer in seconds, 0 for none. Raises
    Requested when the job was withdrawn in time, PermanentError when the data no longer fits
    its checksum, and what the transport raises.
    """
    before = job.attempts()
    start, begun = clock(), time.monotonic()
    job.note(START, start)
    with job.opened_data() as fd:
        if os.fstat(fd).st_size != known.size:
            raise PermanentError("source changed after submit: the data file has another size")
        progress = _Progress(job, known, fd, moves, clock)
        acked = before.acked if found is Found.DATA or _there(link, known, before) else 0
        progress.hash_up_to(acked)

        def make_control(_seconds: float) -> bytes:
            progress.make_control()
            spent = before.seconds + time.monotonic() - begun
            took = Transfer(start, clock(), spent, before.count + 1)
            return control.dump(known.with_transfer(took))

        try:
            deposit(
                link,
                known.uid,
                fd,
                known.size,
                make_control,
                found=found,
                start=acked,
                limit=limit,
                acked=progress.acked,
                before_commit=progress.commit,
            )
        except (LpxferError, Requested) as error:
            progress.end(str(error))
            raise


def _there(link: Transport, known: Control, before: Attempts) -> bool:
    """Tell whether the part file has what `attempts` says was acknowledged.

    Else nothing is read for it: a job made by hand may claim terabytes.
    """
    part = names.part(known.uid + names.DATA)
    return before.acked > 0 and (left := link.stat(part)) is not None and left.size >= before.acked


class _Progress:
    """Follows one attempt: checksum, notes, requests."""

    def __init__(
        self,
        job: JobDir,
        known: Control,
        fd: int,
        moves: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._job, self._known, self._fd, self._clock = job, known, fd, clock
        self._moves, self._start = moves, job.attempts().acked
        self._digest, self._hashed = hashlib.sha256(), 0
        self._offset = self._noted = 0
        self._noted_at = self._asked_at = time.monotonic()
        self._committing = False

    def acked(self, offset: int) -> None:
        """Take note of the contiguous acknowledged offset; may end the attempt."""
        if self._offset <= self._start < offset:  # it takes bytes: neither full nor stuck
            self._moves()
        self._offset = offset
        self.hash_up_to(offset)
        if offset - self._noted >= NOTE_BYTES:
            self._note(ACKED)
        if offset == self._known.size:
            self.check()
        if time.monotonic() - self._asked_at > ASK_SECONDS:
            self._asked_at = time.monotonic()
            self._ask()

    def hash_up_to(self, offset: int) -> None:
        """Read the data file again as far as it was acknowledged; it is in memory still."""
        while self._hashed < offset:
            want = min(CHUNK, offset - self._hashed)
            if not (chunk := os.pread(self._fd, want, self._hashed)):
                raise PermanentError("source changed after submit: the data file is shorter")
            self._digest.update(chunk)
            self._hashed += len(chunk)

    def check(self) -> None:
        """Raise PermanentError unless the data file still fits the control file."""
        self.hash_up_to(self._known.size)
        if checksum.text(self._digest) != self._known.checksum:
            raise PermanentError("source changed after submit: the checksum no longer fits")

    def make_control(self) -> None:
        """Check the data file, then note that a control file of this attempt goes out."""
        self.check()
        self._note(CONTROL)

    def commit(self) -> None:
        """Take the last chance to stop, then note that the control file is being renamed."""
        self._ask()
        self._committing = True
        self._note(COMMIT, sync=True)

    def end(self, reason: str) -> None:
        """Note how the attempt ended; one that had begun to commit stays marked so."""
        self._note(COMMIT if self._committing else END, reason=reason)

    def _ask(self) -> None:
        if word := self._job.request():
            raise Requested(word)

    def _note(self, kind: str, sync: bool = False, **fields: str) -> None:
        now = time.monotonic()
        fields["seconds"] = f"{now - self._noted_at:.3f}"
        if self._offset:
            fields["acked"] = str(self._offset)
        self._job.note(kind, self._clock(), sync, **fields)
        self._noted, self._noted_at = self._offset, now

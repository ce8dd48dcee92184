"""Tell: say once of each placed file that it is there, to whoever wants to know.

Guarantees: nobody waits for it: it has its own lock, and the sweep none of its troubles. Each
file is told until the answer is recorded, and not after that; who dies between the two tells it
once more, with the same key, by which the other side knows it. A receiver that is down is tried
again after a while, for ever; a file that it does not want, for a week, and keeps no other waiting.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from lpxfer.errors import AttemptError, BusyError, LinkError, LpxferError
from lpxfer.formats import backoff, dates, record, telling
from lpxfer.formats.backoff import LinkState
from lpxfer.formats.record import Record
from lpxfer.stores.tellings import Tellings
from lpxfer.transports.receiver import Receiver

#: A file that the receiver did not want for so long is not wanted.
GIVE_UP = timedelta(days=7)

LOOK = 5.0  # seconds between looks at the log of one who waits for nothing else


class Teller:
    """Who tells of the files of one instrument directory."""

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[Tellings]],
        receiver: Receiver,
        now: Callable[[], datetime],
        say: Callable[[str], None],
    ) -> None:
        """Know how to open the log, and the receiver; `say` takes a line for a person."""
        self._opened, self._receiver, self._now, self._say = opened, receiver, now, say
        self._link = LinkState()
        self._unwanted: dict[str, tuple[int, datetime]] = {}  # uid -> how often, not before
        self._trouble = ""  # what was said of the log itself

    def begin(self) -> None:
        """Let telling begin where it has not: with what is placed from now on."""

        def begin(tellings: Tellings) -> int:
            tellings.begin(self._now())
            return 0

        self._locked(begin)

    def once(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Tell what is due, until that fails; return how many were told.

        None are when another process is at it.
        """
        return self._locked(lambda tellings: self._pass(tellings, stop))

    def serve(self, news: threading.Event, stop: Callable[[], bool]) -> None:
        """Tell what is due when there is news, and now and then, until it is stopped."""
        while not stop():
            if self._link.may_try(time.monotonic()):
                self.once(stop)
            news.wait(LOOK)
            news.clear()

    def _locked(self, act: Callable[[Tellings], int]) -> int:
        """Open and lock the log, and act on it; say what goes wrong with it, once, and go on."""
        try:
            with self._opened() as tellings, tellings.locked():
                done = act(tellings)
        except BusyError:
            return 0
        except (LpxferError, OSError) as error:
            words = f"cannot tell of placed files: {error}"
            if words != self._trouble:
                self._say(words)
            self._trouble = words
            return 0
        self._trouble = ""
        return done

    def _pass(self, tellings: Tellings, stop: Callable[[], bool]) -> int:
        told, refused, due = 0, "", tellings.due()
        for uid, placed in due.items():
            if stop():
                return told
            if uid in self._unwanted and self._now() < self._unwanted[uid][1]:
                refused = refused or f"{uid} is not wanted"
                continue
            try:
                tellings.note(self._tell(uid, placed))
                told += 1
            except AttemptError as error:
                refused = f"{uid}: {error}"
                self._not_wanted(tellings, uid, placed, str(error))
            except LinkError as error:
                self._link.failed(time.monotonic(), str(error))
                self._warn(tellings, f"{error}; {len(due) - told} file(s) wait")
                return told
        self._link.works()
        self._warn(tellings, refused)
        return told

    def _warn(self, tellings: Tellings, reason: str) -> None:
        """Say what is wrong, once, until nothing has been for a while."""
        if tellings.failing(reason) and reason:
            self._say(f"cannot tell of placed files, and goes on trying: {reason}")

    def _tell(self, uid: str, placed: Record) -> Record:
        """Tell of one file; return the record. Raises AttemptError, LinkError."""
        answer = self._receiver(telling.body(placed), uid, dates.iso(self._now()))
        self._unwanted.pop(uid, None)
        return telling.told(placed, answer, self._now())

    def _not_wanted(self, tellings: Tellings, uid: str, placed: Record, reason: str) -> None:
        """Try one later that was refused, or give it up."""
        now, (count, _) = self._now(), self._unwanted.pop(uid, (0, self._now()))
        if now - placed.time < GIVE_UP:
            self._unwanted[uid] = count + 1, backoff.job_not_before(now, count, 0.0)
        else:
            tellings.note(telling.told(placed, reason, now, record.UNTOLD))
            self._say(f"{uid}: given up telling of it: {reason}")

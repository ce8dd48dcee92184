"""What is wrong with a queue: its link, its receipts, its spool; each said once. For many threads.

What takes files and what gives receipts may fail apart: a full incoming, say.
"""

import threading
import time
from collections.abc import Callable

from lpxfer.formats.backoff import LinkState
from lpxfer.formats.keyvalue import printable


class Health:
    """The troubles of one queue."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        """Know the queue's name; `say` takes one line for the operator's log."""
        self._name, self._say = name, say
        self._lock = threading.Lock()
        self.link, self.receipts = LinkState(), LinkState()
        self.spool_fault, self._fault_at = "", 0.0  # what the operator was told of its disk

    def fails(self, state: LinkState, reason: str) -> None:
        """Let what needs the link wait; say why, once for as long as it stays the same."""
        with self._lock:
            known = reason in (self.link.reason, self.receipts.reason)
            state.failed(time.monotonic(), reason)
        if not known:
            self._say(f"queue {self._name}: {printable(reason)}; its jobs wait")

    def works(self, state: LinkState) -> None:
        """Take note of a success, and say so after a failure."""
        with self._lock:
            was_wrong = state.works()
            wrong = self.link.reason or self.receipts.reason
        if was_wrong and not wrong:
            self._say(f"queue {self._name}: the link works again")

    def moves(self) -> None:
        """Take note that bytes are taken."""
        with self._lock:
            self.link.moves()

    def greeted(self, answers: bool) -> None:
        """Take note whether the far end answers; a link that is back is tried at once."""
        with self._lock:
            self.link.greeted(answers)
            self.receipts.greeted(answers)

    def spool_fails(self, root: object, error: OSError) -> None:
        """Say that the spool's disk fails, once; the sender is there when it works again."""
        reason = error.strerror or str(error)
        with self._lock:
            known, self.spool_fault = self.spool_fault == reason, reason
            self._fault_at = time.monotonic()
        if not known:
            self._say(
                f"queue {self._name}: the spool {root} failed: {reason}; "
                "its jobs wait until that is mended"
            )

    def spool_works(self, patience: float) -> None:
        """Take note of a look that worked; a fault that has not come for so long is over."""
        with self._lock:
            if time.monotonic() - self._fault_at > patience:
                self.spool_fault = ""

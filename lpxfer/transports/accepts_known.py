"""What the sweeps of an archive site say that they understand, as a sender has read it last."""

import os
import threading
import time
from collections.abc import Callable
from datetime import datetime

from lpxfer.errors import PermanentError
from lpxfer.formats import accepts, keyvalue
from lpxfer.formats.accepts import PLAIN, Accepts
from lpxfer.transports.target import Target
from lpxfer.transports.transport import Transport

FRESH = 300.0  # seconds until it is read again


class AcceptsKnown:
    """Remembers it for a while, for each instrument of each target. For many threads."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """Know nothing yet."""
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[Target, str], tuple[float, Accepts]] = {}

    def of(self, link: Transport, where: Target, inst: str) -> Accepts:
        """Return what may be sent for an instrument; `link` is connected. Raises LinkError."""
        now = time.monotonic()
        with self._lock:
            since, known = self._known.get((where, inst), (0.0, None))
        if known is not None and now - since < FRESH:
            return known
        try:
            path = os.path.join(where.receipts, "accepts", inst)
            known = accepts.load(link.read(path, 0, keyvalue.LIMIT), self._clock())
        except PermanentError:
            known = PLAIN
        with self._lock:
            self._known[where, inst] = now, known
        return known

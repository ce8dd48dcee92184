"""Cuts a call that is stuck, from outside: a thread beside it that looks at the clock.

SSH libraries block for ever on a server that was stopped or a cable that was pulled,
keepalive or not. What always ends such a call is another thread that breaks its connection.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Told why: `stalled` is true for the stall limit, false for the limit of the whole call.
Cut = Callable[[bool], None]


class Watch:
    """The two limits of one call, in seconds; 0 is none."""

    def __init__(self, cut: Cut, stall: float, limit: float) -> None:
        self._cut, self._stall, self._limit = cut, stall, limit
        self._began = self._last = time.monotonic()
        self._over = threading.Event()

    def progress(self) -> None:
        """Say that something arrived from the other end; the stall limit starts anew."""
        self._last = time.monotonic()

    def stop(self) -> None:
        """End the watch: from now on nothing is cut."""
        self._over.set()

    def run(self) -> None:
        """Wait for the end of the call; cut it once if a limit comes first."""
        while True:
            now = time.monotonic()
            stall = self._last + self._stall - now if self._stall else threading.TIMEOUT_MAX
            limit = self._began + self._limit - now if self._limit else threading.TIMEOUT_MAX
            if min(stall, limit) <= 0:
                self._cut(stall <= limit)
                return
            if self._over.wait(min(stall, limit)):
                return


@contextmanager
def watched(cut: Cut, stall: float, limit: float = 0.0) -> Iterator[Watch]:
    """Watch over a block: `cut` is called, in another thread, when a limit is over.

    `stall` bounds the time without `progress`, `limit` the whole block, in seconds; 0 is
    no limit. `cut` must make the block end. It is never called after the block.
    """
    watch = Watch(cut, stall, limit)
    thread = threading.Thread(target=watch.run, name="lpxfer watchdog", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        thread.join()

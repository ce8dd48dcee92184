"""Directories looked at again and again: where nothing tells of what is written there."""

import threading

from lpxfer.sources.source import Hint

EVERY = 5.0  # seconds; who looks at a large tree takes longer by itself


class Polling:
    """Asks for a look at everything, at intervals."""

    def __init__(self, every: float = EVERY) -> None:
        """Ask every so many seconds."""
        self._every = every
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, hint: Hint) -> None:
        """Begin to ask; the first time is at once."""
        self._thread = threading.Thread(target=self._run, args=(hint,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _run(self, hint: Hint) -> None:
        hint(None)
        while not self._stop.wait(self._every):
            hint(None)

"""Directories, watched in the best way that their file systems allow, found out by itself."""

import threading
from collections.abc import Callable

from lpxfer.sources.inotify import Inotify
from lpxfer.sources.polling import EVERY, Polling
from lpxfer.sources.source import Hint


class Directories:
    """Inotify, and polling where that does not hear everything."""

    def __init__(self, roots: list[str], say: Callable[[str], None]) -> None:
        """Know the directories; `say` is told once when they are polled, and why."""
        self._say = say
        self._inotify = Inotify(roots, self._poll)
        self._polling: Polling | None = None
        self._lock = threading.Lock()

    def start(self, hint: Hint) -> None:
        """Watch from now on."""
        self._hint = hint
        self._inotify.start(hint)

    def close(self) -> None:
        """Watch no more."""
        self._inotify.close()
        if self._polling:
            self._polling.close()

    def _poll(self, why: str) -> None:
        with self._lock:
            if self._polling is None:
                self._say(f"{why}; it is looked at every {EVERY:.0f} seconds, or less often")
                self._polling = Polling()
                self._polling.start(self._hint)

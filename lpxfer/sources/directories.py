"""Directories, watched in the best way that their file systems allow, found out by itself."""

import threading
from collections.abc import Callable

from lpxfer.sources.polling import EVERY, Polling
from lpxfer.sources.source import Hint, Source


class Directories:
    """Inotify, and polling where that does not hear everything."""

    def __init__(self, roots: list[str], say: Callable[[str], None]) -> None:
        """Know the directories; `say` is told once when they are polled, and why."""
        self._roots, self._say = roots, say
        self._inotify: Source | None = None
        self._polling: Polling | None = None
        self._lock = threading.Lock()

    def start(self, hint: Hint) -> None:
        """Watch from now on."""
        self._hint = hint
        try:
            from lpxfer.sources.inotify import Inotify
        except ImportError:
            self._poll("watchdog is not installed: pip install 'lpxfer[watch]'")
            return
        self._inotify = Inotify(self._roots, self._poll)
        self._inotify.start(hint)

    def close(self) -> None:
        """Watch no more."""
        if self._inotify:
            self._inotify.close()
        if self._polling:
            self._polling.close()

    def _poll(self, why: str) -> None:
        with self._lock:
            if self._polling is None:
                self._say(f"{why}; so it is looked at every {EVERY:.0f} seconds, or less often")
                self._polling = Polling()
                self._polling.start(self._hint)

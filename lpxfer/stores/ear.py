"""An ear at incoming: it hears an arrival at the instant its control file has its final name.

By inotify(7), of which Linux has all that is needed here, in three calls. It is a hint and no
more: on a file system that others write to it hears only what is done here, and without it
there is silence. Never raises.
"""

import os
import select
import time

from lpxfer.formats.inotify_events import ATTRIB, CREATE, MOVED_TO, OVERFLOW, events

CONTROL = b".control"
POLL = 0.1  # seconds of one wait in silence
LOOK = 0.5  # seconds of one wait of who hears


class Ear:
    """Listens at one directory."""

    def __init__(self, path: str) -> None:
        """Know the directory; nothing is heard before `listen`."""
        import ctypes  # 10 ms that only a sweep which stays pays

        self._path = os.fsencode(path)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._start()
        self._poll = select.poll()
        if self._fd >= 0:
            self._poll.register(self._fd, select.POLLIN)
        self._hears = False

    def __enter__(self) -> "Ear":
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def listen(self) -> None:
        """Listen at what has the path now, which may be another directory than before."""
        mask = ATTRIB | MOVED_TO | CREATE
        self._hears = (
            self._fd >= 0 and self._libc.inotify_add_watch(self._fd, self._path, mask) >= 0
        )

    def wait(self) -> bool:
        """Wait for a moment, or until something is heard; tell whether that is an arrival.

        So is what somebody does to the directory itself who gives it the time of now.
        """
        if not self._hears:
            time.sleep(POLL)
            return False
        if not self._poll.poll(LOOK * 1000):
            return False
        return any(_is_news(mask, name) for mask, name in events(os.read(self._fd, 1 << 16)))

    def _start(self) -> int:
        return int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def _is_news(mask: int, name: bytes) -> bool:
    arrived = mask & (MOVED_TO | CREATE) and name.endswith(CONTROL)
    return bool(arrived or mask & OVERFLOW or (mask & ATTRIB and not name))

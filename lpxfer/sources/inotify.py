"""Directories that the kernel tells of: inotify(7), for file systems of this machine.

Without another package, and for what those leave out: it notices that events were lost, that
a file system was mounted or unmounted, and that the kernel gives no more watches.
"""

import contextlib
import ctypes
import errno
import os
import select
import threading
import time
from collections.abc import Callable

from lpxfer.formats.inotify_events import (
    CLOSE_WRITE,
    CREATE,
    IGNORED,
    IS_DIR,
    MOVED_FROM,
    MOVED_TO,
    NO_LINK,
    ONLY_DIR,
    OVERFLOW,
    UNMOUNT,
    events,
)
from lpxfer.sources import mounts, tree
from lpxfer.sources.source import Hint

# Of a file: it was closed by a writer, came by a rename, or by a link, which creates it as a
# writer does; of a directory also that it went or came, with all in it.
MASK = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | ONLY_DIR | NO_LINK

ROOTS = 5  # seconds between looks whether the directories are others of the same name
MOUNTS = 0.5  # seconds between looks at what is mounted: elsewhere that may change all the time

_MOUNTED = select.POLLERR | select.POLLPRI


class Inotify:
    """Directories with all below them."""

    def __init__(self, roots: list[str], alarm: Callable[[str], None]) -> None:
        """Know the directories; one that is not there yet is watched when it is mounted.

        `alarm` is told why something is written there that nobody will hear of.
        """
        self._roots, self._alarm = roots, alarm
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._paths: dict[int, str] = {}  # by watch
        self._fd = self._wake = -1
        self._unmounted = False  # since what is mounted was looked at
        self._thread: threading.Thread | None = None

    def start(self, hint: Hint) -> None:
        """Watch everything, then have it looked at."""
        self._hint = hint
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            self._alarm(f"inotify cannot be used: {os.strerror(ctypes.get_errno())}")
            return
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        if self._thread:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._thread = None
        for fd in (self._fd, self._wake):
            if fd >= 0:
                os.close(fd)
        self._fd = self._wake = -1

    def _again(self) -> None:
        """Watch everything anew, for nobody knows what has been missed."""
        self._identities = self._seen()
        for root in self._roots:
            if mounts.is_remote(root):
                self._alarm(f"{root} is on a file system that other machines write to")
            self._watch(root)
        self._hint(None)

    def _seen(self) -> list[tuple[int, int] | None]:
        """Return what stays the same as long as the roots are the same directories."""
        return [_identity(root) for root in self._roots]

    def _real(self) -> list[bytes]:
        return [os.fsencode(os.path.realpath(root)) for root in self._roots]

    def _watch(self, top: str) -> None:
        """Watch a directory and all below it; watching twice does no harm."""
        for path in tree.directories(top):
            name = path + "/." if path in self._roots else path  # that may be a link
            watch = self._libc.inotify_add_watch(self._fd, os.fsencode(name), MASK)
            if watch >= 0:
                self._paths[watch] = path
            elif ctypes.get_errno() == errno.ENOSPC:
                self._alarm(f"inotify has no watch left for {path}: raise max_user_watches")
                return

    def _run(self) -> None:
        with open(mounts.PATH, "rb") as mounted:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            poll.register(self._wake, select.POLLIN)
            poll.register(mounted, _MOUNTED)
            below = mounts.below(mounted.read(), self._real())
            self._again()  # for what was mounted until now
            looked, stale = time.monotonic(), False
            while True:
                wait = looked + MOUNTS - time.monotonic() if stale else ROOTS
                ready = {fd for fd, _ in poll.poll(max(0.0, 1000 * wait))}
                if self._wake in ready:
                    return
                if mounted.fileno() in ready:
                    poll.unregister(mounted)
                    stale = True
                changed = self._seen() != self._identities
                if stale and time.monotonic() >= looked + MOUNTS:
                    poll.register(mounted, _MOUNTED)
                    looked, stale = time.monotonic(), False
                    mounted.seek(0)  # what is mounted elsewhere is nothing to us
                    now = mounts.below(mounted.read(), self._real())
                    changed |= self._unmounted or now != below
                    self._unmounted, below = False, now
                if changed:
                    for root in self._roots:
                        self._forget(root)  # what is elsewhere now
                    self._again()
                if self._fd in ready:
                    self._take()

    def _take(self) -> None:
        """Take the events that are there."""
        with contextlib.suppress(BlockingIOError):
            for watch, mask, name in events(os.read(self._fd, 1 << 18)):
                if mask & OVERFLOW:
                    self._again()
                    continue
                if mask & UNMOUNT:  # it may be mounted again at once, and look as before
                    self._unmounted = True
                if mask & IGNORED:  # the directory is gone, or its file system
                    self._paths.pop(watch, None)
                above = self._paths.get(watch)
                if above is not None and name:
                    self._heard(os.path.join(above, os.fsdecode(name)), mask)

    def _heard(self, path: str, mask: int) -> None:
        if mask & MOVED_FROM:
            if mask & IS_DIR:  # where it is now, its watches would tell of other paths
                self._forget(path)
            return
        if mask & IS_DIR:
            self._watch(path)  # before the look: nothing slips through
        self._hint(path)

    def _forget(self, top: str) -> None:
        for watch, path in list(self._paths.items()):
            if path == top or path.startswith(top + "/"):
                self._libc.inotify_rm_watch(self._fd, watch)
                del self._paths[watch]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino

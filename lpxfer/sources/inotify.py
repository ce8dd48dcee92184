"""Directories that the kernel tells of: inotify(7), for file systems of this machine.

By watchdog, lpxfer[watch], and of it the part that hands out the kernel's events. Its observers
would hold each rename back for half a second, and pass over a directory for which the kernel
has no watch left; here that is said, and so is a file system that was mounted or unmounted.
"""

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from lpxfer.sources import mounts, tree
from lpxfer.sources.source import Hint

# Of a file: it was closed by a writer, came by a rename, or by a link, which creates it as a
# writer does; of a directory also that it went or came, with all in it.
MASK = Mask(
    InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_DONT_FOLLOW
)

ROOTS = 5  # seconds between looks whether the directories are others of the same name
MOUNTS = 0.5  # seconds between looks at what is mounted: elsewhere that may change all the time

_MOUNTED = select.POLLERR | select.POLLPRI

logging.getLogger("watchdog").addHandler(logging.NullHandler())  # what matters is said here


class Inotify:
    """Directories with all below them; to watchdog it is a callback."""

    def __init__(self, roots: list[str], alarm: Callable[[str], None]) -> None:
        """Know the directories; one that is not there yet is watched when it is mounted.

        `alarm` is told why something is written there that nobody will hear of.
        """
        self._roots, self._alarm = roots, alarm
        self._lock = threading.Lock()  # for what is below; taken before watchdog's own
        self._paths: dict[WatchDescriptor, str] = {}
        self._watches: dict[str, WatchDescriptor] = {}
        self._unmounted = False  # since what is mounted was looked at
        self._events: InotifyFD | None = None
        self._thread: threading.Thread | None = None
        self._wake, self._closing = -1, False

    def start(self, hint: Hint) -> None:
        """Watch everything, then have it looked at."""
        self._hint = hint
        try:
            self._events = InotifyFD()
        except OSError as error:
            self._alarm(f"inotify cannot be used: {error.strerror}")
            return
        self._events.start()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        if not self._events or not self._thread:
            return
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._events.stop()
        self._events.join()
        os.close(self._wake)
        self._events = self._thread = None

    # --- what watchdog calls, from its own thread ------------------------------------------

    def on_event(self, event: InotifyEvent) -> None:
        """Take an event."""
        with self._lock:
            if event.mask & InotifyConstants.IN_UNMOUNT:
                self._unmounted = True  # it may be mounted again at once, and look as before
                os.eventfd_write(self._wake, 1)
            above = self._paths.get(event.wd)
            if above is not None and event.name:
                self._heard(os.path.join(above, os.fsdecode(event.name)), event)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Forget a directory that is gone, or its file system."""
        with self._lock:
            path = self._paths.pop(wd, None)
            if path is not None and self._watches.get(path) == wd:
                del self._watches[path]

    def on_queue_overflow(self) -> None:
        """Begin again, for events were lost."""
        self._again()

    def _heard(self, path: str, event: InotifyEvent) -> None:
        if event.is_moved_from:
            if event.is_directory:  # where it is now, its watches would tell of other paths
                self._forget(path)
            return
        if event.is_directory:
            self._watch(path)  # before the look: nothing slips through
        self._hint(path)

    # --- what is watched -------------------------------------------------------------------

    def _again(self) -> None:
        """Watch everything anew, for nobody knows what has been missed."""
        with self._lock:
            self._identities = self._seen()
            for root in self._roots:
                if mounts.is_remote(root):
                    self._alarm(f"{root} is on a file system that other machines write to")
                self._forget(root)
                self._watch(root)
        self._hint(None)

    def _watch(self, top: str) -> None:
        """Watch a directory and all below it, where they are not watched yet."""
        assert self._events
        for path in tree.directories(top):
            if path in self._watches:
                continue
            name = path + "/." if path in self._roots else path  # that may be a link
            try:
                watch = self._events.add_callback(os.fsencode(name), MASK, self, _id(path))
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    self._alarm(f"inotify has no watch left for {path}: raise max_user_watches")
                    return
            else:
                if watch >= 0:  # not that of a directory that may not be read
                    self._paths[watch], self._watches[path] = path, watch

    def _forget(self, top: str) -> None:
        assert self._events
        gone = [p for p in self._watches if p == top or p.startswith(top + "/")]
        self._events.remove_callbacks([(self._watches[path], _id(path)) for path in gone])
        for path in gone:
            self._paths.pop(self._watches.pop(path), None)

    # --- what takes watches away -----------------------------------------------------------

    def _seen(self) -> list[tuple[int, int] | None]:
        """Return what stays the same as long as the roots are the same directories."""
        return [_identity(root) for root in self._roots]

    def _real(self) -> list[bytes]:
        return [os.fsencode(os.path.realpath(root)) for root in self._roots]

    def _run(self) -> None:
        """Look at what is mounted whenever that changes, but not too often, and at the roots."""
        with open(mounts.PATH, "rb") as mounted:
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            poll.register(mounted, _MOUNTED)
            below = mounts.below(mounted.read(), self._real())
            self._again()  # for what was mounted until now
            looked, stale = time.monotonic(), False
            while True:
                wait = looked + MOUNTS - time.monotonic() if stale else ROOTS
                ready = {fd for fd, _ in poll.poll(max(0.0, 1000 * wait))}
                if self._closing:
                    return
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                if mounted.fileno() in ready:
                    poll.unregister(mounted)
                stale |= bool(ready)
                changed = self._seen() != self._identities
                if stale and time.monotonic() >= looked + MOUNTS:
                    poll.register(mounted, _MOUNTED)
                    looked, stale = time.monotonic(), False
                    unmounted, self._unmounted = self._unmounted, False
                    mounted.seek(0)  # what is mounted elsewhere is nothing to us
                    now = mounts.below(mounted.read(), self._real())
                    changed |= unmounted or now != below
                    below = now
                if changed:
                    self._again()


def _id(path: str) -> CallbackId:
    """Name a watch by its path: one directory may have two, by a mount."""
    return CallbackId(hash(path))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino

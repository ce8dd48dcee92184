"""The pieces of one file that are on their way, over one connection or several.

Whoever carries the file hands out its pieces here; each connection takes the next one when it
has room, so a slow one never keeps the others waiting. What a connection could not deliver it
gives back, and another one takes it: every byte is acknowledged by the server once the file is
`complete`, and none is sent twice but those that were under way on a connection that broke.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from lpxfer.formats.ranges import Ranges

ASK_SECONDS = 0.2  # how often a helper looks whether it is needed elsewhere


class Yielded(Exception):
    """The file gave way to something more urgent; what is left of it is for another attempt."""


class Pieces(Protocol):
    """Where a connection takes what it writes."""

    def take(self, most: int) -> tuple[int, int] | None:
        """Take the next piece of at most `most` bytes, as (start, end); None when none is left."""

    def ack(self, start: int, end: int) -> None:
        """Take note that the server has acknowledged a piece."""

    def give_back(self, start: int, end: int) -> None:
        """Let another connection have a piece that this one could not deliver."""


class Stripes:
    """What is there of a file, what is under way, what is still to be taken. For many threads."""

    def __init__(self, size: int, done: Ranges | None = None) -> None:
        """Begin a file of `size` bytes of which `done` was acknowledged in earlier attempts."""
        self.size = size
        self._done = Ranges(*(done or ()))
        self._todo = deque(self._done.gaps(size))
        self._changed = threading.Condition()
        self._open = False
        self._helpers = 0
        self.alone = False  # no other connection can help
        self.over = False  # nothing is handed out any more
        self.most = 1  # connections at the same time that have carried it

    @property
    def done(self) -> Ranges:
        """A copy of the acknowledged ranges."""
        with self._changed:
            return Ranges(*self._done)

    def fits(self, size: int) -> bool:
        """Tell whether a part file of that size may have what was acknowledged, and no more."""
        return self._done.end <= size <= self.size

    def restart(self) -> None:
        """Begin anew: the part file has none of it."""
        with self._changed:
            self._done, self._todo = Ranges(), deque([(0, self.size)] if self.size else [])

    @property
    def acked(self) -> int:
        """The number of bytes from the first on that are acknowledged."""
        return self._done.contiguous

    @property
    def bytes(self) -> int:
        """The number of bytes that are acknowledged, wherever they are."""
        return self._done.bytes

    @property
    def left(self) -> int:
        """The number of bytes that nobody has taken yet."""
        with self._changed:
            return sum(end - start for start, end in self._todo)

    @property
    def complete(self) -> bool:
        """Tell whether every byte is acknowledged."""
        return self._done.bytes >= self.size

    @property
    def waits(self) -> bool:
        """Tell whether there is still something to wait for: bytes, or helpers that end."""
        return not self.complete and not (self.over and not self._helpers)

    def take(self, most: int) -> tuple[int, int] | None:
        """Take the next piece of at most `most` bytes, as (start, end); None when none is left."""
        with self._changed:
            if self.over or not self._todo:
                return None
            start, end = self._todo[0]
            if end - start > most:
                end = start + most
                self._todo[0] = end, self._todo[0][1]
            else:
                self._todo.popleft()
            return start, end

    def ack(self, start: int, end: int) -> None:
        """Take note that the server has acknowledged a piece."""
        with self._changed:
            self._done.add(start, end)
            if self.complete:
                self._changed.notify_all()

    def give_back(self, start: int, end: int) -> None:
        """Let another connection have a piece that this one could not deliver."""
        with self._changed:
            self._todo.appendleft((start, end))
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait for others: until something is left to take, or all of them are through.

        Returns after so many seconds at the latest.
        """
        with self._changed:
            self._changed.wait_for(self._settled, seconds)

    def _settled(self) -> bool:
        return self.complete or (not self._helpers if self.over else bool(self._todo))

    # --- who helps ------------------------------------------------------------------------

    @contextmanager
    def offered(self) -> Iterator[None]:
        """Let others help for a block: the part file is open, and its name is known."""
        self._open = True
        try:
            yield
        finally:
            self.end()

    def end(self) -> None:
        """Hand out nothing any more."""
        with self._changed:
            self._open, self.over = False, True
            self._changed.notify_all()

    @property
    def wants_help(self) -> bool:
        """Tell whether another connection would find something to do."""
        return self._open and not self.alone and bool(self._todo)

    @contextmanager
    def helping(self, source: int) -> Iterator[int | None]:
        """Be a helper for a block, with a descriptor of one's own of the open file `source`.

        It is None when nobody is wanted any more: `source` may be another file by then.
        """
        with self._changed:
            fd = os.dup(source) if self._open else None
            self._helpers += 1
            self.most = max(self.most, 1 + self._helpers)
        try:
            yield fd
        finally:
            with self._changed:
                self._helpers -= 1
                self._changed.notify_all()
            if fd is not None:
                os.close(fd)


class Share:
    """The stripes as a helper takes them, until it has to `leave`."""

    def __init__(self, stripes: Stripes, leave: Callable[[], bool]) -> None:
        """Know what to take from; `leave` is asked now and then."""
        self._leave, self._take = leave, stripes.take
        self.ack, self.give_back = stripes.ack, stripes.give_back
        self._asked = time.monotonic()

    def take(self, most: int) -> tuple[int, int] | None:
        """Take the next piece; None when none is left, or this helper is needed elsewhere."""
        now = time.monotonic()
        if now - self._asked > ASK_SECONDS:
            self._asked = now
            if self._leave():
                self._take = lambda most: None
        return self._take(most)

"""The order of durable steps for one file: a part name, then the final one.

Every transport passes through here, so that the order stands in one place. `put` returns
when the final name is there and synced as far as the transport can; whatever it raises,
there is either no final name or one of a complete file, and what is left of the part is
what the next attempt goes on from.
"""

import os
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Protocol

from lpxfer.errors import AttemptError, LinkError, PermanentError
from lpxfer.formats import names
from lpxfer.transports.transport import Stat


class Part(Protocol):
    """A part file, open for writing only. All but `close` raise AttemptError or LinkError."""

    def write(
        self, source: int | bytes, start: int, size: int, acked: Callable[[int], None]
    ) -> None:
        """Write bytes `start`..`size` of the source; see Transport.put for `acked`."""

    def size(self) -> int:
        """Return its size."""

    def seal(self) -> None:
        """Give it the mode with which nobody opens it for writing again."""

    def sync(self) -> None:
        """Bring it to stable storage, where the far end can."""

    def spoil(self) -> None:
        """Make it empty and writable again, so that the next attempt starts anew."""

    def close(self) -> None:
        """Close it, whatever happened."""


class Incoming(Protocol):
    """The directory of arrivals as the order of steps needs it."""

    def stat(self, name: str) -> Stat | None:
        """Look at a name."""

    def open_part(self, part: str, create: bool, empty: bool) -> Part:
        """Open a part file: a new one that must not exist, or one that does, emptied or not."""

    def rename(self, part: str, name: str) -> None:
        """Give a part file its final name. Raises PermanentError rather than overwrite."""


def put(
    incoming: Incoming,
    name: str,
    source: int | bytes,
    size: int,
    start: int,
    acked: Callable[[int], None],
    before_rename: Callable[[], None],
) -> None:
    """Bring a file under its final name; the arguments are those of Transport.put."""
    part = names.part(name)
    left = incoming.stat(part)
    if left is not None and left.sealed and left.size == size:
        acked(size)
        before_rename()
        incoming.rename(part, name)
        return
    if left is not None and left.sealed:
        # A power cut kept its mode and not its bytes. Nobody opens it any more: it stands aside
        # until a sweep finds it stale. What cannot be renamed is told by who tries to open it.
        with suppress(AttemptError):
            incoming.rename(part, _aside(name))
            left = None
    go_on = left is not None and start <= left.size <= size
    offset = start if go_on else 0
    with closing(incoming.open_part(part, create=left is None, empty=not go_on)) as file:
        if offset < size:
            file.write(source, offset, size, acked)
        else:
            acked(size)
        if (written := file.size()) != size:
            raise AttemptError(f"{part} has {written} bytes instead of {size}; it is sent again")
        _sync(file)  # first its bytes: a seal that outlives a power cut tells no lies
        file.seal()
        _sync(file)
        before_rename()
        incoming.rename(part, name)
        file.sync()


def _sync(file: Part) -> None:
    """Sync a part file. A failed sync is never repeated: what it did not write may be gone."""
    try:
        file.sync()
    except (AttemptError, LinkError):
        file.spoil()
        raise


def _aside(name: str) -> str:
    """Return a free name for a part file that is of no use: it is half an arrival, too."""
    stem, dot, suffix = name.rpartition(".")
    return names.part(f"{stem}{dot}{os.urandom(4).hex()}{dot}{suffix}")


def reader(source: int | bytes) -> Callable[[memoryview, int], None]:
    """Return what fills a buffer with the source's bytes at an offset.

    It raises PermanentError when the source is shorter, AttemptError when it cannot be read.
    """
    return (
        partial(_from_bytes, source) if isinstance(source, bytes) else partial(_from_file, source)
    )


def _from_bytes(source: bytes, buffer: memoryview, offset: int) -> None:
    if offset + len(buffer) > len(source):
        raise PermanentError(f"the source ends at {len(source)} bytes, before its size")
    buffer[:] = source[offset : offset + len(buffer)]


def _from_file(source: int, buffer: memoryview, offset: int) -> None:
    while buffer:
        try:
            count = os.preadv(source, [buffer], offset)
        except OSError as error:
            raise AttemptError(f"cannot read the source: {error.strerror}") from error
        if not count:
            raise PermanentError(f"the source ends at {offset} bytes, before its size")
        buffer, offset = buffer[count:], offset + count

"""The order of durable steps for files that belong together: a part name, then the final one.

Every transport passes through here, so that the order stands in one place. `put` returns
when the final names are there and synced as far as the transport can; whatever it raises,
there is either no final name or one of a complete file, and what is left of the parts is
what the next attempt goes on from.

A part's verbs ask, and what they return waits for the answer: what is asked together takes
one round trip. A seal is never asked for before the sync of the bytes is known to have worked,
nor a rename before the seal's.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from typing import Protocol

from lpxfer.errors import AttemptError, LinkError, PermanentError
from lpxfer.formats import names
from lpxfer.transports.stripes import Stripes, Yielded
from lpxfer.transports.transport import Stat, Upload
from lpxfer.transports.wire import Answer, Source


class Part(Protocol):
    """A part file, open for writing only. All but `close` raise AttemptError or LinkError."""

    def write(self, source: int, stripes: Stripes, moved: Callable[[], None]) -> None:
        """Write a file until all of it is acknowledged; see Upload."""

    def write_small(self, data: bytes) -> Answer[None]:
        """Write these bytes, which are the whole."""

    def size(self) -> Answer[int]:
        """Ask for its size."""

    def seal(self) -> Answer[None]:
        """Give it the mode with which nobody opens it for writing again."""

    def sync(self) -> Answer[None]:
        """Bring it to stable storage, where the far end can."""

    def spoil(self) -> None:
        """Make it empty and writable again, so that the next attempt starts anew."""

    def close(self) -> None:
        """Close it, whatever happened."""


class Incoming(Protocol):
    """The directory of arrivals as the order of steps needs it."""

    def stat(self, *names: str) -> list[Stat | None]:
        """Look at names."""

    def open_part(self, part: str, create: bool, empty: bool) -> Answer[Part]:
        """Open a part file: a new one that must not exist, or one that does, emptied or not."""

    def rename(self, part: str, name: str) -> Answer[None]:
        """Give a part file its final name. Raises PermanentError rather than overwrite."""


def put(incoming: Incoming, uploads: Sequence[Upload]) -> None:
    """Bring files under their final names, in this order; see Transport.put."""
    if not all(upload.looked for upload in uploads):
        left = incoming.stat(*(names.part(upload.name) for upload in uploads))
        pairs = zip(uploads, left, strict=True)
        uploads = [replace(upload, looked=True, left=there) for upload, there in pairs]
    asked = [_open(incoming, upload) for upload in uploads]
    with ExitStack() as stack:
        parts = [stack.enter_context(closing(answer())) if answer else None for answer in asked]
        checks, new = [], []
        for part, upload in zip(parts, uploads, strict=True):
            if part is None:
                _complete(upload)
            else:
                checks.append(_check(part, *_write(part, upload)))
                new.append(part)
        for wait in checks:
            wait()
        for wait in [_seal(part) for part in new]:
            wait()
        for part, upload in zip(parts, uploads, strict=True):
            upload.before_rename()
            _rename(incoming, part, upload.name)


def _open(incoming: Incoming, upload: Upload) -> Answer[Part] | None:
    """Ask for a part file; None when it is complete, and needs its final name only."""
    part, stripes, left = names.part(upload.name), upload.stripes, upload.left
    if left is not None and left.sealed:
        if stripes is None or left.size == stripes.size:
            return None
        # A power cut kept its mode and not its bytes. Nobody opens it any more: it stands aside
        # until a sweep finds it stale. What cannot be renamed is told by who tries to open it.
        with suppress(AttemptError):
            incoming.rename(part, _aside(upload.name))()
            left = None
    go_on = left is not None and stripes is not None and stripes.fits(left.size)
    if stripes is not None and not go_on:
        stripes.restart()
    return incoming.open_part(part, create=left is None, empty=not go_on)


def _complete(upload: Upload) -> None:
    """Take note of a part file that an earlier attempt has completed and sealed."""
    if upload.stripes is not None:
        upload.stripes.ack(0, upload.stripes.size)
        upload.moved()


def _write(part: Part, upload: Upload) -> tuple[int, Answer[None]]:
    """Write a file; return its size, and what waits until all of it is acknowledged."""
    if upload.stripes is None:
        assert callable(upload.source)
        data = upload.source()
        return len(data), part.write_small(data)
    assert isinstance(upload.source, int)
    part.write(upload.source, upload.stripes, upload.moved)
    upload.moved()
    if not upload.stripes.complete:
        raise Yielded
    return upload.stripes.size, lambda: None


def _check(part: Part, size: int, written: Answer[None]) -> Callable[[], None]:
    """Ask for what shows that the bytes are there and durable; the seal tells no lies then."""
    asked = part.size()
    with _spoiled(part):
        synced = part.sync()

    def wait() -> None:
        written()
        if (there := asked()) != size:
            raise AttemptError(
                f"the part file has {there} bytes instead of {size}; it is sent again"
            )
        with _spoiled(part):
            synced()

    return wait


def _seal(part: Part) -> Callable[[], None]:
    """Ask for the seal, and that it is durable."""
    sealed = part.seal()
    with _spoiled(part):
        synced = part.sync()

    def wait() -> None:
        sealed()
        with _spoiled(part):
            synced()

    return wait


def _rename(incoming: Incoming, part: Part | None, name: str) -> None:
    """Give a file its final name, and sync it once more by the handle that is still open."""
    renamed = incoming.rename(names.part(name), name)
    if part is None:
        renamed()
        return
    synced = part.sync()
    renamed()
    synced()


@contextmanager
def _spoiled(part: Part) -> Iterator[None]:
    """A failed sync is never repeated: what it did not write may be gone for good."""
    try:
        yield
    except (AttemptError, LinkError):
        part.spoil()
        raise


def _aside(name: str) -> str:
    """Return a free name for a part file that is of no use: it is half an arrival, too."""
    stem, dot, suffix = name.rpartition(".")
    return names.part(f"{stem}{dot}{os.urandom(4).hex()}{dot}{suffix}")


def reader(source: int) -> Source:
    """Return what fills buffers with a file's bytes from an offset on.

    It raises PermanentError when the file is shorter, AttemptError when it cannot be read.
    """

    def fill(views: Sequence[memoryview], offset: int) -> None:
        views = [view for view in views if view]
        while views:
            try:
                count = os.preadv(source, views, offset)
            except OSError as error:
                raise AttemptError(f"cannot read the source: {error.strerror}") from error
            if not count:
                raise PermanentError(f"the source ends at {offset} bytes, before its size")
            offset += count
            while views and count >= len(views[0]):
                count -= len(views[0])
                views = views[1:]
            if count:
                views = [views[0][count:], *views[1:]]

    return fill

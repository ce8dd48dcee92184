"""What a way of carrying bytes must be able to do: one connection to one archive site.

All names are plain file names in the incoming directory (`rempath`), except in `names` and
`read`, which take paths of the receipts. Every transport passes the one conformance suite
in tests/transports/.

A sender opens several connections and keeps them between files; a connection carries one
file at a time. `put` takes a range, so that one file may later go over several at once.

Errors say what to do next: LinkError concerns the link or the far end and every job alike
(no connection, unknown host key, incoming missing, read-only or full), LostError, a kind of
it, this connection; AttemptError ends this attempt at this file (a stall, its time limit, a
refused write, a cut);
PermanentError means that it cannot be sent as it is. After any error the connection may be
dead: `connect` brings it back, and costs nothing when it is not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Stat:
    """A file in incoming, seen from outside: its size in bytes and its permission bits."""

    size: int
    mode: int

    @property
    def sealed(self) -> bool:
        """Nobody may write to it: its bytes were complete when it was given this mode."""
        return not self.mode & 0o222


class Transport(Protocol):
    """One connection to the archive site. Not for use by two threads, except `cut`."""

    def connect(self) -> None:
        """Open the connection, unless it is open; the host's key must be known.

        Raises LinkError; AttemptError when it was cut meanwhile.
        """

    def greets(self) -> bool:
        """Tell, within seconds and without logging in, whether the far end answers at all."""

    def stat(self, name: str) -> Stat | None:
        """Look at a file in incoming; None when there is none.

        Raises LinkError; PermanentError when the name is not that of a regular file.
        """

    def put(
        self,
        name: str,
        source: int | bytes,
        size: int,
        *,
        start: int = 0,
        limit: float = 0,
        acked: Callable[[int], None] = lambda offset: None,
        before_rename: Callable[[], None] = lambda: None,
    ) -> None:
        """Write `name` in incoming, durably, by way of its part name.

        In this order: open `.<name>.part` write-only; write bytes `start`..`size` of
        `source` (an open file, read with pread, or bytes), several requests in flight, every
        acknowledgement checked; check the size; seal it by the handle; sync it; call
        `before_rename`; rename to `name`, which fails rather than overwrite; sync the still
        open handle again. `name` exists at the instant of the rename.

        A part file that is sealed and of full size is complete: it is renamed, not opened.
        `start` is where an earlier attempt's contiguous acknowledged bytes ended; a part
        file shorter than that, or longer than `size`, starts again at 0.

        `acked` is called with the contiguous acknowledged offset as it grows, and at last
        with `size`; what it or `before_rename` raises ends the attempt. A transport may
        call both from another thread, while the caller waits. `limit` bounds the whole
        call in seconds, 0 for none; the transport's own stall limit always applies.

        Raises LinkError, AttemptError; PermanentError when `name` exists or the source is
        shorter than `size`.
        """

    def names(self, directory: str) -> list[str]:
        """List a directory of receipts, sorted; empty when there is none. Raises LinkError."""

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Read up to `limit` bytes of a receipts file from `offset`.

        Empty at its end, and when there is no such file. Raises LinkError; PermanentError
        when this one file cannot be read.
        """

    def cut(self, reason: str) -> None:
        """Break the connection from another thread.

        The call under way, or the next one, raises AttemptError with this reason; so does
        every other until `connect`.
        """

    def close(self) -> None:
        """Close the connection; closing twice is fine."""

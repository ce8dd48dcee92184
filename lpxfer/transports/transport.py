"""What a way of carrying bytes must be able to do: one connection to one archive site.

All names are plain file names in the incoming directory (`rempath`), except in `names` and
`read`, which take paths of the receipts. Every transport passes the one conformance suite
in tests/transports/.

A sender opens several connections and keeps them between files; a connection carries one
file at a time. `put` takes a range, so that one file may later go over several at once.

Errors say what to do next: LinkError concerns the link or the far end and every job alike
(no connection, unknown host key, incoming missing, read-only or full); AttemptError ends
this attempt at this file; PermanentError means that it cannot be sent as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Stat:
    """A file in incoming, seen from outside: its size in bytes and its permission bits."""

    size: int
    mode: int


class Transport(Protocol):
    """One connection to the archive site. Not for use by two threads, except `cut`."""

    def connect(self) -> None:
        """Open the connection; the host must be one whose key is known. Raises LinkError."""

    def stat(self, name: str) -> Stat | None:
        """Look at a file in incoming; None when there is none."""

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
        file shorter than that starts again at 0.

        `acked` is called with the contiguous acknowledged offset as it grows; what it
        raises ends the attempt. `limit` bounds the whole call in seconds, 0 for none; the
        transport's own stall limit always applies.
        """

    def names(self, directory: str) -> list[str]:
        """List a directory of receipts; empty when there is none."""

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Read up to `limit` bytes of a receipts file from `offset`; empty at its end."""

    def cut(self, reason: str) -> None:
        """Break the connection from another thread; the call under way ends with `reason`."""

    def close(self) -> None:
        """Close the connection; closing twice is fine."""

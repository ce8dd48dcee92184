"""What a way of carrying bytes must be able to do: one connection to one archive site.

All names are plain file names in the incoming directory (`rempath`), except in `names` and
`read`, which take paths of the receipts. Every transport passes the one conformance suite
in tests/transports/.

A sender opens several connections and keeps them between files. Each carries one job at a
time, or helps another connection to carry a large file.

Errors say what to do next: LinkError concerns the link or the far end and every job alike
(no connection, unknown host key, incoming missing, read-only or full), LostError, a kind of
it, this connection; AttemptError ends this attempt at this file (a stall, its time limit, a
refused write, a cut);
PermanentError means that it cannot be sent as it is. After any error the connection may be
dead: `connect` brings it back, and costs nothing when it is not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lpxfer.transports.stripes import Stripes


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Stat:
    """A file in incoming, seen from outside: its size in bytes and its permission bits."""

    size: int
    mode: int

    @property
    def sealed(self) -> bool:
        """Nobody may write to it: its bytes were complete when it was given this mode."""
        return not self.mode & 0o222


@dataclass
class Upload:
    """One file to put."""

    #: Its final name in incoming.
    name: str
    #: An open file, read with pread; or what makes its bytes when the uploads before it are
    #: complete. What is in a file comes by way of `stripes`, which know its size.
    source: int | Callable[[], bytes]
    stripes: Stripes | None = None
    #: Called whenever more is acknowledged, and at last when all is.
    moved: Callable[[], None] = _nothing
    before_rename: Callable[[], None] = _nothing
    #: Whether its part file was looked for already, and what was found.
    looked: bool = False
    left: Stat | None = None


class Transport(Protocol):
    """One connection to the archive site. Not for use by two threads, except `cut`."""

    @property
    def rtt(self) -> float:
        """The round trip in seconds, as far as it is known."""

    def connect(self) -> None:
        """Open the connection, unless it is open; the host's key must be known.

        Raises LinkError; AttemptError when it was cut meanwhile.
        """

    def greets(self) -> bool:
        """Tell, within seconds and without logging in, whether the far end answers at all."""

    def stat(self, *names: str) -> list[Stat | None]:
        """Look at files in incoming, in one round trip; None for each that is not there.

        Raises LinkError; PermanentError when a name is not that of a regular file.
        """

    def put(self, uploads: "Sequence[Upload]", limit: float = 0) -> None:
        """Bring files under their final names in incoming, durably, one after the other.

        In this order: open each `.<name>.part` write-only; write it, several requests in flight,
        every acknowledgement checked; check the size; sync it; seal it by the handle; sync it;
        when all are so far, for each in turn: call its `before_rename`; rename to `name`, which
        fails rather than overwrite; sync the still open handle again. `name` exists at the
        instant of the rename. Steps that do not depend on each other share round trips.

        A part file that is sealed and of full size is complete: it is renamed, not opened. One
        that is shorter than what is known to be acknowledged, or longer than the file, starts
        again at 0.

        Callbacks are called in the caller's thread; what they raise ends the attempt. Raises
        Yielded when the stripes ended before all was written, as for something more urgent;
        the connection is as good as before then. `limit` bounds the whole call in seconds, 0
        for none; the transport's own stall limit always applies.

        Raises LinkError, AttemptError; PermanentError when a `name` exists or a source is
        shorter than its size.
        """

    def help(
        self, name: str, source: int, stripes: Stripes, leave: Callable[[], bool] = lambda: False
    ) -> None:
        """Carry pieces of a file that another connection puts, until none is left to take.

        `name` is its final name and `source` the open file; `leave` is asked now and then, and
        ends it. What could not be delivered was given back when this raises LinkError,
        AttemptError or PermanentError. A transport to which a second connection is of no use
        does nothing.
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

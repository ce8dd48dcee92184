"""What tells xfer-watch where to look: the interface of a source.

A source gives hints, and guarantees nothing by them: that a path is named does not mean that
the file is there, is finished or is meant. It may name a path twice, or too early. What it
must do is ask for a look at everything whenever it may have missed something.
"""

from collections.abc import Callable
from typing import Protocol

#: Takes the path of a file, or of a directory whose files are all meant, absolute or below the
#: directories that are watched; None asks for a look at everything. Any thread may call it.
Hint = Callable[[str | None], None]


class Source(Protocol):
    """Where hints come from."""

    def start(self, hint: Hint) -> None:
        """Give hints from now on, from a thread of its own. Raises LpxferError when it cannot."""

    def close(self) -> None:
        """Give no more hints; any number of times, started or not."""

"""Receipts as they are read over a transport: what has come since the last time.

Guarantees: the offsets are a cache in memory, so that a line may come twice, and none is missed,
even where a file is cut or replaced. A line without its end is not there yet.
"""

import math
import os
import re
from collections.abc import Callable, Iterator

from lpxfer.errors import PermanentError
from lpxfer.formats import names, record
from lpxfer.transports.target import Target
from lpxfer.transports.transport import Transport

READ = 1 << 18  # bytes asked for at once

_NAME = re.compile(r".+-(\d{8})\.log")


class ReceiptLines:
    """The receipts at any number of targets, and what has been read of them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Begin; `say` takes one line for the operator's log."""
        self._say, self._said = say, set[str]()
        self._offsets: dict[tuple[Target, str], tuple[int, bytes]] = {}  # and the byte before

    def read(
        self, link: Transport, where: Target, host: str, first: str, most: int | None = None
    ) -> Iterator[bytes]:
        """Yield the new lines of a host's receipts from a day on, `20030402` or "" for all.

        No more than `most` bytes of each file, at a time. Raises LinkError, AttemptError.
        """
        directory = os.path.join(where.receipts, names.check_host(host))
        for name in link.names(directory):
            match = _NAME.fullmatch(name)
            if match and match[1] >= first:
                try:
                    yield from self._read_file(link, where, os.path.join(directory, name), most)
                except PermanentError as error:  # the others may be as good as ever
                    if str(error) not in self._said:
                        self._said.add(str(error))
                        self._say(f"{error}; let the sender's account read it")

    def _read_file(
        self, link: Transport, where: Target, path: str, most: int | None
    ) -> Iterator[bytes]:
        offset, last = self._offsets.get((where, path), (0, b""))
        chunk = link.read(path, offset - len(last), READ)
        if not chunk.startswith(last):  # it was cut or replaced: begin again
            offset, last = 0, b""
            chunk = link.read(path, 0, READ)
        chunk, rest = chunk[len(last) :], b""
        end = math.inf if most is None else offset + most
        while chunk and offset < end:
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
            if lines:
                offset, last = offset + sum(len(line) + 1 for line in lines), b"\n"
            if len(rest) > record.LINE_LIMIT:  # no receipt of ours: pass over it
                offset, last, rest = offset + len(rest), rest[-1:], b""
            self._offsets[where, path] = offset, last
            chunk = link.read(path, offset + len(rest), READ)

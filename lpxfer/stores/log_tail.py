"""The tail of daily logs: what has been added since it was asked for last, from today on.

Guarantees: a line is given once, and only a whole one. A day's rest is given before the next
day's beginning. Whoever takes only some is given the others later. What cannot be read is not
there.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime

from lpxfer import durable
from lpxfer.formats import dates

CHUNK = 1 << 20  # bytes


class LogTail:
    """The logs `YYYYMMDD<suffix>` of one directory."""

    def __init__(self, directory: str | os.PathLike[str], suffix: str) -> None:
        """Know the directory; nothing is opened yet."""
        self._directory, self._suffix = directory, suffix
        self._day = ""
        self._inode = self._offset = 0

    def lines(self, now: datetime) -> Iterator[bytes]:
        """Yield the new lines: the first time those of today, later those that came since."""
        today = dates.log_date(now)
        with contextlib.suppress(OSError):
            with durable.opened_dir(os.path.realpath(self._directory)) as fd:
                if self._day not in ("", today):
                    yield from self._rest(self._day, fd)
                if self._day != today:
                    self._day, self._inode, self._offset = today, 0, 0
                yield from self._rest(today, fd)

    def _rest(self, day: str, dir_fd: int) -> Iterator[bytes]:
        with contextlib.suppress(FileNotFoundError):
            with open(durable.open_regular(f"{day}{self._suffix}", dir_fd), "rb") as log:
                status = os.fstat(log.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0  # another file
                log.seek(self._offset)
                while lines := log.readlines(CHUNK):
                    for line in lines:
                        if not line.endswith(b"\n"):
                            return  # half of it
                        self._offset += len(line)
                        yield line

"""Receipts, written at the archive site: its word to each sending host. See xfer-receipt(5).

    <receipts>/<host>/<account>-YYYYMMDD.log    what became of that host's jobs
    <receipts>/accepts/<inst>                   what the sweep of that instrument understands

Guarantees: only appended to, each sweeping account in its own file, synced before the
caller goes on; readable by the account that sends, whatever the umask.
"""

import contextlib
import os
import re
from datetime import datetime
from typing import Self

from lpxfer import durable
from lpxfer.formats import control, dates, keyvalue, names, record
from lpxfer.formats.record import Record

ACCEPTS = "accepts"

_DIR_MODE, _FILE_MODE = 0o2775, 0o644


class Receipts:
    """A tree of receipts that one account writes to."""

    def __init__(self, path: str, account: str) -> None:
        """Name the tree, and the account whose words these are."""
        self.path = os.path.realpath(path)
        self._account = re.sub("[^A-Za-z0-9._-]", "-", account)
        self._fd = -1
        self._ready: set[str] = set()  # files known to have a durable name

    def __enter__(self) -> Self:
        """Close it with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        if self._fd >= 0:
            os.close(self._fd)

    def make(self) -> None:
        """Open the tree; make it where there is none and its parent exists. Raises OSError."""
        if self._fd < 0:
            try:
                self._fd = durable.open_dir(self.path)
            except FileNotFoundError:
                with durable.opened_dir(os.path.dirname(self.path)) as parent:
                    self._fd = _open(os.path.basename(self.path), parent)

    def append(self, host: str, entry: Record, now: datetime) -> None:
        """Write a receipt for a host, durably. The same one twice does no harm."""
        name = f"{self._account}-{dates.log_date(now)}.log"
        fd = _open(names.check_host(host), self._fd)
        try:
            if f"{host}/{name}" not in self._ready:
                _create(name, fd)
                durable.sync(self._fd)
                self._ready.add(f"{host}/{name}")
            durable.append(name, record.dump(entry), fd)
        finally:
            os.close(fd)

    def accept(self, inst: str) -> None:
        """Say that arrivals of an instrument are swept, and of what formats."""
        fd = _open(ACCEPTS, self._fd)
        try:
            # Another sweep of the instrument may be writing the same words just now.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                words = keyvalue.dump([("format", control.FORMAT)])
                durable.replace(names.check_instrument(inst), words, fd, _FILE_MODE)
        finally:
            os.close(fd)


def _open(name: str, dir_fd: int) -> int:
    """Open a directory of the tree, made where there is none."""
    try:
        return durable.open_dir(name, dir_fd)
    except FileNotFoundError:
        made = durable.make_dir(name, dir_fd)
    fd = durable.open_dir(name, dir_fd)
    if made:
        os.fchmod(fd, _DIR_MODE)
    return fd


def _create(name: str, dir_fd: int) -> None:
    """Create an empty file that others can read, unless it is there."""
    with contextlib.suppress(FileExistsError):
        fd = durable.create(name, dir_fd, _FILE_MODE)
        os.fchmod(fd, _FILE_MODE)
        os.close(fd)

"""Receipts, the archive site's word to each sending host. See xfer-receipt(5).

    <receipts>/<host>/<account>-YYYYMMDD.log    what became of that host's jobs
    <receipts>/accepts/<inst>                   what the sweep of that instrument understands

Guarantees: only appended to, each sweeping account in its own file, synced before the
caller goes on; readable by the account that sends, whatever the umask.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Self, TypeVar

from lpxfer import durable
from lpxfer.formats import accepts, dates, names, record
from lpxfer.formats.accepts import Accepts
from lpxfer.formats.record import Record
from lpxfer.stores import log_lines

ACCEPTS = "accepts"

_NAME = re.compile(r".+-(\d{8})\.log", re.ASCII)

T = TypeVar("T")

_DIR_MODE, _FILE_MODE = 0o2775, 0o644
_UNSHARED = 0o700  # of a directory that has just been made


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
            with self._named():
                above, name = os.path.split(self.path)
                try:
                    with durable.opened_dir(above) as parent:
                        self._fd = _open(name, parent)
                except PermissionError:  # to look above it; then somebody else has made it
                    self._fd = durable.open_dir(self.path)

    def append(self, host: str, now: datetime, *entries: Record) -> None:
        """Write receipts for a host, durably, with one sync. The same ones twice do no harm."""
        if not entries:
            return
        name = f"{self._account}-{dates.log_date(now)}.log"
        with self._named(), self._opened(names.check_host(host)) as fd:
            if f"{host}/{name}" not in self._ready:
                _create(name, fd)
                self._ready.add(f"{host}/{name}")
            durable.append(name, b"".join(map(record.dump, entries)), fd)

    def accept(self, inst: str, understood: Accepts, now: datetime) -> None:
        """Say that arrivals of an instrument are swept, and what is understood."""
        with self._named(), self._opened(ACCEPTS) as fd:
            durable.forget_replacements(names.check_instrument(inst), fd)
            # Another sweep of the instrument may be writing the same words just now.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                durable.replace(inst, accepts.dump(understood, now), fd, _FILE_MODE)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Let an error say where it was: a bare name tells nobody which disk is full."""
        try:
            yield
        except OSError as error:
            error.filename = self.path
            raise

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        fd = _open(name, self._fd)
        try:
            yield fd
        finally:
            os.close(fd)


def _open(name: str, dir_fd: int) -> int:
    """Open a directory of the tree, made where there is none.

    Name and mode are durable before anything is in it: who made one that is still empty may
    have died before that.
    """
    try:
        fd = durable.open_dir(name, dir_fd)
    except FileNotFoundError:
        durable.make_dir(name, dir_fd, _UNSHARED)
        fd = durable.open_dir(name, dir_fd)
    if not os.listdir(fd):
        if os.fstat(fd).st_mode & 0o777 == _UNSHARED:
            with contextlib.suppress(PermissionError):  # somebody else's
                os.fchmod(fd, _DIR_MODE)
        durable.sync(fd)
        durable.sync(dir_fd)
    return fd


def _create(name: str, dir_fd: int) -> None:
    """Create a file that others can read; an empty one may lack its mode since a crash."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, _FILE_MODE, dir_fd=dir_fd)
    try:
        if not os.fstat(fd).st_size:
            os.fchmod(fd, _FILE_MODE)  # synced with its first line
    finally:
        os.close(fd)


# --- reading them, here or in a copy ------------------------------------------------------


def directories(path: str, host: str | None) -> list[str]:
    """Return the hosts' directories that `path` stands for: itself, or those in it.

    Of a tree of several hosts only the one of `host`, unless that is None. Raises OSError.
    """
    found = sorted(os.listdir(path))
    hosts = [name for name in found if names.HOST.fullmatch(name) and name != ACCEPTS
             and host in (None, name) and os.path.isdir(os.path.join(path, name))]  # fmt: skip
    if not hosts or any(map(_NAME.fullmatch, found)):
        return [path]
    return [os.path.join(path, name) for name in hosts]


def first_day(path: str) -> str | None:
    """Return the day of the oldest receipts of one host, `20030402`; None when there are none."""
    return min((match[1] for match in map(_NAME.fullmatch, os.listdir(path)) if match),
               default=None)  # fmt: skip


def read(
    path: str, since: datetime, load: Callable[[bytes], T], report: Callable[[str], None]
) -> Iterator[T]:
    """Yield what `load` makes of each receipt of one host from the day of `since` on.

    Damaged lines, and what is no file, are reported and passed over. Raises OSError.
    """
    with durable.opened_dir(os.path.realpath(path)) as fd:
        matches = (match for match in map(_NAME.fullmatch, os.listdir(fd)) if match)
        first = dates.log_date(since)
        logs = sorted((match[1], match[0]) for match in matches if match[1] >= first)
        chosen = (name for _, name in logs)
        yield from log_lines.read_days(path, chosen, fd, record.LINE_LIMIT, load, report)

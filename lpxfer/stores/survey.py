"""A queue as it is found, proper jobs or not: for whoever inspects or mends the spool.

Guarantees: looking changes nothing. What is set aside goes to quarantine/ by one rename,
under a name that is free, and keeps every byte.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from lpxfer import durable
from lpxfer.errors import BusyError, FormatError
from lpxfer.formats import names
from lpxfer.formats.record import Record
from lpxfer.stores import aside, finished_log, layout, numbers
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.queue import Queue
from lpxfer.stores.spool import Spool

T = TypeVar("T")


def made(spool: Spool) -> list[str]:
    """List the queues that have been set up, whatever the configuration says."""
    try:
        with os.scandir(spool.root) as entries:
            return sorted(entry.name for entry in entries if names.QUEUE.fullmatch(entry.name)
                          and entry.is_dir(follow_symlinks=False))  # fmt: skip
    except FileNotFoundError:
        return []


class Survey(Queue):
    """A queue, and what else stands in its directories."""

    def __init__(self, spool: Spool, name: str, repair: bool = False) -> None:
        """Open a queue; with `repair`, what is missing of its directories is made first.

        Raises PermanentError when it cannot be used.
        """
        root = spool.root / name
        self._spool_root = spool.root
        if repair:
            layout.set_up(spool.root, root)
        super().__init__(root, name)

    def open_to_me(self) -> bool:
        """Tell whether this account may see all that is in the queue: its owner, or root."""
        return os.geteuid() in (0, os.fstat(self._fd).st_uid)

    def listing(self, directory: str) -> Iterator[tuple[str, int, bool]]:
        """List a directory of the queue: name, inode, and whether it could be a job."""
        with durable.opened_dir(".", self._dirs[directory]) as fd, os.scandir(fd) as entries:
            for entry in entries:
                proper = bool(names.REQUEST_ID.fullmatch(entry.name))
                with contextlib.suppress(FileNotFoundError):
                    inode = entry.stat(follow_symlinks=False).st_ino
                    yield entry.name, inode, proper and entry.is_dir(follow_symlinks=False)

    def place(self, name: str, inode: int) -> str | None:
        """Return the state directory in which this very entry stands; None when it is gone."""
        for directory in layout.WITH_JOBS:
            with contextlib.suppress(FileNotFoundError):
                fd = self._dirs[directory]
                if os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino == inode:
                    return directory
        return None

    def open_in(self, directory: str, name: str) -> JobDir:
        """Open a job where it stands. Raises OSError."""
        return JobDir(name, durable.open_dir(name, self._dirs[directory]))

    def dead_drafts(self) -> set[tuple[str, int]]:
        """Return name and inode of the drafts in tmp/ whose owner is gone.

        A draft that was made this instant has no lock yet: believe what is found twice.
        """
        dead = set()
        for name, inode, proper in self.listing("tmp"):
            if proper:
                with contextlib.suppress(BusyError, FileNotFoundError):
                    with durable.opened_dir(name, self._dirs["tmp"]) as fd:
                        durable.lock_fd(fd)
                    dead.add((name, inode))
        return dead

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield directories of the queue that are open to others than they should be, and how."""
        return layout.faults(self._spool_root, self.root)

    def seq(self) -> int | None:
        """Return the number given out last; None when `seq` is missing or unreadable."""
        return numbers.last(self._fd)

    def seq_changed(self) -> datetime:
        """Return when a number was given out last. Raises OSError."""
        return numbers.changed(self._fd)

    def unused(self) -> list[tuple[int, int]]:
        """Return the stretches of numbers that no job will have, first and last of each."""
        return numbers.unused(self._fd)

    def log_lines(
        self,
        report: Callable[[str], None],
        load: Callable[[bytes], T | None],
        since: datetime | None = None,
    ) -> Iterator[T]:
        """Yield what `load` makes of the finished log's lines, but for None; report the others."""
        yield from finished_log.inspect(self._dirs["log"], report, load, since)

    def first_day(self) -> str | None:
        """Return the day of the oldest finished log, `20030402`; None when there is none."""
        return finished_log.first_day(self._dirs["log"])

    def logged(self, job_id: str, since: datetime) -> Record | None:
        """Return a job's record in the finished log from the day of `since` on, or None."""
        return finished_log.find(self._dirs["log"], job_id, since)

    # --- mending; the caller holds the queue's lock ---------------------------------------

    def set_aside(self, directory: str, name: str, reason: str, keep_id: bool) -> str:
        """Move an entry to quarantine/; return its name there. Raises OSError.

        A job gets the reason into its routing where that can be read and written. It keeps its
        id as its name if it is the only one of that id; other things get names that are none.
        """
        if directory != "tmp" and names.REQUEST_ID.fullmatch(name):
            with contextlib.suppress(OSError, FormatError), self.open_in(directory, name) as job:
                job.set_routing(replace(job.routing(), reason=reason))
        free = name if keep_id and self._is_free(name) else self._free_name(name)
        durable.move(name, self._dirs[directory], self._dirs["quarantine"], free)
        return free

    def discard_dead(self, name: str) -> None:
        """Remove a draft unless its owner is at work. No id was given out for it."""
        aside.remove_dead(self._dirs["tmp"], partial(numbers.forgo_drafts, self._fd), name)

    def forget_seq(self) -> None:
        """Empty `seq`: numbers go on above the highest one known."""
        numbers.forget(self._fd)

    def _is_free(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._dirs["quarantine"], follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def _free_name(self, name: str) -> str:
        stem = os.fsdecode(os.fsencode(name)[: names.NAME_LIMIT - 10])
        for number in range(1, 100_000):
            if self._is_free(f"{stem}.{number}"):
                return f"{stem}.{number}"
        raise OSError(errno.EEXIST, "too many of this name in quarantine", name)

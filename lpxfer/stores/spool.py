"""The spool: the only owner of the jobs on disk. See xfer-spool(5).

    <spool>/<queue>/tmp/ pending/ held/ active/ sent/ failed/ quarantine/ done/
                    log/YYYYMMDD.log   lock   owner.lock   seq   switches   wake

A job is a directory and a state is a directory: a change of state is one rename, and at
that instant it has happened. Nothing else is authoritative; whoever wants to know what is
queued lists the directories. Only this module and queue.py build a path into the spool.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from lpxfer.errors import PermanentError
from lpxfer.formats import names
from lpxfer.stores import layout
from lpxfer.stores.listing import Entry
from lpxfer.stores.queue import Queue

__all__ = ["Entry", "Queue", "Spool"]


class Spool:
    """The tree that holds the queues."""

    def __init__(self, root: Path) -> None:
        """Take `root` as the spool; nothing is opened or made yet."""
        self.root = root
        self._queues: dict[str, Queue] = {}

    def close(self) -> None:
        """Close the queues that were opened."""
        for queue in self._queues.values():
            queue.close()
        self._queues.clear()

    def queue(self, name: str) -> Queue:
        """Open a queue, setting it up when this account may; it stays open.

        Raises PermanentError when it can be neither set up nor used.
        """
        if name in self._queues:
            return self._queues[name]
        root = self.root / names.check_queue(name)
        try:
            os.stat(root / "log")
        except PermissionError as error:
            raise PermanentError(
                f"no permission to use queue {name} in {self.root}: "
                "a spool of several users is for the members of its group"
            ) from error
        except OSError:
            self._set_up(name, root)
        return self._queues.setdefault(name, Queue(root, name))

    def _set_up(self, name: str, root: Path) -> None:
        try:
            layout.set_up(self.root, root)
        except OSError as error:
            raise PermanentError(
                f"queue {name} cannot be set up in {self.root}: {error.strerror}; "
                "let the account that owns the spool start xfer-send once"
            ) from error

    def names(self, configured: Iterable[str]) -> list[str]:
        """List the queues configured, and others set up here: their jobs are not forgotten."""
        found = set(configured)
        with contextlib.suppress(OSError), os.scandir(self.root) as entries:
            for entry in entries:
                if names.QUEUE.fullmatch(entry.name) and (self.root / entry.name / "log").is_dir():
                    found.add(entry.name)
        return sorted(found)

    def queue_of(self, job_id: str, queues: Iterable[str]) -> Queue:
        """Return the queue, of those named, that has a job or finished it.

        Its own queue is tried first. Raises FormatError for what is no request id,
        PermanentError when no queue knows the job.
        """
        own = names.split_request_id(job_id)[0]
        opened = []
        for name in sorted(queues, key=lambda name: name != own):
            with contextlib.suppress(PermanentError):
                opened.append(self.queue(name))
        for queue in opened:
            if queue.where(job_id):
                return queue
        for queue in opened:
            if queue.finished(job_id):
                return queue
        raise PermanentError(f'there is no job "{job_id}"')

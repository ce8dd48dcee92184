"""One look of xfer-stat at the spool: which queues and jobs it is asked for, and what they are."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lpxfer.cli import setup
from lpxfer.errors import FormatError, LpxferError, PermanentError
from lpxfer.formats import names
from lpxfer.formats.config import Config, QueueConfig
from lpxfer.steps import check, status
from lpxfer.steps.check import QueueStatus, WatchStatus
from lpxfer.steps.status import Job
from lpxfer.stores import claims, watched
from lpxfer.stores.spool import Queue, Spool

RECENT = timedelta(days=7)  # how far a listing of completed jobs looks back


@dataclass(frozen=True)
class Look:
    """What is asked for; `only` holds queues and request ids, "" for every job."""

    config: Config
    spool: Spool
    only: Sequence[str]
    ids: Sequence[str]
    which: str  # not-completed, completed or all
    user: str | None
    now: datetime

    def queues(self) -> tuple[list[Queue], list[str]]:
        """Open the queues that are named, or all; and say which cannot be used, and why.

        Raises ConfigError for the name of no queue.
        """
        every = self.spool.names(self.config.queues)
        named = [word for word in self.only if word and not names.REQUEST_ID.fullmatch(word)]
        for name in set(named) - set(every):
            self.config.find_queue(name)
        queues, faults = [], []
        for name in named or every:
            try:
                queues.append(self.spool.queue(name))
            except PermanentError as error:
                faults.append(str(error))
        return queues, faults

    def jobs(self, queues: Sequence[Queue]) -> tuple[list[Job], list[str]]:
        """List the jobs that are asked for; and say which ids nobody knows."""
        rows: list[Job] = []
        faults = []
        ids = [*(word for word in self.only if names.REQUEST_ID.fullmatch(word)), *self.ids]
        if not ids or self.user or len(ids) < len(self.only) + len(self.ids):
            for queue in queues:
                rows += self._listed(queue)
        for job_id in ids:
            try:
                rows.append(self._job(job_id))
            except LpxferError as error:
                faults.append(str(error))
        return list({(row.queue, row.id): row for row in rows}.values()), faults

    def status(self, queue: Queue, waiting: bool = False, sizes: bool = True) -> QueueStatus:
        """Tell how a queue stands."""
        return check.look(queue, self._unconfirmed(queue), self.now, waiting, sizes)

    def watches(self) -> list[WatchStatus]:
        """Tell how the watches stand of which this account knows, where all is asked for."""
        found, root = list[WatchStatus](), setup.state_path() / "watched"
        for name, instrument in self.config.instruments.items():
            if instrument.watch and not self.only:
                with contextlib.suppress(OSError, FormatError):
                    if state := watched.state(root, name):
                        at = state.compared
                        since = (self.now - at).total_seconds() if at else None
                        found.append(WatchStatus(name, claims.stays(root, name), state, since))
        return found

    def _listed(self, queue: Queue) -> list[Job]:
        """List a queue's jobs; one that is finished meanwhile is found in the second look."""
        rows: list[Job] = []
        finished: list[Job] = []
        if self.which != "completed":
            rows = status.not_completed(queue, self._unconfirmed(queue), self.now, self.user)
        if self.which != "not-completed":
            finished = status.finished(queue, self.now - RECENT, self.user)
        known = {row.uid for row in finished}
        return finished + [row for row in rows if row.uid is None or row.uid not in known]

    def _job(self, job_id: str) -> Job:
        queue = self.spool.queue_of(job_id, self.spool.names(self.config.queues))
        if job := status.find(queue, job_id, self._unconfirmed(queue), self.now):
            return job
        raise PermanentError(f'there is no job "{job_id}"')

    def _unconfirmed(self, queue: Queue) -> float:
        """Return after how many seconds a receipt is late."""
        return self.config.queues.get(queue.name, QueueConfig(queue.name)).unconfirmed

"""What the commands that change jobs share: whose name they act in, and one job after another."""

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lpxfer.cli import setup
from lpxfer.errors import LpxferError
from lpxfer.formats.config import Config
from lpxfer.formats.keyvalue import printable
from lpxfer.stores.job_dir import account
from lpxfer.stores.queue import Queue
from lpxfer.stores.spool import Spool


@dataclass(frozen=True)
class Place:
    """The spool, opened for changes, and what they are recorded with."""

    config: Config
    spool: Spool
    now: datetime
    caller: str  # the account that gave the command

    def each_job(self, ids: Iterable[str], act: Callable[[Queue, str], None]) -> None:
        """Do something to each job, wherever it is; then exit as `one_by_one`."""
        queues = self.spool.names(self.config.queues)
        one_by_one(ids, lambda job_id: act(self.spool.queue_of(job_id, queues), job_id))

    def each_queue(self, names: Iterable[str], act: Callable[[Queue], None]) -> None:
        """Do something to each queue; then exit as `one_by_one`."""
        one_by_one(names, lambda name: act(self.queue(name)))

    def queue(self, name: str) -> Queue:
        """Open a queue that is configured, or was once. Raises ConfigError for another."""
        if name not in self.spool.names(self.config.queues):
            self.config.find_queue(name)
        return self.spool.queue(name)


def open_place(conf: str | None) -> Place:
    """Open the spool. Root goes on as its owner: what root made, no sender could write."""
    config = setup.load_config(conf)
    path = setup.spool_path(config)
    if os.geteuid() == 0 and path.exists():
        _become_owner(path)
    return Place(config, Spool(path), datetime.now(UTC), account(os.getuid()))


def _become_owner(path: Path) -> None:
    status = path.stat()
    if status.st_uid:
        os.setgroups([])
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)


def one_by_one(names: Iterable[str], act: Callable[[str], None]) -> None:
    """Do something to each job or queue, report what goes wrong and go on; then exit.

    The exit status is 0, or the worst of the errors'.
    """
    status = 0
    for name in names:
        try:
            act(name)
        except LpxferError as error:
            message = printable(str(error))
            setup.complain(message if name in message else f"{printable(name)}: {message}")
            status = max(status, error.exit_status, key=(0, 75, 2, 1).index)
        except PermissionError:
            setup.complain(f"{printable(name)}: no permission; it belongs to another account")
            status = 1
        except OSError as error:
            later = setup.status_of(error)
            hint = "; make room and try again" if later == 75 else ""
            setup.complain(f"{printable(name)}: the spool failed: {error.strerror}{hint}")
            status = max(status, later, key=(0, 75, 2, 1).index)
    sys.exit(status)

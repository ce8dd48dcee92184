"""What the commands that change jobs share: whose name they act in, and one job after another."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from lpxfer.cli import setup
from lpxfer.errors import LpxferError
from lpxfer.formats.config import Config
from lpxfer.formats.keyvalue import printable
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Queue, Spool


def open_spool(config: Config) -> Spool:
    """Open the spool. Root goes on as the spool's owner: what root made, no sender could write."""
    path = setup.spool_path(config)
    if os.geteuid() == 0 and path.exists():
        _become_owner(path)
    return Spool(path)


def _become_owner(path: Path) -> None:
    status = path.stat()
    if status.st_uid:
        os.setgroups([])
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)


def caller() -> str:
    """Return the account that gave the command."""
    return account(os.getuid())


def find_queue(config: Config, spool: Spool, name: str) -> Queue:
    """Open a queue that is configured, or was once. Raises ConfigError for another."""
    if name not in spool.names(config.queues):
        config.find_queue(name)
    return spool.queue(name)


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
            setup.complain(f"{printable(name)}: {error.strerror}")
            status = 1
    sys.exit(status)

"""xfer-send: the sender."""

import os
import sys
from datetime import UTC, datetime

import click

from lpxfer.cli import service, setup
from lpxfer.errors import UsageError
from lpxfer.formats.config import Config
from lpxfer.formats.keyvalue import printable
from lpxfer.steps.confirm import Confirm, Verdict
from lpxfer.steps.send import Sender
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Spool
from lpxfer.transports.bell import Bell


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@click.option("--once", is_flag=True, help="Make one pass and exit.")
@click.argument("queues", metavar="[QUEUE]...", nargs=-1)
@setup.common
def main(conf: str | None, once: bool, queues: tuple[str, ...]) -> None:
    """Send the jobs of queues (default: all) to the archive site, until told to stop.

    With --once: exit 0 when nothing is left, 75 when jobs are still deferred or unconfirmed.
    """
    config = setup.load_config(conf)
    names = list(queues) or sorted(config.queues)
    if not names:
        raise UsageError("no queue is configured: add a [queue NAME] section to lpxfer.conf")
    senders = [_sender(config, name) for name in names]
    if once:
        left = sum(sender.once() for sender in senders)
        if left:
            click.echo(f"xfer-send: {left} job(s) are left to send or to confirm", err=True)
        sys.exit(75 if left else 0)
    service.serve([sender.serve for sender in senders])


def _sender(config: Config, name: str) -> Sender:
    settings = config.find_queue(name)
    queue = Spool(setup.spool_path(config)).queue(name)
    me = account(os.geteuid())
    confirm = Confirm(queue, settings, me, _say)
    bell = Bell(settings.arrivals, settings.arrivals_token.removeprefix("file:"), _say)
    return Sender(
        queue,
        settings,
        me,
        confirm.run,
        lambda *job: confirm.find(*job) is Verdict.COMPLETED,
        _say,
        lambda: datetime.now(UTC),
        *([bell.ring] if settings.arrivals else []),
    )


def _say(line: str) -> None:
    click.echo(f"xfer-send: {printable(line)}", err=True)

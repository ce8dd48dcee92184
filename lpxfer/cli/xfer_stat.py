"""xfer-stat: show jobs, queues and the sender, as lpstat does."""

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click

from lpxfer import durable
from lpxfer.cli import setup, stat_json
from lpxfer.cli.stat_look import Look
from lpxfer.cli.stat_text import Text
from lpxfer.errors import FormatError, PermanentError, UsageError
from lpxfer.formats import dates
from lpxfer.formats.config import Config
from lpxfer.steps.check import QueueStatus, verdict
from lpxfer.stores.spool import Spool

REDRAW = 2.0  # seconds

WHICH = click.Choice(["not-completed", "completed", "all"])


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@click.option("-o", "only", is_flag=False, flag_value="", metavar="[QUEUE|ID]", multiple=True,
              help="Jobs: all, those of a queue, or one.")  # fmt: skip
@click.option("-W", "which", type=WHICH, help="Which jobs; default not-completed.")
@click.option("-l", "long", is_flag=True, help="Jobs with all that is known of them.")
@click.option("-p", "sending", is_flag=True, help="Queues: idle, sending, or disabled.")
@click.option("-a", "accepting", is_flag=True, help="Queues: accepting jobs or not.")
@click.option("-u", "user", metavar="USER", help="The jobs of this user.")
@click.option("-s", "summary", is_flag=True, help="Jobs and bytes by queue and state.")
@click.option("-t", "everything", is_flag=True, help="All of this.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Draw it anew every 2 seconds, until Ctrl-C.")
@click.option("--check", "age", is_flag=False, flag_value="", metavar="[AGE]",
              help="Print one line, and exit 1 unless all is well.")  # fmt: skip
@click.option("--metrics", metavar="FILE", help="Write metrics for the node exporter to FILE.")
@click.option("--utc", is_flag=True, help="Times in UTC, not local.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@setup.common
def main(conf: str | None, ids: tuple[str, ...], **given: Any) -> None:
    """Show the jobs that are not completed, or what the options ask for."""
    if given["watch"] and (given["as_json"] or given["age"] is not None):
        raise UsageError("--watch goes with neither --json nor --check")
    config, now = setup.load_config(conf), datetime.now(UTC)
    if given["metrics"]:
        _write_metrics(config, given["metrics"])
        return
    spool = Spool(setup.spool_path(config))
    which = given["which"] or "not-completed"
    look = Look(config, spool, given["only"], ids, which, given["user"], now)
    if given["age"] is not None:
        sys.exit(_check(look, given["age"]))
    if not given["watch"]:
        sys.exit(_show(look, given, bool(ids)))
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            click.clear()
            _show(replace(look, now=datetime.now(UTC)), given, bool(ids))
            time.sleep(REDRAW)


def _write_metrics(config: Config, path: str) -> None:
    """Put a file of metrics in the place of the one before. Raises PermanentError, OSError."""
    try:
        from lpxfer.cli.web_metrics import Metrics
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"{error.name} is not installed here: pip install 'lpxfer[web]'"
        ) from error
    directory, name = os.path.split(os.path.abspath(path))
    with durable.opened_dir(os.path.realpath(directory)) as fd:
        durable.forget_replacements(name, fd)
        durable.replace(name, Metrics(config).text()[0], fd, 0o644)


def _check(look: Look, age: str) -> int:
    """Print the verdict; return the exit status."""
    try:
        limit = dates.duration(age) if age else None
    except FormatError as error:
        raise UsageError(f"--check: {error}") from error
    queues, faults = look.queues()
    found = [look.status(queue, limit is not None, sizes=False) for queue in queues]
    well, line = verdict(found, limit, faults, look.watches())
    click.echo(line)
    return 0 if well else 1


def _show(look: Look, given: dict[str, Any], named: bool) -> int:
    """Print what is asked for; return the exit status."""
    queues, faults = look.queues()
    summary = any(given[word] for word in ("everything", "sending", "accepting", "summary"))
    asked = named or any(given[word] for word in ("everything", "only", "which", "user"))
    jobs, unknown = look.jobs(queues) if asked or not summary else ([], [])
    standing = [look.status(queue) for queue in queues] if summary or given["as_json"] else []
    faults += unknown
    for fault in faults:
        setup.complain(fault)
    if given["as_json"]:
        setup.print_json(
            jobs=[stat_json.job_row(job, given["long"]) for job in jobs],
            queues=[stat_json.queue_row(queue) for queue in standing],
            sender=stat_json.sender(standing),
        )
    else:
        text = Text(look.now, given["utc"])
        _show_queues(text, standing, given)
        text.jobs(jobs, given["long"])
    return 1 if faults else 0


def _show_queues(text: Text, queues: Sequence[QueueStatus], given: dict[str, Any]) -> None:
    """Print the lines of -p, -a and -s; in a summary, what is as it should be goes unsaid."""
    summary, every = given["summary"], given["everything"]
    for queue in queues:
        if summary or every or given["sending"]:
            click.echo(text.sender(queue))
        if every or given["sending"] or (summary and not queue.switches.enabled):
            click.echo(text.sending(queue))
        if every or given["accepting"] or (summary and not queue.switches.accepting):
            click.echo(text.accepting(queue))
    if summary or every:
        text.counts(queues)

"""xfer-submit: put files into the queue of a remote archive, as lp does for a printer."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from lpxfer.cli import setup
from lpxfer.errors import PermanentError, UsageError
from lpxfer.formats import dates, keyvalue, options
from lpxfer.formats.config import Config
from lpxfer.formats.control import Control
from lpxfer.formats.job import DEFAULT_PRIORITY, Routing, State
from lpxfer.steps.follow import follow
from lpxfer.steps.submit import Order, Result, submit
from lpxfer.stores.spool import Queue, Spool


@click.command(context_settings=setup.SETTINGS)
@click.option("-d", "queue_name", metavar="QUEUE", help="Queue; default $XFER_QUEUE.")
@click.option("-o", "pairs", metavar="K=V[,K=V]", multiple=True, help="Options of the job.")
@click.option("-q", "priority", type=click.IntRange(1, 100), help="1 to 100, higher first.")
@click.option("-H", "when", metavar="WHEN", help="hold, immediate, or HH:MM (UTC).")
@click.option("-s", "silent", is_flag=True, help="Do not print the request id.")
@click.option("-c/--link", "copied", default=True, help="Copy into the spool, or hard-link.")
@click.option("--wait", is_flag=True, help="Wait until every job is completed.")
@click.option("--files-from", metavar="FILE", help="Read names from FILE, - for standard input.")
@click.option("-0", "null", is_flag=True, help="Names in --files-from end in NUL.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(path_type=bytes))
@setup.common
def main(conf: str | None, files: tuple[bytes, ...], **given: Any) -> None:
    """Submit files to a queue; each gets a request id, and is kept until it is archived."""
    config = setup.load_config(conf)
    paths = [*files, *_names_from(given["files_from"], given["null"])]
    if not paths:
        raise UsageError("no files: name some, or give --files-from")
    name = given["queue_name"] or config.queue
    if not name:
        raise UsageError("no queue: use -d QUEUE, $XFER_QUEUE or queue = in lpxfer.conf")
    now = datetime.now(UTC)
    order = _order(config, name, given, now)
    queue = Spool(setup.spool_path(config)).queue(name)
    switches = queue.switches()
    if not switches.accepting:
        reason = keyvalue.printable(switches.accepting_reason)
        raise PermanentError(f'queue "{name}" is not accepting jobs: {reason}')
    results = list(_reported(submit(queue, paths, order, now), given))
    jobs = [result.control for result in results if result.control]
    if given["as_json"]:
        setup.print_json(jobs=[_row(job, queue) for job in jobs])
    status = max((_status(result) for result in results), key=(0, 75, 1).index)
    if given["wait"] and not _wait(queue, jobs):
        status = status or 1
    sys.exit(status)


def _order(config: Config, name: str, given: dict[str, Any], now: datetime) -> Order:
    """Turn the command line and the queue's settings into one order."""
    settings = config.find_queue(name)
    asked = options.parse(given["pairs"])
    if not given["copied"] and not settings.link:
        raise UsageError(f"--link is not allowed on queue {name}: its `link` is not yes")
    if "rempw" in asked.routing:
        _check_password_file(asked.routing["rempw"].removeprefix("file:"))
    hold, not_before = _when(given["when"], now)
    return Order(
        host=setup.host_name(config),
        inst=asked.inst or settings.inst,
        maxftp=asked.maxftp or settings.maxftp,
        dir=asked.dir,
        priority=given["priority"],
        others=asked.others,
        routing=Routing(
            priority=given["priority"] or DEFAULT_PRIORITY,
            not_before=not_before,
            reason="held at submit" if hold else None,
            remhost=asked.routing.get("remhost"),
            rempath=asked.routing.get("rempath"),
            remuser=asked.routing.get("remuser"),
            rempw=asked.routing.get("rempw"),
        ),
        hold=hold,
        link=not given["copied"],
        reserve=config.reserve,
    )


def _when(when: str | None, now: datetime) -> tuple[bool, datetime | None]:
    """Read -H: whether to hold, and the time before which nothing is sent."""
    if when is None or when == "immediate":
        return False, None
    if when == "hold":
        return True, None
    try:
        clock = datetime.strptime(when, "%H:%M").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(f"-H {when}: use hold, immediate or HH:MM (UTC)") from None
    time_today = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
    return False, time_today if time_today > now else time_today + timedelta(days=1)


def _check_password_file(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise PermanentError(f'unable to access "{path}" - {error.strerror}') from error
    if mode & 0o077:
        raise PermanentError(f'"{path}" can be read by others; chmod 600 it')


def _names_from(source: str | None, null: bool) -> list[bytes]:
    """Read the names that --files-from gives, one a line or NUL-terminated."""
    if source is None:
        return []
    try:
        with click.open_file(source, "rb") as stream:
            text: bytes = stream.read()
    except OSError as error:
        raise PermanentError(f'unable to access "{source}" - {error.strerror}') from error
    return [name for name in text.split(b"\0" if null else b"\n") if name]


def _reported(results: Iterator[Result], given: dict[str, Any]) -> Iterator[Result]:
    """Print ids as they become durable, a line for each unbroken run of them; and errors."""
    run: list[Control] = []
    for result in results:
        yield result
        if result.error:
            name = keyvalue.printable(os.fsdecode(result.path))
            message = str(result.error)
            setup.complain(message if name in message else f'"{name}" - {message}')
        elif result.control:
            if run and _number(result.control) != _number(run[-1]) + 1:
                _print_ids(run, given)
                run = []
            run.append(result.control)
    _print_ids(run, given)


def _print_ids(run: list[Control], given: dict[str, Any]) -> None:
    if run and not given["silent"] and not given["as_json"]:
        first, last, count = run[0].job, run[-1].job, len(run)
        ids = f"id is {first}" if count == 1 else f"ids are {first} … {last}"
        click.echo(f"request {ids} ({count} file(s))")


def _number(known: Control) -> int:
    return int(known.job.rpartition("-")[2])


def _status(result: Result) -> int:
    return result.error.exit_status if result.error else 0


def _row(job: Control, queue: Queue) -> dict[str, object]:
    return {
        "id": job.job, "uid": job.uid, "queue": queue.name, "name": job.name,
        "path": job.path, "size": job.size, "checksum": job.checksum,
        "submitted": dates.iso(job.submitted),
    }  # fmt: skip


def _wait(queue: Queue, jobs: list[Control]) -> bool:
    """Follow jobs with a progress bar; tell whether all were completed."""
    total, good = sum(job.size for job in jobs), True
    with click.progressbar(length=total, label=f"{len(jobs)} file(s)", file=sys.stderr) as bar:
        for job, state in follow(queue, jobs):
            bar.update(job.size)
            if state is not State.COMPLETED:
                setup.complain(f"{job.job} is {state.value}: see xfer-stat -l {job.job}")
                good = False
    return good

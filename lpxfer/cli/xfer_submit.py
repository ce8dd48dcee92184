"""xfer-submit: put files into the queue of a remote archive, as lp does for a printer."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import click

from lpxfer.cli import setup
from lpxfer.cli.submit_order import order
from lpxfer.errors import LpxferError, PermanentError, UsageError
from lpxfer.formats import dates, names
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.steps.follow import follow
from lpxfer.steps.submit import Result, submit
from lpxfer.stores.spool import Queue, Spool


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@click.option("-d", "queue_name", metavar="QUEUE", help="Queue; default $XFER_QUEUE.")
@click.option("-o", "pairs", metavar="K=V[,K=V]", multiple=True, help="Options of the job.")
@click.option("-q", "priority", type=click.IntRange(1, 100), help="1 to 100, higher first.")
@click.option("-H", "when", metavar="WHEN", help="hold, immediate, or HH:MM (UTC).")
@click.option("-s", "silent", is_flag=True, help="Do not print the request id.")
@click.option("--link/-c", "link", default=False, help="Hard-link into the spool, or copy.")
@click.option("--wait", is_flag=True, help="Wait until every job is completed.")
@click.option("--files-from", metavar="FILE", help="Read names from FILE, - for standard input.")
@click.option("-0", "null", is_flag=True, help="Names in --files-from end in NUL.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument(
    "files", metavar="FILE...", nargs=-1, type=click.Path(readable=False, path_type=bytes)
)
@setup.common
def main(conf: str | None, files: tuple[bytes, ...], **given: Any) -> None:
    """Submit files to a queue; each gets a request id, and is kept until it is archived."""
    config = setup.load_config(conf)
    paths = [*files, *_names_from(given["files_from"], given["null"])]
    if not paths and given["files_from"] is None:
        raise UsageError("no files: name some, or give --files-from")
    name = given["queue_name"] or config.queue
    if not name:
        raise UsageError("no queue: use -d QUEUE, $XFER_QUEUE or queue = in lpxfer.conf")
    now = datetime.now(UTC)
    asked = order(
        config, name, given["pairs"], given["priority"], given["when"], given["link"], now
    )
    spool = Spool(setup.spool_path(config))
    queue = spool.queue(name)
    switches = queue.switches()
    if not switches.accepting:
        raise PermanentError(f'queue "{name}" is not accepting jobs: {switches.accepting_reason}')
    jobs: list[Control] = []
    status = 0
    silent = given["silent"] or given["as_json"]
    for result in _reported(submit(queue, paths, asked, now), silent):
        if result.error:
            status = max(status, result.error.exit_status, key=(0, 75, 1).index)
        elif result.control and (given["as_json"] or given["wait"]):
            jobs.append(result.control)
    if given["as_json"]:
        setup.print_json(jobs=[_row(job) for job in jobs])
    if given["wait"]:
        try:
            good = _wait([queue, *_others(spool, config.queues.keys() - {name})], jobs)
        except KeyboardInterrupt:
            click.echo("\nxfer-submit: no longer waiting; the jobs stay in the queue", err=True)
            good = False
        status = status or (0 if good else 1)
    sys.exit(status)


def _names_from(source: str | None, null: bool) -> list[bytes]:
    """Read the names that --files-from gives, one a line or NUL-terminated."""
    if source is None:
        if null:
            raise UsageError("-0 says how the names in --files-from end; give both")
        return []
    with click.open_file(source, "rb") as stream:
        text: bytes = stream.read()
    return [name for name in text.split(b"\0" if null else b"\n") if name]


def _reported(results: Iterator[Result], silent: bool) -> Iterator[Result]:
    """Print errors, and at the end, an early one too, the ids: those are durable."""
    ids: list[str] = []
    try:
        for result in results:
            if result.error:
                setup.complain(str(result.error))
            elif result.control:
                ids.append(result.control.job)
            yield result
    finally:
        for first, last, count in [] if silent else names.runs(ids):
            word = f"id is {first}" if count == 1 else f"ids are {first} … {last}"
            click.echo(f"request {word} ({count} file(s))")


def _row(job: Control) -> dict[str, object]:
    return {
        "id": job.job, "uid": job.uid, "queue": job.queue, "name": job.name,
        "path": job.path, "size": job.size, "checksum": job.checksum,
        "submitted": dates.iso(job.submitted),
    }  # fmt: skip


def _wait(queues: list[Queue], jobs: list[Control]) -> bool:
    """Follow jobs, with a progress bar on a terminal; tell whether all were completed."""
    if not queues[0].running():
        click.echo(f"xfer-submit: no sender serves queue {queues[0].name}; waiting", err=True)
    good = True
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty():
            total, label = sum(job.size for job in jobs), f"{len(jobs)} file(s)"
            bar = click.progressbar(length=total, label=label, file=sys.stderr)
            stack.enter_context(bar)
        for job, state in follow(queues, jobs):
            if sys.stderr.isatty():
                bar.update(job.size)
            if state is not State.COMPLETED:
                word = f"is {state.value}: see xfer-stat -l {job.job}" if state else "has vanished"
                setup.complain(f"{job.job} {word}")
                good = False
    return good


def _others(spool: Spool, names: Iterable[str]) -> list[Queue]:
    """Open the queues that a job may be moved to."""
    queues = []
    for name in names:
        with contextlib.suppress(LpxferError):
            queues.append(spool.queue(name))
    return queues

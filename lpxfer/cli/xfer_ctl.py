"""xfer-ctl: change jobs that wait, stop and start queues, and replay how a link is paced."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from lpxfer.cli import change, setup
from lpxfer.cli.change import Place
from lpxfer.errors import FormatError, PermanentError, UsageError
from lpxfer.formats import control, names, pace_trace
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.pace_trace import Step
from lpxfer.formats.record import LINE_LIMIT
from lpxfer.formats.switches import Switches
from lpxfer.steps import reroute
from lpxfer.steps.cancel import ASIDE, selected, withdraw
from lpxfer.steps.hold import hold, release
from lpxfer.stores.queue import Queue


@click.group(cls=setup.Group, context_settings=setup.SETTINGS)
@setup.common
@click.pass_context
def main(ctx: click.Context, conf: str | None) -> None:
    """Hold, release, reorder, move and retry jobs; stop and start queues; replay a trace."""
    ctx.obj = conf


def _command(words: str, reason: bool = False) -> Callable[[Callable[..., None]], click.Command]:
    """Make a subcommand; its name is the function's. --config may stand before it or after."""

    def decorate(function: Callable[..., None]) -> click.Command:
        def run(conf: str | None, **given: Any) -> None:
            function(
                change.open_place(conf or click.get_current_context().find_root().obj), **given
            )

        run.__doc__ = function.__doc__
        decorated = click.argument("words", metavar=words, nargs=-1, required=True)(run)
        if reason:
            option = click.option("-r", "reason", metavar="REASON", help="Shown by xfer-stat.")
            decorated = option(decorated)
        name = function.__name__.strip("_")
        return main.command(name, context_settings=setup.SETTINGS)(setup.common(decorated))

    return decorate


# --- jobs -------------------------------------------------------------------------------------


@_command("ID...", reason=True)
def _hold(place: Place, words: tuple[str, ...], reason: str | None) -> None:
    """Keep jobs from being sent until they are released."""
    said = reason or f"held by {place.caller}"
    place.each_job(words, lambda queue, job_id: hold(queue, job_id, said))


@_command("ID...")
def _release(place: Place, words: tuple[str, ...]) -> None:
    """Let held jobs go."""
    place.each_job(words, release)


@_command("N ID...")
def _priority(place: Place, words: tuple[str, ...]) -> None:
    """Set the priority of jobs that wait."""
    numbers = [word for word in words if word.isdecimal()]
    ids = [word for word in words if not word.isdecimal()]
    if len(numbers) != 1 or not ids:
        raise UsageError("give one priority from 1 to 100, and request ids")
    try:
        priority = control.check_priority(numbers[0])
    except FormatError as error:
        raise UsageError(str(error)) from error
    place.each_job(ids, lambda queue, job_id: reroute.set_priority(queue, job_id, priority))


@_command("ID... QUEUE")
def _move(place: Place, words: tuple[str, ...]) -> None:
    """Move jobs that wait to another queue."""
    queues = [word for word in words if names.QUEUE.fullmatch(word)]
    ids = [word for word in words if word not in queues]
    if len(queues) != 1 or not ids:
        raise UsageError("give request ids and one queue")
    place.config.find_queue(queues[0])
    to = place.spool.queue(queues[0])
    if not (switches := to.switches()).accepting:
        raise PermanentError(
            f'queue "{to.name}" is not accepting jobs: {switches.accepting_reason}'
        )
    place.each_job(ids, lambda queue, job_id: reroute.move(queue, job_id, to, place.now))


@_command("ID...")
def _retry(place: Place, words: tuple[str, ...]) -> None:
    """Send jobs again now that have failed."""

    def act(queue: Queue, job_id: str) -> None:
        settings = place.config.queues.get(queue.name, QueueConfig(queue.name))
        reroute.retry(queue, job_id, settings.unconfirmed, place.now)

    place.each_job(words, act)


# --- queues -----------------------------------------------------------------------------------


@_command("QUEUE...")
def _enable(place: Place, words: tuple[str, ...]) -> None:
    """Let queues send."""
    place.each_queue(words, lambda queue: queue.switch(Switches.enable))


@_command("QUEUE...", reason=True)
def _disable(place: Place, words: tuple[str, ...], reason: str | None) -> None:
    """Let queues start no more jobs."""
    off = partial(Switches.disable, reason=reason or f"by {place.caller}", now=place.now)
    place.each_queue(words, lambda queue: queue.switch(off))


@_command("QUEUE...")
def _accept(place: Place, words: tuple[str, ...]) -> None:
    """Let queues take new jobs."""
    place.each_queue(words, lambda queue: queue.switch(Switches.accept))


@_command("QUEUE...", reason=True)
def _reject(place: Place, words: tuple[str, ...], reason: str | None) -> None:
    """Let queues take no new jobs."""
    off = partial(Switches.reject, reason=reason or f"by {place.caller}", now=place.now)
    place.each_queue(words, lambda queue: queue.switch(off))


@_command("QUEUE...", reason=True)
def _purge(place: Place, words: tuple[str, ...], reason: str | None) -> None:
    """Withdraw all failed and quarantined jobs."""
    said = f"purged by {place.caller}" + (f": {reason}" if reason else "")
    queues = [place.queue(name) for name in words]
    found = {job: (queue, state) for queue in queues for job, state in selected(queue, ASIDE)}

    def act(job_id: str) -> None:
        queue, state = found[job_id]
        with contextlib.suppress(FileNotFoundError):  # somebody retries it: let it go
            withdraw(queue, job_id, state, said, place.now)

    change.one_by_one(found, act)


# --- pacing -----------------------------------------------------------------------------------


@main.command("pace", context_settings=setup.SETTINGS)
@click.option("--replay", "trace", metavar="TRACE", required=True, help="A file, or - for stdin.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@setup.common
def _pace(trace: str, as_json: bool, **_: Any) -> None:
    """Print what the sender would decide for a trace of a link: to send, or to wait."""
    with click.open_file(trace, "rb") as file:
        steps = pace_trace.replay(iter(lambda: file.readline(LINE_LIMIT + 1), b""))
        try:
            if as_json:
                setup.print_json(decisions=[pace_trace.row(step) for step in steps])
                return
            click.echo("  seconds      waiting active    MB/s     +/-   delay  period  decision")
            for step in steps:
                click.echo(_line(step))
        except FormatError as error:
            raise PermanentError(f"{trace}: {error}") from error


def _line(step: Step) -> str:
    seen, decision = step.seen, step.decision
    said = "send" if decision.send else f"wait {decision.until - seen.time:.3f}"
    said = "wait" if decision.reason == "nothing" else said
    return (
        f"{seen.time:9.3f} {seen.waiting:12} {seen.active:6} {seen.mean / 1e6:7.2f} "
        f"{seen.deviation / 1e6:7.2f} {step.delay:7.3f} {decision.period:7.3f}  "
        f"{said}: {decision.reason}"
    )

"""xfer-ctl: change jobs that wait, and stop and start queues."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from lpxfer.cli import change, setup
from lpxfer.errors import PermanentError, UsageError
from lpxfer.formats import control, names
from lpxfer.formats.config import Config, QueueConfig
from lpxfer.formats.switches import Switches
from lpxfer.steps import reroute
from lpxfer.steps.cancel import ASIDE, selected, withdraw
from lpxfer.steps.hold import hold, release
from lpxfer.stores.spool import Queue, Spool


@click.group(context_settings=setup.SETTINGS)
@setup.common
@click.pass_context
def main(ctx: click.Context, conf: str | None) -> None:
    """Hold, release, reorder, move and retry jobs; stop and start queues."""
    ctx.obj = conf


def _command(words: str, reason: bool = False) -> Callable[[Callable[..., None]], click.Command]:
    """Make a subcommand; its name is the function's. --config may stand before it or after."""

    def decorate(function: Callable[..., None]) -> click.Command:
        def run(conf: str | None, **given: Any) -> None:
            config = setup.load_config(conf or click.get_current_context().find_root().obj)
            function(config, change.open_spool(config), **given)

        run.__doc__ = function.__doc__
        decorated = click.argument("words", metavar=words, nargs=-1, required=True)(run)
        if reason:
            option = click.option("-r", "reason", metavar="REASON", help="Shown by xfer-stat.")
            decorated = option(decorated)
        name = function.__name__.strip("_")
        return main.command(name, context_settings=setup.SETTINGS)(setup.common(decorated))

    return decorate


def _each_job(
    config: Config, spool: Spool, ids: tuple[str, ...], act: Callable[[Queue, str], None]
) -> None:
    queues = spool.names(config.queues)
    change.one_by_one(ids, lambda job_id: act(spool.queue_of(job_id, queues), job_id))


# --- jobs -------------------------------------------------------------------------------------


@_command("ID...", reason=True)
def _hold(config: Config, spool: Spool, words: tuple[str, ...], reason: str | None) -> None:
    """Keep jobs from being sent until they are released."""
    said = reason or f"held by {change.caller()}"
    _each_job(config, spool, words, lambda queue, job_id: hold(queue, job_id, said))


@_command("ID...")
def _release(config: Config, spool: Spool, words: tuple[str, ...]) -> None:
    """Let held jobs go."""
    _each_job(config, spool, words, release)


@_command("N ID...")
def _priority(config: Config, spool: Spool, words: tuple[str, ...]) -> None:
    """Set the priority of jobs that wait."""
    numbers = [word for word in words if word.isdecimal()]
    ids = tuple(word for word in words if not word.isdecimal())
    if len(numbers) != 1 or not ids:
        raise UsageError("give one priority from 1 to 100, and request ids")
    try:
        priority = control.check_priority(numbers[0])
    except PermanentError as error:
        raise UsageError(str(error)) from error
    _each_job(
        config, spool, ids, lambda queue, job_id: reroute.set_priority(queue, job_id, priority)
    )


@_command("ID... QUEUE")
def _move(config: Config, spool: Spool, words: tuple[str, ...]) -> None:
    """Move jobs that wait to another queue."""
    queues = [word for word in words if names.QUEUE.fullmatch(word)]
    ids = tuple(word for word in words if word not in queues)
    if len(queues) != 1 or not ids:
        raise UsageError("give request ids and one queue")
    config.find_queue(queues[0])
    other, now = spool.queue(queues[0]), datetime.now(UTC)
    if not (switches := other.switches()).accepting:
        raise PermanentError(
            f'queue "{other.name}" is not accepting jobs: {switches.accepting_reason}'
        )
    _each_job(config, spool, ids, lambda queue, job_id: reroute.move(queue, job_id, other, now))


@_command("ID...")
def _retry(config: Config, spool: Spool, words: tuple[str, ...]) -> None:
    """Send jobs again now that have failed."""
    now = datetime.now(UTC)

    def act(queue: Queue, job_id: str) -> None:
        settings = config.queues.get(queue.name, QueueConfig(queue.name))
        reroute.retry(queue, job_id, settings.unconfirmed, now)

    _each_job(config, spool, words, act)


# --- queues -----------------------------------------------------------------------------------


def _switch(
    config: Config, spool: Spool, queues: tuple[str, ...], to: Callable[[Switches], Switches]
) -> None:
    change.one_by_one(queues, lambda name: change.find_queue(config, spool, name).switch(to))


@_command("QUEUE...")
def _enable(config: Config, spool: Spool, words: tuple[str, ...]) -> None:
    """Let queues send."""
    _switch(config, spool, words, Switches.enable)


@_command("QUEUE...", reason=True)
def _disable(config: Config, spool: Spool, words: tuple[str, ...], reason: str | None) -> None:
    """Let queues start no more jobs."""
    said, now = reason or f"by {change.caller()}", datetime.now(UTC)
    _switch(config, spool, words, lambda switches: switches.disable(said, now))


@_command("QUEUE...")
def _accept(config: Config, spool: Spool, words: tuple[str, ...]) -> None:
    """Let queues take new jobs."""
    _switch(config, spool, words, Switches.accept)


@_command("QUEUE...", reason=True)
def _reject(config: Config, spool: Spool, words: tuple[str, ...], reason: str | None) -> None:
    """Let queues take no new jobs."""
    said, now = reason or f"by {change.caller()}", datetime.now(UTC)
    _switch(config, spool, words, lambda switches: switches.reject(said, now))


@_command("QUEUE...", reason=True)
def _purge(config: Config, spool: Spool, words: tuple[str, ...], reason: str | None) -> None:
    """Withdraw all failed and quarantined jobs."""
    said, now = f"purged by {change.caller()}", datetime.now(UTC)
    if reason:
        said += f": {reason}"
    found = {job_id: (queue, state)
             for queue in [change.find_queue(config, spool, name) for name in words]
             for job_id, state in selected(queue, ASIDE)}  # fmt: skip

    def act(job_id: str) -> None:
        queue, state = found[job_id]
        with contextlib.suppress(FileNotFoundError):  # somebody retries it: let it go
            withdraw(queue, job_id, state, said, now)

    change.one_by_one(found, act)

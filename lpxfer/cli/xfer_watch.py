"""xfer-watch: submit files by itself, as soon as they are finished."""

import contextlib
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import click

from lpxfer.cli import service, setup
from lpxfer.cli.watch_submit import Submitter
from lpxfer.errors import LpxferError, UsageError
from lpxfer.formats import watching
from lpxfer.formats.config import Config, InstrumentConfig
from lpxfer.formats.keyvalue import printable
from lpxfer.sources import chosen
from lpxfer.sources.finder import Site, in_ns
from lpxfer.steps.watch import Watch
from lpxfer.stores import origins
from lpxfer.stores.spool import Queue, Spool
from lpxfer.stores.watched import Watched

AGAIN = 2.0  # seconds between two tries to see a directory for the very first time


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@click.option("--once", is_flag=True, help="Submit what is finished and missing, and exit.")
@click.option("--mark", is_flag=True, help="Take all that is there as submitted, and exit.")
@click.option("--all", "everything", is_flag=True, help="Submit what was taken as submitted, too.")
@click.argument("instruments", metavar="[INSTRUMENT]...", nargs=-1)
@setup.common
def main(
    conf: str | None, once: bool, mark: bool, everything: bool, instruments: tuple[str, ...]
) -> None:
    """Submit the finished files of instruments (default: all that are watched) until told to stop.

    With --once: exit 0 when nothing is left, 75 when files are not finished or not taken yet.
    """
    if mark and (once or everything):
        raise UsageError("--mark submits nothing: use it alone")
    config = setup.load_config(conf)
    names = list(instruments) or [n for n, inst in config.instruments.items() if inst.watch]
    if not names:
        raise UsageError(
            "nothing is watched: set watch in an [instrument NAME] section of lpxfer.conf"
        )
    with contextlib.ExitStack() as stack:
        watches = {name: _watch(config, name, stack) for name in names}
        if mark or once:
            for watch in watches.values():
                _begin(watch, mark, everything)
        if mark:
            return
        if once:
            _once(list(watches.values()))
        service.serve([
            partial(_serve, config.instruments[name], watch, everything)
            for name, watch in watches.items()
        ])  # fmt: skip


def _watch(config: Config, name: str, stack: contextlib.ExitStack) -> Watch:
    """Make the watch of an instrument, with what a killed one has not noted of its jobs."""
    instrument = config.instruments.get(name)
    if instrument is None or not instrument.watch:
        raise UsageError(f"{name} is not watched: set watch in [instrument {name}] of lpxfer.conf")
    site = Site(
        watching.directories(instrument.watch),
        watching.Match(instrument.match),
        watching.finished(instrument.finished),
    )
    spool = Spool(setup.spool_path(config))
    record = stack.enter_context(Watched(setup.state_path() / "watched", name))
    if record.open:
        origins.note(record, _queues(config, spool), in_ns(datetime.now(UTC)))
    submitter = Submitter(config, instrument, spool, record.others, _say(name))
    return Watch(site, record, submitter.submit, _say(name), lambda: datetime.now(UTC))


def _queues(config: Config, spool: Spool) -> list[Queue]:
    """Open every queue that a job may be in, whichever it was made for."""
    queues = []
    for name in spool.names(config.queues):
        with contextlib.suppress(LpxferError):
            queues.append(spool.queue(name))
    return queues


def _begin(watch: Watch, mark: bool, everything: bool) -> None:
    first = watch.first
    taken = watch.begin(mark, everything)
    if taken or mark:
        why = "" if mark else " that are older than a day"
        hint = "; to submit them too: xfer-watch --all" if first and not mark else ""
        watch.say(f"{taken} file(s){why} are taken as submitted{hint}")


def _once(watches: list[Watch]) -> None:
    left = [watch.once() for watch in watches]
    waiting, refused = (sum(numbers) for numbers in zip(*left, strict=True))
    if waiting:
        click.echo(f"xfer-watch: {waiting} file(s) are not finished, or not submitted", err=True)
    sys.exit(1 if refused else 75 if waiting else 0)


def _serve(
    instrument: InstrumentConfig,
    watch: Watch,
    everything: bool,
    stop: threading.Event,
    beat: Callable[[], None],
) -> None:
    told = ""
    while not stop.is_set():
        try:
            _begin(watch, False, everything)
            break
        except OSError as error:  # its disk may be mounted later; others need not wait for that
            said = f'unable to access "{error.filename}" - {error.strerror}'
            if said != told:
                watch.say(f"{said}; it is tried again until it works")
            told = said
            beat()
            stop.wait(AGAIN)
    with contextlib.ExitStack() as stack:
        for source in chosen.of(instrument, watch.say):
            stack.callback(source.close)
            source.start(watch.hints.put)
        watch.serve(stop, beat)


def _say(name: str) -> Callable[[str], None]:
    return lambda line: click.echo(f"xfer-watch: {name}: {printable(line)}", err=True)

"""xfer-sweep: take arrivals to their place, as SAO's lpsweeper does."""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click

from lpxfer.cli import setup, telling
from lpxfer.errors import BusyError, FormatError, PermanentError, UsageError
from lpxfer.formats import names, options, record
from lpxfer.formats.config import Config, InstrumentConfig
from lpxfer.formats.keyvalue import printable
from lpxfer.steps.repeat import repeat
from lpxfer.steps.sweep import Rules, sweep
from lpxfer.steps.sweep_any import SAO, AnyRules, sweep_any
from lpxfer.stores.archive import Archive, Outcome
from lpxfer.stores.incoming import Incoming
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.instrument_log import place as log_place
from lpxfer.stores.job_dir import account
from lpxfer.stores.receipts import Receipts

Sweep = Callable[[Archive], Iterator[Outcome]]


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@click.option("-i", "inst", metavar="INSTRUMENT", help="Sweep the arrivals of this instrument.")
@click.option("-d", "directory", metavar="DIR", help="The instrument directory.")
@click.option("-L", "logdir", metavar="DIR", help="Log there; default DIR/xferlogs.")
@click.option("-l", "logfile", metavar="FILE", help="Log to this file.")
@click.option("-f", "source", metavar="DIR", help="The input directory; default incoming.")
@click.option("-o", "pairs", metavar="dir=NAME", multiple=True, help="Place files under NAME.")
@click.option("-D/+D", "dated", default=True, help="With dated directories (default), or not.")
@click.option("-A", "any_", is_flag=True, help="Sweep what belongs to no known instrument.")
@click.option("-n", "more", metavar="NAMES", multiple=True, help="Instruments -A ignores, too.")
@click.option("+n", "only", metavar="NAMES", multiple=True, help="The only ones it ignores.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--follow", is_flag=True, help="Stay, and sweep as arrivals come.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@setup.common
def main(conf: str | None, **given: Any) -> None:
    """Place arrivals in an instrument's directory, or (-A) set strangers aside."""
    config = setup.load_config(conf)
    if given["follow"] and (given["as_json"] or given["dry_run"]):
        raise UsageError("--follow goes with neither --json nor --dry-run")
    directory, work = _work(config, given)
    tells = (
        InstrumentConfig("") if given["any_"] or given["dry_run"] else _instrument(config, given)
    )

    def once() -> Iterator[Outcome]:
        with ExitStack() as stack:
            yield from work(_open(config, given, directory, stack))

    outcomes = once()
    if given["follow"]:
        stopped: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.append(1))
        outcomes = repeat(once, given["source"] or config.incoming, lambda: bool(stopped))
    rows: list[dict[str, object]] = []
    status = 0
    with telling.told(tells, partial(_home, given, directory), given["follow"]) as news:
        try:
            for outcome in outcomes:
                news()
                status = max(status, _tell(outcome, given["dry_run"] and not given["as_json"]))
                if outcome.record and given["as_json"]:
                    rows.append(record.row(outcome.record))
        except BusyError:
            pass  # another sweep of this directory is at it
    if given["as_json"]:
        setup.print_json(records=rows)
    sys.exit(0 if given["follow"] else status)


def _work(config: Config, given: dict[str, Any]) -> tuple[str, Sweep]:
    """Return the directory that takes the files, and the sweep to make."""
    into, dated, inst = options.parse(given["pairs"]).dir, given["dated"], given["inst"]
    if bool(inst) == given["any_"]:
        raise UsageError("give -i INSTRUMENT, or -A for what belongs to no known instrument")
    if given["any_"]:
        rules = AnyRules(frozenset(_ignored(config, given)), config.stale, into, dated)
        work: Sweep = partial(sweep_any, rules=rules, dry_run=given["dry_run"])
        directory, key = config.strangers, "strangers in [lpxfer]"
    else:
        instrument = _instrument(config, given)
        work = partial(sweep, rules=Rules(instrument, into, dated), dry_run=given["dry_run"])
        directory, key = instrument.dir, f"dir in [instrument {instrument.name}]"
    if not (directory := given["directory"] or directory):
        raise UsageError(f"no directory to place files in: give -d DIR, or set {key}")
    return directory, work


def _instrument(config: Config, given: dict[str, Any]) -> InstrumentConfig:
    try:
        return config.find_instrument(names.check_instrument(given["inst"]))
    except FormatError as error:
        raise UsageError(str(error)) from error


def _ignored(config: Config, given: dict[str, Any]) -> set[str]:
    """Return the instruments that -A leaves alone; lists are split at commas and blanks."""
    known = {name for i in config.instruments.values() for name in (i.name, i.alias)} | SAO
    more, only = (re.split(r"[,\s]+", " ".join(given[key])) for key in ("more", "only"))
    return (set(only) if given["only"] else known) | set(more)


def _open(config: Config, given: dict[str, Any], directory: str, stack: ExitStack) -> Archive:
    """Open the places of one sweep."""
    source = given["source"] or config.incoming
    what = f'input directory "{printable(source)}"'
    try:
        incoming = stack.enter_context(Incoming(source, writable=not given["dry_run"]))
        what = f'directory to place files in, "{printable(directory)}"'
        home = stack.enter_context(_home(given, directory))
    except OSError as error:
        hint = "; make it, or mount its file system" if error.errno == errno.ENOENT else ""
        raise PermanentError(f"unable to access the {what} - {error.strerror}{hint}") from error
    receipts = stack.enter_context(
        Receipts(setup.receipts_path(config, source), account(os.geteuid()))
    )
    return Archive(incoming, home, receipts, lambda: datetime.now(UTC))


def _home(given: dict[str, Any], directory: str) -> InstrumentDir:
    """Open the directory that takes the files, with its log."""
    logdir = given["logdir"] and os.path.abspath(given["logdir"])
    return InstrumentDir(directory, *log_place(directory, logdir, given["logfile"]))


def _tell(outcome: Outcome, dry_run: bool) -> int:
    """Report one outcome; return its exit status."""
    if outcome.message:
        setup.complain(outcome.message)
    if outcome.record and dry_run:
        fields = outcome.record.fields
        words = (fields.get(key, "") for key in ("placed", "uid", "bundle", "name", "reason"))
        shown = printable("  ".join(word for word in words if word))
        click.echo(f"would be {outcome.record.kind}: {shown}")
    return outcome.status

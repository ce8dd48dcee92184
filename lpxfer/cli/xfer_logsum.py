"""xfer-logsum: how many files were archived, how many errors, how fast. See xfer-logsum(1)."""

import contextlib
import os
import sys
from datetime import UTC, datetime, tzinfo

import click

from lpxfer.cli import logsum_report
from lpxfer.cli.setup import (
    SETTINGS,
    Command,
    common,
    complain,
    load_config,
    print_json,
    reported,
)
from lpxfer.errors import FormatError, UsageError
from lpxfer.formats import dates, names
from lpxfer.formats.config import Config, InstrumentConfig
from lpxfer.formats.window import DAY, NOON, Window, window
from lpxfer.steps import logsum
from lpxfer.steps.logsum import Tally
from lpxfer.stores import instrument_log


class InOrder(Command):
    """A command that knows which of several options was the last on the command line.

    click hands over values in the order of first occurrences: -D 3 -h -48 -D 7 would be -h.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note the names of all options in the order in which they stand, then parse."""
        with contextlib.suppress(click.UsageError):  # the real parse below reports it
            ctx.meta[__name__] = [p.name for p in self.make_parser(ctx).parse_args(list(args))[2]]
        return super().parse_args(ctx, args)


def last_of(*options: str) -> str | None:
    """Return the one of these options that stands last on the command line."""
    order = click.get_current_context().meta[__name__]
    return next((name for name in reversed(order) if name in options), None)


@click.command(cls=InOrder, context_settings=SETTINGS)
@click.option("-i", "inst", required=True, metavar="INSTRUMENT", help="Or an alias, or all.")
@click.option("-l", "log", metavar="PATH", help="Transfer logs: a directory or a file.")
@click.option("-f", "xferlogs", multiple=True, metavar="FILE", help="Times from this xferlog.")
@click.option("-B", "base", metavar="YYYY-MM-DD", help="Base day; default: today.")
@click.option("-b", "begin", type=float, metavar="HOURS", help="Start, from midnight of that day.")
@click.option("-n", "-noon", "noon", is_flag=True, help="Start at noon, as -b 12.")
@click.option("-D", "days", type=float, metavar="DAYS", help="From start to end; default: -1.")
@click.option("-h", "hours", type=float, metavar="HOURS", help="From start to end, in hours.")
@click.option("-z", "zone", metavar="ZONE", help="Time zone; default: local.")
@click.option("--utc", is_flag=True, help="As -z UTC.")
@click.option("-v", "more", is_flag=True, help="Report even that nothing was transferred.")
@click.option("+v", "less", is_flag=True, help="Only the numbers of files and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def main(
    inst: str,
    log: str | None,
    xferlogs: tuple[str, ...],
    base: str | None,
    begin: float | None,
    days: float | None,
    hours: float | None,
    zone: str | None,
    as_json: bool,
    conf: str | None,
    **_: bool,
) -> None:
    """Report on the files that were archived, the errors and the speed."""
    try:
        names.check_instrument(inst)
        there = _zone("UTC" if last_of("zone", "utc") == "utc" else zone)
    except FormatError as error:
        raise UsageError(str(error)) from error
    start = NOON if last_of("noon", "begin") == "noon" else begin
    span = hours if last_of("days", "hours") == "hours" else days and days * DAY
    covered = window(datetime.now(UTC), there, base, start, -DAY if span is None else span)
    tallies, status = _tallies(load_config(conf), inst, log, covered)
    if xferlogs:
        logsum.take_times(tallies.values(), xferlogs, complain)
    summaries = [tally.summary(name) for name, tally in tallies.items()]
    if as_json:
        print_json(reports=[logsum_report.row(summary, covered) for summary in summaries])
    else:
        level = {"more": 2, "less": 0, None: 1}[last_of("more", "less")]
        shown = [s for s in summaries if s.files or s.errors or level == 2]
        texts = [logsum_report.text(s, covered, there, level) for s in shown]
        if texts:
            click.echo("\n\n".join(texts))
    sys.exit(status)


def _zone(name: str | None) -> tzinfo:
    from dateutil import tz

    return dates.find_zone(name) if name is not None else tz.gettz() or tz.tzlocal()


def _tallies(
    conf: Config, inst: str, log: str | None, covered: Window
) -> tuple[dict[str, Tally], int]:
    """Read what -i and -l name; return the exit status too, for `all` goes on after errors."""
    everything = inst == "all"
    chosen = [*conf.instruments.values()] if everything else [conf.find_instrument(inst)]
    if log is not None:
        known = {name: i.name for i in chosen for name in i.names}
        return logsum.count(log, known, covered, complain, others=everything), 0
    if not chosen:
        raise UsageError("no [instrument NAME] is configured; name one with -i, or logs with -l")
    tallies, status = dict[str, Tally](), 0
    for instrument in chosen:
        try:
            with reported():
                path = _log_dir(conf, instrument)
                known = dict.fromkeys(instrument.names, instrument.name)
                tallies |= logsum.count(path, known, covered, complain)
        except SystemExit:
            if not everything:
                raise
            status = 1
    return tallies, status


def _log_dir(conf: Config, instrument: InstrumentConfig) -> str:
    if not instrument.dir:
        raise UsageError(
            f"the transfer logs of {instrument.name} are not known; name them with -l, or set "
            f"dir in [instrument {instrument.name}] of {conf.path or 'lpxfer.conf'}"
        )
    return os.path.join(instrument.dir, instrument_log.DIRECTORY)

"""xfer-logsum: how many files were archived, how many errors, how fast. See xfer-logsum(1)."""

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import TypeVar

import click

from lpxfer.cli import logsum_report, period
from lpxfer.cli.setup import SETTINGS, common, complain, load_config, print_json, reported
from lpxfer.errors import FormatError, UsageError
from lpxfer.formats import dates, names
from lpxfer.formats.config import Config, InstrumentConfig
from lpxfer.formats.window import Window
from lpxfer.steps import logsum
from lpxfer.stores import instrument_log

T = TypeVar("T")


@click.command(cls=period.InOrder, context_settings=SETTINGS)
@click.option("-i", "inst", required=True, metavar="INSTRUMENT", help="Or an alias, or all.")
@click.option("-l", "logs", multiple=True, metavar="PATH", help="Logs: a directory or a file.")
@click.option("-f", "xferlogs", multiple=True, metavar="FILE", help="Times from this xferlog.")
@period.options
@click.option("-v", "more", is_flag=True, help="Report even that nothing was transferred.")
@click.option("+v", "less", is_flag=True, help="Only the numbers of files and errors.")
@click.option("--latency", is_flag=True, help="How long files took from stage to stage.")
@click.option("--within", metavar="DURATION", help="With it, the share of files that took less.")
@click.option("--each", is_flag=True, help="With it, the times of each file instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def main(
    inst: str,
    logs: tuple[str, ...],
    xferlogs: tuple[str, ...],
    base: str | None,
    begin: float | None,
    days: float | None,
    hours: float | None,
    zone: str | None,
    latency: bool,
    within: str | None,
    each: bool,
    as_json: bool,
    conf: str | None,
    **_: bool,
) -> None:
    """Report on the files that were archived, the errors and the speed."""
    try:
        names.check_instrument(inst)
    except FormatError as error:
        raise UsageError(str(error)) from error
    window, there = period.covered(datetime.now(UTC), base, begin, days, hours, zone)
    if latency:
        if xferlogs:
            raise UsageError("an xferlog knows of no stages; leave -f out with --latency")
        if each and within is not None:
            raise UsageError("--each and --within do not go together")
        sys.exit(_latency(conf, inst, logs, window, there, within, each, as_json))
    if within is not None or each:
        raise UsageError(f"--{'each' if each else 'within'} goes with --latency")
    tallies, status = _read(logsum.count, load_config(conf), inst, logs, window)
    if xferlogs:
        logsum.take_times(tallies.values(), xferlogs, complain)
    summaries = [tally.summary(name) for name, tally in tallies.items()]
    if as_json:
        print_json(reports=[logsum_report.row(summary, window) for summary in summaries])
    else:
        level = {"more": 2, "less": 0, None: 1}[period.last_of("more", "less")]
        shown = [s for s in summaries if s.files or s.errors or level == 2]
        texts = [logsum_report.text(s, window, there, level) for s in shown]
        if texts:
            click.echo("\n\n".join(texts))
    sys.exit(status)


def _latency(
    conf: str | None,
    inst: str,
    logs: Sequence[str],
    window: Window,
    there: tzinfo,
    within: str | None,
    each: bool,
    as_json: bool,
) -> int:
    """Report how long files took, or when each came where; return the exit status."""
    from lpxfer.cli import latency_report as report
    from lpxfer.steps.latency import measure

    try:
        limit = None if within is None else dates.duration(within)
    except FormatError as error:
        raise UsageError(f"--within: {error}") from error
    found, status = _read(partial(measure, each=each), load_config(conf), inst, logs, window)
    if as_json:
        rows = [report.files(name, known) if each else report.rows(name, known, window, limit)
                for name, known in found.items()]  # fmt: skip
        print_json(**{"files" if each else "latencies": [row for some in rows for row in some]})
    else:
        texts = [report.each(name, known, window, there) if each
                 else report.text(name, known, window, there, limit)
                 for name, known in found.items()]  # fmt: skip
        click.echo("\n\n".join(texts))
    return status


def _read(
    read: Callable[..., dict[str, T]],
    conf: Config,
    inst: str,
    logs: Sequence[str],
    covered: Window,
) -> tuple[dict[str, T], int]:
    """Read what -i and -l name; return the exit status too, for `all` goes on after errors."""
    everything = inst == "all"
    chosen = [*conf.instruments.values()] if everything else [conf.find_instrument(inst)]
    if logs:
        known = {name: i.name for i in chosen for name in i.names}
        return read(logs, known, covered, complain, others=everything), 0
    if not chosen:
        raise UsageError("no [instrument NAME] is configured; name one with -i, or logs with -l")
    found, status = dict[str, T](), 0
    for instrument in chosen:
        try:
            with reported():
                path = _log_dir(conf, instrument)
                known = dict.fromkeys(instrument.names, instrument.name)
                found |= read([path], known, covered, complain)
        except SystemExit:
            if not everything:
                raise
            status = 1
    return found, status


def _log_dir(conf: Config, instrument: InstrumentConfig) -> str:
    if not instrument.dir:
        raise UsageError(
            f"the transfer logs of {instrument.name} are not known; name them with -l, or set "
            f"dir in [instrument {instrument.name}] of {conf.path or 'lpxfer.conf'}"
        )
    return os.path.join(instrument.dir, instrument_log.DIRECTORY)

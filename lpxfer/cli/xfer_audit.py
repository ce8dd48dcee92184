"""xfer-audit: prove that what was submitted is archived, or name what is not."""

import os
import sys
from collections.abc import Callable, Collection
from datetime import UTC, datetime

import click

from lpxfer.cli import audit_report, period, setup
from lpxfer.errors import FormatError, UsageError
from lpxfer.formats import names
from lpxfer.formats.config import Config
from lpxfer.formats.keyvalue import printable, to_bytes
from lpxfer.formats.window import Window
from lpxfer.steps import audit
from lpxfer.steps.audit import File, Question, Sources
from lpxfer.stores import instrument_log, survey
from lpxfer.stores.spool import Spool


@click.command(cls=period.InOrder, context_settings=setup.SETTINGS)
@click.option("-i", "inst", metavar="INSTRUMENT", help="Only this one's jobs; or its alias.")
@click.option("--receipts", multiple=True, metavar="DIR", help="The archive's receipts.")
@click.option("-l", "logs", multiple=True, metavar="PATH", help="Transfer logs.")
@period.options
@click.option("-v", "more", is_flag=True, help="Name every job.")
@click.option("+v", "less", is_flag=True, help="Only what is owed; nothing when nothing is.")
@click.option("--safe", is_flag=True, help="List the originals that may be deleted.")
@click.option("-0", "nul", is_flag=True, help="With --safe: each path ends in NUL.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("queues", metavar="[QUEUE...]", nargs=-1)
@setup.common
def main(
    queues: tuple[str, ...],
    inst: str | None,
    receipts: tuple[str, ...],
    logs: tuple[str, ...],
    base: str | None,
    begin: float | None,
    days: float | None,
    hours: float | None,
    zone: str | None,
    safe: bool,
    nul: bool,
    as_json: bool,
    conf: str | None,
    **_: bool,
) -> None:
    """Prove that the jobs of a time are archived, or name those that are not."""
    if nul and (as_json or not safe):
        raise UsageError("-0 goes with --safe, and not with --json")
    config, now = setup.load_config(conf), datetime.now(UTC)
    window, there = period.covered(now, base, begin, days, hours, zone)
    level = {"more": 2, "less": 0, None: 1}[period.last_of("more", "less")]
    question = _question(config, window, inst, queues, level == 2)
    sources = _sources(config, question, receipts, logs)
    if safe and not (sources.spool and (sources.receipts or sources.logs)):
        raise UsageError(
            "--safe needs the spool and the archive's own words: name --receipts or -l"
        )
    originals: list[File] = []
    tell = _listed(nul) if not as_json else originals.append
    report = audit.audit(sources, question, now, setup.complain, tell if safe else None)
    if as_json:
        setup.print_json(**audit_report.rows(report, sources, window, originals if safe else None))
    elif not safe:
        audit_report.show(report, sources, window, there, level)
    elif report.owed:
        click.echo("xfer-audit: something is owed: see xfer-audit without --safe", err=True)
    sys.exit(1 if report.owed else 0)


def _question(
    config: Config, window: Window, inst: str | None, queues: Collection[str], everything: bool
) -> Question:
    aliases = {name: known.name for known in config.instruments.values() for name in known.names}
    if inst is not None:
        try:
            inst = config.find_instrument(names.check_instrument(inst)).name
        except FormatError as error:
            raise UsageError(str(error)) from error
    for name in set(queues) - set(survey.made(Spool(setup.spool_path(config)))):
        config.find_queue(name)  # one that has never been used is as it should be
    return Question(window, setup.host_name(config), frozenset(queues), inst, aliases, everything)


def _sources(
    config: Config, question: Question, receipts: Collection[str], logs: Collection[str]
) -> Sources:
    """Return what was named, and of the rest what the configuration names and is here."""
    path = setup.spool_path(config)
    spool = Spool(path) if path.is_dir() else None
    wanted = [i for i in config.instruments.values() if question.inst in (None, i.name)]
    if not receipts:
        places = [config.receipts or os.path.join(os.path.dirname(config.incoming), "receipts")]
        places += [q.receipts_path for q in config.queues.values() if q.transport == "local"]
        below = question.host if spool else ""
        receipts = [place for place in dict.fromkeys(places)
                    if os.path.isdir(os.path.join(place, below))]  # fmt: skip
    if logs:
        named = question.inst and config.find_instrument(question.inst).names
        chosen = [(log, tuple(named or ())) for log in logs]
    else:
        places = [os.path.join(i.dir, instrument_log.DIRECTORY) for i in wanted]
        chosen = [(place, tuple(i.names)) for place, i in zip(places, wanted, strict=True)
                  if i.dir and os.path.isdir(place)]  # fmt: skip
    if not (spool or receipts or chosen):
        raise UsageError(f'there is no spool "{path}" here: name --receipts or -l')
    return Sources(spool, tuple(receipts), tuple(chosen))


def _listed(nul: bool) -> Callable[[File], None]:
    """Return what prints the originals: those that are safe, and why others are not."""

    def tell(original: File) -> None:
        if not original.safe:
            click.echo(f"xfer-audit: keep {printable(original.path)}: {original.reason}", err=True)
        elif nul:
            click.echo(to_bytes(original.path) + b"\0", nl=False)
        else:
            click.echo(printable(original.path))

    return tell

"""xfer-fsck: check that every promise holds on this disk."""

import sys
from datetime import UTC, datetime

import click

from lpxfer.cli import setup
from lpxfer.errors import UsageError
from lpxfer.formats.config import Config
from lpxfer.formats.finding import Finding, Report
from lpxfer.formats.keyvalue import printable
from lpxfer.steps import fsck_instrument, fsck_spool
from lpxfer.stores import survey
from lpxfer.stores.spool import Spool


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@click.option("-d", "directory", metavar="INSTDIR", help="Check this instrument directory.")
@click.option("--repair", is_flag=True, help="Set aside what breaks a promise.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("queues", metavar="[QUEUE...]", nargs=-1)
@setup.common
def main(
    queues: tuple[str, ...], directory: str | None, repair: bool, as_json: bool, conf: str | None
) -> None:
    """Check the queues of the spool, by default all, or an instrument directory."""
    with Progress() as progress:
        if directory is None:
            report = _check_spool(setup.load_config(conf), queues, repair, progress)
        elif queues:
            raise UsageError("give -d INSTDIR or queues, not both")
        else:
            report = fsck_instrument.fsck(directory, repair, datetime.now(UTC), progress)
    if as_json:
        setup.print_json(findings=[_row(f) for f in report.findings], checked=report.checked)
    else:
        _print(report)
    if report.busy:
        setup.fail(report.busy, 75)
    sys.exit(1 if report.broken else 0)


def _check_spool(
    config: Config, queues: tuple[str, ...], repair: bool, progress: "Progress"
) -> Report:
    spool = Spool(setup.spool_path(config))
    made = survey.made(spool)
    for name in set(queues) - set(made):
        config.find_queue(name)  # one that has never been used is as it should be
    settled = {name for name, settings in config.queues.items() if not settings.link}
    return fsck_spool.fsck(spool, queues or made, set(made) - settled, repair, progress)


def _print(report: Report) -> None:
    """Print what breaks a promise, then what is only worth knowing."""
    for finding in sorted(report.findings, key=lambda finding: finding.warning):
        word = "warning: " if finding.warning else ""
        click.echo(printable(f"{word}{finding.subject}: {finding.message}"))
    if sys.stderr.isatty():
        counts = ", ".join(f"{number} {what}" for what, number in report.checked.items())
        click.echo(f"checked: {counts}", err=True)


def _row(finding: Finding) -> dict[str, object]:
    return {
        "where": finding.where, "id": finding.id, "invariant": finding.invariant,
        "message": finding.message, "severity": "warning" if finding.warning else "error",
        "repaired": finding.repaired,
    }  # fmt: skip


class Progress:
    """A bar on a terminal, nothing elsewhere; called with the bytes read, and of how many."""

    def __init__(self) -> None:
        """Show nothing yet: how much there is to read is known at the first call."""
        self._bar: click._termui_impl.ProgressBar[int] | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.render_finish()

    def __call__(self, size: int, total: int) -> None:
        """Move the bar on."""
        if self._bar is None and sys.stderr.isatty():
            self._bar = click.progressbar(length=total, label="checking", file=sys.stderr)
        if self._bar:
            self._bar.update(size)

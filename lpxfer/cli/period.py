"""The time that a report covers, as lplogsum's options give it: -B -b -n -D -h -z --utc."""

import contextlib
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any

import click

from lpxfer.cli.setup import Command
from lpxfer.errors import FormatError, UsageError
from lpxfer.formats import dates
from lpxfer.formats.window import DAY, NOON, Window, window


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


_OPTIONS = [
    click.option("-B", "base", metavar="YYYY-MM-DD", help="Base day; default: today."),
    click.option("-b", "begin", type=float, metavar="HOURS", help="Start, from its midnight."),
    click.option("-n", "-noon", "noon", is_flag=True, help="Start at noon, as -b 12."),
    click.option("-D", "days", type=float, metavar="DAYS", help="From start to end; default: -1."),
    click.option("-h", "hours", type=float, metavar="HOURS", help="From start to end, in hours."),
    click.option("-z", "zone", metavar="ZONE", help="Time zone; default: local."),
    click.option("--utc", is_flag=True, help="As -z UTC."),
]


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; it is to be of the class InOrder."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def covered(
    now: datetime,
    base: str | None,
    begin: float | None,
    days: float | None,
    hours: float | None,
    zone: str | None,
) -> tuple[Window, tzinfo]:
    """Return the window that the options of the current command ask for, and its zone.

    Of several that contradict each other, the last on the command line counts. Raises
    UsageError.
    """
    from dateutil import tz

    name = "UTC" if last_of("zone", "utc") == "utc" else zone
    try:
        there = dates.find_zone(name) if name is not None else tz.gettz() or tz.tzlocal()
    except FormatError as error:
        raise UsageError(str(error)) from error
    start = NOON if last_of("noon", "begin") == "noon" else begin
    span = hours if last_of("days", "hours") == "hours" else days and days * DAY
    return window(now, there, base, start, -DAY if span is None else span), there

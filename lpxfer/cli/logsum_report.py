"""The report of xfer-logsum: lplogsum's text to the letter, and its row for JSON."""

from datetime import timedelta, tzinfo

from lpxfer.formats import dates
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.window import Window
from lpxfer.steps.logsum import EDGES, Performance, Spread, Summary


def text(summary: Summary, window: Window, zone: tzinfo, level: int) -> str:
    """Write a report for people; level 0 leaves out sizes, times and rates.

    Columns are as wide as lplogsum's, and wider only for a number that does not fit.
    """
    start, end = (f"{t.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}" for t in (window.start, window.end))
    length = window.end - window.start
    hours = length % timedelta(days=1) / timedelta(hours=1)
    name = printable(summary.inst)
    lines = [
        "        Internet Data Storage Report",
        "",
        f"Period covered: {start}  to",
        f"                {end}  or {length.days} days, {hours:.4g} hours",
        "",
        f"Instrument: {name} {summary.files:>{max(15 - len(name), 1)}} files"
        f" {summary.errors:>7} errors",
    ]
    if level > 0 and summary.performance:
        lines += ["", *_performance(summary.performance)]
    elif level > 0 and summary.files:
        lines += ["", "FTP performance for 0 files"]
    return "\n".join(lines)


def _performance(known: Performance) -> list[str]:
    size_min, size_max = _column(9, str(known.size_min), str(known.size_max))
    rate, rate_min, rate_max = _column(5, *(f"{rate:.2f}" for rate in _numbers(known.rate)))
    time, time_min, time_max = _column(3, *(f"{time:.0f}" for time in _numbers(known.seconds)))
    bins = _column(6, *(str(count) for count in known.bins))
    starts = (0.0, *EDGES[:-1])
    ranges = [f"{low:.1f} < rate <= {high:.1f}" for low, high in zip(starts, EDGES, strict=True)]
    ranges = [ranges[0] + " MB/sec", *ranges[1:], f"{EDGES[-1]:.1f} < rate"]
    return [
        f"FTP performance for {known.files} files:",
        f"  Files sizes:  Min = {size_min} bytes",
        f"                Max = {size_max}",
        "",
        f"  Median rate: {rate} MB/s   Median Time: {time} seconds",
        f"     Min       {rate_min}           Min       {time_min}",
        f"     Max       {rate_max}           Max       {time_max}",
        "",
        *(f"{count}  at  {where}" for count, where in zip(bins, ranges, strict=True)),
    ]


def _numbers(spread: Spread) -> tuple[float, float, float]:
    return spread.median, spread.min, spread.max


def _column(width: int, *cells: str) -> list[str]:
    width = max(width, *map(len, cells))
    return [cell.rjust(width) for cell in cells]


def row(summary: Summary, window: Window) -> dict[str, object]:
    """Make the flat row of one instrument: bytes, seconds, MB/s; null for what is not known."""
    known = summary.performance
    result: dict[str, object] = {
        "inst": summary.inst,
        "start": dates.iso(window.start),
        "end": dates.iso(window.end),
        "files": summary.files,
        "errors": summary.errors,
        "timed": known.files if known else 0,
        "size_min": known.size_min if known else None,
        "size_max": known.size_max if known else None,
    }
    for name, spread in (("seconds", known and known.seconds), ("rate", known and known.rate)):
        for which in ("min", "median", "max"):
            result[f"{name}_{which}"] = round(getattr(spread, which), 6) if spread else None
    names = [f"rate_to_{edge:.0f}" for edge in EDGES] + [f"rate_above_{EDGES[-1]:.0f}"]
    return result | dict(zip(names, known.bins if known else [0] * len(names), strict=True))

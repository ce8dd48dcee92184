"""The report of xfer-logsum --latency, for people and as JSON."""

from datetime import tzinfo

from lpxfer.formats import dates
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.latency import EDGES, PERCENTS, Latencies, Report, Row
from lpxfer.formats.window import Window

_BAR = 40  # columns of the longest bar


def text(inst: str, known: Latencies, window: Window, zone: tzinfo, limit: float | None) -> str:
    """Write the report on one instrument."""
    start, end = (f"{t.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}" for t in (window.start, window.end))
    found = known.report(inst)
    lines = [
        "        Latency Report",
        "",
        f"Period covered: {start}  to",
        f"                {end}",
        "",
        f"Instrument: {printable(inst)}   {found.total.files if found.total else 0} files;"
        f" clocks taken to differ by {found.offset:.2f} s at most",
    ]
    if not found.rows:
        return "\n".join(lines)
    heads = "".join(f"{f'{percent}%':>10}" for percent in PERCENTS)
    lines += ["", f"  {'stage':12}{'files':>9}{heads}{'max':>10}  seconds"]
    lines += map(_line, found.rows)
    if found.total:
        lines += [_line(found.total), "", *_histogram(found)]
        if limit is not None:
            count, files = known.within(limit), found.total.files
            share = f"{100 * count / files:.1f} %"
            lines += ["", f"within {limit:g} s: {count} of {files} files, {share}"]
    return "\n".join(lines)


def _line(row: Row) -> str:
    return f"  {row.stage:12}{row.files:>9}" + "".join(f" {x:>9.2f}" for x in row.percentiles)


def _histogram(found: Report) -> list[str]:
    most = max(found.bins)
    ranges = [f"{low:g} < t <= {high:g} s" for low, high in zip((0.0, *EDGES), EDGES, strict=False)]
    ranges = [ranges[0].replace("0 < t", "     t"), *ranges[1:], f"{EDGES[-1]:g} < t"]
    return ["  created to receipted:"] + [
        f"{count:>9}  {where:20}{'#' * -(-_BAR * count // most)}".rstrip()
        for count, where in zip(found.bins, ranges, strict=True)
    ]


def rows(
    inst: str, known: Latencies, window: Window, limit: float | None
) -> list[dict[str, object]]:
    """Make flat rows, one a stage and one for all of them: seconds."""
    found = known.report(inst)
    common: dict[str, object] = {
        "inst": inst,
        "start": dates.iso(window.start),
        "end": dates.iso(window.end),
        "clock_offset": round(found.offset, 3),
    }
    heads = [*(f"p{percent}" for percent in PERCENTS), "max"]
    result = [
        common | {"stage": row.stage, "files": row.files}
        | dict(zip(heads, (round(value, 3) for value in row.percentiles), strict=True))
        for row in (*found.rows, *([found.total] if found.total else []))
    ]  # fmt: skip
    if found.total:
        names = [*(f"to_{edge:g}" for edge in EDGES), f"above_{EDGES[-1]:g}"]
        result[-1] |= dict(zip(names, found.bins, strict=True))
        if limit is not None:
            result[-1] |= {"limit": limit, "within": known.within(limit)}
    return result

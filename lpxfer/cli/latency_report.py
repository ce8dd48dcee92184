"""The report of xfer-logsum --latency, for people and as JSON."""

from datetime import UTC, datetime, tzinfo

from lpxfer.formats import dates
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.latency import EDGES, PERCENTS, Latencies, Report, Row
from lpxfer.formats.stages import CREATED, STAGES
from lpxfer.formats.window import Window

_BAR = 40  # columns of the longest bar


def _head(inst: str, found: Report, window: Window, zone: tzinfo) -> str:
    start, end = (f"{t.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}" for t in (window.start, window.end))
    return (
        "        Latency Report\n\n"
        f"Period covered: {start}  to\n"
        f"                {end}\n\n"
        f"Instrument: {printable(inst)}   {found.total.files if found.total else 0} files;"
        f" clocks taken to differ by {found.offset:.2f} s at most"
    )


def text(inst: str, known: Latencies, window: Window, zone: tzinfo, limit: float | None) -> str:
    """Write the report on one instrument."""
    found = known.report(inst)
    lines = [_head(inst, found, window, zone)]
    if not found.rows:
        return lines[0]
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


def each(inst: str, known: Latencies, window: Window, zone: tzinfo) -> str:
    """Write a line for each file of an instrument: when it was created, then seconds from there."""
    lines = [_head(inst, known.report(inst), window, zone), ""]
    lines.append(f"  {CREATED:24}" + "".join(f"{stage:>13}" for stage in STAGES[1:]) + "  file")
    for file in known.files():
        first = file.times.get(CREATED)
        created = "-" if first is None else f"{_time(first).astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"
        seconds = (_since(first, file.times.get(stage)) for stage in STAGES[1:])
        label = f"{file.name} {file.uid}".strip()
        lines.append(f"  {created:24}{''.join(f'{s:>13}' for s in seconds)}  {printable(label)}")
    return "\n".join(lines)


def _since(first: float | None, time: float | None) -> str:
    return "-" if first is None or time is None else f"{time - first:.3f}"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def files(inst: str, known: Latencies) -> list[dict[str, object]]:
    """Make a flat row of each file: its stages' times by the telescope's clock."""
    return [
        {"inst": inst, "uid": file.uid, "name": file.name or None}
        | {stage: dates.iso(_time(file.times[stage])) if stage in file.times else None
           for stage in STAGES}
        | {"clock_offset": round(file.offset, 3)}
        for file in known.files()
    ]  # fmt: skip


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

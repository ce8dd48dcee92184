"""The report of xfer-audit: its text, and its rows for JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, tzinfo

import click

from lpxfer.cli.setup import print_table
from lpxfer.formats import dates
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.testimony import ACCOUNTS, UNKNOWN, Weight
from lpxfer.formats.window import Window
from lpxfer.steps.audit import File, Gap, Report, Row, Sources

_ALWAYS = ("archived", "pending", "held", "sent", "failed", "canceled")


def show(report: Report, sources: Sources, window: Window, zone: tzinfo, level: int) -> None:
    """Print a report for people; at level 0 only what is owed."""
    if level > 0:
        start, end = (
            f"{t.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}" for t in (window.start, window.end)
        )
        click.echo(f"Submitted from {start} to {end}")
        for source in _sources(report, sources):
            path, since = source["path"], source["from"]
            where = f"{path}{f', from {since} on' if since else ''}" if path else "not looked at"
            click.echo(printable(f"  {source['source']}: {where}"))
        click.echo()
        _show_totals(report, sources)
    rows = [row for row in report.rows if level > 0 or row.verdict.weight is Weight.OWED]
    if rows:
        table = [[_id(row), row.verdict.account, row.inst, row.said.name, row.verdict.message]
                 for row in rows]  # fmt: skip
        cells = [[printable(cell) for cell in line] for line in table]
        print_table(cells, ["job", "account", "inst", "name", "reason"])
    for line in _numbers(report):
        click.echo(printable(line))
    if level > 0:
        for message, count in sorted(report.notes.items()):
            click.echo(printable(f"{count} more: {message}"))
        click.echo(_sum(report))


def _show_totals(report: Report, sources: Sources) -> None:
    """Print the accounts, with a column for each that is usual or has something in it."""
    used = sum(report.totals.values(), Counter[str]())
    shown = [account for account in ACCOUNTS if account in _ALWAYS or used[account]]
    known = "submitted" if sources.spool else "recorded"
    table = []
    for (queue, inst), counts in sorted(report.totals.items()):
        if total := _submitted(counts):
            table.append([queue or "-", printable(inst) or "-", total, *(counts[a] for a in shown)])
    if table:
        print_table(table, ["queue", "inst", known, *shown])
        click.echo()


def _numbers(report: Report) -> Iterator[str]:
    """Yield a line for each stretch of numbers that is missing."""
    for gap in report.lost:
        what = "no job and no record: lost, or of a submit that was killed"
        yield f"{_span(gap, f'{gap.of}-')}: {what}"
    for gap in report.missing:
        yield f"{gap.of or '-'}: seq {_span(gap)} is missing"
    for inst, seq, jobs in report.twice:
        yield f"{inst or '-'}: seq {seq} was given to different files: {', '.join(jobs)}"


def _span(gap: Gap, prefix: str = "") -> str:
    first, last = f"{prefix}{gap.first}", f"{prefix}{gap.last}"
    return first if gap.first == gap.last else f"{first} to {last}"


def _sum(report: Report) -> str:
    """Say in one line whether anything is owed."""
    total = sum(map(_submitted, report.totals.values()))
    owed = sum(row.verdict.weight is Weight.OWED for row in report.rows)
    if not report.owed:
        return f"Nothing is owed: {total} submitted." if total else "Nothing was submitted."
    missing = len(report.lost) + len(report.missing) + len(report.twice)
    words = [f"{owed} of {total} owed, or not adding up"] if owed else []
    words += [f"{missing} gap(s) or doubles in numbers"] if missing else []
    return "; ".join(words) + "."


def _submitted(counts: Counter[str]) -> int:
    return sum(counts[account] for account in ACCOUNTS)


def _id(row: Row) -> str:
    return row.said.job if row.verdict.account != UNKNOWN else row.said.uid


def _sources(report: Report, sources: Sources) -> list[dict[str, str | None]]:
    """Return what was looked at, and from which day on it goes; no path: not looked at."""
    days = sorted(set(report.reach.logs.values()))
    found: list[tuple[str, Sequence[str], str | None]] = [
        ("spool", [str(sources.spool.root)] if sources.spool else [], report.reach.finished),
        ("receipts", sources.receipts, report.reach.receipts),
        ("transfer logs", [path for path, _ in sources.logs], days[0] if days else ""),
    ]
    return [
        {"source": name, "path": path, "from": _day(day) if path else None}
        for name, paths, day in found
        for path in (*paths, *([] if paths else [None]))
    ]


def _day(day: str | None) -> str | None:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}" if day else None


def rows(
    report: Report, sources: Sources, window: Window, originals: Sequence[File] | None
) -> dict[str, object]:
    """Make the rows for JSON."""
    found: dict[str, object] = {
        "start": dates.iso(window.start),
        "end": dates.iso(window.end),
        "owed": report.owed,
        "sources": _sources(report, sources),
        "accounts": [
            {"queue": queue, "inst": inst, "submitted": _submitted(counts)}
            | {account: counts[account] for account in (*ACCOUNTS, UNKNOWN)}
            for (queue, inst), counts in sorted(report.totals.items())
        ],
        "jobs": [_row(row) for row in report.rows],
        "notes": [{"message": m, "jobs": n} for m, n in sorted(report.notes.items())],
        "lost": [
            {"queue": gap.of, "first": f"{gap.of}-{gap.first}", "last": f"{gap.of}-{gap.last}",
             "count": gap.last - gap.first + 1}
            for gap in report.lost
        ],
        "missing": [
            {"inst": gap.of, "first": gap.first, "last": gap.last,
             "count": gap.last - gap.first + 1}
            for gap in report.missing
        ],
        "doubles": [{"inst": i, "seq": seq, "ids": " ".join(ids)} for i, seq, ids in report.twice],
    }  # fmt: skip
    if originals is not None:
        found["originals"] = [
            {"path": o.path, "safe": o.safe, "reason": o.reason, "id": o.job} for o in originals
        ]
    return found


def _row(row: Row) -> dict[str, object]:
    job, weight = row.said, row.verdict.weight
    submitted = None
    if job.uid:
        submitted = dates.iso(datetime.strptime(job.uid[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC))
    return {
        "id": job.job, "uid": job.uid or None, "queue": row.queue, "inst": row.inst or None,
        "account": row.verdict.account, "owed": weight is Weight.OWED, "submitted": submitted,
        "name": job.name or None, "path": job.path or None,
        "size": int(job.size) if job.size.isascii() and job.size.isdigit() else None,
        "message": row.verdict.message,
    }  # fmt: skip

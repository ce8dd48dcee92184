"""Tallies: what the lines of logs come to, for metrics. Pure.

They only grow, and begin at the day's beginning: what reads them takes a smaller number than
before for a new beginning, so that a restart loses nothing. Every word that becomes a label is
of a closed list, so that no log, and nobody who can name a file, makes more series.
"""

import contextlib
import math
import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from lpxfer.errors import FormatError
from lpxfer.formats import dates, latency, record, stages
from lpxfer.formats.record import Record

#: Upper bounds in seconds: from less than a frame takes to a day without a link.
BOUNDS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400)

OUTCOMES = ("completed", "canceled")
KINDS = (record.STORED, record.DUPLICATE, record.RENAMED, record.STRANGER, record.MISMATCH,
         record.QUARANTINED, record.ERROR)  # fmt: skip
OTHER = "other"

#: The stages that take time, of those of which a transfer log tells.
STAGES = tuple(s for s in stages.STAGES if s not in (stages.CREATED, stages.ACKNOWLEDGED))

#: Why jobs fail and arrivals are refused, by what their reasons say.
_REASONS = [
    (re.compile(pattern), word)
    for pattern, word in (
        ("^mismatch|^checksum|does not have the checksum", "mismatch"),
        ("^quarantined at the archive site", "quarantined_at_archive"),
        ("^source changed after submit", "source_changed"),
        (r"EMPTY_FILE\b", "EMPTY_FILE"),
        (r"UNREADABLE_FITS\b", "UNREADABLE_FITS"),
        (r"NO_FITS_HDUS\b", "NO_FITS_HDUS"),
        (r"CORRUPTED_HDU\b", "CORRUPTED_HDU"),
        (r"BAD_OFNAME\b", "BAD_OFNAME"),
        (r"FILEPATH_REJECT\b", "FILEPATH_REJECT"),
        (r"MISMATCHED_FILENAME\b", "MISMATCHED_FILENAME"),
        ("No space left|Disk quota", "no_space"),
        ("[Pp]ermission|may not|refused", "refused"),
    )
]
REASONS = (*(word for _, word in _REASONS), OTHER)


def reason(text: str) -> str:
    """Return the word of a reason."""
    return next((word for pattern, word in _REASONS if pattern.search(text)), OTHER)


@dataclass
class Histogram:
    """How many of something took how long."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one; a clock that went back makes it nothing."""
        self.counts[bisect_left(BOUNDS, max(0.0, seconds))] += 1
        self.total += max(0.0, seconds)

    def buckets(self) -> list[tuple[str, float]]:
        """Return the bounds as Prometheus writes them, each with how many were below."""
        found, below = [], 0
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], self.counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


@dataclass
class Finished:
    """What the finished log of a queue comes to."""

    jobs: Counter[str] = field(default_factory=Counter)  # by outcome
    size: int = 0  # bytes of completed ones
    attempts: int = 0
    latency: Histogram = field(default_factory=Histogram)  # from submit to the receipt

    def add(self, line: bytes) -> None:
        """Count a line; a damaged one is none."""
        if (entry := _load(line)) is None or entry.kind not in OUTCOMES:
            return
        self.jobs[entry.kind] += 1
        self.attempts += _number(entry, "attempts")
        if entry.kind == "completed":
            self.size += _number(entry, "size")
            with contextlib.suppress(FormatError):
                submitted = dates.parse_iso(entry.fields.get("submitted", ""))
                self.latency.add((entry.time - submitted).total_seconds())


@dataclass
class Placed:
    """What the transfer log of an instrument comes to."""

    records: Counter[str] = field(default_factory=Counter)  # by kind
    size: int = 0  # bytes of placed files
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    transfer: Histogram = field(default_factory=Histogram)  # how long sending took
    spans: dict[str, Histogram] = field(  # how long each stage took, and all of them
        default_factory=lambda: {stage: Histogram() for stage in (*STAGES, latency.TOTAL)}
    )

    def add(self, line: bytes) -> None:
        """Count a line; a damaged one is none."""
        if (entry := _load(line)) is None:
            return
        self.records[entry.kind if entry.kind in KINDS else OTHER] += 1
        if entry.kind in (record.STORED, record.RENAMED):
            self.size += _number(entry, "size")
            with contextlib.suppress(ValueError):
                self.transfer.add(float(entry.fields.get("seconds", "")))
        if entry.kind in (record.STORED, record.RENAMED, record.TOLD):
            for stage, seconds in _spans(entry).items():
                if stage in self.spans and (stage == stages.TOLD) == (entry.kind == record.TOLD):
                    self.spans[stage].add(seconds)
        if entry.kind in (record.MISMATCH, record.QUARANTINED, record.ERROR):
            text = "mismatch" if entry.kind == record.MISMATCH else entry.fields.get("reason", "")
            self.refused[reason(text)] += 1


def _load(line: bytes) -> Record | None:
    with contextlib.suppress(FormatError):
        return record.load(line)
    return None


def _spans(entry: Record) -> dict[str, float]:
    """Return how long the stages of a file took; nothing arrives before it was sent."""
    times = stages.load(entry.fields.get(stages.FIELD, ""))
    took = times.get(stages.ARRIVED, math.inf) - times.get(stages.SENT, -math.inf)
    return latency.spans(times, min(0.0, took))


def _number(entry: Record, keyword: str) -> int:
    text = entry.fields.get(keyword, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0

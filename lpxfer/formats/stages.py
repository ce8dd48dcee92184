"""When a file came to each stage of its way: one field of a record. Pure; see xfer-log(5).

    stages=2003-04-02T05:12:33.120Z,created:-15.320,submitted:-13.101,...,receipted:0.012

A time, then the seconds before or after it: those of a thousand files that came together are
written with one. Each site says what its own clock showed; what their difference is, whoever
compares them has to find out.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from lpxfer.errors import FormatError
from lpxfer.formats import dates
from lpxfer.formats.control import Control
from lpxfer.formats.record import Record

FIELD = "stages"

CREATED = "created"  # the data's mtime at the telescope site
SUBMITTED = "submitted"
STARTED = "started"  # the attempt that brought it
SENT = "sent"  # its bytes were there, its control file was not
ARRIVED = "arrived"  # its control file had its final name
SWEPT = "swept"  # the sweep took it up
VALIDATED = "validated"  # copied, with its checksum, and what its instrument asks for
PLACED = "placed"  # it had its final name
RECEIPTED = "receipted"  # all was synced, and the receipt was made
TOLD = "told"  # whoever is told of it has answered
ACKNOWLEDGED = "acknowledged"  # the sender has read the receipt

#: In the order of a file's way.
STAGES = (CREATED, SUBMITTED, STARTED, SENT, ARRIVED, SWEPT, VALIDATED, PLACED, RECEIPTED, TOLD,
          ACKNOWLEDGED)  # fmt: skip

#: Those of which the telescope site's clock speaks.
TELESCOPE = frozenset({CREATED, SUBMITTED, STARTED, SENT, ACKNOWLEDGED})

_STAGE = r",[a-z]+:-?\d{1,12}\.\d{3}"
_FIELD = re.compile(rf"([-0-9T:.]{{19,29}}Z)((?:{_STAGE})+)", re.ASCII)


class Way:
    """How far an arrival came before its files go apart."""

    def __init__(self, arrived: float, swept: datetime) -> None:
        """Begin when it was taken up; `arrived` is in seconds since 1970."""
        self._base = swept.timestamp()
        self._begin = f"{dates.iso(swept)},{CREATED}"
        self._rest = f",{ARRIVED}:{arrived - self._base:.3f},{SWEPT}:0.000"
        self._sent: tuple[object, object, str] = None, None, ""

    def of(self, known: Control, placed: float, validated: float | None) -> str:
        """Write the stages of one of its files.

        Without `validated` an earlier sweep has placed it: that may have been at any time.
        """
        base, took = self._base, known.transfer
        text = (
            f"{self._begin}:{known.mtime_ns / 1e9 - base:.3f}"
            f",{SUBMITTED}:{known.submitted.timestamp() - base:.3f}"
        )
        if took:
            start, end, sent = self._sent
            if took.start is not start or took.end is not end:  # in a bundle they are the same
                start, end = took.start.timestamp() - base, took.end.timestamp() - base
                sent = f",{STARTED}:{start:.3f},{SENT}:{end:.3f}"
                self._sent = took.start, took.end, sent
            text += sent
        text += self._rest
        if validated is None:
            return text
        return f"{text},{VALIDATED}:{validated - base:.3f},{PLACED}:{placed - base:.3f}"


def reached(records: Sequence[Record], stage: str, now: datetime) -> list[Record]:
    """Return records of one arrival with one stage more, to which they come together.

    Those of files that have no stages are as they were.
    """
    if not records or FIELD not in records[0].fields:
        return list(records)
    more = _more(records[0].fields[FIELD], stage, now)
    return [Record(entry.time, entry.kind, {**entry.fields, FIELD: entry.fields[FIELD] + more})
            for entry in records]  # fmt: skip


def carried_on(record: Record, stage: str, now: datetime) -> str:
    """Return the text of a record's field with one stage more; "" where it has none to read."""
    text = record.fields.get(FIELD, "")
    try:
        return text + _more(text, stage, now)
    except FormatError:
        return ""


def _more(text: str, stage: str, now: datetime) -> str:
    since = now - dates.parse_iso(text.partition(",")[0])
    return f",{stage}:{since.total_seconds():.3f}"


def load(text: str) -> dict[str, float]:
    """Return the stages that a record's field tells, in seconds since 1970, in their order.

    Those that are not known here are passed over, and so is what makes no sense.
    """
    match = _FIELD.fullmatch(text)
    try:
        base = dates.parse_iso(match[1]).timestamp() if match else 0.0
    except FormatError:
        match = None
    if not match:
        return {}
    said = dict(pair.split(":") for pair in match[2][1:].split(","))
    return {stage: base + float(said[stage]) for stage in STAGES if stage in said}


def acknowledged(receipt: Record, now: datetime) -> str:
    """Return the stages of a job whose receipt has been read now; "" where it tells none."""
    return carried_on(receipt, ACKNOWLEDGED, now)

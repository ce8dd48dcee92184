"""What whoever is told of placed files gets, and what is remembered of that. Pure.

See xfer-tell(5). `Mark` says up to where a transfer log has been told; the log itself says what
of the rest has been: whoever loses the mark loses no more than time.
"""

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import datetime

from lpxfer.errors import FormatError
from lpxfer.formats import dates, keyvalue, record, stages
from lpxfer.formats.record import At, Record

FORMAT = "1"

ANSWER_MOST = 200  # characters of an answer that go into the record

_KEYWORDS = ("format", "since", "log", "inode", "offset", "failing")


# --- what is told -------------------------------------------------------------------------


def body(placed: Record) -> bytes:
    """Write what is told of a placed file: JSON, always the same of one record."""
    return json.dumps({"version": 1, **record.row(placed)}).encode()


def signature(secret: bytes, time: str, text: bytes) -> str:
    """Sign a body and the time that is told with it: HMAC-SHA256 (RFC 2104)."""
    return "sha256=" + hmac.new(secret, time.encode() + b"\n" + text, hashlib.sha256).hexdigest()


def told(placed: Record, answer: str, now: datetime, kind: str = record.TOLD) -> Record:
    """Make the record of an answer, or of the reason why nobody is told of a file any more."""
    fields = {key: placed.fields[key] for key in ("inst", "uid", "placed") if key in placed.fields}
    fields["answer"] = answer[:ANSWER_MOST]
    if kind == record.TOLD and (text := stages.carried_on(placed, stages.TOLD, now)):
        fields[stages.FIELD] = text
    return Record(now, kind, fields)


# --- what is remembered -------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """Up to where a log has been told."""

    since: datetime  # what was placed before is nothing that anybody is told of
    at: At  # in the log; inode 0: its file may not be there yet
    failing: str = ""  # what went wrong last; "" when nothing did


def dump_mark(mark: Mark) -> bytes:
    """Write a mark."""
    said = (FORMAT, dates.iso(mark.since), *map(str, mark.at), mark.failing)
    pairs = dict(zip(_KEYWORDS, said, strict=True))
    return keyvalue.dump(pairs.items())


def load_mark(text: bytes) -> Mark:
    """Read a mark. Raises FormatError for anything else."""
    pairs = keyvalue.load(text)
    keyvalue.only(pairs, _KEYWORDS)
    try:
        said = [pairs[keyword] for keyword in _KEYWORDS]
    except KeyError as error:
        raise FormatError(f"keyword {error.args[0]} is missing") from error
    if said[0] != FORMAT or "/" in said[2] or not said[2]:
        raise FormatError("not a mark of this release")
    at = At(said[2], _number(said[3]), _number(said[4]))
    return Mark(dates.parse_iso(said[1]), at, said[5])


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", text):
        raise FormatError(f"not a number: {text[:20]!r}")
    return int(text)

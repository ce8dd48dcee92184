"""Records: one event, one line, for transfer logs, receipts and finished logs.

    2003-04-02T05:12:33.120Z stored inst=minicam uid=... size=... placed=2003.0401/0123.fits

A time, a kind, then `keyword=value` fields. Values are percent-encoded, blanks too, so that
one event is one line and awk can read it. See xfer-log(5).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from lpxfer.errors import FormatError
from lpxfer.formats import dates, keyvalue
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.control import Control

#: What may happen to an arrival. Readers pass over kinds they do not know.
STORED, DUPLICATE, RENAMED, STRANGER = "stored", "duplicate", "renamed", "stranger"
MISMATCH, QUARANTINED, ERROR = "mismatch", "quarantined", "error"
TOLD = "told"  # whoever is told of an instrument's files has answered; see formats/telling.py
UNTOLD = "untold"  # and here it was given up
UNPACKED = "unpacked"  # a bundle whose members all have records, and receipts, of their own

#: The archive holds the bytes, verified and synced.
SAFE = frozenset({STORED, DUPLICATE, RENAMED, STRANGER})

LINE_LIMIT = 65536 * 4  # bytes; a longer line in a log is not one of ours

_KIND = re.compile(r"[a-z]+")
_BEGINNING = re.compile(rb"[0-9TZ:.-]*( [a-z]*)?")


@dataclass(frozen=True)
class Record:
    """One line of a log: when, what kind of event, and what is known of it."""

    time: datetime
    kind: str
    fields: Mapping[str, str]

    @cached_property
    def line(self) -> bytes:
        """The record as it stands in a log and again among the receipts, newline included."""
        words = [dates.iso(self.time), self.kind, *map("=".join, self.fields.items())]
        if not keyvalue.needs_no_quotes("".join(self.fields.values())):
            quoted = (f"{k}={keyvalue.quote(v, space=True)}" for k, v in self.fields.items())
            words[2:] = quoted
        return " ".join(words).encode() + b"\n"


class At(NamedTuple):
    """A place in a log."""

    log: str  # the name of a file
    inode: int
    offset: int  # bytes


def of_arrival(
    time: datetime, kind: str, known: Control | Bundle, placed: str, **more: str
) -> Record:
    """Make the record of an arrival, or of a bundle's member: what is known of it, where it is.

    Seconds, rate (MB/s) and attempts are left out when the sender did not give them. A bundle
    has no `uid` but `bundle`: no job is meant.
    """
    if isinstance(known, Bundle):
        fields = {"inst": known.inst, "bundle": known.uid, "members": str(known.members),
                  "size": str(known.size)}  # fmt: skip
    else:
        fields = {
            "inst": known.inst,
            "uid": known.uid,
            "name": known.name,
            "size": str(known.size),
            "checksum": known.checksum,
            "path": known.path,
        }
    if placed:
        fields["placed"] = placed
    if known.transfer:
        seconds = known.transfer.seconds
        fields["seconds"] = f"{seconds:.6f}".rstrip("0").rstrip(".")
        if seconds > 0:
            fields["rate"] = f"{known.size / 1e6 / seconds:.2f}"
        fields["attempts"] = str(known.transfer.attempts)
    return Record(time, kind, fields | more)


def is_held(record: Record) -> bool:
    """Tell whether a record says that the archive holds the bytes of a checksum.

    What is `invalid` is in quarantine for what it is, not for the bytes that arrived.
    """
    return record.kind in SAFE or (record.kind == QUARANTINED and "invalid" in record.fields)


def uid_of(record: Record) -> str:
    """Return what the wire names of an arrival began with; "" where a record does not say."""
    return record.fields.get("uid") or record.fields.get("bundle", "")


def dump(record: Record) -> bytes:
    """Write a record as one line, newline included."""
    return record.line


def row(record: Record) -> dict[str, object]:
    """Make a flat row for JSON: time and kind, then the fields, numbers as numbers."""
    readers = {"size": int, "members": int, "attempts": int, "seconds": float, "rate": float}
    fields = {k: readers.get(k, str)(v) for k, v in record.fields.items()}
    return {"time": dates.iso(record.time), "kind": record.kind, **fields}


def load(line: bytes) -> Record:
    """Read one line, with or without its newline. Raises FormatError for anything else."""
    if len(line) > LINE_LIMIT:
        raise FormatError("line too long")
    try:
        text = line.decode("utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise FormatError("not UTF-8") from error
    words, plain = text.split(" "), keyvalue.is_plain(text) and "\n" not in text
    if len(words) < 2 or not _KIND.fullmatch(words[1]):
        raise FormatError("not a record")
    fields: dict[str, str] = {}
    for word in words[2:]:
        keyword, equals, value = word.partition("=")
        if not equals or not keyvalue.KEYWORD.fullmatch(keyword) or keyword in fields:
            raise FormatError(f"not a keyword=value field: {word[:80]!r}")
        fields[keyword] = value if plain else keyvalue.unquote(value)
    return Record(dates.parse_iso(words[0]), words[1], fields)


def load_unless_torn(line: bytes) -> Record | None:
    """Read one line; None for the torn beginning of a record. Raises FormatError for others.

    A crash leaves a torn line at the end of a log, or before what was appended later. One
    that ends without its newline may be torn even where it can be read.
    """
    if not line.endswith(b"\n"):
        return None
    try:
        return load(line)
    except FormatError:
        written = line.rstrip(b"\n\0")  # what of a file never reached the disk are zeros
        if not _BEGINNING.fullmatch(written):
            load(written.rpartition(b" ")[0])
        return None

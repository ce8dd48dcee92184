"""What a receipt does to the job with its uid: the whole table. Pure."""

from enum import Enum, auto

from lpxfer.formats import record
from lpxfer.formats.control import Control
from lpxfer.formats.record import Record


class Verdict(Enum):
    """What a receipt does to the job with its uid."""

    COMPLETED = auto()
    "The archive holds the bytes that were submitted."
    AGAIN = auto()
    "Other bytes arrived: send once more."
    FAILED = auto()
    "The archive cannot place it: a person has to look."
    NOTHING = auto()
    "It says nothing about this attempt."


def verdict(receipt: Record, known: Control, attempts: int, refused: int = 0) -> Verdict:
    """Tell what a receipt does to a job whose nth attempt made the control file at the archive.

    Pure; this is the whole table.
    `refused` is the attempt of which a mismatch has been believed already: the receipt may be
    read again, and the sweep that wrote it may have been killed and write it again.
    """
    if receipt.fields.get("uid") != known.uid:
        return Verdict.NOTHING
    if record.is_held(receipt) and receipt.fields.get("checksum") == known.checksum:
        return Verdict.COMPLETED
    said_of = receipt.fields.get("attempts")
    if receipt.kind == record.MISMATCH and said_of == str(attempts) and attempts != refused:
        return Verdict.AGAIN
    if receipt.kind == record.QUARANTINED and said_of in (None, str(attempts)):
        return Verdict.FAILED
    return Verdict.NOTHING


def words(receipt: Record) -> str:
    """Return what is kept of the receipt that completes a job."""
    reason = receipt.fields.get("reason") if receipt.kind == record.QUARANTINED else None
    return f"{receipt.kind}: {reason}" if reason else receipt.kind

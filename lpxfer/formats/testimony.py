"""What the two sites say of a job, and what that amounts to. Pure; see xfer-audit(1).

A job is archived when the archive's own words, a receipt or a record in a transfer log, say
that it holds the checksum that was submitted; the telescope's word is believed only where
no source of the archive's was looked at that reaches so far back.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from lpxfer import checksum
from lpxfer.formats import dates, names, record
from lpxfer.formats.job import State
from lpxfer.formats.record import Record


class Source(IntEnum):
    """Who says it."""

    SPOOL = 0
    "A state directory, in which the job stands."
    FINISHED = 1
    "The finished log of a queue."
    RECEIPT = 2
    "The archive's receipts for the host."
    LOG = 3
    "The transfer log of an instrument."


class Said(NamedTuple):
    """What one source says of one job at one time; "" is what it does not say."""

    uid: str
    source: int
    place: str  # the queue; "" for the archive's words
    time: str  # UTC ISO-8601
    kind: str
    job: str
    inst: str
    checksum: str
    placed: str
    reason: str
    name: str
    size: str
    path: str
    mtime: str
    seq: str
    instead_of: str
    invalid: str

    @property
    def holds(self) -> bool:
        """Whether the archive says that it holds the bytes of the checksum; see record.is_held."""
        return self.kind in record.SAFE or bool(self.invalid)


_FIELDS = Said._fields[5:]
_VALUE = "[!-$&-~]*"  # printable ASCII without blank and %

# Most records in one match: a million of them take seconds. Any other line is left to
# record.load. A keyword that stands twice is not noticed here; the last one counts.
_PLAIN = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([a-z]+)"
    rf"(?> (?:uid=({_VALUE})|{'|'.join(f'{field}=({_VALUE})' for field in _FIELDS)}"
    rf"|[A-Za-z][A-Za-z0-9_.-]*={_VALUE}))*\n",
    re.ASCII,
)


def said(source: Source, place: str, entry: Record) -> Said:
    """Take a record apart."""
    known = entry.fields
    values = [known.get(field, "") for field in _FIELDS]
    return _said(known.get("uid", ""), source, place, dates.iso(entry.time), entry.kind, values)


def load(source: Source, place: str, line: bytes) -> Said | None:
    """Read a line of a log; None for the torn beginning of one. Raises FormatError for others."""
    match = _PLAIN.fullmatch(line.decode("ascii", "replace"))
    if match and len(line) <= record.LINE_LIMIT:
        time, kind, uid, *values = match.groups("")
        return _said(uid, source, place, time, kind, values)
    entry = record.load_unless_torn(line)
    return said(source, place, entry) if entry else None


def _said(
    uid: str, source: Source, place: str, time: str, kind: str, values: Sequence[str]
) -> Said:
    """Check the uid; the request id that the archive's words do not tell is in it."""
    match = names.UID.fullmatch(uid)
    job = values[0] or (match[2] if match else "")
    return Said(uid if match else "", source, place, time, kind, job, *values[1:])


#: Accounts: every job is in one of them, so that their numbers add up to those submitted.
ARCHIVED, UNPROVEN, UNKNOWN = "archived", "unproven", "unknown"
_PENDING, _SENT, _CANCELED, _COMPLETED = (
    state.value for state in (State.PENDING, State.SENT, State.CANCELED, State.COMPLETED)
)
ACCOUNTS = (ARCHIVED, _PENDING, "held", "active", _SENT, "failed", "quarantined", _CANCELED,
            UNPROVEN)  # fmt: skip

_ENDED = (_COMPLETED, _CANCELED)
_REFUSED = frozenset({record.MISMATCH, record.QUARANTINED, record.ERROR})


class Weight(IntEnum):
    """What a verdict means for whoever asks."""

    FINE = 0
    "As it should be."
    NOTED = 1
    "Nothing is owed, but somebody should know."
    OWED = 2
    "Not archived, or it does not add up."


@dataclass(frozen=True)
class Verdict:
    """What becomes of a job: its account, and why; `proven` by the archive's own words."""

    account: str
    weight: Weight = Weight.FINE
    message: str = ""
    proven: bool = False


@dataclass
class Reach:
    """What was looked at, and how far back each source goes; days are `20030402`, "" for ever."""

    finished: str | None = None  # None: no spool was looked at
    receipts: str | None = None
    logs: dict[str, str] = field(default_factory=dict)  # by instrument
    #: Paths that hold nothing any more, by instrument and path, and since when.
    taken: dict[tuple[str, str], str] = field(default_factory=dict)

    def covers(self, source: Source, job: Said) -> bool:
        """Tell whether a source must have a word of a job that was completed at its time."""
        first = self.receipts if source is Source.RECEIPT else self.logs.get(job.inst)
        return first is not None and first <= job.time[:10].replace("-", "")


@dataclass(frozen=True)
class _Words:
    """What the archive says of one uid, sorted by what it means for a checksum."""

    good: Mapping[int, Said]  # by source: it holds these bytes
    other: Said | None  # it holds other bytes
    taken: Said | None  # it held them, and has set them aside
    refused: Said | None  # its last word on what it did not place


def _weigh(words: Sequence[Said], expected: str, reach: Reach) -> _Words:
    good, other, taken, refused = dict[int, Said](), None, None, None
    for word in sorted(words, key=lambda word: word.time):
        gone = max(reach.taken.get((inst, word.placed), "") for inst in (word.inst, ""))
        if word.kind in _REFUSED and not word.invalid:
            refused = word
        elif not word.holds or not checksum.is_text(word.checksum):
            continue  # of a later release, or torn
        elif word.checksum != expected:
            other = word
        elif word.placed and gone > word.time:
            taken = word
        else:
            good[word.source] = word
    if taken and all(word.time <= taken.time for word in good.values()):
        good.clear()  # another source that repeats what is true no more
    return _Words(good, other, taken, refused)


def judge(group: Sequence[Said], reach: Reach) -> Verdict:
    """Judge all that was said of one job. Pure; this is the whole table."""
    standing = [s for s in group if s.source == Source.SPOOL and s.kind not in _ENDED]
    ended = [s for s in group if s.source == Source.FINISHED] or [
        s for s in group if s.source == Source.SPOOL and s.kind in _ENDED
    ]
    words = [s for s in group if s.source in (Source.RECEIPT, Source.LOG)]
    if standing:
        return _standing(standing, ended, _weigh(words, standing[0].checksum, reach))
    if not ended:
        return _not_here(words, reach)
    kinds = {s.kind for s in ended}
    # the last that a crash has not cut
    last = max(reversed(ended), key=lambda s: (checksum.is_text(s.checksum), s.time))
    verdict = _ended(last, _weigh(words, last.checksum, reach), reach)
    if len(kinds) > 1:
        return Verdict(
            verdict.account, Weight.OWED, "the finished log has it completed and canceled"
        )
    return verdict


def _standing(standing: Sequence[Said], ended: Sequence[Said], words: _Words) -> Verdict:
    """Judge a job that waits in the spool."""
    job = standing[0]
    account = ARCHIVED if words.good else job.kind
    if ended:
        message = f"{ended[-1].kind} in the finished log, and stands in the spool, {job.kind}"
        return Verdict(account, Weight.OWED, message)
    if len(standing) > 1:
        message = "stands in the spool twice: " + ", ".join(s.kind for s in standing)
        return Verdict(account, Weight.OWED, message)
    if words.good:
        return _proven(words, "the sender has not read the receipt yet")
    if words.other:
        return Verdict(account, Weight.OWED, _contradiction(words.other))
    return Verdict(account, Weight.OWED, job.reason)


def _ended(job: Said, words: _Words, reach: Reach) -> Verdict:
    """Judge a job of which the spool has only its record."""
    if job.kind == _CANCELED:
        if words.good:
            return Verdict(_CANCELED, Weight.NOTED, "canceled, but the archive holds it")
        return Verdict(_CANCELED)
    if words.other:
        account = ARCHIVED if words.good else UNPROVEN
        return Verdict(account, Weight.OWED, _contradiction(words.other))
    kinds = {word.kind for word in words.good.values()}
    wanted = [Source.RECEIPT] if kinds == {record.STRANGER} else [Source.RECEIPT, Source.LOG]
    missing = " or ".join(_NAMES[source] for source in wanted
                          if source not in words.good and reach.covers(source, job))  # fmt: skip
    if words.good:
        if missing:
            has = " and ".join(_NAMES[source] for source in Source if source in words.good)
            message = f"completed; the {has} says so, but there is no {missing}"
            return Verdict(ARCHIVED, Weight.OWED, message)
        return _proven(words)
    if words.taken:
        return Verdict(UNPROVEN, Weight.OWED, "completed, but the archive has set its file aside")
    if job.reason == _SENT:
        return Verdict(_SENT, Weight.FINE, "completed when it was sent: confirm = sent")
    if missing:
        return Verdict(UNPROVEN, Weight.OWED, f"completed, but there is no {missing}")
    return Verdict(ARCHIVED, Weight.FINE, "archived by the finished log's word alone")


def _proven(words: _Words, message: str = "") -> Verdict:
    """Judge a job of which the archive says that it holds it; what is invalid, a person judges."""
    if invalid := [word for word in words.good.values() if word.invalid]:
        message = f"in the archive's quarantine: {invalid[0].reason}"
        return Verdict(ARCHIVED, Weight.NOTED, message)
    return Verdict(ARCHIVED, Weight.FINE, message, True)


_NAMES = {Source.RECEIPT: "receipt", Source.LOG: "record in the transfer log"}


def _not_here(group: Sequence[Said], reach: Reach) -> Verdict:
    """Judge what the archive knows, and the spool does not, or none was looked at."""
    safe = [s for s in group if s.holds and checksum.is_text(s.checksum)]
    words = _weigh(group, safe[-1].checksum if safe else "", reach)
    if reach.finished is not None:
        known = "archived" if words.good else _refusal(words)
        if reach.finished > min(word.time for word in group)[:10].replace("-", ""):
            message = f"{known}, from before the finished logs here begin"
            return Verdict(UNKNOWN, Weight.FINE, message)
        return Verdict(UNKNOWN, Weight.OWED, f"{known}, but the spool has no record of the job")
    if not words.good:
        return Verdict(UNPROVEN, Weight.OWED, _refusal(words))
    if words.other:
        return Verdict(ARCHIVED, Weight.OWED, _contradiction(words.other))
    [word, *_] = words.good.values()
    for source in (Source.RECEIPT, Source.LOG):
        wanted = source is Source.RECEIPT or word.kind != record.STRANGER
        if wanted and source not in words.good and reach.covers(source, word):
            return Verdict(ARCHIVED, Weight.OWED, f"archived, but there is no {_NAMES[source]}")
    return _proven(words)


def _refusal(words: _Words) -> str:
    if words.taken:
        return "set aside in the archive"
    word = words.refused
    return f"{word.kind} at the archive: {word.reason}" if word else "not archived"


def _contradiction(word: Said) -> str:
    return f"the {_NAMES[Source(word.source)]} has other bytes for its uid: {word.checksum}"

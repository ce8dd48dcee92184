"""What a sweep says that it understands, in `receipts/accepts/<inst>`; see xfer-receipt(5).

A sender that finds nothing there, or something old, sends plain arrivals only: the archive site
may have gone back to an older release.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from lpxfer.errors import FormatError
from lpxfer.formats import control, dates, keyvalue

#: What was said longer ago counts for nothing; the clocks of the sites may be days apart.
VALID = timedelta(days=7)


@dataclass(frozen=True)
class Accepts:
    """What may be sent beside plain arrivals."""

    bundle: bool = False
    codecs: frozenset[str] = frozenset()


PLAIN = Accepts()


def dump(accepts: Accepts, now: datetime) -> bytes:
    """Write what a sweep understands at this time."""
    pairs = [("format", control.FORMAT), ("swept", dates.iso(now))]
    if accepts.bundle:
        pairs.append(("bundle", "1"))
    pairs += [("codec", ",".join(sorted(accepts.codecs)))] if accepts.codecs else []
    return keyvalue.dump(pairs)


def load(text: bytes, now: datetime) -> Accepts:
    """Read it; PLAIN for what is empty, damaged or old."""
    try:
        pairs = keyvalue.load(text)
        if abs(now - dates.parse_iso(pairs.get("swept", ""))) > VALID:
            return PLAIN
    except FormatError:
        return PLAIN
    return Accepts(pairs.get("bundle") == "1", words(pairs.get("codec", "")))


def words(text: str) -> frozenset[str]:
    """Return the words between commas."""
    return frozenset(word for word in text.split(",") if word)

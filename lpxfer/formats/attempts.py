"""What has happened when a job was sent: lines of its file `attempts`. See xfer-spool(5). Pure."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lpxfer.errors import FormatError
from lpxfer.formats import ranges, record
from lpxfer.formats.ranges import Ranges

#: Kinds of lines in `attempts`. After COMMIT a job may be at the archive site, until a later
#: attempt found incoming without it and brought something there, or the archive refused it.
START, ACKED, CONTROL, END, COMMIT = "start", "acked", "control", "end", "commit"


#: What is told of the way that a job went.
WAY = ("streams", "codec", "wire", "bundle", "rate")


@dataclass(frozen=True)
class Attempts:
    """What the attempts file tells: how many, how far, how long, and whether committed."""

    count: int = 0
    done: Ranges = field(default_factory=Ranges)  # acknowledged: the next attempt sends the rest
    seconds: float = 0.0  # spent on sending, over all attempts
    committing: bool = False  # the control file's last rename was begun: it may be there
    advanced: bool = False  # the last attempt saw a byte acknowledged that was not before
    last: datetime | None = None  # when its last event was
    made: int = 0  # the attempt that made the control file for the wire last
    bundle: str = ""  # the uid of the bundle in which it went last
    words: Mapping[str, str] = field(default_factory=dict)  # what the last commit says of its way

    @property
    def committed(self) -> int:
        """The attempt that the control file at the archive site speaks of.

        One that an attempt has sealed is not made again: the next one only renames it.
        """
        return self.made or self.count

    def way(self, size: int) -> Mapping[str, str]:
        """Tell how a job of `size` bytes went: streams, bundle, codec and rate, as far as known.

        The rate is in MB/s, and that of the last attempt's bundle for a member of one.
        """
        found = {key: self.words[key] for key in ("streams", "codec", "wire") if key in self.words}
        if self.bundle:
            found["bundle"] = self.bundle
        elif self.seconds and size:
            found["rate"] = f"{size / self.seconds / 1e6:.2f}"
        return found


def load(lines: Iterable[bytes]) -> Attempts:
    """Read the lines of an attempts file; a damaged one counts for nothing."""
    count = made = 0
    done, reached = Ranges(), 0  # what had been acknowledged before this attempt
    seconds, committing, last, bundle = 0.0, False, None, ""
    words: Mapping[str, str] = {}
    for line in filter(None, lines):
        with contextlib.suppress(FormatError, ValueError):
            event = record.load(line)
            now_done = _done(event.fields, done)
            seconds += _seconds(event.fields.get("seconds", "0"))
            last = event.time
            if event.kind == START:
                count, reached = count + 1, done.bytes
                bundle = event.fields.get("bundle", "")
            if event.kind == CONTROL:
                made = count
            if event.kind == COMMIT:
                words = event.fields
            if event.kind == COMMIT or (event.kind == START and bundle):
                committing = True
            elif event.kind == CONTROL or "acked" in event.fields:
                committing = False  # incoming was there, and had no such arrival in it
            done = now_done
    advanced = done.bytes > reached
    return Attempts(count, done, seconds, committing, advanced, last, made, bundle, words)


def _done(fields: Mapping[str, str], before: Ranges) -> Ranges:
    """Read what a line says is acknowledged; one that says nothing changes nothing."""
    if "acked" not in fields:
        return before
    done = ranges.load(fields.get("also", ""))
    done.add(0, _number(fields["acked"]))
    return done


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise FormatError(f"not a number: {text[:20]!r}")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise FormatError(f"not a duration in seconds: {text[:20]!r}")
    return float(text)

"""What somebody is still to be told of an instrument's files. The transfer log is the queue.

    .tell          up to where the log has been told, see formats/telling.py
    .tell.lock     held by the one who tells

Guarantees: what the log says was placed since telling began is due until the log says that it was
told. The mark is only ever behind that, so a crash at any point repeats at most the one call whose
answer was not recorded. Logs may be rotated and compressed meanwhile.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from lpxfer import durable
from lpxfer.errors import FormatError
from lpxfer.formats import names, record, telling
from lpxfer.formats.record import Record
from lpxfer.formats.telling import Mark
from lpxfer.stores.instrument_dir import InstrumentDir

MARK, LOCK = ".tell", ".tell.lock"

#: Files of which somebody is told are known by name at a time: more wait in the log.
DUE_MOST = 10_000

#: So many bytes may have to be read again, which a mark that is written less often saves.
BEHIND = 1 << 16

_PLACED = re.compile(rb"\S+ (?:stored|renamed)(?= ).*? uid=([!-~]+)[ \n]")
_TOLD = re.compile(rb"\S+ (?:told|untold)(?= ).*? uid=([!-~]+)[ \n]")


class Tellings:
    """The files of one instrument directory of which somebody is to be told."""

    def __init__(self, home: InstrumentDir) -> None:
        """Know the directory and its log; nothing is opened yet."""
        self._home = home

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one who tells, for a block. Raises BusyError when there is another."""
        with durable.locked(LOCK, self._home.fd):
            durable.forget_replacements(MARK, self._home.fd)
            yield

    def begin(self, now: datetime) -> None:
        """Let telling begin: with what is placed from now on, where there is no mark."""
        if self.mark() is None:
            self._write(Mark(now, self._home.log.end(now)))

    def mark(self) -> Mark | None:
        """Return the mark; None where there is none, or one that is damaged."""
        try:
            return telling.load_mark(durable.read_small(MARK, self._home.fd))
        except (FileNotFoundError, FormatError):
            return None

    def failing(self, reason: str) -> bool:
        """Remember how telling goes, "" for well; tell whether that is another way than before."""
        mark = self.mark()
        if mark is None or bool(mark.failing) == bool(reason):
            return False
        self._write(replace(mark, failing=reason))
        return True

    def due(self) -> dict[str, Record]:
        """Return what is due by its uid, oldest first, at most DUE_MOST; move the mark up to it."""
        found: dict[str, Record] = {}
        if (mark := self.mark()) is None:
            return found
        lines = (line for _, line in self._home.log.since(mark.at))
        told = {match[1] for match in map(_TOLD.match, lines) if match}
        end = mark.at
        for at, line in self._home.log.since(mark.at):
            if placed := self._placed(line, mark.since, told):
                found[placed.fields["uid"]] = placed
                if len(found) == DUE_MOST:
                    break
            elif at and not found:
                end = at
        if end[:2] != mark.at[:2] or end.offset - mark.at.offset >= BEHIND:
            self._write(replace(mark, at=end))
        return found

    def _placed(self, line: bytes, since: datetime, told: set[bytes]) -> Record | None:
        """Return the record of a file of which somebody has to be told, if a line is that."""
        match = _PLACED.match(line)
        if not match or match[1] in told or not names.UID.fullmatch(match[1].decode()):
            return None
        with contextlib.suppress(FormatError):
            entry = record.load(line)
            return entry if entry.time >= since else None
        return None

    def note(self, answer: Record) -> None:
        """Record an answer, durably: nobody is told of that file again. Raises OSError."""
        self._home.log.append(answer)

    def _write(self, mark: Mark) -> None:
        durable.replace(MARK, telling.dump_mark(mark), self._home.fd, 0o644)

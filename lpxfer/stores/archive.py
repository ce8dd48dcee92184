"""The places a sweep works between, and what it does with what is no arrival.

In which order an arrival goes through them is told in settling.py.
"""

import contextlib
import itertools
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lpxfer import durable
from lpxfer.checksum import Slice, Text
from lpxfer.errors import LpxferError
from lpxfer.formats import keyvalue, names, record
from lpxfer.formats.control import UnknownFormat
from lpxfer.formats.record import Record
from lpxfer.stores.incoming import Incoming
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.receipts import Receipts

#: Half an arrival, or a control file that cannot be read, is no news before (seconds).
HALF_AGE = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What became of an arrival: its record, what to tell a person, and the exit status."""

    record: Record | None = None
    message: str | None = None
    status: int = 0


def unknown_format(stem: str, error: UnknownFormat) -> str:
    """Report a whole control file that this release does not understand."""
    return f"{keyvalue.printable(stem)}: {error}; left in incoming: update lpxfer here"


@dataclass(frozen=True)
class Archive:
    """Incoming, an instrument directory that takes what arrives, and the receipts."""

    incoming: Incoming
    home: InstrumentDir
    receipts: Receipts
    now: Callable[[], datetime]

    def guarded(self, name: str, act: Callable[[], list[Outcome]]) -> list[Outcome]:
        """Deal with one arrival, whatever comes of it: one bad one never stops the others."""
        try:
            return act()
        except LpxferError as error:
            return [Outcome(None, f"{name}: {error}; left in incoming", error.exit_status)]
        except OSError as error:
            return [Outcome(None, f"{name}: {explain(error)}; left in incoming", 75)]
        except Exception:  # noqa: BLE001 - the loop must go on
            return [Outcome(None, f"{name}: left in incoming\n{traceback.format_exc()}", 1)]

    def recall(self, uids: Iterable[str]) -> None:
        """Look up what the log says of these arrivals, and of what is in those that are bundles.

        In one pass over the logs, which are long.
        """
        uids = list(uids)
        members = itertools.chain.from_iterable(map(self.incoming.members, uids))
        self.home.log.recall([*uids, *members], self.now())

    def odd_logs(self) -> Iterator[Outcome]:
        """Yield what was found among the transfer logs and is none."""
        for told in self.home.log.passed_over:
            yield Outcome(None, told, 1)

    def refuse_self(self, where: int) -> None:
        """Raise when an open directory is the one that arrivals are taken from.

        What is placed there would be taken for a copy of itself, and removed.
        """
        if os.path.samestat(os.fstat(where), os.fstat(self.incoming.fd)):
            raise LpxferError("the input directory is where it would be placed")

    def set_aside(self, stem: str, found: Sequence[str], reason: str) -> list[Outcome]:
        """Move what is no arrival from incoming to quarantine; nobody gets a receipt for it.

        A sweep that was killed may have moved half of it, and has said so.
        No outcome when it is gone, or another process works on it, or it is in quarantine.
        """
        if self.home.is_quarantine(self.incoming.fd):
            return []
        with contextlib.ExitStack() as stack:
            pieces: dict[str, Slice | Text] = {}
            for name in found:
                try:
                    fd = stack.enter_context(self.incoming.hold(name))
                except OSError as error:
                    if error.errno not in durable.NOT_REGULAR:
                        raise
                    reason += f"; {keyvalue.printable(name)} is {self.incoming.describe(name)}"
                    continue
                if fd is None:
                    return []
                pieces[name.removeprefix(".")[len(stem) :]] = Slice(fd)
            placed = self.home.quarantine(stem, pieces, reason)
            uid = {"uid": stem} if names.UID.fullmatch(stem) else {}
            fields = uid | {"name": found[0], "placed": placed, "reason": reason}
            entry = Record(self.now(), record.QUARANTINED, fields)
            same = {"placed": placed, "reason": reason}.items()
            past = self.home.log.past(stem)
            told = any(e.kind == entry.kind and same <= e.fields.items() for e in past)
            if not told and (uid or not self.home.log.tells(entry)):
                self.home.log.append(entry)
            for name in found:
                self.take_directory(name, placed + name.removeprefix(".")[len(stem) :])
                with contextlib.suppress(IsADirectoryError):  # it could not be moved
                    durable.remove(name, self.incoming.fd)
        message = f"{stem}: {reason}; see {self.home.path}/{placed}.*"
        return [Outcome(entry, keyvalue.printable(message), 1)]

    def take_directory(self, name: str, placed: str) -> None:
        """Move a directory that stands where a file should be; it stays if it cannot be moved."""
        if self.incoming.describe(name) == "a directory":
            with contextlib.suppress(OSError):
                self.home.take(name, self.incoming.fd, os.path.basename(placed))


def explain(error: OSError) -> str:
    """Say what the system refused, and of which file."""
    name = f' - "{keyvalue.printable(os.fsdecode(error.filename))}"' if error.filename else ""
    return f"{error.strerror or error}{name}"

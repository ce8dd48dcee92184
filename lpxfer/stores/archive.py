"""The places a sweep works between, and the order in which an arrival goes through them.

    placed or quarantined -> transfer log -> receipt -> removed from incoming

Each is durable before the next begins, so a sweep that is killed anywhere is repeated by
the next one: what the log says is placed is not placed again, what has no receipt gets it,
what has one is removed. An arrival that cannot be dealt with now stays in incoming.
"""

import contextlib
import os
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lpxfer import checksum, durable
from lpxfer.errors import LpxferError, PermanentError
from lpxfer.formats import keyvalue, names, record
from lpxfer.formats.control import Control, UnknownFormat
from lpxfer.formats.record import Record
from lpxfer.stores.incoming import Arrival, Incoming
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.receipts import Receipts

#: Half an arrival, or a control file that cannot be read, is no news before (seconds).
HALF_AGE = 3600.0


class Mismatch(PermanentError):
    """Other bytes arrived than were submitted; the sender may send again."""


@dataclass(frozen=True)
class Outcome:
    """What became of an arrival: its record, what to tell a person, and the exit status."""

    record: Record | None = None
    message: str | None = None
    status: int = 0


def verify(control: Control, size: int, checksum: str | None = None) -> None:
    """Raise Mismatch when a file has another size or checksum than its control file says."""
    if size != control.size:
        raise Mismatch(f"{size} bytes arrived, {control.size} were submitted")
    if checksum is not None and checksum != control.checksum:
        raise Mismatch(f"the bytes that arrived have the checksum {checksum}")


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

    def guarded(self, name: str, act: Callable[[], Outcome | None]) -> Outcome | None:
        """Deal with one arrival, whatever comes of it: one bad one never stops the others."""
        try:
            return act()
        except LpxferError as error:
            return Outcome(None, f"{name}: {error}; left in incoming", error.exit_status)
        except OSError as error:
            return Outcome(None, f"{name}: {explain(error)}; left in incoming", 75)
        except Exception:  # noqa: BLE001 - the loop must go on
            return Outcome(None, f"{name}: left in incoming\n{traceback.format_exc()}", 1)

    def odd_logs(self) -> Iterator[Outcome]:
        """Yield what was found among the transfer logs and is none."""
        for told in self.home.log.passed_over:
            yield Outcome(None, told, 1)

    def settle(
        self,
        arrival: Arrival,
        control: Control,
        past: Sequence[Record],
        known: Collection[str],
        place: Callable[[int], Record],
    ) -> Outcome | None:
        """Bring a held arrival to its end: placed, quarantined, or left with an error record.

        `past` is what the log says of its uid, and `known` are the kinds of records that make
        another placing wrong. `place` gets the open data file, places it, and returns the
        record; it raises PermanentError for what has to be quarantined. Returns None when
        there was nothing to do but to finish what an earlier sweep had begun.
        """
        try:
            try:
                return self._take(arrival, control, past, known, place)
            except PermanentError as error:
                return self._refuse(arrival, control, error, past)
        except OSError as error:
            return self._fail(control, error, past)

    def _take(
        self,
        arrival: Arrival,
        control: Control,
        past: Sequence[Record],
        known: Collection[str],
        place: Callable[[int], Record],
    ) -> Outcome | None:
        """Place an arrival, or finish what an earlier sweep had begun; raises as `settle` says."""
        done = self._archived(control, past, known)
        if done:
            self._refuse_kept(done)
            self.receipts.append(control.host, done, self.now())
            self.incoming.remove(arrival.uid)
            return None
        try:
            data = self.incoming.open_data(arrival.uid)
        except FileNotFoundError:
            return self._half(arrival, control, past)
        try:
            entry = place(data)
        finally:
            os.close(data)
        self._say(control, entry, past)
        self.incoming.remove(arrival.uid)
        return Outcome(entry)

    def foresee(
        self,
        control: Control,
        past: Sequence[Record],
        known: Collection[str],
        place: Callable[[int], Record],
    ) -> Outcome | None:
        """Tell what `settle` would do, as far as can be seen without a lock; change nothing.

        `place` gets the open data file, which has the bytes that were submitted, and tells
        where it would go.
        """
        try:
            if self._archived(control, past, known):
                return None
            data = self.incoming.open_data(control.uid)
            try:
                verify(control, os.fstat(data).st_size, checksum.of_file(data, control.size))
                return Outcome(place(data))
            finally:
                os.close(data)
        except FileNotFoundError:
            return None
        except PermanentError as error:
            return Outcome(self._refusal(control, error, ""))

    def refuse_self(self, where: int) -> None:
        """Raise when an open directory is the one that arrivals are taken from.

        What is placed there would be taken for a copy of itself, and removed.
        """
        if os.path.samestat(os.fstat(where), os.fstat(self.incoming.fd)):
            raise LpxferError("the input directory is where it would be placed")

    def _archived(
        self, control: Control, past: Sequence[Record], known: Collection[str]
    ) -> Record | None:
        """Return the record that says that an arrival's bytes are archived, if it is still true.

        The data that was delivered again may be all there is: what the record speaks of may
        have been lost, changed, or set aside since. Without that data nothing can be lost.
        """
        done = _earlier(past, known, control.checksum)
        if done is None or self.incoming.changed(control.uid + names.DATA) is None:
            return done
        placed = done.fields.get("placed", "")
        gone = (e.time > done.time and e.fields.get("instead_of") == placed
                for e in past if e.kind == record.QUARANTINED)  # fmt: skip
        if any(gone) or not self.home.keeps(placed, control.size, control.checksum):
            return None
        return done

    def _refuse_kept(self, done: Record) -> None:
        """Raise when what an earlier sweep has placed stands in the input directory."""
        kept = os.path.join(self.home.path, os.path.dirname(done.fields.get("placed", "")))
        with contextlib.suppress(OSError), durable.opened_dir(kept) as where:
            self.refuse_self(where)

    def _say(self, control: Control, entry: Record, past: Sequence[Record]) -> None:
        """Write record and receipt; after that the arrival is redundant."""
        self._log(entry, past)
        self.receipts.append(control.host, entry, self.now())

    def _log(self, entry: Record, past: Sequence[Record]) -> None:
        """Write a record, unless a sweep that died or failed has written the same one.

        A file that is placed has its own, also when the log speaks of an earlier copy of it.
        """
        same = (old.kind == entry.kind and old.fields == entry.fields for old in past)
        if entry.kind in record.SAFE or not any(same):
            self.home.log.append(entry)

    def _half(self, arrival: Arrival, control: Control, past: Sequence[Record]) -> Outcome | None:
        """Deal with a control file without data: it was quarantined, or has lost its data."""
        if self.home.is_quarantine(self.incoming.fd):
            return None  # its data was no file; this is all that there is
        attempts = str(control.transfer.attempts) if control.transfer else None
        refused = (record.MISMATCH, record.QUARANTINED)
        if any(e.kind in refused and e.fields.get("attempts") == attempts for e in past):
            self.incoming.remove(arrival.uid)  # as a sweep that was killed was about to do
            return None
        changed = self.incoming.changed(arrival.uid + names.CONTROL)
        if changed is None or self.now().timestamp() - changed < HALF_AGE:
            return None
        return Outcome(None, f"{arrival.uid}: the data file is missing; left in incoming", 1)

    def _refuse(
        self, arrival: Arrival, control: Control, error: PermanentError, past: Sequence[Record]
    ) -> Outcome | None:
        """Copy an arrival into quarantine, say so everywhere, and remove it from incoming."""
        reason, uid = keyvalue.printable(str(error)), arrival.uid
        if self.home.is_quarantine(self.incoming.fd):
            return Outcome(None, f"{uid}: stays in quarantine: {reason}", 1)
        pieces = {names.CONTROL: arrival.fd}
        with contextlib.ExitStack() as stack:
            try:
                data = self.incoming.open_data(uid)
                stack.callback(os.close, data)
                pieces[names.DATA] = data
            except FileNotFoundError:
                return self._half(arrival, control, past)
            except PermanentError:
                pass  # it is no file; the reason says what it is
            stem = self.home.quarantine(uid, pieces, reason)
        kept = names.DATA if names.DATA in pieces else names.CONTROL
        entry = self._refusal(control, error, stem + kept)
        self._say(control, entry, past)
        if names.DATA not in pieces:  # now that the log explains a control file alone
            self._take_directory(uid + names.DATA, stem + names.DATA)
        self.incoming.remove(uid)
        return Outcome(entry, f"{uid}: {entry.kind}: {reason}; see {self.home.path}/{stem}.*", 1)

    def _refusal(self, control: Control, error: PermanentError, placed: str) -> Record:
        kind = record.MISMATCH if isinstance(error, Mismatch) else record.QUARANTINED
        reason = keyvalue.printable(str(error))
        return record.of_arrival(self.now(), kind, control, placed, reason=reason)

    def _fail(self, control: Control, error: OSError, past: Sequence[Record]) -> Outcome:
        """Leave an arrival for the next sweep, with a record where one can be written."""
        reason = explain(error)
        entry = record.of_arrival(self.now(), record.ERROR, control, "", reason=reason)
        with contextlib.suppress(OSError):
            self._log(entry, past)
        return Outcome(entry, f"{control.uid}: {reason}; left in incoming", 75)

    def set_aside(
        self, stem: str, found: Sequence[str], reason: str, past: Sequence[Record]
    ) -> Outcome | None:
        """Move what is no arrival from incoming to quarantine; nobody gets a receipt for it.

        `past` is what the log says of it, where it has a uid: a sweep that was killed may have
        moved half of it, and has said so.
        None when it is gone, or another process works on it, or it is in quarantine already.
        """
        if self.home.is_quarantine(self.incoming.fd):
            return None
        with contextlib.ExitStack() as stack:
            pieces = {}
            for name in found:
                try:
                    fd = stack.enter_context(self.incoming.hold(name))
                except OSError as error:
                    if error.errno not in durable.NOT_REGULAR:
                        raise
                    reason += f"; {keyvalue.printable(name)} is {self.incoming.describe(name)}"
                    continue
                if fd is None:
                    return None
                pieces[name.removeprefix(".")[len(stem) :]] = fd
            placed = self.home.quarantine(stem, pieces, reason)
            uid = {"uid": stem} if names.UID.fullmatch(stem) else {}
            fields = uid | {"name": found[0], "placed": placed, "reason": reason}
            entry = Record(self.now(), record.QUARANTINED, fields)
            same = {"placed": placed, "reason": reason}.items()
            told = any(e.kind == entry.kind and same <= e.fields.items() for e in past)
            if not told and (uid or not self.home.log.tells(entry)):
                self.home.log.append(entry)
            for name in found:
                self._take_directory(name, placed + name.removeprefix(".")[len(stem) :])
                with contextlib.suppress(IsADirectoryError):  # it could not be moved
                    durable.remove(name, self.incoming.fd)
        message = f"{stem}: {reason}; see {self.home.path}/{placed}.*"
        return Outcome(entry, keyvalue.printable(message), 1)

    def _take_directory(self, name: str, placed: str) -> None:
        """Move a directory that stands where a file should be; it stays if it cannot be moved."""
        if self.incoming.describe(name) == "a directory":
            with contextlib.suppress(OSError):
                self.home.take(name, self.incoming.fd, os.path.basename(placed))


def _earlier(past: Sequence[Record], known: Collection[str], digest: str) -> Record | None:
    """Return the record that says that these bytes are archived.

    Raises PermanentError when it says so of other bytes with this uid. A line that a crash
    has cut may lack its checksum, or have half of it; then the line after it counts.
    """
    found = {e.fields.get("checksum", ""): e for e in past if e.kind in known}
    if digest not in found and any(checksum.is_text(text) for text in found):
        raise PermanentError("a file with this uid and another checksum is archived")
    return found.get(digest)


def explain(error: OSError) -> str:
    """Say what the system refused, and of which file."""
    name = f' - "{keyvalue.printable(os.fsdecode(error.filename))}"' if error.filename else ""
    return f"{error.strerror or error}{name}"

"""Bring an arrival to its end: the order in which it goes through the places of a sweep.

    placed or quarantined -> transfer log -> receipt -> removed from incoming

Each is durable before the next begins, so a sweep that is killed anywhere is repeated by
the next one: what the log says is placed is not placed again, what has no receipt gets it,
what has one is removed. What cannot be dealt with now stays in incoming.

A bundle is an arrival with many files in it, any other is one with one. Those that go to one
directory are placed together. Each is judged for itself: one that is refused, or fails, is no
hindrance to the others, and what arrived is removed when there is nothing left to do in it.
"""

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from lpxfer import checksum, durable
from lpxfer.checksum import Slice, SourceError, Text
from lpxfer.errors import LpxferError, PermanentError
from lpxfer.formats import keyvalue, names, record, stages
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.control import Control
from lpxfer.formats.record import Record
from lpxfer.formats.validity import Invalid
from lpxfer.stores.archive import HALF_AGE, Archive, Outcome, explain
from lpxfer.stores.delivery import Delivery, Mismatch, deliveries, is_whole, surplus, verify
from lpxfer.stores.incoming import Arrival
from lpxfer.stores.placing import Batch, Copy


class Placing(Protocol):
    """How one kind of sweep places the files of one arrival.

    Each method raises PermanentError for a file that has to be quarantined.
    """

    @property
    def known(self) -> Collection[str]:
        """The kinds of records that make another placing wrong."""

    def begun(self, control: Control) -> Record | None:
        """Return the record of what a sweep that was killed has placed already."""

    def components(self, control: Control) -> Sequence[str]:
        """Return the directory for a file."""

    def copy(self, batch: Batch, delivery: Delivery) -> Sequence[Copy]:
        """Copy a file, and what belongs to it, as verified as it can be. Raises OSError."""

    def publish(self, batch: Batch, delivery: Delivery, copies: Sequence[Copy]) -> Record:
        """Give the copies their final names; return the record. Raises OSError."""

    def foresee(self, delivery: Delivery) -> Record:
        """Return the record that a file would get, as far as can be seen without a lock."""


def settle(
    archive: Archive, arrival: Arrival, known: Control | Bundle, placing: Placing
) -> list[Outcome]:
    """Place what a held arrival delivers, whose control file says `known`; return the outcomes.

    There is none for what had only to be finished after an earlier sweep. What fails now has
    an error record, where one can be written, and stays in incoming.
    """
    one = _Settling(archive, arrival, known, placing)
    try:
        one.run()
    except OSError as error:
        one.fail([(known, error)])
    except LpxferError as error:
        message = f"{known.uid}: {error}; left in incoming"
        one.outcomes.append(Outcome(None, message, error.exit_status))
    return one.outcomes


def foresee(archive: Archive, known: Control | Bundle, placing: Placing) -> list[Outcome]:
    """Tell what `settle` would do, as far as can be seen without a lock; change nothing."""

    def one(delivery: Delivery) -> Outcome | None:
        control = delivery.control
        try:
            if archived(archive, control, placing.known):
                return None
            verify(control, delivery.data.length())
            verify(control, *checksum.of(delivery.data, control.size))
            return Outcome(placing.foresee(delivery))
        except PermanentError as error:
            return Outcome(_refusal(archive, control, error, ""))

    try:
        data = archive.incoming.open_data(known.uid)
    except FileNotFoundError:
        return []
    except PermanentError as error:
        return [Outcome(_refusal(archive, known, error, ""))]
    try:
        found = deliveries(Arrival(known.uid, -1, b""), known, data)
        archive.home.log.recall([delivery.control.uid for delivery in found], archive.now())
        return [outcome for delivery in found if (outcome := one(delivery))]
    except PermanentError as error:
        return [Outcome(_refusal(archive, known, error, ""))]
    finally:
        os.close(data)


def archived(archive: Archive, control: Control, known: Collection[str]) -> Record | None:
    """Return the record that says that a file's bytes are archived, if it is still true.

    The data that was delivered again may be all there is: what the record speaks of may
    have been lost, changed, or set aside since.
    """
    past = archive.home.log.past(control.uid)
    if (done := _earlier(past, known, control.checksum)) is None:
        return None
    placed = done.fields.get("placed", "")
    gone = (e.time > done.time and e.fields.get("instead_of") == placed
            for e in past if e.kind == record.QUARANTINED)  # fmt: skip
    if any(gone) or not archive.home.keeps(placed, control.size, control.checksum):
        return None
    kept = os.path.join(archive.home.path, os.path.dirname(placed))
    with contextlib.suppress(OSError), durable.opened_dir(kept) as where:
        archive.refuse_self(where)
    return done


class _Settling:
    """One arrival, and what has become of its files so far."""

    def __init__(
        self, archive: Archive, arrival: Arrival, known: Control | Bundle, placing: Placing
    ) -> None:
        self._archive, self._arrival, self._known, self._placing = archive, arrival, known, placing
        self._home, self._incoming = archive.home, archive.incoming
        self._past = archive.home.log.past(known.uid)
        self._repeated: list[Record] = []  # receipts of what earlier sweeps have placed
        self._refused: list[tuple[Delivery, PermanentError]] = []
        self._failed: list[tuple[Control | Bundle, OSError]] = []
        self._left = self._news = False
        self.outcomes: list[Outcome] = []

    def run(self) -> None:
        """Do all that can be done. Raises OSError; LpxferError when it stands where it belongs."""
        try:
            data = self._incoming.open_data(self._known.uid)
        except FileNotFoundError:
            self._finish_half()
            return
        except PermanentError as error:
            self._finish_odd(error)
            return
        try:
            self._finish(data)
        finally:
            os.close(data)

    def _finish(self, data: int) -> None:
        """Deal with the files of an arrival, whose data is open, then with the arrival."""
        pieces = {names.DATA: Slice(data), names.CONTROL: Slice(self._arrival.fd)}
        try:
            found = deliveries(self._arrival, self._known, data)
        except PermanentError as error:
            self._refuse_all(pieces, error)
        else:
            self._place_all(found)
            self._quarantine_refused()
            self.fail(self._failed)
            self._repeat_receipts()
            if isinstance(self._known, Bundle) and not self._left:
                self._close_bundle(self._known, data, pieces)
        if not self._left:
            self._incoming.remove(self._known.uid)

    # --- what can be placed ---------------------------------------------------------------

    def _place_all(self, found: Sequence[Delivery]) -> None:
        """Place what is not archived yet, directory by directory."""
        self._home.log.recall([one.control.uid for one in found], self._archive.now())
        groups: dict[tuple[str, ...], list[Delivery]] = {}
        begun: list[Record] = []
        for one in found:
            try:
                if done := archived(self._archive, one.control, self._placing.known):
                    self._repeated.append(done)
                elif placed := self._placing.begun(one.control):
                    begun.append(placed)
                else:
                    way = tuple(self._placing.components(one.control))
                    groups.setdefault(way, []).append(one)
            except PermanentError as error:
                self._refused.append((one, error))
            except OSError as error:
                self._failed.append((one.control, error))
        self._say_placed(begun)
        for way, group in groups.items():
            try:
                self._place(way, group)
            except OSError as error:
                self._failed.append((self._known, error))

    def _place(self, way: Sequence[str], group: Sequence[Delivery]) -> None:
        """Place files in one directory; those that cannot be are told apart from the others."""
        copied: list[tuple[Delivery, Sequence[Copy]]] = []
        entries: list[Record] = []
        try:
            with self._home.batch(way, len(group)) as batch:
                self._archive.refuse_self(batch.where)
                for one in group:
                    try:
                        copied.append((one, self._placing.copy(batch, one)))
                    except PermanentError as error:
                        self._refused.append((one, error))
                    except SourceError as error:
                        self._failed.append((one.control, error))
                for one, copies in copied:
                    try:
                        entries.append(self._placing.publish(batch, one, copies))
                    except PermanentError as error:
                        self._refused.append((one, error))
        except PermanentError as error:  # of the directory
            self._refused += [(one, error) for one in group]
            return
        self._say_placed(entries)

    def _say_placed(self, entries: Sequence[Record]) -> None:
        """Say of files that they are placed, durably."""
        receipted = stages.reached(entries, stages.RECEIPTED, self._archive.now())
        self._say([Outcome(entry) for entry in receipted])

    def _say(self, outcomes: Sequence[Outcome]) -> None:
        """Write records and receipts; after that, what they are about is redundant."""
        entries = [outcome.record for outcome in outcomes if outcome.record]
        self._log(entries)
        self._archive.receipts.append(self._known.host, self._archive.now(), *entries)
        self.outcomes += outcomes

    def _log(self, entries: Iterable[Record]) -> list[Record]:
        """Write records, but not those that a sweep that died or failed has written; return them.

        A file that is placed has its own, also when the log speaks of an earlier copy of it.
        """
        new = [entry for entry in entries if entry.kind in record.SAFE or not self._is_told(entry)]
        self._home.log.append(*new)
        return new

    def _is_told(self, entry: Record) -> bool:
        past = self._home.log.past(record.uid_of(entry))
        return any(old.kind == entry.kind and old.fields == entry.fields for old in past)

    # --- what cannot ----------------------------------------------------------------------

    def fail(self, failed: Sequence[tuple[Control | Bundle, OSError]]) -> None:
        """Leave the arrival for the next sweep, with records where they can be written."""
        now, outcomes = self._archive.now(), dict[str, Outcome]()
        for known, error in failed:
            reason = explain(error)
            message = f"{known.uid}: {reason}; left in incoming"
            entry = record.of_arrival(now, record.ERROR, known, "", reason=reason)
            outcomes.setdefault(message, Outcome(entry, message, 75))
        if outcomes:
            self._left = True
            self.outcomes += outcomes.values()
            with contextlib.suppress(OSError):
                new = self._log(one.record for one in outcomes.values() if one.record)
                self._news |= bool(new)

    def _quarantine_refused(self) -> None:
        """Copy what was refused into quarantine, each for itself, and say so everywhere."""
        done = []
        try:
            for one, error in self._refused:
                if outcome := self._quarantine(one.control, one.pieces(), error):
                    done.append(outcome)
        except OSError as error:
            self._failed.append((self._known, error))
        self._say(done)

    def _quarantine(
        self, known: Control | Bundle, pieces: Mapping[str, Slice | Text], error: PermanentError
    ) -> Outcome | None:
        """Copy something into quarantine; None when that is where it stands."""
        reason = keyvalue.printable(str(error))
        if self._home.is_quarantine(self._incoming.fd):
            self._left = True
            message = f"{known.uid}: stays in quarantine: {reason}"
            self.outcomes.append(Outcome(None, message, 1))
            return None
        stem = self._home.quarantine(known.uid, pieces, reason)
        kept = names.DATA if names.DATA in pieces else names.CONTROL
        if isinstance(error, Invalid) and not self._is_kept(known, stem + kept):
            error = Mismatch("the bytes that arrived have changed since they were read")
        entry = _refusal(self._archive, known, error, stem + kept)
        message = f"{known.uid}: {entry.kind}: {reason}; see {self._home.path}/{stem}.*"
        return Outcome(entry, message, 1)

    def _is_kept(self, known: Control | Bundle, placed: str) -> bool:
        """Tell whether quarantine holds what was submitted, in the form in which it arrived."""
        assert isinstance(known, Control)  # a bundle as a whole is not what is called invalid
        way, name = os.path.split(placed)
        with self._home.directory((way,), make=False) as where:
            fd = durable.open_regular(name, where)
            try:
                return is_whole(known, fd)
            finally:
                os.close(fd)

    def _refuse_all(self, pieces: Mapping[str, Slice | Text], error: PermanentError) -> None:
        """Quarantine an arrival as a whole, and say so."""
        if outcome := self._quarantine(self._known, pieces, error):
            self._say([outcome])

    # --- the end of an arrival ------------------------------------------------------------

    def _repeat_receipts(self) -> None:
        """Repeat what was said of files that are archived: the sender may not have heard it.

        A bundle that is left comes by with every sweep, and they need not be repeated so often.
        """
        if not self._left or self._news:
            receipts = self._archive.receipts
            receipts.append(self._known.host, self._archive.now(), *self._repeated)

    def _close_bundle(self, known: Bundle, data: int, pieces: Mapping[str, Slice | Text]) -> None:
        """Say that all members have been dealt with; what is left over is quarantined."""
        try:
            surplus(known, data)
        except Mismatch as error:
            self._refuse_all(pieces, error)
        else:
            self._log([record.of_arrival(self._archive.now(), record.UNPACKED, known, "")])

    def _finish_half(self) -> None:
        """Deal with a control file without data: it has been dealt with, or has lost its data."""
        known, uid = self._known, self._known.uid
        if isinstance(known, Control):
            with contextlib.suppress(PermanentError):
                done = _earlier(self._past, self._placing.known, known.checksum)
                self._repeated += [done] if done else []
        if self._repeated or any(entry.kind == record.UNPACKED for entry in self._past):
            self._repeat_receipts()
            self._incoming.remove(uid)
            return
        if self._home.is_quarantine(self._incoming.fd):
            return  # its data was no file; this is all that there is
        attempts = str(known.transfer.attempts) if known.transfer else None
        refused = (record.MISMATCH, record.QUARANTINED)
        if any(e.kind in refused and e.fields.get("attempts") == attempts for e in self._past):
            self._incoming.remove(uid)  # as a sweep that was killed was about to do
            return
        changed = self._incoming.changed(uid + names.CONTROL)
        if changed is not None and self._archive.now().timestamp() - changed >= HALF_AGE:
            message = f"{uid}: the data file is missing; left in incoming"
            self.outcomes.append(Outcome(None, message, 1))

    def _finish_odd(self, error: PermanentError) -> None:
        """Deal with an arrival whose data file is none."""
        uid = self._known.uid
        if isinstance(self._known, Control):
            try:
                done = archived(self._archive, self._known, self._placing.known)
                self._repeated += [done] if done else []
            except PermanentError as other:
                error = other
        if not self._repeated:
            self._refuse_all({names.CONTROL: Slice(self._arrival.fd)}, error)
            if self._left:
                return
            entry = self.outcomes[-1].record  # the log explains a control file alone by now
            placed = entry.fields["placed"].removesuffix(names.CONTROL) if entry else ""
            self._archive.take_directory(uid + names.DATA, placed + names.DATA)
        self._repeat_receipts()
        self._incoming.remove(uid)


def _refusal(
    archive: Archive, known: Control | Bundle, error: PermanentError, placed: str
) -> Record:
    kind = record.MISMATCH if isinstance(error, Mismatch) else record.QUARANTINED
    more = {"reason": keyvalue.printable(str(error))}
    if isinstance(error, Invalid):
        more["invalid"] = error.reason
    return record.of_arrival(archive.now(), kind, known, placed, **more)


def _earlier(past: Sequence[Record], known: Collection[str], digest: str) -> Record | None:
    """Return the record that says that these bytes are archived.

    Raises PermanentError when it says so of other bytes with this uid. A line that a crash
    has cut may lack its checksum, or have half of it; then the line after it counts.
    """
    found = {e.fields.get("checksum", ""): e for e in past if e.kind in known}
    if digest not in found and any(checksum.is_text(text) for text in found):
        raise PermanentError("a file with this uid and another checksum is archived")
    return found.get(digest)

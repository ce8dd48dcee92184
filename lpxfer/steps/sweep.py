"""Sweep: take the arrivals of one instrument to their place in its directory.

Guarantees: every file is placed exactly once, with one record `stored` (or `duplicate`,
or `renamed`), however often it is delivered, alone or in bundles, and wherever a sweep was
killed; no final name is overwritten; nothing that an arrival says leads outside the
instrument directory; what cannot be placed is in quarantine with a reason, and the others go on.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lpxfer import codec, durable
from lpxfer.checksum import Slice
from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats import dates, keyvalue, names, record, stages
from lpxfer.formats.accepts import Accepts
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.control import Control, UnknownFormat
from lpxfer.formats.record import Record
from lpxfer.formats.stages import Way
from lpxfer.formats.validity import Invalid
from lpxfer.stores.archive import Archive, Outcome, unknown_format
from lpxfer.stores.delivery import Delivery, verify
from lpxfer.stores.incoming import Arrival
from lpxfer.stores.placing import Batch, Copy
from lpxfer.stores.settling import foresee, settle

#: Records after which a file with this uid is not placed again. A stranger still is.
KNOWN = record.SAFE - {record.STRANGER}


def accepts() -> Accepts:
    """Return what this sweep understands beside plain arrivals."""
    return Accepts(bundle=True, codecs=frozenset(filter(None, [codec.available()])))


@dataclass(frozen=True)
class Rules:
    """How an instrument's arrivals are placed."""

    instrument: InstrumentConfig
    dir: str | None = None  # overrides the control file's `dir` and the dates
    dated: bool = True  # False drops the directories made from dates

    @property
    def insts(self) -> list[str]:
        """What arrivals of this instrument may call it."""
        return [name for name in (self.instrument.name, self.instrument.alias) if name]


def sweep(archive: Archive, rules: Rules, dry_run: bool = False) -> Iterator[Outcome]:
    """Place every arrival of an instrument; yield what became of each.

    It may be left after any of them. With `dry_run` nothing is changed, and the outcomes are
    what would become of them. Raises BusyError when another sweep works in the instrument
    directory, OSError when incoming or a log cannot be read.
    """
    with contextlib.nullcontext() if dry_run else archive.home.locked():
        if not dry_run:
            archive.receipts.make()
            for inst in rules.insts:
                archive.receipts.accept(inst, accepts(), archive.now())
        unreadable: list[str] = []
        uids = archive.incoming.addressed_to(rules.insts, unreadable.append)
        if uids and not dry_run:
            archive.incoming.sync_names()
        archive.recall(uids)
        act = _foresee if dry_run else _sweep_one
        for uid in uids:
            yield from archive.guarded(uid, partial(act, archive, rules, uid))
        for message in unreadable:
            yield Outcome(None, message, 1)
        yield from archive.odd_logs()


def _sweep_one(archive: Archive, rules: Rules, uid: str) -> list[Outcome]:
    """Place one arrival; nothing comes of what is held, or is none of ours."""
    with archive.incoming.hold_arrival(uid) as arrival:
        if arrival is None:
            return []
        known = _known(arrival, rules)
        if known is None or isinstance(known, Outcome):
            return [known] if known else []
        way = Way(arrival.arrived(), archive.now())
        several = isinstance(known, Bundle)
        if archive.incoming.placed_elsewhere(uid, archive.home.path, archive.now(), several):
            return []
        return settle(archive, arrival, known, _Placing(archive, rules, uid, way))


def _foresee(archive: Archive, rules: Rules, uid: str) -> list[Outcome]:
    """Tell what would become of an arrival, as far as can be seen without a lock."""
    arrival = Arrival(uid, -1, archive.incoming.read(uid + names.CONTROL))
    known = _known(arrival, rules)
    if known is None or isinstance(known, Outcome):
        return [known] if known else []
    return foresee(archive, known, _Placing(archive, rules, uid))


def _known(arrival: Arrival, rules: Rules) -> Control | Bundle | Outcome | None:
    """Read a control file: what it says, or a report, or None for what xfer-sweep -A takes."""
    try:
        known = arrival.read()
    except UnknownFormat as error:
        return Outcome(None, unknown_format(arrival.uid, error), 1)
    except FormatError:
        return None
    return known if known.inst in rules.insts else None


def destination(control: Control, rules: Rules) -> tuple[tuple[str, ...], str]:
    """Return where an arrival belongs: directories beneath the instrument directory, a name.

    Raises FormatError for a place that is not to be written to.
    """
    name = names.check_name(control.name)
    given = rules.dir if rules.dir is not None else control.dir
    if given is not None:
        return names.check_dir(given), name
    if not rules.dated:
        if name in names.RESERVED:
            raise FormatError(f'"{name}" is reserved in an instrument directory')
        return (), name
    origin = os.path.basename(os.path.dirname(control.path))
    if dates.is_dated_name(origin):
        return (origin,), name
    try:
        night = dates.dated_name(control.submitted, rules.instrument.tz, rules.instrument.noon)
    except OverflowError:
        raise FormatError("the queuing time is out of range") from None
    return (night,), name


class _Placing:
    """How the files of one arrival are placed in an instrument's directory."""

    known = KNOWN

    def __init__(self, archive: Archive, rules: Rules, uid: str, way: Way | None = None) -> None:
        """Know the places, and what is known of the arrival's `way`."""
        self._home, self._incoming, self._now = archive.home, archive.incoming, archive.now
        self._rules, self._uid, self._way = rules, uid, way
        self._mark = archive.incoming.marked(uid) or ""
        self._owners: dict[str, str] = {}  # path -> uid, which the log does not say yet
        self._asked = rules.instrument.validation
        self._cards: dict[str, dict[str, str]] = {}  # uid -> what its header says
        self._valid: dict[str, float] = {}  # uid -> since when it is known to be as it should be

    def components(self, control: Control) -> Sequence[str]:
        """Return the directory for a file."""
        return destination(control, self._rules)[0]

    def begun(self, control: Control) -> Record | None:
        """Return the record of what a sweep that was killed has placed in this directory.

        It may have had other rules; the file must not be placed a second time for that.
        """
        below = self._mark.removeprefix(self._home.path.rstrip("/") + "/")
        if below == self._mark:
            return None  # of another directory, or there is none
        directory = os.path.dirname(below)
        with contextlib.suppress(FormatError):  # a mark that lies
            way = names.check_dir(directory) if directory else ()
            for kind, final in _candidates(control):
                placed = "/".join((*way, final))
                if self._home.keeps(placed, control.size, control.checksum):
                    if self._is_free_for(control, placed):
                        self._inspect_placed(control, way, final)
                        return self._record(control, kind, way, final)
        return None

    def copy(self, batch: Batch, delivery: Delivery) -> Sequence[Copy]:
        """Copy a file's data, verify it, and see whether it is what the instrument's files are."""
        control, mode = delivery.control, self._rules.instrument.mode
        verify(control, delivery.data.length())
        copy = batch.copy(delivery.data, control.size, control.mtime_ns, mode)
        verify(control, copy.size, copy.checksum)
        if self._asked:
            self._inspect(control, copy.temporary, batch.where)
        self._valid[control.uid] = self._now().timestamp()
        return [copy]

    def _inspect_placed(self, control: Control, way: Sequence[str], final: str) -> None:
        """Remember the cards of a file that has its name already, whatever is asked by now."""
        if self._asked:
            with contextlib.suppress(Invalid), self._home.directory(way, False) as where:
                self._inspect(control, keyvalue.file_name(final), where)

    def _inspect(self, control: Control, name: str, where: int) -> None:
        """Remember the cards for the record of a verified file. Raises Invalid, OSError."""
        fd = durable.open_regular(name, where)
        try:
            read = partial(os.pread, fd)
            self._cards[control.uid] = self._asked.inspect(control, read)
        finally:
            os.close(fd)

    def publish(self, batch: Batch, delivery: Delivery, copies: Sequence[Copy]) -> Record:
        """Give a file its final name, or find it there; return the record.

        The name exists at the instant of the link, with whole and synced bytes.
        """
        control, [copy] = delivery.control, copies
        for kind, final in _candidates(control):
            disk_name = keyvalue.file_name(final)
            if not batch.given:  # one mark is enough for all that are given names together
                self._incoming.mark(self._uid, os.path.join(self._home.path, *batch.way, disk_name))
            if not batch.publish(copy.temporary, disk_name):
                if not self._home.holds(disk_name, batch.where, control.size, control.checksum):
                    continue
                kind = self._kind_of_found(control, kind, "/".join((*batch.way, final)))
            return self._record(control, kind, batch.way, final)
        raise PermanentError(f'"{control.name}" and "{final}" are the names of other files already')

    def foresee(self, delivery: Delivery) -> Record:
        """Return the record that a file would get; what is encoded is not looked into."""
        control = delivery.control
        if begun := self.begun(control):
            return begun
        if self._asked and isinstance(delivery.data, Slice):
            self._cards[control.uid] = self._asked.inspect(control, delivery.data.read)
        way, name = destination(control, self._rules)
        kind = record.STORED
        with contextlib.suppress(FileNotFoundError), self._home.directory(way, False) as where:
            disk_name = keyvalue.file_name(name)
            if not self._home.is_free(disk_name, where):
                if self._home.holds(disk_name, where, control.size, control.checksum):
                    kind = self._kind_of_found(control, kind, "/".join((*way, name)))
                else:
                    kind, name = record.RENAMED, names.renamed(name, control.uid)
        return self._record(control, kind, way, name)

    def _kind_of_found(self, control: Control, kind: str, placed: str) -> str:
        """Tell what it means that the bytes are there already under the final name.

        Another uid placed them, and the log says so, or will: a duplicate. Else this file was
        placed by a sweep that was killed before it could write the record.
        """
        return kind if self._is_free_for(control, placed) else record.DUPLICATE

    def _is_free_for(self, control: Control, placed: str) -> bool:
        owner = self._owners.get(placed) or self._home.log.owner(placed)
        return owner in (None, control.uid)

    def _record(self, control: Control, kind: str, way: Sequence[str], final: str) -> Record:
        placed = "/".join((*way, final))
        self._owners.setdefault(placed, control.uid)
        more = {}
        if kind == record.RENAMED:
            more["instead_of"] = "/".join((*way, control.name))
        more |= self._cards.get(control.uid, {})
        now = self._now()
        if self._way:
            valid = self._valid.get(control.uid)
            more[stages.FIELD] = self._way.of(control, now.timestamp(), valid)
        return record.of_arrival(now, kind, control, placed, **more)


def _candidates(control: Control) -> Iterator[tuple[str, str]]:
    """Yield the names to try: the first placed keeps the plain one."""
    yield record.STORED, names.check_name(control.name)
    yield record.RENAMED, names.renamed(control.name, control.uid)

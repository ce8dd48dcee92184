"""Sweep: take the arrivals of one instrument to their place in its directory.

Guarantees: every arrival is placed exactly once, with one record `stored` (or `duplicate`,
or `renamed`), however often it is delivered and wherever a sweep was killed; no final name
is overwritten; nothing that an arrival says leads outside the instrument directory; what
cannot be placed is in quarantine with a reason, and the others go on.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats import dates, keyvalue, names, record
from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.control import Control, UnknownFormat
from lpxfer.formats.record import Record
from lpxfer.stores.archive import Archive, Outcome, unknown_format, verify
from lpxfer.stores.incoming import Arrival

#: Records after which an arrival with this uid is not placed again. A stranger still is.
KNOWN = record.SAFE - {record.STRANGER}


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
                archive.receipts.accept(inst)
        unreadable: list[str] = []
        uids = archive.incoming.addressed_to(rules.insts, unreadable.append)
        history = archive.home.log.history(uids, archive.now())
        act = _foresee if dry_run else _sweep_one
        for uid in uids:
            past = history.get(uid, ())
            outcome = archive.guarded(uid, functools.partial(act, archive, rules, uid, past))
            if outcome:
                yield outcome
        for message in unreadable:
            yield Outcome(None, message, 1)
        yield from archive.odd_logs()


def _sweep_one(archive: Archive, rules: Rules, uid: str, past: Sequence[Record]) -> Outcome | None:
    """Place one arrival; None when there is nothing to do, or nothing of ours."""
    with archive.incoming.hold_arrival(uid) as arrival:
        if arrival is None:
            return None
        control = _control(arrival, rules)
        if isinstance(control, Outcome) or control is None:
            return control
        if archive.incoming.placed_elsewhere(uid, archive.home.path, archive.now()):
            return None
        place = functools.partial(_place, archive, rules, control)
        return archive.settle(arrival, control, past, KNOWN, place)


def _control(arrival: Arrival, rules: Rules) -> Control | Outcome | None:
    """Read a control file: what it says, or a report, or None for what xfer-sweep -A takes."""
    try:
        control = arrival.control()
    except UnknownFormat as error:
        return Outcome(None, unknown_format(arrival.uid, error), 1)
    except FormatError:
        return None
    return control if control.inst in rules.insts else None


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


def _place(archive: Archive, rules: Rules, control: Control, data: int) -> Record:
    """Copy an arrival's data to its final name; return the record of it.

    The name exists at the instant of the link, with whole and synced bytes.
    """
    home = archive.home
    verify(control, os.fstat(data).st_size)
    if begun := _begun(archive, control):
        return begun
    components, name = destination(control, rules)
    with home.directory(components) as where:
        archive.refuse_self(where)
        try:
            copied = home.copy(data, where, control.size, control.mtime_ns, rules.instrument.mode)
            verify(control, *copied)
            for kind, final in _candidates(control, name):
                placed, disk_name = "/".join((*components, final)), keyvalue.file_name(final)
                mark = os.path.join(home.path, *components, disk_name)
                archive.incoming.mark(control.uid, mark)
                if not home.publish(disk_name, where):
                    if not home.holds(disk_name, where, control.size, control.checksum):
                        continue
                    kind = _kind_of_found(archive, control, kind, placed)
                return _record(archive, control, kind, components, final)
        finally:
            home.discard(where)
    raise PermanentError(f'"{name}" and "{final}" are the names of other files already')


def _begun(archive: Archive, control: Control) -> Record | None:
    """Return the record of what a sweep that was killed has placed in this instrument directory.

    It may have had other rules; the file must not be placed a second time for that.
    """
    home, path = archive.home, archive.incoming.marked(control.uid) or ""
    below = path.removeprefix(home.path.rstrip("/") + "/")
    directory, _, last = below.rpartition("/")
    with contextlib.suppress(FormatError):  # of another directory, or a mark that lies
        components = names.check_dir(directory) if directory else ()
        for kind, final in _candidates(control, names.check_name(control.name)):
            placed = "/".join((*components, final))
            ours = below != path and last == keyvalue.file_name(final)
            if ours and home.keeps(placed, control.size, control.checksum):
                if home.log.owner(placed) in (None, control.uid):
                    return _record(archive, control, kind, components, final)
    return None


def _candidates(control: Control, name: str) -> Iterator[tuple[str, str]]:
    """Yield the names to try: the first placed keeps the plain one."""
    yield record.STORED, name
    yield record.RENAMED, names.renamed(name, control.uid)


def _kind_of_found(archive: Archive, control: Control, kind: str, placed: str) -> str:
    """Tell what it means that the bytes are there already under the final name.

    Another uid placed them, and the log says so: a duplicate. Else this arrival was placed
    by a sweep that was killed before it could write the record.
    """
    owner = archive.home.log.owner(placed)
    return kind if owner in (None, control.uid) else record.DUPLICATE


def _record(
    archive: Archive, control: Control, kind: str, components: Sequence[str], final: str
) -> Record:
    placed = "/".join((*components, final))
    more = {}
    if kind == record.RENAMED:
        more["instead_of"] = "/".join((*components, control.name))
    return record.of_arrival(archive.now(), kind, control, placed, **more)


def _foresee(archive: Archive, rules: Rules, uid: str, past: Sequence[Record]) -> Outcome | None:
    """Tell what would become of an arrival, as far as can be seen without a lock."""
    arrival = Arrival(uid, -1, archive.incoming.read(uid + names.CONTROL))
    control = _control(arrival, rules)
    if isinstance(control, Outcome) or control is None:
        return control
    place = functools.partial(_foresee_place, archive, rules, control)
    return archive.foresee(control, past, KNOWN, place)


def _foresee_place(archive: Archive, rules: Rules, control: Control, _: int) -> Record:
    home, kind = archive.home, record.STORED
    if begun := _begun(archive, control):
        return begun
    components, name = destination(control, rules)
    with contextlib.suppress(FileNotFoundError), home.directory(components, make=False) as where:
        disk_name = keyvalue.file_name(name)
        if not home.is_free(disk_name, where):
            if home.holds(disk_name, where, control.size, control.checksum):
                kind = _kind_of_found(archive, control, kind, "/".join((*components, name)))
            else:
                kind, name = record.RENAMED, names.renamed(name, control.uid)
    return _record(archive, control, kind, components, name)

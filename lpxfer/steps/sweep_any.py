"""Sweep ANY: take what no instrument's sweep takes, so that incoming stays free.

Strangers (whole arrivals of instruments that nobody sweeps) are verified and copied, both
files unchanged and under their wire names, to a dated directory, from which a later sweep
of an instrument can take them. Half arrivals and control files that cannot be read are set
aside in quarantine when they are old enough; nobody gets a receipt for those.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lpxfer import durable
from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats import dates, keyvalue, names, record
from lpxfer.formats.control import Control, UnknownFormat, load
from lpxfer.formats.record import Record
from lpxfer.stores.archive import HALF_AGE, Archive, Outcome, unknown_format, verify
from lpxfer.stores.incoming import Arrival
from lpxfer.stores.instrument_dir import InstrumentDir

#: The instruments that SAO's sweeper ignored, beside those of the configuration.
SAO = frozenset("minicam megacam hectospec hectochelle fast ircam afoe 4shooter".split())

MODE = 0o444  # of both files of a stranger, less the umask


@dataclass(frozen=True)
class AnyRules:
    """Which arrivals are no strangers, and where the others go."""

    ignore: frozenset[str]
    stale: float  # half arrivals older than this are set aside (seconds)
    dir: str | None = None
    dated: bool = True


@dataclass(frozen=True)
class _View:
    """What is in incoming, from one listing."""

    listing: set[str]
    strangers: list[str]  # uids, data there or not
    alone: list[str]  # uids of anybody's control files without data
    ill: dict[str, str]  # stem of a control file that cannot be read -> why
    reports: list[str]


def sweep_any(archive: Archive, rules: AnyRules, dry_run: bool = False) -> Iterator[Outcome]:
    """Take strangers out of incoming, then what is old and no arrival; yield what became of each.

    It may be left after any of them. With `dry_run` nothing is changed, and the outcomes are
    what would become of them. Raises BusyError when another sweep works in the directory,
    OSError when incoming or a log cannot be read.
    """
    act, put_aside = (_foresee, _foresee_aside) if dry_run else (_sweep_one, _set_aside)
    with contextlib.nullcontext() if dry_run else archive.home.locked():
        if not dry_run:
            archive.receipts.make()
        view = _look(archive, rules)
        halves = list(archive.incoming.halves(view.listing))
        stems = {*view.strangers, *view.alone, *view.ill, *(stem for stem, _ in halves)}
        uids = [stem for stem in stems if names.UID.fullmatch(stem)]
        history = archive.home.log.history(uids, archive.now())
        old = list(_old(archive, rules, view, halves, history))
        set_aside = {stem for stem, _, _ in old}
        calls = [
            (uid, functools.partial(act, archive, rules, uid, history.get(uid, ())))
            for uid in view.strangers
            if uid not in set_aside
        ]
        calls += [
            (one[0], functools.partial(put_aside, archive, *one, history.get(one[0], ())))
            for one in old
        ]
        for name, call in calls:
            if outcome := archive.guarded(keyvalue.printable(name), call):
                yield outcome
        for message in view.reports:
            yield Outcome(None, message, 1)
        yield from archive.odd_logs()


def _look(archive: Archive, rules: AnyRules) -> _View:
    """Read every control file in incoming once."""
    view = _View(archive.incoming.listing(), [], [], {}, [])
    for name in sorted(view.listing):
        stem = name.removesuffix(names.CONTROL)
        if stem == name or name.startswith("."):
            continue
        try:
            control = Arrival(stem, -1, archive.incoming.read(name)).control()
        except FileNotFoundError:
            continue
        except UnknownFormat as error:
            view.reports.append(unknown_format(stem, error))
        except FormatError as error:
            view.ill[stem] = str(error)
        except OSError as error:
            view.reports.append(f"{keyvalue.printable(name)}: {error.strerror}")
        else:
            if stem + names.DATA not in view.listing:
                view.alone.append(stem)
            if control.inst not in rules.ignore:
                view.strangers.append(stem)
    return view


def _old(
    archive: Archive,
    rules: AnyRules,
    view: _View,
    halves: Sequence[tuple[str, str]],
    history: Mapping[str, Sequence[Record]],
) -> Iterator[tuple[str, list[str], str]]:
    """Yield what is to be set aside: stem, names of its files in incoming, reason."""
    incoming = archive.incoming
    now = archive.now().timestamp()

    def is_old(name: str, age: float) -> bool:
        changed = incoming.changed(name)
        return changed is not None and now - changed > age

    for stem, why in view.ill.items():
        if is_old(stem + names.CONTROL, HALF_AGE):
            found = [stem + names.DATA] if stem + names.DATA in view.listing else []
            yield stem, [*found, stem + names.CONTROL], f"a control file that cannot be read: {why}"
    for uid in view.alone:
        known = any(entry.kind in record.SAFE for entry in history.get(uid, ()))
        if not known and is_old(uid + names.CONTROL, rules.stale):
            yield uid, [uid + names.CONTROL], "a control file whose data file never came"
    for stem, name in halves:
        if is_old(name, rules.stale):
            yield stem, [name], "it never became an arrival"


def _set_aside(
    archive: Archive, stem: str, found: list[str], reason: str, past: Sequence[Record]
) -> Outcome | None:
    return archive.set_aside(stem, found, reason, past)


def _foresee_aside(
    archive: Archive, stem: str, found: list[str], reason: str, _: Sequence[Record]
) -> Outcome | None:
    fields = {"name": found[0], "reason": keyvalue.printable(reason)}
    return Outcome(Record(archive.now(), record.QUARANTINED, fields))


def _sweep_one(
    archive: Archive, rules: AnyRules, uid: str, past: Sequence[Record]
) -> Outcome | None:
    """Take one stranger; None when it is gone, held, or an instrument's sweep is placing it."""
    with archive.incoming.hold_arrival(uid) as arrival:
        if arrival is None:
            return None
        control = arrival.control()
        if archive.incoming.placed_elsewhere(uid, archive.home.path, archive.now()):
            return None
        take = functools.partial(_take, archive, rules, arrival, control)
        return archive.settle(arrival, control, past, record.SAFE, take)


def _take(
    archive: Archive, rules: AnyRules, arrival: Arrival, control: Control, data: int
) -> Record:
    """Copy both files of a stranger, data first; return the record of it."""
    components = _components(control, rules)
    verify(control, os.fstat(data).st_size)
    with archive.home.directory(components) as where:
        archive.refuse_self(where)
        _keep(archive.home, data, control.uid + names.DATA, where, control)
        _keep(archive.home, arrival.fd, control.uid + names.CONTROL, where)
    return _record(archive, control, components)


def _keep(
    home: InstrumentDir, source: int, name: str, where: int, control: Control | None = None
) -> None:
    """Copy a file under its own name, with its time; a control file says what it must be."""
    before = os.fstat(source)
    try:
        size, digest = home.copy(source, where, before.st_size, before.st_mtime_ns, MODE)
        if control:
            verify(control, size, digest)
        there = home.publish(name, where) or home.holds(name, where, size, digest)
        if not there and not (control is None and _same_job(name, where, source)):
            raise PermanentError(f"{name} is there already, with other bytes")
    finally:
        home.discard(where)


def _same_job(name: str, where: int, source: int) -> bool:
    """Tell whether a control file is that of the same job, from another attempt."""
    try:
        ours, theirs = (
            replace(load(text), transfer=None)
            for text in (durable.read_small(name, where), os.pread(source, keyvalue.LIMIT, 0))
        )
    except (OSError, FormatError):
        return False
    return ours == theirs


def _components(control: Control, rules: AnyRules) -> tuple[str, ...]:
    """Return the directory of a stranger: the one that is given, or its queuing time's."""
    if rules.dir is not None:
        return names.check_dir(rules.dir)
    return (dates.dated_name(control.submitted),) if rules.dated else ()


def _record(archive: Archive, control: Control, components: Sequence[str]) -> Record:
    placed = "/".join((*components, control.uid + names.DATA))
    return record.of_arrival(archive.now(), record.STRANGER, control, placed)


def _foresee(archive: Archive, rules: AnyRules, uid: str, past: Sequence[Record]) -> Outcome | None:
    """Tell what would become of a stranger, as far as can be seen without a lock."""
    control = Arrival(uid, -1, archive.incoming.read(uid + names.CONTROL)).control()
    components = _components(control, rules)
    return archive.foresee(
        control, past, record.SAFE, lambda _: _record(archive, control, components)
    )

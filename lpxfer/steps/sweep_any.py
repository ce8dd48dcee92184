"""Sweep ANY: take what no instrument's sweep takes, so that incoming stays free.

Strangers (whole arrivals of instruments that nobody sweeps) are verified and copied, both
files unchanged and under their wire names, to a dated directory, from which a later sweep
of an instrument can take them. Half arrivals and control files that cannot be read are set
aside in quarantine when they are old enough; nobody gets a receipt for those.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lpxfer import durable
from lpxfer.checksum import Slice
from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats import dates, keyvalue, names, record
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.control import Control, UnknownFormat, load
from lpxfer.formats.record import Record
from lpxfer.stores.archive import HALF_AGE, Archive, Outcome, unknown_format
from lpxfer.stores.delivery import Delivery, verify
from lpxfer.stores.incoming import Arrival
from lpxfer.stores.placing import Batch, Copy
from lpxfer.stores.settling import foresee, settle

#: The instruments that SAO's sweeper ignored, beside those of the configuration.
SAO = frozenset("minicam megacam hectospec hectochelle fast ircam afoe 4shooter".split())

MODE = 0o444  # of both files of a stranger, less the umask

_DONE = record.SAFE | {record.UNPACKED}


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
        if view.strangers and not dry_run:
            archive.incoming.sync_names()
        halves = list(archive.incoming.halves(view.listing))
        stems = {*view.strangers, *view.alone, *view.ill, *(stem for stem, _ in halves)}
        archive.recall(stem for stem in stems if names.UID.fullmatch(stem))
        old = list(_old(archive, rules, view, halves))
        set_aside = {stem for stem, _, _ in old}
        calls = [
            (uid, functools.partial(act, archive, rules, uid))
            for uid in view.strangers
            if uid not in set_aside
        ]
        calls += [(one[0], functools.partial(put_aside, archive, *one)) for one in old]
        for name, call in calls:
            yield from archive.guarded(keyvalue.printable(name), call)
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
            known = Arrival(stem, -1, archive.incoming.read(name)).read()
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
            if known.inst not in rules.ignore:
                view.strangers.append(stem)
    return view


def _old(
    archive: Archive,
    rules: AnyRules,
    view: _View,
    halves: Sequence[tuple[str, str]],
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
        done = any(entry.kind in _DONE for entry in archive.home.log.past(uid))
        if not done and is_old(uid + names.CONTROL, rules.stale):
            yield uid, [uid + names.CONTROL], "a control file whose data file never came"
    for stem, name in halves:
        if is_old(name, rules.stale):
            yield stem, [name], "it never became an arrival"


def _set_aside(archive: Archive, stem: str, found: list[str], reason: str) -> list[Outcome]:
    return archive.set_aside(stem, found, reason)


def _foresee_aside(archive: Archive, stem: str, found: list[str], reason: str) -> list[Outcome]:
    fields = {"name": found[0], "reason": keyvalue.printable(reason)}
    return [Outcome(Record(archive.now(), record.QUARANTINED, fields))]


def _sweep_one(archive: Archive, rules: AnyRules, uid: str) -> list[Outcome]:
    """Take one stranger; none is gone, held, or one that an instrument's sweep is placing."""
    with archive.incoming.hold_arrival(uid) as arrival:
        if arrival is None:
            return []
        known, now = arrival.read(), archive.now()
        if archive.incoming.placed_elsewhere(
            uid, archive.home.path, now, isinstance(known, Bundle)
        ):
            return []
        return settle(archive, arrival, known, _Placing(archive, rules))


def _foresee(archive: Archive, rules: AnyRules, uid: str) -> list[Outcome]:
    """Tell what would become of a stranger, as far as can be seen without a lock."""
    known = Arrival(uid, -1, archive.incoming.read(uid + names.CONTROL)).read()
    return foresee(archive, known, _Placing(archive, rules))


class _Placing:
    """How strangers are kept: each with its control file, also those that came in a bundle.

    So what a record says is placed is always a file with the checksum of its job, and any
    sweep can take it from there.
    """

    known = record.SAFE

    def __init__(self, archive: Archive, rules: AnyRules) -> None:
        self._home, self._now, self._rules = archive.home, archive.now, rules

    def begun(self, _: Control) -> Record | None:
        """Return nothing: a stranger is where its name says, whatever was killed."""
        return None

    def components(self, control: Control) -> Sequence[str]:
        """Return the directory of a stranger: the one that is given, or its queuing time's."""
        if self._rules.dir is not None:
            return names.check_dir(self._rules.dir)
        return (dates.dated_name(control.submitted),) if self._rules.dated else ()

    def copy(self, batch: Batch, delivery: Delivery) -> Sequence[Copy]:
        """Copy both files of a stranger, with the times they have in incoming; data is verified."""
        control, text = delivery.control, delivery.text()
        verify(control, delivery.data.length())
        data = batch.copy(delivery.data, control.size, _mtime_ns(delivery.raw), MODE)
        verify(control, data.size, data.checksum)
        when = _mtime_ns(text if isinstance(text, Slice) else delivery.raw)
        return [data, batch.copy(text, keyvalue.LIMIT, when, MODE)]

    def publish(self, batch: Batch, delivery: Delivery, copies: Sequence[Copy]) -> Record:
        """Give both files their names, data first, or find them there; return the record."""
        control, [data, text] = delivery.control, copies
        last = control.uid + names.CONTROL
        if self._home.is_free(last, batch.where):
            batch.publish_last(text.temporary, last)
        elif not _same_job(last, batch.where, control):
            raise PermanentError(f"{last} is there already, with other bytes")
        name = control.uid + names.DATA
        if not batch.publish(data.temporary, name):
            if not self._home.holds(name, batch.where, data.size, data.checksum):
                raise PermanentError(f"{name} is there already, with other bytes")
        return self.foresee(delivery)

    def foresee(self, delivery: Delivery) -> Record:
        """Return the record of a stranger."""
        control = delivery.control
        placed = "/".join((*self.components(control), control.uid + names.DATA))
        return record.of_arrival(self._now(), record.STRANGER, control, placed)


def _mtime_ns(file: Slice) -> int:
    return os.fstat(file.fd).st_mtime_ns


def _same_job(name: str, where: int, ours: Control) -> bool:
    """Tell whether a control file is that of the same job, from another attempt."""
    try:
        theirs = load(durable.read_small(name, where))
    except (OSError, FormatError):
        return False
    return replace(ours, transfer=None) == replace(theirs, transfer=None)

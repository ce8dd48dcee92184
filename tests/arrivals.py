"""Arrivals made by hand, an archive site to sweep them in, and a way to be killed anywhere."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from death import Death, mortal

from lpxfer import checksum
from lpxfer.formats import bundle, control, names, record
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.control import Control, Transfer
from lpxfer.formats.record import Record
from lpxfer.steps.sweep import Rules, sweep
from lpxfer.steps.sweep_any import SAO, AnyRules, sweep_any
from lpxfer.stores.archive import Archive, Outcome
from lpxfer.stores.incoming import Incoming
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.receipts import Receipts

SUBMITTED = datetime(2003, 4, 2, 5, 12, 20, tzinfo=UTC)
NOW = datetime(2003, 4, 2, 5, 20, tzinfo=UTC)
MTIME = 1_049_260_340_123_456_789

#: What a sweep may be killed before, in or after.
CALLS = "link unlink rename symlink mkdir fsync ftruncate pwrite write utime fchmod".split()


def arrive(incoming: Path, data: bytes = b"SIMPLE  =", number: int = 1, **fields: Any) -> Control:
    """Put an arrival into incoming; `fields` replace those of its control file."""
    known = job(data, number, **fields)
    _deposit(incoming, known.uid, data, control.dump(known))
    return known


def _deposit(incoming: Path, uid: str, data: bytes, text: bytes) -> None:
    """Write both files; the control file gets its final name when it is whole, as a sender does."""
    (incoming / f"{uid}{names.DATA}").write_bytes(data)
    part = incoming / names.part(uid + names.CONTROL)
    part.write_bytes(text)
    part.rename(incoming / f"{uid}{names.CONTROL}")


def job(data: bytes = b"SIMPLE  =", number: int = 1, **fields: Any) -> Control:
    """Return what the control file of an arrival says; `fields` replace what it has."""
    transfer = Transfer(SUBMITTED, SUBMITTED + timedelta(seconds=13), 13.02, 1)
    known = Control(
        job=f"archive-{number}",
        uid=names.make_uid(SUBMITTED, "mmto", f"archive-{number}", number.to_bytes(4, "big")),
        host="mmto",
        user="observer",
        queue="archive",
        submitted=SUBMITTED,
        name="0123.fits",
        path="/h/ftphome/ARCHMINICAM/2003.0401/0123.fits",
        size=len(data),
        mtime_ns=MTIME,
        checksum=checksum.of_bytes(data),
        inst="minicam",
        transfer=transfer,
    )
    return replace(known, **fields)


def arrive_bundle(
    incoming: Path, *members: tuple[Control, bytes], number: int = 1, **fields: Any
) -> Bundle:
    """Put a bundle of such jobs and bytes into incoming; `fields` replace those it has."""
    entries = []
    for known, data in members:
        text = control.dump(replace(known, transfer=None))
        attempts = known.transfer.attempts if known.transfer else 1
        entries.append(bundle.entry(text, len(data), attempts))
    index, body = b"".join(entries), b"".join(data for _, data in members)
    known = Bundle(
        uid=names.make_uid(SUBMITTED, "mmto", "archive-1", bytes([255, 255, 0, number])),
        host="mmto",
        inst="minicam",
        members=len(members),
        index=len(index),
        size=len(index) + len(body),
        checksum=checksum.of_bytes(index),
        transfer=Transfer(SUBMITTED, SUBMITTED + timedelta(seconds=2), 2.0, 1),
    )
    known = replace(known, **fields)
    _deposit(incoming, known.uid, index + body, bundle.dump(known))
    return known


def records(directory: Path) -> list[Record]:
    """Read all logs in a directory; what a crash has cut, and somebody given a newline, is none.

    Arrivals that were not made by hand have `attempts` in a whole record.
    """
    found = []
    for path in sorted(directory.glob("*.log")):
        for line in path.read_bytes().splitlines(keepends=True):
            entry = record.load_unless_torn(line)
            if entry and not ("inst" in entry.fields and "attempts" not in entry.fields):
                found.append(entry)
    return found


class Site:
    """An archive site in one directory."""

    def __init__(self, root: Path) -> None:
        """Make its directories; `home` is the instrument directory."""
        self.root = root
        self.incoming, self.home, self.any = root / "incoming", root / "minicam", root / "any"
        for path in (self.incoming, self.home, self.any):
            path.mkdir(parents=True)

    @contextmanager
    def archive(self, home: Path | None = None, now: datetime = NOW) -> Iterator[Archive]:
        """Open the places of a sweep."""
        with ExitStack() as stack:
            yield Archive(
                stack.enter_context(Incoming(str(self.incoming))),
                stack.enter_context(InstrumentDir(str(home or self.home))),
                stack.enter_context(Receipts(str(self.root / "receipts"), "mcam")),
                lambda: now,
            )

    def sweep(self, home: Path | None = None, now: datetime = NOW, **rules: Any) -> list[Outcome]:
        """Sweep the instrument `minicam`."""
        with self.archive(home, now) as archive:
            return list(sweep(archive, Rules(InstrumentConfig("minicam"), **rules)))

    def sweep_any(self, now: datetime = NOW, **rules: Any) -> list[Outcome]:
        """Sweep strangers into `any`."""
        with self.archive(self.any, now) as archive:
            rules = {"ignore": SAO, "stale": 7 * 86400.0} | rules
            return list(sweep_any(archive, AnyRules(**rules)))

    def log(self, home: Path | None = None) -> list[Record]:
        """Return the transfer log's records."""
        return records((home or self.home) / "xferlogs")

    def receipts(self) -> list[Record]:
        """Return the receipts for the host of the arrivals."""
        return records(self.root / "receipts/mmto")

    def files(self, home: Path | None = None) -> list[str]:
        """Return the placed files, below the instrument directory; and what is left over."""
        top = home or self.home
        found = [p.relative_to(top) for p in top.rglob("*") if not p.is_dir() or p.is_symlink()]
        return sorted(str(p) for p in found if p.parts[0] not in (".lock", "xferlogs"))


def kinds(found: list[Record]) -> list[str]:
    """Return the kinds of records, in order."""
    return [entry.kind for entry in found]


def killed(act: Callable[[], object], number: int, when: str) -> bool:
    """Do something that dies at its `number`th call that changes a disk.

    `when` is `before` that call, `after` it, or in the middle of it (`half`: of a write). What
    has died changes nothing any more, and its descriptors are closed, and so its locks.
    Returns False when it came to its end before that. `make torture` kills real processes.
    """
    count = 0

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            mine = count
            if mine > number or (mine == number and when == "before"):
                raise Death
            if mine == number and when == "half" and call.__name__ == "write":
                call(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise Death
            try:
                return call(*args, **kwargs)
            finally:  # it may have been refused
                if mine == number:
                    raise Death

        return counted

    with mortal(), pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(getattr(os, name)))
        act()
    return count >= number


def apart(*acts: Callable[[], object]) -> None:
    """Do things at once, each in a process of its own: what it changes of that is nobody else's."""
    children = []
    for act in acts:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                act()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * len(acts)


def each_death(act: Callable[[], object], prepare: Callable[[], object]) -> Iterator[str]:
    """Prepare and kill, at every call in turn; yield where, after each death.

    After a call is before the next.
    """
    for when in ("before", "half"):
        number = 1
        while True:
            prepare()
            if not killed(act, number, when):
                break
            yield f"{when} call {number}"
            number += 1
        assert number > 10  # a sweep makes more calls than that


def refuse(code: int) -> Callable[..., Any]:
    """Return a stand-in for a call that the system refuses."""

    def call(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return call

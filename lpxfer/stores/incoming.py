"""Incoming: the directory where arrivals come in. Everything in it is untrusted.

    <uid>.data, <uid>.control     an arrival, from the instant the control file has this name
    .<uid>.data.part, ...         not here yet: the sender is writing it
    .<uid>.placing                made by a sweep: a link, never followed, that says where it
                                  is placing this arrival

Guarantees: nothing is opened that is a link or would make the opener wait; an arrival is
held by one process at a time; data goes before its control file, with a sync between, so
that after any crash the control file says what is still to be removed.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from lpxfer import durable
from lpxfer.checksum import Slice
from lpxfer.errors import BusyError, FormatError, PermanentError
from lpxfer.formats import bundle, control, keyvalue, names
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.control import Control

#: A mark by a sweep that has not come back for so long (seconds) keeps nobody off.
MARK_AGE = 86400.0

_BUNDLE = re.compile(rb"^kind=", re.MULTILINE)
_INST = re.compile(rb"^inst=(.*)$", re.MULTILINE)
_HALF = re.compile(r"\.(.+)\.(?:data|control)\.part|([^.].*)\.data", re.DOTALL)


@dataclass(frozen=True)
class Arrival:
    """An arrival that this process holds."""

    uid: str
    fd: int  # its control file, open and locked
    text: bytes  # what is in it, up to one byte more than a control file may have

    def arrived(self) -> float:
        """Return when its control file got its name (seconds since 1970): its ctime."""
        return os.fstat(self.fd).st_ctime

    def read(self) -> Control | Bundle:
        """Read the control file. Raises FormatError, UnknownFormat, a kind of it, included."""
        pairs = keyvalue.load(self.text)
        known = bundle.parse(pairs) if bundle.is_bundle(pairs) else control.parse(pairs)
        if known.uid != self.uid:
            raise FormatError(f"it is the control file of {known.uid}, under another name")
        return known


class Incoming:
    """A directory of arrivals."""

    def __init__(self, path: str, writable: bool = True) -> None:
        """Open it; links in the path are followed, as an administrator may want them.

        Raises OSError, also when this account could not remove what it has swept.
        """
        self.path = os.path.realpath(path)
        need = os.R_OK | os.X_OK | (os.W_OK if writable else 0)
        if not os.access(path, need, effective_ids=True):
            with durable.opened_dir(self.path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        self.fd = durable.open_dir(self.path)

    def __enter__(self) -> Self:
        """Close it with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self.fd)

    def listing(self) -> set[str]:
        """Return the names of everything in it."""
        return set(os.listdir(self.fd))

    def sync_names(self) -> None:
        """Make the names that have been seen in it durable, before anybody relies on them.

        A sender that was killed may not have: then a power cut could bring the data of a
        removed arrival back without its control file. Raises OSError.
        """
        durable.sync(self.fd)

    def addressed_to(self, insts: Collection[str], report: Callable[[str], None]) -> list[str]:
        """Return the uids of arrivals whose control file has the line `inst=` for one of these.

        Nothing else is checked, and nothing is held, so it is cheap. In the order of the
        uids, which is that of their submit times. `report` is told what cannot be read.
        """
        uids = []
        for name in self.listing():
            uid = name.removesuffix(names.CONTROL)
            if uid == name or not names.UID.fullmatch(uid):
                continue
            try:
                text = self.read(name)
            except (FileNotFoundError, FormatError):
                continue
            except OSError as error:  # it must not keep the others here
                report(f"{name}: {error.strerror}")
                continue
            if any(_value(found) in insts for found in _INST.findall(text)):
                uids.append(uid)
        return sorted(uids)

    def members(self, uid: str) -> Iterable[str]:
        """Return the uids that seem to be in an arrival, if it is a bundle; nothing is held.

        What cannot be read is left to whoever holds it.
        """
        try:
            text = self.read(uid + names.CONTROL)
            if not _BUNDLE.search(text) or not bundle.is_bundle(pairs := keyvalue.load(text)):
                return ()
            size = bundle.parse(pairs).index
            fd = self.open_data(uid)
        except (OSError, PermanentError):
            return ()
        try:
            return bundle.uids(b"".join(Slice(fd, size=size).chunks()))
        except OSError:
            return ()
        finally:
            os.close(fd)

    def read(self, name: str) -> bytes:
        """Read a control file. Raises OSError, and FormatError for what is no regular file."""
        try:
            return durable.read_small(name, self.fd, keyvalue.LIMIT)
        except OSError as error:
            if error.errno in durable.NOT_REGULAR:
                raise FormatError(self.describe(name)) from error
            raise

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[int | None]:
        """Hold a file for a block: open and locked, or None when it is gone or held by another.

        Raises OSError for one that cannot be opened.
        """
        try:
            fd = durable.open_regular(name, self.fd)
        except FileNotFoundError:
            yield None
            return
        try:
            yield fd if self._lock(name, fd) else None
        finally:
            os.close(fd)

    def _lock(self, name: str, fd: int) -> bool:
        """Lock an open file, if its name is still its own: another may have removed it."""
        try:
            durable.lock_fd(fd)
            here = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except (BusyError, FileNotFoundError):
            return False
        return os.path.samestat(os.fstat(fd), here)

    @contextlib.contextmanager
    def hold_arrival(self, uid: str) -> Iterator[Arrival | None]:
        """Hold an arrival by its control file, for a block; None when there is nothing to hold."""
        with self.hold(uid + names.CONTROL) as fd:
            if fd is None:
                yield None
            else:
                with open(fd, "rb", closefd=False) as stream:
                    text = stream.read(keyvalue.LIMIT + 1)
                yield Arrival(uid, fd, text)

    def open_data(self, uid: str) -> int:
        """Open an arrival's data file.

        Raises FileNotFoundError, other OSErrors, and PermanentError for anything that is not
        a regular file.
        """
        name = uid + names.DATA
        try:
            return durable.open_regular(name, self.fd)
        except OSError as error:
            if error.errno in durable.NOT_REGULAR:
                raise PermanentError(f"the data file is {self.describe(name)}") from error
            raise

    def describe(self, name: str) -> str:
        """Say in words what an entry is; of a link also where it points."""
        try:
            mode = os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                target = os.readlink(name, dir_fd=self.fd)
                return f"a symbolic link to {keyvalue.printable(target)}"
        except FileNotFoundError:
            return "gone"
        if stat.S_ISDIR(mode):
            return "a directory"
        return "a regular file" if stat.S_ISREG(mode) else "a FIFO, socket or device"

    def changed(self, name: str) -> float | None:
        """Return when an entry was last changed (seconds since 1970); None when it is gone.

        That is its ctime, which those who deposit cannot set.
        """
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_ctime
        except FileNotFoundError:
            return None

    def halves(self, listing: Collection[str]) -> Iterator[tuple[str, str]]:
        """Find what is no arrival yet: parts, and data files alone; yield stem and name.

        Files that have no wire name are not ours to touch.
        """
        for name in sorted(listing):
            if match := _HALF.fullmatch(name):
                stem = match[1] or match[2]
                if match[1] or stem + names.CONTROL not in listing:
                    yield stem, name

    def mark(self, uid: str, path: str) -> None:
        """Say where a held arrival is being placed, for sweeps that would place it elsewhere.

        Not synced, and left out where incoming is full: it helps only when a sweep is killed
        and the next one has another instrument directory, or other rules.
        """
        with contextlib.suppress(OSError):
            before, mark = self.marked(uid), _mark(uid)
            if before is None:
                os.symlink(path, mark, dir_fd=self.fd)
            elif before != path:  # every change of incoming wakes those who follow it
                with contextlib.suppress(FileNotFoundError):  # of a sweep that died
                    os.unlink(f"{mark}.new", dir_fd=self.fd)
                os.symlink(path, f"{mark}.new", dir_fd=self.fd)
                durable.rename_unsynced(f"{mark}.new", self.fd, self.fd, mark)

    def placed_elsewhere(self, uid: str, home: str, now: datetime, several: bool = False) -> bool:
        """Tell whether a sweep of another directory than `home` has placed this arrival.

        It was killed before it could say so; for a day the arrival is left to it. Of
        `several` files it may have placed others than the one that the mark is about.
        """
        path, since = self.marked(uid), self.changed(_mark(uid))
        if path is None or since is None or path.startswith(home.rstrip("/") + "/"):
            return False
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            if not several:
                return False  # it was killed earlier than that
        except OSError:
            pass  # this account may not look there
        return abs(now.timestamp() - since) < MARK_AGE  # from the future: a clock is wrong

    def marked(self, uid: str) -> str | None:
        """Return where a sweep was placing this arrival; None when there is no mark."""
        return self._link(_mark(uid))

    def _link(self, name: str) -> str | None:
        try:
            return os.readlink(name, dir_fd=self.fd)
        except OSError:
            return None

    def _unmark(self, uid: str) -> None:
        """Remove a mark, if it is one; anything else under its name is left alone."""
        for name in (f"{_mark(uid)}.new", _mark(uid)):
            if self._link(name) is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self.fd)

    def remove(self, uid: str) -> None:
        """Remove a held arrival, durably: its data, then its control file.

        A crash leaves the control file to say that the data is provably redundant. A
        directory in the place of the data file stays. Parts go too: a sender that died, or
        a server, between giving a file its final name and taking the other one away.
        """
        for name in (uid + names.DATA, uid + names.CONTROL):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(names.part(name), dir_fd=self.fd)
        with contextlib.suppress(IsADirectoryError):
            durable.remove(uid + names.DATA, self.fd)
        self._unmark(uid)
        durable.remove(uid + names.CONTROL, self.fd)


def _value(raw: bytes) -> str | None:
    """Return the value of a line, None when it is none."""
    try:
        return keyvalue.unquote(keyvalue.from_bytes(raw))
    except FormatError:
        return None


def _mark(uid: str) -> str:
    return f".{uid}.placing"

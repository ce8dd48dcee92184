"""An instrument directory: how files are placed in it, and what else stands there.

    2002.0523/0123.fits             placed: final names, never overwritten, never changed
    2002.0523/.sweep.tmp, ...       copies under way, see placing.py; what is left over is removed
    quarantine/<uid>.data,          what could not be placed, under its wire names, so that
        <uid>.control, <uid>.reason     a later sweep can be told to take it (-f)
    xferlogs/                       transfer logs, see instrument_log.py
    .lock                           held by the one sweep; holds the name of the directory
                                    that its holder works in

Guarantees: beneath the directory no link is followed; and those of placing.py.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from lpxfer import checksum, durable
from lpxfer.checksum import Slice, Text
from lpxfer.errors import PermanentError
from lpxfer.formats import keyvalue, names
from lpxfer.stores.instrument_log import InstrumentLog
from lpxfer.stores.placing import TEMPORARY, Batch

LOCK = ".lock"
QUARANTINE = "quarantine"

#: A name in quarantine takes what is added to it: a number, a suffix, `.reason`.
_STEM_LIMIT = names.NAME_LIMIT - 40  # bytes


class InstrumentDir:
    """One instrument directory, opened."""

    def __init__(
        self, path: str, log_directory: str | None = None, log_name: str | None = None
    ) -> None:
        """Open it; links in `path` are followed once, as an administrator may want them.

        The log's place is as in InstrumentLog. Raises OSError.
        """
        self.path = os.path.realpath(path)
        self.fd = durable.open_dir(self.path)
        self.log = InstrumentLog(self.fd, log_directory, log_name, self.path)
        self._lock = -1
        self._entered: set[tuple[str, ...]] = set()  # directories with a durable name
        self._noted: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        """Close it with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self.fd)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only sweep of this directory for a block, and clean up after a dead one.

        Raises BusyError when there is another, OSError where this account may not write.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._lock = stack.enter_context(durable.locked(LOCK, self.fd))
            except OSError as error:
                error.filename = os.path.join(self.path, LOCK)
                raise
            self._remove_leftover()
            self._noted = None
            yield
            os.ftruncate(self._lock, 0)

    def wait(self, patience: float) -> None:
        """Wait until no sweep works here: the next one sees whatever had arrived by now.

        Raises BusyError when one still does after so many seconds.
        """
        with durable.locked(LOCK, self.fd, shared=True, patience=patience):
            pass

    def _remove_leftover(self) -> None:
        """Remove the copies that a dead sweep was making."""
        text = os.pread(self._lock, 2048, 0).decode("ascii", "replace").removesuffix("\n")
        components = [] if text == "." else text.split("/")
        if all(names.COMPONENT.fullmatch(component) for component in components):
            with contextlib.suppress(FileNotFoundError, PermanentError):
                with self.directory(components, make=False) as where:
                    for name in filter(TEMPORARY.fullmatch, _listing(where)):
                        with contextlib.suppress(IsADirectoryError):  # not ours
                            os.unlink(name, dir_fd=where)
                    durable.sync(where)

    def _note(self, components: tuple[str, ...]) -> None:
        """Say in the lock file where this sweep works, before it leaves anything there."""
        if self._noted != components:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{'/'.join(components) or '.'}\n".encode(), 0)
            durable.sync(self._lock)
            self._noted = components

    @contextlib.contextmanager
    def directory(self, components: Sequence[str], make: bool = True) -> Iterator[int]:
        """Open a directory beneath this one for a block, component by component.

        With `make`, those that are missing are made, durably, and the lock is held. The
        caller has checked the components. Raises PermanentError where one is a link or no
        directory, FileNotFoundError, and other OSErrors.
        """
        way = tuple(components)
        if make:
            self._note(way)
        fd = os.dup(self.fd)
        try:
            for depth, component in enumerate(way, 1):
                if make and way[:depth] not in self._entered:
                    durable.make_dir(component, fd)
                    self._entered.add(way[:depth])
                above, fd = fd, _enter(component, fd)
                os.close(above)
            yield fd
        except OSError as error:
            if TEMPORARY.fullmatch(str(error.filename)):
                error.filename = os.path.join(self.path, *way, str(error.filename))
            raise
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def batch(self, components: Sequence[str], count: int = 1) -> Iterator[Batch]:
        """Place about `count` files in a directory beneath this one, in a block.

        Their names are durable when it ends, and taken back when it fails. The directory is
        made, and what is raised is as in `directory`.
        """
        with self.directory(components) as where:
            batch = Batch(components, where, count)
            try:
                yield batch
                batch.end()
            except Exception:
                batch.undo()
                raise

    def holds(self, name: str, where: int, size: int, digest: str) -> bool:
        """Tell whether a name in a directory is a regular file with these bytes, and sync it."""
        try:
            fd = durable.open_regular(name, where)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in durable.NOT_REGULAR:
                return False
            raise
        try:
            if os.fstat(fd).st_size != size or checksum.of_file(fd, size) != digest:
                return False
            durable.sync(fd)
            durable.sync(where)
            return True
        finally:
            os.close(fd)

    def keeps(self, placed: str, size: int, digest: str) -> bool:
        """Tell whether what a record says was placed is still there, with these bytes."""
        *components, name = placed.split("/")
        if not all(names.COMPONENT.fullmatch(component) for component in components):
            return False
        try:
            with self.directory(components, make=False) as where:
                disk_name = keyvalue.file_name(names.check_name(name))
                return self.holds(disk_name, where, size, digest)
        except (FileNotFoundError, PermanentError):
            return False

    def is_quarantine(self, fd: int) -> bool:
        """Tell whether an open directory is this one's quarantine."""
        try:
            there = os.stat(QUARANTINE, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def quarantine(self, stem: str, pieces: Mapping[str, Slice | Text], reason: str) -> str:
        """Copy pieces into quarantine as `stem` + suffix, with the reason; return their stem.

        All is durable on return. Where other bytes have a name already, a number is added;
        the same ones are not copied twice, so that a sweep that died here can be repeated.
        Holes stay holes: nobody fills this disk, or an hour, with a file of nothing.
        """
        short = os.fsdecode(os.fsencode(stem)[:_STEM_LIMIT])
        size = functools.cache(lambda suffix: pieces[suffix].length())
        digest = functools.cache(lambda suffix: checksum.of(pieces[suffix], size(suffix))[1])

        def fits(name: str, suffix: str) -> bool:
            try:
                there = os.stat(name, dir_fd=batch.where, follow_symlinks=False)
            except FileNotFoundError:
                return True
            same = there.st_size == size(suffix)
            return same and self.holds(name, batch.where, there.st_size, digest(suffix))

        with self.batch((QUARANTINE,)) as batch:
            for number in itertools.count(1):
                name = short if number == 1 else f"{short}.{number}"
                if all(fits(name + suffix, suffix) for suffix in pieces):
                    break
            for suffix, piece in pieces.items():
                if self.is_free(name + suffix, batch.where):
                    last = suffix == names.CONTROL  # as in incoming
                    give = batch.publish_last if last else batch.publish
                    give(_copy(piece, batch), name + suffix)
            self.explain(f"{name}.reason", reason, batch)
        return f"{QUARANTINE}/{name}"

    def explain(self, name: str, reason: str, batch: Batch) -> None:
        """Write a reason; one that is there stays.

        It is there whole or not at all, like everything else that has a final name.
        """
        if self.is_free(name, batch.where):
            batch.publish(batch.write(f"{reason}\n".encode(), 0o660), name)

    def take(self, name: str, src_fd: int, new_name: str) -> None:
        """Move a directory that stands in the place of a file to a free name in quarantine.

        Raises OSError, as from another file system.
        """
        with self.directory((QUARANTINE,)) as where:
            if self.is_free(new_name, where):
                durable.move(name, src_fd, where, new_name)

    def is_free(self, name: str, where: int) -> bool:
        """Tell whether nothing has this name in an open directory."""
        try:
            os.stat(name, dir_fd=where, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False


def _enter(component: str, fd: int) -> int:
    try:
        return durable.open_dir(component, fd)
    except NotADirectoryError:
        raise PermanentError(
            f'"{component}" in the instrument directory is a link, or not a directory'
        ) from None


def _listing(where: int) -> list[str]:
    """List an open directory; copies of a descriptor share a position, so it gets its own."""
    with durable.opened_dir(".", where) as fd:
        return os.listdir(fd)


def _copy(piece: Slice | Text, batch: Batch) -> str:
    """Copy a piece of an arrival into a batch; return its temporary name."""
    if isinstance(piece, Text):
        return batch.write(piece.data, 0o440)
    before = os.fstat(piece.fd).st_mtime_ns
    return batch.make(lambda fd: checksum.copy_holes(piece, fd), 0o440, before)[0]

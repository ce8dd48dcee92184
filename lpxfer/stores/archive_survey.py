"""An instrument directory as it is found: for whoever inspects or mends it.

Guarantees: looking changes nothing and follows no link beneath the directory. What is set
aside goes to quarantine/ by one rename, under a name that is free, with its reason.
"""

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator

from lpxfer import checksum, durable
from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats import keyvalue, names
from lpxfer.stores.instrument_dir import QUARANTINE, InstrumentDir

#: What the pieces of an arrival in quarantine add to the name before `.reason`.
_SUFFIXES = ("", names.DATA, names.CONTROL, names.DATA + names.PART, names.CONTROL + names.PART)

_REASON = ".reason"


class ArchiveSurvey(InstrumentDir):
    """An instrument directory, and what stands in it."""

    def walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield everything but directories, hidden or not, except in those that are reserved.

        What disappears meanwhile, or may not be listed, is passed over.
        """
        ways: list[tuple[str, ...]] = [()]
        while ways:
            way = ways.pop()
            with contextlib.suppress(OSError, PermanentError):
                for name, status in self._scan(way):
                    if not stat.S_ISDIR(status.st_mode):
                        path = "/".join((*way, name))
                        yield keyvalue.from_bytes(os.fsencode(path)), status
                    elif way or name not in names.RESERVED:
                        ways.append((*way, name))

    def read(self, placed: str, size: int) -> str:
        """Return the checksum of a placed file that should have so many bytes.

        Raises FormatError for a file of another size, for a link or a device, and for a path
        at which no sweep would place anything; PermanentError for a directory, and for a
        link on the way; OSError.
        """
        way, name = _split(placed)
        with self.directory(way, make=False) as where:
            try:
                fd = durable.open_regular(name, where)
            except OSError as error:
                if error.errno not in durable.NOT_REGULAR:
                    raise
                kind = os.stat(name, dir_fd=where, follow_symlinks=False).st_mode
                if stat.S_ISDIR(kind):
                    raise PermanentError("is a directory") from error
                raise FormatError("is not a regular file") from error
            try:
                found = os.fstat(fd).st_size
                if found != size:
                    raise FormatError(f"has {found} bytes but the record says {size}")
                return checksum.of_file(fd)
            finally:
                os.close(fd)

    def stands(self, placed: str) -> bool:
        """Tell whether there is anything at a path."""
        with contextlib.suppress(OSError, PermanentError):
            way, name = _split(placed)
            with self.directory(way, make=False) as where:
                return not self.is_free(name, where)
        return False

    def without_reason(self) -> list[tuple[str, os.stat_result]]:
        """Return what is in quarantine and has no reason beside it.

        Raises PermanentError when quarantine is no directory.
        """
        try:
            found = dict(self._scan((QUARANTINE,)))
        except FileNotFoundError:
            return []
        reasons = {name for name in found if name.endswith(_REASON)}
        return [(name, status) for name, status in sorted(found.items())
                if name not in reasons and not name.startswith(".")
                and not reasons & {name.removesuffix(s) + _REASON for s in _SUFFIXES}]  # fmt: skip

    # --- mending; the caller holds the lock -----------------------------------------------

    def set_aside(self, placed: str, stem: str, reason: str) -> str:
        """Move what stands at a path to quarantine, with the reason; return where it is now.

        Raises OSError, and PermanentError for a link on the way.
        """
        *way, name = keyvalue.file_name(placed).split("/")
        with (
            self.directory(way, make=False) as where,
            self.directory((QUARANTINE,)) as quarantine,
        ):
            for number in itertools.count(1):
                free = stem if number == 1 else f"{stem}.{number}"
                if self.is_free(free, quarantine) and self.is_free(free + _REASON, quarantine):
                    break
            durable.move(name, where, quarantine, free)
        self.give_reason(free, reason)
        return f"{QUARANTINE}/{free}"

    def give_reason(self, name: str, reason: str) -> None:
        """Write a reason for what is in quarantine, durably."""
        with self.batch((QUARANTINE,)) as quarantine:
            self.explain(name + _REASON, reason, quarantine)

    def _scan(self, way: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
        """List a directory; copies of a descriptor share a position, so it gets its own."""
        with self.directory(way, make=False) as where, durable.opened_dir(".", where) as fd:
            with os.scandir(fd) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.name, entry.stat(follow_symlinks=False)


def _split(placed: str) -> tuple[tuple[str, ...], str]:
    """Split the path of a placed file. Raises FormatError for one that leads elsewhere."""
    directory, _, name = placed.rpartition("/")
    way = names.check_dir(directory) if "/" in placed else ()
    return way, keyvalue.file_name(names.check_name(name))

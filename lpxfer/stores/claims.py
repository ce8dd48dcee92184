"""Who is submitting a file now, so that the watch of an instrument and others never both do.

Who submits a file has claimed it meanwhile: a lock of the kernel's, which goes with its holder.
Others than the watch note the job in `watched/.NAME.others` before they make it; the watch takes
those lines into its record.

Guarantees: what a call has returned for is synced.
"""

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lpxfer import durable
from lpxfer.errors import PermanentError
from lpxfer.formats import watch_record
from lpxfer.formats.watch_record import Note, Version

_ALL = 1 << 32  # claims; the one after them is that of a watch that stays


class Claims:
    """Claims on files of one instrument, and what is noted of them. Use it in a `with`."""

    def __init__(self, root: Path, name: str) -> None:
        """Open them; `root` is where the records are. Raises PermanentError."""
        self._name, self._others = name, f".{name}.others"
        try:
            with contextlib.ExitStack() as opened:
                durable.make_dirs(root)
                self._dir = opened.enter_context(durable.opened_dir(root))
                self._fd = opened.enter_context(durable.opened(f".{name}.claims", self._dir, 0o600))
                self._close = opened.pop_all().close
        except OSError as error:
            raise PermanentError(f'"{root}" cannot be used: {error.strerror}') from error

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def take(self, path: str) -> bool:
        """Claim a file; tell whether nobody else has."""
        try:
            _lock(self._fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, zlib.crc32(os.fsencode(path)))
        except BlockingIOError:
            return False
        return True

    def stay(self) -> None:
        """Let others see that the watch runs."""
        _lock(self._fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, _ALL)

    def release(self) -> None:
        """Give all claims on files back."""
        _lock(self._fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0, _ALL)

    def note(self, time: int, files: Iterable[tuple[str, Version, str]]) -> None:
        """Note which files others than the watch will submit, as which jobs, as of `time`."""
        notes = (Note("other", time, version, job, path) for path, version, job in files)
        lines = b"".join(note.dump() for note in notes)
        durable.append(self._others, lines, self._dir, 0o600)

    @contextlib.contextmanager
    def taken_over(self) -> Iterator[list[Note]]:
        """Give what others have noted to a block; it is removed after that."""
        with durable.locked(self._others, self._dir, 0o600, wait=True) as fd:
            lines = os.pread(fd, os.fstat(fd).st_size, 0).splitlines(keepends=True)
            yield [note for note in map(watch_record.load, lines) if note]
            os.ftruncate(fd, 0)

    def last(self, paths: Iterable[str]) -> dict[str, Note]:
        """Return what was noted last of submitting files that are claimed, by whomever."""
        ends = {watch_record.ending(path) for path in paths}
        others = self._last(self._others, ends)  # first, for they may be taken over meanwhile
        return self._last(self._name, ends) | others

    def _last(self, name: str, ends: set[bytes]) -> dict[str, Note]:
        found = dict[str, Note]()
        with contextlib.suppress(FileNotFoundError):
            with open(durable.open_regular(name, self._dir), "rb") as lines:
                for line in lines:
                    if line[line.rfind(b" ") :] in ends:
                        note = watch_record.load(line)
                        if note and note.word != "gone":
                            found[note.path] = note
        return found


def stays(root: Path, name: str) -> bool:
    """Tell whether a watch of an instrument runs; looking takes no lock. Raises OSError."""
    with durable.opened_dir(root) as directory:
        fd = durable.open_regular(f".{name}.claims", directory)
    try:
        return _lock(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, _ALL) != fcntl.F_UNLCK
    finally:
        os.close(fd)


def _lock(fd: int, command: int, kind: int, start: int, length: int = 1) -> int:
    """Lock, unlock or ask for a range; return the kind of lock that the kernel tells."""
    # struct flock of fcntl(2); of the open file, so that threads exclude each other, too
    flock = struct.pack("hhqqi", kind, os.SEEK_SET, start, length, 0)
    return int(struct.unpack_from("h", fcntl.fcntl(fd, command, flock))[0])

"""Lines of a log that somebody else wrote, plain or gzip, whatever is in it.

One pass with the memory of one line. A damaged line or archive, an endless line and an
archive that unpacks to terabytes of nothing are reported and stop nobody; a link, or
anything else that is not a regular file, is refused.
"""

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO, TypeVar

from lpxfer import durable
from lpxfer.errors import FormatError
from lpxfer.formats.record import At

GIVE_UP = 64 << 20  # bytes that are no lines of the format: the file is something else

_GZIP_MAGIC = b"\x1f\x8b"

T = TypeVar("T")


def read(
    path: str,
    dir_fd: int,
    limit: int,
    load: Callable[[bytes], T],
    report: Callable[[str], None],
) -> Iterator[T]:
    """Yield what `load` makes of each line of a file in an open directory.

    The file is the last component of `path`; the rest is for messages. `load` raises
    FormatError for what it cannot use, and for more than `limit` bytes; such lines are
    counted and reported once, after the last line. Raises OSError for a file that cannot be
    opened or read.
    """
    number = damaged = first = junk = 0
    in_line = False  # what follows is the rest of a line that is too long
    with _opened(path, dir_fd) as log:
        try:
            for line in iter(partial(log.readline, limit + 1), b""):
                if not in_line:
                    number += 1
                    try:
                        value = load(line)
                    except FormatError:
                        damaged += 1
                        first = first or number
                    else:
                        yield value
                        continue
                junk += len(line) + 64  # an empty line costs time too
                in_line = not line.endswith(b"\n")
                if junk > GIVE_UP:
                    report(f"{path}: not a log of this kind; given up at line {number}")
                    break
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            report(f"{path}: damaged after line {number}, the rest is not read: {error}")
    if damaged:
        report(f"{path}: {damaged} damaged line(s) passed over, the first is line {first}")


def follow(name: str, dir_fd: int, offset: int, limit: int = 1 << 18) -> Iterator[tuple[At, bytes]]:
    """Yield the whole lines of a plain file from a byte on, each with the place behind it.

    Of a line of more than `limit` bytes the pieces are yielded. What is no regular file is passed
    over. Raises OSError.
    """
    try:
        fd = durable.open_regular(name, dir_fd)
    except OSError as error:
        if error.errno in durable.NOT_REGULAR:
            return
        raise
    with open(fd, "rb") as log:
        inode = os.fstat(fd).st_ino
        log.seek(offset)
        for line in iter(partial(log.readline, limit), b""):
            if not line.endswith(b"\n") and len(line) < limit:
                return  # its writer is at it, or a crash has cut it
            offset += len(line)
            yield At(name, inode, offset), line


def read_path(
    path: str, limit: int, load: Callable[[bytes], T], report: Callable[[str], None]
) -> Iterator[T]:
    """Yield from a file as `read` does; the user who names it may name a link to it."""
    os.stat(path)  # if it is not there, this error names it and not its parent
    real = os.path.realpath(path)
    with durable.opened_dir(os.path.dirname(real)) as fd:
        yield from read(real, fd, limit, load, report)


def read_days(
    path: str,
    names: Iterable[str],
    dir_fd: int,
    limit: int,
    load: Callable[[bytes], T],
    report: Callable[[str], None],
) -> Iterator[T]:
    """Yield from several logs in the open directory `path` as `read` does.

    What is named like a log and is no regular file is reported and passed over.
    """
    for name in names:
        log = os.path.join(path, name)
        try:
            yield from read(log, dir_fd, limit, load, report)
        except OSError as error:
            if error.errno not in durable.NOT_REGULAR:
                raise
            report(f'passed over "{log}" - a link, or not a regular file; move it away')


@contextlib.contextmanager
def _opened(path: str, dir_fd: int) -> Iterator[BinaryIO]:
    try:
        fd = durable.open_regular(os.path.basename(path), dir_fd)
    except OSError as error:
        error.filename = path
        raise
    with open(fd, "rb") as raw:
        if os.pread(fd, 2, 0) != _GZIP_MAGIC:
            yield raw
        else:
            with io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 16) as unpacked:
                yield unpacked

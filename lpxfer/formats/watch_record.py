"""A line of what xfer-watch has submitted: what became of one version of a file. Pure.

    WORD TIME SIZE MTIME INODE JOB PATH

`about` before a submit, `job` or `not` after it; `other` before somebody else than the watch
submits it: that is a job if there is one; `mark` for what is taken as submitted, `gone` for what
is there no more. TIME and MTIME are nanoseconds since 1970.
"""

import re
from typing import NamedTuple

from lpxfer.formats import keyvalue

MARKED = "-"  # in the place of a request id: taken as submitted, by nobody

_LINE = re.compile(
    rb"(about|job|other|not|mark|gone) (\d{1,20}) (\d{1,20}) (-?\d{1,20}) (\d{1,20}) (\S+) (\S+)\n"
)


class Version(NamedTuple):
    """One state of a file: a file that has another is another version."""

    size: int
    mtime: int  # ns since 1970
    inode: int

    def same(self, other: "Version | None") -> bool:
        """Tell whether this is the other one, whatever the inode, which some systems invent."""
        return other is not None and self[:2] == other[:2]


class Note(NamedTuple):
    """What a line says."""

    word: str
    time: int  # ns since 1970
    version: Version
    job: str
    path: str

    def dump(self) -> bytes:
        """Write the line."""
        size, mtime, inode = self.version
        head = f"{self.word} {self.time} {size} {mtime} {inode} {self.job}".encode()
        return head + ending(self.path)


def ending(path: str) -> bytes:
    """Return how each line about a file ends, and no other."""
    return f" {keyvalue.quote(path, space=True)}\n".encode()


def load(line: bytes) -> Note | None:
    """Read a line; None for what is none."""
    if not (match := _LINE.fullmatch(line)):
        return None
    word, time, size, mtime, inode, job, path = match.groups()
    version = Version(int(size), int(mtime), int(inode))
    name = path.decode("utf-8", "surrogateescape")
    name = keyvalue.unquote(name) if "%" in name else name
    return Note(word.decode(), int(time), version, job.decode(), name)

"""Lines of an FTP server's xferlog, as wu-ftpd defined it. See xfer-xferlog(5).

    Fri Nov  6 16:49:55 2026 13 198.51.100.7 5497920 /incoming/.UID.data.part b _ i r u ftp 0 * c

ProFTPD and vsftpd write it, for uploads over FTP and (ProFTPD) SFTP alike. A name may hold
blanks and bytes that are not UTF-8; what stands before and after it may not, so a line is
read from both ends. What the lines do not say is as important:

- The time is the server's local time without its zone. It is checked and not used.
- Seconds are whole. A shorter transfer is 0 in ProFTPD's log and 1 in vsftpd's and
  wu-ftpd's; here it is 1 in all of them.
- "Complete" is no proof: both say it of an upload whose client was killed.
- A rename leaves no line: a file that arrived by way of a part name is logged under that.
"""

import re
from dataclasses import dataclass

from lpxfer.errors import FormatError
from lpxfer.formats import names

LINE_LIMIT = 8192  # bytes: a path of PATH_MAX, and as much again for the rest

_LINE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) "
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) "
    r"[ 0-3]?[0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4} "
    r"(?P<seconds>[0-9]{1,9}) [^ \n]+ (?P<size>[0-9]{1,18}) (?P<path>.+) "
    r"[ab] [^ \n]+ (?P<direction>[a-z]) [agr] [^ \n]+ [^ \n]+ [01] [^ \n]+ (?P<status>[ci])"
)
_DATA_NAME = re.compile(rf"\.?({names.UID.pattern}){re.escape(names.DATA)}(?:\.part)?")


@dataclass(frozen=True)
class Transfer:
    """One line: a file that went one way or the other, or part of one."""

    seconds: int  # at least 1
    size: int  # bytes that went
    path: str  # as the server wrote it; lone surrogates are bytes that are not UTF-8
    upload: bool
    complete: bool  # as far as the server knows

    @property
    def uid(self) -> str | None:
        """The uid of the data file that was uploaded; None for any other file."""
        match = _DATA_NAME.fullmatch(self.path.rpartition("/")[2])
        return match[1] if match else None


def load(line: bytes) -> Transfer:
    """Read one line, with or without its newline. Raises FormatError for anything else."""
    text = line.removesuffix(b"\n").decode("utf-8", "surrogateescape")
    if len(line) > LINE_LIMIT or not (match := _LINE.fullmatch(text)):
        raise FormatError(f"not a line of an xferlog: {text[:80]!r}")
    return Transfer(
        seconds=max(1, int(match["seconds"])),
        size=int(match["size"]),
        path=match["path"],
        upload=match["direction"] == "i",
        complete=match["status"] == "c",
    )

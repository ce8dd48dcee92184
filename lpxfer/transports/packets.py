"""Packets of SFTP version 3: numbers, fields, and what a reply says.

See draft-ietf-secsh-filexfer-02, and PROTOCOL in OpenSSH for the extensions. What a server sends
is parsed strictly; whatever does not fit is Broken.
"""

from dataclasses import dataclass

INIT, VERSION, OPEN, CLOSE, READ, WRITE = 1, 2, 3, 4, 5, 6
LSTAT, FSTAT, FSETSTAT, OPENDIR, READDIR, RENAME = 7, 8, 10, 11, 12, 18
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED, EXTENDED_REPLY = 101, 102, 103, 104, 105, 200, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE = 0, 1, 2, 3, 4

FOR_READING, FOR_WRITING, CREATE, TRUNCATE, EXCLUSIVE = 0x01, 0x02, 0x08, 0x10, 0x20

SIZE, OWNER, MODE, TIMES, MORE = 0x01, 0x02, 0x04, 0x08, 0x80000000

#: Bytes of one write or read where the server does not say: every server takes these.
SMALL = 32 * 1024

#: Bytes of one write at most. Large ones cost half the CPU of small ones at both ends;
#: OpenSSH takes 255 KiB.
LARGE = 255 * 1024


class Broken(Exception):
    """The stream ended or made no sense; the session is over."""


class Refused(Exception):
    """The server said no to one request."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Attributes:
    """What a server says of a file; None is what it does not say."""

    size: int | None
    mode: int | None  # with the type's bits, as in stat(2)


@dataclass(frozen=True)
class Space:
    """What a server says of the file system below a path."""

    free: int  # bytes for unprivileged users
    inodes: int
    read_only: bool


class Fields:
    """The fields of one packet, read in turn. Raises Broken beyond its end."""

    def __init__(self, packet: bytes) -> None:
        self._packet, self._at = packet, 0

    def __bool__(self) -> bool:
        return self._at < len(self._packet)

    def _take(self, size: int) -> bytes:
        taken = self._packet[self._at : self._at + size]
        if len(taken) != size:
            raise Broken("a reply that is too short")
        self._at += size
        return taken

    def number(self, size: int = 4) -> int:
        """Read an unsigned number of 4 or 8 bytes."""
        return int.from_bytes(self._take(size), "big")

    def string(self) -> bytes:
        """Read a string with its length before it."""
        return self._take(self.number())

    def attributes(self) -> Attributes:
        """Read a file's attributes."""
        flags = self.number()
        size = self.number(8) if flags & SIZE else None
        if flags & OWNER:
            self._take(8)
        mode = self.number() if flags & MODE else None
        if flags & TIMES:
            self._take(8)
        for _ in range(self.number() if flags & MORE else 0):
            self.string(), self.string()
        return Attributes(size, mode)


def check(kind: int, fields: Fields) -> None:
    """Raise Refused for a status other than OK."""
    if kind != STATUS:
        raise Broken(f"a reply of type {kind} instead of a status")
    code = fields.number()
    if code != OK:
        # Servers before version 3 send no text.
        text = fields.string().decode("utf-8", "replace") if fields else f"status {code}"
        raise Refused(code, text)


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def string(data: bytes) -> bytes:
    return u32(len(data)) + data


def frame(kind: int, *fields: bytes) -> bytes:
    body = b"".join(fields)
    return u32(1 + len(body)) + bytes([kind]) + body

"""The client's half of SFTP version 3 over one byte stream, many writes in flight.

It knows nothing of SSH: the stream may be a channel of any implementation. Every
acknowledgement is checked. What the server sends is bounded and parsed strictly; whatever
does not fit breaks the session.

Raises Refused when the server says no to a request (the session goes on), and Broken when
the stream ended or made no sense (the session is over). See draft-ietf-secsh-filexfer-02,
and PROTOCOL in OpenSSH for the extensions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

INIT, VERSION, OPEN, CLOSE, READ, WRITE = 1, 2, 3, 4, 5, 6
LSTAT, FSTAT, FSETSTAT, OPENDIR, READDIR, RENAME = 7, 8, 10, 11, 12, 18
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED, EXTENDED_REPLY = 101, 102, 103, 104, 105, 200, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE = 0, 1, 2, 3, 4

FOR_READING, FOR_WRITING, CREATE, TRUNCATE, EXCLUSIVE = 0x01, 0x02, 0x08, 0x10, 0x20

_SIZE, _OWNER, _MODE, _TIMES, _MORE = 0x01, 0x02, 0x04, 0x08, 0x80000000

#: Largest reply that is read: what OpenSSH sends at most, and 1 KiB for its frame.
PACKET_LIMIT = 257 * 1024

#: Bytes of one write or read where the server does not say: every server takes these.
SMALL = 32 * 1024

#: Bytes of one write at most. Large ones cost half the CPU of small ones at both ends;
#: OpenSSH takes 255 KiB, and one such buffer is all the memory a transfer needs.
LARGE = 255 * 1024

#: Unacknowledged bytes in flight at most. A server's SSH window, 2 MiB with OpenSSH, holds
#: back what is more than that anyhow; twice as much keeps it full while acknowledgements
#: are under way, and deeper queues only cost the server time.
WINDOW = 4 * 1024 * 1024


class Broken(Exception):
    """The stream ended or made no sense; the session is over."""


class Refused(Exception):
    """The server said no to one request."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Stream(Protocol):
    """What carries the packets. Errors of a stream are raised as Broken."""

    def send(self, data: memoryview) -> int:
        """Send some of the bytes; return how many were taken."""

    def recv(self, size: int) -> bytes:
        """Return some bytes, at least one; nothing at the stream's end."""

    def recv_ready(self) -> bool:
        """Say whether recv would return at once."""


#: Fills a buffer with the source's bytes at an offset.
Source = Callable[[memoryview, int], None]


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
        size = self.number(8) if flags & _SIZE else None
        if flags & _OWNER:
            self._take(8)
        mode = self.number() if flags & _MODE else None
        if flags & _TIMES:
            self._take(8)
        for _ in range(self.number() if flags & _MORE else 0):
            self.string(), self.string()
        return Attributes(size, mode)


class Session:
    """One SFTP session. Not for use by two threads."""

    def __init__(self, stream: Stream) -> None:
        """Greet the server over a fresh stream."""
        self._stream = stream
        self._buffer = bytearray()
        self._last = 0
        #: Called whenever a request was answered or more bytes were acknowledged.
        self.progress: Callable[[], None] = lambda: None
        self._send(memoryview(_frame(INIT, _u32(3))))
        kind, fields = self._packet()
        if kind != VERSION or fields.number() < 3:
            raise Broken("the server does not speak SFTP version 3")
        self.extensions = set()
        while fields:
            self.extensions.add(fields.string())
            fields.string()
        self.largest_read, self.largest_write = self._limits()

    def lstat(self, path: bytes) -> Attributes:
        """Look at a name, following no link."""
        return self._answer(self._request(LSTAT, _string(path)), ATTRS).attributes()

    def open(self, path: bytes, flags: int) -> bytes:
        """Open a file and return its handle; the server's umask decides a new one's mode."""
        return self._answer(
            self._request(OPEN, _string(path), _u32(flags), _u32(0)), HANDLE
        ).string()

    def close(self, handle: bytes) -> None:
        """Close a file or directory."""
        self._done(self._request(CLOSE, _string(handle)))

    def fstat(self, handle: bytes) -> Attributes:
        """Look at an open file."""
        return self._answer(self._request(FSTAT, _string(handle)), ATTRS).attributes()

    def set_mode(self, handle: bytes, mode: int) -> None:
        """Set the permission bits of an open file."""
        self._done(self._request(FSETSTAT, _string(handle), _u32(_MODE), _u32(mode)))

    def set_size(self, handle: bytes, size: int) -> None:
        """Cut or extend an open file."""
        self._done(self._request(FSETSTAT, _string(handle), _u32(_SIZE), _u64(size)))

    def rename(self, old: bytes, new: bytes) -> None:
        """Rename; the server refuses when `new` exists (posix-rename would not)."""
        self._done(self._request(RENAME, _string(old), _string(new)))

    def fsync(self, handle: bytes) -> None:
        """Bring an open file to stable storage, where the server offers it."""
        if b"fsync@openssh.com" in self.extensions:
            self._done(self._request(EXTENDED, _string(b"fsync@openssh.com"), _string(handle)))

    def space(self, path: bytes) -> Space | None:
        """Ask for the free space below a path; None where the server does not tell."""
        if b"statvfs@openssh.com" not in self.extensions:
            return None
        number = self._request(EXTENDED, _string(b"statvfs@openssh.com"), _string(path))
        fields = self._answer(number, EXTENDED_REPLY)
        # bsize frsize blocks bfree bavail files ffree favail fsid flag namemax
        values = [fields.number(8) for _ in range(11)]
        return Space(values[1] * values[4], values[7], bool(values[9] & 1))

    def names(self, path: bytes, limit: int) -> list[bytes]:
        """List a directory: at most `limit` names, without `.` and `..`."""
        handle = self._answer(self._request(OPENDIR, _string(path)), HANDLE).string()
        found: list[bytes] = []
        try:
            while len(found) < limit:
                fields = self._answer(self._request(READDIR, _string(handle)), NAME)
                for _ in range(fields.number()):
                    if (name := fields.string()) not in (b".", b".."):
                        found.append(name)
                    fields.string()  # the line as ls -l would print it
                    fields.attributes()
        except Refused as refused:
            if refused.code != EOF:
                raise
        finally:
            self.close(handle)
        return found[:limit]

    def read(self, handle: bytes, offset: int, size: int) -> bytes:
        """Read some bytes of an open file; nothing at its end."""
        size = min(size, self.largest_read)
        try:
            number = self._request(READ, _string(handle), _u64(offset), _u32(size))
            data = self._answer(number, DATA).string()
        except Refused as refused:
            if refused.code == EOF:
                return b""
            raise
        if not 0 < len(data) <= size:
            raise Broken("a read that returned more than it was asked for, or nothing")
        return data

    def write(
        self, handle: bytes, source: Source, start: int, size: int, acked: Callable[[int], None]
    ) -> None:
        """Write bytes `start`..`size` of a source, many requests in flight.

        `acked` gets the contiguous acknowledged offset as it grows. After Refused, or what
        `acked` raised, replies may be under way: only Refused leaves a usable session.
        """
        began, done, sent = time.monotonic(), start, start
        in_flight: dict[int, int] = {}  # request number -> its offset, in the order sent
        head = 25 + len(handle)
        buffer = memoryview(bytearray(head + self.largest_write))
        while sent < size or in_flight:
            if sent < size and sent - done < WINDOW:
                # As much as the link takes in a second, so that acknowledgements come often
                # enough for the stall limit on the slowest link.
                rate = int((done - start) / (time.monotonic() - began + 1e-9))
                length = min(max(rate, SMALL), self.largest_write, size - sent)
                source(buffer[head : head + length], sent)
                self._last = number = (self._last + 1) & 0xFFFFFFFF
                fields = _string(handle) + _u64(sent) + _u32(length)
                buffer[:head] = _u32(head - 4 + length) + bytes([WRITE]) + _u32(number) + fields
                self._send(buffer[: head + length])
                in_flight[number] = sent
                sent += length
                if not self._buffer and not self._stream.recv_ready():
                    continue
            kind, reply = self._packet()
            if in_flight.pop(reply.number(), None) is None:
                continue  # the reply to a write that was given up
            _check(kind, reply)
            before, done = done, next(iter(in_flight.values()), sent)
            if done > before:
                self.progress()
                acked(done)

    def _limits(self) -> tuple[int, int]:
        """Ask how large reads and writes may be."""
        if b"limits@openssh.com" not in self.extensions:
            return SMALL, SMALL
        number = self._request(EXTENDED, _string(b"limits@openssh.com"))
        fields = self._answer(number, EXTENDED_REPLY)
        _packet, read, write = fields.number(8), fields.number(8), fields.number(8)
        return min(read, LARGE) or SMALL, min(write, LARGE) or SMALL

    def _request(self, kind: int, *fields: bytes) -> int:
        self._last = (self._last + 1) & 0xFFFFFFFF
        self._send(memoryview(_frame(kind, _u32(self._last), *fields)))
        return self._last

    def _send(self, view: memoryview) -> None:
        while view:
            view = view[self._stream.send(view) :]

    def _answer(self, number: int, wanted: int) -> Fields:
        """Wait for the reply to a request; replies nobody waits for any more are dropped."""
        while True:
            kind, fields = self._packet()
            if fields.number() == number:
                break
        self.progress()
        if kind != wanted:
            _check(kind, fields)
            raise Broken(f"a reply of type {kind} instead of {wanted}")
        return fields

    def _done(self, number: int) -> None:
        _check(STATUS, self._answer(number, STATUS))

    def _packet(self) -> tuple[int, Fields]:
        """Return the next packet's type and fields."""
        while True:
            size = int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) >= 4 and not 1 <= size <= PACKET_LIMIT:
                raise Broken("a reply of impossible size; does the login print something?")
            if len(self._buffer) >= 4 + max(size, 1):
                packet = bytes(self._buffer[4 : 4 + size])
                del self._buffer[: 4 + size]
                return packet[0], Fields(packet[1:])
            more = self._stream.recv(PACKET_LIMIT)
            if not more:
                raise Broken("the server closed the connection")
            self._buffer += more


def _check(kind: int, fields: Fields) -> None:
    """Raise Refused for a status other than OK."""
    if kind != STATUS:
        raise Broken(f"a reply of type {kind} instead of a status")
    code = fields.number()
    if code != OK:
        # Servers before version 3 send no text.
        text = fields.string().decode("utf-8", "replace") if fields else f"status {code}"
        raise Refused(code, text)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _string(data: bytes) -> bytes:
    return _u32(len(data)) + data


def _frame(kind: int, *fields: bytes) -> bytes:
    body = b"".join(fields)
    return _u32(1 + len(body)) + bytes([kind]) + body

"""The client's half of SFTP version 3 over one byte stream, many writes in flight.

It knows nothing of SSH: the stream may be a channel of any implementation. Every
acknowledgement is checked. What the server sends is bounded and parsed strictly; whatever
does not fit breaks the session.

Raises Refused when the server says no to a request (the session goes on), and Broken when
the stream ended or made no sense (the session is over). The packets are in packets.py.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from lpxfer.transports import packets
from lpxfer.transports.flow import Flow
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.packets import (
    Attributes,
    Broken,
    Fields,
    Refused,
    Space,
    check,
    frame,
    string,
    u32,
    u64,
)
from lpxfer.transports.stripes import Pieces

#: Largest reply that is read: what OpenSSH sends at most, and 1 KiB for its frame.
PACKET_LIMIT = 257 * 1024

#: Fills buffers, in turn, with what comes next of something.
Fill = Callable[[Sequence[memoryview]], None]

#: Fills buffers, in turn, with a source's bytes from an offset on.
Source = Callable[[Sequence[memoryview], int], None]

T = TypeVar("T")

#: Waits for the answer to a request that was made: requests that are made one after the other
#: and answered later take one round trip together. Raises Refused.
Answer = Callable[[], T]


class Stream(Protocol):
    """What carries the packets. Errors of a stream are raised as Broken."""

    def send(self, size: int, fill: Fill) -> None:
        """Send `size` bytes that `fill` puts, in one call or several, into the stream's buffers."""

    def recv(self, size: int) -> bytes:
        """Return some bytes, at least one; nothing at the stream's end."""

    def recv_ready(self) -> bool:
        """Say whether recv would return at once."""


class Session:
    """One SFTP session. Not for use by two threads.

    What asks for something returns an Answer: the request is made, and calling the answer waits
    for it. The server answers in its own order; what nobody waits for is dropped.
    """

    def __init__(self, stream: Stream, limiter: Limiter | None = None) -> None:
        """Greet the server over a fresh stream; `limiter` says when bytes of files may go."""
        self._stream, self._limiter = stream, limiter or Limiter()
        self._buffer = bytearray()
        self._last = 0
        #: What was asked for: request number -> when, and the reply once it is there.
        self._asked: dict[int, tuple[float, tuple[int, Fields] | None]] = {}
        #: Seconds of the quickest answer.
        self.rtt = 1.0
        #: Called whenever a request was answered or more bytes were acknowledged.
        self.progress: Callable[[], None] = lambda: None
        #: Asked, while bytes may not go yet, whether the connection was cut.
        self.gone: Callable[[], bool] = lambda: False
        self._send(frame(packets.INIT, u32(3)))
        kind, fields = self._packet()
        if kind != packets.VERSION or fields.number() < 3:
            raise Broken("the server does not speak SFTP version 3")
        self.extensions = set()
        while fields:
            self.extensions.add(fields.string())
            fields.string()
        self.largest_read, self.largest_write = self._limits()

    def lstat(self, path: bytes) -> Answer[Attributes]:
        """Look at a name, following no link."""
        answer = self._ask(packets.ATTRS, packets.LSTAT, string(path))
        return lambda: answer().attributes()

    def open(self, path: bytes, flags: int) -> Answer[bytes]:
        """Open a file; the answer is its handle. The server's umask decides a new one's mode."""
        answer = self._ask(packets.HANDLE, packets.OPEN, string(path), u32(flags), u32(0))
        return lambda: answer().string()

    def close(self, handle: bytes) -> None:
        """Close a file or directory; what the server says to that is no news."""
        self._request(packets.CLOSE, string(handle))

    def fstat(self, handle: bytes) -> Answer[Attributes]:
        """Look at an open file."""
        answer = self._ask(packets.ATTRS, packets.FSTAT, string(handle))
        return lambda: answer().attributes()

    def set_mode(self, handle: bytes, mode: int) -> Answer[None]:
        """Set the permission bits of an open file."""
        return self._done(packets.FSETSTAT, string(handle), u32(packets.MODE), u32(mode))

    def set_size(self, handle: bytes, size: int) -> Answer[None]:
        """Cut or extend an open file."""
        return self._done(packets.FSETSTAT, string(handle), u32(packets.SIZE), u64(size))

    def rename(self, old: bytes, new: bytes) -> Answer[None]:
        """Rename; the server refuses when `new` exists (posix-rename would not)."""
        return self._done(packets.RENAME, string(old), string(new))

    def fsync(self, handle: bytes) -> Answer[None]:
        """Bring an open file to stable storage, where the server offers it."""
        if b"fsync@openssh.com" not in self.extensions:
            return lambda: None
        return self._done(packets.EXTENDED, string(b"fsync@openssh.com"), string(handle))

    def space(self, path: bytes) -> Space | None:
        """Ask for the free space below a path; None where the server does not tell."""
        if b"statvfs@openssh.com" not in self.extensions:
            return None
        fields = self._ask(
            packets.EXTENDED_REPLY, packets.EXTENDED, string(b"statvfs@openssh.com"), string(path)
        )()
        # bsize frsize blocks bfree bavail files ffree favail fsid flag namemax
        values = [fields.number(8) for _ in range(11)]
        return Space(values[1] * values[4], values[7], bool(values[9] & 1))

    def names(self, path: bytes, limit: int) -> list[bytes]:
        """List a directory: at most `limit` names, without `.` and `..`."""
        handle = self._ask(packets.HANDLE, packets.OPENDIR, string(path))().string()
        found: list[bytes] = []
        try:
            while len(found) < limit:
                fields = self._ask(packets.NAME, packets.READDIR, string(handle))()
                for _ in range(fields.number()):
                    if (name := fields.string()) not in (b".", b".."):
                        found.append(name)
                    fields.string()  # the line as ls -l would print it
                    fields.attributes()
        except Refused as refused:
            if refused.code != packets.EOF:
                raise
        finally:
            self.close(handle)
        return found[:limit]

    def read(self, handle: bytes, offset: int, size: int) -> bytes:
        """Read some bytes of an open file; nothing at its end."""
        size = min(size, self.largest_read)
        try:
            data = self._ask(
                packets.DATA, packets.READ, string(handle), u64(offset), u32(size)
            )().string()
        except Refused as refused:
            if refused.code == packets.EOF:
                return b""
            raise
        if not 0 < len(data) <= size:
            raise Broken("a read that returned more than it was asked for, or nothing")
        return data

    def write_small(self, handle: bytes, data: bytes) -> Answer[None]:
        """Write the whole of a file that is no longer than some writes."""
        answers = []
        self._limiter.take(len(data), self._waits)
        for start in range(0, len(data), self.largest_write):
            piece = data[start : start + self.largest_write]
            answers.append(self._done(packets.WRITE, string(handle), u64(start), string(piece)))

        def wait() -> None:
            for answer in answers:
                answer()

        return wait

    def write(
        self, handle: bytes, source: Source, pieces: Pieces, moved: Callable[[], None]
    ) -> None:
        """Write what can be taken of a file, many requests in flight.

        `moved` is called whenever the server has acknowledged a piece. What is not acknowledged
        when this raises was given back. After Refused, or what `moved` raised, replies may be
        under way: only Refused leaves a usable session.
        """
        flow = Flow(self.rtt, self.largest_write)
        in_flight: dict[int, tuple[int, int]] = {}  # request number -> its piece
        try:
            while True:
                most = min(flow.length, self._limiter.portion())
                piece = pieces.take(most) if flow.room else None
                if piece:
                    start, end = piece
                    self._last = number = (self._last + 1) & 0xFFFFFFFF
                    in_flight[number] = piece
                    self._limiter.take(end - start, self._waits)
                    self._send_write(number, handle, source, start, end - start)
                    flow.sent(end - start)
                    if not self._buffer and not self._stream.recv_ready():
                        continue
                elif not in_flight:
                    return
                kind, reply = self._packet()
                number = reply.number()
                if (known := in_flight.get(number)) is None:
                    self._arrived(number, kind, reply)
                    continue
                check(kind, reply)
                del in_flight[number]
                pieces.ack(*known)
                flow.acked(known[1] - known[0])
                self.progress()
                moved()
        finally:
            for start, end in in_flight.values():
                pieces.give_back(start, end)

    def _send_write(self, number: int, handle: bytes, source: Source, at: int, size: int) -> None:
        head = string(handle) + u64(at) + u32(size)
        head = u32(5 + len(head) + size) + bytes([packets.WRITE]) + u32(number) + head

        def fill(views: Sequence[memoryview]) -> None:
            nonlocal head, at
            if head:
                first, *others = views
                first[: len(head)] = head
                views = [first[len(head) :], *others]
                head = b""
            source(views, at)
            at += sum(map(len, views))

        self._stream.send(len(head) + size, fill)

    def _waits(self) -> bool:
        """Tell whether waiting for the limiter is over; it is no stall."""
        self.progress()
        return self.gone()

    def _limits(self) -> tuple[int, int]:
        """Ask how large reads and writes may be."""
        if b"limits@openssh.com" not in self.extensions:
            return packets.SMALL, packets.SMALL
        fields = self._ask(
            packets.EXTENDED_REPLY, packets.EXTENDED, string(b"limits@openssh.com")
        )()
        _packet, read, write = fields.number(8), fields.number(8), fields.number(8)
        return min(read, packets.LARGE) or packets.SMALL, min(write, packets.LARGE) or packets.SMALL

    def _request(self, kind: int, *fields: bytes) -> int:
        self._last = (self._last + 1) & 0xFFFFFFFF
        self._send(frame(kind, u32(self._last), *fields))
        return self._last

    def _send(self, data: bytes) -> None:
        self._stream.send(len(data), filler(data))

    def _ask(self, wanted: int, kind: int, *fields: bytes) -> Answer[Fields]:
        number = self._request(kind, *fields)
        self._asked[number] = time.monotonic(), None
        return lambda: self._answer(number, wanted)

    def _done(self, kind: int, *fields: bytes) -> Answer[None]:
        answer = self._ask(packets.STATUS, kind, *fields)
        return lambda: check(packets.STATUS, answer())

    def _answer(self, number: int, wanted: int) -> Fields:
        """Wait for the reply to a request; replies nobody waits for any more are dropped."""
        while (reply := self._asked[number][1]) is None:
            kind, fields = self._packet()
            self._arrived(fields.number(), kind, fields)
        del self._asked[number]
        kind, fields = reply
        if kind != wanted:
            check(kind, fields)
            raise Broken(f"a reply of type {kind} instead of {wanted}")
        return fields

    def _arrived(self, number: int, kind: int, fields: Fields) -> None:
        """Keep a reply for who asked."""
        if number in self._asked:
            since = self._asked[number][0]
            self.rtt = min(self.rtt, time.monotonic() - since)
            self._asked[number] = since, (kind, fields)
            self.progress()

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


def filler(data: bytes) -> Fill:
    """Return what fills buffers with these bytes, in turn."""
    at = 0

    def fill(views: Sequence[memoryview]) -> None:
        nonlocal at
        for view in views:
            view[:] = data[at : at + len(view)]
            at += len(view)

    return fill

"""The SFTP protocol against what a server may send, right, late, refused or nonsense."""

from collections.abc import Callable, Iterable

import pytest

from lpxfer.transports import wire

HELLO = [(wire.VERSION, b"\0\0\0\3")]

Reply = tuple[int, bytes]
Answer = Callable[[int, int, bytes], Iterable[Reply]]


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def status(number: int, code: int = wire.OK, text: bytes = b"") -> Reply:
    return wire.STATUS, u32(number) + u32(code) + u32(len(text)) + text + u32(0)


class Server:
    """A server of one's own: `answer` gets each request's type, number and fields."""

    def __init__(self, answer: Answer, hello: Iterable[Reply] = HELLO) -> None:
        self.answer = answer
        self.received = bytearray()
        self.replies = bytearray()
        self.put(hello)

    def put(self, replies: Iterable[Reply]) -> None:
        for kind, body in replies:
            self.replies += u32(1 + len(body)) + bytes([kind]) + body

    def send(self, data: memoryview) -> int:
        self.received += data[:1000]  # a stream takes what it likes
        while len(self.received) >= 4:
            size = 4 + int.from_bytes(self.received[:4], "big")
            if len(self.received) < size:
                break
            packet = bytes(self.received[4:size])
            del self.received[:size]
            if packet[0] != wire.INIT:
                self.put(self.answer(packet[0], int.from_bytes(packet[1:5], "big"), packet[5:]))
        return min(len(data), 1000)

    def recv(self, size: int) -> bytes:
        data = bytes(self.replies[:7])  # in pieces that fit nothing
        del self.replies[:7]
        return data

    def recv_ready(self) -> bool:
        return bool(self.replies)


def zeros(buffer: memoryview, offset: int) -> None:
    """A source of nothing but zeros."""
    buffer[:] = bytes(len(buffer))


def test_write_acknowledges_what_is_contiguous_however_replies_are_ordered() -> None:
    waiting: list[int] = []

    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        waiting.append(number)
        if len(waiting) < 4:
            return []
        first, *others = waiting
        waiting.clear()
        return [status(n) for n in (*reversed(others), first)]

    offsets: list[int] = []
    session = wire.Session(Server(answer))
    session.write(b"handle", zeros, 0, 8 * wire.SMALL, offsets.append)
    # Nothing counts until the oldest of four is acknowledged; then all four do.
    assert offsets == [4 * wire.SMALL, 8 * wire.SMALL]


def test_refused_write_in_the_middle_ends_the_write_at_what_went_before() -> None:
    """A full disk can leave a hole of the right length behind one failed write."""
    seen = 0

    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        nonlocal seen
        seen += 1
        return [status(number, wire.FAILURE, b"Failure") if seen == 3 else status(number)]

    offsets: list[int] = []
    session = wire.Session(Server(answer))
    with pytest.raises(wire.Refused, match="Failure"):
        session.write(b"handle", zeros, 0, 20 * wire.SMALL, offsets.append)
    assert offsets[-1] == 2 * wire.SMALL
    session.close(b"handle")  # the replies to later writes are passed over


def test_no_more_than_the_window_is_in_flight() -> None:
    most = 0
    waiting: list[int] = []

    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        nonlocal most
        waiting.append(number)
        most = max(most, len(waiting))
        if len(waiting) * wire.SMALL < wire.WINDOW:
            return []
        return [status(waiting.pop(0)) for _ in range(len(waiting))]

    session = wire.Session(Server(answer))
    session.write(b"handle", zeros, 0, 2 * wire.WINDOW, lambda offset: None)
    assert most * wire.SMALL == wire.WINDOW


def test_answer_is_waited_for_behind_replies_nobody_wants() -> None:
    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        return [status(number + 1000, wire.FAILURE), status(number)]

    wire.Session(Server(answer)).close(b"handle")


def test_status_without_a_text_is_understood() -> None:
    session = wire.Session(Server(lambda kind, number, fields: [(101, u32(number) + u32(4))]))
    with pytest.raises(wire.Refused, match="status 4"):
        session.close(b"handle")


@pytest.mark.parametrize(
    "hello",
    [
        [],
        [(wire.STATUS, b"\0\0\0\3")],
        [(wire.VERSION, b"\0\0\0\2")],
        [(wire.VERSION, b"")],
        [(wire.VERSION, b"\0\0\0\3" + b"\0\0\0\xff" + b"cut short")],
    ],
)
def test_greeting_that_makes_no_sense_breaks_the_session(hello: list[Reply]) -> None:
    with pytest.raises(wire.Broken):
        wire.Session(Server(lambda *request: [], hello))


def test_login_that_prints_something_breaks_the_session() -> None:
    server = Server(lambda *request: [], [])
    server.replies += b"Welcome to the archive\n"
    with pytest.raises(wire.Broken, match="does the login print something"):
        wire.Session(server)


@pytest.mark.parametrize(
    "reply",
    [
        [],
        [(wire.ATTRS, b"")],
        [(wire.ATTRS, b"\0\0")],
        [(wire.HANDLE, b"\0\0\0\1" + b"\xff\xff\xff\xff")],
        [(wire.DATA, b"\0\0\0\1" + b"\0\0\0\3" + b"abc")],
        [(wire.STATUS, b"\0\0\0\1")],
        [(wire.STATUS, b"\0\0\0\1" + b"\0\0\0\0")],
    ],
)
def test_reply_that_makes_no_sense_breaks_the_session(reply: list[Reply]) -> None:
    session = wire.Session(Server(lambda *request: reply))
    with pytest.raises(wire.Broken):
        session.open(b"a", wire.FOR_WRITING)


def test_more_than_was_asked_for_breaks_the_session() -> None:
    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        return [(wire.DATA, u32(number) + u32(11) + b"x" * 11)]

    with pytest.raises(wire.Broken, match="more than it was asked for"):
        wire.Session(Server(answer)).read(b"handle", 0, 10)


def test_file_attributes_of_any_extent_are_read() -> None:
    full = u32(0x8000000F) + bytes(7) + b"\5" + bytes(8) + u32(0o100440) + bytes(8)
    extended = u32(1) + u32(1) + b"k" + u32(1) + b"v"
    bodies = {b"full": full + extended, b"none": u32(0)}

    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        return [(wire.ATTRS, u32(number) + bodies[fields[4:]])]

    session = wire.Session(Server(answer))
    assert session.lstat(b"full") == wire.Attributes(5, 0o100440)
    assert session.lstat(b"none") == wire.Attributes(None, None)


def test_directory_is_listed_up_to_a_limit() -> None:
    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        if kind == wire.OPENDIR:
            return [(wire.HANDLE, u32(number) + u32(1) + b"h")]
        if kind == wire.CLOSE:
            return [status(number)]
        names = [b".", b"..", b"a", b"b", b"c"]
        entries = b"".join(u32(len(n)) + n + u32(0) + u32(0) for n in names)
        return [(wire.NAME, u32(number) + u32(len(names)) + entries)]

    assert wire.Session(Server(answer)).names(b"/", 4) == [b"a", b"b", b"c", b"a"]


def test_limits_of_the_server_are_kept() -> None:
    def limited(read: int, write: int) -> wire.Session:
        def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
            values = [0, read, write, 0]
            return [(wire.EXTENDED_REPLY, u32(number) + b"".join(map(u64, values)))]

        offer = u32(3) + u32(18) + b"limits@openssh.com" + u32(1) + b"1"
        return wire.Session(Server(answer, [(wire.VERSION, offer)]))

    def u64(number: int) -> bytes:
        return number.to_bytes(8, "big")

    def sizes(session: wire.Session) -> tuple[int, int]:
        return session.largest_read, session.largest_write

    assert sizes(limited(1000, 2000)) == (1000, 2000)
    assert sizes(limited(1 << 40, 1 << 40)) == (wire.LARGE, wire.LARGE)
    assert sizes(limited(0, 0)) == (wire.SMALL, wire.SMALL)

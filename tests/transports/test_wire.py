"""The SFTP protocol against what a server may send, right, late, refused or nonsense."""

from collections.abc import Callable, Iterable, Sequence

import pytest

from lpxfer.transports import flow, packets, wire
from lpxfer.transports.stripes import Stripes

HELLO = [(packets.VERSION, b"\0\0\0\3")]

Reply = tuple[int, bytes]
Answer = Callable[[int, int, bytes], Iterable[Reply]]


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def status(number: int, code: int = packets.OK, text: bytes = b"") -> Reply:
    return packets.STATUS, u32(number) + u32(code) + u32(len(text)) + text + u32(0)


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

    def send(self, size: int, fill: wire.Fill) -> None:
        while size:  # a stream takes what it likes
            buffer = memoryview(bytearray(min(size, 700)))
            fill([buffer[:100], buffer[100:]])
            self.received += buffer
            size -= len(buffer)
        while len(self.received) >= 4:
            length = 4 + int.from_bytes(self.received[:4], "big")
            if len(self.received) < length:
                break
            packet = bytes(self.received[4:length])
            del self.received[:length]
            if packet[0] != packets.INIT:
                self.put(self.answer(packet[0], int.from_bytes(packet[1:5], "big"), packet[5:]))

    def recv(self, size: int) -> bytes:
        data = bytes(self.replies[:7])  # in pieces that fit nothing
        del self.replies[:7]
        return data

    def recv_ready(self) -> bool:
        return bool(self.replies)


def zeros(buffers: Sequence[memoryview], offset: int) -> None:
    """A source of nothing but zeros."""
    for buffer in buffers:
        buffer[:] = bytes(len(buffer))


def write(session: wire.Session, size: int, offsets: list[int] | None = None) -> None:
    """Write so many zeros; keep the contiguous acknowledged offsets as they grow."""
    stripes, seen = Stripes(size), [0]

    def moved() -> None:
        if stripes.acked > seen[-1]:
            seen.append(stripes.acked)

    try:
        session.write(b"handle", zeros, stripes, moved)
    finally:
        (offsets if offsets is not None else []).extend(seen[1:])


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
    write(session, 8 * packets.SMALL, offsets)
    # Nothing counts until the oldest of four is acknowledged; then all four do.
    assert offsets == [4 * packets.SMALL, 8 * packets.SMALL]


def test_refused_write_in_the_middle_ends_the_write_at_what_went_before() -> None:
    """A full disk can leave a hole of the right length behind one failed write."""
    seen = 0

    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        nonlocal seen
        seen += 1
        return [status(number, packets.FAILURE, b"Failure") if seen == 3 else status(number)]

    offsets: list[int] = []
    session = wire.Session(Server(answer))
    with pytest.raises(packets.Refused, match="Failure"):
        write(session, 20 * packets.SMALL, offsets)
    assert offsets[-1] == 2 * packets.SMALL
    session.set_mode(b"handle", 0o440)()  # the replies to later writes are passed over


def test_little_is_in_flight_until_the_link_has_taken_something() -> None:
    waiting: list[int] = []

    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        waiting.append(number)
        if len(waiting) * packets.SMALL < flow.FIRST:
            return []
        return [status(waiting.pop(0)) for _ in range(len(waiting))]

    write(wire.Session(Server(answer)), flow.FIRST)
    assert not waiting


def test_answers_may_be_asked_for_together_and_waited_for_in_any_order() -> None:
    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        return [(packets.ATTRS, u32(number) + u32(1) + bytes(7) + fields[-1:])]

    session = wire.Session(Server(answer))
    one, two, three = session.lstat(b"\1"), session.lstat(b"\2"), session.lstat(b"\3")
    assert [three().size, one().size, two().size] == [3, 1, 2]


def test_small_file_is_written_at_once_and_every_acknowledgement_checked() -> None:
    asked: list[int] = []

    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        asked.append(kind)
        code = packets.FAILURE if kind == packets.WRITE and asked.count(kind) == 2 else packets.OK
        return [status(number, code, b"disk full")]

    session = wire.Session(Server(answer))
    wait = session.write_small(b"handle", bytes(3 * packets.SMALL))
    assert asked == 3 * [packets.WRITE]
    with pytest.raises(packets.Refused, match="disk full"):
        wait()
    session.set_mode(b"handle", 0o440)()  # over the same session


def test_answer_is_waited_for_behind_replies_nobody_wants() -> None:
    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        return [status(number + 1000, packets.FAILURE), status(number)]

    wire.Session(Server(answer)).set_mode(b"handle", 0o440)()


def test_status_without_a_text_is_understood() -> None:
    session = wire.Session(Server(lambda kind, number, fields: [(101, u32(number) + u32(4))]))
    with pytest.raises(packets.Refused, match="status 4"):
        session.set_mode(b"handle", 0o440)()


@pytest.mark.parametrize(
    "hello",
    [
        [],
        [(packets.STATUS, b"\0\0\0\3")],
        [(packets.VERSION, b"\0\0\0\2")],
        [(packets.VERSION, b"")],
        [(packets.VERSION, b"\0\0\0\3" + b"\0\0\0\xff" + b"cut short")],
    ],
)
def test_greeting_that_makes_no_sense_breaks_the_session(hello: list[Reply]) -> None:
    with pytest.raises(packets.Broken):
        wire.Session(Server(lambda *request: [], hello))


def test_login_that_prints_something_breaks_the_session() -> None:
    server = Server(lambda *request: [], [])
    server.replies += b"Welcome to the archive\n"
    with pytest.raises(packets.Broken, match="does the login print something"):
        wire.Session(server)


@pytest.mark.parametrize(
    "reply",
    [
        [],
        [(packets.ATTRS, b"")],
        [(packets.ATTRS, b"\0\0")],
        [(packets.HANDLE, b"\0\0\0\1" + b"\xff\xff\xff\xff")],
        [(packets.DATA, b"\0\0\0\1" + b"\0\0\0\3" + b"abc")],
        [(packets.STATUS, b"\0\0\0\1")],
        [(packets.STATUS, b"\0\0\0\1" + b"\0\0\0\0")],
    ],
)
def test_reply_that_makes_no_sense_breaks_the_session(reply: list[Reply]) -> None:
    session = wire.Session(Server(lambda *request: reply))
    with pytest.raises(packets.Broken):
        session.open(b"a", packets.FOR_WRITING)()


def test_more_than_was_asked_for_breaks_the_session() -> None:
    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        return [(packets.DATA, u32(number) + u32(11) + b"x" * 11)]

    with pytest.raises(packets.Broken, match="more than it was asked for"):
        wire.Session(Server(answer)).read(b"handle", 0, 10)


def test_file_attributes_of_any_extent_are_read() -> None:
    full = u32(0x8000000F) + bytes(7) + b"\5" + bytes(8) + u32(0o100440) + bytes(8)
    extended = u32(1) + u32(1) + b"k" + u32(1) + b"v"
    bodies = {b"full": full + extended, b"none": u32(0)}

    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        return [(packets.ATTRS, u32(number) + bodies[fields[4:]])]

    session = wire.Session(Server(answer))
    assert session.lstat(b"full")() == packets.Attributes(5, 0o100440)
    assert session.lstat(b"none")() == packets.Attributes(None, None)


def test_directory_is_listed_up_to_a_limit() -> None:
    def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
        if kind == packets.OPENDIR:
            return [(packets.HANDLE, u32(number) + u32(1) + b"h")]
        if kind == packets.CLOSE:
            return [status(number)]
        names = [b".", b"..", b"a", b"b", b"c"]
        entries = b"".join(u32(len(n)) + n + u32(0) + u32(0) for n in names)
        return [(packets.NAME, u32(number) + u32(len(names)) + entries)]

    assert wire.Session(Server(answer)).names(b"/", 4) == [b"a", b"b", b"c", b"a"]


def test_limits_of_the_server_are_kept() -> None:
    def limited(read: int, write: int) -> wire.Session:
        def answer(kind: int, number: int, fields: bytes) -> list[Reply]:
            values = [0, read, write, 0]
            return [(packets.EXTENDED_REPLY, u32(number) + b"".join(map(u64, values)))]

        offer = u32(3) + u32(18) + b"limits@openssh.com" + u32(1) + b"1"
        return wire.Session(Server(answer, [(packets.VERSION, offer)]))

    def u64(number: int) -> bytes:
        return number.to_bytes(8, "big")

    def sizes(session: wire.Session) -> tuple[int, int]:
        return session.largest_read, session.largest_write

    assert sizes(limited(1000, 2000)) == (1000, 2000)
    assert sizes(limited(1 << 40, 1 << 40)) == (packets.LARGE, packets.LARGE)
    assert sizes(limited(0, 0)) == (packets.SMALL, packets.SMALL)

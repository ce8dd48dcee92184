"""A TCP proxy that does to a connection what networks do: one thread, any number of connections.

    with Proxy(sshd.port) as proxy:
        proxy.next(Fault("reset", UP, 3000))  # the next connection, after 3000 bytes upwards

The bytes are counted as they are handed on, so that a fault at byte n lets exactly n through.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

HOST = "127.0.0.1"
UP, DOWN = "up", "down"  # towards the server, and back
ROOM = 256 * 1024  # bytes held of one direction
TICK = 0.002  # seconds between looks at what waits for its time


@dataclass(frozen=True)
class Fault:
    """What happens to one connection, once byte `at` of a direction is reached.

    close       both ends are closed
    reset       both ends get a RST
    half        the reader of that direction gets its end, the other direction goes on
    flip        one bit of that byte is turned
    stall       nothing is handed on any more
    silence     the same, in both directions
    swallow     what comes is taken and dropped
    trickle     `rate` bytes a second from there on
    delay       each piece is `seconds` late from there on
    """

    kind: str
    way: str = UP
    at: int = 0
    rate: float = 1.0
    seconds: float = 0.0

    def __str__(self) -> str:
        """Name it, so that it can be played again."""
        return f"{self.kind} at byte {self.at} {self.way}"


@dataclass
class Way:
    """One direction of one connection."""

    source: socket.socket
    sink: socket.socket
    passed: int = 0  # bytes handed on
    dropped: int = 0  # bytes swallowed
    pieces: deque[tuple[float, bytes]] = field(default_factory=deque)  # when due, what
    ended: bool = False  # the source has no more
    closed: bool = False  # and the sink knows it
    tokens: float = 0.0  # bytes a trickle may hand on now
    filled: float = 0.0  # when they were counted

    @property
    def held(self) -> int:
        """How many bytes wait."""
        return sum(len(piece) for _, piece in self.pieces)


class Connection:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket, fault: Fault | None) -> None:
        """Join two sockets; `fault` is to come."""
        self.port = client.getpeername()[1]  # the client's own
        self.ends = (client, server)
        self.ways = {UP: Way(client, server), DOWN: Way(server, client)}
        self.fault = fault
        self.struck = self.silent = False  # the fault has begun; nothing passes any more
        self.open = True
        for end in self.ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)

    @property
    def up(self) -> int:
        """Bytes that reached the server."""
        return self.ways[UP].passed

    @property
    def down(self) -> int:
        """Bytes that reached the client."""
        return self.ways[DOWN].passed

    def shut(self, kind: str = "close") -> None:
        """Close both ends, with a RST where the kind is `reset`."""
        self.open = False
        for end in self.ends:
            if kind == "reset":
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

    # --- one round of the proxy's loop ----------------------------------------------------

    def step(self, readable: set[socket.socket]) -> None:
        """Take what has come and hand on what is due."""
        for name, way in self.ways.items():
            if self.open and way.source in readable:
                self._take(name, way)
            if self.open and not self.silent:
                self._hand_on(name, way)
        if self.open and all(way.closed for way in self.ways.values()):
            self.shut()

    def wants(self, name: str) -> bool:
        """Say whether bytes of a direction are to be read at all."""
        way = self.ways[name]
        return not self.silent and not way.ended and way.held < ROOM

    def _hit(self, name: str) -> Fault | None:
        """Return the fault, when it is one of this direction."""
        return self.fault if self.fault and self.fault.way == name else None

    def _take(self, name: str, way: Way) -> None:
        try:
            data = way.source.recv(ROOM)
        except BlockingIOError:
            return
        except OSError:
            self.shut("reset")  # as the other end did
            return
        if not data:
            way.ended = True
            return
        fault = self._hit(name)
        late = fault.seconds if fault and fault.kind == "delay" else 0.0
        way.pieces.append((time.monotonic() + late, data))

    def _hand_on(self, name: str, way: Way) -> None:
        fault = self._hit(name)
        while self.open and way.pieces and way.pieces[0][0] <= time.monotonic():
            due, data = way.pieces.popleft()
            room = len(data)
            if fault and fault.kind != "delay" and way.passed + room > fault.at:
                self.struck = True
                room = max(0, fault.at - way.passed)
                if room == 0:
                    data, room = self._strike(fault, way, data)
            sent = 0
            if room:
                with contextlib.suppress(BlockingIOError):
                    try:
                        sent = way.sink.send(data[:room])
                    except BlockingIOError:
                        raise
                    except OSError:
                        self.shut("reset")
                        return
            way.passed += sent
            if data[sent:]:
                way.pieces.appendleft((due, data[sent:]))
            if not sent:
                break
        if way.ended and not way.pieces and not way.closed and self.open:
            way.closed = True
            with contextlib.suppress(OSError):
                way.sink.shutdown(socket.SHUT_WR)

    def _strike(self, fault: Fault, way: Way, data: bytes) -> tuple[bytes, int]:
        """Do what the fault says at its byte; return what is left, and how much may go now."""
        if fault.kind in ("close", "reset"):
            self.shut(fault.kind)
        elif fault.kind == "half":
            way.ended = True
            return b"", 0
        elif fault.kind == "silence":
            self.silent = True
        elif fault.kind == "swallow":
            way.dropped += len(data)
            return b"", 0
        elif fault.kind == "flip":
            self.fault = None
            return bytes([data[0] ^ 1]) + data[1:], len(data)
        elif fault.kind == "trickle":
            now = time.monotonic()
            way.tokens += (now - (way.filled or now)) * fault.rate
            way.filled = now
            room = min(int(way.tokens), len(data))
            way.tokens -= room
            return data, room
        return data, 0


class Proxy:
    """Listens on a port of the loopback and joins what comes to another; use it in a `with`."""

    def __init__(self, target: int) -> None:
        """Know the server's port; `port` is the one to go to instead."""
        self._target = target
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[Connection] = []  # since the last `forget`, in their order
        self._older: list[Connection] = []  # those before that are open still
        self._plans: deque[Fault | None] = deque()
        self.refuse = False  # close new connections at once
        self.accepted = 0  # connections, refused ones included
        self._asked: deque[tuple[Callable[[], object], threading.Event]] = deque()
        self._bell, self._ringer = socket.socketpair()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> "Proxy":
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection and end."""
        self._over = True
        self._ringer.send(b"!")
        self._thread.join()
        self._shut_all("close")
        for end in (self._listener, self._bell, self._ringer):
            end.close()

    # --- for the thread of the test ---------------------------------------------------------

    def do(self, act: Callable[[], object]) -> None:
        """Have something done between two rounds, and wait for it."""
        done = threading.Event()
        self._asked.append((act, done))
        self._ringer.send(b"!")
        if not done.wait(30):
            raise RuntimeError("the proxy does not answer")

    def next(self, *faults: Fault | None) -> None:
        """Say what becomes of the next connections; None is nothing."""
        self.do(lambda: self._plan(faults))

    def strike(self, connection: Connection, fault: Fault) -> None:
        """Let a fault come over a connection; its byte counts from what was handed on by now."""

        def now() -> None:
            if fault.kind in ("close", "reset"):
                connection.shut(fault.kind)
            else:
                at = connection.ways[fault.way].passed + fault.at
                connection.fault = Fault(fault.kind, fault.way, at, fault.rate, fault.seconds)

        self.do(now)

    def hang_up(self, kind: str = "close") -> None:
        """Close every connection."""
        self.do(lambda: self._shut_all(kind))

    def hang_up_last(self) -> None:
        """Close the newest connection that is open."""
        self.do(lambda: [connection.shut() for connection in self.open[-1:]])

    def forget(self) -> None:
        """Forget the connections made by now and their counts, and plans not used."""
        self.do(self._forget)

    def of(self, port: int) -> Connection:
        """Return the connection from a client's port."""
        return next(c for c in reversed(self._older + self.connections) if c.port == port)

    @property
    def open(self) -> list[Connection]:
        """The connections that are open, in their order."""
        return [c for c in self._older + self.connections if c.open]

    # --- the loop ---------------------------------------------------------------------------

    def _plan(self, faults: tuple[Fault | None, ...]) -> None:
        self._plans.clear()
        self._plans.extend(faults)

    def _forget(self) -> None:
        self._plans.clear()
        self._older = self.open
        self.connections = []

    def _shut_all(self, kind: str) -> None:
        for connection in self.open:
            connection.shut(kind)

    def _run(self) -> None:
        while not self._over:
            live = self.open
            sources = [c.ways[way].source for c in live for way in (UP, DOWN) if c.wants(way)]
            held = any(way.pieces for c in live if not c.silent for way in c.ways.values())
            timeout = TICK if held else None
            readable = set(
                select.select([*sources, self._listener, self._bell], [], [], timeout)[0]
            )
            if self._bell in readable:
                self._bell.recv(100)
            while self._asked:
                act, done = self._asked.popleft()
                act()
                done.set()
            if self._listener in readable:
                self._accept()
            for connection in live:
                if connection.open:
                    connection.step(readable)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.accepted += 1
        server = socket.socket()
        try:
            if self.refuse:
                raise ConnectionRefusedError
            server.connect((HOST, self._target))
            fault = self._plans.popleft() if self._plans else None
            self.connections.append(Connection(client, server, fault))
        except OSError:
            client.close()
            server.close()

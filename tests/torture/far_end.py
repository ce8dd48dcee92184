"""The archive site's server as a sender meets it, with faults: a transport for the simulator.

Each request and each answer may be lost; the server may be down, slow, full, read-only, have
another host key, or no incoming at all. The order of steps is the product's own (order.put).
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from torture.virtual import ARCHIVE, Process, World

from lpxfer import durable
from lpxfer.errors import AttemptError, LinkError, LostError, LpxferError, PermanentError
from lpxfer.transports import order
from lpxfer.transports.stripes import Stripes
from lpxfer.transports.transport import Stat, Upload
from lpxfer.transports.wire import Answer

T = TypeVar("T")


def _nothing() -> None:
    """Be an answer that was given at once."""


CHUNK = 700  # bytes in one request
STALL = 60.0  # seconds


class FarEnd:
    """The server, and what is wrong with it."""

    def __init__(self, world: World, incoming: Path) -> None:
        self.world, self.incoming = world, incoming
        self.down = ""  # why nobody gets in
        self.full = self.read_only = False
        self.delay = 0.05  # seconds a request takes at most
        self.losses = 0.0  # how often a request or its answer is lost
        self.boots = 0  # connections do not outlive the server
        self.hidden: dict[str, int] = {}  # receipts file -> bytes that are seen of it
        self.late: list[Callable[[], object]] = []  # requests that hang in the server

    def catch_up(self) -> None:
        """Let the server do what it was asked over connections that are gone."""
        while self.late:
            with (
                contextlib.suppress(LpxferError, OSError),
                self.world.process(Process("server", ARCHIVE)),
            ):
                self.late.pop(0)()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Be the server's process: no sender's death kills it."""
        server = Process("server", ARCHIVE)
        with self.world.process(server):
            yield
        self.world.alive()


class Line:
    """One connection. See Transport."""

    def __init__(self, far: FarEnd) -> None:
        self.far, self.world = far, far.world
        self._boot = -1
        self._why: LpxferError | None = None
        self._until = 0.0  # when the limit of a put is over
        self._putting = False

    def connect(self) -> None:
        self.world.alive()
        if self._boot == self.far.boots and not self._why:
            return
        self._why, self._boot = None, -1
        self.world.time += self.world.dice.uniform(0, self.far.delay)
        self.world.turn("connecting")
        self.world.alive()
        if self.far.down:
            if "no answer" in self.far.down:
                self.world.time += STALL
            raise LinkError(self.far.down)
        self._boot = self.far.boots

    def greets(self) -> bool:
        self.world.alive()
        return "no answer" not in self.far.down

    def cut(self, reason: str) -> None:
        self._why = AttemptError(reason)

    def close(self) -> None:
        self._boot = -1

    @property
    def rtt(self) -> float:
        return self.far.delay

    def stat(self, *names: str) -> list[Stat | None]:
        return _Incoming(self).stat(*names)

    def names(self, directory: str) -> list[str]:
        def listed() -> list[str]:
            try:
                return sorted(os.listdir(directory))
            except FileNotFoundError:
                return []

        return self.request(listed)

    def read(self, path: str, offset: int, limit: int) -> bytes:
        def content() -> bytes:
            try:
                with open(path, "rb") as file:
                    seen = file.read()[: self.far.hidden.get(path)]
            except FileNotFoundError:
                return b""
            return seen[offset : offset + limit]

        return self.request(content)

    def help(self, *_: object) -> None:
        """Help nobody."""

    def put(self, uploads: Sequence[Upload], limit: float = 0) -> None:
        self._putting = True
        self._until = self.world.time + limit if limit else float("inf")
        try:
            order.put(_Incoming(self), uploads)
        finally:
            self._putting = False

    def request(self, act: Callable[[], T], may_be_late: bool = False) -> T:
        """Make one request and wait for its answer; either may be lost, or answered by nobody."""
        world, far = self.world, self.far
        world.alive()
        if self._why:
            raise self._why
        if self._boot < 0:
            raise LinkError("not connected")
        world.time += world.dice.uniform(0, far.delay)
        world.turn("a request")
        world.alive()
        fate = world.dice.random()
        if far.down or self._boot != far.boots or fate < far.losses / 2:
            if may_be_late and fate < far.losses / 8:
                far.late.append(act)
            raise self._lost()
        if self._putting and world.time > self._until:
            self.close()
            raise AttemptError("maxftp: not done in time")
        with far.serving():
            answer = act()
        world.turn("an answer")
        world.alive()
        if far.losses / 2 <= fate < far.losses or self._boot != far.boots:
            raise self._lost()
        return answer

    def _lost(self) -> LostError | AttemptError:
        self.close()
        if self.world.dice.random() < 0.5:
            return LostError("connection lost")
        self.world.time += STALL
        if self._putting:
            return AttemptError(f"no byte acknowledged for {STALL:g} s")
        return LostError(f"no answer for {STALL:g} s")


class _Incoming:
    """The incoming directory, a request at a time."""

    def __init__(self, line: Line) -> None:
        self.line, self.far = line, line.far

    def path(self, name: str) -> str:
        return str(self.far.incoming / name)

    def stat(self, *names: str) -> list[Stat | None]:
        return [self.line.request(partial(self.stat_here, name)) for name in names]

    def stat_here(self, name: str) -> Stat | None:
        try:
            found = os.stat(self.path(name), follow_symlinks=False)
        except FileNotFoundError:
            return None
        return Stat(found.st_size, stat.S_IMODE(found.st_mode))

    def open_part(self, part: str, create: bool, empty: bool) -> "Answer[_Part]":
        flags = os.O_WRONLY | (os.O_CREAT | os.O_EXCL if create else os.O_TRUNC if empty else 0)

        def opened() -> int:
            self.refuse(create)
            if not create and (found := self.stat_here(part)) and found.sealed:
                raise AttemptError("sealed with other bytes: it has to be removed")
            try:
                return os.open(self.path(part), flags, 0o600)
            except FileNotFoundError as error:
                raise LinkError("incoming: there is no such directory") from error
            except FileExistsError as error:
                raise AttemptError("the part file is there already") from error

        found = _Part(self, self.line.request(opened))
        return lambda: found

    def rename(self, part: str, name: str) -> Answer[None]:
        def renamed() -> None:
            self.refuse()
            try:
                os.link(self.path(part), self.path(name))
                os.unlink(self.path(part))
            except FileExistsError as error:
                raise PermanentError(f"{name} exists already") from error
            except FileNotFoundError as error:
                raise LinkError(f"renaming {part} refused: no such file") from error

        # The control file's rename is not done late: whether it was is looked at once.
        self.line.request(renamed, may_be_late=name.endswith(".data"))
        return _nothing

    def refuse(self, more: bool = False) -> None:
        if self.far.read_only:
            raise LinkError("incoming is read-only")
        if more and self.far.full:
            raise LinkError("incoming is full: 0 bytes free")


class _Part:
    """An open part file."""

    def __init__(self, incoming: _Incoming, fd: int) -> None:
        self.incoming, self.line, self.fd = incoming, incoming.line, fd

    def write(self, source: int, stripes: Stripes, moved: Callable[[], None]) -> None:
        while piece := stripes.take(CHUNK):
            self._write(os.pread(source, piece[1] - piece[0], piece[0]), piece[0])
            stripes.ack(*piece)
            moved()

    def write_small(self, data: bytes) -> Answer[None]:
        for start in range(0, len(data), CHUNK):
            self._write(data[start : start + CHUNK], start)
        return _nothing

    def _write(self, data: bytes, at: int) -> None:
        def written(chunk: bytes = data) -> None:
            far = self.incoming.far
            self.incoming.refuse()
            if far.full:
                chunk = chunk[: far.world.dice.randrange(len(chunk))]
            os.lseek(self.fd, at, os.SEEK_SET)
            os.write(self.fd, chunk)
            self.incoming.refuse(more=True)

        self.line.request(written)  # not late: the descriptor is closed by then

    def size(self) -> Answer[int]:
        size = self.line.request(lambda: os.fstat(self.fd).st_size)
        return lambda: size

    def seal(self) -> Answer[None]:
        self.line.request(lambda: os.fchmod(self.fd, 0o440))
        return _nothing

    def sync(self) -> Answer[None]:
        self.line.request(lambda: durable.sync(self.fd))
        return _nothing

    def spoil(self) -> None:
        with contextlib.suppress(LinkError, AttemptError):
            self.line.request(lambda: os.ftruncate(self.fd, 0))
            self.line.request(lambda: os.fchmod(self.fd, 0o600))

    def close(self) -> None:
        os.close(self.fd)

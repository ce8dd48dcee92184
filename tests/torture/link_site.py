"""Both sites of one queue with a proxy between them, and what is known about every call."""

import contextlib
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jobs
from arrivals import Site
from sshd import Sshd
from torture.proxy import Connection, Proxy

from lpxfer.formats import backoff, pace, rhythm
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing
from lpxfer.steps import send
from lpxfer.steps.confirm import Confirm, Verdict
from lpxfer.steps.send import Sender
from lpxfer.stores.spool import Queue, Spool
from lpxfer.transports import flow, packets, roster, wire
from lpxfer.transports.sftp import SftpTransport

STALL = 1.0  # seconds; the queue's limit in all of this
GRACE = 2.0  # seconds beyond its limit that a call may take
PATIENCE = 60.0  # seconds until a try that does not end is a violation

#: What is under way when a link breaks, and so is sent twice at most.
IN_FLIGHT = flow.WINDOW + packets.LARGE

#: The waiting between two tries is not what is tried here.
QUICK = {
    (backoff, "QUEUE_FIRST"): 0.02,
    (backoff, "QUEUE_MOST"): 0.05,
    (backoff, "JOB_FIRST"): 0.05,
    (backoff.LinkState, "GREET"): 0.05,
    (pace, "PAUSE_FIRST"): 0.02,
    (pace, "PAUSE_MOST"): 0.05,
    (pace, "STEP"): 0.02,
    (pace, "SETTLED"): 0.1,
    (rhythm, "FIRST"): 0.02,
    (rhythm, "MOST"): 0.05,
    (send, "TICK"): 0.02,
    (roster, "TICK"): 0.02,
}


@contextlib.contextmanager
def patched(values: dict[tuple[Any, str], Any]) -> Iterator[None]:
    """Give attributes other values for a block."""
    before = {place: getattr(*place) for place in values}
    try:
        for (owner, name), value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner, name, value)


class Sites:
    """A telescope's queue, an sshd behind the proxy, and a sweep at the archive site."""

    def __init__(self, root: Path, sshd: Sshd, proxy: Proxy) -> None:
        """Make both sites in one directory."""
        self.sshd, self.proxy = sshd, proxy
        self.archive = Site(root / "archive")
        self.queue: Queue = Spool(root / "spool").queue("archive")
        self.said: list[str] = []
        self.data: dict[str, bytes] = {}  # of the jobs under way, by uid
        self._numbers = itertools.count(1)
        self.settings = QueueConfig(
            "archive",
            remhost=f"{sshd.host}:{proxy.port}",
            rempath=str(self.archive.incoming),
            remuser=sshd.user,
            identity=str(sshd.identity),
            known_hosts=str(sshd.known_hosts),
            stall=STALL,
            connections=1,
        )
        key = " ".join((sshd.directory / "host_key.pub").read_text().split()[:2])
        sshd.known_hosts.write_text(f"[{sshd.host}]:{proxy.port} {key}\n")

    def sender(self, clock: Callable[[], datetime] | None = None, **changes: Any) -> Sender:
        """Make a sender that knows nothing of those before it."""
        settings = replace(self.settings, **changes)
        confirm = Confirm(self.queue, settings, self.sshd.user, self.said.append)
        return Sender(
            self.queue,
            settings,
            self.sshd.user,
            confirm.run,
            lambda *job: confirm.find(*job) is Verdict.COMPLETED,
            self.said.append,
            clock or (lambda: datetime.now(UTC)),
        )

    def once(self, **changes: Any) -> int:
        """Run `xfer-send --once`."""
        return self.sender(**changes).once()

    @contextlib.contextmanager
    def serving(
        self, clock: Callable[[], datetime] | None = None, **changes: Any
    ) -> Iterator[None]:
        """Run a sender in the background for a block."""
        stop = threading.Event()
        sender = self.sender(clock, **changes)
        thread = threading.Thread(target=sender.serve, args=(stop, lambda: None), name="sender")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def job(self, size: int = 3000, **fields: Any) -> Control:
        """Submit a job; each has a name of its own."""
        data = os.urandom(size)
        name = f"{next(self._numbers):05d}.fits"
        path = f"/data/2026.1120/{name}"
        known = jobs.make_job(self.queue, data, **{"name": name, "path": path, **fields})
        self.data[known.uid] = data
        self.queue.wake()
        return known

    def sweep(self) -> None:
        """Sweep the arrivals."""
        self.archive.sweep(now=datetime.now(UTC))

    def settle(self, *submitted: Control) -> str | None:
        """Send, sweep and confirm until the jobs are finished, then check them."""
        deadline = time.monotonic() + PATIENCE
        while any(self.queue.where(known.job) for known in submitted):
            self.once()
            self.sweep()
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)  # one may wait for its time
        return "; ".join(filter(None, map(self.check, submitted))) or None

    def wait_gone(self, known: Control) -> str | None:
        """Sweep until a running sender has finished the job, then check it."""
        deadline = time.monotonic() + PATIENCE
        while self.queue.where(known.job):
            if any(self.archive.incoming.glob("*.control")):  # its own, or that of a bundle
                self.sweep()
            if time.monotonic() > deadline:
                return f"{known.job} is {self.queue.where(known.job)}: {self.said[-3:]}"
            time.sleep(0.002)
        return self.check(known)

    def sent_twice(self, size: int) -> int:
        """Return the bytes that reached the server beyond one copy of the data.

        Of every connection that the proxy remembers, less what is not data: logins, requests
        and what encryption adds.
        """
        up = sum(connection.up for connection in self.proxy.connections)
        return int(up / 1.003) - 16 * 1024 * len(self.proxy.connections) - size

    def routing(self, known: Control) -> Routing:
        """Return the routing of a job, the default when it is gone."""
        if (state := self.queue.where(known.job)) is None:
            return Routing()
        try:
            with self.queue.open(known.job, state) as job:
                return job.routing()
        except FileNotFoundError:
            return self.routing(known)

    def check(self, known: Control) -> str | None:
        """Say what is wrong with a job that should be archived, once; None when nothing is."""
        if state := self.queue.where(known.job):
            reason = self.routing(known).reason
            return f"{known.job} is {state.value} still: {reason}; {self.said[-3:]}"
        lines = [line.kind for line in self.queue.log() if line.fields.get("job") == known.job]
        if lines != ["completed"]:
            return f"{known.job}: the finished log says {lines}"
        records = [r for r in self.archive.log() if r.fields.get("uid") == known.uid]
        if [r.kind for r in records] != ["stored"]:
            return f"{known.job}: the transfer log says {[r.kind for r in records]}"
        placed = [name for name in self.archive.files() if known.name in name]
        if placed != [f"2026.1120/{known.name}"]:
            return f"{known.job}: placed as {placed}"
        if (self.archive.home / placed[0]).read_bytes() != self.data.pop(known.uid):
            return f"{known.job}: other bytes in the archive"
        left = [path.name for path in self.archive.incoming.glob(f"*{known.uid}*")]
        return f"{known.job}: left in incoming: {left}" if left else None


@contextlib.contextmanager
def sites(root: Path, sftp: str = "internal-sftp", extra: str = "") -> Iterator[Sites]:
    """Run both sites for a block; arguments as for Sshd."""
    with (
        patched(QUICK),
        Sshd(root / "sshd", sftp, extra) as sshd,
        Proxy(sshd.port) as proxy,
    ):
        made = Sites(root, sshd, proxy)
        yield made
        made.queue.close()


# --- what the sender asks, and how long it waits ------------------------------------------------

WORDS = "INIT OPEN CLOSE READ WRITE LSTAT FSTAT FSETSTAT OPENDIR READDIR RENAME EXTENDED"
NAMES = {getattr(packets, word): word for word in WORDS.split()}


@dataclass(frozen=True)
class Request:
    """One SFTP request of the sender."""

    number: int  # since the block began, from 1
    name: str
    connection: Connection
    text: bytes  # its first bytes, the path among them


Hook = Callable[[Request], None]


@contextlib.contextmanager
def requests(
    proxy: Proxy, before: Hook = lambda _: None, after: Hook = lambda _: None
) -> Iterator[list[str]]:
    """See each SFTP request of this process before and after it is sent; give their names."""
    real, real_write = wire.Session._send, wire.Session._send_write
    seen: list[str] = []

    def hooked(session: Any, name: str, head: bytes, send: Callable[[], None]) -> None:
        seen.append(name)
        number = len(seen)
        if name == "INIT":  # a cut connection does not know its port any more
            session.port = session._stream._channel.transport.sock.getsockname()[1]
        request = Request(number, name, proxy.of(session.port), head)
        before(request)
        send()
        after(request)

    def send(session: Any, data: bytes) -> None:
        hooked(session, NAMES[data[4]], data[:300], lambda: real(session, data))

    def send_write(session: Any, *write: Any) -> None:
        hooked(session, "WRITE", b"", lambda: real_write(session, *write))

    with patched({(wire.Session, "_send"): send, (wire.Session, "_send_write"): send_write}):
        yield seen


class Lateness:
    """How late this machine wakes a thread that sleeps, so that nobody else is blamed for it."""

    def __init__(self) -> None:
        """Begin to watch."""
        self._late: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lateness", daemon=True)

    def __enter__(self) -> "Lateness":
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            if self._over.wait(0.02):
                return
            late = time.monotonic() - began - 0.02
            if late > 0.02:
                self._late.append((began, late))

    def during(self, begin: float, end: float) -> float:
        """Return the seconds of lateness seen in a span of monotonic time."""
        return sum(late for at, late in self._late if begin - late <= at <= end)


class Calls:
    """How long each call of the transport took; use it in a `with`."""

    VERBS = ("connect", "stat", "put", "names", "read")

    def __init__(self) -> None:
        """Know nothing yet."""
        self.longest = 0.0  # seconds
        self.late: list[str] = []
        self._lateness = Lateness()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Calls":
        """Begin."""
        self._stack.enter_context(self._lateness)
        wrapped = {(SftpTransport, verb): self._timed(verb) for verb in self.VERBS}
        self._stack.enter_context(patched(wrapped))
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stack.close()

    def _timed(self, verb: str) -> Callable[..., Any]:
        real = getattr(SftpTransport, verb)

        def call(*args: Any, **kwargs: Any) -> Any:
            begun = time.monotonic()
            try:
                return real(*args, **kwargs)
            finally:
                self._note(verb, begun, max(STALL, args[0].stall))

        return call

    def _note(self, verb: str, begun: float, limit: float) -> None:
        now = time.monotonic()
        took = now - begun - self._lateness.during(begun, now)
        self.longest = max(self.longest, took)
        if took > limit + GRACE:
            self.late.append(f"{verb} took {took:.1f} s with a limit of {limit:g} s")

    def violation(self) -> str | None:
        """Return what took too long since the last look, None when nothing did."""
        found, self.late = self.late, []
        return "; ".join(found) or None


def spread(seed: int, count: int, end: int) -> list[int]:
    """Return offsets over a whole session, one in each of `count` equal parts."""
    draw = random.Random(seed)
    return [int(end * (number + draw.random()) / count) for number in range(count)]

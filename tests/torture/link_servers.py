"""Servers that are odd, refuse, or are away for days."""

import contextlib
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from torture.link_site import Calls, Sites, patched, sites
from torture.proxy import Fault
from torture.table import Result

from lpxfer.formats import backoff, rhythm
from lpxfer.formats.job import Routing
from lpxfer.steps import send

#: What internal-sftp can be forbidden (-P) and still take a deposit.
FORBIDDEN = ["fsync", "limits", "statvfs", "fsync,limits,statvfs,fstatvfs,posix-rename,hardlink"]
DAYS = 3


def run(made: Sites, short: bool) -> Iterator[Result]:
    """Run every case of a server that is not there."""
    yield refusing(made, short)
    if not short:
        yield away(made)


def odd(root: Path, short: bool) -> Result:
    """Servers with other habits than OpenSSH's defaults get everything, and at once."""
    result = Result("links: rekeying all the time, no extensions")
    size = 1_000_000 if short else 8_000_000
    servers = [("internal-sftp", "RekeyLimit 128K")]
    servers += [(f"internal-sftp -P {words}", "") for words in FORBIDDEN[3 if short else 0 :]]
    for number, (sftp, extra) in enumerate(servers):
        with sites(root / f"odd{number}", sftp, extra) as made, Calls() as calls:
            known = made.job(size)
            problem = made.settle(known, made.job()) or calls.violation()
            problem = problem or "; ".join(made.said)
        result.count(f"{sftp} {extra}: {problem}" if problem else None)
    return result


def refusing(made: Sites, short: bool) -> Result:
    """Servers that close connections which are new are asked again."""
    result = Result("links: every second connection refused, MaxStartups")
    for kind in ("close", "reset"):
        with made.serving():
            for _ in range(1 if short else 10):
                made.proxy.hang_up()
                made.proxy.next(*[Fault(kind), None] * 3)
                problem = made.wait_gone(made.job())
                result.count(f"every second connection: {kind}: {problem}" if problem else None)
    result.count(_crowded(made))
    return result


def _crowded(made: Sites) -> str | None:
    """Others hold every place of those who have not logged in yet."""
    before = made.sshd.extra, made.sshd.startups
    made.sshd.extra, made.sshd.startups = "PerSourceMaxStartups none", "2:100:2"
    made.sshd.restart()
    try:
        with contextlib.ExitStack() as crowd:
            for _ in range(2):
                place = (made.sshd.host, made.sshd.port)
                crowd.enter_context(socket.create_connection(place)).recv(4)
            known = made.job()
            made.once()
            if made.routing(known) != Routing() or made.queue.where(known.job) is None:
                return "MaxStartups: the job was blamed, or nothing was refused"
        time.sleep(0.1)  # until sshd has noticed
        return made.settle(known)
    finally:
        made.sshd.extra, made.sshd.startups = before
        made.sshd.restart()


def away(made: Sites) -> Result:
    """For days nobody answers: one line is said, and the first new probe finds who is back."""
    result = Result("links: the archive away for days")
    clock = Fast(20_000)
    known, before = made.job(), len(made.said)
    made.proxy.hang_up()
    made.proxy.refuse = True
    probes = made.proxy.accepted
    real = {(backoff, "QUEUE_FIRST"): 5.0, (backoff, "QUEUE_MOST"): 300.0}
    real |= {(rhythm, "FIRST"): 1.0, (rhythm, "MOST"): 30.0}
    real |= {(backoff.LinkState, "GREET"): 5.0, (send, "time"): clock}
    with patched(real), made.serving(clock=clock.now):
        until = clock.monotonic() + DAYS * 86400
        while clock.monotonic() < until:
            time.sleep(0.01)
        said, probes = made.said[before:], made.proxy.accepted - probes
        blamed = made.routing(known) != Routing()
        made.proxy.refuse = False
        problem = made.wait_gone(known)
    if blamed or len(said) != 1:
        problem = f"blamed: {blamed}; said {len(said)} times; {problem}"
    result.notes["probes"] = probes
    result.count(f"{DAYS} days: {problem}" if problem else None)
    return result


class Fast:
    """A clock that runs fast; it stands in for the module `time` and for the wall clock."""

    def __init__(self, factor: float) -> None:
        """Start now; `factor` seconds pass in each."""
        self._factor, self._began = factor, time.monotonic()
        self._wall = datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds of this clock."""
        return self._began + (time.monotonic() - self._began) * self._factor

    def now(self) -> datetime:
        """Return its time of day."""
        return self._wall + timedelta(seconds=self.monotonic() - self._began)

    def __getattr__(self, name: str) -> Any:
        """Be the module otherwise."""
        return getattr(time, name)

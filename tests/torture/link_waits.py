"""Servers that are stopped, packets that vanish, links that crawl: nobody waits for ever."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sshd import descendants, send_signal
from torture.link_site import Calls, Request, Sites, patched, requests
from torture.proxy import DOWN, UP, Fault
from torture.table import Result

from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.transports import ssh

BIG = 3_000_000  # bytes of a job that is caught in the middle of a write

#: When it happens: the request before which it does, and which of them.
MOMENTS = {
    "login": ("", 0),
    "write": ("WRITE", 3),
    "seal": ("FSETSTAT", 1),
    "rename of the data": ("RENAME", 1),
    "rename of the control file": ("RENAME", 2),
    "receipts": ("READ", 1),
}


def run(made: Sites, calls: Calls, short: bool) -> Iterator[Result]:
    """Run every case of waiting."""
    yield stopped(made, calls, ["rename of the control file"] if short else [*MOMENTS])
    yield dropped(made, calls, ["receipts"] if short else [*MOMENTS])
    yield crawling(made, calls, short)
    yield one_of_many(made, short)
    if not short:
        yield stopped_session(made, calls)


@contextlib.contextmanager
def at(made: Sites, moment: str, act: Callable[[], object]) -> Iterator[None]:
    """Act once, at a moment of the sessions of a block."""
    name, nth = MOMENTS[moment]
    seen = 0

    def before(request: Request) -> None:
        nonlocal seen
        seen += request.name == name
        if request.name == name and seen == nth:
            act()

    real = ssh._log_in

    def log_in(*args: Any) -> None:
        act()
        real(*args)

    if moment == "login":
        with patched({(ssh, "_log_in"): log_in}):
            yield
    else:
        with requests(made.proxy, before):
            yield


def _job(made: Sites, moment: str) -> Control:
    """Submit a job, and take it as far as the moment wants it."""
    known = made.job(BIG if moment == "write" else 3000)
    if moment == "receipts":
        made.once()
        made.sweep()
    return known


def _struck(
    made: Sites, calls: Calls, moment: str, strike: Callable[[], object], heal: Callable[[], object]
) -> str | None:
    """Let the far end fall silent at a moment; when it speaks again all must go on."""
    known = _job(made, moment)
    hit: list[bool] = []
    try:
        with at(made, moment, lambda: (hit or strike(), hit.append(True))):
            made.once()
    finally:
        heal()
    if not hit:
        return "the moment never came"
    routing = made.routing(known)
    if routing.stalls or routing.not_before:
        return f"the job was blamed: {routing.reason}"
    return calls.violation() or made.settle(known, made.job())


def stopped(made: Sites, calls: Calls, moments: list[str]) -> Result:
    """Stop the whole server (SIGSTOP)."""
    result = Result("links: server stopped by SIGSTOP")
    for moment in moments:
        problem = _struck(made, calls, moment, made.sshd.pause, made.sshd.resume)
        result.count(f"before the {moment}: {problem}" if problem else None)
    return result


def stopped_session(made: Sites, calls: Calls) -> Result:
    """Stop one session only; it goes on while the next one is at the same work, or after it."""
    result = Result("links: one session stopped, and continued late")
    for moment in MOMENTS:
        for late in (0.02, 0.07, 0.0):
            problem = _overtaken(made, calls, moment, late)
            when = f"{late} s after the next login" if late else "after the pass"
            result.count(f"before the {moment}, continued {when}: {problem}" if problem else None)
    return result


def _overtaken(made: Sites, calls: Calls, moment: str, late: float) -> str | None:
    known, good = _job(made, moment), made.job()
    pids: list[int] = []
    real, timers = ssh._log_in, []

    def stop() -> None:
        if not pids:
            assert made.sshd.process
            pids.extend(descendants(made.sshd.process.pid))
            _signal(pids, signal.SIGSTOP)

    def log_in(*args: Any) -> None:
        if pids and late and not timers:
            timers.append(threading.Timer(late, _signal, (pids, signal.SIGCONT)))
            timers[0].start()
        real(*args)

    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(patched({(ssh, "_log_in"): log_in}))
            stack.enter_context(at(made, moment, stop))
            made.once()
    finally:
        for timer in timers:
            timer.join()
        _signal(pids, signal.SIGCONT)
    if not pids:
        return "the moment never came"
    if moment != "login" and made.queue.where(good.job) in (State.PENDING, State.ACTIVE):
        return "the next job did not go on"
    return calls.violation() or made.settle(known, good)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        send_signal(pid, number)


def dropped(made: Sites, calls: Calls, moments: list[str]) -> Result:
    """Drop every packet between the sender and the proxy, without a word."""
    result = Result("links: packets dropped silently")
    if os.geteuid() != 0 or not shutil.which("nft"):
        result.not_run = "needs root and nft"
        return result
    table = f"lpxfer_{os.getpid()}"
    rules = f"""table ip {table} {{
        chain out {{
            type filter hook output priority 0;
            tcp sport {made.proxy.port} drop
            tcp dport {made.proxy.port} drop
        }}
    }}"""

    def drop() -> None:
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)

    def deliver() -> None:
        subprocess.run(["nft", "delete", "table", "ip", table], stderr=subprocess.DEVNULL)

    for moment in moments:
        problem = _struck(made, calls, moment, drop, deliver)
        result.count(f"before the {moment}: {problem}" if problem else None)
    return result


def crawling(made: Sites, calls: Calls, short: bool) -> Result:
    """Stall, crawl or half-close a connection at some byte of either direction."""
    result = Result("links: stalled, trickling, half-closed, slow")
    faults = [
        Fault(kind, way, byte)
        for kind in ("stall", "silence", "trickle", "half")
        for way in (UP, DOWN)
        for byte in (10, 4000, 60_000)
    ]
    for fault in faults[: 1 if short else None]:
        known = made.job(200_000)
        made.proxy.next(fault)
        made.once()
        problem = calls.violation() or made.settle(known, made.job())
        result.count(f"{fault}: {problem}" if problem else None)
    if not short:
        result.count(_late(made, UP))
        result.count(_late(made, DOWN))
        result.count(_slow(made, calls))
    return result


def _late(made: Sites, way: str) -> str | None:
    """Every piece comes late, as over a continent: that is no fault at all."""
    known = made.job(2_000_000)
    made.proxy.next(Fault("delay", way, seconds=0.03))
    made.once()
    if made.queue.where(known.job) is not State.SENT:
        return f"a delay {way} was taken for a fault"
    return made.settle(known)


def _slow(made: Sites, calls: Calls) -> str | None:
    """A link on which maxftp is too short ends each attempt in time, and none is in vain."""
    known = made.job(1_500_000, maxftp="1")
    made.proxy.forget()
    made.proxy.next(*[Fault("trickle", UP, 0, rate=500_000)] * 10)
    made.once()
    if problem := calls.violation() or made.settle(known):
        return f"a slow link: {problem}"
    attempts = len([c for c in made.proxy.connections if c.up > 100_000])
    return None if 2 < attempts < 10 else f"a slow link: {attempts} attempts"


# --- one bad job among good ones ----------------------------------------------------------------


def one_of_many(made: Sites, short: bool) -> Result:
    """One job whose connection always fails delays no other."""
    result = Result("links: one bad job among 20 good ones")
    kinds = ["reset"] if short else ["reset", "silence"]
    for connections in (1,) if short else (1, 4):
        for kind in kinds:
            problem = _one_of_many(made, connections, kind)
            result.count(f"{connections} connection(s), {kind}: {problem}" if problem else None)
    for kind in kinds[: 0 if short else 2]:
        problem = _one_of_many_served(made, kind)
        result.count(f"a sender that stays, {kind}: {problem}" if problem else None)
    return result


def _one_of_many(made: Sites, connections: int, kind: str) -> str | None:
    bad = made.job(routing=Routing(priority=90))  # it goes first
    good = [made.job() for _ in range(20)]

    with _bad(made, bad, kind):
        made.once(connections=connections)
    states = {made.queue.where(job.job) for job in good}
    if states != {State.SENT}:
        return f"the good ones are {states} after one pass"
    return made.settle(bad, *good)


def _one_of_many_served(made: Sites, kind: str) -> str | None:
    bad = made.job(routing=Routing(priority=90))
    with _bad(made, bad, kind), made.serving(connections=2):
        for good in [made.job() for _ in range(20)]:
            if problem := made.wait_gone(good):
                return problem
        if made.queue.where(bad.job) is None:
            return "the bad one was none"
    return made.settle(bad)


def _bad(made: Sites, bad: Control, kind: str) -> contextlib.AbstractContextManager[object]:
    """Break every connection in which a job's data is about to be opened."""

    def before(request: Request) -> None:
        if request.name == "OPEN" and bad.uid.encode() in request.text:
            made.proxy.strike(request.connection, Fault(kind))

    return requests(made.proxy, before)

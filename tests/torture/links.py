"""Links that fail: cut, stalled, silent, slow, flipped, at every phase of a session."""

import contextlib
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from torture import link_servers, link_waits
from torture.link_site import IN_FLIGHT, Calls, Request, Sites, patched, requests, sites, spread
from torture.proxy import DOWN, UP, Fault
from torture.table import Result

from lpxfer.formats.control import Control
from lpxfer.transports import wire

SEED = 20261120
FIRST = 60  # rounds until everything that is made once is there, buffers of large files, too
MEMORY = 16 << 20  # bytes that a process may grow by without a leak


def run(short: bool) -> Iterator[Result]:
    """Run every case of links, several at a time: they mostly wait."""
    parts = [_offsets, _usual, _requests, _sent_twice, _odd]
    with ProcessPoolExecutor(len(parts)) as pool:
        for results in pool.map(_run, parts, repeat(short)):
            yield from results


def _run(part: Callable[[Path, bool], Iterator[Result]], short: bool) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="links-") as directory:
        return list(part(Path(directory), short))


def _usual(root: Path, short: bool) -> Iterator[Result]:
    with sites(root / "usual") as made, Calls() as calls:
        yield from link_waits.run(made, calls, short)
        yield from link_servers.run(made, short)


def _requests(root: Path, short: bool) -> Iterator[Result]:
    with sites(root / "usual") as made, Calls() as calls:
        yield every_request(made, calls, short)


def _offsets(root: Path, short: bool) -> Iterator[Result]:
    with sites(root / "usual") as made, Calls() as calls:
        yield from offsets(made, calls, short)


def _sent_twice(root: Path, short: bool) -> Iterator[Result]:
    with sites(root / "usual") as made, Calls() as calls:
        yield sent_twice(made, calls, short)


def _odd(root: Path, short: bool) -> Iterator[Result]:
    yield link_servers.odd(root, short)


# --- every request of a session -----------------------------------------------------------------


def every_request(made: Sites, calls: Calls, short: bool) -> Result:
    """Cut before each SFTP request, and lose the answer to each, one at a time."""
    result = Result("links: cut before or after each request of a session")
    names = _reference(made)
    result.notes["requests"] = len(names)
    tries = [(n, lost) for n in range(1, len(names) + 1) for lost in (False, True)]
    kinds = random.Random(SEED)
    for number, lost in tries[:: 40 if short else 1]:
        kind = kinds.choice(["close", "reset"])
        what = f"request {number} ({names[number - 1]}), {kind} "
        what += "after its answer was lost" if lost else "before it"
        problem = _cut_at_request(made, number, lost, kind) or calls.violation()
        result.count(f"{what}: {problem}" if problem else None)
    return result


def _reference(made: Sites) -> list[str]:
    """Take a job the whole way; return what was asked."""
    known = made.job()
    with requests(made.proxy) as seen:
        problem = _whole_way(made, known)
    if problem:
        raise RuntimeError(problem)
    return list(seen)


def _whole_way(made: Sites, known: Control) -> str | None:
    made.once()
    made.sweep()
    made.once()
    return made.check(known)


def _cut_at_request(made: Sites, number: int, lost: bool, kind: str) -> str | None:
    def before(request: Request) -> None:
        if request.number == number:
            made.proxy.strike(request.connection, Fault("swallow", DOWN) if lost else Fault(kind))

    def after(request: Request) -> None:
        if request.number == number and lost:
            deadline = time.monotonic() + 1.0
            while not request.connection.ways[DOWN].dropped and time.monotonic() < deadline:
                time.sleep(0.001)  # until the server has done it
            made.proxy.strike(request.connection, Fault(kind))

    known = made.job()
    made.proxy.forget()
    with requests(made.proxy, before, after):
        made.once()
        blamed = made.routing(known)
        made.sweep()
        made.once()
    if blamed.stalls or blamed.not_before:
        return f"the job was blamed: {blamed.reason}"
    return made.settle(known)


# --- bytes of a session -------------------------------------------------------------------------

SMALL, BIG = 3000, 6_000_000  # bytes; in a big one most cuts fall into writes
KINDS = ("close", "reset", "half", "flip") * 3 + ("silence",)


def offsets(made: Sites, calls: Calls, short: bool) -> Iterator[Result]:
    """Let something happen at bytes spread over a whole session, again and again to one sender."""
    result = Result("links: broken at bytes all over a session")
    leaks = Result("links: threads, descriptors, memory after that")
    with made.serving():
        tries = []
        for size, count in ((SMALL, 4 if short else 360), (BIG, 2 if short else 60)):
            for way, length in _lengths(made, size).items():
                tries += [(size, way, at) for at in spread(SEED, count // 2, length)]
        draw = random.Random(SEED)
        draw.shuffle(tries)
        before, struck, first = None, 0, 1 if short else FIRST
        for number, (size, way, at) in enumerate(tries):
            fault = Fault(draw.choice(KINDS), way, at)
            problem = _broken(made, fault, size) or calls.violation()
            result.count(f"{fault} of a session with {size} bytes: {problem}" if problem else None)
            struck += any(connection.struck for connection in made.proxy.connections)
            if number == first:
                before = Held.now(made)
        result.notes["struck"] = struck
        result.notes["longest_call_seconds"] = round(calls.longest, 2)
        leaks.count(Held.now(made).beyond(before))
        leaks.notes["rounds"] = len(tries) - first
    yield result
    yield leaks


def _lengths(made: Sites, size: int) -> dict[str, int]:
    """Take a job the whole way in one connection; return its bytes in each direction."""
    made.proxy.hang_up()
    made.proxy.forget()
    if problem := made.wait_gone(made.job(size)):
        raise RuntimeError(problem)
    connection = made.proxy.connections[-1]
    return {UP: connection.up, DOWN: connection.down}


def _broken(made: Sites, fault: Fault, size: int) -> str | None:
    made.proxy.hang_up_last()  # the one in use, so that others which stay open are found
    made.proxy.forget()
    made.proxy.next(fault)
    said = len(made.said)
    known = made.job(size)
    if problem := made.wait_gone(known):
        return problem
    if (twice := made.sent_twice(size)) > IN_FLIGHT:
        return f"{twice} bytes were sent twice"
    blamed = [line for line in made.said[said:] if "deferred" in line or "unexpected" in line]
    return f"blamed: {blamed}" if blamed and fault.kind in ("close", "reset") else None


def sent_twice(made: Sites, calls: Calls, short: bool) -> Result:
    """Break a large file several times; what was acknowledged is not sent again."""
    result = Result("links: a large file broken several times")
    size, most = 6_000_000 if short else 32_000_000, 0
    kinds = (("reset", UP), ("close", UP), ("half", DOWN), ("swallow", DOWN))
    writes = _span_of_writes(made, size)
    for kind, way in kinds[: 1 if short else 4]:
        begin, end = writes[way]
        third, fifth, tenth = (
            Fault(kind, way, begin + (end - begin) // part) for part in (3, 5, 10)
        )
        made.proxy.hang_up()
        made.proxy.forget()
        made.proxy.next(third, None, fifth, None, tenth)  # None: only to see who is there
        known = made.job(size)
        with _writes(size) as runs:
            made.once()
        problem = made.settle(known) or calls.violation()
        if [start for start, _ in runs[1:]] != [acked for _, acked in runs[:-1]]:
            problem = problem or f"it did not go on after what was acknowledged: {runs}"
        twice = made.sent_twice(size)
        most = max(most, twice)
        struck = sum(connection.struck for connection in made.proxy.connections)
        if not problem and (twice > struck * IN_FLIGHT or struck < 3):
            problem = f"{twice} bytes were sent twice in {struck} cuts"
        result.count(f"{kind} {way}, three times: {problem}" if problem else None)
    result.notes["most_bytes_sent_twice"] = most
    return result


@contextlib.contextmanager
def _writes(size: int) -> Iterator[list[list[int]]]:
    """See where each write of a file of this size begins, and what was acknowledged at its end."""
    real, runs = wire.Session.write, []

    def write(session: Any, handle: bytes, source: Any, pieces: Any, moved: Any) -> None:
        run = [pieces.acked, pieces.acked]

        def note() -> None:
            run[1] = pieces.acked
            moved()

        if pieces.size == size:
            runs.append(run)
        real(session, handle, source, pieces, note)

    with patched({(wire.Session, "write"): write}):
        yield runs


def _span_of_writes(made: Sites, size: int) -> dict[str, tuple[int, int]]:
    """Send a job; return at which bytes of each direction its writes begin and end."""
    seen: list[tuple[int, int]] = []

    def before(request: Request) -> None:
        if request.name in ("WRITE", "FSTAT"):
            seen.append((request.connection.up, request.connection.down))

    known = made.job(size)
    with requests(made.proxy, before):
        made.once()
    if problem := made.settle(known):
        raise RuntimeError(problem)
    end = len(seen) - 3  # the control file has one WRITE and one FSTAT, too
    return {UP: (seen[0][0], seen[end][0]), DOWN: (seen[0][1], seen[end][1])}


@dataclass(frozen=True)
class Held:
    """What this process holds."""

    threads: int
    descriptors: int
    memory: int  # bytes

    @classmethod
    def now(cls, made: Sites) -> "Held":
        """Count, with the sender's one connection open, and without the proxy's own."""
        made.proxy.hang_up_last()
        made.proxy.next()
        if problem := made.wait_gone(made.job()):
            raise RuntimeError(problem)
        opened = len(made.proxy.open)
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return cls(threading.active_count(), len(os.listdir("/proc/self/fd")) - 2 * opened, memory)

    def beyond(self, before: "Held") -> str | None:
        """Say what has grown."""
        grown = self.threads > before.threads or self.descriptors > before.descriptors
        return f"{before} became {self}" if grown or self.memory > before.memory + MEMORY else None

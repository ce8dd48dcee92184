"""A world whose time, chance and deaths are decided by one seed.

Product code runs here in one thread, as one process or another of a play: it sees a virtual
clock of its own site, times of files by that clock, and random bytes that the seed gives. A
process dies at a chosen call that changes a disk: what it would do after that call, clean up
included, it does not do; its descriptors close, and with them its locks.
"""

import contextlib
import itertools
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from torture import calls
from torture.power import Power

from lpxfer import durable
from lpxfer.errors import BusyError
from lpxfer.stores import incoming, listing
from lpxfer.transports import carry

START = datetime(2026, 11, 20, 21, 0, tzinfo=UTC)
TELESCOPE, ARCHIVE = "telescope", "archive"


class Killed(BaseException):
    """The running process is dead; nothing of the product catches this."""


@dataclass(eq=False)
class Process:
    """A process of the play."""

    name: str
    site: str
    die_at: int = 0  # which of its calls kills it; 0: none
    half: bool = False  # a write that kills it has written half
    calls: int = 0
    dead: bool = False


class World:
    """The time, the chance and the processes of one play."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.time = 0.0  # seconds since the play began; nobody in it knows this
        self.offset = {TELESCOPE: 0.0, ARCHIVE: 0.0}  # of the sites' clocks, in seconds
        self.power = {TELESCOPE: Power(self.dice), ARCHIVE: Power(self.dice)}
        self.stack = [Process("god", TELESCOPE)]
        #: Another process may act meanwhile: called where the running one calls the system.
        self.turn: Callable[[str], None] = lambda where: None
        self.turns = 0.0  # how often, at calls that change a disk
        self.changes = dict.fromkeys(self.offset, 0)  # calls that changed a disk, by site
        self._stamps: dict[int, tuple[int, float]] = {}  # inode -> its mtime (ns), its ctime

    # --- time --------------------------------------------------------------------------

    def now(self, site: str) -> datetime:
        """Tell what a site's clock shows."""
        return START + timedelta(seconds=self.time + self.offset[site])

    def monotonic(self) -> float:
        return 1000.0 + self.time

    def sleep(self, seconds: float) -> None:
        """Let time pass. Who polls is answered by nobody here, so it need not poll often."""
        self.time += max(seconds, 5.0)

    # --- processes ---------------------------------------------------------------------

    @property
    def running(self) -> Process:
        return self.stack[-1]

    @contextlib.contextmanager
    def process(self, process: Process) -> Iterator[Process]:
        """Let a process run for a block, until it dies."""
        self.stack.append(process)
        try:
            yield process
        except Killed:
            process.dead = True  # it may have waited for a lock that nobody gives back
        finally:
            self.stack.pop()

    @contextlib.contextmanager
    def nested(self) -> Iterator[None]:
        """Let others act in the middle of a process: what they do is nobody's of the running."""
        with self.process(Process("god", TELESCOPE)):
            yield

    def cut(self, site: str) -> None:
        """Take the power from a site."""
        for process in self.stack:
            if process.site == site and process.name != "god":
                process.dead = True
        self.power[site].cut()

    def alive(self) -> None:
        """Go on only if the running process lives."""
        if self.running.dead:
            raise Killed

    # --- what the product sees -----------------------------------------------------------

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be the whole world for a block."""
        clock = SimpleNamespace(
            monotonic=self.monotonic,
            sleep=self.sleep,
            thread_time=self.monotonic,
            perf_counter=itertools.count(0.0, 0.001).__next__,  # every trial takes as long
        )
        chance = SimpleNamespace(random=self.dice.random)
        with contextlib.ExitStack() as stack:
            for module in _with_clocks():
                stack.enter_context(mock.patch.object(module, "time", clock))
            for thing, name, stand_in in [
                (carry, "random", chance),
                (os, "urandom", self.dice.randbytes),
                (listing, "_entry", self._entry),
                (listing, "stamp", self._stamp_of(listing.stamp)),
                (listing, "identity", lambda _: None),  # every directory is looked into
                (incoming.Incoming, "changed", self._changed_in(incoming.Incoming.changed)),
                (durable, "lock_fd", self._lock_fd(durable.lock_fd)),
            ]:
                stack.enter_context(mock.patch.object(thing, name, stand_in))
            stack.enter_context(calls.watched(self._before, self._after))
            stack.callback(lambda: [power.close() for power in self.power.values()])
            yield

    def _entry(self, name: str, status: os.stat_result) -> listing.Entry:
        stamp, changed = self._stamps.get(status.st_ino, (0, 0.0))
        return listing.Entry(name, stamp, status.st_uid, int(changed * 1e9))

    def _stamp_of(self, real: Callable[[int, str], int | None]) -> Callable[..., int | None]:
        def stamp(state_fd: int, job_id: str) -> int | None:
            if real(state_fd, job_id) is None:
                return None
            return listing.entry(state_fd, job_id).stamp

        return stamp

    def _changed_in(self, real: Callable[..., float | None]) -> Callable[..., float | None]:
        def changed(self_: incoming.Incoming, name: str) -> float | None:
            if real(self_, name) is None:
                return None
            inode = os.stat(name, dir_fd=self_.fd, follow_symlinks=False).st_ino
            return self._stamps.get(inode, (0, 0.0))[1]

        return changed

    def _lock_fd(self, real: Callable[..., None]) -> Callable[..., None]:
        def lock_fd(fd: int, wait: bool = False, *rest: Any, **named: Any) -> None:
            try:
                real(fd, False, *rest, **named)
            except BusyError:
                if not wait:
                    raise
                self.running.dead = True  # its holder cannot go on before we end
                raise Killed from None

        return lock_fd

    # --- calls that change a disk -----------------------------------------------------------

    def _before(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.alive()
        process = self.running
        process.calls += 1
        if process.calls == process.die_at:
            process.dead = True
            if process.half and verb == "write":
                os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise Killed
        if self.dice.random() < self.turns:
            with calls.watched(self._before, self._after):
                self.turn(f"{process.name} at {verb}")
            self.alive()
        self.power[process.site].before(verb, args, kwargs)

    def _after(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        site = self.running.site
        self.changes[site] += 1
        self.power[site].after(verb, args, kwargs, result)
        if verb in ("fsync", "syncfs"):
            return
        wall = self.now(site).timestamp()
        if verb in ("write", "pwrite", "ftruncate", "fchmod", "utime"):
            self._touch(os.fstat(args[0]) if isinstance(args[0], int) else os.stat(args[0]), wall)
            return
        where = [(args[0], kwargs.get("dir_fd"))]
        if verb in ("rename", "link"):
            where = [(args[0], kwargs.get("src_dir_fd")), (args[1], kwargs.get("dst_dir_fd"))]
        elif verb == "symlink":
            where = [(args[1], kwargs.get("dir_fd"))]
        for name, dir_fd in where:
            parent = os.fspath(os.path.dirname(name)) or ("." if dir_fd is None else "")
            self._touch(os.stat(parent, dir_fd=dir_fd) if parent else os.fstat(dir_fd), wall)
        if verb not in ("unlink", "rmdir"):
            name, dir_fd = where[-1]
            self._touch(os.stat(name, dir_fd=dir_fd, follow_symlinks=False), wall, verb == "rename")

    def _touch(self, status: os.stat_result, wall: float, name_only: bool = False) -> None:
        stamp = int(wall * 1e9) + sum(self.changes.values())  # none is like another
        old = self._stamps.get(status.st_ino, (stamp, 0.0))[0]
        self._stamps[status.st_ino] = (old if name_only else stamp, wall)


def _with_clocks() -> list[ModuleType]:
    """Name the modules of the product that look at the clock."""
    found = [module for name, module in sys.modules.items() if name.startswith("lpxfer.")]
    return [module for module in found if getattr(module, "time", None) is time]

"""Both sites of a simulated transfer on one disk, and what people and processes do there."""

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from torture.far_end import FarEnd, Line
from torture.virtual import ARCHIVE, TELESCOPE, Process, World

from lpxfer.errors import BusyError, LpxferError
from lpxfer.formats.config import InstrumentConfig, QueueConfig
from lpxfer.formats.job import Routing
from lpxfer.steps.confirm import Confirm, Verdict
from lpxfer.steps.send import RECOVER, Sender
from lpxfer.steps.submit import Order, submit
from lpxfer.steps.sweep import Rules, sweep
from lpxfer.steps.sweep_any import AnyRules, sweep_any
from lpxfer.stores.archive import Archive, Outcome
from lpxfer.stores.incoming import Incoming
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.job_dir import account
from lpxfer.stores.queue import Queue
from lpxfer.stores.receipts import Receipts
from lpxfer.stores.spool import Spool
from lpxfer.transports import target
from lpxfer.transports.target import Links

QUEUES = ("archive", "spare")
SWEPT = ("minicam", "spec")
STRANGER = "visitor"
STALE = 7 * 86400.0
HOST = "telescope"


class Sites:
    """A telescope site with two queues, an archive site with two instruments."""

    def __init__(self, root: Path, world: World, trace: Callable[[str], None]) -> None:
        self.root, self.world, self.trace = root, world, trace
        self.incoming, self.receipts = root / "incoming", root / "receipts"
        self.homes = {inst: root / inst for inst in (*SWEPT, STRANGER)}
        for path in (self.incoming, *self.homes.values(), root / "data", root / "limbo"):
            path.mkdir(parents=True)
        self.me = account(os.geteuid())
        self.settings = {
            name: QueueConfig(name, rempath=str(self.incoming), connections=2) for name in QUEUES
        }
        self.spool = Spool(root / "spool")
        self.queues = {name: self.spool.queue(name) for name in QUEUES}
        self.far = FarEnd(world, self.incoming)
        self.senders = {name: SimulatedSender(self, name) for name in QUEUES}
        self.faults: list[str] = []  # what the product said or raised and must not

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let the senders reach this archive site, and no other."""
        with self.world.entered():
            with mock.patch.object(target, "open_transport", lambda *_: Line(self.far)):
                yield
            for sender in self.senders.values():
                sender.end()
            self.spool.close()

    # --- commands ------------------------------------------------------------------------

    def command(self, name: str, act: Callable[[Process], object], die_at: int = 0) -> str:
        """Run a command in a process of its own; tell what came of it."""
        process = Process(name, TELESCOPE, die_at, self.world.dice.random() < 0.5)
        said = "killed"
        with self.world.process(process):
            try:
                act(process)
                said = "done"
            except LpxferError as error:
                said = f"{type(error).__name__}: {error}"
            except Exception:  # noqa: BLE001 - it is the finding
                said = "unexpected"
                self.faults.append(f"{name}: {traceback.format_exc()}")
        return "killed" if process.dead else said

    def submit(
        self, queue: Queue, path: Path, inst: str, hold: bool, wish: Routing, into: str | None
    ) -> str:
        """Submit a file; return its request id. Raises what the command would exit with."""
        order = Order(HOST, self.me, inst, hold=hold, routing=wish, dir=into)
        (result,) = submit(queue, [os.fsencode(path)], order, self.world.now(TELESCOPE))
        if result.error:
            raise result.error
        assert result.control
        return result.control.job

    # --- sweeps ----------------------------------------------------------------------------

    def sweep(self, inst: str, die_at: int = 0) -> str:
        """Sweep an instrument, or strangers; tell what became of the arrivals."""
        process = Process(f"sweep {inst}", ARCHIVE, die_at, self.world.dice.random() < 0.5)
        found: list[str] = []
        with self.world.process(process):
            try:
                with self._archive(inst) as archive:
                    for outcome in self._sweep(archive, inst):
                        found.append(self._shown(outcome))
            except (BusyError, LpxferError, OSError) as error:
                found.append(f"{type(error).__name__} {error}")
        return ", ".join(found) + (" killed" if process.dead else "")

    @contextlib.contextmanager
    def _archive(self, inst: str) -> Iterator[Archive]:
        with contextlib.ExitStack() as stack:
            yield Archive(
                stack.enter_context(Incoming(str(self.incoming))),
                stack.enter_context(InstrumentDir(str(self.homes[inst]))),
                stack.enter_context(Receipts(str(self.receipts), "sweeper")),
                lambda: self.world.now(ARCHIVE),
            )

    def _sweep(self, archive: Archive, inst: str) -> Iterator[Outcome]:
        if inst == STRANGER:
            return sweep_any(archive, AnyRules(frozenset(SWEPT), STALE))
        return sweep(archive, Rules(InstrumentConfig(inst)))

    def _shown(self, outcome: Outcome) -> str:
        if outcome.message and "Traceback" in outcome.message:
            self.faults.append(outcome.message)
        entry = outcome.record
        if entry is None:
            return str(outcome.message)
        words = (entry.kind, entry.fields.get("uid"), entry.fields.get("reason", ""))
        return " ".join(map(str, words)).strip()


class SimulatedSender:
    """A queue's sender, taken step by step; between two steps it may die."""

    def __init__(self, sites: Sites, name: str) -> None:
        self._sites, self._world, self._name = sites, sites.world, name
        self.process: Process | None = None
        self._stack = contextlib.ExitStack()
        self._busy: list[bool] = []
        self._ready = False

    @property
    def lives(self) -> bool:
        return self.process is not None

    def start(self, die_at: int = 0) -> None:
        """Begin to serve the queue."""
        sites, settings = self._sites, self._sites.settings[self._name]
        self.process = Process("sender", TELESCOPE, die_at)
        self._stack = stack = contextlib.ExitStack()
        with self._as_sender():
            spool = Spool(sites.root / "spool")
            stack.callback(spool.close)
            queue = spool.queue(self._name)
            self._confirm = Confirm(queue, settings, sites.me, self._say)
            self._sender = Sender(
                queue,
                settings,
                sites.me,
                self._confirm.run,
                lambda *job: self._confirm.find(*job) is Verdict.COMPLETED,
                self._say,
                lambda: self._world.now(TELESCOPE),
            )
            stack.enter_context(queue.locked())
            queue.recover(self._world.now(TELESCOPE))
            self._wake = queue.open_wake()
            stack.callback(os.close, self._wake)
            self._next_recover = 0.0
            self._links = [Links(settings) for _ in range(settings.connections)]
            self._busy = [False] * settings.connections
            self._ready = True

    def step(self) -> str:
        """Look at the spool if it is time, then let a connection that is free do one thing."""
        if not self._ready or self._confirm._lock.locked():
            return "is busy"
        free = [index for index, busy in enumerate(self._busy) if not busy]
        item = None
        with self._as_sender():
            self._look()
            if free:
                item = self._sender._roster.choose()
            if item is not None:
                self._busy[free[0]] = True
                self._sender._do(item, self._links[free[0]])
                self._busy[free[0]] = False
        return item or "nothing"

    def _look(self) -> None:
        now = self._world.monotonic()
        recover = now >= self._next_recover
        asked = self._sender._roster.agenda.hear(self._wake)
        if recover:
            self._next_recover = now + RECOVER
        if recover or asked:
            self._sender._look(recover)

    @contextlib.contextmanager
    def _as_sender(self) -> Iterator[None]:
        """Be the sender's process for a block; if it dies, its locks go when it was not nested."""
        process = self.process
        assert process
        with self._world.process(process):
            yield
        if process.dead and process not in self._world.stack:
            self.end()

    def kill(self) -> None:
        """Kill it at once, in the middle of whatever it does."""
        assert self.process
        self.process.dead = True
        if self.process not in self._world.stack:
            self.end()

    def end(self) -> None:
        """Give back what a dead process gives back."""
        self._ready = False
        self._stack.close()
        self.process = None

    def _say(self, line: str) -> None:
        self._sites.trace(f"{'':12}{line}")
        if "unexpected" in line:
            self._sites.faults.append(line)

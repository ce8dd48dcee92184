"""One play of the simulator: what may happen at both sites, as the dice of its seed fall."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from torture.judge import Job, Judge
from torture.stage import QUEUES, STALE, STRANGER, SWEPT, Sites
from torture.virtual import ARCHIVE, TELESCOPE, World

from lpxfer.errors import BusyError, LpxferError
from lpxfer.formats.job import Routing, State
from lpxfer.formats.switches import Switches
from lpxfer.steps import reroute
from lpxfer.steps.cancel import cancel
from lpxfer.steps.hold import hold, release
from lpxfer.stores.queue import Queue

STEPS = (10, 40)  # events of one play
#: Seconds until all is done, once the faults have stopped: an hour each for a clock set back,
#: a torn control file and a receipt that does not come, and the pauses in between.
BOUND = 4 * 3600.0
NAMES = ("0001.fits", "0002.fits.gz", "a b.fits", "0001.fits")
DOWN = ("no answer for 60 s", "connection refused", "the host key has changed")


class Play:
    """One seed's play."""

    def __init__(self, seed: int, root: Path) -> None:
        self.seed, self.lines = seed, list[str]()
        self.world = World(seed)
        self.dice = self.world.dice
        self.sites = Sites(root, self.world, self.lines.append)
        self.judge = Judge(self.sites)
        self.depth = 0
        self.numbers = 0
        self.done = Counter[str]()  # what has happened how often
        self.wished = self.took = 0.0
        self.cursed = self.dice.random() < 0.1  # the first file comes to harm in incoming, always
        self.kept: dict[str, dict[str, bytes]] = {}  # arrivals that somebody has copied
        self.events: list[tuple[int, Callable[[], str], bool]] = [
            # how often, what, and whether it may happen in the middle of something else
            (14, self.submit, True),
            (3, self.cancel, True),
            (2, self.hold, True),
            (3, self.release, True),
            (2, self.move, False),
            (2, self.retry, True),
            (2, self.priority, True),
            (2, self.switch, True),
            (34, self.send, True),
            (5, self.kill_sender, True),
            (18, self.sweep, True),
            (3, self.sweep_any, True),
            (4, self.cut_power, True),
            (6, self.change_link, True),
            (4, self.change_incoming, True),
            (3, self.flip, False),
            (3, self.copy_arrivals, False),
            (3, self.redeliver, False),
            (3, self.change_receipts, False),
            (4, self.step_clock, True),
            (8, self.wait, False),
            (2, self.administer, False),
        ]

    def run(self) -> str | None:
        """Play it; return what broke, None when everything held."""
        with self.sites.entered():
            self.world.turn = self.turn
            self.world.turns = self.dice.choice((0.0, 0.005, 0.02))
            if self.dice.random() < 0.5:
                for site, power in self.world.power.items():
                    limbo = self.sites.root / "limbo" / site
                    limbo.mkdir()
                    power.limbo = str(limbo)
            for _ in range(self.dice.randint(*STEPS)):
                self.one(self.events)
                if broken := list(self.judge.check()):
                    return broken[0]
            return self.end()

    def one(self, events: list[tuple[int, Callable[[], str], bool]]) -> None:
        """Let something happen."""
        _, act, _ = self.dice.choices(events, [weight for weight, _, _ in events])[0]
        mark = len(self.lines)
        self.done[act.__name__] += 1
        said = act()
        clock = f"{self.world.time:10.1f} {'  ' * self.depth}"
        self.lines.insert(mark, f"{clock}{act.__name__} {said}")

    def turn(self, where: str) -> None:
        """Let others act while a process makes a call, now and then."""
        if self.depth < 2 and self.dice.random() < 0.06:
            self.depth += 1
            self.lines.append(f"{'':10} {'  ' * self.depth}({where})")
            try:
                with self.world.nested():
                    self.one([event for event in self.events if event[2]])
            finally:
                self.depth -= 1

    # --- people ----------------------------------------------------------------------------

    def submit(self) -> str:
        """Submit a file, new or like one before."""
        self.numbers += 1
        folder = self.sites.root / "data" / f"{self.numbers:03d}" / "2026.1120"
        folder.mkdir(parents=True)
        path = folder / self.dice.choice(NAMES)
        data = self.dice.randbytes(self.dice.choice((0, 1, 300, 2880)))
        if self.judge.contents and self.dice.random() < 0.15:
            data = self.dice.choice(list(self.judge.contents.values()))
        path.write_bytes(data)
        os.utime(path, (1e9, 1e9))
        self.judge.add(data)
        wish = Routing(priority=self.dice.choice((50, 50, 90, 10)))
        if self.dice.random() < 0.1:
            later = self.world.now(TELESCOPE) + timedelta(seconds=self.dice.uniform(60, 7200))
            self.wished = 86400.0  # a clock that is set back lets it wait, a day at most
            wish = Routing(not_before=later)
        into = self.dice.choice((None, None, "runs/7"))
        inst = self.dice.choice((*SWEPT, *SWEPT, STRANGER))
        queue, kept = self.dice.choice(list(self.sites.queues.values())), self.dice.random() < 0.1
        given: list[str] = []

        def act(_: object) -> None:
            if not queue.switches().accepting:
                raise LpxferError("not accepting")
            given.append(self.sites.submit(queue, path, inst, kept, wish, into))

        said = self.sites.command("submit", act, self.death())
        if said == "done":
            self.judge.acknowledge(given[0])
        return f"{path.name} {len(data)} bytes {inst}: {' '.join(given)} {said}"

    def job(self) -> tuple[Queue, str, Job] | None:
        """Choose a job, of those that are not finished first of all."""
        names = [name for name, job in self.judge.jobs.items() if not job.finished]
        if not names:
            return None
        name = self.dice.choice(names)
        queues = list(self.sites.queues.values())
        found = [queue for queue in queues if queue.where(name)] or queues[:1]
        return found[0], name, self.judge.jobs[name]

    def on_job(self, verb: str, act: Callable[[Queue, str], object]) -> str:
        if (chosen := self.job()) is None:
            return "nothing"
        queue, name, _ = chosen
        return f"{name}: {self.sites.command(verb, lambda _: act(queue, name), self.death())}"

    def cancel(self) -> str:
        if (chosen := self.job()) is None:
            return "nothing"
        queue, name, job = chosen
        job.cancel_asked = True
        aside = queue.where(name) in (State.FAILED, State.QUARANTINED)
        now = self.world.now(TELESCOPE)
        said = self.sites.command(
            "cancel", lambda _: cancel(queue, name, "canceled", now), self.death()
        )
        job.canceled = job.canceled or (said == "done" and not aside)
        return f"{name}: {said}"

    def hold(self) -> str:
        return self.on_job("hold", lambda queue, name: hold(queue, name, "held"))

    def release(self) -> str:
        return self.on_job("release", release)

    def move(self) -> str:
        def act(queue: Queue, name: str) -> None:
            other = next(q for q in self.sites.queues.values() if q is not queue)
            reroute.move(queue, name, other, self.world.now(TELESCOPE))

        return self.on_job("move", act)

    def retry(self) -> str:
        now = self.world.now(TELESCOPE)
        return self.on_job("retry", lambda queue, name: reroute.retry(queue, name, 3600.0, now))

    def priority(self) -> str:
        to = self.dice.randint(1, 100)
        return self.on_job("priority", lambda queue, name: reroute.set_priority(queue, name, to))

    def switch(self) -> str:
        """Stop or start a queue."""
        queue = self.dice.choice(list(self.sites.queues.values()))
        now = self.world.now(TELESCOPE)
        word, change = self.dice.choice(
            [
                ("enable", Switches.enable),
                ("accept", Switches.accept),
                ("disable", lambda switches: switches.disable("a test", now)),
                ("reject", lambda switches: switches.reject("a test", now)),
            ]
        )
        said = self.sites.command(word, lambda _: queue.switch(change), self.death())
        return f"{word} {queue.name}: {said}"

    # --- processes -------------------------------------------------------------------------

    def death(self) -> int:
        """Choose at which of its calls a process dies; mostly at none."""
        return self.dice.choice((0, 0, 0, 0, self.dice.randint(1, 60)))

    def send(self) -> str:
        """Let a sender do something, or start it."""
        name = self.dice.choice((QUEUES[0], QUEUES[0], QUEUES[1]))
        sender = self.sites.senders[name]
        if not sender.lives:
            if self.depth:
                return f"{name}: nothing"
            try:
                sender.start(self.death() * 3)
            except BusyError as error:
                return f"{name}: {error}"
            return f"{name}: started"
        if sender.process and sender.process.dead:
            return f"{name}: dying"
        return f"{name}: {sender.step()}"

    def kill_sender(self) -> str:
        sender = self.sites.senders[self.dice.choice(QUEUES)]
        if not sender.lives:
            return "nothing"
        sender.kill()
        return "killed"

    def sweep(self) -> str:
        inst = self.dice.choice(SWEPT)
        return f"{inst}: {self.curse()}{self.sites.sweep(inst, self.death())}"

    def sweep_any(self) -> str:
        return f"{self.curse()}{self.sites.sweep(STRANGER, self.death())}"

    def curse(self) -> str:
        """Change the first file that ever arrived, each time it comes, until it fails."""
        for uid in self.arrivals()[:1] if self.cursed else []:
            if uid == next(iter(self.judge.by_uid)) and self.judge.by_uid[uid].flips < 3:
                self.copy_arrivals()
                return f"{self.flip_one(uid)} is cursed, "
        return ""

    def cut_power(self) -> str:
        """Take the power from a site."""
        site = self.dice.choice((TELESCOPE, ARCHIVE))
        if not self.world.power[site].limbo:
            return "nothing"
        self.world.cut(site)
        if site == ARCHIVE:
            self.sites.far.boots += 1
            self.sites.far.late.clear()
        else:
            for sender in self.sites.senders.values():
                if sender.lives:
                    sender.kill()
        self.judge.after_cut()
        return site

    # --- the link and the far end ------------------------------------------------------------

    def change_link(self) -> str:
        far = self.sites.far
        far.down = self.dice.choice(("", "", *DOWN))
        far.delay = self.dice.choice((0.05, 0.05, 5.0, 300.0))
        far.losses = self.dice.choice((0.0, 0.0, 0.05, 0.3))
        far.catch_up()
        return f"{far.down or 'up'}, {far.delay} s, {far.losses} lost"

    def change_incoming(self) -> str:
        """Fill, protect or unmount incoming, or put it right."""
        far = self.sites.far
        what = self.dice.choice(("right", "right", "full", "read-only", "missing"))
        self.mend_incoming()
        far.full, far.read_only = what == "full", what == "read-only"
        if what == "missing":
            os.rename(far.incoming, self.sites.root / "away")
        return what

    def mend_incoming(self) -> None:
        self.sites.far.full = self.sites.far.read_only = False
        with suppress(FileNotFoundError):
            os.rename(self.sites.root / "away", self.sites.far.incoming)

    def arrivals(self) -> list[str]:
        """List the uids of the arrivals in incoming."""
        with suppress(FileNotFoundError):
            names = os.listdir(self.sites.incoming)
            stems = {n.removesuffix(".data") for n in names if not n.startswith(".")}
            return sorted(stem for stem in stems if stem in self.judge.by_uid)
        return []

    def alone(self) -> bool:
        """Tell whether a control file without data is in incoming; xfer-sweep -A takes it."""
        names = set(os.listdir(self.sites.incoming))
        return any(f"{uid}.control" in names and f"{uid}.data" not in names
                   for uid in self.judge.by_uid)  # fmt: skip

    def flip(self) -> str:
        """Change a byte of a data file in incoming."""
        if not (uids := self.arrivals()):
            return "nothing"
        return self.flip_one(self.dice.choice(uids))

    def flip_one(self, uid: str) -> str:
        path = self.sites.incoming / f"{uid}.data"
        data = bytearray(path.read_bytes() if path.exists() else b"")
        if not data:
            return "nothing"
        data[self.dice.randrange(len(data))] ^= 1 << self.dice.randrange(8)
        path.write_bytes(data)
        self.judge.by_uid[uid].flips += 1
        return uid

    def copy_arrivals(self) -> str:
        """Make a backup of incoming."""
        for uid in self.arrivals():
            paths = [self.sites.incoming / f"{uid}{suffix}" for suffix in (".data", ".control")]
            if uid not in self.kept and all(path.exists() for path in paths):
                self.kept[uid] = {path.name: path.read_bytes() for path in paths}
        return f"{len(self.kept)}"

    def redeliver(self) -> str:
        """Put arrivals of a backup into incoming once more."""
        if not self.kept or not self.sites.incoming.exists():
            return "nothing"
        return self.bring_back(self.dice.choice(list(self.kept)))

    def bring_back(self, uid: str) -> str:
        self.judge.by_uid[uid].excused = True
        for name, data in self.kept[uid].items():
            path = self.sites.incoming / name
            if not path.exists():
                path.write_bytes(data)
        return uid

    def change_receipts(self) -> str:
        """Hide the youngest receipts, show them again, lose some, or double some."""
        far, what = self.sites.far, self.dice.choice(("hide", "show", "lose", "double"))
        files = sorted(self.sites.receipts.glob("telescope/*.log"))
        if what == "show":
            far.hidden.clear()
        elif files:
            path = self.dice.choice(files)
            text = path.read_bytes()
            if what == "hide":
                far.hidden[str(path)] = self.dice.randint(0, len(text))
            elif what == "lose":
                path.write_bytes(text[: self.dice.randint(0, len(text))])
                self.judge.pass_over(path)
            else:
                path.write_bytes(text + text[: self.dice.randint(0, len(text))] + b"\n")
                self.judge.pass_over(path)
        return what

    # --- clocks, and those who look after the machines -----------------------------------------

    def step_clock(self) -> str:
        site = self.dice.choice((TELESCOPE, ARCHIVE))
        by = self.dice.choice((-3.0, 60.0, -3600.0, 3600.0, -2 * 86400.0, 3 * 86400.0))
        self.world.offset[site] += by
        return f"{site} by {by} s"

    def wait(self) -> str:
        seconds = self.dice.choice((1.0, 30.0, 300.0, 4000.0, 30000.0))
        self.world.time += seconds
        return f"{seconds} s"

    def administer(self) -> str:
        """Rotate the transfer logs, or let a year pass and remove what is old."""
        if self.dice.random() < 0.7:
            for home in self.sites.homes.values():
                for path in sorted((home / "xferlogs").glob("*.log")):
                    path.rename(f"{path}.{self.numbers}")
            return "logs rotated"
        self.world.time += 370 * 86400.0
        for directory in (*(h / "xferlogs" for h in self.sites.homes.values()),
                          *(self.sites.root / "spool" / q / "log" for q in QUEUES)):  # fmt: skip
            for path in directory.glob("*.log*"):
                path.unlink()
        self.judge.without_logs()
        return "a year later the logs are gone"

    # --- the end ---------------------------------------------------------------------------------

    def end(self) -> str | None:
        """Stop all faults; see that everything ends well, and soon."""
        world, far = self.world, self.sites.far
        world.turns = 0.0
        world.turn = lambda where: None
        far.down, far.delay, far.losses = "", 0.05, 0.0
        far.hidden.clear()
        far.catch_up()
        self.mend_incoming()
        self.death = lambda: 0  # type: ignore[method-assign]
        for queue in self.sites.queues.values():
            queue.switch(Switches.enable)
        began, pause = world.time, 1.0
        bound = BOUND + self.wished + (2 * STALE if self.alone() else 0.0)  # by a clock set back
        self.lines.append(f"{world.time:10.1f} the faults stop")
        while True:
            for name, job in self.judge.jobs.items():
                queues = [] if job.finished else self.sites.queues.values()
                if held := [q for q in queues if q.where(name) is State.HELD]:
                    release(held[0], name)
                if job.flips > 2 and job.known.uid in self.kept and not job.brought_back:
                    whole = self.kept[job.known.uid][f"{job.known.uid}.data"]
                    if self.judge.is_in(name, "failed") and self.judge.holds(whole, job):
                        self.lines.append(f"{world.time:10.1f} {name} is brought back")
                        self.bring_back(job.known.uid)
                        job.brought_back = True
            done = self.round()
            if broken := list(self.judge.check()):
                return broken[0]
            if not (owed := self.judge.owed()):
                break
            if world.time - began > bound:
                return f"after {bound:g} s: {owed[0]}"
            pause = 1.0 if done else min(pause * 8, 900.0)
            world.time += pause
        self.lines.append(f"{world.time:10.1f} all is done")
        self.took = world.time - began
        return next(self.judge.settle(), None)

    def round(self) -> bool:
        """Let everybody work until nobody has anything to do; tell whether anything was done."""
        before = dict(self.world.changes)
        for name, sender in self.sites.senders.items():
            if not sender.lives:
                sender.start()
            for _ in range(200):
                item = sender.step() if sender.lives else "is dead"
                if item in ("nothing", "is dead"):
                    break
                self.lines.append(f"{self.world.time:10.1f} {name}: {item}")
            else:
                self.sites.faults.append(f"sender {name} never rests")
        for inst in self.sites.homes:
            if said := self.curse() + self.sites.sweep(inst):
                self.lines.append(f"{self.world.time:10.1f} sweep {inst}: {said}")
        return before[TELESCOPE] != self.world.changes[TELESCOPE]

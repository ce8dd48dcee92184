"""lpxfer's side of a benchmark: a telescope site and an archive site, in one directory of memory.

Only the commands are used, and what xfer-spool(5) says of the spool: a state is a directory, so
the number of jobs in one is its number of links less two, which costs nothing to ask for.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cpu
from far_sshd import FarSshd
from wan import Ends

BIN = Path(sys.executable).parent
POLL = 0.005  # seconds
COMMAND = 600  # seconds that a command of ours may take
SETTLE = 2.0  # seconds in which the sender looks at what was submitted, before it may send

CONF = """\
[lpxfer]
spool = {root}/spool
queue = archive
host = bench
incoming = {root}/incoming
reserve = 0
[queue archive]
remhost = {host}:{port}
remuser = {user}
rempath = {root}/incoming
identity = {identity}
known_hosts = {known_hosts}
{settings}
[instrument bench]
dir = {root}/archive
"""


@dataclass(frozen=True)
class Instant:
    """When something had happened, and the CPU that it had taken."""

    seconds: float
    sender: float
    server: float
    sweep: float


class BothSites:
    """A sender and a following sweep that run all the time. Use it in a `with`.

    `settings` are keys of the queue, as an operator would set them. Where the programs do not
    start with them, the first use says why.
    """

    def __init__(
        self,
        root: Path,
        far: FarSshd,
        ends: Ends,
        groups: Mapping[str, cpu.Group],
        settings: Mapping[str, str],
    ) -> None:
        self.root, self._far, self._ends, self._groups = root, far, ends, groups
        self._settings = "\n".join(f"{key} = {value}" for key, value in settings.items())
        self.queue, self.archive = root / "spool" / "archive", root / "archive"
        self.environ = os.environ | {"XFER_CONF": str(root / "lpxfer.conf")}
        self._daemons = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "BothSites":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Make both sites anew, start the sender and the sweep."""
        for name in ("incoming", "archive"):
            (self.root / name).mkdir(parents=True)
        values = self._far.values() | {"root": self.root, "settings": self._settings}
        (self.root / "lpxfer.conf").write_text(CONF.format(**values))
        sender = [*self._groups["sender"].prefix, *self._ends.near, str(BIN / "xfer-send")]
        sweep = [*self._groups["sweep"].prefix, str(BIN / "xfer-sweep"), "-i", "bench", "--follow"]
        for name, command in (("sender", sender), ("sweep", sweep)):
            log = self._daemons.enter_context((self.root / f"{name}.log").open("ab"))
            process = self._daemons.enter_context(
                subprocess.Popen(
                    command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            )
            self._processes.append(process)
            self._daemons.callback(process.terminate)
            self._groups[name].watch(process.pid)

    def stop(self) -> None:
        """Stop both and remove the sites."""
        self._daemons.close()
        self._processes.clear()
        shutil.rmtree(self.root)

    def send(
        self, warm: Sequence[Path], files: Sequence[Path], limit: float
    ) -> tuple[Instant, Instant]:
        """Let files go; return when all were sent, and when the receipts of all had been read.

        Before that the warm files are sent and completed, so that the sender has its
        connections. The clock starts when the queue, which has all jobs by then, is enabled.
        Raises RuntimeError when jobs fail, or take longer than the limit.
        """
        self.submit(warm, "warm")
        self.wait(partial(self.are_over, "pending", "active", "sent"), limit)
        self.command("xfer-ctl", "disable", "archive")
        self.submit(files, "work")
        time.sleep(SETTLE)
        before = self._used()
        instants = []
        enable = [str(BIN / "xfer-ctl"), "enable", "archive"]
        with subprocess.Popen(enable, env=self.environ, stdin=subprocess.DEVNULL):
            self.wait(self._is_enabled, COMMAND, 0.001)
            began = time.monotonic()
            # twice pending, because a job may go back there while the others are looked at
            for states in ("pending active pending", "pending active pending sent"):
                self.wait(partial(self.are_over, *states.split()), limit)
                seconds = time.monotonic() - began
                used = [now - then for now, then in zip(self._used(), before, strict=True)]
                instants.append(Instant(seconds, *used))
        return instants[0], instants[1]

    def jobs(self, *states: str) -> int:
        """Return how many jobs are in these states."""
        return sum(os.stat(self.queue / state).st_nlink - 2 for state in states)

    def are_over(self, *states: str) -> bool:
        """Say that no job is in these states, one after the other."""
        return not self.jobs(*states)

    def _is_enabled(self) -> bool:
        return "enabled=no" not in (self.queue / "switches").read_text()

    def submit(self, files: Sequence[Path], directory: str) -> None:
        """Submit files, to be placed in a directory of the archive."""
        names = self.root / "names"
        names.write_bytes(b"".join(bytes(path) + b"\0" for path in files))
        option = f"inst=bench,dir={directory}"
        self.command("xfer-submit", "-s", "-0", "-o", option, "--files-from", str(names))

    def command(self, *words: str) -> str:
        """Run one of our commands; return what it printed."""
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND,
        )
        if done.returncode:
            self._fail(f"{' '.join(words)}: {done.stderr[-300:].strip()}")
        return done.stdout

    def wait(self, over: Callable[[], object], limit: float, poll: float = POLL) -> None:
        """Wait until something is over. Raises RuntimeError when that takes too long."""
        deadline = time.monotonic() + limit
        checked = 0.0
        while not self._is_over(over):
            now = time.monotonic()
            if now > deadline:
                self._fail(f"not over after {limit:g} s")
            if now > checked + 1:
                checked = now
                self._check()
            time.sleep(poll)

    def _is_over(self, over: Callable[[], object]) -> object:
        try:
            return over()
        except FileNotFoundError:  # the sender has not made the queue yet
            return False

    def _check(self) -> None:
        if any(process.poll() is not None for process in self._processes):
            self._fail("the sender or the sweep has ended")
        if (self.queue / "quarantine").exists() and self.jobs("failed", "quarantine"):
            self._fail("jobs failed")

    def _fail(self, reason: str) -> None:
        logs = (self.root / f"{name}.log" for name in ("sender", "sweep"))
        said = " ".join(log.read_text(errors="replace")[-300:].strip() for log in logs)
        raise RuntimeError(f"{reason} {said}".strip())

    def daemons_used(self) -> list[float]:
        """Return the CPU seconds of the sender and of the sweep."""
        return [cpu.used(process.pid, ended=False) for process in self._processes]

    def _used(self) -> tuple[float, float, float]:
        sender, sweep = (self._groups[name].seconds() for name in ("sender", "sweep"))
        return sender, self._far.group.seconds(), sweep

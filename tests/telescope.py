"""A telescope site's queue and its sender, before an sshd: what tests of the sender play with."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sshd import Sshd

from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.formats.record import Record, dump
from lpxfer.steps.confirm import Confirm, Verdict
from lpxfer.steps.send import Sender
from lpxfer.stores.spool import Queue, Spool

PATIENCE = 60.0  # seconds until a test that waits for something gives up


class Telescope:
    """A queue, its sender, and the archive site's incoming and receipts behind an sshd."""

    def __init__(self, root: Path, sshd: Sshd, make_job: Callable[..., Control]) -> None:
        self.root, self.sshd, self.make_job = root, sshd, make_job
        self.incoming, self.receipts = root / "incoming", root / "receipts"
        self.incoming.mkdir()
        self.said: list[str] = []
        self.settings = QueueConfig(
            "archive",
            remhost=f"{sshd.host}:{sshd.port}",
            rempath=str(self.incoming),
            remuser=sshd.user,
            identity=str(sshd.identity),
            known_hosts=str(sshd.known_hosts),
            stall=1.5,
            connections=2,
        )
        self.queue: Queue = Spool(root / "spool").queue("archive")
        self.clock = lambda: datetime.now(UTC)
        self.stop = threading.Event()
        self.threads: list[threading.Thread] = []

    def sender(self, **changes: object) -> Sender:
        settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        confirm = Confirm(self.queue, settings, self.sshd.user, self.said.append)
        return Sender(
            self.queue,
            settings,
            self.sshd.user,
            confirm.run,
            lambda *job: confirm.find(*job) is Verdict.COMPLETED,
            self.said.append,
            lambda: self.clock(),
        )

    def serve(self, **changes: object) -> None:
        """Run a sender in the background until `halt`."""
        sender = self.sender(**changes)
        thread = threading.Thread(target=sender.serve, args=(self.stop, lambda: None))
        thread.start()
        self.threads.append(thread)

    def halt(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE)
        self.threads.clear()
        self.stop.clear()

    def job(self, data: bytes = b"data", **fields: object) -> Control:
        return self.make_job(self.queue, data, **fields)

    def state(self, job: Control) -> State | None:
        return self.queue.where(job.job)

    def routing(self, job: Control) -> Routing:
        with self.queue.open(job.job, self.state(job) or State.PENDING) as opened:
            return opened.routing()

    def wait_for(self, job: Control, *states: State | None) -> None:
        deadline = time.monotonic() + PATIENCE
        while (state := self.state(job)) not in states:
            assert time.monotonic() < deadline, f"{job.job} is {state}: {self.said}"
            time.sleep(0.02)

    def wait_said(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not any(words in line for line in self.said):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def arrived(self, job: Control) -> bytes | None:
        path = self.incoming / f"{job.uid}.data"
        control = self.incoming / f"{job.uid}.control"
        return path.read_bytes() if control.exists() else None

    def receive(self, job: Control, kind: str = "stored") -> None:
        """Write a receipt as a sweep does, and take the arrival away."""
        directory = self.receipts / job.host
        directory.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        fields = {"inst": job.inst, "uid": job.uid, "checksum": job.checksum}
        with (directory / f"sweeper-{now:%Y%m%d}.log").open("ab") as log:
            log.write(dump(Record(now, kind, fields)))
        for suffix in ("data", "control"):
            (self.incoming / f"{job.uid}.{suffix}").unlink(missing_ok=True)

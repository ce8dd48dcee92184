"""The archive site's power is cut after each reply of its sshd in a whole deposit over SFTP.

The telescope site goes on. The disk that incoming is on loses what was not synced, its sshd is
killed and started again; then senders and sweeps must archive the job, once.
"""

import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from sshd import SSHD, Sshd
from torture.disk import Disk

from lpxfer.formats import record
from lpxfer.formats.config import InstrumentConfig, QueueConfig
from lpxfer.formats.job import State
from lpxfer.steps.confirm import Confirm, Verdict
from lpxfer.steps.send import Sender
from lpxfer.steps.submit import Order, submit
from lpxfer.steps.sweep import Rules, sweep
from lpxfer.stores.archive import Archive
from lpxfer.stores.incoming import Incoming
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.job_dir import account
from lpxfer.stores.receipts import Receipts
from lpxfer.stores.spool import Queue, Spool
from lpxfer.transports import wire

SUBMITTED = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
PATIENCE = timedelta(hours=2)  # between two senders: a receipt is late then
SIZE = 700_000  # bytes of the file: three writes
SEED = 20261120  # chooses the replies of the short form
ROUNDS = 6  # of a sender and a sweep, at most, until all is done

missing = "" if os.path.exists(SSHD) else "there is no sshd"


class Far:
    """A telescope site here, an archive site on a disk, an sshd between them."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.here = Path(tempfile.mkdtemp(prefix="lpxfer-far-"))
        self.server = Sshd(self.here / "sshd")
        self.incoming = disk.path / "incoming"
        self.home = disk.path / "minicam"
        self.data = hashlib.shake_256(b"a frame").digest(SIZE)
        self.now = SUBMITTED
        self.said: list[str] = []
        self.replies = 0

    def __enter__(self) -> "Far":
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        shutil.rmtree(self.here)

    def try_cut(self, number: int) -> list[str]:
        """Cut after the server's `number`th reply, or when all was sent; return what is wrong."""
        queue = self._prepare()
        self.replies = 0
        real = wire.Session._packet

        def packet(session: wire.Session) -> Any:
            found = real(session)
            self.replies += 1
            if self.replies == number:
                self._cut()
            return found

        with mock.patch.object(wire.Session, "_packet", packet):
            self._send(queue)
        if not 0 < number <= self.replies:
            self._cut()
        self.disk.remount()
        self.server.start()
        problems = list(self._promised(queue))
        return problems or [*self._recover(queue), *self._archived(queue)]

    def _cut(self) -> None:
        self.disk.cut()
        self.server.stop()

    def _prepare(self) -> Queue:
        self.disk.clear()
        self.incoming.mkdir()
        self.home.mkdir()
        self.disk.sync()
        shutil.rmtree(self.here / "spool", ignore_errors=True)
        queue = Spool(self.here / "spool").queue("archive")
        path = self.here / "0123.fits"
        path.write_bytes(self.data)
        self.now = SUBMITTED
        order = Order(host="telescope", user=account(os.geteuid()), inst="minicam", dir="night")
        for result in submit(queue, [os.fsencode(path)], order, self.now):
            assert result.control, result.error
        return queue

    def _send(self, queue: Queue) -> int:
        server = self.server
        settings = QueueConfig(
            "archive",
            remhost=f"{server.host}:{server.port}",
            rempath=str(self.incoming),
            remuser=server.user,
            identity=str(server.identity),
            known_hosts=str(server.known_hosts),
            stall=20.0,
            connections=1,
        )
        confirm = Confirm(queue, settings, server.user, self.said.append)

        def find(*job: Any) -> bool:
            return confirm.find(*job) is Verdict.COMPLETED

        said, clock = self.said.append, self._clock
        return Sender(queue, settings, server.user, confirm.run, find, said, clock).once()

    def _clock(self) -> datetime:
        return self.now

    def _promised(self, queue: Queue) -> Iterator[str]:
        """What must be there as soon as the disk is back."""
        names = set(os.listdir(self.incoming))
        controls = [name for name in names if name.endswith(".control")]
        for name in controls:
            if name.removesuffix(".control") + ".data" not in names:
                yield f"{name} is there without its data"
        for name in names:
            path = self.incoming / name
            if name[0] != "." and path.stat().st_mode & 0o222:
                yield f"{name} is not sealed"
            if name[0] != "." and name.endswith(".data") and path.read_bytes() != self.data:
                yield f"{name} is torn"
        if queue.entries(State.SENT) and not controls:
            yield "the job is sent, every sync was acknowledged, and the arrival is gone"

    def _recover(self, queue: Queue) -> Iterator[str]:
        for _ in range(ROUNDS):
            self.now += PATIENCE
            left = self._send(queue)
            if not left:
                return
            self._sweep()
        yield f"{left} job(s) left after {ROUNDS} rounds: {self.said[-3:]}"

    def _sweep(self) -> None:
        with (
            Incoming(str(self.incoming)) as incoming,
            InstrumentDir(str(self.home)) as home,
            Receipts(str(self.disk.path / "receipts"), "sweeper") as receipts,
        ):
            rules = Rules(InstrumentConfig("minicam"))
            for _ in sweep(Archive(incoming, home, receipts, self._clock), rules):
                pass

    def _archived(self, queue: Queue) -> Iterator[str]:
        """What must be there in the end."""
        files = [p for p in self.home.rglob("*") if p.is_file() and p.name != ".lock"]
        placed = [p for p in files if "xferlogs" not in p.parts]
        if [p.read_bytes() for p in placed] != [self.data]:
            yield f"placed: {[str(p.relative_to(self.home)) for p in placed]}"
        logs = [p for p in files if "xferlogs" in p.parts]
        kinds = [record.load(line).kind for p in logs for line in p.read_bytes().splitlines(True)]
        if kinds != ["stored"]:
            yield f"the transfer log has {kinds}"
        if left := os.listdir(self.incoming):
            yield f"left in incoming: {left}"
        if (kinds := [entry.kind for entry in queue.log()]) != ["completed"]:
            yield f"the finished log has {kinds}"


def tries(disk: Disk, most: int | None) -> Iterator[tuple[str, list[str]]]:
    """Cut when all was sent, then after every reply, or `most` times; yield what is wrong."""
    with Far(disk) as far:
        yield "cut when all was sent", far.try_cut(0)
        every = range(1, far.replies + 1)
        chosen = every if most is None else random.Random(SEED).sample(every, most - 1)
        for number in chosen:
            yield f"cut after reply {number}", far.try_cut(number)

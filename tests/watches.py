"""An instrument's directory and its watch, on a real spool: what tests of xfer-watch play with."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from lpxfer.cli import xfer_watch
from lpxfer.formats import config
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores.spool import Queue, Spool

PATIENCE = 60.0  # seconds until a test that waits for something gives up


def wait_until(true: Callable[[], object], said: object = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


class Observatory:
    """One watched directory, `data`; its jobs stay in the queue `archive`."""

    def __init__(self, root: Path, **keys: str) -> None:
        self.root, self.data = root, root / "data"
        self.data.mkdir(exist_ok=True)
        self.conf = root / "lpxfer.conf"
        self.configure(**keys)
        self.said: list[str] = []
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self.queue: Queue = Spool(root / "spool").queue("archive")

    def configure(self, **keys: str) -> None:
        lines = [f"{key} = {value}\n" for key, value in ({"watch": str(self.data)} | keys).items()]
        self.conf.write_text(
            f"[lpxfer]\nspool = {self.root}/spool\nqueue = archive\nreserve = 0\n"
            f"[queue archive]\n[instrument minicam]\n{''.join(lines)}"
        )

    @property
    def config(self) -> config.Config:
        return config.parse(self.conf.read_text(), str(self.conf))

    def start(self) -> None:
        """Watch in a thread, as the command does, until `stop`."""
        self._stop, ready = threading.Event(), threading.Event()

        def run() -> None:
            with ExitStack() as stack:
                watch = xfer_watch._watch(self.config, "minicam", stack)
                watch.say = self.said.append
                instrument = self.config.instruments["minicam"]
                xfer_watch._serve(instrument, watch, False, self._stop, ready.set)

        self._thread = threading.Thread(target=run)
        self._thread.start()
        while not ready.wait(0.1):
            assert self._thread.is_alive()

    def stop(self) -> None:
        if self._thread:
            self._stop.set()
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()
            self._thread = None

    def once(self, **begin: bool) -> tuple[int, int]:
        with ExitStack() as stack:
            watch = xfer_watch._watch(self.config, "minicam", stack)
            watch.say = self.said.append
            watch.begin(**begin)
            return watch.once()

    def jobs(self) -> Iterator[tuple[Control, bytes]]:
        for entry in sorted(self.queue.entries(State.PENDING), key=lambda e: int(e.id[8:])):
            with self.queue.open(entry.id, State.PENDING) as job:
                data = (self.queue.root / "pending" / entry.id / "data").read_bytes()
                yield job.control(), data

    def submitted(self) -> list[tuple[str, bytes]]:
        """Return the path below `data` and the bytes of every job, in their order."""
        return [(str(Path(known.path).relative_to(self.data)), data) for known, data in self.jobs()]

    def names(self) -> list[str]:
        return sorted(name for name, _ in self.submitted())

    def wait_for(self, *names: str) -> None:
        """Wait until these files are submitted, each once, and nothing else is."""
        wait_until(lambda: self.queue.count(State.PENDING)[0] >= len(names), self.said)
        assert self.names() == sorted(names)

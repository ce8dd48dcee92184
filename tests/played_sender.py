"""A sender that a test plays: it holds the queue's lock and one active job, and does as told."""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from lpxfer.formats.attempts import COMMIT
from lpxfer.formats.job import State
from lpxfer.stores.job_dir import CANCEL
from lpxfer.stores.queue import Queue

PATIENCE = 30.0  # seconds until a test gives up


class PlayedSender:
    """Claims one job in a thread, and obeys requests until it is told to commit or to die."""

    def __init__(self, root: Path, name: str, job_id: str, obedient: bool = True) -> None:
        self._queue = Queue(root, name)
        self._job_id, self._obedient = job_id, obedient
        self._claimed = threading.Event()
        self._word = ""
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "PlayedSender":
        self._thread.start()
        assert self._claimed.wait(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.tell("die")
        self._queue.close()

    def tell(self, word: str) -> None:
        """Let it `commit` (the job is sent), `lose` (committed, then the link is lost) or `die`."""
        if not self._told.is_set():
            self._word = word
            self._told.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with self._queue.locked(), self._queue.claim(self._job_id) as job:
            self._claimed.set()
            while not self._told.is_set():
                if (word := job.request()) and self._obedient:
                    job.set_request(None)
                    now = datetime.now(UTC)
                    if word == CANCEL:
                        self._queue.finish(job.id, State.ACTIVE, State.CANCELED, "asked", now)
                    else:
                        self._queue.move(job.id, State.ACTIVE, State.HELD)
                    return
                time.sleep(0.005)
            if self._word in ("commit", "lose"):
                job.note(COMMIT, datetime.now(UTC), sync=True)
                there = State.SENT if self._word == "commit" else State.PENDING
                self._queue.move(job.id, State.ACTIVE, there)

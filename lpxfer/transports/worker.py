"""One call in a thread of its own, which its caller can leave behind.

A network file system that hangs blocks whoever touches it, past any signal. The caller
waits for the thread, not for the file system, and can be told to stop waiting. What the
caller asked to be called meanwhile is called in the caller's own thread.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class GivenUp(Exception):
    """Raised in the worker's thread: nobody waits for it any more."""


class Worker(threading.Thread, Generic[T]):
    """Runs `work(worker)`; the caller starts it and waits in `result`."""

    def __init__(self, work: "Callable[[Worker[T]], T]") -> None:
        """Prepare a thread that does not keep the process from ending."""
        super().__init__(name="lpxfer worker", daemon=True)
        self._work = work
        #: What the caller's thread is to do next; the last one ends its wait.
        self._asked: SimpleQueue[tuple[bool, Callable[[], T | None]]] = SimpleQueue()
        self._answered = threading.Semaphore(0)
        self._over = False
        #: Called whenever a step is done.
        self.progress: Callable[[], None] = lambda: None

    def run(self) -> None:
        """Do the work and hand its outcome to the caller."""
        try:
            outcome = self._work(self)
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            self.leave(error)
        else:
            self._asked.put((True, lambda: outcome))

    def result(self) -> T:
        """Wait for the outcome, calling meanwhile what the worker asks for."""
        try:
            while True:
                last, call = self._asked.get()
                value = call()
                if last:
                    return value  # type: ignore[return-value]
                self._answered.release()
        finally:
            self._over = True
            self._answered.release()

    def leave(self, error: BaseException) -> None:
        """Make the caller raise `error`; the worker stops at its next step."""

        def fail() -> None:
            raise error

        self._asked.put((True, fail))

    def step(self) -> None:
        """Say, in the worker's thread, that a step is done. Raises GivenUp after the end."""
        if self._over:
            raise GivenUp
        self.progress()

    def ask(self, call: Callable[[], None]) -> None:
        """Have something called in the caller's thread, and wait for it."""
        self._asked.put((False, call))
        self._answered.acquire()
        self.step()

"""A command that stays: threads until a signal, and what systemd is told meanwhile."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence

#: Works until the event is set, and calls the function now and then.
Work = Callable[[threading.Event, Callable[[], None]], None]


def serve(works: Sequence[Work]) -> None:
    """Run one thread for each until a signal; one that cannot go on ends all."""
    stop = threading.Event()
    failed: list[BaseException] = []
    beats = [0] * len(works)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) wants it
            signal.signal(number, lambda *_: stop.set())

    def run(index: int) -> None:
        def beat() -> None:
            beats[index] += 1

        try:
            works[index](stop, beat)
        except BaseException as error:  # noqa: BLE001 - reported by the main thread
            failed.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    _notify("READY=1")
    last = list(beats)
    while not stop.wait(5):
        if all(now > before for now, before in zip(beats, last, strict=True)):
            _notify("WATCHDOG=1")
            last = list(beats)
    _notify("STOPPING=1")
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _notify(state: str) -> None:
    """Tell systemd, where it is the parent; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            systemd.sendall(state.encode())

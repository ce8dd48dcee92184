"""xfer-send: the sender."""

import os
import signal
import socket
import sys
import threading
from datetime import UTC, datetime

import click

from lpxfer.cli import setup
from lpxfer.errors import UsageError
from lpxfer.formats.config import Config
from lpxfer.formats.keyvalue import printable
from lpxfer.steps.confirm import Confirm, Verdict
from lpxfer.steps.send import Sender
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Spool
from lpxfer.transports.bell import Bell


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@click.option("--once", is_flag=True, help="Make one pass and exit.")
@click.argument("queues", metavar="[QUEUE]...", nargs=-1)
@setup.common
def main(conf: str | None, once: bool, queues: tuple[str, ...]) -> None:
    """Send the jobs of queues (default: all) to the archive site, until told to stop.

    With --once: exit 0 when nothing is left, 75 when jobs are still deferred or unconfirmed.
    """
    config = setup.load_config(conf)
    names = list(queues) or sorted(config.queues)
    if not names:
        raise UsageError("no queue is configured: add a [queue NAME] section to lpxfer.conf")
    senders = [_sender(config, name) for name in names]
    if once:
        left = sum(sender.once() for sender in senders)
        if left:
            click.echo(f"xfer-send: {left} job(s) are left to send or to confirm", err=True)
        sys.exit(75 if left else 0)
    _serve(senders)


def _sender(config: Config, name: str) -> Sender:
    settings = config.find_queue(name)
    queue = Spool(setup.spool_path(config)).queue(name)
    me = account(os.geteuid())
    confirm = Confirm(queue, settings, me, _say)
    bell = Bell(settings.arrivals, settings.arrivals_token.removeprefix("file:"), _say)
    return Sender(
        queue,
        settings,
        me,
        confirm.run,
        lambda *job: confirm.find(*job) is Verdict.COMPLETED,
        _say,
        lambda: datetime.now(UTC),
        *([bell.ring] if settings.arrivals else []),
    )


def _say(line: str) -> None:
    click.echo(f"xfer-send: {printable(line)}", err=True)


def _serve(senders: list[Sender]) -> None:
    """Run one thread a queue until a signal; a queue that cannot be served ends all."""
    stop = threading.Event()
    failed: list[BaseException] = []
    beats = [0] * len(senders)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) wants it
            signal.signal(number, lambda *_: stop.set())

    def run(index: int) -> None:
        def beat() -> None:
            beats[index] += 1

        try:
            senders[index].serve(stop, beat)
        except BaseException as error:  # noqa: BLE001 - reported by the main thread
            failed.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(senders))]
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

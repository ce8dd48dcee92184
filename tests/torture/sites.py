"""Both sites of a scenario beneath one directory, and the real steps at work on them.

    root/telescope/  night/ (what is submitted)   spool/
    root/archive/    incoming/  receipts/  minicam/ (instrument directory)  any/ (strangers)
                    logs/ (when it is there: what -L and -l name)

Either directory may be a mount point. Clocks are fixed, and in the future of the disks' own:
whatever stands in incoming is old enough for `xfer-sweep -A`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from lpxfer import durable
from lpxfer.formats import record
from lpxfer.formats.accepts import Accepts
from lpxfer.formats.config import InstrumentConfig, QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.record import Record
from lpxfer.steps.confirm import Confirm, Verdict
from lpxfer.steps.send import Sender
from lpxfer.steps.submit import Order, Result, submit
from lpxfer.steps.sweep import Rules, sweep
from lpxfer.steps.sweep_any import AnyRules, sweep_any
from lpxfer.stores.archive import Archive, Outcome
from lpxfer.stores.incoming import Incoming
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.job_dir import account
from lpxfer.stores.receipts import Receipts
from lpxfer.stores.spool import Queue, Spool
from lpxfer.transports.accepts_known import AcceptsKnown
from lpxfer.transports.attempt import Overseer
from lpxfer.transports.carry import Carrier
from lpxfer.transports.local import LocalTransport
from lpxfer.transports.target import Links
from lpxfer.transports.worker import Worker

NOW = datetime(2033, 5, 17, 4, 0, tzinfo=UTC)
NIGHT = "2033.0517"  # the dated directory of what is submitted then
MTIME = 1_999_915_200_123_456_789  # of every file that is submitted
HOST = "telescope"
QUEUES = ("archive", "backup")
UMASK = 0o027  # of the account that sweeps: receipts must be readable all the same
ME = account(os.geteuid())
MINICAM = InstrumentConfig("minicam", validate=("invalid*",))  # no file here is a FITS file

Say = Callable[[str], None]


def data(number: int) -> bytes:
    """Return the bytes of a job, unlike those of any other."""
    return b"%07d\n" % number * 400


def make(root: Path) -> None:
    """Make what an administrator makes."""
    for name in ("telescope/night", "archive/incoming", "archive/minicam", "archive/any"):
        (root / name).mkdir(parents=True)


# --- the telescope site -------------------------------------------------------------------------


def source(root: Path, number: int, name: str = "") -> bytes:
    """Make a file to submit; return its path."""
    path = root / "telescope/night" / (name or f"{number:04}.fits")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data(number))
    os.utime(path, ns=(MTIME, MTIME))
    return os.fsencode(path)


@contextmanager
def spool(root: Path) -> Iterator[Spool]:
    """Open the spool."""
    opened = Spool(root / "telescope/spool")
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def queue(root: Path, name: str = "archive") -> Iterator[Queue]:
    """Open a queue, set up when it is not."""
    with spool(root) as opened:
        yield opened.queue(name)


def settings(root: Path, name: str = "archive") -> QueueConfig:
    """Return the settings of a queue that sends to the archive site over a mounted directory."""
    incoming = str(root / "archive/incoming")
    return QueueConfig(name, transport="local", rempath=incoming, connections=1)


def order(inst: str = "minicam", hold: bool = False) -> Order:
    """Return what is asked for every file."""
    return Order(host=HOST, user=ME, inst=inst, hold=hold)


def submitted(root: Path, paths: Sequence[bytes], asked: Order) -> list[Result]:
    """Submit files; raise what any of them got instead of an id."""
    with queue(root) as opened:
        results = list(submit(opened, paths, asked, NOW))
    for result in results:
        if result.error:
            raise result.error
    return results


def _ignored(*_: object) -> None:
    """Take no note of something, and know nothing of it."""


def _never(*_: object) -> bool:
    """Say no."""
    return False


def carry(
    root: Path,
    *job_ids: str,
    moves: Callable[[], None] = lambda: None,
    rate: float | None = None,
) -> list[bool]:
    """Claim jobs and carry them, as a worker of the sender does, in this thread.

    `moves` is called when the first byte has been acknowledged; `rate` is what the link was
    measured to carry, in bytes per second.
    """
    with queue(root) as opened, opened.locked():
        links = Links(settings(root))
        carrier = Carrier(
            opened,
            settings(root),
            ME,
            lambda *_: False,
            Overseer(_ignored, moves, _ignored, _ignored, _never, _never, lambda: rate),
            AcceptsKnown(lambda: NOW),
            put_last=lambda _: None,
            link_works=lambda: None,
            say=lambda _: None,
            clock=lambda: NOW,
        )
        done = [carrier.carry(job_id, links) for job_id in job_ids]
        links.close()
        return done


def confirm(root: Path, now: datetime = NOW) -> int:
    """Read receipts and finish jobs, as the sender does; return how many are left in sent/."""
    with queue(root) as opened, opened.locked():
        links = Links(settings(root))
        left = Confirm(opened, settings(root), ME, lambda _: None).run(links.connected, now)
        links.close()
        return left


def send_once(root: Path, now: datetime, name: str = "archive") -> int:
    """Do what `xfer-send --once` does; return how many jobs are left."""
    with queue(root, name) as opened:
        known = settings(root, name)
        confirming = Confirm(opened, known, ME, lambda _: None)
        sender = Sender(
            opened,
            known,
            ME,
            confirming.run,
            lambda *job: confirming.find(*job) is Verdict.COMPLETED,
            lambda _: None,
            lambda: now,
        )
        return sender.once()


class _Here(Worker[Any]):
    """A call in its caller's own thread."""

    def ask(self, call: Callable[[], None]) -> None:
        call()


@contextmanager
def nothing_hangs() -> Iterator[None]:
    """Let nobody watch over calls of the local transport for a block: two threads less for each."""
    with mock.patch.object(LocalTransport, "_run", lambda _, work, *__, **___: work(_Here(work))):
        yield


# --- the archive site ---------------------------------------------------------------------------


_heard: list[Say] = []


def tell(word: str) -> None:
    """Say a word to whoever listens, if anybody does."""
    for listener in _heard:
        listener(word)


@contextmanager
def heard(listener: Say) -> Iterator[None]:
    """Listen for a block to what is promised by those who were not told whom to tell."""
    _heard.append(listener)
    try:
        yield
    finally:
        _heard.remove(listener)


class Promising(Receipts):
    """Receipts that say when one has been given."""

    say: Say = staticmethod(lambda _: None)

    def append(self, host: str, now: datetime, *entries: Record) -> None:
        """Write receipts; the word is given at the instant this returns."""
        super().append(host, now, *entries)
        for entry in entries:
            self.say(f"receipt {record.uid_of(entry)} {entry.kind}")

    def accept(self, inst: str, understood: Accepts, now: datetime) -> None:
        """Say what is swept."""
        super().accept(inst, understood, now)
        self.say(f"accepts {inst}")


@contextmanager
def archive(root: Path, home: str, say: Say, now: datetime) -> Iterator[Archive]:
    """Open the places of one sweep, under the umask of its account."""
    logs = root / "archive/logs"
    log = (str(logs / home), "of/sweeps.log") if logs.exists() else ()  # -L and -l
    before = os.umask(UMASK)
    try:
        with ExitStack() as stack:
            receipts = stack.enter_context(Promising(str(root / "archive/receipts"), "mcam"))
            receipts.say = say  # type: ignore[method-assign]
            yield Archive(
                stack.enter_context(Incoming(str(root / "archive/incoming"))),
                stack.enter_context(InstrumentDir(str(root / "archive" / home), *log)),
                receipts,
                lambda: now,
            )
    finally:
        os.umask(before)


def sweep_minicam(root: Path, say: Say = tell, now: datetime = NOW) -> list[Outcome]:
    """Sweep the instrument."""
    with archive(root, "minicam", say, now) as places:
        return list(sweep(places, Rules(MINICAM)))


def sweep_strangers(root: Path, say: Say = tell, now: datetime = NOW) -> list[Outcome]:
    """Take away what no instrument's sweep takes."""
    with archive(root, "any", say, now) as places:
        return list(sweep_any(places, AnyRules(frozenset({"minicam"}), 7 * 86400.0)))


def arrival(root: Path, job_id: str) -> Path:
    """Return the path of a job's control file in incoming."""
    (found,) = (root / "archive/incoming").glob(f"*-{job_id}-*.control")
    return found


class Killed(BaseException):
    """Ends what runs as SIGKILL does: nothing is undone, nothing more is written."""


@contextmanager
def killed_at_sync(part: str) -> Iterator[None]:
    """Let what is done in a block be killed where it would sync a path that has `part` in it."""
    real = durable.sync

    def sync(fd: int) -> None:
        if part in os.readlink(f"/proc/self/fd/{fd}"):
            raise Killed
        real(fd)

    durable.sync = sync
    try:
        yield
        raise AssertionError(f"nothing syncs {part}")
    except Killed:
        pass
    finally:
        durable.sync = real


# --- until nothing is left to do ----------------------------------------------------------------


def recover(root: Path) -> None:
    """Run the commands of both sites, as cron and systemd would, until nothing is left to do."""
    for hours in range(0, 14, 2):
        now = NOW + timedelta(hours=hours, minutes=1)
        made = [name for name in QUEUES if (root / "telescope/spool" / name).exists()]
        left = sum(send_once(root, now, name) for name in made)
        sweep_minicam(root, now=now)
        sweep_strangers(root, now=now)
        if not left:
            break


def known_of(result: Result) -> Control:
    """Return the control file of what was submitted."""
    if result.control is None:
        raise AssertionError(result)
    return result.control

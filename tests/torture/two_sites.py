"""Both sites in one directory, driven by the real commands: in forked processes, or here.

Everything is imported before the fork, so a command costs milliseconds. `save` keeps the
present state, `restore` brings it back at the same path, for the next try.
"""

import contextlib
import gc
import hashlib
import importlib
import io
import os
import re
import select
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn
from unittest import mock

import paramiko  # noqa: F401 - imported here once, and not in each fork
from arrivals import records
from death import descriptors
from sshd import Sshd

import lpxfer.transports.local
import lpxfer.transports.sftp  # noqa: F401 - as above
from lpxfer.formats import record
from lpxfer.formats.record import Record
from lpxfer.steps import fsck_instrument, fsck_spool, sweep_any
from lpxfer.stores.spool import Spool
from lpxfer.stores.survey import made

COMMANDS = ("xfer-submit", "xfer-send", "xfer-sweep", "xfer-cancel", "xfer-ctl")
MAINS = {name: importlib.import_module(f"lpxfer.cli.{name.replace('-', '_')}").main
         for name in COMMANDS}  # fmt: skip

PATIENCE = 60  # seconds until a command that does not end is a violation

CONF = """\
[lpxfer]
spool = {root}/spool
queue = archive
host = telescope
incoming = {root}/incoming
receipts = {root}/receipts
strangers = {root}/strangers
reserve = 0
stale = 0

[instrument minicam]
dir = {root}/minicam
validate = invalid*
"""
QUEUE = """
[queue {queue}]
rempath = {root}/incoming
receipts = {root}/receipts
link = yes
connections = {connections}
stall = 20
{transport}
"""
SFTP = """\
remhost = {sshd.host}:{sshd.port}
remuser = {sshd.user}
identity = {sshd.identity}
known_hosts = {sshd.known_hosts}"""

Act = Callable[[], object]

#: What a command may handle in its own way.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)

STATES = ("tmp", "pending", "held", "active", "sent", "failed", "quarantine", "done")


@dataclass(frozen=True)
class Said:
    """What a command has said until it ended or was killed; -9 and less: by a signal."""

    status: int
    out: str
    err: str

    @property
    def ids(self) -> list[str]:
        """The request ids that reached the caller."""
        found = []
        for first, last in re.findall(
            r"^request ids? (?:is|are) (\S+)(?: … (\S+))? \(\d+ file\(s\)\)$", self.out, re.M
        ):
            queue, number = first.rsplit("-", 1)
            end = int(last.rsplit("-", 1)[1]) if last else int(number)
            found += [f"{queue}-{n}" for n in range(int(number), end + 1)]
        return found


class Running:
    """A command in a forked process; its output reaches us as it would a shell's pipe."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._out, write = os.pipe()
        self._err = os.memfd_create("stderr")

        def redirected() -> int:
            os.dup2(write, 1)
            os.dup2(self._err, 2)
            sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))
            return _status(act)

        self.redirected, self._write = redirected, write

    def start(self) -> "Running":
        """Start it."""
        self._pid = os.fork()
        if self._pid == 0:
            os._exit(self.redirected())
        return self

    def wait(self) -> Said:
        """Wait for its end, but not for ever."""
        pidfd = os.pidfd_open(self._pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        ended = poll.poll(PATIENCE * 1000)
        os.close(pidfd)
        if not ended:
            os.kill(self._pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self.said(status if ended else -99)

    def heard(self) -> str:
        """Return what it has said on stderr until now."""
        return os.pread(self._err, 1 << 20, 0).decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self._pid, number)

    def said(self, status: int) -> Said:
        """Collect what it has said."""
        os.close(self._write)
        with open(self._out, encoding="utf-8", errors="replace") as out:
            text = out.read()
        err = self.heard()
        os.close(self._err)
        return Said(status, text, err)


def here(act: Act) -> Said:
    """Do in this process what is not to be killed: forking one costs more than most commands.

    What it leaves open for the end of its process is closed.
    """
    before = descriptors()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGALRM, _never_ends)
    left = signal.alarm(PATIENCE)
    try:
        with io.StringIO() as out, io.StringIO() as err:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = _status(act)
            return Said(status, out.getvalue(), err.getvalue())
    finally:
        signal.alarm(left)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if descriptors() - before:
            gc.collect()


def _never_ends(*_: object) -> NoReturn:
    raise TimeoutError(f"it does not end within {PATIENCE} s")


def _status(act: Act) -> int:
    status = 99
    try:
        act()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - a fork must not return
        traceback.print_exc()
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    return status


class TwoSites:
    """A telescope site with two queues, and its archive site."""

    def __init__(self, root: Path, sshd: Sshd | None = None) -> None:
        """Make it at a path that does not exist; the queues are local without an sshd."""
        self.root, self._saved = root, root.with_name(root.name + ".saved")
        self.incoming, self.receipts = root / "incoming", root / "receipts"
        self.minicam, self.strangers = root / "minicam", root / "strangers"
        self.night = root / "2026.1120"
        self.watch: Callable[[Act], Act] = lambda act: act  # around what `settle` runs
        for path in (self.incoming, self.minicam, self.strangers, self.night):
            path.mkdir(parents=True)
        transport = SFTP.format(sshd=sshd) if sshd else "transport = local"
        self.conf, self.calm = root / "lpxfer.conf", root / "calm.conf"
        for conf, connections in ((self.conf, 3), (self.calm, 1)):
            text = CONF.format(root=root)
            for queue in ("archive", "other"):
                text += QUEUE.format(
                    root=root, queue=queue, connections=connections, transport=transport
                )
            conf.write_text(text)
        with contextlib.closing(Spool(root / "spool")) as spool:
            spool.queue("archive")
            spool.queue("other")

    def save(self) -> None:
        """Keep the present state for `restore`."""
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self.root, self._saved, symlinks=True)

    def restore(self) -> None:
        """Bring the kept state back."""
        shutil.rmtree(self.root)
        shutil.copytree(self._saved, self.root, symlinks=True)

    def make_files(self, *names: str, below: str = "", size: int = 3000) -> list[Path]:
        """Write files as an instrument would; those of one name differ."""
        directory = self.root / below / "2026.1120"
        directory.mkdir(parents=True, exist_ok=True)
        files = [directory / name for name in names]
        for path in files:
            path.write_bytes(hashlib.sha256(f"{below}{path.name}".encode()).digest() * (size // 32))
        return files

    # --- commands -------------------------------------------------------------------------

    def command(self, name: str, *words: object, calm: bool = False) -> Callable[[], object]:
        """Return what runs a command; `calm`: over one connection."""

        def act() -> object:
            args = ["--config", str(self.calm if calm else self.conf), *map(str, words)]
            return MAINS[name].main(args, prog_name=name)

        return act

    def run(self, name: str, *words: object) -> Said:
        """Run a command to its end, in this process."""
        return here(self.command(name, *words))

    def sweep_any(self) -> object:
        """Sweep strangers, and set aside what is no arrival as if it were old."""
        with mock.patch.object(sweep_any, "HALF_AGE", -1.0):
            return self.command("xfer-sweep", "-A")()

    def settle(self, after: Sequence[Callable[[], object]] = ()) -> str | None:
        """Sweep and send until nothing is left, as cron would; say what went wrong."""
        sweeps = (self.command("xfer-sweep", "-i", "minicam"), *after)
        said = Said(0, "", "")
        for _ in range(5):
            for act in sweeps:
                swept = here(self.watch(act))
                if swept.status not in (0, 1) or "Traceback" in swept.err:
                    return f"the next sweep ended with {swept.status}: {swept.err}"
            act = self.watch(self.command("xfer-send", "--once", calm=True))
            said = here(act)
            if said.status == 0:
                return None
            if said.status != 75 or "Traceback" in said.err:
                return f"the next sender ended with {said.status}: {said.err}"
            for queue in ("archive", "other"):  # the deferred ones: so much for the waiting
                if ids := os.listdir(self.root / "spool" / queue / "pending"):
                    self.run("xfer-ctl", "retry", *ids)
        return f"it does not settle: {said.err}"

    # --- what must hold -------------------------------------------------------------------

    def faults(self) -> list[str]:
        """Return what xfer-fsck calls broken, on both sides."""
        with contextlib.closing(Spool(self.root / "spool")) as spool:
            queues = made(spool)
            report = fsck_spool.fsck(spool, queues, queues, False, lambda *_: None)
        found = list(report.findings)
        for home in (self.minicam, self.strangers):
            if (home / "xferlogs").exists():
                now = datetime.now(UTC) + timedelta(days=2)
                found += fsck_instrument.fsck(str(home), False, now, lambda *_: None).findings
        return [f"{f.where}: {f.message}" for f in found if not f.warning]

    def where(self, job_id: str) -> str:
        """Return the state directory of a job, `log` for one in the finished log, or nothing."""
        for queue in ("archive", "other"):
            for state in STATES:
                if (self.root / "spool" / queue / state / job_id).exists():
                    return state
        return "log" if any(e.fields.get("job") == job_id for e in self.finished()) else ""

    def finished(self) -> list[Record]:
        """Return all records of the finished logs."""
        logs = sorted((self.root / "spool").glob("*/log"))
        return [entry for log in logs for entry in _records(log)]

    def unsettled(self, owed: Sequence[str], files: dict[str, int]) -> str | None:
        """Say what is wrong when all is done; None when nothing is.

        `owed` are the ids of jobs that must be archived; `files` says how often each
        checksum must stand in the archive.
        """
        for queue in ("archive", "other"):
            if left := list((self.root / "spool" / queue).glob(".*")):
                return f"LEFT OVER: {left}"
            for state in STATES:
                if left := os.listdir(self.root / "spool" / queue / state):
                    return f"{queue}/{state} is not empty: {left}"
        finished = self.finished()
        canceled = [e.fields["uid"] for e in finished if e.kind == "canceled"]
        left = os.listdir(self.incoming)
        left = [n for n in left if not any(u in n and n != f"{u}.control" for u in canceled)]
        known = [e.fields["uid"] for e in finished]
        left = [n for n in left if any(u in n for u in known) or n.endswith(".control")]
        if left:  # the halves of a canceled job, or of a bundle, are for `xfer-sweep -A`
            return f"incoming is not empty: {left}"
        if several := _several(entry.fields["job"] for entry in finished):
            return f"more than one line in the finished log: {several}"
        completed = {e.fields["job"]: e for e in finished if e.kind == "completed"}
        if missing := set(owed) - completed.keys():
            return f"LOST: acknowledged and not completed: {missing}"
        return self._placed(completed, files) or "; ".join(self.faults()) or None

    def _placed(self, completed: dict[str, Record], files: dict[str, int]) -> str | None:
        homes = (self.minicam, self.strangers)
        logged = {home: _records(home / "xferlogs") for home in homes}
        found: Counter[str] = Counter()
        for home in homes:
            if wrong := _quarantine(home, logged[home]):
                return wrong
            for path in home.rglob("*"):
                parts = path.relative_to(home).parts
                if path.is_dir() or parts[0] in ("xferlogs", "quarantine") or parts == (".lock",):
                    continue
                if path.name.startswith("."):
                    return f"LEFT OVER: {path.relative_to(self.root)}"
                if not path.name.endswith(".control"):
                    found[_digest(path)] += 1
        if found != Counter(files):
            return f"LOST or twice: in the archive {dict(found)}, should be {files}"
        receipts = {e.fields["uid"]: e for e in _records(self.receipts / "telescope")
                    if record.is_held(e)}  # fmt: skip
        held = [(home, e) for home, log in logged.items() for e in log if record.is_held(e)]
        if several := _several(entry.fields["uid"] for _, entry in held):
            return f"more than one record in the transfer log: {several}"
        if left := list(self.receipts.rglob(".*")):
            return f"LEFT OVER: {left}"
        places = {entry.fields["uid"]: home / entry.fields["placed"] for home, entry in held}
        for job_id, entry in completed.items():
            uid = entry.fields["uid"]
            if uid not in receipts or uid not in places:
                return f"LOST: {job_id} is completed without a record or a receipt"
            if _digest(places[uid]) != entry.fields["checksum"]:
                return f"LOST: {job_id} has other bytes in the archive"
        return None


def _quarantine(home: Path, log: Sequence[Record]) -> str | None:
    """Say what is wrong with what was set aside: each thing once, with a reason and a record."""
    reasons = list(home.glob("quarantine/*.reason"))
    if empty := [path.name for path in reasons if not path.read_text().endswith("\n")]:
        return f"quarantine without a reason: {empty}"
    kinds = (record.QUARANTINED, record.MISMATCH)
    said = [
        (e.fields.get("placed", ""), e.fields.get("reason", "")) for e in log if e.kind in kinds
    ]
    told = [
        re.sub(r"\.(data|control)$", "", placed)
        for placed, why in said
        if not any(more != why and more.startswith(why) for _, more in said)
    ]  # else torn
    stems = [f"quarantine/{path.name.removesuffix('.reason')}" for path in reasons]
    if Counter(told) != Counter(stems):
        return f"in quarantine {sorted(stems)}, in the transfer log {sorted(told)}"
    return None


def _records(directory: Path) -> list[Record]:
    return records(directory) if directory.exists() else []


def _several(words: Iterator[str]) -> list[str]:
    return [word for word, count in Counter(words).items() if count > 1]


def _digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"

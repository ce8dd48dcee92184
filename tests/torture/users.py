"""One member of the spool's group against another, the sender, and the files outside.

The spool is made by the tmpfiles.d of etc/; the accounts are real. After each attack the other
member's job must be archived exactly once and a second one be taken, within the patience below;
nothing secret may be anywhere it does not belong, and nothing outside may have changed.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from accounts import Running, accounts, own, start
from several_users import ALICE, BOB, GROUP, SENDER, System, by_tmpfiles
from torture.members import Attack, View, attacks
from torture.table import Result

from lpxfer.formats import names
from lpxfer.stores import numbers
from lpxfer.stores.layout import WITH_JOBS

PATIENCE = 30.0  # seconds that one command may take beside an attack
LINES = 12  # that one attack may add to what a pass of the sender says
SETTLE = 3  # rounds more until jobs of one name have got past each other
CROWD = 3_000
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # nothing here is about disks

_WIRE = re.compile(rf"\.?{names.UID.pattern}\.(data|control)(\.part)?")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


class Telescope(System):
    """The spool of several users and the sender's archive site, to be attacked again and again."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.slowest = 0.0  # seconds that one command took
        self.spool.rmdir()
        by_tmpfiles(self.spool)
        self.home, self.outside, self.instrument = root / "home", root / "outside", root / "minicam"
        for path, mode in ((self.home, 0o700), (self.outside, 0o755), (self.instrument, 0o755)):
            path.mkdir()
            own(path, SENDER, mode)
        self.secrets = {name: os.urandom(20).hex().encode() for name in ("key", "private", "data")}
        (self.home / "key").write_bytes(self.secrets["key"])
        own(self.home / "key", SENDER, 0o600)
        self.private = Path(self.file(BOB, "private", self.secrets["private"]))
        (self.outside / "canary").write_bytes(b"nobody changes this")
        own(self.outside / "canary", SENDER, 0o644)
        (root / "members").mkdir()
        own(root / "members", ALICE, 0o755)
        self.conf.write_text(
            f"[lpxfer]\nspool = {self.spool}\nqueue = archive\nreserve = 0\nhost = telescope\n"
            f"incoming = {root}/incoming\nreceipts = {root}/receipts\n"
            f"[queue archive]\ntransport = local\nrempath = {root}/incoming\nlink = no\n"
            f"inst = minicam\nstall = 3s\n[instrument minicam]\ndir = {self.instrument}\n"
        )

    def outside_now(self) -> dict[str, tuple[int, ...]]:
        """What nobody may change: files outside, by inode, size, time, mode and owner."""
        found = {}
        for top in (self.home, self.outside, self.private):
            for path in (top, *top.rglob("*")):
                if _WIRE.fullmatch(path.name):  # known limit: -o rempath= leads anywhere
                    continue
                s = path.lstat()
                told = (s.st_ino, s.st_size, s.st_mtime_ns, s.st_mode, s.st_uid)
                found[str(path)] = told if not path.is_dir() else (s.st_ino, s.st_mode)
        return found

    def clear(self) -> None:
        """Forget all jobs, whatever was made of them."""
        places = [self.queue / word for word in (*WITH_JOBS, "log")]
        for word in ("incoming", "receipts", "members", "minicam"):
            places.append(self.root / word)
        for path in (path for place in places for path in place.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for name in ("seq", "lock"):
            (self.queue / name).write_bytes(b"")
        log = self.queue / f"log/{datetime.now(UTC):%Y%m%d}.log"
        log.touch()  # somebody has finished a job today: it can be opened, and its lock kept
        own(log, SENDER, 0o640)


class Broken(Exception):
    """A promise was broken; the text says which."""


class Try:
    """One attack, and all that is looked at after it."""

    def __init__(self, site: Telescope, attack: Attack) -> None:
        self.site, self.attack = site, attack
        self.said: list[str] = []

    def run(self) -> None:
        """Raise Broken when a promise was broken."""
        site = self.site
        site.clear()
        mine, theirs = site.job(ALICE, "mine.fits", b"the member's own"), self.submit("one.fits")
        before = site.outside_now()
        if self.attack.when == "sent":
            self.sender()
        view = View(site.queue, ALICE, mine, theirs, site.home / "key", site.private, site.outside)
        child = start(ALICE, lambda: self.attack.act(view))
        try:
            self.wait(child)
            self.round()
            second = self.submit("two.fits")
            self.round()
            for _ in range(SETTLE):
                if self.finished(theirs, second):
                    break
                self.round()
        finally:
            child.signal(signal.SIGKILL)
            self.said.append(child.wait(PATIENCE)[1])
        self.judge((theirs, second), before)

    def wait(self, child: Running) -> None:
        """Wait until the attack is made, or under way."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if child.over() or child.output.seek(0) or b"under way" in child.output.read():
                return
            time.sleep(0.002)

    def round(self) -> None:
        """Send, sweep, confirm."""
        self.sender()
        self.sweep()
        self.sender()

    def submit(self, name: str) -> str:
        """Submit a file of the other member's."""
        data = self.site.secrets["data"] + name.encode()
        path = self.site.file(BOB, name, data)
        said = self.command(BOB, (0,), "xfer-submit", path)
        return said.split()[3]

    def sender(self) -> None:
        """Let the sender make one pass."""
        said = self.command(SENDER, (0, 75), "xfer-send", "--once")
        if said.count("\n") > LINES:
            raise Broken(f"the sender says {said.count(chr(10))} lines: {said[:300]!r}")

    def sweep(self) -> None:
        """Sweep at the archive site; what a member sent may be quarantined there."""
        self.command(SENDER, (0, 1, 75), "xfer-sweep", "-i", "minicam")

    def command(self, user: str, fine: tuple[int, ...], command: str, *words: str) -> str:
        begun = time.monotonic()
        status, said = self.site.run(user, command, *words, seconds=PATIENCE)
        if status not in fine:
            what = f"does not end in {PATIENCE:.0f} s" if status == -9 else f"ends with {status}"
            raise Broken(f"{command} {what}: {said[-300:]!r}")
        if "Traceback" in said:
            raise Broken(f"{command}: {said[-500:]!r}")
        if bad := _CONTROLS.search(said):
            raise Broken(f"{command} prints {bad[0]!r}: {said[:300]!r}")
        self.said.append(said)
        self.site.slowest = max(self.site.slowest, time.monotonic() - begun)
        return said

    def finished(self, *jobs: str) -> bool:
        """Tell whether the finished log speaks of the other member's jobs."""
        log = b"".join(path.read_bytes() for path in (self.site.queue / "log").glob("*.log"))
        pairs = zip(jobs, ("one.fits", "two.fits"), strict=True)
        return all(
            f" job={job} " in log.decode() and f" name={n} ".encode() in log for job, n in pairs
        )

    def judge(self, jobs: tuple[str, ...], before: dict[str, tuple[int, ...]]) -> None:
        """Look at everything that must hold."""
        site = self.site
        log = b"".join(path.read_bytes() for path in (site.queue / "log").glob("*.log"))
        stored = [path.read_bytes() for path in site.instrument.rglob("*") if path.is_file()]
        for job, name in zip(jobs, ("one.fits", "two.fits"), strict=True):
            copies = stored.count(site.secrets["data"] + name.encode())
            if copies != 1:
                raise Broken(f"{job} of the other member is archived {copies} times")
            lines = [line for line in log.splitlines() if f" job={job} ".encode() in line]
            honest = [line for line in lines if f" name={name} ".encode() in line]
            if len(honest) != 1 or b"Z completed " not in honest[0]:
                raise Broken(f"{job} has {len(honest)} true lines in the finished log: {lines}")
        if f" user={BOB} ".encode() in b"".join(
            line for line in log.splitlines() if b" name=one.fits " not in line
            and b" name=two.fits " not in line
        ):  # fmt: skip
            raise Broken(f"a line of the finished log is told to be the other's: {log!r}")
        after = site.outside_now()
        if after != before:
            changed = sorted(set(before.items()) ^ set(after.items()))
            raise Broken(f"files outside have changed: {changed[:4]}")
        self.secrets_kept()
        self.command(BOB, (0, 1), "xfer-stat", "-l", "-a", "-W", "all")
        self.command(SENDER, (0, 1), "xfer-stat", "--check")
        if self.attack.fsck:
            self.command(SENDER, (0, 1, 75), "xfer-fsck")

    def secrets_kept(self) -> None:
        """Raise Broken when a secret is where it does not belong."""
        site, said = self.site, "".join(self.said).encode()
        for name, secret in site.secrets.items():
            if secret in said:
                raise Broken(f"the {name} was printed")
        for top in (site.root / "incoming", site.root / "receipts", site.instrument, site.queue,
                    site.root / "members"):  # fmt: skip
            for path in top.rglob("*"):
                status = path.lstat()
                if path.is_symlink() or not path.is_file() or status.st_size > 1 << 20:
                    continue
                text = path.read_bytes()
                if site.secrets["key"] in text or site.secrets["private"] in text:
                    raise Broken(f"a secret is in {path}")
                if site.secrets["data"] in text and status.st_uid == pwd.getpwnam(ALICE).pw_uid:
                    raise Broken(f"the other's data is in {path}")


def run(short: bool) -> Iterator[Result]:
    """Try every attack once."""
    result = Result("a member of the spool's group against the others")
    if os.geteuid() != 0:
        result.not_run = "needs root: real accounts"
        yield result
        return
    with contextlib.ExitStack() as stack:
        numbers.PATIENCE, patience = 0.3, numbers.PATIENCE  # it is waited for often
        stack.callback(setattr, numbers, "PATIENCE", patience)
        stack.enter_context(accounts(SENDER, ALICE, BOB, group=GROUP))
        root = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="lpxfer-users-", dir=MEMORY))
        )
        site = Telescope(root)
        for attack in attacks(300 if short else CROWD):
            if short and not attack.short:
                continue
            if not re.search(os.environ.get("TORTURE_ONLY", ""), attack.words):
                continue
            result.count(one(site, attack))
        result.notes["slowest command, seconds"] = round(site.slowest, 1)
    yield result


def one(site: Telescope, attack: Attack) -> str | None:
    """Make one attack; return what it broke."""
    try:
        Try(site, attack).run()
    except Broken as broken:
        return f"TORTURE_ONLY={re.escape(attack.words)!r}: {broken}"
    return None

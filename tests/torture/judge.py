"""What must hold after every step of a simulated transfer, and at its end.

The judge reads the disks only; it knows beside them what was submitted, and what was asked.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from torture.stage import HOST, QUEUES, STRANGER, SWEPT, Sites
from torture.virtual import ARCHIVE, START, TELESCOPE

from lpxfer import checksum
from lpxfer.errors import FormatError
from lpxfer.formats import control, finding, record
from lpxfer.formats.control import Control
from lpxfer.formats.finding import Finding
from lpxfer.formats.record import Record
from lpxfer.formats.testimony import Weight
from lpxfer.formats.window import Window
from lpxfer.steps import fsck_instrument, fsck_spool
from lpxfer.steps.audit import Question, Sources, audit
from lpxfer.stores.layout import WITH_JOBS
from lpxfer.stores.spool import Spool

STATES = tuple(word for word in WITH_JOBS if word != "tmp")


@dataclass
class Job:
    """What is known of a job beside what the disks say."""

    known: Control
    acknowledged: bool = False
    cancel_asked: bool = False
    canceled: bool = False  # a cancel said that it was
    excused: bool = False  # of being archived all the same: somebody brought it back by hand
    brought_back: bool = False  # whole, after it had failed: it must be completed
    flips: int = 0  # how often its bytes were changed in incoming
    finished: list[Record] = field(default_factory=list)
    words: list[Record] = field(default_factory=list)  # the archive's: receipts that it is safe


class Judge:
    """Watches both sites of one play."""

    def __init__(self, sites: Sites) -> None:
        self.sites, self.world = sites, sites.world
        self.jobs: dict[str, Job] = {}
        self.by_uid: dict[str, Job] = {}
        self.contents: dict[str, bytes] = {}  # checksum -> bytes, of every file there ever was
        self.where: dict[str, list[tuple[str, str]]] = {}  # request id -> places
        self._files: dict[str, tuple[int, str]] = {}  # placed file -> inode, checksum
        self._read: dict[int, int] = {}  # inode of a log -> bytes
        self._placed_at: dict[str, set[str]] = defaultdict(set)  # uid -> where, by the logs
        self._seen = {TELESCOPE: -1, ARCHIVE: -1}
        self.ends = Counter[str]()  # how jobs ended, and where they were seen last
        self.complete = True  # nobody has removed or changed logs or receipts
        self._checked: dict[str, tuple[str, str]] = {}

    def add(self, data: bytes) -> None:
        """Take note of a file that is going to be submitted."""
        self.contents[f"sha256:{hashlib.sha256(data).hexdigest()}"] = data

    def acknowledge(self, name: str) -> None:
        """Take note of an id that was given out."""
        list(self._spool())
        self.jobs[name].acknowledged = True

    def check(self) -> Iterator[str]:
        """Yield what is broken now. Cheap: only what may have changed is read."""
        yield from self.sites.faults
        for site, look in ((ARCHIVE, self._archive), (TELESCOPE, self._spool)):
            if self._seen[site] != self.world.changes[site]:
                yield from look()
                self._seen[site] = self.world.changes[site]

    # --- the telescope site --------------------------------------------------------------

    def _spool(self) -> Iterator[str]:
        self.where = where = defaultdict(list)
        for queue in QUEUES:
            home = f"{self.sites.root}/spool/{queue}"
            for state in STATES:
                for name in os.listdir(f"{home}/{state}"):
                    where[name].append((queue, state))
        for name, places in where.items():
            if name not in self.jobs:
                self._adopt(name, *places[0])
            if len(places) > 1:
                yield f"{name} stands in {places}"
            elif self._checked.get(name) != places[0] and places[0][1] != "done":
                self._checked[name] = places[0]
                yield from self._whole(name, *places[0])
        for queue in QUEUES:
            for entry in self._new_lines(self.sites.root / "spool" / queue / "log"):
                yield from self._finished(entry)
        for name, job in self.jobs.items():
            if job.finished and name in where and where[name][0][1] != "done":
                yield f"{name} is finished and stands in {where[name]}"
            if job.acknowledged and not job.finished and name not in where:
                yield f"LOST: {name} was acknowledged and is nowhere"

    def _adopt(self, name: str, queue: str, state: str) -> None:
        """Take note of a new job; if its submit was killed, nobody had its id."""
        path = self.sites.root / "spool" / queue / state / name / "control"
        known = control.load(path.read_bytes())
        self.jobs[name] = self.by_uid[known.uid] = Job(known)

    def _whole(self, name: str, queue: str, state: str) -> Iterator[str]:
        job = self.sites.root / "spool" / queue / state / name
        known = self.jobs[name].known
        try:
            if control.load((job / "control").read_bytes()) != known:
                yield f"{name}: the control file has changed"
            if (job / "data").read_bytes() != self.contents[known.checksum]:
                yield f"LOST: {name}: the data in {state}/ has changed"
        except (OSError, FormatError) as error:
            yield f"LOST: {name} in {state}/ is not whole: {error}"

    def _finished(self, entry: Record) -> Iterator[str]:
        job = self.jobs.get(entry.fields.get("job", ""))
        if job is None:
            yield f"the finished log speaks of {entry.fields}"
            return
        job.finished.append(entry)
        self.ends[f"{entry.kind} from {self._checked.get(job.known.job, ('', '?'))[1]}"] += 1
        if len(job.finished) > 1:
            yield f"{job.known.job} was logged twice"
        if entry.kind == "completed" and not job.words:
            yield f"LOST: {job.known.job} was completed without a receipt"
        if entry.kind == "canceled" and not job.cancel_asked:
            yield f"LOST: {job.known.job} was canceled, and nobody had asked"

    # --- the archive site --------------------------------------------------------------------

    def _archive(self) -> Iterator[str]:
        yield from self._incoming()
        found = dict(self._placed())
        claimed = {place for places in self._placed_at.values() for place in places}
        for path, (inode, digest) in self._files.items():
            if path.removeprefix(f"{self.sites.root}/") not in claimed and path not in found:
                continue  # it was not synced, and nobody had been told of it
            if found.get(path, (0, ""))[0] != inode:
                yield f"LOST: {path} is gone or was replaced"
            elif found[path][1] != digest:
                yield f"LOST: {path} has changed"
        for path, (_, digest) in found.items() - self._files.items():
            if digest not in self.contents and not path.endswith(".control"):
                yield f"{path} holds what nobody submitted"
        self._files = found
        for inst, home in self.sites.homes.items():
            for entry in self._new_lines(home / "xferlogs"):
                if entry.kind in record.SAFE and "uid" in entry.fields:
                    self._placed_at[entry.fields["uid"]].add(f"{inst}/{entry.fields.get('placed')}")
        for entry in self._new_lines(self.sites.receipts / "telescope"):
            yield from self._word(entry)

    def _incoming(self) -> Iterator[str]:
        here = set(os.listdir(self.sites.incoming)) if self.sites.incoming.exists() else set()
        for name in here:
            uid = name.removesuffix(".control")
            if uid == name or uid not in self.by_uid or name.startswith("."):
                continue
            job = self.by_uid[uid]
            if f"{uid}.data" in here:
                size = (self.sites.incoming / f"{uid}.data").stat().st_size
                if size != job.known.size:
                    yield f"{uid} has arrived with {size} bytes"

    def _placed(self) -> Iterator[tuple[str, tuple[int, str]]]:
        """List the files in their places."""
        for home in self.sites.homes.values():
            for directory, below, names in os.walk(home):
                if directory == str(home):
                    below[:] = [b for b in below if b not in ("xferlogs", "quarantine")]
                for name in names:
                    if not name.startswith("."):
                        path = os.path.join(directory, name)
                        inode = os.stat(path).st_ino
                        old = self._files.get(path)
                        digest = old[1] if old and old[0] == inode else _digest(path)
                        yield path, (inode, digest)

    def _word(self, entry: Record) -> Iterator[str]:
        """Check the archive's word at the moment it is given."""
        job = self.by_uid.get(entry.fields.get("uid", ""))
        if entry.kind not in record.SAFE or job is None or "attempts" not in entry.fields:
            return  # no good word, or one that a crash has torn
        if (digest := entry.fields.get("checksum", "")) != job.known.checksum:
            if not checksum.is_text(digest):
                return  # torn by a crash, and given a newline since
            yield f"a receipt for {job.known.job} has another checksum"
            return
        job.words.append(entry)
        home = STRANGER if entry.kind == record.STRANGER else job.known.inst
        path = str(self.sites.homes[home] / entry.fields["placed"])
        if self._files.get(path, (0, ""))[1] != job.known.checksum:
            yield f"LOST: a receipt says that {job.known.job} is {path}, and it is not"

    # --- both --------------------------------------------------------------------------------

    def _new_lines(self, directory: Path) -> Iterator[Record]:
        """Read what was appended to logs since the last look; what is torn is left."""
        for path in sorted(directory.glob("*.log*")):
            inode = path.stat().st_ino
            text = path.read_bytes()[self._read.get(inode, 0) :]
            whole = text[: text.rfind(b"\n") + 1]
            self._read[inode] = self._read.get(inode, 0) + len(whole)
            for line in whole.splitlines(keepends=True):
                try:
                    yield record.load(line)
                except FormatError:
                    continue  # torn by a crash

    def pass_over(self, path: Path) -> None:
        """Believe nothing that is in a log now: somebody has changed it by hand."""
        self.complete = False
        self._read[path.stat().st_ino] = path.stat().st_size

    def after_cut(self) -> None:
        """Read what a power cut has left: lines that were not synced may be gone."""
        logs = [path for path in self.sites.root.rglob("*.log*") if path.is_file()]
        for path in logs:
            text = path.read_bytes()[: self._read.get(path.stat().st_ino, 0)]
            self._read[path.stat().st_ino] = text.rfind(b"\n") + 1
        for name, job in self.jobs.items():
            if self.is_in(name, "done"):
                word = f" job={name} ".encode()
                whole = (path.read_bytes().rpartition(b"\n")[0] for path in logs)
                left = sum(text.count(word) for text in whole)  # what is torn is logged again
                del job.finished[left:]

    def without_logs(self) -> None:
        """Take note that logs were removed: who finds a job in done/ logs it again."""
        self.complete = False
        for name, job in self.jobs.items():
            if self.is_in(name, "done"):
                job.finished.clear()

    def owed(self) -> list[str]:
        """Name the jobs that are neither finished nor set aside for a person, with good reason."""
        found = []
        for name, job in self.jobs.items():
            if job.finished:
                continue
            if job.flips > 2 and self.is_in(name, "failed") and not job.brought_back:
                continue
            if not job.acknowledged and name not in self.where:
                continue  # a power cut has taken back what nobody had an id of
            found.append(f"{name} is in {self.where.get(name, 'nothing')}")
        return found

    def holds(self, data: bytes, job: Job) -> bool:
        """Tell whether these are the bytes of a job."""
        return data == self.contents[job.known.checksum]

    def is_in(self, name: str, state: str) -> bool:
        return bool(self.where.get(name)) and self.where[name][0][1] == state

    def settle(self) -> Iterator[str]:
        """Check both sites wholly, when all is over."""
        for job in self.jobs.values():
            copies = self._copies(job)
            if not job.finished and not self.where.get(job.known.job):
                continue  # see `owed`
            kind = job.finished[0].kind if job.finished else "failed"
            if kind == "completed" and len(copies) != 1:
                yield f"LOST: {job.known.job} is completed and stands in {sorted(copies)}"
            if len(copies) > 1:
                yield f"{job.known.job} was archived more than once: {sorted(copies)}"
            if job.canceled and copies and not job.excused:
                yield f"{job.known.job} was canceled and is archived"
            if kind == "failed" and copies:
                yield f"{job.known.job} is archived and was not completed"
        spool = Spool(self.sites.root / "spool")
        report = fsck_spool.fsck(spool, QUEUES, (), False, lambda *_: None)
        yield from (
            f"fsck: {f.where}: {f.message}"
            for f in report.findings
            if not f.warning and not _beside_the_lock(f)
        )
        if self.complete and (self.sites.receipts / HOST).exists():
            yield from self._audited(spool)
        spool.close()
        for inst in SWEPT:
            if (self.sites.homes[inst] / "xferlogs").exists():
                now = datetime.now(UTC) + timedelta(minutes=1)
                home = fsck_instrument.fsck(str(self.sites.homes[inst]), False, now, lambda *_: 0)
                yield from (f"fsck {inst}: {f.where}: {f.message}" for f in home.findings
                            if not f.warning)  # fmt: skip

    def _audited(self, spool: Spool) -> Iterator[str]:
        """Let the product say whether submitted = archived + canceled + failed."""
        logs = [(str(home / "xferlogs"), {inst}) for inst, home in self.sites.homes.items()
                if (home / "xferlogs").exists()]  # fmt: skip
        receipts = [str(self.sites.receipts / HOST)]
        ever = Window(START - timedelta(days=4000), START + timedelta(days=4000))
        now = max(self.world.now(site) for site in (TELESCOPE, ARCHIVE))
        found = audit(Sources(spool, receipts, logs), Question(ever, HOST), now, lambda _: None)
        kinds = [job.finished[0].kind if job.finished else "failed" for job in self.jobs.values()
                 if job.finished or self.where.get(job.known.job)]  # fmt: skip
        # The numbers of submits that were killed are missing, which nobody here has to explain.
        owed = [row for row in found.rows if row.verdict.weight is Weight.OWED]
        if (owed or found.twice) and "failed" not in kinds:
            yield f"xfer-audit: {[(row.said.job, row.verdict) for row in owed]}, {found.twice}"
        if not found.owed and "failed" in kinds:
            yield "xfer-audit: a failed job is owed, and it does not say so"

    def _copies(self, job: Job) -> set[str]:
        """Name the places where the archive has put a job, by its own logs."""
        places = self._placed_at[job.known.uid]
        return {place for place in places if f"{self.sites.root}/{place}" in self._files}


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _beside_the_lock(found: Finding) -> bool:
    """Tell whether `seq` fell back behind a number that was taken without its lock.

    Those are far above, and whoever stands still with the lock for so long writes a lower one
    when he goes on; xfer-fsck mends it.
    """
    if found.invariant != finding.SEQ:
        return False
    said, given = re.findall(r"[0-9]+", found.message)
    return int(given) - int(said) > 1000

"""What must hold at both sites after anything, judged twice.

`broken` looks at what a crash has left, before anybody touches it; `unsettled` also demands
that everything has come to its end. Both read the disk by themselves, with nothing but
directory listings and hashlib, and then ask xfer-fsck's steps.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from urllib.parse import unquote_to_bytes

from torture import sites

from lpxfer.errors import LpxferError
from lpxfer.formats.finding import Report
from lpxfer.steps import fsck_instrument, fsck_spool
from lpxfer.stores.spool import Spool

#: How a job may end, and the directories it may stand in on its way there.
ROADS = {
    "absent": (),  # nobody was given its id
    "archived": ("pending", "active", "sent", "done"),
    "held": ("held",),
    "failed": ("failed",),
    "invalid": ("pending", "active", "sent", "done"),  # kept in quarantine, for what it is
    "refused": ("pending", "active", "sent", "failed"),  # at the archive site
    "canceled": ("done",),
}
STATES = ("pending", "held", "active", "sent", "failed", "quarantine", "done")
SAFE = ("stored", "duplicate", "renamed", "stranger")
UNSEALED = "has an arrival that is not sealed"
RESERVED = ("xferlogs", "quarantine", ".lock")


@dataclass(frozen=True)
class Job:
    """A job of a scenario: its bytes, and how it may end."""

    id: str
    data: bytes
    ends: tuple[str, ...] = ("archived",)
    once_said: dict[str, str] = field(default_factory=dict)  # a word -> how it ends after that
    placed: bytes = b""  # what the archive gets to place, if the job's own bytes do not


@dataclass(frozen=True)
class Line:
    """A whole line of a log."""

    time: str
    kind: str
    fields: dict[str, str]


def is_held(line: Line) -> bool:
    """Tell whether a record says that the archive has the bytes, if only in quarantine."""
    return line.kind in SAFE or (line.kind == "quarantined" and "invalid" in line.fields)


class Seen:
    """Everything that stands at both sites, read once, with plain means."""

    def __init__(self, root: Path) -> None:
        self.root, self.spool, self.archive = root, root / "telescope/spool", root / "archive"
        self.damaged: list[str] = []

    @cached_property
    def jobs(self) -> list[tuple[str, str, Path]]:
        """Queue, state and directory of everything that stands in a state directory."""
        found = []
        for queue in sites.QUEUES:
            home = f"{self.spool}/{queue}"
            for state in STATES if os.path.isdir(home) else ():
                found += [(queue, state, path) for path in listed(f"{home}/{state}")]
        return found

    @cached_property
    def finished(self) -> list[Line]:
        """The finished logs."""
        return [x for queue in sites.QUEUES for x in self._logs(self.spool / queue / "log")]

    @cached_property
    def records(self) -> list[tuple[str, Line]]:
        """The transfer logs, each line with the directory it belongs to."""
        homes = ("minicam", "any")
        places = [(h, self.archive / h / "xferlogs") for h in homes]
        places += [(h, self.archive / "logs" / h / "of") for h in homes]
        return [(home, line) for home, place in places for line in self._logs(place)]

    @cached_property
    def receipts(self) -> list[Line]:
        """The receipts for the telescope."""
        return self._logs(self.archive / "receipts" / sites.HOST)

    @cached_property
    def placed(self) -> list[Path]:
        """Whatever has a final name in an instrument directory."""
        found = []
        for home in ("minicam", "any"):
            for path in (p for p in listed(self.archive / home) if p.name not in RESERVED):
                found += [p for p in walked(path) if not p.name.startswith(".")]
        return found

    @cached_property
    def aside(self) -> list[Path]:
        """Whatever stands in quarantine."""
        homes = ("minicam", "any")
        return [p for home in homes for p in walked(self.archive / home / "quarantine")]

    @cached_property
    def bundles(self) -> dict[str, tuple[bytes, set[str]]]:
        """The bundles in incoming: by uid, what is in them, and whose."""
        found = {}
        for path in (self.archive / "incoming").glob("[!.]*.control"):
            if b"\nkind=bundle\n" in path.read_bytes() and path.with_suffix(".data").is_file():
                body = path.with_suffix(".data").read_bytes()
                uids = re.findall(rb"^uid=(.*)$", body, re.MULTILINE)
                found[path.name.removesuffix(".control")] = (body, {u.decode() for u in uids})
        return found

    def waits(self, uid: str) -> bool:
        """Tell whether an arrival stands in incoming, alone or in a bundle."""
        alone = (self.archive / f"incoming/{uid}.control").exists()
        return alone or any(uid in uids for _, uids in self.bundles.values())

    def _logs(self, directory: Path) -> list[Line]:
        lines = []
        for path in listed(directory):
            *whole, _ = path.read_bytes().split(b"\n")
            for line in whole:
                try:
                    lines.append(_line(line))
                except ValueError:  # torn, and given its newline
                    continue
        return lines

    def states(self, job_id: str) -> list[str]:
        """Return where a job stands: state directories, and `log` for each finished record."""
        found = [state for _, state, path in self.jobs if path.name == job_id]
        return found + ["log" for line in self.finished if line.fields.get("job") == job_id]


def listed(directory: Path | str) -> list[Path]:
    """List a directory, sorted; nothing where there is none."""
    try:
        return [Path(f"{directory}/{name}") for name in sorted(os.listdir(directory))]
    except FileNotFoundError:
        return []


def walked(path: Path) -> list[Path]:
    """List everything that is no directory, beneath a path."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return []
    if not stat.S_ISDIR(mode):
        return [path]
    return [found for below in listed(path) for found in walked(below)]


def _line(text: bytes) -> Line:
    time, kind, *words = text.split(b" ")
    if not time.endswith(b"Z"):
        raise ValueError(text)
    pairs = (word.decode("ascii").split("=", 1) for word in words)
    fields = {k: os.fsdecode(unquote_to_bytes(v)) for k, v in pairs}
    if fields.keys() & {"inst", "uid"} and not fields.get("attempts") and "reason" not in fields:
        raise ValueError(text)  # cut by a crash, and given its newline
    return Line(time.decode("ascii"), kind.decode("ascii"), fields)


def sealed(text: bytes) -> dict[str, str]:
    """Read a text of `keyword=value` lines with its seal; raise ValueError for half a one."""
    body, mark, seal = text.rpartition(b"end=sha256:")
    if not mark or seal != hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise ValueError("torn")
    pairs = (line.split(b"=", 1) for line in body.splitlines())
    return {os.fsdecode(k): os.fsdecode(unquote_to_bytes(v)) for k, v in pairs}


def digest(data: bytes) -> str:
    """Return a checksum as control files have it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# --- in any state ---------------------------------------------------------------------------


def broken(
    root: Path, said: Sequence[str], jobs: Sequence[Job], kept: Sequence[bytes] = ()
) -> list[str]:
    """Return what is broken, whatever was going on; nobody has tidied up yet.

    `said` is what had been promised. `kept` are bytes that nobody may throw away, though no
    job stands for them.
    """
    return _broken(Seen(root), said, jobs, kept)


def _broken(
    seen: Seen, said: Sequence[str], jobs: Sequence[Job], kept: Sequence[bytes]
) -> list[str]:
    checks: list[Iterator[str]] = [
        check_jobs(seen, said, jobs),
        check_seq(seen),
        check_moved(seen),
        check_placed(seen, jobs),
        check_records(seen),
        check_receipts(seen),
        check_arrivals(seen, jobs),
        check_kept(seen, kept),
        check_outside(seen),
        *(check_word(seen, word) for word in said),
        fscks(seen),
    ]
    return [violation for check in checks for violation in check]


def ends(job: Job, said: Sequence[str]) -> tuple[str, ...]:
    """Return how a job may end, now that some words have been given."""
    now = [job.once_said[word] for word in said if word in job.once_said]
    return tuple(now[-1:]) or job.ends


def check_jobs(seen: Seen, said: Sequence[str], jobs: Sequence[Job]) -> Iterator[str]:
    """An acknowledged job is in exactly one state or in the finished log, and whole."""
    known = {job.id: job for job in jobs}
    for job in jobs:
        places, fit = seen.states(job.id), ends(job, said)
        standing = [place for place in places if place != "log"]
        if not places and "absent" not in fit:
            yield f"{job.id} is gone"
        if len(standing) > 1:
            yield f"{job.id} stands in {' and '.join(standing)}"
        if "log" in places and standing not in ([], ["done"]):
            yield f"{job.id} is finished and stands in {standing[0]}"
        may = {state for end in fit for state in ROADS[end]} | {"log"}
        yield from (f"{job.id} is {place}: it may be {fit}" for place in places if place not in may)
    for queue, state, path in seen.jobs:
        if path.name not in known:
            yield f"{queue}/{state}/{path.name} is no job of ours"
        elif state != "done":
            yield from check_whole(path, known[path.name])


def check_whole(path: Path, job: Job) -> Iterator[str]:
    """A job in a state directory is complete, and has the bytes that were submitted."""
    try:
        control, found = sealed((path / "control").read_bytes()), (path / "data").read_bytes()
        if (path / "routing").exists():
            sealed((path / "routing").read_bytes())
    except (OSError, ValueError) as error:
        yield f"{path.parent.name}/{path.name} is not whole: {error}"
        return
    if found != job.data or control["checksum"] != digest(found):
        yield f"{path.parent.name}/{path.name} has other bytes than were submitted"
    if control["job"] != job.id:
        yield f"{path.parent.name}/{path.name} has the control file of {control['job']}"


def check_seq(seen: Seen) -> Iterator[str]:
    """No number is given out twice: `seq` is empty, unreadable, or at least the highest."""
    for queue in sites.QUEUES:
        ids = [path.name for name, _, path in seen.jobs if name == queue]
        ids += [line.fields.get("job", "") for line in seen.finished]
        numbers = [int(i.rpartition("-")[2]) for i in ids if i.startswith(f"{queue}-")]
        path = seen.spool / queue / "seq"
        text = path.read_bytes() if path.exists() else b""
        if re.fullmatch(rb"\d+\n", text) and int(text) < max(numbers, default=0):
            yield f"seq of {queue} is {int(text)}, and {max(numbers)} was given out"


def check_moved(seen: Seen) -> Iterator[str]:
    """What was encoded for one archive site does not go to another, which may not know it."""
    for queue, state, path in seen.jobs:
        if not path.name.startswith(f"{queue}-") and (path / "encoded").exists():
            yield f"{queue}/{state}/{path.name} was encoded for another queue"


def check_placed(seen: Seen, jobs: Sequence[Job]) -> Iterator[str]:
    """Final names are never torn; one file for the same bytes, with its time and mode."""
    good = {job.placed or job.data for job in jobs}
    count: dict[bytes, int] = {}
    for path in seen.placed:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            yield f"{path} is no regular file"
            continue
        found = path.read_bytes()
        if stat.S_IMODE(status.st_mode) != 0o444 & ~sites.UMASK:
            yield f"{path} has the mode {status.st_mode:o}"
        if path.name.endswith(".control"):
            try:
                sealed(found)
            except ValueError:
                yield f"{path} is torn"
            if not path.with_suffix(".data").exists():
                yield f"{path} stands there without its data"
            continue
        if found not in good:
            yield f"{path} has bytes that nobody submitted, {len(found)} of them"
        if status.st_mtime_ns != sites.MTIME and path.suffix != ".data":
            yield f"{path} has another time than what was submitted"
        count[found] = count.get(found, 0) + 1
    yield from (f"{found[:8]!r} is archived {n} times" for found, n in count.items() if n > 1)


def check_records(seen: Seen) -> Iterator[str]:
    """What a transfer log says was placed or set aside is there."""
    for home, line in seen.records:
        if line.fields.get("placed"):
            yield from _placed(seen, line, (home,), "the transfer log")


def check_receipts(seen: Seen) -> Iterator[str]:
    """A receipt means a record and stored bytes with that checksum; others can read it."""
    logged = {line.fields.get("uid") for _, line in seen.records}
    for line in seen.receipts:
        yield from _placed(seen, line, ("minicam", "any"), "a receipt")
        if line.fields.get("uid") not in logged:
            yield f"a receipt says {line.kind} of {line.fields.get('uid')}, and no record does"
    told = {line.fields.get("uid") for line in seen.receipts}
    for uid in {line.fields.get("uid", "") for _, line in seen.records if is_held(line)} - told:
        if not seen.waits(uid):
            yield f"no receipt says what became of {uid}, which was taken away"
    for path in walked(seen.archive / "receipts"):
        ways = [path, *path.parents[: len(path.relative_to(seen.archive).parts) - 1]]
        if path.read_bytes().endswith(b"\n") and not path.name.endswith(".new"):
            if not all(way.stat().st_mode & 0o004 for way in ways):
                yield f"{path} cannot be read by the account that sends"


def _placed(seen: Seen, line: Line, homes: Sequence[str], who: str) -> Iterator[str]:
    fields = line.fields
    for home in homes:
        path = seen.archive / home / fields["placed"]
        if not is_held(line) and (path.exists() or walked(path.parent / f"{path.name}.control")):
            return
        if path.is_file() and digest(path.read_bytes()) == fields["checksum"]:
            return
        # set aside, and logged under the stem of its names
        if line.kind == "quarantined" and "checksum" not in fields:
            if any(p.name.startswith(path.name) for p in listed(path.parent)):
                return
    yield f"{who} says {line.kind} of {fields['placed']}, which is not there"


def check_arrivals(seen: Seen, jobs: Sequence[Job]) -> Iterator[str]:
    """`<uid>.control` visible means a complete, sealed `<uid>.data`, or that the log knows it."""
    logged = {line.fields.get("uid") or line.fields.get("bundle") for _, line in seen.records}
    held = {line.fields.get("uid") for _, line in seen.records if is_held(line)}
    for path in (seen.archive / "incoming").glob("[!.]*.control"):
        uid = path.name.removesuffix(".control")
        if uid in logged or not any(f"-{job.id}-" in uid for job in jobs):
            continue
        try:
            known, found = sealed(path.read_bytes()), path.with_suffix(".data")
            size = int(known.get("xfer_size", known["size"]))  # fewer bytes where it is encoded
            if not found.is_dir() and found.stat().st_size != size:
                yield f"{uid} has an arrival of {found.stat().st_size} bytes"
            if not found.is_dir() and (found.stat().st_mode | path.stat().st_mode) & 0o222:
                yield f"{uid} {UNSEALED}"
        except (OSError, ValueError) as error:
            yield f"{uid} is no whole arrival: {error}"
    for path in (seen.archive / "incoming").iterdir():
        uid = path.name.removeprefix(".").partition(".")[0]
        control = path.with_name(f"{uid}.control")
        if uid in held and not control.exists() and not path.name.endswith(".placing"):
            yield f"{path.name} outlives its control file"


def check_kept(seen: Seen, kept: Sequence[bytes]) -> Iterator[str]:
    """Nothing is deleted that is not provably redundant: it is in incoming, or set aside."""
    places = [*walked(seen.archive / "incoming"), *seen.aside, *seen.placed]
    found = {path.read_bytes() for path in places if not path.is_symlink()}
    for data in kept:
        if data not in found and not any(data in body for body, _ in seen.bundles.values()):
            yield f"{data[:20]!r} was thrown away"


def check_outside(seen: Seen) -> Iterator[str]:
    """Nothing is written outside the directories that are for it."""
    known = {
        "telescope": {"night", "spool"},
        "archive": {"incoming", "receipts", "minicam", "any", "logs"},
    }
    for site, names in known.items():
        found = set(os.listdir(seen.root / site)) - names - {"lost+found"}
        yield from (f"{site}/{name} does not belong there" for name in sorted(found))


def check_word(seen: Seen, word: str) -> Iterator[str]:
    """What was said is true still."""
    kind, subject, *rest = word.split()
    if check := _WORDS.get(kind):
        if not check(seen, subject, *rest):
            yield f'"{word}" was said, and is not so'


def _is_in(*states: str) -> Callable[..., bool]:
    return lambda seen, job_id: all(state in states for state in seen.states(job_id))


def _is_delivered(seen: Seen, job_id: str) -> bool:
    arrival = next((seen.archive / "incoming").glob(f"[!.]*-{job_id}-*.control"), None)
    logged = any(f"-{job_id}-" in line.fields.get("uid", "") for _, line in seen.records)
    return _is_in("sent", "done", "log")(seen, job_id) and bool(arrival or logged)


def _is_there(seen: Seen, text: str) -> bool:
    places = [*walked(seen.archive / "incoming"), *seen.aside]
    return any(path.read_bytes() == text.encode() for path in places if not path.is_symlink())


def _has_priority(seen: Seen, job_id: str, priority: str) -> bool:
    for _, state, path in seen.jobs:
        if path.name == job_id and state != "done":
            routing = path / "routing"
            return routing.exists() and sealed(routing.read_bytes()).get("priority") == priority
    return True


def _outcome(outcome: str) -> Callable[..., bool]:
    def check(seen: Seen, job_id: str) -> bool:
        logged = [x.kind for x in seen.finished if x.fields.get("job") == job_id]
        routings = [p / "routing" for _, state, p in seen.jobs
                    if p.name == job_id and state == "done"]  # fmt: skip
        stands = [sealed(p.read_bytes()).get("outcome") for p in routings if p.exists()]
        if not logged and routings and outcome == "canceled":
            return stands in ([], [outcome])  # what is in done/ without a word is canceled
        return set(logged + stands) == {outcome}

    return check


def _is_receipted(seen: Seen, uid: str, kind: str) -> bool:
    return any(uid in (x.fields.get("uid"), x.fields.get("bundle")) and x.kind == kind
               for x in seen.receipts)  # fmt: skip


def _is_off(seen: Seen, queue: str) -> bool:
    path = seen.spool / queue / "switches"
    return path.exists() and sealed(path.read_bytes()).get("enabled") == "no"


def _accepts(seen: Seen, inst: str) -> bool:
    path = seen.archive / "receipts/accepts" / inst
    words = {"format": "1", "bundle": "1"}.items()
    return path.exists() and sealed(path.read_bytes()).items() >= words


def _is_of(seen: Seen, job_id: str, queue: str) -> bool:
    standing = [q for q, _, path in seen.jobs if path.name == job_id]
    return all(q == queue for q in standing)


#: What each word promises; `id` stands in the ends of the jobs.
_WORDS: dict[str, Callable[..., bool]] = {
    "sent": _is_delivered,
    "there": _is_there,
    "held": _is_in("held"),
    "released": _is_in("pending", "active", "sent", "done", "log"),
    "retried": _is_in("pending", "active", "sent", "done", "log"),
    "priority": _has_priority,
    "moved": _is_of,
    "canceled": _outcome("canceled"),
    "completed": _outcome("completed"),
    "receipt": _is_receipted,
    "disabled": _is_off,
    "accepts": _accepts,
}


# --- when nothing is left to do -----------------------------------------------------------------


def unsettled(
    root: Path, said: Sequence[str], jobs: Sequence[Job], kept: Sequence[bytes] = ()
) -> list[str]:
    """Return what is broken when both sites have done all they could."""
    seen = Seen(root)
    found = _broken(seen, said, jobs, kept)
    for check in (check_ends(seen, said, jobs), check_once(seen, jobs), check_tidy(seen)):
        found += check
    return found


def check_ends(seen: Seen, said: Sequence[str], jobs: Sequence[Job]) -> Iterator[str]:
    """Every job has come to its end, and the archive has it once, or not at all."""
    for job in jobs:
        fit = ends(job, said)
        if not any(_has_ended(seen, job, jobs, end) for end in fit):
            n = len([p for p in seen.placed if p.read_bytes() == (job.placed or job.data)])
            places = seen.states(job.id) or ["nowhere"]
            yield f"{job.id} is {', '.join(places)}, archived {n} times: it should be {fit}"


def _has_ended(seen: Seen, job: Job, jobs: Sequence[Job], end: str) -> bool:
    states = seen.states(job.id)
    logged = [line for line in seen.finished if line.fields.get("job") == job.id]
    ours = [x for x in seen.receipts if f"-{job.id}-" in x.fields.get("uid", "") and is_held(x)]
    good = [x for x in ours if x.fields["checksum"] == digest(job.data)]
    copies = [p for p in seen.placed if p.read_bytes() == (job.placed or job.data)]
    twin = [other for other in jobs if other is not job and other.data == job.data]
    completed = states == ["log"] and logged[0].kind == "completed"
    if end == "archived":
        return completed and len(copies) == 1 and any(x.kind in SAFE for x in good)
    if end == "absent":  # nobody was given its id; it may have been sent all the same
        return not states and (len(copies) <= 1 or bool(twin))
    if copies and not twin:
        return False
    if end == "invalid":
        kept = [p for p in seen.aside if p.read_bytes() == job.data]
        return completed and len(kept) == 1 and any("invalid" in x.fields for x in good)
    if end == "canceled":
        return states == ["log"] and logged[0].kind == "canceled"
    return states == ["held" if end == "held" else "failed"]


def check_once(seen: Seen, jobs: Sequence[Job]) -> Iterator[str]:
    """One record says of each uid where it was placed, and of what was set aside."""
    words = ("uid", "name", "attempts")
    told = [(home, line.kind, *(line.fields.get(word) for word in words))
            for home, line in seen.records if line.kind != "error"]  # fmt: skip
    for entry in sorted({str(x) for x in told if told.count(x) > 1}):
        yield f"the transfer log says twice: {entry}"
    archived = [job for job in jobs if job.data in {p.read_bytes() for p in seen.placed}]
    for _, line in seen.records:
        name, first = line.fields.get("name", ""), line.time
        safe = [x.time for _, x in seen.records
                if x.kind in SAFE and x.fields.get("uid") == line.fields.get("uid")]  # fmt: skip
        if line.kind == "quarantined" and safe and first >= min(safe) and name.endswith(".data"):
            yield f"{name} was set aside, and is archived"
    for job in archived:
        uids = [line.fields.get("uid", "") for _, line in seen.records if line.kind in SAFE]
        if "log" in seen.states(job.id) and not any(f"-{job.id}-" in uid for uid in uids):
            yield f"no transfer log has a record of {job.id}"


def check_tidy(seen: Seen) -> Iterator[str]:
    """Nothing is left over, and what was set aside has its reason and its record."""
    left = [p for p in walked(seen.archive / "incoming") if not p.name.endswith(".placing")]
    left += [path for queue in sites.QUEUES for path in listed(seen.spool / queue / "tmp")]
    for home in ("minicam", "any"):
        left += [p for p in walked(seen.archive / home) if p.name.startswith(".sweep.")]
    yield from (f"{path} is left over" for path in left)
    reasons = [p for p in seen.aside if p.name.endswith(".reason")]
    logged = [
        x.fields["placed"].partition(".")[0] for _, x in seen.records if x.fields.get("placed")
    ]
    for path in (path for path in seen.aside if path not in reasons):
        beside = [p for p in reasons if str(path).startswith(str(p.with_suffix("")))]
        if not any(p.read_bytes().endswith(b"\n") for p in beside):
            yield f"{path} is in quarantine without a reason"
        if not any(stem in str(path) for stem in logged):
            yield f"{path} is in quarantine, and no record says so"


# --- the product's own judge --------------------------------------------------------------------


def fscks(seen: Seen) -> Iterator[str]:
    """Ask xfer-fsck's steps."""
    now = sites.NOW
    if seen.spool.exists():
        spool = Spool(seen.spool)
        pause, fsck_spool.PAUSE = fsck_spool.PAUSE, 0.0  # nobody moves anything meanwhile
        try:
            made = [q for q in sites.QUEUES if (seen.spool / q / "log").exists()]
            yield from _findings(partial(fsck_spool.fsck, spool, made, (), False, lambda *_: None))
        finally:
            spool.close()
            fsck_spool.PAUSE = pause
    for home in ("minicam", "any"):
        path = str(seen.archive / home)
        if os.path.isdir(f"{path}/xferlogs"):
            yield from _findings(
                lambda p=path: fsck_instrument.fsck(p, False, now, lambda *_: None)
            )


def _findings(judge: Callable[[], Report]) -> Iterator[str]:
    try:
        for found in judge().findings:
            if not found.warning:
                yield f"xfer-fsck: {found.where}: {found.message}"
    except LpxferError as error:
        yield f"xfer-fsck: {error}"

"""One hostile case: planted beside good arrivals, swept in a child process, and judged.

Every case is swept as cron would do it over the days: -i and -A at once, and both again when
everything in incoming is old. The child measures itself; the disk is judged by its parent.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from arrivals import Site
from torture.corpus import PLACED, RECEIPTED, Case, good

from lpxfer.errors import FormatError, LpxferError
from lpxfer.formats import bundle, names, record
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.record import Record
from lpxfer.steps.sweep import Rules, sweep
from lpxfer.stores.archive_survey import ArchiveSurvey
from lpxfer.stores.incoming import Arrival, Incoming

PARSE = 0.05  # seconds of CPU that one control file may cost
CPU = 2.0  # seconds of CPU for all sweeps over one case
MEMORY = 20_000  # KiB above what the process had before
PATIENCE = 60.0  # seconds until a sweep that does not end is killed

GOOD = (1_000_001, 1_000_002)  # numbers of the good arrivals

TMPFS = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Ground:
    """A directory with a site, good arrivals in it, and a tree beside it to be left alone."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir=TMPFS))
        self.site = Site(self.root / "site")
        self.outside = self.root / "outside"
        (self.outside / "deep").mkdir(parents=True)
        (self.outside / "secret").write_bytes(b"the secret of the others\n")
        (self.outside / "deep/file").write_bytes(b"a file of the others\n")
        for path in sorted(self.outside.rglob("*")):
            os.utime(path, ns=(0, 1_000_000_000))
        for number in GOOD:
            good(self.site, number)
        self.canary = dict(_inventory(self.outside))

    def __enter__(self) -> "Ground":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def touched(self) -> str | None:
        """Say what has changed outside."""
        now = dict(_inventory(self.outside))
        differ = [path for path in now.keys() | self.canary.keys()
                  if now.get(path) != self.canary.get(path)]  # fmt: skip
        return f"changed outside: {sorted(differ)}" if differ else None


def _inventory(top: Path) -> Iterator[tuple[str, object]]:
    for path in [top, *top.rglob("*")]:
        found = path.lstat()
        body = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
        yield str(path), (found.st_mode, found.st_mtime_ns, found.st_uid, body)


def sweeps(site: Site, case: Case, old: bool) -> Iterator[str]:
    """Sweep -i and -A; yield what a person would be told, errors of the whole sweep too."""
    now = datetime.now(UTC) + timedelta(days=8 if old else 0)
    rules = Rules(InstrumentConfig("minicam", zone=case.zone), dated=case.dated)
    for which in ("A", "i") if old else ("i", "A"):
        try:
            if which == "A":
                outcomes = site.sweep_any(now)
            else:
                with site.archive(now=now) as archive:
                    outcomes = list(sweep(archive, rules))
        except (LpxferError, OSError) as error:
            yield f"{type(error).__name__}: {error}"
        else:
            yield from (outcome.message for outcome in outcomes if outcome.message)


def in_child(act: Callable[[], Any]) -> Any:
    """Return what a function returns in a child process, or {"died": how}."""
    read, write = multiprocessing.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        try:
            write.send_bytes(json.dumps(act()).encode())
        except BaseException:  # noqa: BLE001 - the parent judges it
            write.send_bytes(json.dumps({"died": traceback.format_exc()}).encode())
        finally:
            os._exit(0)
    write.close()
    try:
        if not read.poll(PATIENCE):
            return {"died": f"it did not end within {PATIENCE:.0f} s"}
        return json.loads(read.recv_bytes())
    except EOFError:
        return {"died": "it was killed"}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        read.close()


def _measured(site: Site, case: Case) -> dict[str, Any]:
    parse = max((_parse(site, path.name) for path in site.incoming.glob("*.control")), default=0.0)
    before = _memory(reset=True)
    begun = time.process_time()
    said = [list(sweeps(site, case, old)) for old in (False, True)]
    cpu = time.process_time() - begun
    return {"said": said, "parse": parse, "cpu": cpu, "memory": _memory() - before}


def _parse(site: Site, name: str) -> float:
    """Return the CPU seconds of reading a control file, the best of three."""
    costs = []
    with Incoming(str(site.incoming)) as incoming:
        for _ in range(3):
            begun = time.process_time()
            try:
                Arrival(name.removesuffix(names.CONTROL), -1, incoming.read(name)).read()
            except (LpxferError, OSError):
                pass
            costs.append(time.process_time() - begun)
    return min(costs)


def _memory(reset: bool = False) -> int:
    """Return the most memory this process has had (KiB), since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")


def play(case: Case, number: int = 1) -> str | None:
    """Play a case on a ground of its own; return what was broken, or None."""
    with Ground() as ground:
        case.plant(ground.site, number)
        before = sorted(os.listdir(ground.site.incoming))
        held = dict(_contents(ground.site.incoming)) | dict(_members(ground.site.incoming))
        told = in_child(lambda: _measured(ground.site, case))
        broken = _costs(told) or judge(ground, case, number, told["said"], before, held)
        if case.fate in ("quarantined", "mismatch"):
            broken = broken or _rescue(ground, held)
        return f"{case.name}: {broken}" if broken else None


def _rescue(ground: Ground, held: dict[str, str]) -> str | None:
    """Sweep quarantine into a directory, as its page says one may; nothing is lost of it."""
    site = ground.site
    site.incoming = site.home / "quarantine"
    if site.incoming.is_symlink() or not site.incoming.is_dir():
        return None
    held |= _contents(site.incoming)
    said = in_child(lambda: [o.message for o in site.sweep(now=datetime.now(UTC), dir="rescued")])
    if isinstance(said, dict):
        return f"a sweep of quarantine: {said['died']}"
    if trace := [line for line in said if line and "Traceback" in line]:
        return str(trace[0])
    return ground.touched() or _lost(site, held) or _reasons(site)


def _costs(told: dict[str, Any]) -> str | None:
    if "died" in told:
        return str(told["died"])
    if told["parse"] > PARSE:
        return f"reading it took {told['parse'] * 1000:.0f} ms of CPU"
    if told["cpu"] > CPU:
        return f"the sweeps took {told['cpu']:.1f} s of CPU"
    if told["memory"] > MEMORY:
        return f"the sweeps took {told['memory']} KiB of memory"
    return None


def judge(
    ground: Ground,
    case: Case,
    number: int,
    said: list[list[str]],
    before: list[str],
    held: dict[str, str],
) -> str | None:
    """Say what is not as it should be after the sweeps of a case."""
    if trace := [line for lines in said for line in lines if "Traceback" in line]:
        return trace[0]
    return (
        ground.touched()
        or _lost(ground.site, held)
        or (None if case.fate == "blocked" else _good_ones(ground.site))
        or _reasons(ground.site)
        or _fate(ground.site, case, number, said, before)
    )


def _contents(top: Path) -> Iterator[tuple[str, str]]:
    """Yield the checksum and the path of every file in a tree that has any bytes."""
    for directory, _, files in os.walk(os.fsencode(top)):
        for name in files:
            path = os.path.join(directory, name)
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_size:
                yield fingerprint(path, found.st_size), os.fsdecode(path)


def _members(incoming: Path) -> Iterator[tuple[str, str]]:
    """Yield the checksum and the wire name of what is in bundles, of those that are any."""
    with Incoming(str(incoming)) as held:
        for uid in (path.name.removesuffix(names.CONTROL) for path in incoming.glob("*.control")):
            with contextlib.suppress(LpxferError, OSError):
                known = Arrival(uid, -1, held.read(uid + names.CONTROL)).read()
                if isinstance(known, Bundle):
                    with open(held.open_data(uid), "rb") as file:
                        body = file.read(known.size)
                    for member in bundle.members(known, body[: known.index]):
                        data = body[member.offset : member.offset + member.size]
                        if data:
                            digest = hashlib.sha256(data[: 1 << 20]).hexdigest()
                            yield f"{digest} {len(data)}", member.control.uid + names.DATA


def fingerprint(path: bytes, size: int) -> str:
    """Return what stands for a file's bytes: of a huge one, its size and its head."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(1 << 20)).hexdigest() + f" {size}"


def _lost(site: Site, held: dict[str, str]) -> str | None:
    """Say which bytes are nowhere any more; a control file may go when its data is archived."""
    there = dict(_contents(site.root))
    safe = {entry.fields.get("uid") for entry in log(site) if entry.kind in (*PLACED, "duplicate")}
    taken_apart = {entry.fields["bundle"] for entry in log(site) if entry.kind == record.UNPACKED}
    for digest, path in held.items():
        name = os.path.basename(path)
        done = name.removesuffix(names.CONTROL) in safe and name.endswith(names.CONTROL)
        if digest not in there and not done and name.partition(".")[0] not in taken_apart:
            return f"LOST: the bytes of {name!a} are nowhere"
    return None


def log(site: Site) -> list[Record]:
    return [*records(site.home / "xferlogs"), *records(site.any / "xferlogs")]


def records(directory: Path) -> Iterator[Record]:
    """Read the logs in a directory, whatever else stands there; links are not followed."""
    if directory.is_symlink() or not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if stat.S_ISREG(path.lstat().st_mode):
            for line in path.read_bytes().split(b"\n"):
                with contextlib.suppress(FormatError):
                    yield record.load(line)


def _good_ones(site: Site) -> str | None:
    kinds = {entry.fields.get("name"): entry for entry in log(site) if entry.kind == "stored"}
    receipts = {entry.fields.get("uid") for entry in records(site.root / "receipts/mmto")}
    for number in GOOD:
        entry = kinds.get(f"{number}.fits")
        if entry is None:
            return f"the good arrival {number} was not placed"
        path = site.home / entry.fields["placed"]
        if path.read_bytes() != f"data of case {number}\n".encode():
            return f"the good arrival {number} has wrong bytes"
        if entry.fields["uid"] not in receipts:
            return f"the good arrival {number} has no receipt"
    return None


def _reasons(site: Site) -> str | None:
    """Say what stands in quarantine without a reason."""
    for home in (site.home, site.any):
        with ArchiveSurvey(str(home)) as survey:
            try:
                if bare := survey.without_reason():
                    return f"without a reason in quarantine: {bare[0][0]!a}"
            except (LpxferError, OSError):
                pass  # it is no directory: that is the case
    return None


def _fate(
    site: Site, case: Case, number: int, said: list[list[str]], before: list[str]
) -> str | None:
    """Say whether it did not end as it should."""
    left = sorted(n for n in os.listdir(site.incoming) if not n.endswith(".loop"))
    stays = [name for name in before if name in left]
    uid = f"-archive-{number}-"
    kinds = {e.kind for e in log(site) if uid in record.uid_of(e)} - {"error", record.UNPACKED}
    receipts = {e.kind for path in (site.root / "receipts").glob("*") for e in records(path)
                if uid in record.uid_of(e)}  # fmt: skip
    if case.fate in (*RECEIPTED, "duplicate"):
        if kinds != {case.fate} or (receipts != kinds and not case.name.endswith("a host")):
            return f"not {case.fate}: log {kinds}, receipts {receipts}, left {stays}, told {said}"
        return f"left in incoming: {stays}" if any(uid in n and n[0] != "." for n in left) else None
    if case.fate == "aside" and (stays or receipts):
        return f"not set aside: {stays}, receipts {receipts}, told {said}"
    if case.fate == "ignored" and not stays:
        return "it was touched"
    if case.fate in ("left", "blocked"):
        if not stays:
            return f"it is gone: log {kinds}"
        told = "\n".join(said[1])
        if not told or (case.fate == "left" and uid not in told):
            return f"it is left and nobody says so: {said}"
    return None

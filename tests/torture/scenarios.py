"""Every operation that changes a disk, as a scenario: prepared, done, checked, recovered.

The real steps and stores do it all. A scenario is deterministic but for the four random bytes
of a uid, runs in this process, and takes milliseconds.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from torture import invariants, sites, watching
from torture.invariants import Job
from torture.sites import NOW, Say, carry, data, order, queue, source, submitted, sweep_minicam

from lpxfer import checksum, codec, durable
from lpxfer.errors import PermanentError
from lpxfer.formats import bundle, control, dates, names
from lpxfer.formats.attempts import ACKED, START
from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.control import Transfer
from lpxfer.formats.job import Routing, State
from lpxfer.formats.switches import Switches
from lpxfer.steps import hold, reroute
from lpxfer.steps.cancel import cancel
from lpxfer.steps.submit import submit
from lpxfer.steps.sweep import Rules, accepts, sweep
from lpxfer.steps.tell import Teller
from lpxfer.stores import batch
from lpxfer.stores.finishing import End
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.job_dir import CANCEL, HOLD
from lpxfer.stores.placing import TOGETHER
from lpxfer.stores.receipts import Receipts
from lpxfer.stores.tellings import Tellings

QUIET: Say = lambda _: None  # noqa: E731 - the shortest way to say nothing

Act = Callable[[Path, Say], None]
Judge = Callable[[Path, Sequence[str]], list[str]]


@dataclass(frozen=True)
class Scenario:
    """One operation, and what must hold whenever the power fails."""

    name: str
    prepare: Callable[[Path], None]  # makes what is needed at both sites; not watched
    act: Act  # the operation, in this process; says a word at the instant it is promised
    check: Judge  # what is broken in the raw state
    settled: Judge  # what is broken after `recover`
    recover: Callable[[Path], None] = sites.recover  # the next runs of the real commands


def scenario(
    name: str,
    prepare: Callable[[Path], None],
    act: Act,
    *jobs: Job,
    kept: Sequence[bytes] = (),
    recover: Callable[[Path], None] = sites.recover,
) -> Scenario:
    """Make a scenario of what is done, and of how its jobs may end."""
    return Scenario(
        name,
        prepare,
        act,
        partial(invariants.broken, jobs=jobs, kept=kept),
        partial(invariants.unsettled, jobs=jobs, kept=kept),
        recover,
    )


def job(number: int, *said: tuple[str, str], end: str = "archived", **fields: object) -> Job:
    """Return a job that was acknowledged before; each of `said` is a word and its new end."""
    words = {f"{word} archive-{number}": after for word, after in said}
    either = tuple(dict.fromkeys((end, *words.values())))
    return Job(f"archive-{number}", data(number), either, words, **fields)  # type: ignore[arg-type]


# --- submit ---------------------------------------------------------------------------------


def sources(root: Path, count: int, with_queue: bool = True) -> None:
    """Make files to submit, and the queue."""
    sites.make(root)
    for number in range(1, count + 1):
        source(root, number)
    if with_queue:
        with queue(root):
            pass


def submitting(root: Path, say: Say, count: int, held: bool = False) -> None:
    """Submit files; an id is promised when its result comes."""
    paths = [str(root / f"telescope/night/{n:04}.fits").encode() for n in range(1, count + 1)]
    with queue(root) as opened:
        for result in submit(opened, paths, order(hold=held), NOW):
            say(f"id {sites.known_of(result).job}")


def new(number: int, end: str = "archived") -> Job:
    """Return a job that is being submitted."""
    words = {f"id archive-{number}": end}
    return Job(f"archive-{number}", data(number), ("absent", end), words)


def after_nine(root: Path) -> None:
    """Give nine numbers out before: the next one has one digit more."""
    sources(root, 0)
    with queue(root) as opened:
        opened.reserve(8)
    submitted(root, [source(root, 9)], order())
    source(root, 10, "0010.fits")


def submit_tenth(root: Path, say: Say) -> None:
    """Submit the tenth job."""
    with queue(root) as opened:
        path = str(root / "telescope/night/0010.fits").encode()
        for result in submit(opened, [path], order(), NOW):
            say(f"id {sites.known_of(result).job}")


def not_minding(words: str, judge: Judge) -> Judge:
    """Make a judge that does not mind what was spoiled by hand."""
    return lambda root, said: [x for x in judge(root, said) if words not in x]


def submit_linked(root: Path, say: Say) -> None:
    """Submit a file by a hard link."""
    with queue(root) as opened:
        path = str(root / "telescope/night/0001.fits").encode()
        for result in submit(opened, [path], replace(order(), link=True), NOW):
            say(f"id {sites.known_of(result).job}")


def without_source(root: Path) -> None:
    """Let the user remove the file: the job has a name of its own for it."""
    (root / "telescope/night/0001.fits").unlink(missing_ok=True)
    sites.recover(root)


def without_log(root: Path) -> None:
    """Leave what a queue is that is in use and has lost its log/, by hand."""
    sources(root, 1)
    with queue(root) as opened:
        opened.reserve(0)
    (root / "telescope/spool/archive/log").rmdir()


def first_job(root: Path, say: Say) -> None:
    """Set a spool up, submit the first job of all, and withdraw it."""
    submitting(root, QUIET, 1)
    canceling(root, say)


SUBMIT = [
    scenario("submit, one file", partial(sources, count=1), partial(submitting, count=1), new(1)),
    scenario(
        "submit, many files",
        partial(sources, count=3),
        partial(submitting, count=3),
        *(new(number) for number in (1, 2, 3)),
    ),
    scenario(
        "submit, held",
        partial(sources, count=1),
        partial(submitting, count=1, held=True),
        new(1, "held"),
    ),
    scenario(
        "submit, into a new spool",
        partial(sources, count=1, with_queue=False),
        partial(submitting, count=1),
        new(1),
    ),
    scenario("submit, the tenth number", after_nine, submit_tenth, new(10), job(9)),
    replace(
        linked := scenario(
            "submit, linked",
            partial(sources, count=1),
            submit_linked,
            new(1),
            recover=without_source,
        ),
        check=not_minding("data is a hard link", linked.check),  # until the user removes the file
    ),
    *(
        scenario(
            f"submit and cancel {where}",
            prepare,
            first_job,
            Job(
                "archive-1",
                data(1),
                ("absent", "archived", "canceled"),
                {"canceled archive-1": "canceled"},
            ),
        )
        for where, prepare in {
            "in a new spool": partial(sources, count=1, with_queue=False),
            "where log/ is missing": without_log,
        }.items()
    ),
]


# --- send -----------------------------------------------------------------------------------


def pending(root: Path, count: int = 1, inst: str = "minicam", held: bool = False) -> None:
    """Submit files."""
    sites.make(root)
    paths = [source(root, number) for number in range(1, count + 1)]
    submitted(root, paths, order(inst, held))


def sending(root: Path, say: Say) -> None:
    """Carry a job to incoming; it is said to be sent when it is in sent/."""
    if carry(root, "archive-1") == [True]:
        say("sent archive-1")


#: Bytes of a file that becomes much shorter.
SHRINKS = b"".join(number.to_bytes(2, "big") for number in range(2048)) * 2


def shrinking(root: Path) -> None:
    """Submit a file that is worth encoding, to a site that understands it."""
    sites.make(root)
    path = source(root, 1)
    with open(path, "r+b") as file:
        file.write(SHRINKS)
    os.utime(path, ns=(sites.MTIME, sites.MTIME))
    submitted(root, [path], order())
    sites.sweep_minicam(root)
    time.sleep(0.02)  # as submit dates the control file of a large one: later than its data
    os.utime(root / "telescope/spool/archive/pending/archive-1/control")


def encoding(root: Path, say: Say) -> None:
    """Carry a job over a link that is slow enough for a codec."""
    if carry(root, "archive-1", rate=1e3) == [True]:
        say("sent archive-1")
    if not list((root / "telescope/spool/archive").glob("sent/*/encoded")):
        raise AssertionError("nothing was encoded")


def half_sent(root: Path, wire: bytes = data(1)) -> None:
    """Leave what a sender leaves that was cut in the middle of what goes over the wire."""
    pending(root)
    uid = _uid(root, "pending", "archive-1")
    (root / f"archive/incoming/.{uid}.data.part").write_bytes(wire[: len(wire) // 2])
    with queue(root) as opened, opened.open("archive-1", State.PENDING) as found:
        found.note(START, NOW)
        found.note(ACKED, NOW, acked=str(len(wire) // 2))


def _uid(root: Path, state: str, job_id: str) -> str:
    text = (root / "telescope/spool/archive" / state / job_id / "control").read_bytes()
    return control.load(text).uid


def requested(root: Path, word: str) -> None:
    """Leave a request for the sender, as a command that was killed does."""
    pending(root)
    with queue(root) as opened, opened.open("archive-1", State.PENDING) as found:
        found.set_request(word)


def obeying(root: Path, say: Say, word: str) -> None:
    """Carry a job that somebody wants back."""
    carry(root, "archive-1")
    say(f"{word} archive-1")


def crashed(root: Path) -> None:
    """Leave what a sender, a submit and a cancel leave that died all at once."""
    pending(root, 3)
    with queue(root) as opened, opened.locked():
        opened.claim("archive-1").close()
        opened.draft(opened.reserve(1)[0]).close()
        with opened.open("archive-2", State.PENDING) as found:
            found.set_routing(Routing(outcome=State.CANCELED, reason="by a test"))
        opened.move("archive-2", State.PENDING, State.COMPLETED)


def recovering(root: Path, say: Say) -> None:
    """Start a sender."""
    with queue(root) as opened, opened.locked():
        opened.recover(NOW)
    say("canceled archive-2")


def half_committed(root: Path) -> None:
    """Leave what a sender leaves that was cut before it began the last rename."""
    arrived(root)
    path = sites.arrival(root, "archive-1")
    path.rename(path.with_name(f".{path.name}.part"))
    with queue(root) as opened:
        opened.move("archive-1", State.SENT, State.PENDING)
    attempts = root / "telescope/spool/archive/pending/archive-1/attempts"
    lines = attempts.read_bytes().splitlines(keepends=True)
    attempts.write_bytes(b"".join(line for line in lines if b" commit " not in line))


def half_striped(root: Path) -> None:
    """Leave what a sender leaves that was cut while two connections carried the data."""
    pending(root)
    uid, whole = _uid(root, "pending", "archive-1"), data(1)
    part = root / f"archive/incoming/.{uid}.data.part"
    part.write_bytes(whole[:1000] + bytes(500) + whole[1500:2000])
    with queue(root) as opened, opened.open("archive-1", State.PENDING) as found:
        found.note(START, NOW)
        found.note(ACKED, NOW, acked="1000", also="1500-2000")


def sealed(root: Path) -> None:
    """Leave what a sender leaves that was cut before it began the first rename."""
    half_committed(root)
    (path,) = (root / "archive/incoming").glob("*-archive-1-*.data")
    path.rename(path.with_name(f".{path.name}.part"))


def sending_onto_a_name(root: Path, say: Say) -> None:
    """Carry a job whose final name somebody takes meanwhile."""
    uid = _uid(root, "pending", "archive-1")

    def take() -> None:
        by_hand(root / f"archive/incoming/{uid}.data", b"foreign", synced=True)
        say("there foreign")

    carry(root, "archive-1", moves=take)


def by_hand(path: Path, content: bytes, synced: bool) -> None:
    """Write a file as somebody else does."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440)
    os.write(fd, content)
    os.fchmod(fd, 0o440)
    os.utime(fd, ns=(sites.MTIME, sites.MTIME))
    if synced:
        os.fsync(fd)
        with durable.opened_dir(path.parent) as directory:
            os.fsync(directory)
    os.close(fd)


def withdrawn_late(root: Path) -> None:
    """Cancel the job, if that is possible still, once the archive site has done its work."""
    sites.sweep_minicam(root)
    with queue(root) as opened, suppress(PermanentError):
        cancel(opened, "archive-1", "by a test", NOW)
    sites.recover(root)


SEND = [
    scenario("send", pending, sending, job(1)),
    scenario("send, resumed", half_sent, sending, job(1)),
    scenario("send, resumed at the end", half_committed, sending, job(1)),
    scenario("send, resumed between the pieces of two connections", half_striped, sending, job(1)),
    scenario("send, resumed when all was sealed", sealed, sending, job(1)),
    scenario("send, encoded", shrinking, encoding, replace(job(1), data=SHRINKS)),
    scenario(
        "send, resumed at the end, canceled afterwards",
        half_committed,
        sending,
        replace(job(1), ends=("archived", "canceled")),
        recover=withdrawn_late,
    ),
    scenario(
        "send, onto a name that is taken",
        pending,
        sending_onto_a_name,
        replace(job(1), ends=("failed", "archived")),
    ),
    scenario(
        "send, canceled afterwards",
        pending,
        sending,
        replace(job(1), ends=("archived", "canceled")),
        recover=withdrawn_late,
    ),
    scenario(
        "send, canceled on the way",
        partial(requested, word=CANCEL),
        partial(obeying, word="canceled"),
        job(1, ("canceled", "canceled")),
    ),
    scenario(
        "send, held on the way",
        partial(requested, word=HOLD),
        partial(obeying, word="held"),
        job(1, ("held", "held")),
    ),
    scenario(
        "send, the sender's start", crashed, recovering, job(1), job(2, end="canceled"), job(3)
    ),
]


# --- what becomes of sent jobs ------------------------------------------------------------------


def arrived(
    root: Path, names: Sequence[str] = ("0001.fits",), inst: str = "minicam", twins: bool = False
) -> None:
    """Send jobs; their pairs stand in incoming. Twins have the same bytes."""
    sites.make(root)
    paths = [source(root, 1 if twins else n, name) for n, name in enumerate(names, 1)]
    results = submitted(root, paths, order(inst))
    carry(root, *(sites.known_of(result).job for result in results))


def swept(root: Path, count: int = 1) -> None:
    """Send jobs and sweep them: their receipts wait to be read."""
    arrived(root, [f"{number:04}.fits" for number in range(1, count + 1)])
    sweep_minicam(root)


def confirming(root: Path, say: Say, count: int = 1) -> None:
    """Finish jobs by their receipts."""
    sites.confirm(root)
    for number in range(1, count + 1):
        say(f"completed archive-{number}")


def refused(root: Path) -> None:
    """Let the archive have found other bytes, and have said so."""
    other_bytes(root)
    sweep_minicam(root)


def unplaced(root: Path) -> None:
    """Let the archive have set a job aside, and have said so."""
    rewritten(root, name="../../0001.fits")
    sweep_minicam(root)


def lost(root: Path) -> None:
    """Let a power cut at the archive have undone the last renames."""
    arrived(root)
    for path in (root / "archive/incoming").iterdir():
        path.unlink()


def finishing_after_a_kill(root: Path, say: Say, at: str, count: int = 1) -> None:
    """Let a sender be killed before it has synced something, and start the next."""
    with sites.killed_at_sync(at):
        sites.confirm(root)
    with queue(root) as opened, opened.locked():
        opened.recover(NOW)
    for number in range(1, count + 1):
        say(f"completed archive-{number}")


def reading_receipts(root: Path, say: Say) -> None:
    """Do what the receipts say, and look for what has none."""
    sites.confirm(root, NOW + timedelta(hours=2))


def torn_log(root: Path, half: bytes) -> None:
    """Leave half a line in the finished log, as a crash does."""
    swept(root)
    path = root / f"telescope/spool/archive/log/{dates.log_date(NOW)}.log"
    path.write_bytes(half)


def falsify(path: Path, text: bytes) -> None:
    """Write other bytes into what is sealed; it is sealed still."""
    mode = path.stat().st_mode
    path.chmod(0o640)
    path.write_bytes(text)
    path.chmod(mode)


def rewritten(root: Path, **fields: str) -> None:
    """Let an arrival's control file say something else."""
    arrived(root)
    path = sites.arrival(root, "archive-1")
    known = control.load(path.read_bytes())
    falsify(path, control.dump(replace(known, **fields)))


ONE_NAME = ("a/0001.fits", "b/0001.fits")
BAD = bytes(reversed(data(1)))


def invalid(root: Path) -> None:
    """Let a file arrive that is not what its instrument asks for, and one that is."""
    arrived(root, ("invalid.fits", "0002.fits"))


def other_bytes(root: Path) -> None:
    """Let other bytes arrive."""
    arrived(root)
    falsify(sites.arrival(root, "archive-1").with_suffix(".data"), BAD)


def directory_for_data(root: Path) -> None:
    """Let a directory stand in the place of the data file."""
    arrived(root)
    path = sites.arrival(root, "archive-1").with_suffix(".data")
    path.unlink()
    path.mkdir()
    (path / "inside").write_bytes(BAD)


def delivered_again(root: Path) -> None:
    """Let a pair that has been swept come in once more."""
    arrived(root)
    incoming, saved = root / "archive/incoming", root / "saved"
    shutil.copytree(incoming, saved)
    sweep_minicam(root)
    for path in saved.iterdir():
        shutil.copy2(path, incoming)
    shutil.rmtree(saved)


def bundled(root: Path, count: int = 3, inst: str = "minicam", paths: Sequence[str] = ()) -> Path:
    """Send jobs in one bundle; return its data file."""
    arrived(root, paths or [f"{number:04}.fits" for number in range(1, count + 1)], inst)
    members, incoming = [], root / "archive/incoming"
    for path in sorted(incoming.glob("*.control")):
        known = control.load(path.read_bytes())
        members.append((replace(known, transfer=None), path.with_suffix(".data").read_bytes()))
        path.unlink()
        path.with_suffix(".data").unlink()
    index = b"".join(bundle.entry(control.dump(known), len(found), 1) for known, found in members)
    body = index + b"".join(found for _, found in members)
    known = bundle.Bundle(
        names.make_uid(NOW, sites.HOST, members[0][0].job, b"pack"), sites.HOST, inst,
        len(members), len(index), len(body), checksum.of_bytes(index), Transfer(NOW, NOW, 1.0, 1),
    )  # fmt: skip
    for suffix, found in ((".data", body), (".control", bundle.dump(known))):
        by_hand(incoming / f"{known.uid}{suffix}", found, synced=True)
    return incoming / f"{known.uid}.data"


def spoiled_bundle(root: Path, at: int, count: int = 2) -> None:
    """Let a byte of a bundle be another one."""
    path = bundled(root, count)
    body = bytearray(path.read_bytes())
    body[at] ^= 1
    falsify(path, body)


def bundle_delivered_again(root: Path) -> None:
    """Let a bundle that has been swept come in once more, and one of its files alone."""
    bundled(root, 2)
    incoming, saved = root / "archive/incoming", root / "saved"
    shutil.copytree(incoming, saved)
    sweep_minicam(root)
    for path in saved.iterdir():
        shutil.copy2(path, incoming)
    shutil.rmtree(saved)


def last_byte_of(number: int) -> bytes:
    """Return what is left of a job's bytes when its last one was changed."""
    return data(number)[:-1] + bytes([data(number)[-1] ^ 1])


def killed_sweep(root: Path) -> None:
    """Leave what a sweep leaves that was killed over copies, the night before."""
    arrived(root)
    directory = root / "archive/minicam/2033.0516"
    directory.mkdir()
    for name in (".sweep.tmp", ".sweep.1.tmp"):
        (directory / name).write_bytes(b"half")
    (root / "archive/minicam/.lock").write_text("2033.0516\n")


def parts_left(root: Path) -> None:
    """Leave what a server leaves that was killed between giving final names and taking others."""
    arrived(root)
    for path in list((root / "archive/incoming").iterdir()):
        os.link(path, path.with_name(f".{path.name}.part"))


def unnamed(root: Path, inst: str = "minicam") -> None:
    """Leave an arrival whose control file has not got its name yet."""
    arrived(root, inst=inst)
    path = sites.arrival(root, "archive-1")
    path.rename(path.with_name(f".{path.name}.part"))


def named(root: Path, say: Say, sweeps: Act) -> None:
    """Give it its name, as a server that dies then, and sweep."""
    (path,) = (root / "archive/incoming").glob(".*.control.part")
    os.rename(path, path.with_name(path.name.removeprefix(".").removesuffix(".part")))
    sweeps(root, say)


def others_after_all(root: Path) -> None:
    """Let somebody sweep the strangers' instrument, if they have not been taken yet."""
    if not list((root / "archive/any").rglob("*.data")):
        with sites.archive(root, "minicam", QUIET, NOW) as places:
            list(sweep(places, Rules(InstrumentConfig("other"))))
    sites.recover(root)


def logs_elsewhere(root: Path) -> None:
    """Let the transfer log be named by the administrator."""
    (root / "archive/logs").mkdir(parents=True)
    arrived(root)


def sweeping_after_a_kill(root: Path, say: Say, at: str) -> None:
    """Let a sweep be killed before it has synced something, and start the next."""
    with sites.killed_at_sync(at):
        sweep_minicam(root, say)
    sweep_minicam(root, say)


def over_two_nights(root: Path) -> None:
    """Send jobs in a bundle whose files belong into two directories."""
    bundled(root, paths=("2033.0515/0001.fits", "2033.0516/0002.fits"))


def sweeping_with_a_fault(root: Path, say: Say, name: str) -> None:
    """Let a disk refuse to give a file its name, and sweep again when it is mended."""
    real = os.link

    def link(src: str, dst: str, **at: object) -> None:
        if dst == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), src, None, dst)
        real(src, dst, **at)  # type: ignore[arg-type]

    os.link = link  # type: ignore[assignment]
    try:
        sweep_minicam(root, say)
    finally:
        os.link = real
    sweep_minicam(root, say)


def sweeping_what_is_there(root: Path, say: Say) -> None:
    """Put a file where the sweep will place the same one, and sweep."""
    path = root / "archive/minicam" / sites.NIGHT / "0001.fits"
    path.parent.mkdir()
    by_hand(path, data(1), synced=False)
    sweep_minicam(root, say)


def sweeping(root: Path, say: Say) -> None:
    """Sweep the instrument."""
    sweep_minicam(root, say)


def sweeping_any(root: Path, say: Say) -> None:
    """Sweep what is nobody's."""
    sites.sweep_strangers(root, say)


STRAY = {
    "odd.data": b"no uid",
    ".odd.control.part": b"no uid, half a control file",
    "ill.control": b"no control file at all\n",
}
HALF = "20330510T040000Z-telescope-archive-7-0000000"
HALVES = {
    f"{HALF}1.data": data(71),
    f".{HALF}2.data.part": data(72)[:1000],
    f"{HALF}3.control": b"torn",
}


def planted(root: Path, found: dict[str, bytes]) -> None:
    """Put files into incoming."""
    sites.make(root)
    for name, content in found.items():
        (root / "archive/incoming" / name).write_bytes(content)


def unreceipted(root: Path, torn: bool) -> None:
    """Let a job be swept, and its receipt be lost, or be there by half."""
    swept(root)
    (path,) = (root / "archive/receipts/telescope").iterdir()
    half = path.read_bytes()[:100]
    if torn:
        path.write_bytes(half)
    else:
        shutil.rmtree(root / "archive/receipts")


def receipting(root: Path, say: Say) -> None:
    """Write the receipt of what the log says was placed."""
    with sites.archive(root, "minicam", say, NOW) as places:
        places.receipts.make()
        uid = _uid(root, "sent", "archive-1")
        (entry,) = places.home.log.history([uid], NOW)[uid]
        places.receipts.append(sites.HOST, NOW, entry)


def accepting(root: Path, say: Say) -> None:
    """Say what is swept."""
    with sites.archive(root, "minicam", say, NOW) as places:
        places.receipts.make()
        places.receipts.accept("minicam", accepts(), NOW)


def accepted(root: Path) -> None:
    """Let it have been said before."""
    sites.make(root)
    with Receipts(str(root / "archive/receipts"), "mcam") as receipts:
        receipts.make()
        receipts.accept("minicam", accepts(), NOW)


FINISH = [
    scenario("finish by receipt", swept, confirming, job(1)),
    *(
        scenario(f"finish, after {what}", partial(torn_log, half=half), confirming, job(1))
        for what, half in {
            "a torn line": b"2033-05-17T03:59:59Z compl",
            "half its line": b"2033-05-17T03:59:59Z completed job=archive-1 uid=2033",
        }.items()
    ),
    *(
        scenario(f"finish, killed at {what}", swept, partial(finishing_after_a_kill, at=at), job(1))
        for what, at in {"the rename": "/archive/done", "the log": "/log/2033"}.items()
    ),
    scenario("confirm, a mismatch", refused, reading_receipts, job(1), kept=[BAD]),
    scenario("confirm, set aside", unplaced, reading_receipts, job(1, end="refused")),
    scenario("confirm, lost at the archive", lost, reading_receipts, job(1)),
]

SWEEP = [
    scenario("sweep, stored", arrived, sweeping, job(1)),
    scenario("sweep, after a killed one", killed_sweep, sweeping, job(1)),
    *(
        scenario(
            f"sweep, killed at {what}", arrived, partial(sweeping_after_a_kill, at=part), job(1)
        )
        for what, part in {
            "the final name": f"minicam/{sites.NIGHT}",
            "the record": "xferlogs/2033",
            "the receipt": "/mcam-2033",
        }.items()
    ),
    replace(
        there := scenario("sweep, what is there", arrived, sweeping_what_is_there, job(1)),
        check=not_minding("/0001.fits has ", there.check),
        settled=not_minding("/0001.fits has ", there.settled),
    ),
    scenario("sweep, with parts left", parts_left, sweeping, job(1)),
    scenario(
        "sweep, of a name that nobody synced", unnamed, partial(named, sweeps=sweeping), job(1)
    ),
    scenario("sweep, a log elsewhere", logs_elsewhere, sweeping, job(1)),
    scenario(
        "sweep, several",
        partial(arrived, names=("0001.fits", "0002.fits", "0003.fits")),
        sweeping,
        *(job(number) for number in (1, 2, 3)),
    ),
    scenario(
        "sweep, duplicate",
        partial(arrived, names=ONE_NAME, twins=True),
        sweeping,
        job(1),
        replace(job(2), data=data(1)),
    ),
    scenario(
        "sweep, renamed",
        partial(arrived, names=ONE_NAME),
        sweeping,
        job(1),
        job(2),
    ),
    scenario("sweep, mismatch", other_bytes, sweeping, job(1), kept=[BAD]),
    scenario("sweep, invalid", invalid, sweeping, job(1, end="invalid"), job(2)),
    *(
        scenario(
            f"sweep, invalid, killed at {what}",
            invalid,
            partial(sweeping_after_a_kill, at=part),
            job(1, end="invalid"),
            job(2),
        )
        for what, part in {
            "what is kept": "minicam/quarantine",
            "the record": "xferlogs/2033",
            "the receipt": "/mcam-2033",
        }.items()
    ),
    scenario(
        "sweep, hostile name",
        partial(rewritten, name="../../0001.fits"),
        sweeping,
        job(1, end="refused"),
    ),
    scenario("sweep, hostile dir", partial(rewritten, dir="../x"), sweeping, job(1, end="refused")),
    scenario(
        "sweep, a directory for data",
        directory_for_data,
        sweeping,
        job(1, end="refused"),
        kept=[BAD],
    ),
    scenario("sweep, delivered again", delivered_again, sweeping, job(1)),
    scenario("sweep, a bundle", bundled, sweeping, job(1), job(2), job(3)),
    scenario(
        "sweep, a bundle of many",
        partial(bundled, count=TOGETHER),
        sweeping,
        *(job(number) for number in range(1, TOGETHER + 1)),
    ),
    scenario(
        "sweep, a bundle of files with one name",
        partial(bundled, paths=ONE_NAME),
        sweeping,
        job(1),
        job(2),
    ),
    scenario("sweep, a bundle over two nights", over_two_nights, sweeping, job(1), job(2)),
    scenario(
        "sweep, a bundle of which a part fails",
        over_two_nights,
        partial(sweeping_with_a_fault, name="0001.fits"),
        job(1),
        job(2),
        kept=[data(1), data(2)],
    ),
    *(
        scenario(
            f"sweep, a bundle, killed at {what}",
            partial(bundled, count=2),
            partial(sweeping_after_a_kill, at=part),
            job(1),
            job(2),
        )
        for what, part in {
            "the final names": f"minicam/{sites.NIGHT}",
            "the records": "xferlogs/2033",
            "the receipts": "/mcam-2033",
        }.items()
    ),
    scenario(
        "sweep, a bundle with a mismatch",
        partial(spoiled_bundle, at=-1),
        sweeping,
        job(1),
        job(2),
        kept=[last_byte_of(2)],
    ),
    scenario("sweep, a damaged bundle", partial(spoiled_bundle, at=9), sweeping, job(1), job(2)),
    scenario(
        "sweep, a bundle with an invalid file",
        partial(bundled, paths=("invalid.fits", "0002.fits")),
        sweeping,
        job(1, end="invalid"),
        job(2),
    ),
    scenario("sweep, a bundle delivered again", bundle_delivered_again, sweeping, job(1), job(2)),
    scenario(
        "sweep -A, a bundle of strangers",
        partial(bundled, count=2, inst="other"),
        sweeping_any,
        job(1),
        job(2),
    ),
    scenario("sweep -A, a stranger", partial(arrived, inst="other"), sweeping_any, job(1)),
    scenario(
        "sweep -A, of a name that nobody synced",
        partial(unnamed, inst="other"),
        partial(named, sweeps=sweeping_any),
        job(1),
    ),
    scenario(
        "sweep -A, no stranger after all",
        partial(arrived, inst="other"),
        sweeping_any,
        job(1),
        recover=others_after_all,
    ),
    scenario(
        "sweep -A, half arrivals",
        partial(planted, found=HALVES),
        sweeping_any,
        kept=list(HALVES.values()),
    ),
    scenario(
        "sweep -A, no arrivals at all",
        partial(planted, found=STRAY),
        sweeping_any,
        kept=list(STRAY.values()),
    ),
]

RECEIPTS = [
    *(
        replace(
            again := scenario(name, partial(unreceipted, torn=torn), receipting, job(1)),
            check=not_minding("no receipt says what became", again.check),
        )
        for name, torn in {
            "receipts, a new log": False,
            "receipts, after a torn line": True,
        }.items()
    ),
    scenario("accepts, new", sites.make, accepting),
    scenario("accepts, again", accepted, accepting),
]


# --- many jobs at once ----------------------------------------------------------------------

SEVERAL = 3
IDS = [f"archive-{number}" for number in range(1, SEVERAL + 1)]


def noting(root: Path, say: Say) -> None:
    """Claim jobs and note in all of them under which name they travel."""
    with queue(root) as opened, opened.locked(), ExitStack() as stack:
        claimed, _ = batch.claim(opened, IDS)
        for found in claimed:
            stack.enter_context(found)
        batch.note(claimed, START, NOW, bundle="a-name")
        for job_id in IDS:
            say(f"noted {job_id}")


def noted(root: Path, said: Sequence[str]) -> list[str]:
    """Find jobs in which a note has been lost that was promised."""
    spool = root / "telescope/spool/archive"
    promised = [word.split()[1] for word in said if word.startswith("noted ")]
    found = {path.parent.name for path in spool.glob("*/*/attempts")
             if b"bundle=a-name\n" in path.read_bytes()}  # fmt: skip
    return [f"the note in {job_id} is gone" for job_id in promised if job_id not in found]


def moving_many(root: Path, say: Say) -> None:
    """Claim jobs and hold them all."""
    with queue(root) as opened, opened.locked():
        claimed, _ = batch.claim(opened, IDS)
        for found in claimed:
            found.close()
        opened.move_many(IDS, State.ACTIVE, State.HELD)
    for job_id in IDS:
        say(f"held {job_id}")


def canceling_many(root: Path, say: Say) -> None:
    """Cancel jobs that wait."""
    with queue(root) as opened, ExitStack() as stack:
        jobs = [stack.enter_context(opened.open(job_id, State.PENDING)) for job_id in IDS]
        ends = [End(found, State.CANCELED, "by a test") for found in jobs]
        opened.finish_many(ends, State.PENDING, NOW)
    for job_id in IDS:
        say(f"canceled {job_id}")


def several(*said: tuple[str, str]) -> list[Job]:
    """Return the jobs of a scenario with many."""
    return [job(number, *said) for number in range(1, SEVERAL + 1)]


MANY = [
    replace(
        notes := scenario("many, note", partial(pending, count=SEVERAL), noting, *several()),
        check=lambda root, said: [*notes.check(root, said), *noted(root, said)],
    ),
    scenario(
        "many, move", partial(pending, count=SEVERAL), moving_many, *several(("held", "held"))
    ),
    scenario(
        "many, finish by receipts",
        partial(swept, count=SEVERAL),
        partial(confirming, count=SEVERAL),
        *several(),
    ),
    *(
        scenario(
            f"many, finish, killed at {what}",
            partial(swept, count=SEVERAL),
            partial(finishing_after_a_kill, at=at, count=SEVERAL),
            *several(),
        )
        for what, at in {"the rename": "/archive/done", "the log": "/log/2033"}.items()
    ),
    scenario(
        "many, cancel",
        partial(pending, count=SEVERAL),
        canceling_many,
        *several(("canceled", "canceled")),
    ),
]


# --- whoever is told of placed files --------------------------------------------------------


@contextmanager
def tellings(root: Path) -> Iterator[Tellings]:
    """Open what is to be told of the instrument."""
    with InstrumentDir(str(root / "archive/minicam")) as home:
        yield Tellings(home)


def to_be_told(root: Path) -> None:
    """Let telling begin, and files be placed."""
    arrived(root, ["0001.fits", "0002.fits"])
    with tellings(root) as found:
        found.begin(NOW)
    sweep_minicam(root)


def telling(root: Path, say: Say) -> None:
    """Tell of each file; what is recorded is promised to be told no more."""

    def answer(_: bytes, uid: str, when: str) -> str:
        say(f"told {uid}")
        return "0"

    for when in (NOW, NOW + timedelta(days=1)):  # the mark moves to another log
        Teller(partial(tellings, root), answer, lambda when=when: when, QUIET).once()  # type: ignore[misc]
    say("recorded minicam")


def untold(root: Path, said: Sequence[str]) -> list[str]:
    """Find files that are not told, and will not be."""
    with tellings(root) as found:
        due = found.due()
    lines = b"".join(path.read_bytes() for path in (root / "archive/minicam/xferlogs").iterdir())
    placed = set(re.findall(rb" stored .* uid=(\S+)", lines))
    told = set(re.findall(rb" told .* uid=(\S+) ", lines))
    lost = placed - told - {uid.encode() for uid in due}
    again = [uid for uid in due if "recorded minicam" in said]
    return [f"nobody is told of {uid!r}" for uid in lost] + [f"{uid} is due again" for uid in again]


def told_by_the_next(root: Path) -> None:
    """Do what is left to do, and tell what is left to be told."""
    sites.recover(root)
    telling(root, QUIET)


TELL = [
    replace(
        tells := scenario("tell", to_be_told, telling, job(1), job(2), recover=told_by_the_next),
        check=lambda root, said: [*tells.check(root, said), *untold(root, said)],
        settled=lambda root, said: [
            *tells.settled(root, said),
            *untold(root, ["recorded minicam"]),
        ],
    )
]


# --- the commands of people -----------------------------------------------------------------


def canceling(root: Path, say: Say) -> None:
    """Cancel a job."""
    with queue(root) as opened:
        cancel(opened, "archive-1", "by a test", NOW)
    say("canceled archive-1")


def holding(root: Path, say: Say) -> None:
    """Hold a job."""
    with queue(root) as opened:
        hold.hold(opened, "archive-1", "by a test")
    say("held archive-1")


def releasing(root: Path, say: Say) -> None:
    """Release a job."""
    with queue(root) as opened:
        hold.release(opened, "archive-1")
    say("released archive-1")


def two_queues(root: Path) -> None:
    """Submit a job, and have another queue."""
    pending(root)
    with queue(root, "backup"):
        pass


def half_sent_of_two(root: Path) -> None:
    """Leave a job that was encoded and cut in the middle, and have another queue."""
    with os.fdopen(os.memfd_create("data"), "wb", buffering=0) as plain:
        plain.write(data(1))
        ways = codec.Params("zstd", "none", 1)
        wire = b"".join(codec.pieces(plain.fileno(), len(data(1)), ways))
    half_sent(root, wire)
    (root / "telescope/spool/archive/pending/archive-1/encoded").write_bytes(wire)
    with queue(root, "backup"):
        pass


def moving(root: Path, say: Say) -> None:
    """Move a job to another queue."""
    with queue(root) as opened, queue(root, "backup") as other:
        reroute.move(opened, "archive-1", other, NOW)
    say("moved archive-1 backup")


def failed(root: Path) -> None:
    """Let a job have failed."""
    pending(root)
    with queue(root) as opened, opened.locked():
        with opened.claim("archive-1") as found:
            found.set_routing(Routing(reason="by a test", stalls=3))
        opened.move("archive-1", State.ACTIVE, State.FAILED)


def retrying(root: Path, say: Say) -> None:
    """Send a failed job again."""
    with queue(root) as opened:
        reroute.retry(opened, "archive-1", 3600, NOW)
    say("retried archive-1")


def active(root: Path) -> None:
    """Let a sender have died over a job."""
    pending(root)
    with queue(root) as opened, opened.locked():
        opened.claim("archive-1").close()


def giving_priority(root: Path, say: Say) -> None:
    """Change a priority."""
    with queue(root) as opened:
        reroute.set_priority(opened, "archive-1", 80)
    say("priority archive-1 80")


def switching(root: Path, say: Say) -> None:
    """Disable a queue."""
    with queue(root) as opened:
        opened.switch(partial(Switches.disable, reason="by a test", now=NOW))
    say("disabled archive")


def enabled_again(root: Path) -> None:
    """Enable the queue, and do what is left to do."""
    with queue(root) as opened:
        opened.switch(Switches.enable)
    sites.recover(root)
    with queue(root) as opened:
        opened.switch(partial(Switches.disable, reason="by a test", now=NOW))


COMMANDS = [
    scenario("cancel", pending, canceling, job(1, ("canceled", "canceled"))),
    scenario("cancel, left by a dead sender", active, canceling, job(1, ("canceled", "canceled"))),
    scenario("hold", pending, holding, job(1, ("held", "held"))),
    scenario(
        "release",
        partial(pending, held=True),
        releasing,
        job(1, ("released", "archived"), end="held"),
    ),
    scenario("move to another queue", two_queues, moving, job(1)),
    scenario("move, when half was sent", half_sent_of_two, moving, job(1)),
    scenario("retry", failed, retrying, job(1, ("retried", "archived"), end="failed")),
    scenario("priority", pending, giving_priority, job(1)),
    scenario("disable", pending, switching, job(1), recover=enabled_again),
]


# --- watch ----------------------------------------------------------------------------------


def watched(
    name: str, known: int, act: Act = watching.watch, again: Callable[[Path], None] = watching.again
) -> Scenario:
    """Make a scenario of files that are watched, of which some are submitted already."""
    prepare = partial(watching.prepared, known=known)
    return Scenario(name, prepare, act, watching.broken, watching.unsettled, again)


WATCH = [
    watched("watch, new files", 0),
    watched("watch, one of them known", 1),
    watched("watch, after one that died before a sync", 0, watching.after_a_dead_one),
    watched("watch, after a program asked", 0, watching.ask_and_watch, watching.asked_again),
    watched("watch, before a program asks", 0, watching.watch_and_ask, watching.asked_again),
    Scenario(
        "watch, its very first start",
        watching.old,
        watching.watch,
        watching.taken_up,
        watching.taken_up,
        watching.again,
    ),
]

SCENARIOS: Sequence[Scenario] = [
    *SUBMIT,
    *SEND,
    *FINISH,
    *SWEEP,
    *RECEIPTS,
    *MANY,
    *TELL,
    *COMMANDS,
    *WATCH,
]

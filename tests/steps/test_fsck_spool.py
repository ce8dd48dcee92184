"""The check of a spool: every broken promise is named, repaired, and then not named again."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lpxfer import durable
from lpxfer.errors import PermanentError
from lpxfer.formats import control, finding
from lpxfer.formats.control import Control
from lpxfer.formats.finding import Finding, Report
from lpxfer.formats.job import State
from lpxfer.steps import fsck_spool
from lpxfer.stores import layout
from lpxfer.stores.job_dir import ATTEMPTS_LIMIT, JobDir
from lpxfer.stores.queue import Queue
from lpxfer.stores.spool import Spool
from lpxfer.stores.survey import Survey

NOW = datetime(2026, 11, 20, 5, tzinfo=UTC)

MakeJob = Callable[..., Control]


def fsck(spool: Spool, repair: bool = False, links: tuple[str, ...] = ()) -> Report:
    return fsck_spool.fsck(spool, ("archive", "backup"), links, repair, lambda size, total: None)


def only(report: Report) -> Finding:
    [found] = report.findings
    return found


def tree(top: Path) -> dict[str, object]:
    """Return all that stands beneath a directory, with its contents."""
    return {
        str(path.relative_to(top)): path.read_bytes() if path.is_file() else path.is_symlink()
        for path in sorted(top.rglob("*"))
        if path.name != "lock"  # which holds the pid of whoever had it last
    }


@pytest.fixture
def top(queue: Queue) -> Path:
    return queue.root


# --- nothing is wrong -------------------------------------------------------------------------


def test_a_spool_that_was_never_used_is_as_it_should_be(spool: Spool) -> None:
    assert fsck(spool) == Report([], {"jobs": 0, "bytes": 0})
    assert not spool.root.exists()


def test_whole_jobs_in_every_state_are_as_they_should_be(
    spool: Spool, queue: Queue, make_job: MakeJob
) -> None:
    for state in ("PENDING", "HELD", "ACTIVE", "SENT", "FAILED", "QUARANTINED"):
        make_job(queue, state=State[state])
    make_job(queue, b"")
    make_job(spool.queue("backup"))
    before = tree(spool.root)
    assert fsck(spool) == Report([], {"jobs": 7, "bytes": 6 * 9})
    assert fsck(spool, repair=True).findings == []
    assert tree(spool.root) == before


def test_only_the_queues_that_are_named_are_checked(
    spool: Spool, queue: Queue, make_job: MakeJob
) -> None:
    (spool.queue("backup").root / "pending/junk").touch()
    make_job(queue)
    for repair in (False, True):
        report = fsck_spool.fsck(spool, ["archive"], (), repair, lambda size, total: None)
        assert report == Report([], {"jobs": 1, "bytes": 9})


def test_what_a_dead_sender_leaves_is_no_broken_promise(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    """It stands in active/, or in done/: logged or not, half removed or not."""
    make_job(queue, state=State.ACTIVE)
    for removed in ((), ("data",), ("data", "control", "routing")):
        known = make_job(queue, state=State.SENT)
        shutil.copytree(top / "sent" / known.job, top / "copy")
        queue.finish(known.job, State.SENT, State.COMPLETED, "", NOW)
        shutil.move(top / "copy", top / "done" / known.job)
        for name in removed:
            (top / "done" / known.job / name).unlink(missing_ok=True)
    make_job(queue, state=State.COMPLETED)
    assert fsck(spool).findings == []


def test_torn_lines_of_the_log_are_no_broken_promise(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    for _ in range(2):
        known = make_job(queue, state=State.SENT)
        queue.finish(known.job, State.SENT, State.COMPLETED, "", NOW)
    [log] = (top / "log").iterdir()
    line = log.read_bytes().splitlines(keepends=True)[0].rstrip(b"\n")
    for length in range(len(line)):
        log.write_bytes(line + b"\n" + line[:length])
        assert fsck(spool).findings == [], f"torn after {length} bytes"
        log.write_bytes(line[:length] + b"\n" + line + b"\n")
        assert fsck(spool).findings == [], f"torn after {length} bytes, and gone on"


def test_a_draft_whose_owner_is_at_work_is_left_alone(spool: Spool, queue: Queue) -> None:
    with queue.draft(queue.reserve(1)[0]) as draft:
        draft.write("data", b"half")
        assert fsck(spool, repair=True).findings == []
        assert queue.root.joinpath("tmp", draft.id, "data").read_bytes() == b"half"


def test_hard_links_of_data_are_for_queues_that_allow_them(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    known = make_job(queue)
    os.link(top / "pending" / known.job / "data", spool.root.parent / "source")
    assert fsck(spool, links=("archive",)).findings == []
    assert only(fsck(spool)).message == "data is a hard link"


@pytest.mark.parametrize("checked", [["archive"], ["archive", "backup"]])
def test_jobs_that_move_and_end_while_they_are_checked_are_found_or_forgotten(
    spool: Spool, queue: Queue, make_job: MakeJob, checked: list[str]
) -> None:
    backup = spool.queue("backup")
    for _ in range(6):
        make_job(queue, state=State.SENT)
    read: list[int] = []

    def watch(size: int, total: int) -> None:
        if not read:
            queue.move("archive-2", State.SENT, State.PENDING)
            queue.move("archive-3", State.SENT, State.FAILED)
            for number in (4, 6):
                queue.move_to_queue(f"archive-{number}", State.SENT, backup)
            backup.finish("archive-6", State.PENDING, State.CANCELED, "", NOW)
            queue.finish("archive-5", State.SENT, State.COMPLETED, "", NOW)
            make_job(queue)
        read.append(size)

    report = fsck_spool.fsck(spool, checked, (), False, watch)
    assert report == Report([], {"jobs": 4, "bytes": 36})


def test_a_job_that_ends_while_it_is_read_is_not_damaged(
    spool: Spool, queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(queue, state=State.SENT)
    open_in = Survey.open_in

    def open_and_finish(survey: Survey, directory: str, name: str) -> JobDir:
        opened = open_in(survey, directory, name)
        queue.finish(name, State.SENT, State.COMPLETED, "", NOW)
        return opened

    monkeypatch.setattr(Survey, "open_in", open_and_finish)
    assert fsck(spool).findings == []


def test_a_draft_that_had_no_lock_yet_is_not_dead(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    make_job(queue)
    (top / "tmp/archive-1").mkdir()

    def submit_goes_on(size: int, total: int) -> None:
        (top / "tmp/archive-1").rmdir()

    assert fsck_spool.fsck(spool, ["archive"], (), False, submit_goes_on).findings == []


def test_a_busy_spool_has_no_broken_promise(spool: Spool, queue: Queue, make_job: MakeJob) -> None:
    backup = spool.queue("backup")
    stop = threading.Event()
    rounds: list[str] = []

    def work() -> None:
        while not stop.is_set():
            known = make_job(queue)
            queue.move(known.job, State.PENDING, State.HELD)
            queue.move(known.job, State.HELD, State.PENDING)
            for _ in range(2):
                with queue.claim(known.job) as job:
                    job.note("start", NOW)
                    job.set_routing(job.routing())
                queue.move(known.job, State.ACTIVE, State.PENDING)
            queue.move_to_queue(known.job, State.PENDING, backup)
            backup.move_to_queue(known.job, State.PENDING, queue)
            queue.claim(known.job).close()
            queue.move(known.job, State.ACTIVE, State.SENT)
            outcome = State.COMPLETED if len(rounds) % 2 else State.CANCELED
            queue.finish(known.job, State.SENT, outcome, "", NOW)
            rounds.append(known.job)

    for _ in range(20):
        make_job(queue, state=State.SENT)
    workers = [threading.Thread(target=work) for _ in range(3)]
    with queue.locked():
        for worker in workers:
            worker.start()
        try:
            while len(rounds) < 40:
                assert fsck(spool).findings == []
        finally:
            stop.set()
            for worker in workers:
                worker.join()


# --- one broken promise after another ---------------------------------------------------------


def flip(job: Path) -> None:
    (job / "data").write_bytes(b"SIMPLE  +")


def lengthen(job: Path) -> None:
    (job / "data").write_bytes(b"SIMPLE  = ")


def lose_data(job: Path) -> None:
    (job / "data").unlink()


def link_data(job: Path) -> None:
    (job / "data").unlink()
    (job / "data").symlink_to("/etc/passwd")


def fifo_data(job: Path) -> None:
    (job / "data").unlink()
    os.mkfifo(job / "data")


def lose_control(job: Path) -> None:
    (job / "control").unlink()


def tear_control(job: Path) -> None:
    (job / "control").write_bytes((job / "control").read_bytes()[:-1])


def change_control(job: Path) -> None:
    text = (job / "control").read_bytes()
    (job / "control").write_bytes(text.replace(b"size=9", b"size=8"))


def take_control_of_another(job: Path) -> None:
    known = control.load((job / "control").read_bytes())
    text = control.dump(known).replace(b"archive-1", b"archive-7").split(b"end=")[0]
    seal = hashlib.sha256(text).hexdigest().encode()
    (job / "control").write_bytes(text + b"end=sha256:" + seal + b"\n")


def tear_routing(job: Path) -> None:
    (job / "routing").write_bytes(b"priority=1\n")


def link_routing(job: Path) -> None:
    (job / "routing").symlink_to("/etc/passwd")


def fill_attempts(job: Path) -> None:
    (job / "attempts").touch()
    os.truncate(job / "attempts", ATTEMPTS_LIMIT + 1)


def add_file(job: Path) -> None:
    (job / "no\ttes").touch()


DAMAGE = {
    flip: "data has checksum sha256:fb83", lengthen: "data has another size",
    lose_data: "data is missing", link_data: "data is not a regular file",
    fifo_data: "data is not a regular file", lose_control: "control is missing",
    tear_control: "control: torn", change_control: "control: torn",
    take_control_of_another: "control: the control file says archive-7",
    tear_routing: "routing: torn", link_routing: "routing: ",
    fill_attempts: "attempts is longer", add_file: "'no\\ttes' does not belong",
}  # fmt: skip


@pytest.mark.parametrize("state", [State.PENDING, State.ACTIVE, State.SENT, State.FAILED])
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_job_is_named_and_set_aside(
    spool: Spool, queue: Queue, make_job: MakeJob, damage: Callable[[Path], None], state: State
) -> None:
    known, good = make_job(queue, state=state), make_job(queue, state=state)
    job = queue.root / state.directory / known.job
    damage(job)
    before = tree(queue.root)
    found = only(fsck(spool))
    assert found.message.startswith(DAMAGE[damage])
    assert (found.where, found.id) == (f"archive/{state.directory}/archive-1", "archive-1")
    assert found.invariant == finding.JOB and not found.warning and not found.repaired
    assert tree(queue.root) == before

    inside = tree(job)
    mended = only(fsck(spool, repair=True))
    assert mended.repaired and mended.message.endswith("; set aside as quarantine/archive-1")
    after = tree(queue.root / "quarantine/archive-1")
    assert {name: after[name] for name in inside} == inside
    if "routing" not in inside:
        with queue.open(known.job, State.QUARANTINED) as opened:
            assert opened.routing().reason == found.message
    assert fsck(spool).findings == []
    assert queue.where(good.job) is state


def test_a_job_of_a_later_release_is_named_and_left_alone(
    spool: Spool, queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(control, "FORMAT", "2")
        make_job(queue)
    for repair in (False, True):
        report = fsck(spool, repair)
        assert only(report).warning and "left alone" in only(report).message
        assert not report.broken and not report.busy
    assert queue.where("archive-1") is State.PENDING


def junk(directory: Path) -> None:
    (directory / "lost\n.fits").write_bytes(b"bytes")


def junk_directory(directory: Path) -> None:
    (directory / "pending").mkdir()
    (directory / "pending/data").write_bytes(b"bytes")


def file_with_an_id(directory: Path) -> None:
    (directory / "archive-1").write_bytes(b"bytes")


def link_with_an_id(directory: Path) -> None:
    (directory / "archive-1").symlink_to("/etc")


def long_name(directory: Path) -> None:
    (directory / ("x" * 255)).write_bytes(b"bytes")


@pytest.mark.parametrize(
    "make", [junk, junk_directory, file_with_an_id, link_with_an_id, long_name]
)
@pytest.mark.parametrize("directory", ["tmp", "pending", "sent", "done"])
def test_what_is_no_job_is_named_and_set_aside(
    spool: Spool, queue: Queue, make: Callable[[Path], None], directory: str
) -> None:
    queue.reserve(9)
    make(queue.root / directory)
    inside = list(tree(queue.root / directory).values())
    found = only(fsck(spool))
    assert found.invariant == finding.STRAY and found.message == "is not a job"
    assert found.where.startswith(f"archive/{directory}/") and found.subject == found.where
    assert only(fsck(spool, repair=True)).repaired
    assert list(tree(queue.root / "quarantine").values()) == inside
    assert tree(queue.root / directory) == {}
    assert queue.entries(State.QUARANTINED) == []
    assert fsck(spool).findings == []


def test_of_two_jobs_of_one_id_the_whole_one_that_is_further_stays(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    for _ in range(3):
        make_job(queue)
    shutil.copytree(top / "pending/archive-1", top / "sent/archive-1")
    shutil.copytree(top / "pending/archive-2", top / "sent/archive-2")
    flip(top / "sent/archive-2")
    shutil.copytree(top / "pending/archive-3", top / "quarantine/archive-3")
    moved = ["archive/pending/archive-1", "archive/quarantine/archive-3", "archive/sent/archive-2"]
    assert sorted(found.where for found in fsck(spool).findings) == moved
    for found in fsck(spool, repair=True).findings:
        assert found.repaired and found.invariant == finding.STATE
        assert "two jobs of one id" in found.message
    assert [queue.where(f"archive-{n}") for n in (1, 2, 3)] == [
        State.SENT, State.PENDING, State.PENDING,
    ]  # fmt: skip
    assert sorted(os.listdir(top / "quarantine")) == ["archive-1.1", "archive-2.1", "archive-3.1"]
    assert fsck(spool).findings == []


def test_a_job_that_stands_in_two_queues_is_named(
    spool: Spool, queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue)
    other = spool.queue("backup").root / "pending/archive-1"
    shutil.copytree(queue.root / "pending/archive-1", other)
    assert "two jobs of one id" in only(fsck(spool)).message
    assert only(fsck(spool, repair=True)).repaired
    assert fsck(spool).findings == []


def test_a_finished_job_that_came_back_is_named_and_set_aside(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    known = make_job(queue, state=State.SENT)
    shutil.copytree(top / "sent/archive-1", top / "backup")
    queue.finish(known.job, State.SENT, State.COMPLETED, "", NOW)
    shutil.move(top / "backup", top / "pending/archive-1")
    found = only(fsck(spool))
    assert found.message == "is completed in the finished log and stands in pending/"
    assert found.invariant == finding.FINISHED
    assert only(fsck(spool, repair=True)).repaired
    assert queue.where("archive-1") is State.QUARANTINED
    assert fsck(spool).findings == []


def test_another_job_with_the_number_of_a_finished_one_is_only_warned_of(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    make_job(queue, state=State.SENT)
    queue.finish("archive-1", State.SENT, State.COMPLETED, "", NOW)
    (top / "seq").write_bytes(b"0\n")
    make_job(queue, b"other")
    for repair in (False, True):
        found = only(fsck(spool, repair))
        assert found.warning and found.message.startswith("has the number of another job")
    assert queue.where("archive-1") is State.PENDING


def test_a_job_that_vanishes_while_it_is_checked_is_named(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    make_job(queue)
    make_job(queue)

    def lose(size: int, total: int) -> None:
        shutil.rmtree(top / "pending/archive-2", ignore_errors=True)

    report = fsck_spool.fsck(spool, ["archive"], (), False, lose)
    assert only(report).id == "archive-2" and "in no state now" in only(report).message


def test_a_seq_below_the_highest_number_is_named_and_raised(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    for _ in range(3):
        make_job(queue, state=State.SENT)
    queue.finish("archive-3", State.SENT, State.COMPLETED, "", NOW)
    (top / "seq").write_bytes(b"2\n")
    found = only(fsck(spool))
    assert found.invariant == finding.SEQ and found.subject == "archive"
    assert found.message == "seq says 2, but archive-3 was given out"
    assert only(fsck(spool, repair=True)).repaired
    assert fsck(spool).findings == []
    assert queue.reserve(1)[0] == 4


@pytest.mark.parametrize("text", [None, b"", b"nonsense\n", b"12"])
def test_a_lost_seq_is_no_broken_promise(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path, text: bytes | None
) -> None:
    make_job(queue)
    (top / "seq").unlink()
    if text is not None:
        (top / "seq").write_bytes(text)
    assert fsck(spool).findings == []


def test_a_dead_draft_is_a_warning_and_repair_removes_it(
    spool: Spool, queue: Queue, top: Path
) -> None:
    queue.draft(queue.reserve(1)[0]).close()
    report = fsck(spool)
    assert only(report).invariant == finding.DRAFT and not report.broken
    assert only(fsck(spool, repair=True)).repaired
    assert os.listdir(top / "tmp") == []
    assert fsck(spool).findings == []


def test_damaged_lines_of_the_log_are_named_and_left_as_they_are(
    spool: Spool, queue: Queue, top: Path
) -> None:
    text = b"2026-11-20T05:00:00Z completed job=archive-1\n\0\0\0\n\nnonsense of somebody\n"
    (top / "log/20261120.log").write_bytes(text)
    queue.reserve(1)
    for repair in (False, True):
        found = only(fsck(spool, repair))
        assert found.subject == "archive/log" and not found.repaired
        assert found.message.startswith("20261120.log: 1 damaged line(s)")
    assert (top / "log/20261120.log").read_bytes() == text


def test_a_log_that_is_a_fifo_or_a_link_is_named(spool: Spool, queue: Queue, top: Path) -> None:
    os.mkfifo(top / "log/20261119.log")
    (top / "log/20261120.log").symlink_to("/etc/passwd")
    assert [found.invariant for found in fsck(spool).findings] == [finding.LOG] * 2


@pytest.mark.parametrize("directory", ["tmp", "sent", "log"])
def test_a_missing_directory_is_named_and_made(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path, directory: str
) -> None:
    make_job(queue)
    (top / directory).rmdir()
    report = fsck(spool)
    assert only(report).invariant == finding.LAYOUT and report.broken
    assert not (top / directory).exists()
    assert only(fsck(spool, repair=True)).repaired
    assert fsck(spool) == Report([], {"jobs": 1, "bytes": 9})


def test_directories_open_to_others_are_a_warning(spool: Spool, queue: Queue, top: Path) -> None:
    (top / "held").chmod(0o755)
    report = fsck(spool)
    assert not report.broken
    assert only(report).message == f"is open to others, mode 0755: chmod 0700 {top / 'held'}"


def test_the_directories_of_several_users_are_checked_for_what_makes_them_safe(
    tmp_path: Path,
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2750)
    spool = Spool(tmp_path / "shared")
    top = spool.queue("archive").root
    try:
        assert fsck(spool).findings == []
        (top / "pending").chmod(0o2770)
        os.removexattr(top / "tmp", layout._DEFAULT_ACL)
        pending, tmp = fsck(spool).findings
    finally:
        spool.close()
    assert pending.message == f"has the mode 2770: chmod 3770 {top / 'pending'}"
    assert tmp.subject == "archive/tmp" and "default ACL" in tmp.message


# --- repair and others ------------------------------------------------------------------------


def test_beside_a_sender_nothing_is_repaired(
    spool: Spool, queue: Queue, make_job: MakeJob, top: Path
) -> None:
    make_job(queue)
    flip(top / "pending/archive-1")
    (top / "pending/junk").touch()
    before = tree(top)
    with queue.locked():
        report = fsck(spool, repair=True)
        assert len(report.findings) == 2 and not any(f.repaired for f in report.findings)
        assert report.busy == "a sender serves queue archive: stop the sender first"
        assert tree(top) == before
    assert fsck(spool, repair=True).busy == ""
    assert fsck(spool).findings == []


def test_beside_a_sender_with_nothing_to_repair_nobody_has_to_stop(
    spool: Spool, queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue)
    with queue.locked():
        assert fsck(spool, repair=True) == Report([], {"jobs": 1, "bytes": 9})


def test_what_cannot_be_set_aside_says_why(
    spool: Spool, queue: Queue, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (top / "pending/junk").touch()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "move", refuse)
        found = only(fsck(spool, repair=True))
    assert found.message == "is not a job; not repaired: Permission denied" and not found.repaired


def test_a_disk_that_cannot_be_read_is_named_and_nothing_is_set_aside(
    spool: Spool, queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(queue)

    def fail(fd: int, size: int | None = None) -> str:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("lpxfer.checksum.of_file", fail)
        found = only(fsck(spool, repair=True))
    assert found.message == "data cannot be read: Input/output error" and not found.repaired
    assert queue.where("archive-1") is State.PENDING


@pytest.mark.root
def test_an_account_that_cannot_see_everything_is_refused() -> None:
    with tempfile.TemporaryDirectory() as directory:
        spool = Spool(Path(directory) / "spool")
        top = spool.queue("archive").root
        for path in (Path(directory), spool.root, top, *top.iterdir()):
            path.chmod(0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(PermanentError, match="as the account of the sender"):
                fsck(spool)
            os.seteuid(0)
            top.chmod(0o700)
            os.seteuid(65534)
            with pytest.raises(PermanentError, match="Permission denied"):
                fsck(spool)
        finally:
            os.seteuid(0)
            spool.close()

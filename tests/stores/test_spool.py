"""The spool: every promise that xfer-spool(5) makes about a queue and its jobs."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path

import pytest
from traced import trace

from lpxfer import durable
from lpxfer.errors import BusyError, FormatError, PermanentError
from lpxfer.formats.control import Control
from lpxfer.formats.job import NOT_COMPLETED, Routing, State
from lpxfer.formats.switches import Switches
from lpxfer.stores import aside, finished_log, listing
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.spool import Queue, Spool

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MakeJob = Callable[..., Control]


@pytest.fixture
def other(queue: Queue) -> Iterator[Queue]:
    """The same queue as another process has it open."""
    other = Queue(queue.root, queue.name)
    yield other
    other.close()


def states(queue: Queue, job_id: str) -> list[State]:
    """Return every state directory that has a job, looking into each."""
    return [s for s in (*NOT_COMPLETED, State.COMPLETED)
            if any(entry.id == job_id for entry in queue.entries(s))]  # fmt: skip


def outcomes(queue: Queue, job_id: str) -> list[str]:
    return [line.kind for line in queue.log() if line.fields["job"] == job_id]


# --- numbers ------------------------------------------------------------------------------


def test_numbers_begin_at_one_and_are_never_given_out_again(queue: Queue, other: Queue) -> None:
    assert list(queue.reserve(2)) == [1, 2]
    assert list(other.reserve(1)) == [3]


def test_two_processes_that_reserve_at_once_share_no_number(queue: Queue, other: Queue) -> None:
    taken: list[int] = []

    def reserve(queue: Queue) -> None:
        for _ in range(50):
            taken.extend(queue.reserve(3))

    threads = [threading.Thread(target=reserve, args=(q,)) for q in (queue, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 301))


@pytest.mark.parametrize("text", [None, b"", b"12", b"-3\n", b"x" * 100, b"9" * 40 + b"\n"])
@pytest.mark.parametrize("state", [State.PENDING, State.HELD, State.FAILED, State.QUARANTINED])
def test_lost_seq_restarts_above_every_state_directory(
    queue: Queue, make_job: MakeJob, text: bytes | None, state: State
) -> None:
    for _ in range(3):
        last = make_job(queue, state=state)
    seq = queue.root / "seq"
    if text is None:
        seq.unlink()
    else:
        seq.write_bytes(text)
    assert last.job == "archive-3"
    assert list(queue.reserve(1)) == [4]


def test_lost_seq_restarts_above_the_finished_log(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue)
    queue.finish(job.job, State.PENDING, State.CANCELED, "", NOW)
    (queue.root / "seq").unlink()
    assert list(queue.reserve(1)) == [2]


def test_lost_seq_takes_no_number_from_jobs_of_other_queues(
    spool: Spool, queue: Queue, make_job: MakeJob
) -> None:
    there = spool.queue("backup")
    for _ in range(5):
        moved = make_job(there)
    there.move_to_queue(moved.job, State.PENDING, queue)
    (queue.root / "seq").unlink()
    assert list(queue.reserve(1)) == [1]


# --- drafts -------------------------------------------------------------------------------


def test_draft_is_no_job_until_it_is_committed(queue: Queue) -> None:
    with queue.draft(1) as draft:
        draft.write("data", b"x")
        assert queue.where("archive-1") is None
        queue.commit([draft], State.HELD)
        assert queue.where("archive-1") is State.HELD


def test_draft_of_a_number_that_is_taken_is_refused(queue: Queue, make_job: MakeJob) -> None:
    make_job(queue, state=State.FAILED)
    with pytest.raises(FileExistsError):
        queue.draft(1)
    with queue.draft(2), pytest.raises(FileExistsError):
        queue.draft(2)


def test_discarded_draft_leaves_nothing(queue: Queue) -> None:
    with queue.draft(1) as draft:
        draft.write("data", b"x")
        queue.discard(draft)
    assert os.listdir(queue.root / "tmp") == []


def test_drafts_committed_together_are_all_jobs(queue: Queue, make_job: MakeJob) -> None:
    with contextlib.ExitStack() as stack:
        drafts = [stack.enter_context(queue.draft(number)) for number in queue.reserve(20)]
        for draft in drafts:
            draft.write("data", b"x")
        queue.commit(drafts, State.PENDING)
    assert {entry.id for entry in queue.entries(State.PENDING)} == {d.id for d in drafts}
    assert queue.count(State.PENDING) == (20, 20)


def test_committed_job_can_be_claimed_while_its_submit_still_runs(queue: Queue) -> None:
    with queue.draft(1) as draft:
        queue.commit([draft], State.PENDING)
        queue.claim("archive-1").close()
    assert queue.where("archive-1") is State.ACTIVE


def test_commit_wakes_the_sender(queue: Queue, make_job: MakeJob) -> None:
    wake = queue.open_wake()
    try:
        make_job(queue)
        assert os.read(wake, 99) == b"archive-1\n"
    finally:
        os.close(wake)


def test_recovery_removes_dead_drafts_and_leaves_live_ones(queue: Queue, other: Queue) -> None:
    with queue.draft(1) as live:
        other.draft(2).close()
        (queue.root / "tmp/litter").write_text("")
        other.recover(NOW)
        assert os.listdir(queue.root / "tmp") == [live.id]


def test_recovery_lists_no_state_again_that_has_not_changed(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for state in NOT_COMPLETED:
        make_job(queue, state=state)
        os.utime(queue.root / state.directory, (1e9, 1e9))
    queue.recover(NOW)
    for state in NOT_COMPLETED:
        os.utime(queue.root / state.directory, (1e9, 1e9))
    queue.recover(NOW)
    looked: list[int] = []
    monkeypatch.setattr(aside, "back", lambda fd: bool(looked.append(fd)))
    queue.recover(NOW)
    assert queue._dirs["pending"] not in looked
    queue.move("archive-2", State.PENDING, State.HELD)
    queue.recover(NOW)
    assert queue._dirs["pending"] in looked


def test_recovery_notes_the_numbers_of_dead_drafts(queue: Queue, other: Queue) -> None:
    queue.draft(queue.reserve(3)[1]).close()
    other.recover(NOW)
    assert (queue.root / "unused").read_text() == "2-2\n"


def test_draft_taken_for_dead_before_it_is_locked_is_made_again(
    queue: Queue, other: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that starts between mkdir and flock removes the draft."""
    real = durable.open_dir
    recovered = []

    def open_dir(path: str, dir_fd: int | None = None) -> int:
        fd = real(path, dir_fd)
        if path == "archive-1" and not recovered:
            recovered.append(True)
            monkeypatch.setattr(durable, "open_dir", real)
            other.recover(NOW)
            monkeypatch.setattr(durable, "open_dir", open_dir)
        return fd

    monkeypatch.setattr(durable, "open_dir", open_dir)
    with queue.draft(1) as draft:
        assert recovered
        draft.write("data", b"x")
        assert os.listdir(queue.root / "tmp/archive-1") == ["data"]


# --- changes of state ---------------------------------------------------------------------


def test_job_is_where_it_was_moved_and_nowhere_else(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    queue.move(job, State.PENDING, State.HELD)
    assert states(queue, job) == [State.HELD]
    assert queue.where(job) is State.HELD


def test_of_two_who_move_a_job_one_wins(queue: Queue, other: Queue, make_job: MakeJob) -> None:
    jobs = [make_job(queue).job for _ in range(30)]
    won: dict[str, list[State]] = {job: [] for job in jobs}
    start = threading.Barrier(2)

    def move(queue: Queue, dst: State) -> None:
        start.wait()
        for job in jobs:
            with contextlib.suppress(FileNotFoundError):
                queue.move(job, State.PENDING, dst)
                won[job].append(dst)

    movers = [threading.Thread(target=move, args=args)
              for args in ((queue, State.HELD), (other, State.FAILED))]  # fmt: skip
    for mover in movers:
        mover.start()
    for mover in movers:
        mover.join()
    assert [states(queue, job) for job in jobs] == [won[job] for job in jobs]
    assert all(len(states) == 1 for states in won.values())


def test_claimed_job_is_open_and_active(queue: Queue, make_job: MakeJob) -> None:
    known = make_job(queue)
    with queue.claim(known.job) as job:
        assert job.control() == known
    assert states(queue, known.job) == [State.ACTIVE]


def test_job_that_is_held_still_is_not_claimed(
    queue: Queue, other: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    with queue.still(job, State.PENDING), pytest.raises(BusyError):
        other.claim(job)
    other.claim(job).close()


def test_job_that_has_moved_cannot_be_held_still(
    queue: Queue, other: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    other.claim(job).close()
    with pytest.raises(FileNotFoundError), queue.still(job, State.PENDING):
        pass


def test_job_that_moved_between_opening_and_locking_is_not_changed(
    queue: Queue, other: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(queue).job
    real = durable.lock_fd

    def lock_fd(fd: int, wait: bool = False, shared: bool = False) -> None:
        monkeypatch.setattr(durable, "lock_fd", real)
        other.move(job, State.PENDING, State.HELD)
        real(fd, wait, shared)

    monkeypatch.setattr(durable, "lock_fd", lock_fd)
    with pytest.raises(FileNotFoundError), queue.still(job, State.PENDING):
        pass


def test_command_that_does_not_let_go_of_a_job_is_reported(
    queue: Queue, other: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    with queue.still(job, State.PENDING):
        with pytest.raises(BusyError, match="archive-1"), other.still(job, State.PENDING):
            pass


def test_job_moved_to_another_queue_keeps_its_id(
    spool: Spool, queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue, state=State.HELD).job
    there = spool.queue("backup")
    queue.move_to_queue(job, State.HELD, there)
    assert queue.where(job) is None
    assert there.where(job) is State.HELD


def test_job_that_moves_back_while_it_is_looked_for_is_found(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves active/ for pending/ when pending/ has been looked into already."""
    job = make_job(queue).job
    queue.claim(job).close()
    real, looks = listing.stands, []

    def stands(fd: int, name: str) -> bool:
        looks.append(name)
        if looks.count(job) == 2:
            monkeypatch.setattr(listing, "stands", real)
            queue.move(job, State.ACTIVE, State.PENDING)
        return real(fd, name)

    monkeypatch.setattr(listing, "stands", stands)
    assert queue.where(job) is State.PENDING


# --- finishing ----------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [State.COMPLETED, State.CANCELED])
def test_finished_job_is_a_line_in_the_log_and_nothing_else(
    queue: Queue, make_job: MakeJob, outcome: State
) -> None:
    known = make_job(queue, name="a b.fits")
    queue.finish(known.job, State.PENDING, outcome, "why not", NOW)
    [line] = queue.log()
    assert (line.kind, line.time) == (outcome.value, NOW)
    assert line.fields["uid"] == known.uid
    assert line.fields["name"] == "a b.fits"
    assert line.fields["reason"] == "why not"
    assert states(queue, known.job) == []
    assert queue.outcome(known.job) is outcome


def test_finished_log_keeps_what_an_audit_needs_of_the_original(
    queue: Queue, make_job: MakeJob
) -> None:
    for others in ({"seq": "17"}, {"filter": "g"}):
        job = make_job(queue, others=others).job
        queue.finish(job, State.PENDING, State.COMPLETED, "stored", NOW)
    one, two = (line.fields for line in queue.log())
    assert one["mtime"] == two["mtime"] == "2026-11-20T04:00:00.123456789Z"
    assert one["seq"] == "17" and "seq" not in two and "filter" not in two


def test_finish_of_a_job_that_has_moved_does_nothing(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue, state=State.HELD).job
    with pytest.raises(FileNotFoundError):
        queue.finish(job, State.PENDING, State.CANCELED, "", NOW)
    assert states(queue, job) == [State.HELD]
    assert list(queue.log()) == []


class Crash(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize("instant", ["append", "remove_files"])
def test_finish_that_dies_is_made_good_with_one_line(
    queue: Queue, other: Queue, make_job: MakeJob, instant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = make_job(queue)

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(durable if instant == "append" else JobDir, instant, crash)
        with pytest.raises(Crash):
            queue.finish(known.job, State.PENDING, State.COMPLETED, "stored", NOW)
    assert states(queue, known.job) == [State.COMPLETED]
    assert queue.outcome(known.job) is State.COMPLETED
    other.recover(NOW)
    other.recover(NOW)
    assert outcomes(queue, known.job) == ["completed"]
    assert states(queue, known.job) == []


def test_clock_that_is_set_back_doubles_no_line(
    queue: Queue, other: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year back, between two senders that both died with a finished job half removed."""
    job = make_job(queue).job
    back = datetime.now(UTC) - timedelta(days=365)
    for now in (back, back + timedelta(minutes=1)):
        with monkeypatch.context() as patch:
            patch.setattr(JobDir, "remove_files", lambda _: None)
            patch.setattr(durable, "remove_tree", lambda *_: None)
            if queue.where(job) is State.PENDING:
                queue.move(job, State.PENDING, State.COMPLETED)
            other.recover(now)
    other.recover(back + timedelta(minutes=2))
    assert outcomes(queue, job) == ["canceled"]


def test_a_torn_line_of_the_finished_log_is_written_again(
    queue: Queue, other: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, again = make_job(queue), make_job(queue)
    append = durable.append

    def crash(name: str, lines: bytes, *args: int) -> None:
        append(name, lines[: lines.index(b" checksum=") + 30], *args)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(durable, "append", crash)
        with pytest.raises(Crash):
            queue.finish(cut.job, State.PENDING, State.COMPLETED, "stored", NOW)
    queue.finish(again.job, State.PENDING, State.COMPLETED, "stored", NOW)  # ends the torn line
    for _ in range(2):
        other.recover(NOW)
        lines = [line.fields for line in queue.log() if line.fields["job"] == cut.job]
        assert [line["path"] for line in lines if "path" in line] == [cut.path]


def test_a_job_that_lost_its_attempts_in_a_crash_is_not_logged_twice(
    queue: Queue, other: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = make_job(queue)
    with queue.open(known.job, State.PENDING) as opened:
        opened.note("start", NOW)

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(JobDir, "remove_files", crash)
        with pytest.raises(Crash):
            queue.finish(known.job, State.PENDING, State.COMPLETED, "stored", NOW)
    (queue.root / "done" / known.job / "attempts").unlink()
    other.recover(NOW)
    assert outcomes(queue, known.job) == ["completed"]


def test_sender_that_tidies_while_a_cancel_finishes_doubles_no_line(
    queue: Queue, other: Queue, make_job: MakeJob
) -> None:
    jobs = [make_job(queue).job for _ in range(60)]
    stop = threading.Event()

    def tidy() -> None:
        while not stop.is_set():
            other.finish_done(NOW)

    tidier = threading.Thread(target=tidy)
    tidier.start()
    try:
        for job in jobs:
            queue.finish(job, State.PENDING, State.CANCELED, "", NOW)
    finally:
        stop.set()
        tidier.join()
    assert sorted(line.fields["job"] for line in queue.log()) == sorted(jobs)
    assert queue.entries(State.COMPLETED) == []


def test_cancel_on_a_full_disk_makes_room(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the outcome nor the log line can be written before the data is gone."""
    job = make_job(queue).job
    data = queue.root / "done" / job / "data"
    real_append, real_replace = durable.append, durable.replace

    def full(real: Callable[..., None]) -> Callable[..., None]:
        def write(*words: object) -> None:
            if data.exists() or (queue.root / "pending" / job).exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(*words)

        return write

    monkeypatch.setattr(durable, "append", full(real_append))
    monkeypatch.setattr(durable, "replace", full(real_replace))
    queue.finish(job, State.PENDING, State.CANCELED, "", NOW)
    assert outcomes(queue, job) == ["canceled"]
    assert states(queue, job) == []


def test_job_that_is_no_proper_job_can_be_canceled(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue, state=State.QUARANTINED).job
    inside = queue.root / "quarantine" / job
    (inside / "routing").mkdir()
    (inside / ".routing.new").mkdir()
    (inside / "control").write_text("torn")
    (inside / "elsewhere").symlink_to("/etc")
    queue.finish(job, State.QUARANTINED, State.CANCELED, "", NOW)
    assert outcomes(queue, job) == ["canceled"]
    assert states(queue, job) == []
    assert Path("/etc").is_dir()


def test_killed_process_leaves_its_jobs_to_recovery(queue: Queue, make_job: MakeJob) -> None:
    """A real process with a real lock, killed while it holds an active job."""
    job = make_job(queue).job
    code = f"""
import os, signal
from pathlib import Path
from lpxfer.stores.queue import Queue
queue = Queue(Path({str(queue.root)!r}), "archive")
with queue.locked():
    queue.claim({job!r})
    queue.draft(7)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert states(queue, job) == [State.ACTIVE]
    with queue.locked():
        queue.recover(NOW)
    assert states(queue, job) == [State.PENDING]
    assert os.listdir(queue.root / "tmp") == []


# --- the finished log ---------------------------------------------------------------------


def test_log_is_found_by_job_newest_first(queue: Queue, make_job: MakeJob) -> None:
    days = [NOW - timedelta(days=n) for n in (30, 3, 0)]
    jobs = [make_job(queue).job for _ in days]
    for job, day in zip(jobs, days, strict=True):
        queue.finish(job, State.PENDING, State.CANCELED, "", day)
    found = queue.finished(jobs[0])
    assert found
    assert found.time == days[0]
    assert queue.finished("archive-99") is None
    assert [line.fields["job"] for line in queue.log(NOW - timedelta(days=7))] == jobs[1:]


def test_id_that_begins_another_is_not_taken_for_it(queue: Queue, make_job: MakeJob) -> None:
    for _ in range(12):
        job = make_job(queue).job
    queue.finish(job, State.PENDING, State.CANCELED, "", NOW)
    assert job == "archive-12"
    assert queue.finished("archive-1") is None


def test_torn_and_foreign_lines_in_the_log_are_passed_over(queue: Queue, make_job: MakeJob) -> None:
    log = queue.root / "log" / "20261120.log"
    log.write_bytes(b"\xff\xfe job=archive-1\nnot a record job=archive-1\n2026-11-20T1 comp")
    (queue.root / "log" / "notes.txt").write_text("job=archive-1")
    job = make_job(queue).job
    assert queue.outcome(job) is None
    queue.finish(job, State.PENDING, State.COMPLETED, "", NOW)
    assert outcomes(queue, job) == ["completed"]


@pytest.mark.parametrize("cut", [1, 40, 150])
def test_half_a_line_of_a_killed_sender_is_written_whole(
    queue: Queue, make_job: MakeJob, cut: int
) -> None:
    job, other = make_job(queue).job, make_job(queue).job
    queue.finish(other, State.PENDING, State.COMPLETED, "", NOW)
    log = queue.root / "log" / "20261120.log"
    before = log.read_bytes()
    with queue.open(job, State.PENDING) as opened:
        opened.set_routing(Routing(outcome=State.COMPLETED, reason="stored"))
        with durable.opened_dir(log.parent) as fd:
            finished_log.append(fd, [finished_log.of_job(opened, opened.routing(), NOW)], NOW)
    log.write_bytes(log.read_bytes()[:-cut])  # as far as it came
    queue.move(job, State.PENDING, State.COMPLETED)
    assert queue.finished(job) is None
    queue.finish_done(NOW)
    lines = log.read_bytes().removeprefix(before).splitlines()
    assert len(lines) == 1 and b" reason=stored" in lines[0] and b" checksum=" in lines[0]
    assert states(queue, job) == []


def test_line_of_a_killed_sender_is_synced_before_its_job_is_removed(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(queue).job
    with queue.open(job, State.PENDING) as opened:
        with durable.opened_dir(queue.root / "log") as fd:
            finished_log.append(fd, [finished_log.of_job(opened, opened.routing(), NOW)], NOW)
    queue.move(job, State.PENDING, State.COMPLETED)
    calls = trace(monkeypatch, queue.root)
    queue.finish_done(NOW)
    changes = [call for call in calls if not call.startswith("write")]
    synced = list(takewhile(lambda call: call.startswith("fsync"), changes))
    assert (synced[0], synced[-1]) == ("fsync done", "fsync log/20261120.log")
    assert len(list(queue.log())) == 1


# --- looking ------------------------------------------------------------------------------


def test_what_is_no_job_is_not_listed(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    pending = queue.root / "pending"
    (pending / "archive-2").write_text("a file")
    (pending / "archive-3").symlink_to(pending / job)
    (pending / "not a job").mkdir()
    assert [entry.id for entry in queue.entries(State.PENDING)] == [job]


def test_stamp_of_an_entry_changes_with_its_routing(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    [before] = queue.entries(State.PENDING)
    with queue.still(job, State.PENDING) as opened:
        opened.set_routing(Routing(priority=90))
    [after] = queue.entries(State.PENDING)
    assert after.stamp != before.stamp
    assert after.uid == os.geteuid()


def test_two_listings_at_once_do_not_disturb_each_other(queue: Queue, make_job: MakeJob) -> None:
    jobs = {make_job(queue).job for _ in range(200)}
    short: list[int] = []

    def look() -> None:
        for _ in range(50):
            if {entry.id for entry in queue.entries(State.PENDING)} != jobs:
                short.append(1)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not short


def test_count_tells_jobs_and_bytes(queue: Queue, make_job: MakeJob) -> None:
    make_job(queue, b"12345")
    make_job(queue, b"")
    (queue.root / "pending" / "archive-9").mkdir()
    assert queue.count(State.PENDING) == (3, 5)
    assert queue.count(State.HELD) == (0, 0)


# --- the sender's lock and the switches -----------------------------------------------------


def test_queue_has_one_sender(queue: Queue, other: Queue) -> None:
    assert not other.running()
    with queue.locked():
        assert other.running()
        with pytest.raises(BusyError, match="archive"), other.locked():
            pass
    assert not other.running()
    with other.locked():
        pass


def test_looking_whether_a_sender_runs_keeps_none_from_starting(queue: Queue) -> None:
    with durable.opened_dir(queue.root) as fd, contextlib.ExitStack() as look:
        look.enter_context(durable.locked("lock", fd, shared=True))
        end = threading.Timer(0.1, look.close)
        end.start()
        with queue.locked():
            end.join()


def test_two_who_look_at_once_do_not_take_each_other_for_a_sender(
    queue: Queue, other: Queue
) -> None:
    with durable.opened_dir(queue.root) as fd, durable.locked("lock", fd, shared=True):
        assert not other.running()


def test_to_ask_whether_a_sender_runs_wakes_nobody(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member may not open the lock, and looks whether the FIFO has a reader."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(durable, "locked", refused)
    wake = queue.open_wake()
    assert queue.running()
    with pytest.raises(BlockingIOError):
        os.read(wake, 10)
    os.close(wake)


def test_many_ids_are_told_in_writes_that_nobody_mixes(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake, sizes = queue.open_wake(), []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, text: sizes.append(len(text)) or real(fd, text))
    ids = [f"{'a' * 32}-{10**14 + number}" for number in range(200)]
    queue.wake(*ids)
    assert max(sizes) <= 4096
    assert os.read(wake, 1 << 16).decode().split() == ids
    os.close(wake)


def test_wake_without_a_sender_does_nothing(queue: Queue) -> None:
    queue.wake()
    assert not (queue.root / "wake").exists()


def test_switches_are_on_until_they_are_off(queue: Queue) -> None:
    assert queue.switches() == Switches()
    queue.switch(lambda switches: switches.disable("maintenance", NOW))
    queue.switch(lambda switches: switches.reject("full\nof it", NOW))
    queue.switch(lambda switches: switches.disable("still", NOW + timedelta(hours=1)))
    assert queue.switches() == Switches(False, "full\nof it", NOW, False, "still", NOW)
    queue.switch(Switches.enable)
    assert queue.switches() == Switches(False, "full\nof it", NOW)
    queue.switch(Switches.accept)
    assert queue.switches() == Switches()


def test_switch_is_changed_by_one_at_a_time(queue: Queue) -> None:
    def change(switches: Switches) -> Switches:
        with durable.opened_dir(queue.root) as fd:
            with pytest.raises(BusyError), durable.locked("owner.lock", fd):
                pass
        return switches.disable("a", NOW)

    queue.switch(change)
    assert queue.switches().enabled_reason == "a"


def test_what_killed_commands_left_of_the_switches_is_removed(queue: Queue) -> None:
    (queue.root / ".switches.0a1b2c3d.new").write_text("enab")
    queue.switch(lambda switches: switches.disable("a", NOW))
    assert not list(queue.root.glob(".*"))


def test_damaged_switches_stop_the_queue_until_they_are_set(queue: Queue) -> None:
    (queue.root / "switches").write_text("enabled=no\n")
    switches = queue.switches()
    assert not switches.enabled
    assert not switches.accepting
    assert "damaged" in switches.enabled_reason
    queue.switch(lambda switches: switches.enable().accept())
    assert queue.switches() == Switches()


# --- queues -------------------------------------------------------------------------------


def test_queues_that_the_configuration_forgot_are_listed(spool: Spool) -> None:
    spool.queue("old")
    (spool.root / "lost+found").mkdir()
    (spool.root / "unrelated").mkdir()
    assert spool.names(["archive"]) == ["archive", "old"]


def test_job_is_found_wherever_it_is_or_was_finished(
    spool: Spool, queue: Queue, make_job: MakeJob
) -> None:
    backup = spool.queue("backup")
    moved, gone = make_job(queue).job, make_job(queue).job
    queue.move_to_queue(moved, State.PENDING, backup)
    queue.finish(gone, State.PENDING, State.CANCELED, "", NOW)
    assert spool.queue_of(moved, ["archive", "backup"]) is backup
    assert spool.queue_of(gone, ["archive", "backup"]) is queue
    with pytest.raises(PermanentError, match='there is no job "archive-99"'):
        spool.queue_of("archive-99", ["archive", "backup"])
    with pytest.raises(FormatError, match="not a request id"):
        spool.queue_of("../../etc", ["archive"])


def test_queue_that_cannot_be_set_up_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(PermanentError, match="xfer-send"):
        Spool(tmp_path / "spool").queue("archive")


def test_queue_that_is_half_set_up_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "archive/tmp").mkdir(parents=True)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PermanentError, match="No such file or directory"):
        Queue(tmp_path / "archive", "archive")
    assert os.listdir("/proc/self/fd") == before


def test_queue_that_nobody_has_any_more_is_closed(spool: Spool) -> None:
    spool.queue("archive")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        Queue(spool.root / "archive", "archive")
        with contextlib.suppress(PermanentError):
            Queue(spool.root / "nosuch", "nosuch")
    assert len(os.listdir("/proc/self/fd")) == before


def test_log_is_read_to_its_end_though_nobody_has_the_queue(
    queue: Queue, make_job: MakeJob
) -> None:
    queue.finish(make_job(queue).job, State.PENDING, State.CANCELED, "", NOW)
    assert [line.kind for line in Queue(queue.root, queue.name).log()] == ["canceled"]


def test_queue_is_opened_once(spool: Spool, queue: Queue) -> None:
    assert spool.queue("archive") is queue


def test_finished_log_is_one_file_a_day(queue: Queue, make_job: MakeJob) -> None:
    for day in (NOW, NOW + timedelta(days=1)):
        queue.finish(make_job(queue).job, State.PENDING, State.COMPLETED, "", day)
    assert sorted(os.listdir(queue.root / "log")) == ["20261120.log", "20261121.log"]
    with durable.opened_dir(queue.root / "log") as fd:
        assert len(list(finished_log.read(fd, NOW + timedelta(days=1)))) == 1


def test_finished_log_believes_no_job_that_says_it_is_anothers(
    queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue, user="somebody_else").job
    (queue.root / "pending" / job).rename(queue.root / "done" / job)
    queue.finish_done(NOW)
    [line] = queue.log()
    assert "somebody_else" not in line.fields.values()
    assert "uid" not in line.fields


def test_job_is_logged_though_another_had_its_id_in_done(queue: Queue, make_job: MakeJob) -> None:
    first = make_job(queue)
    queue.finish(first.job, State.PENDING, State.CANCELED, "", NOW)
    second = make_job(queue, job=first.job, uid=f"{first.uid[:-8]}00000000")
    [entry] = queue.entries(State.PENDING)
    (queue.root / "pending" / entry.id).rename(queue.root / "done" / second.job)
    queue.finish_done(NOW)
    assert [line.fields["uid"] for line in queue.log()] == [first.uid, second.uid]


def test_dead_senders_job_that_its_owner_is_at_work_on_is_left_to_him(
    queue: Queue, other: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue, state=State.ACTIVE).job
    with other.open(job, State.ACTIVE) as opened:
        durable.lock_fd(opened.fd)
        queue.recover(NOW)
        assert queue.where(job) is State.ACTIVE
    queue.recover(NOW)
    assert queue.where(job) is State.PENDING


def test_a_job_that_a_killed_sender_moved_to_done_is_there_and_nowhere_else_before_its_record(
    queue: Queue, other: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = make_job(queue).job
    durable.rename_unsynced(job, queue._dirs["pending"], queue._dirs["done"])
    calls = trace(monkeypatch, queue.root)
    other.recover(NOW)
    written = next(at for at, call in enumerate(calls) if call.startswith("write log/"))
    assert calls[:written].index("fsync done") < calls[:written].index("fsync pending")

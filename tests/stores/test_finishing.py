"""Many jobs finished together: each with the guarantees of one, and few syncs for all."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from traced import trace

from lpxfer import durable
from lpxfer.errors import BusyError
from lpxfer.formats.attempts import START
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.stores import finished_log, finishing
from lpxfer.stores.finishing import End
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.queue import Queue

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MakeJob = Callable[..., Control]


class Crash(BaseException):
    """The process dies here."""


def crash(*_: object) -> None:
    raise Crash


@pytest.fixture
def ids(queue: Queue, make_job: MakeJob) -> list[str]:
    """Three jobs in sent/."""
    return [make_job(queue, state=State.SENT).job for _ in range(3)]


@contextlib.contextmanager
def ends(queue: Queue, ids: list[str], outcome: State = State.COMPLETED) -> Iterator[list[End]]:
    with contextlib.ExitStack() as opened:
        jobs = [opened.enter_context(queue.open(job_id, State.SENT)) for job_id in ids]
        yield [End(job, outcome, f"why {job.id}") for job in jobs]


def finish(queue: Queue, ids: list[str], outcome: State = State.COMPLETED) -> dict[str, OSError]:
    with ends(queue, ids, outcome) as found:
        return queue.finish_many(found, State.SENT, NOW)


def logged(queue: Queue) -> list[tuple[str, str, str]]:
    lines = [(line.fields["job"], line.kind, line.fields.get("reason", "")) for line in queue.log()]
    return sorted(lines)


def completed(ids: list[str]) -> list[tuple[str, str, str]]:
    return [(job_id, "completed", f"why {job_id}") for job_id in ids]


def test_jobs_finished_together_are_lines_in_the_log_and_nothing_else(
    queue: Queue, ids: list[str]
) -> None:
    assert finish(queue, ids) == {}
    assert logged(queue) == completed(ids)
    assert [queue.where(job_id) for job_id in ids] == [None] * 3
    assert os.listdir(queue.root / "done") == []


def test_each_step_is_durable_for_all_before_the_next_is_done_for_any(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ends(queue, ids) as found:
        calls = trace(monkeypatch, queue.root)
        queue.finish_many(found, State.SENT, NOW)
    syncs = [call for call in calls if "sync" in call.split()[0]]
    assert syncs == ["syncfs .", "syncfs .", "fsync done", "fsync sent", "fsync log",
                     "fsync log/20261120.log"]  # fmt: skip
    first = calls.index("syncfs .")
    second = calls.index("syncfs .", first + 1)
    assert all("rename" not in call for call in calls[:first])
    assert all(call.startswith("rename") and call.endswith("/routing")
               for call in calls[first + 1 : second])  # fmt: skip
    moved = calls.index("fsync done")
    assert all(call.split()[-1].startswith("done/") for call in calls[second + 1 : moved])
    gone = [index for index, call in enumerate(calls) if call.startswith(("unlink", "rmdir"))]
    assert min(gone) > calls.index("fsync log/20261120.log")


def test_one_job_is_not_synced_with_the_whole_file_system(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = trace(monkeypatch, queue.root)
    queue.finish(ids[0], State.SENT, State.COMPLETED, "stored", NOW)
    assert "syncfs ." not in calls


def test_each_outcome_is_synced_where_a_sync_of_all_does_not_tell_that_it_failed(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "filesystem_sync_tells", lambda: False)
    calls = trace(monkeypatch, queue.root)
    finish(queue, ids)
    assert "syncfs ." not in calls
    assert [call for call in calls if call.startswith("fsync sent/")] != []
    assert logged(queue) == completed(ids)


def test_job_that_somebody_has_moved_stops_no_other(queue: Queue, ids: list[str]) -> None:
    with ends(queue, ids) as found:
        queue.move(ids[1], State.SENT, State.PENDING)
        failed = queue.finish_many(found, State.SENT, NOW)
    assert list(failed) == [ids[1]]
    assert isinstance(failed[ids[1]], FileNotFoundError)
    assert logged(queue) == completed([ids[0], ids[2]])
    assert queue.where(ids[1]) is State.PENDING


def test_job_that_refuses_its_outcome_is_not_completed_and_stops_no_other(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = JobDir.prepare_routing

    def refuse(job: JobDir, routing: Routing) -> str:
        if job.id == ids[1]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(job, routing)

    monkeypatch.setattr(JobDir, "prepare_routing", refuse)
    assert list(finish(queue, ids)) == [ids[1]]
    assert logged(queue) == completed([ids[0], ids[2]])
    assert queue.where(ids[1]) is State.SENT


def test_job_without_a_word_is_canceled_all_the_same(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(JobDir, "prepare_routing", full)
    assert finish(queue, ids, State.CANCELED) == {}
    assert logged(queue) == [(job_id, "canceled", f"why {job_id}") for job_id in ids]


def test_full_disk_leaves_jobs_as_they_were(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = JobDir.prepare_routing

    def full(job: JobDir, routing: Routing) -> str:
        if job.id == ids[2]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(job, routing)

    monkeypatch.setattr(JobDir, "prepare_routing", full)
    with pytest.raises(OSError):
        finish(queue, ids)
    for job_id in ids:
        assert sorted(os.listdir(queue.root / "sent" / job_id)) == ["control", "data"]
    assert logged(queue) == []


def test_log_that_finds_no_room_gets_that_of_the_finished_data(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.append

    def full(*words: object) -> None:
        if any((queue.root / "done" / job_id / "data").exists() for job_id in ids):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(durable, "append", full)
    finish(queue, ids)
    assert logged(queue) == completed(ids)


@pytest.mark.parametrize("call", range(2))
def test_who_dies_before_outcomes_are_durable_has_finished_nothing(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    syncs = []

    def die_at(_: int) -> None:
        syncs.append(True)
        if len(syncs) > call:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync_filesystem", die_at)
        with pytest.raises(Crash):
            finish(queue, ids)
    queue.recover(NOW)
    assert [queue.where(job_id) for job_id in ids] == [State.SENT] * 3
    assert finish(queue, ids) == {}
    assert logged(queue) == completed(ids)


@pytest.mark.parametrize(
    ("owner", "instant"), [(durable, "append"), (finished_log, "append"), (JobDir, "remove_files")]
)
def test_who_dies_later_has_finished_all_and_each_is_logged_once(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch, owner: object, instant: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, instant, crash)
        with pytest.raises(Crash):
            finish(queue, ids)
    assert [queue.outcome(job_id) for job_id in ids] == [State.COMPLETED] * 3
    for _ in range(2):
        queue.recover(NOW)
        assert logged(queue) == completed(ids)
        assert os.listdir(queue.root / "done") == []


def test_line_that_a_crash_has_cut_among_many_is_written_again(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.append

    def cut(name: str, lines: bytes, *words: int) -> None:
        real(name, lines[: len(lines) * 2 // 3], *words)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(durable, "append", cut)
        with pytest.raises(Crash):
            finish(queue, ids)
    queue.recover(NOW)
    assert logged(queue) == completed(ids)


def test_without_the_right_to_log_the_rest_is_left_to_the_sender(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(durable, "locked", refused)
        assert finish(queue, ids, State.CANCELED) == {}
    assert [queue.where(job_id) for job_id in ids] == [State.COMPLETED] * 3
    queue.finish_done(NOW)
    assert logged(queue) == [(job_id, "canceled", f"why {job_id}") for job_id in ids]


def test_log_is_read_once_for_all_that_a_dead_sender_left(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for job_id in ids:
        with queue.open(job_id, State.SENT) as job:
            job.set_routing(Routing(outcome=State.COMPLETED, reason=f"why {job_id}"))
        queue.move(job_id, State.SENT, State.COMPLETED)
    reads: list[object] = []
    real = finished_log.durable_records

    def counted(*words: object) -> object:
        reads.append(words)
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(finished_log, "durable_records", counted)
    queue.finish_done(NOW)
    assert len(reads) == 1
    assert logged(queue) == completed(ids)


def test_more_than_a_batch_in_done_is_logged_in_batches(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "BATCH", 2)
    for job_id in ids:
        queue.move(job_id, State.SENT, State.COMPLETED)
    queue.finish_done(NOW)
    assert [line[:2] for line in logged(queue)] == [(job_id, "canceled") for job_id in ids]


def test_attempts_of_each_job_stand_in_its_line(queue: Queue, ids: list[str]) -> None:
    for number, job_id in enumerate(ids):
        with queue.open(job_id, State.SENT) as job:
            for _ in range(number):
                job.note(START, NOW, seconds="2.0")
    finish(queue, ids)
    assert [line.fields["attempts"] for line in queue.log()] == ["0", "1", "2"]


def test_the_log_is_read_and_written_by_one_process_at_a_time(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def locked(name: str) -> None:
        real = getattr(finished_log, name)

        def look(*args: object) -> object:
            with durable.opened_dir(queue.root) as fd:
                with pytest.raises(BusyError), durable.locked("owner.lock", fd):
                    pass
            seen.append(name)
            return real(*args)

        monkeypatch.setattr(finished_log, name, look)

    locked("durable_records")
    locked("append")
    with monkeypatch.context() as dying, contextlib.suppress(Crash):
        dying.setattr(finishing, "_log", crash)
        finish(queue, ids)
    queue.finish_done(NOW)
    assert seen == ["durable_records", "append"]
    assert logged(queue) == completed(ids)

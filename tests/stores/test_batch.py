"""Many jobs at once: what one of them refuses stops no other, and syncs are shared."""

import contextlib
import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from traced import trace

from lpxfer import durable
from lpxfer.errors import BusyError
from lpxfer.formats.attempts import START
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores import batch
from lpxfer.stores.queue import Queue

MakeJob = Callable[..., Control]
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def ids(queue: Queue, make_job: MakeJob) -> list[str]:
    """Three jobs that wait."""
    return [make_job(queue).job for _ in range(3)]


def test_claimed_jobs_are_open_and_active(queue: Queue, ids: list[str]) -> None:
    claimed, failed = batch.claim(queue, ids)
    assert [job.control().job for job in claimed] == ids
    assert failed == {}
    assert [queue.where(job_id) for job_id in ids] == [State.ACTIVE] * 3
    for job in claimed:
        job.close()


def test_job_that_cannot_be_claimed_stops_no_other(queue: Queue, ids: list[str]) -> None:
    queue.move(ids[0], State.PENDING, State.HELD)
    other = Queue(queue.root, queue.name)
    with other.still(ids[1], State.PENDING):
        claimed, failed = batch.claim(queue, [*ids, "archive-99"])
    assert [job.id for job in claimed] == [ids[2]]
    assert {job_id: type(error) for job_id, error in failed.items()} == {
        ids[0]: FileNotFoundError, ids[1]: BusyError, "archive-99": FileNotFoundError,
    }  # fmt: skip
    claimed[0].close()
    other.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE])
def test_what_would_meet_every_claim_is_raised_and_nothing_stays_open(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real, opened = Queue.claim, len(os.listdir("/proc/self/fd"))

    def claim(queue: Queue, job_id: str) -> object:
        if job_id == ids[2]:
            raise OSError(code, os.strerror(code))
        return real(queue, job_id)

    monkeypatch.setattr(Queue, "claim", claim)
    with pytest.raises(OSError):
        batch.claim(queue, ids)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_notes_are_durable_together(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as opened:
        claimed = [opened.enter_context(job) for job in batch.claim(queue, ids)[0]]
        calls = trace(monkeypatch, queue.root)
        assert batch.note(claimed, START, NOW, bundle="a-name") == {}
        writes = [f"write active/{job_id}/attempts" for job_id in ids]
        assert calls == [*writes, f"syncfs active/{ids[0]}"]
        assert [job.attempts().count for job in claimed] == [1] * 3


def test_one_note_syncs_its_own_file(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with queue.open(ids[0], State.PENDING) as job:
        calls = trace(monkeypatch, queue.root / "pending" / ids[0])
        batch.note([job], START, NOW)
        assert calls == ["write attempts", "fsync attempts", "fsync ."]


def test_each_note_is_synced_where_a_sync_of_all_does_not_tell_that_it_failed(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "filesystem_sync_tells", lambda: False)
    with contextlib.ExitStack() as opened:
        claimed = [opened.enter_context(job) for job in batch.claim(queue, ids)[0]]
        calls = trace(monkeypatch, queue.root)
        batch.note(claimed, START, NOW)
    assert [call.split()[0] for call in calls] == ["write", "fsync", "fsync"] * 3


def test_job_that_takes_no_note_stops_no_other(queue: Queue, ids: list[str]) -> None:
    (queue.root / "pending" / ids[1] / "attempts").mkdir()
    with contextlib.ExitStack() as opened:
        claimed = [opened.enter_context(job) for job in batch.claim(queue, ids)[0]]
        assert list(batch.note(claimed, START, NOW)) == [ids[1]]
        assert [claimed[n].attempts().count for n in (0, 2)] == [1, 1]


def test_no_jobs_need_no_sync(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = trace(monkeypatch, queue.root)
    assert batch.claim(queue, []) == ([], {})
    assert batch.note([], START, NOW) == {}
    assert queue.finish_many([], State.SENT, NOW) == {}
    assert queue.move_many([], State.ACTIVE, State.SENT) == {}
    assert calls == []


def test_moved_jobs_share_the_syncs_of_their_directories(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in batch.claim(queue, ids)[0]:
        job.close()
    calls = trace(monkeypatch, queue.root)
    failed = queue.move_many([*ids, "archive-99"], State.ACTIVE, State.SENT)
    assert list(failed) == ["archive-99"]
    renames = [f"rename active/{job_id} sent/{job_id}" for job_id in ids]
    assert calls == [*renames, "fsync sent", "fsync active"]


def test_disk_that_fails_is_told_when_many_are_moved(
    queue: Queue, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable, "rename_unsynced", fail)
    with pytest.raises(OSError):
        queue.move_many(ids, State.PENDING, State.HELD)

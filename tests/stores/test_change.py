"""Changing a job beside a sender: at every moment one of the two wins, and nothing is lost."""

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from played_sender import PlayedSender

from lpxfer.errors import BusyError, PermanentError
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.stores.change import change, recall
from lpxfer.stores.job_dir import CANCEL, HOLD, JobDir
from lpxfer.stores.spool import Queue

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MakeJob = Callable[..., Control]


def routing(queue: Queue, job_id: str) -> Routing:
    state = queue.where(job_id)
    assert state
    with queue.open(job_id, state) as job:
        return job.routing()


def test_recalled_job_goes_where_the_sender_was_asked_to_put_it(
    queue: Queue, make_job: MakeJob
) -> None:
    held, canceled = make_job(queue).job, make_job(queue).job
    with PlayedSender(queue.root, queue.name, held):
        recall(queue, held, HOLD)
    assert queue.where(held) is State.HELD
    with PlayedSender(queue.root, queue.name, canceled):
        recall(queue, canceled, CANCEL)
    assert queue.outcome(canceled) is State.CANCELED


def test_recalled_job_of_a_dead_sender_is_pending_without_a_request(
    queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    queue.claim(job).close()
    recall(queue, job, CANCEL)
    with queue.open(job, State.PENDING) as opened:
        assert opened.request() is None
    assert not queue.running()


def test_recall_goes_on_when_the_sender_dies_meanwhile(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    with PlayedSender(queue.root, queue.name, job, obedient=False) as sender:
        dies = threading.Timer(0.2, sender.tell, ["die"])
        dies.start()
        recall(queue, job, CANCEL)
        dies.join()
    assert queue.where(job) is State.PENDING


def test_recall_that_came_too_late_leaves_no_request(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    with PlayedSender(queue.root, queue.name, job, obedient=False) as sender:
        commits = threading.Timer(0.2, sender.tell, ["commit"])
        commits.start()
        recall(queue, job, CANCEL)
        commits.join()
    with queue.open(job, State.SENT) as opened:
        assert opened.request() is None


def test_sender_that_does_not_answer_is_reported_and_asked_still(
    queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    with PlayedSender(queue.root, queue.name, job, obedient=False):
        with pytest.raises(BusyError, match="has not answered"):
            recall(queue, job, HOLD, patience=0)
        with queue.open(job, State.ACTIVE) as opened:
            assert opened.request() == HOLD


def test_sender_is_woken_to_be_asked(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    with PlayedSender(queue.root, queue.name, job):
        with open(queue.open_wake(), "rb", buffering=0) as fifo:
            recall(queue, job, HOLD)
            assert fifo.read(99) == b"archive-1\n"


def test_sender_that_starts_this_instant_keeps_its_job(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did not run when it was looked for, and has the lock when that is to be taken."""
    job = make_job(queue).job
    with PlayedSender(queue.root, queue.name, job, obedient=False):
        looks = iter([False, True])
        monkeypatch.setattr(queue, "running", lambda: next(looks, True))
        with pytest.raises(BusyError):
            recall(queue, job, CANCEL, patience=0)
        assert queue.where(job) is State.ACTIVE


def test_job_that_is_not_active_cannot_be_recalled(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    with pytest.raises(FileNotFoundError):
        recall(queue, job, CANCEL)


def test_job_in_another_state_is_refused_with_what_it_is(queue: Queue, make_job: MakeJob) -> None:
    def act(job: JobDir, state: State) -> None:
        pytest.fail(f"{job.id} is {state}")

    held, sent = make_job(queue, state=State.HELD).job, make_job(queue, state=State.SENT).job
    with pytest.raises(PermanentError, match="archive-1 is held; .* pending, failed"):
        change(queue, held, (State.PENDING, State.FAILED), act)
    with pytest.raises(PermanentError, match="archive-2: too late: sent"):
        change(queue, sent, (State.PENDING,), act)
    queue.finish(held, State.HELD, State.CANCELED, "", NOW)
    with pytest.raises(PermanentError, match="archive-1 is finished"):
        change(queue, held, (State.PENDING,), act)


def test_job_that_moves_under_a_change_is_looked_for_again(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is released between the look and the lock."""
    job = make_job(queue, state=State.HELD).job
    seen: list[State] = []
    real = queue.still

    def still(job_id: str, state: State) -> contextlib.AbstractContextManager[JobDir]:
        monkeypatch.setattr(queue, "still", real)
        queue.move(job_id, State.HELD, State.PENDING)
        return real(job_id, state)

    monkeypatch.setattr(queue, "still", still)
    change(queue, job, (State.HELD, State.PENDING), lambda _, state: seen.append(state))
    assert seen == [State.PENDING]


def test_change_beside_a_claiming_sender_is_never_lost(queue: Queue, make_job: MakeJob) -> None:
    """Whoever is told that the priority is set finds it set, or the job was claimed before."""
    jobs = [make_job(queue).job for _ in range(40)]
    other = Queue(queue.root, queue.name)
    claimed: dict[str, int] = {}
    start = threading.Barrier(2)

    def claim() -> None:
        start.wait()
        for job in jobs:
            while job not in claimed:
                with contextlib.suppress(FileNotFoundError, BusyError), other.claim(job) as opened:
                    claimed[job] = opened.routing().priority

    sender = threading.Thread(target=claim)
    sender.start()
    start.wait()
    told = {}
    for job in jobs:
        try:
            change(
                queue, job, (State.PENDING,), lambda job, _: job.set_routing(Routing(priority=9))
            )
            told[job] = 9
        except PermanentError:
            told[job] = 50
    sender.join()
    other.close()
    assert told == claimed
    assert {routing(queue, job).priority for job in jobs} <= {9, 50}

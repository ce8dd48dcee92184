"""The hold step: stop one job, or let it go, beside a sender."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from played_sender import PlayedSender

from lpxfer.errors import PermanentError
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.steps.hold import hold, release
from lpxfer.stores.spool import Queue

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MakeJob = Callable[..., Control]


def routing(queue: Queue, job_id: str) -> Routing:
    with queue.open(job_id, queue.where(job_id) or State.PENDING) as job:
        return job.routing()


@pytest.mark.parametrize("state", [State.PENDING, State.HELD, State.ACTIVE])
def test_held_job_has_the_reason_and_keeps_the_rest(
    queue: Queue, make_job: MakeJob, state: State
) -> None:
    was = Routing(remhost="there", priority=9, not_before=NOW, reason="link down", stalls=3)
    job = make_job(queue, state=state, routing=was).job
    hold(queue, job, "wait for calibration")
    assert queue.where(job) is State.HELD
    assert routing(queue, job) == Routing(
        remhost="there", priority=9, not_before=NOW, reason="wait for calibration", stalls=3
    )


def test_active_job_is_held_by_its_sender(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    with PlayedSender(queue.root, queue.name, job):
        hold(queue, job, "mine")
    assert queue.where(job) is State.HELD
    assert routing(queue, job).reason == "mine"


@pytest.mark.parametrize("state", [State.SENT, State.FAILED, State.QUARANTINED])
def test_job_that_will_not_be_sent_cannot_be_held(
    queue: Queue, make_job: MakeJob, state: State
) -> None:
    job = make_job(queue, state=state).job
    with pytest.raises(PermanentError, match=job):
        hold(queue, job, "")
    assert queue.where(job) is state


def test_released_job_is_pending_and_the_sender_is_woken(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue, state=State.HELD, routing=Routing(priority=9, reason="held")).job
    wake = queue.open_wake()
    with open(wake, "rb", buffering=0) as fifo:
        release(queue, job)
        assert fifo.read(99) == b"archive-1\n"
    assert queue.where(job) is State.PENDING
    assert routing(queue, job) == Routing(priority=9)


def test_job_that_is_not_held_cannot_be_released(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    with pytest.raises(PermanentError, match="archive-1 is pending"):
        release(queue, job)


def test_held_job_with_a_damaged_routing_is_left_as_it_is(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue, state=State.HELD).job
    damaged = queue.root / "held" / job / "routing"
    damaged.write_text("remhost=elsewhere\n")
    with pytest.raises(PermanentError):
        release(queue, job)
    assert queue.where(job) is State.HELD
    assert damaged.read_text() == "remhost=elsewhere\n"

"""The reroute step: priority, another queue, another attempt."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from lpxfer.errors import PermanentError
from lpxfer.formats.attempts import ACKED, COMMIT, END, START
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.steps.reroute import move, retry, set_priority
from lpxfer.stores.spool import Queue, Spool

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HOUR = 3600.0
MakeJob = Callable[..., Control]

FAILING = Routing(
    remhost="there", priority=9, not_before=NOW, reason="no route", stalls=4, mismatches=2
)


@pytest.fixture
def backup(spool: Spool) -> Queue:
    return spool.queue("backup")


def routing(queue: Queue, job_id: str) -> Routing:
    with queue.open(job_id, queue.where(job_id) or State.PENDING) as job:
        return job.routing()


# --- priority -----------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.PENDING, State.HELD, State.FAILED])
def test_priority_of_a_job_that_waits_is_set(queue: Queue, make_job: MakeJob, state: State) -> None:
    job = make_job(queue, state=state, routing=FAILING).job
    set_priority(queue, job, 77)
    assert queue.where(job) is state
    assert routing(queue, job).priority == 77
    assert routing(queue, job).remhost == "there"


@pytest.mark.parametrize("state", [State.ACTIVE, State.SENT, State.QUARANTINED])
def test_priority_of_another_job_is_not(queue: Queue, make_job: MakeJob, state: State) -> None:
    job = make_job(queue, state=state).job
    with pytest.raises(PermanentError, match=job):
        set_priority(queue, job, 77)


def test_sender_notices_a_new_priority(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    [before] = queue.entries(State.PENDING)
    with open(queue.open_wake(), "rb", buffering=0) as fifo:
        set_priority(queue, job, 77)
        assert fifo.read(99) == b"archive-1\n"
    assert queue.entries(State.PENDING)[0].stamp != before.stamp


# --- move ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "there", "expected"),
    [
        (State.PENDING, State.PENDING, Routing(remhost="there", priority=9)),
        (State.FAILED, State.PENDING, Routing(remhost="there", priority=9)),
        (State.HELD, State.HELD,
         Routing(remhost="there", priority=9, not_before=NOW, reason="no route")),
    ],
)  # fmt: skip
def test_moved_job_starts_afresh_in_its_new_queue(
    queue: Queue,
    backup: Queue,
    make_job: MakeJob,
    state: State,
    there: State,
    expected: Routing,
) -> None:
    known = make_job(queue, state=state, routing=FAILING)
    with queue.open(known.job, state) as job:
        job.note(START, NOW)
        job.note(ACKED, NOW, acked="5")
        job.note(END, NOW, acked="5")
    move(queue, known.job, backup, NOW)
    assert queue.where(known.job) is None
    assert backup.where(known.job) is there
    assert routing(backup, known.job) == expected
    with backup.open(known.job, there) as job:
        assert job.check(links=False) == known
        assert not job.attempts().done, "it would go on in the middle of a file nobody has"


def test_time_that_the_user_asked_for_moves_along(
    queue: Queue, backup: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue, routing=Routing(not_before=NOW)).job
    move(queue, job, backup, NOW)
    assert routing(backup, job).not_before == NOW


def test_job_that_may_be_at_the_archive_site_is_not_moved(
    queue: Queue, backup: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    with queue.open(job, State.PENDING) as opened:
        opened.note(COMMIT, NOW)
    with pytest.raises(PermanentError, match="may already be at the archive site"):
        move(queue, job, backup, NOW)
    assert queue.where(job) is State.PENDING


@pytest.mark.parametrize("state", [State.ACTIVE, State.SENT, State.QUARANTINED])
def test_job_that_does_not_wait_is_not_moved(
    queue: Queue, backup: Queue, make_job: MakeJob, state: State
) -> None:
    job = make_job(queue, state=state).job
    with pytest.raises(PermanentError, match=job):
        move(queue, job, backup, NOW)
    assert queue.where(job) is state


def test_job_is_not_moved_to_where_it_is(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue, state=State.FAILED).job
    with pytest.raises(PermanentError, match="already"):
        move(queue, job, queue, NOW)
    assert queue.where(job) is State.FAILED


# --- retry --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.PENDING, State.FAILED, State.QUARANTINED])
def test_retried_job_is_pending_as_if_nothing_had_failed(
    queue: Queue, make_job: MakeJob, state: State
) -> None:
    job = make_job(queue, state=state, routing=FAILING).job
    with open(queue.open_wake(), "rb", buffering=0) as fifo:
        retry(queue, job, HOUR, NOW)
        assert fifo.read(99) == b"archive-1\n"
    assert queue.where(job) is State.PENDING
    assert routing(queue, job) == Routing(remhost="there", priority=9)


def test_unconfirmed_job_is_retried_and_one_that_is_not_late_is_not(
    queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue, state=State.SENT).job
    now = datetime.now(UTC)
    with pytest.raises(PermanentError, match="its receipt is not late yet"):
        retry(queue, job, HOUR, now)
    assert queue.where(job) is State.SENT
    retry(queue, job, HOUR, now + timedelta(seconds=HOUR + 60))
    assert queue.where(job) is State.PENDING


@pytest.mark.parametrize("state", [State.HELD, State.ACTIVE])
def test_job_that_needs_no_retry_is_refused(queue: Queue, make_job: MakeJob, state: State) -> None:
    job = make_job(queue, state=state).job
    with pytest.raises(PermanentError, match=f"{job} is {state.value}"):
        retry(queue, job, HOUR, NOW)


def test_retry_does_not_forget_where_a_damaged_job_was_to_go(
    queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue, state=State.QUARANTINED).job
    (queue.root / "quarantine" / job / "routing").write_text("remhost=elsewhere\n")
    with pytest.raises(PermanentError):
        retry(queue, job, HOUR, NOW)
    assert queue.where(job) is State.QUARANTINED

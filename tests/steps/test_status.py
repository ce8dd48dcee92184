"""The status step: every job is listed once, with what is known of it."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from lpxfer.formats.attempts import START
from lpxfer.formats.control import Control
from lpxfer.formats.job import NOT_COMPLETED, Routing, State
from lpxfer.steps import status
from lpxfer.steps.status import Job
from lpxfer.stores.job_dir import account
from lpxfer.stores.listing import Entry
from lpxfer.stores.spool import Queue

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HOUR = 3600.0
ME = account(os.geteuid())
MakeJob = Callable[..., Control]


def listed(queue: Queue, **words: object) -> list[Job]:
    return status.not_completed(queue, HOUR, datetime.now(UTC), **words)  # type: ignore[arg-type]


def test_row_has_everything_that_is_known(queue: Queue, make_job: MakeJob) -> None:
    routing = Routing(priority=9, not_before=NOW, reason="no route", stalls=1)
    known = make_job(queue, routing=routing, name="a\nb.fits")
    with queue.still(known.job, State.PENDING) as job:
        job.note(START, NOW)
    assert listed(queue) == [
        Job("archive-1", "archive", "pending", ME, known.uid, 9, known.submitted, "a\nb.fits",
            known.path, "minicam", 9, 1, NOW, "no route")
    ]  # fmt: skip


def test_every_state_that_is_not_finished_is_listed_in_the_order_of_numbers(
    queue: Queue, make_job: MakeJob
) -> None:
    for state in (*NOT_COMPLETED, *NOT_COMPLETED):
        make_job(queue, state=state)
    rows = listed(queue)
    assert [row.id for row in rows] == [f"archive-{n}" for n in range(1, 13)]
    assert [row.state for row in rows] == [s.value for s in (*NOT_COMPLETED, *NOT_COMPLETED)]


def test_sent_job_is_unconfirmed_when_its_receipt_is_late(queue: Queue, make_job: MakeJob) -> None:
    make_job(queue, state=State.SENT)
    now = datetime.now(UTC)
    later = now + timedelta(seconds=HOUR + 60)
    assert [row.state for row in status.not_completed(queue, HOUR, now)] == ["sent"]
    assert [row.state for row in status.not_completed(queue, HOUR, later)] == ["unconfirmed"]


def test_jobs_of_one_user_are_chosen(queue: Queue, make_job: MakeJob) -> None:
    make_job(queue)
    assert len(listed(queue, user=ME)) == 1
    assert listed(queue, user="nobody_at_all") == []


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [("control", b"torn", "torn: no end line"), ("routing", b"torn", "torn: no end line"),
     ("control", None, "no control file"), ("control", "/etc/passwd", "control: ")],
)  # fmt: skip
def test_damaged_job_is_listed_with_what_is_wrong(
    queue: Queue, make_job: MakeJob, name: str, text: bytes | str | None, reason: str
) -> None:
    job = make_job(queue).job
    path = queue.root / "pending" / job / name
    path.unlink(missing_ok=True)
    if isinstance(text, str):
        path.symlink_to(text)
    elif text:
        path.write_bytes(text)
    [row] = listed(queue)
    assert (row.id, row.state, row.user, row.attempts) == (job, "pending", ME, None)
    assert row.reason
    assert row.reason.startswith(reason)
    assert (row.uid is None) is (name == "control")


def test_reason_for_the_quarantine_goes_before_the_damage(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue, state=State.QUARANTINED, routing=Routing(reason="a link")).job
    (queue.root / "quarantine" / job / "control").unlink()
    (queue.root / "quarantine" / job / "control").symlink_to("data")
    assert [row.reason for row in listed(queue)] == ["a link"]


# --- jobs that move while they are looked at --------------------------------------------------


class Restless(Queue):
    """A queue in which something happens after the n-th listing, or at the opening of a job."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue.root, queue.name)
        self.after: dict[int, Callable[[], None]] = {}
        self.at_open: list[Callable[[], None]] = []
        self.listings = 0

    def entries(self, state: State) -> list[Entry]:
        found = super().entries(state)
        self.listings += 1
        self.after.get(self.listings, lambda: None)()
        return found

    def open(self, job_id: str, state: State) -> status.JobDir:
        if self.at_open:
            self.at_open.pop(0)()
        return super().open(job_id, state)


@pytest.fixture
def restless(queue: Queue) -> Restless:
    return Restless(queue)


MOVES = [
    (State.PENDING, State.ACTIVE), (State.ACTIVE, State.SENT), (State.ACTIVE, State.PENDING),
    (State.SENT, State.PENDING), (State.FAILED, State.PENDING), (State.HELD, State.PENDING),
    (State.ACTIVE, State.FAILED), (State.QUARANTINED, State.PENDING),
]  # fmt: skip


@pytest.mark.parametrize("moment", range(1, 9))
@pytest.mark.parametrize(("src", "dst"), MOVES)
def test_job_that_moves_between_two_looks_is_listed_once(
    queue: Queue, restless: Restless, make_job: MakeJob, src: State, dst: State, moment: int
) -> None:
    job = make_job(queue, state=src).job
    restless.after[moment] = lambda: queue.move(job, src, dst)
    [row] = listed(restless)
    assert row.id == job
    assert row.state in (src.value, dst.value)
    restless.close()


def test_job_that_moves_when_it_is_opened_is_followed(
    queue: Queue, restless: Restless, make_job: MakeJob
) -> None:
    known = make_job(queue)
    restless.at_open = [lambda: queue.claim(known.job).close(),
                        lambda: queue.move(known.job, State.ACTIVE, State.SENT)]  # fmt: skip
    [row] = listed(restless)
    assert (row.state, row.uid) == ("sent", known.uid)
    restless.close()


def test_job_that_is_finished_when_it_is_opened_is_not_listed(
    queue: Queue, restless: Restless, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    make_job(queue)
    restless.at_open = [
        lambda: queue.finish(job, State.PENDING, State.CANCELED, "", NOW),
    ]
    assert [row.id for row in listed(restless)] == ["archive-2"]
    restless.close()


def test_job_is_found_in_whatever_state_it_is(
    queue: Queue, restless: Restless, make_job: MakeJob
) -> None:
    known = make_job(queue)
    restless.at_open = [lambda: queue.finish(known.job, State.PENDING, State.COMPLETED, "", NOW)]
    row = status.find(restless, known.job, HOUR, NOW)
    assert row
    assert (row.state, row.uid, row.finished) == ("completed", known.uid, NOW)
    assert status.find(restless, "archive-9", HOUR, NOW) is None
    restless.close()


# --- finished jobs --------------------------------------------------------------------------


def test_finished_jobs_are_listed_oldest_first(queue: Queue, make_job: MakeJob) -> None:
    jobs = [make_job(queue).job for _ in range(4)]
    for number, job in enumerate(jobs):
        outcome = State.CANCELED if number == 2 else State.COMPLETED
        queue.finish(job, State.PENDING, outcome, "why", NOW + timedelta(days=number - 20))
    rows = status.finished(queue, NOW - timedelta(days=19))
    assert [(row.id, row.state) for row in rows] == [
        ("archive-2", "completed"), ("archive-3", "canceled"), ("archive-4", "completed"),
    ]  # fmt: skip
    assert rows[0].size == 9
    assert rows[0].reason == "why"
    assert rows[0].priority is None
    assert status.finished(queue, NOW - timedelta(days=19), "nobody_at_all") == []


def test_finished_job_that_is_not_logged_yet_is_listed_with_its_outcome(
    queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    with queue.open(job, State.PENDING) as opened:
        opened.set_routing(Routing(outcome=State.CANCELED, reason="by her"))
    queue.move(job, State.PENDING, State.COMPLETED)
    [row] = status.finished(queue, NOW)
    assert (row.id, row.state, row.reason) == (job, "canceled", "by her")
    found = status.find(queue, job, HOUR, NOW)
    assert found
    assert found.state == "canceled"


def test_damaged_record_is_listed_with_what_it_has(queue: Queue) -> None:
    line = b"2026-11-20T12:00:00.000Z canceled job=archive-7 size=x submitted=yesterday\n"
    (queue.root / "log" / "20261120.log").write_bytes(line)
    [row] = status.finished(queue, NOW)
    assert row == Job("archive-7", "archive", "canceled", "-", finished=NOW)

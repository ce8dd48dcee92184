"""The check step: how queues stand, and whether that is well."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lpxfer.formats.control import Control
from lpxfer.formats.job import NOT_COMPLETED, Routing, State
from lpxfer.formats.switches import Switches
from lpxfer.formats.watch_state import WatchState
from lpxfer.steps.check import QueueStatus, WatchStatus, look, verdict
from lpxfer.stores.counts import Count
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.spool import Queue, Spool

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HOUR = 3600.0
NONE = dict.fromkeys(NOT_COMPLETED, Count(0, 0))
WELL = QueueStatus("archive", Switches(), True, (), NONE)
MakeJob = Callable[..., Control]


def test_look_counts_jobs_and_bytes_by_state(queue: Queue, make_job: MakeJob) -> None:
    make_job(queue, b"123")
    make_job(queue, b"4567")
    make_job(queue, b"8", state=State.ACTIVE)
    found = look(queue, HOUR, NOW)
    assert found.counts == NONE | {State.PENDING: Count(2, 7), State.ACTIVE: Count(1, 1)}
    assert found.active == ("archive-3",)
    assert not found.running
    assert found.waiting is None
    with queue.locked():
        assert look(queue, HOUR, NOW).running


def test_look_tells_number_and_age_of_unconfirmed_jobs(queue: Queue, make_job: MakeJob) -> None:
    for _ in range(3):
        make_job(queue, state=State.SENT)
    now = datetime.now(UTC)
    assert look(queue, HOUR, now).unconfirmed == 0
    found = look(queue, HOUR, now + timedelta(hours=2))
    assert found.unconfirmed == 3
    assert 2 * HOUR <= found.unconfirmed_age <= 2 * HOUR + 60


def test_look_opens_no_job(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for state in NOT_COMPLETED:
        make_job(queue, state=state)

    def opened(*_: object) -> JobDir:
        pytest.fail("a job was opened")

    monkeypatch.setattr(Queue, "open", opened)
    assert look(queue, HOUR, NOW).counts[State.SENT].jobs == 1


# --- the oldest job -----------------------------------------------------------------------


def waiting(queue: Queue, now: datetime = NOW) -> float:
    found = look(queue, HOUR, now, waiting=True).waiting
    assert found is not None
    return found


def test_oldest_job_is_the_one_that_was_submitted_first(queue: Queue, make_job: MakeJob) -> None:
    assert waiting(queue) == 0
    for hours in (3, 2, 1):
        make_job(queue, submitted=NOW - timedelta(hours=hours))
    assert waiting(queue) == 3 * HOUR


def test_oldest_job_may_be_active_or_come_from_another_queue(
    spool: Spool, queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue, state=State.ACTIVE, submitted=NOW - timedelta(hours=2))
    make_job(queue, submitted=NOW - timedelta(hours=1))
    assert waiting(queue) == 2 * HOUR
    backup = spool.queue("backup")
    make_job(backup)
    moved = make_job(backup, submitted=NOW - timedelta(hours=4)).job
    backup.move_to_queue(moved, State.PENDING, queue)
    assert waiting(queue) == 4 * HOUR


def test_job_whose_user_asked_for_a_later_time_waits_from_then(
    queue: Queue, make_job: MakeJob
) -> None:
    early = NOW - timedelta(hours=5)
    make_job(queue, submitted=early, routing=Routing(not_before=NOW + timedelta(hours=1)))
    make_job(queue, submitted=NOW - timedelta(hours=2))
    assert waiting(queue) == 2 * HOUR
    assert waiting(queue, NOW + timedelta(hours=3)) == 2 * HOUR


def test_deferred_job_waits_from_its_submit(queue: Queue, make_job: MakeJob) -> None:
    routing = Routing(not_before=NOW + timedelta(hours=1), reason="no route", stalls=7)
    make_job(queue, submitted=NOW - timedelta(hours=5), routing=routing)
    assert waiting(queue) == 5 * HOUR


def test_held_and_sent_jobs_do_not_wait(queue: Queue, make_job: MakeJob) -> None:
    for state in (State.HELD, State.SENT, State.FAILED):
        make_job(queue, state=state, submitted=NOW - timedelta(hours=5))
    assert waiting(queue) == 0


def test_damaged_job_waits_from_when_its_directory_came(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    os.truncate(queue.root / "pending" / job / "control", 5)
    now = datetime.now(UTC) + timedelta(hours=1)
    assert HOUR <= waiting(queue, now) <= HOUR + 60


# --- the verdict --------------------------------------------------------------------------


def test_all_is_well() -> None:
    counts = NONE | {
        State.PENDING: Count(12, 5),
        State.ACTIVE: Count(1, 2),
        State.SENT: Count(3, 4),
    }
    assert verdict([replace(WELL, counts=counts)]) == (
        True,
        "OK - archive: 12 pending, 1 active, 0 held, 3 sent",
    )


FAULTS = {
    "the sender is not running": replace(WELL, running=False),
    "disabled (link%0Adown)": replace(WELL, switches=Switches().disable("link\ndown", NOW)),
    "not accepting jobs (full)": replace(WELL, switches=Switches().reject("full", NOW)),
    "2 failed": replace(WELL, counts=NONE | {State.FAILED: Count(2, 9)}),
    "1 quarantined": replace(WELL, counts=NONE | {State.QUARANTINED: Count(1, 9)}),
    "3 unconfirmed for up to 1d 2h": replace(WELL, unconfirmed=3, unconfirmed_age=26 * HOUR),
    "the oldest job has waited for 2h 1m": replace(WELL, waiting=2 * HOUR + 60),
}


@pytest.mark.parametrize(("words", "queue"), FAULTS.items(), ids=list(FAULTS))
def test_fault_is_named(words: str, queue: QueueStatus) -> None:
    assert verdict([queue], age=2 * HOUR) == (False, f"CRITICAL - archive: {words}")


def test_every_fault_of_every_queue_is_in_one_line() -> None:
    bad = replace(WELL, name="backup", running=False, counts=NONE | {State.FAILED: Count(2, 9)})
    assert verdict([WELL, bad, bad], faults=["queue old cannot be used"]) == (
        False,
        "CRITICAL - queue old cannot be used; "
        "backup: the sender is not running, 2 failed; backup: the sender is not running, 2 failed",
    )


def test_job_that_has_waited_no_longer_than_allowed_is_well() -> None:
    assert verdict([replace(WELL, waiting=HOUR)], age=HOUR)[0]
    assert verdict([replace(WELL, waiting=HOUR)])[0]


WATCH = WatchStatus("minicam", True, WatchState(stays=True, waiting=3), 75.0)
PASS = replace(WATCH, running=False, state=WatchState())


@pytest.mark.parametrize("watch", [WATCH, PASS])
def test_watches_are_told_of(watch: WatchStatus) -> None:
    well, line = verdict([WELL], watches=[watch])
    words = f"; watch of minicam: {watch.state.waiting} waiting, compared 1m 15s ago"
    assert well and line.endswith(words)


WATCH_FAULTS = {
    "it is not running": replace(WATCH, running=False),
    "never compared": replace(PASS, compared=None),
    "compared 1d 1s ago": replace(PASS, compared=86401.0),
    "nothing can be submitted (full)": replace(WATCH, state=WatchState(trouble="full")),
    "2 refused, or not finished for an hour": replace(WATCH, state=WatchState(late=2)),
}


@pytest.mark.parametrize(("words", "watch"), WATCH_FAULTS.items(), ids=list(WATCH_FAULTS))
def test_fault_of_a_watch_is_named(words: str, watch: WatchStatus) -> None:
    told = f"CRITICAL - watch of minicam: {words}"
    assert verdict([WELL], watches=[watch]) == (False, told)


def test_no_queue_at_all_is_a_fault() -> None:
    assert verdict([]) == (False, "CRITICAL - no queue is configured")

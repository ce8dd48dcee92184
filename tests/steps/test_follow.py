"""The follow step: waiting for jobs until each is finished."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.steps import follow as module
from lpxfer.steps.follow import follow
from lpxfer.stores.spool import Queue, Spool

NOW = datetime(2026, 11, 20, 5, 0, tzinfo=UTC)


@pytest.fixture
def second(spool: Spool) -> Queue:
    """Another queue of the same spool."""
    return spool.queue("second")


@pytest.fixture
def looks(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[dict[int, Callable[[], object]]], list[float]]:
    """Acts after certain looks instead of sleeping; returns the seconds that were asked for."""

    def script(acts: dict[int, Callable[[], object]]) -> list[float]:
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            acts.get(len(slept), lambda: None)()
            assert len(slept) < 100, "it waits for ever"

        monkeypatch.setattr(module.time, "sleep", sleep)
        return slept

    return script


def finish(queue: Queue, job: Control, outcome: State = State.COMPLETED) -> None:
    queue.finish(job.job, State.PENDING, outcome, "receipt", NOW)


@pytest.mark.parametrize("outcome", [State.COMPLETED, State.CANCELED])
def test_finished_job_is_found_in_the_log(queue, make_job, outcome):
    job = make_job(queue)
    finish(queue, job, outcome)
    assert list(follow([queue], [job])) == [(job, outcome)]


@pytest.mark.parametrize("state", [State.FAILED, State.QUARANTINED])
def test_job_that_a_person_has_to_look_at_is_not_waited_for(queue, make_job, state):
    job = make_job(queue)
    queue.move(job.job, State.PENDING, state)
    assert list(follow([queue], [job])) == [(job, state)]


def test_jobs_are_yielded_as_they_are_finished(queue, make_job, looks):
    first, second, third = (make_job(queue) for _ in range(3))
    looks(
        {
            1: lambda: finish(queue, second),
            3: lambda: finish(queue, first, State.CANCELED),
            5: lambda: queue.move(third.job, State.PENDING, State.FAILED),
        }
    )
    assert list(follow([queue], [first, second, third])) == [
        (second, State.COMPLETED),
        (first, State.CANCELED),
        (third, State.FAILED),
    ]


@pytest.mark.parametrize("state", [State.HELD, State.ACTIVE, State.SENT])
def test_job_is_followed_through_its_states(queue, make_job, looks, state):
    job = make_job(queue)
    slept = looks(
        {
            2: lambda: queue.move(job.job, State.PENDING, state),
            30: lambda: queue.move(job.job, state, State.PENDING),
            31: lambda: finish(queue, job),
        }
    )
    assert list(follow([queue], [job])) == [(job, State.COMPLETED)]
    assert len(slept) == 31


def test_job_that_stands_in_done_is_waited_for_until_it_is_logged(queue, make_job, looks):
    job = make_job(queue)
    queue.move(job.job, State.PENDING, State.COMPLETED)
    slept = looks({40: lambda: queue.finish_done(NOW)})
    assert list(follow([queue], [job])) == [(job, State.CANCELED)]  # its routing has no word
    assert len(slept) == 40


def test_job_that_is_moved_to_another_queue_is_followed_there(queue, second, make_job, looks):
    job = make_job(queue)
    looks(
        {
            1: lambda: queue.move_to_queue(job.job, State.PENDING, second),
            30: lambda: finish(second, job),
        }
    )
    assert list(follow([queue, second], [job])) == [(job, State.COMPLETED)]


def test_job_that_has_vanished_is_said_so_and_not_waited_for_for_ever(
    queue, second, make_job, looks
):
    moved, stays = make_job(queue), make_job(queue)
    slept = looks(
        {
            1: lambda: queue.move_to_queue(moved.job, State.PENDING, second),
            60: lambda: finish(queue, stays),
        }
    )
    assert list(follow([queue], [moved, stays])) == [(moved, None), (stays, State.COMPLETED)]
    assert len(slept) == 60


def test_job_that_is_missed_for_a_moment_has_not_vanished(queue, make_job, looks, monkeypatch):
    job = make_job(queue)
    where, missed = queue.where, iter([True] * (module.LOOKS - 1) + [False] + [True] * 5)
    monkeypatch.setattr(queue, "where", lambda j: None if next(missed, False) else where(j))
    looks({40: lambda: finish(queue, job)})
    assert list(follow([queue], [job])) == [(job, State.COMPLETED)]


def test_another_job_of_the_same_id_is_not_taken_for_it(queue, make_job, looks):
    """After a lost counter an id may have been given out before; a uid never."""
    old = make_job(queue, b"old")
    finish(queue, old)
    (queue.root / "seq").write_bytes(b"0\n")
    new = make_job(queue, b"new")
    assert old.job == new.job
    looks({3: lambda: finish(queue, new, State.CANCELED)})
    assert list(follow([queue], [new])) == [(new, State.CANCELED)]


def test_many_jobs_are_looked_at_seldom(queue, make_job, looks):
    jobs = [make_job(queue) for _ in range(101)]
    slept = looks(
        {
            1: lambda: [finish(queue, job) for job in jobs[:2]],
            2: lambda: [finish(queue, job) for job in jobs[2:]],
        }
    )
    assert len(list(follow([queue], jobs))) == 101
    assert slept == [2, 0.1]


def test_log_is_read_once_for_all_jobs_that_end_together(queue, make_job, monkeypatch):
    jobs = [make_job(queue) for _ in range(20)]
    for job in jobs:
        finish(queue, job)
    read, log = [], queue.log

    def counted(since: datetime) -> Iterator[object]:
        read.append(since)
        return log(since)

    monkeypatch.setattr(queue, "log", counted)
    assert len(list(follow([queue], jobs))) == 20
    assert len(read) == 1


def test_jobs_finished_by_another_process_are_seen(queue, make_job):
    jobs = [make_job(queue) for _ in range(3)]

    def work() -> None:
        other = Spool(queue.root.parent)
        for job in jobs:
            time.sleep(0.05)
            finish(other.queue("archive"), job)
        other.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert {state for _, state in follow([queue], jobs)} == {State.COMPLETED}
    thread.join()


def test_nothing_to_follow_ends_at_once(queue):
    assert list(follow([queue], [])) == []

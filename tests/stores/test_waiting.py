"""A sender's view of pending/: what it finds, and what it need not look at for that."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.steps.reroute import set_priority
from lpxfer.stores import listing, waiting
from lpxfer.stores.queue import Queue
from lpxfer.stores.waiting import BY_ITSELF, Waiting

MakeJob = Callable[..., Control]
LONG = 10 * BY_ITSELF


@dataclass
class Clock:
    """Time that passes when a test says so; looking at a directory takes `cost` seconds."""

    now: float = 1000.0
    cost: float = 0.0
    listed: int = 0  # how often a directory was
    stamped: list[str] = field(default_factory=list)  # jobs that were looked at one by one


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    ids, stamp = listing.ids, listing.stamp

    def counted_ids(fd: int) -> Iterator[str]:
        clock.listed += 1
        clock.now += clock.cost
        return ids(fd)

    def counted_stamp(fd: int, job_id: str) -> int | None:
        clock.stamped.append(job_id)
        return stamp(fd, job_id)

    monkeypatch.setattr(listing, "ids", counted_ids)
    monkeypatch.setattr(listing, "stamp", counted_stamp)
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock.now)
    return clock


class View:
    """A sender's view, the FIFO, and the schedule that it keeps."""

    def __init__(self, queue: Queue) -> None:
        self.waiting, self.wake = queue.waiting(), queue.open_wake()
        self.known: dict[str, int] = {}

    def look(self, at_once: bool = False) -> tuple[bool, list[str]]:
        """Tell whether everything was looked at, and what is new."""
        self.waiting.hear(self.wake)
        whole, jobs = self.waiting.look(self.known.get, at_once)
        found = dict(jobs)
        while self.waiting.unfinished:
            found |= dict(self.waiting.look(self.known.get)[1])
            whole = True
        new = [job_id for job_id in found if self.known.get(job_id) != found[job_id]]
        self.known = found if whole else self.known | found
        return whole, new


@pytest.fixture
def view(queue: Queue, clock: Clock) -> Iterator[View]:
    view = View(queue)
    yield view
    os.close(view.wake)


def settle(queue: Queue) -> None:
    """Let the directory have been changed a while ago."""
    long_ago = time.time_ns() - 10**10
    os.utime(queue.root / "pending", ns=(long_ago, long_ago))


def test_first_look_finds_everything(queue: Queue, make_job: MakeJob, view: View) -> None:
    jobs = [make_job(queue).job for _ in range(3)]
    make_job(queue, state=State.HELD)
    (queue.root / "pending/archive-77").touch()
    assert sorted(view.look()[1]) == jobs


def test_first_look_comes_in_portions_so_that_others_need_not_wait_for_all(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job(queue).job for _ in range(7)]
    monkeypatch.setattr(waiting, "PORTION", 3)
    view, wake = queue.waiting(), queue.open_wake()
    found = dict(view.look(lambda _: None)[1])
    assert len(found) == 3 and view.unfinished
    urgent = make_job(queue).job
    view.hear(wake)
    more = list(view.look(lambda _: None)[1])
    assert more[0][0] == urgent and view.unfinished
    found |= dict(more) | dict(view.look(lambda _: None)[1])
    assert not view.unfinished
    assert sorted(found) == [*jobs, urgent]
    os.close(wake)


def test_first_look_is_whole_for_who_makes_one_pass(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job(queue).job for _ in range(7)]
    monkeypatch.setattr(waiting, "PORTION", 3)
    view = queue.waiting()
    view.look(lambda _: None)
    whole, found = view.look(lambda _: None, at_once=True)
    assert whole and sorted(job_id for job_id, _ in found) == jobs
    assert not view.unfinished


def test_submitted_job_is_found_at_once_and_nothing_else_is_looked_at(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    make_job(queue)
    view.look()
    clock.listed, clock.stamped = 0, []
    job = make_job(queue).job
    assert view.look() == (False, [job])
    assert (clock.listed, clock.stamped) == (0, [job])


def test_new_priority_is_noticed_at_once(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    jobs = [make_job(queue).job for _ in range(3)]
    view.look()
    clock.listed = 0
    set_priority(queue, jobs[1], 77)
    assert view.look() == (False, [jobs[1]])
    assert clock.listed == 0
    assert queue.routing(jobs[1]) == Routing(priority=77)


def test_job_whose_hint_was_lost_is_found_after_a_while(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    view.look()
    job = make_job(queue).job
    os.read(view.wake, 100)
    assert view.look() == (False, [])
    clock.now += BY_ITSELF
    assert view.look() == (True, [job])


def test_priority_whose_hint_was_lost_is_noticed_after_a_while(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    job = make_job(queue).job
    view.look()
    with queue.open(job, State.PENDING) as opened:
        opened.set_routing(Routing(priority=9))
    clock.now += BY_ITSELF
    assert view.look() == (True, [job])


def test_directory_that_has_not_changed_is_not_listed(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    make_job(queue)
    settle(queue)
    clock.cost = 5.0  # of looking at all routings: not to be repeated for an hour
    view.look()
    clock.listed = 0
    clock.now += LONG
    assert view.look() == (False, [])
    assert clock.listed == 0


def test_changed_directory_is_listed_and_known_jobs_are_not_looked_at(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    make_job(queue)
    clock.cost = 1.0
    view.look()
    clock.stamped = []
    job = make_job(queue).job
    os.read(view.wake, 100)
    clock.now += LONG
    assert view.look() == (True, [job])
    assert clock.stamped == [job]


def test_new_priority_is_noticed_when_everything_is_listed_just_then(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    job = make_job(queue).job
    clock.cost = 1.0
    view.look()
    clock.now += LONG
    make_job(queue)
    set_priority(queue, job, 77)
    whole, new = view.look()
    assert whole and job in new


def test_looks_that_take_long_are_rare(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    """A tenth of the time when somebody asks all the time, a hundredth when nobody does."""
    clock.cost = 1.0
    view.look()
    for ask, most in ((True, 100), (False, 10)):
        clock.listed, end = 0, clock.now + 1000
        while clock.now < end:
            clock.now += 1.0
            make_job(queue)
            os.read(view.wake, 4096)
            if ask:
                queue.wake()
            view.look()
        assert most / 2 < clock.listed <= most


def test_full_fifo_makes_it_look_at_everything(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    jobs = [make_job(queue).job for _ in range(2)]
    view.look()
    clock.now += 1.0
    for _ in range(10_000):
        queue.wake("archive-99")
    set_priority(queue, jobs[1], 77)  # there was no room for the hint
    whole, new = view.look()
    assert whole and jobs[1] in new


@pytest.mark.parametrize("words", [b"!", b"\xff\n", b"archive-1x\n", b"archive-", b"../x\n"])
def test_words_that_are_no_ids_make_it_look_and_nothing_else(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock, words: bytes
) -> None:
    view.look()
    job = make_job(queue).job
    os.read(view.wake, 100)
    clock.now += 1.0
    os.write(view.wake, words)
    assert view.look() == (True, [job])


def test_hints_at_what_is_not_there_do_no_harm(queue: Queue, view: View) -> None:
    view.look()
    queue.wake("archive-7", "other-12")
    assert view.look() == (False, [])


def test_job_that_was_taken_in_vain_is_found_again_in_a_while(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    job = make_job(queue).job
    settle(queue)
    clock.cost = 5.0
    view.look()
    del view.known[job]
    view.waiting.later(job)
    assert view.look() == (False, [])
    clock.now += BY_ITSELF
    assert view.look() == (False, [job])


def test_everything_is_listed_at_once_for_who_asks_for_that(
    queue: Queue, make_job: MakeJob, view: View, clock: Clock
) -> None:
    clock.cost = 50.0
    view.look()
    job = make_job(queue).job
    os.read(view.wake, 100)
    assert view.look(at_once=True) == (True, [job])


def test_look_that_fails_is_made_again(
    queue: Queue, make_job: MakeJob, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(queue).job
    view = Waiting(queue._dirs["pending"])

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(listing, "ids", fail)
        with pytest.raises(OSError):
            list(view.look(lambda _: None)[1])
    assert [job_id for job_id, _ in view.look(lambda _: None)[1]] == [job]
    assert not view.unfinished


def test_directory_is_not_believed_to_be_the_same_this_instant(queue: Queue) -> None:
    fd = queue._dirs["pending"]
    os.utime(fd)
    assert listing.identity(fd) is None
    settle(queue)
    before = listing.identity(fd)
    assert before == listing.identity(fd) is not None
    (queue.root / "pending/archive-1").mkdir()
    assert listing.identity(fd) != before

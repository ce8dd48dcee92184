"""A state directory as it is listed, and when it need not be."""

import os
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores import listing
from lpxfer.stores.queue import Queue

MakeJob = Callable[..., Control]


@pytest.fixture
def pending(queue: Queue, make_job: MakeJob) -> int:
    """A directory with two jobs, and with what is none."""
    for _ in range(2):
        make_job(queue, b"123")
    (queue.root / "pending/archive-77").touch()
    (queue.root / "pending/notes").mkdir()
    (queue.root / "pending/.archive-7.0123abcd.aside").mkdir()
    settle(queue._dirs["pending"])
    return queue._dirs["pending"]


def settle(fd: int) -> None:
    long_ago = time.time_ns() - 10**10
    os.utime(fd, ns=(long_ago, long_ago))


def test_what_is_no_job_is_passed_over(queue: Queue, pending: int) -> None:
    jobs = ["archive-1", "archive-2"]
    assert sorted(listing.ids(pending)) == jobs
    assert sorted(entry.id for entry in listing.entries(pending)) == jobs
    assert listing.count(pending) == (2, 6)
    assert listing.any_job(pending)
    assert not queue.any(State.HELD)


def test_entry_tells_what_stat_does(queue: Queue, pending: int) -> None:
    [entry, _] = sorted(listing.entries(pending))
    status = (queue.root / "pending/archive-1").stat()
    assert entry == listing.entry(pending, "archive-1")
    assert (entry.stamp, entry.uid) == (status.st_mtime_ns, status.st_uid)
    assert entry.changed.timestamp() == pytest.approx(status.st_ctime)
    assert listing.stamp(pending, "archive-1") == entry.stamp
    assert listing.stamp(pending, "archive-9") is None


def test_listing_may_be_left_in_the_middle(pending: int) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        assert listing.any_job(pending)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_directory_is_worth_a_look_until_it_has_been_listed(queue: Queue, pending: int) -> None:
    glance = queue.glance(State.PENDING)
    assert glance.due()
    with glance.taken():
        pass
    assert not glance.changed()
    assert not glance.due()
    queue.move("archive-1", State.PENDING, State.HELD)
    assert glance.due()


def test_directory_that_was_changed_this_instant_is_looked_at_again(
    queue: Queue, pending: int
) -> None:
    """Another change within the same tick of the clock would show the same time."""
    glance = queue.glance(State.PENDING)
    os.utime(pending)
    with glance.taken():
        pass
    assert glance.due()


def test_look_that_failed_is_none(queue: Queue, pending: int) -> None:
    glance = queue.glance(State.PENDING)
    with pytest.raises(OSError), glance.taken():
        raise OSError
    assert glance.due()


def test_what_wants_to_be_looked_at_again_is(queue: Queue, pending: int) -> None:
    glance = queue.glance(State.PENDING)
    with glance.taken():
        pass
    glance.forget()
    assert glance.due()


def test_looks_take_a_fiftieth_of_the_time(
    queue: Queue, pending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    glance = queue.glance(State.PENDING)
    monkeypatch.setattr(
        listing,
        "time",
        SimpleNamespace(
            monotonic=lambda: clock.now, thread_time=lambda: clock.now, time_ns=time.time_ns
        ),
    )
    with glance.taken():
        clock.now += 2.0
    queue.move("archive-1", State.PENDING, State.HELD)
    clock.now += 99.0
    assert glance.changed() and not glance.due()
    clock.now += 2.0
    assert glance.due()

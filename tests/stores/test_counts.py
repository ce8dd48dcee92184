"""Counts: exact where that takes no time, with their age where it would, never made up."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores import counts, listing
from lpxfer.stores.counts import OLD, Count
from lpxfer.stores.queue import Queue

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
MakeJob = Callable[..., Control]


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than two jobs are too many to be counted by who looks."""
    monkeypatch.setattr(counts, "MANY", 2)


def make(queue: Queue, make_job: MakeJob, number: int) -> None:
    """Make jobs of five bytes, a while ago."""
    for _ in range(number):
        make_job(queue, b"12345")
    settle(queue)


def settle(queue: Queue) -> None:
    long_ago = time.time_ns() - 10**10
    os.utime(queue.root / "pending", ns=(long_ago, long_ago))


def pending(queue: Queue, now: datetime = LATER) -> Count:
    return queue.counts(now)[State.PENDING]


def test_few_jobs_are_counted_by_who_looks(queue: Queue, make_job: MakeJob) -> None:
    make(queue, make_job, 2)
    assert pending(queue) == (2, 10, None)
    assert queue.counts(NOW, sizes=False)[State.PENDING] == (2, None, None)
    assert queue.counts(NOW)[State.SENT] == (0, 0, None)


def test_bytes_of_many_jobs_that_nobody_has_counted_are_not_known(
    queue: Queue, make_job: MakeJob
) -> None:
    make(queue, make_job, 3)
    assert pending(queue) == (3, None, None)


def test_count_of_the_sender_is_the_truth_while_nothing_has_changed(
    queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(queue, make_job, 3)
    queue.counter().look(NOW)

    fd = queue._dirs["pending"]
    kept = counts._read(queue._fd)[State.PENDING]

    def listed(_: int) -> None:
        pytest.fail("pending/ was listed")

    for way in ("ids", "names"):
        monkeypatch.setattr(listing, way, listed)
    assert counts._count(fd, kept, LATER, True) == (3, 15, None)


def test_count_that_may_have_changed_says_of_when_it_is(queue: Queue, make_job: MakeJob) -> None:
    make(queue, make_job, 3)
    queue.counter().look(NOW)
    make(queue, make_job, 1)
    assert pending(queue) == (3, 15, NOW)


def test_count_that_is_too_old_is_not_shown(queue: Queue, make_job: MakeJob) -> None:
    make(queue, make_job, 3)
    queue.counter().look(NOW)
    make(queue, make_job, 1)
    for now in (NOW + OLD, NOW - OLD):
        assert pending(queue, now) == (4, None, None)


def test_old_count_is_not_believed_when_few_jobs_are_left(queue: Queue, make_job: MakeJob) -> None:
    make(queue, make_job, 3)
    queue.counter().look(NOW)
    queue.move("archive-1", State.PENDING, State.HELD)
    settle(queue)
    assert pending(queue) == (2, 10, None)


def test_directory_that_changed_this_instant_is_not_believed_to_be_the_same(
    queue: Queue, make_job: MakeJob
) -> None:
    make(queue, make_job, 3)
    os.utime(queue.root / "pending")
    queue.counter().look(NOW)
    assert pending(queue) == (3, 15, NOW)


def test_sender_counts_again_what_has_changed(queue: Queue, make_job: MakeJob) -> None:
    make(queue, make_job, 3)
    counter = queue.counter()
    counter.look(NOW)
    make(queue, make_job, 1)
    counter.look(LATER)
    assert pending(queue) == (4, 20, None)


def test_sender_writes_nothing_when_nothing_has_changed(queue: Queue, make_job: MakeJob) -> None:
    make(queue, make_job, 3)
    counter = queue.counter()
    counter.look(NOW)
    before = (queue.root / "counts").stat()
    counter.look(LATER)
    assert (queue.root / "counts").stat().st_ino == before.st_ino


def test_sender_of_few_jobs_writes_no_counts(queue: Queue, make_job: MakeJob) -> None:
    make(queue, make_job, 2)
    queue.counter().look(NOW)
    assert not (queue.root / "counts").exists()


@pytest.mark.parametrize("text", [b"", b"pending=3 15\n", b"\xff", b"pending=1 2 x 4 5\n"])
def test_damaged_counts_are_none(queue: Queue, make_job: MakeJob, text: bytes) -> None:
    make(queue, make_job, 3)
    (queue.root / "counts").write_bytes(text)
    assert pending(queue) == (3, None, None)


@pytest.mark.root
def test_counts_of_another_account_are_not_believed(queue: Queue, make_job: MakeJob) -> None:
    make(queue, make_job, 3)
    queue.counter().look(NOW)
    assert pending(queue) == (3, 15, None)
    os.chown(queue.root / "counts", 12345, -1)
    assert pending(queue) == (3, None, None)


@pytest.mark.parametrize("what", ["link", "FIFO", "directory"])
def test_what_is_no_file_of_counts_stops_nobody(queue: Queue, make_job: MakeJob, what: str) -> None:
    make(queue, make_job, 3)
    path = queue.root / "counts"
    {
        "link": lambda: path.symlink_to("/etc/passwd"),
        "FIFO": lambda: os.mkfifo(path),
        "directory": path.mkdir,
    }[what]()
    assert pending(queue) == (3, None, None)


def test_counts_may_be_removed_at_any_time(queue: Queue, make_job: MakeJob) -> None:
    make(queue, make_job, 3)
    queue.counter().look(NOW)
    (queue.root / "counts").unlink()
    assert pending(queue) == (3, None, None)

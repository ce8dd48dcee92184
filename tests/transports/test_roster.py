"""Who does what next."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing
from lpxfer.formats.rate import UNLIMITED
from lpxfer.stores.spool import Queue
from lpxfer.transports import roster
from lpxfer.transports.attempt import Load
from lpxfer.transports.health import Health
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.roster import RECEIPTS, Item, Roster
from lpxfer.transports.target import Links
from lpxfer.transports.team import Team

SETTINGS = QueueConfig("archive", confirm="sent")
PATIENCE = 30.0
NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)


class Site:
    """A queue's roster, with a clock that stands still, and workers that count their looks."""

    def __init__(self, queue: Queue) -> None:
        self.now = NOW
        team = Team(SETTINGS, "me", Limiter(UNLIMITED, lambda: self.now))
        health = Health(queue.name, lambda said: None)
        self.roster = Roster(queue, SETTINGS, team, health, lambda: self.now)
        self.looks = threading.Semaphore(0)
        self.closed = threading.Semaphore(0)
        self.taken: list[Item | None] = []
        self._threads: list[threading.Thread] = []
        choose = self.roster.choose

        def chosen(number: int = 0) -> Item | None:
            self.looks.release()
            return choose(number)

        self.roster.choose = chosen  # type: ignore[method-assign]

    def work(self, workers: int) -> None:
        """Let so many workers wait for something to do, and see each look once."""
        for number in range(workers):
            thread = threading.Thread(target=self._wait, args=(number,))
            thread.start()
            self._threads.append(thread)
        for _ in range(workers):
            assert self.looks.acquire(timeout=PATIENCE)

    def _wait(self, number: int) -> None:
        self.taken.append(self.roster.take(cast(Links, self), number))

    def close(self) -> None:
        """Be the connection of a worker."""
        self.closed.release()

    def end(self) -> None:
        self.roster.stop()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture
def site(queue: Queue) -> Iterator[Site]:
    site = Site(queue)
    yield site
    site.end()


def test_workers_sleep_while_there_is_nothing_to_do(site: Site) -> None:
    site.roster.scan()
    site.work(8)
    for _ in range(20):
        site.roster.tick()
    assert not site.looks.acquire(timeout=0.1)
    site.end()
    assert site.taken == [None] * 8


def test_deferred_job_wakes_them_when_its_time_has_come(
    site: Site, queue: Queue, make_job: Callable[..., Control]
) -> None:
    job = make_job(queue, routing=Routing(not_before=NOW + timedelta(minutes=1)))
    site.roster.scan()
    site.work(2)
    site.now += timedelta(minutes=1)
    site.roster.tick()
    for _ in range(2):
        assert site.looks.acquire(timeout=PATIENCE)
    site.end()
    assert sorted(site.taken, key=str) == [None, job.job]


def test_unused_connection_is_closed_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "IDLE", 0.05)
    site.work(1)
    for _ in range(3):  # it looks again, and does not close it again
        assert site.looks.acquire(timeout=PATIENCE)
    site.end()
    assert site.closed.acquire(blocking=False)
    assert not site.closed.acquire(blocking=False)


def test_who_sleeps_looks_at_the_receipts_when_it_is_time_for_that(site: Site) -> None:
    site.roster.confirms = True
    assert site.roster.choose() == RECEIPTS
    site.roster.looked(False)
    site.roster.done(RECEIPTS)
    site.roster.sent()
    site.work(1)
    site._threads[0].join(PATIENCE)
    assert site.taken == [RECEIPTS], "nobody has called tick"


def test_who_only_helps_has_a_while_to_leave_before_a_file_gives_way(
    site: Site, queue: Queue, make_job: Callable[..., Control], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(roster, "time", SimpleNamespace(monotonic=lambda: now))
    make_job(queue, routing=Routing(priority=90))
    site.roster.scan()
    carried = ["archive-98"] * (SETTINGS.connections - 1)  # as many as there may be, with one more
    site.roster._working = [*carried, object.__new__(Load)]
    assert not site.roster.outranks(50)
    now += roster.TICK
    assert site.roster.outranks(50), "who helps has not left"
    now += 5 * roster.TICK
    site.roster._working = [*carried, "archive-99"]
    assert site.roster.outranks(50), "nobody helps"

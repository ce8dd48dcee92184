"""What of a queue may be sent, and in which order."""

import os
from collections.abc import Callable
from datetime import UTC, datetime

from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing
from lpxfer.formats.schedule import LEVEL, SHARE
from lpxfer.stores.agenda import Agenda
from lpxfer.stores.spool import Queue

MakeJob = Callable[..., Control]


def test_job_that_goes_for_its_age_gives_way_to_none_that_it_went_before(
    queue: Queue, make_job: MakeJob
) -> None:
    now = datetime.now(UTC)
    old = make_job(queue, routing=Routing(priority=60)).job
    young = [make_job(queue, routing=Routing(priority=70)).job for _ in range(SHARE + 1)]
    came = now.timestamp() - 20 * LEVEL
    os.utime(queue.root / "pending" / old, (came, came))
    agenda = Agenda(queue, now)
    agenda.update(agenda.read(now))
    taken = [agenda.pop(now) for _ in range(SHARE + 1)]
    assert taken == [*young[:SHARE], old]
    assert agenda.rank(young[0]) == 70
    assert not agenda.waiting_above(agenda.rank(old), now)
    assert agenda.waiting_above(60, now)


def test_jobs_that_are_put_back_have_their_places_again(queue: Queue, make_job: MakeJob) -> None:
    now = datetime.now(UTC)
    jobs = [make_job(queue).job for _ in range(3)]
    agenda = Agenda(queue, now)
    agenda.update(agenda.read(now))
    assert [agenda.pop(now) for _ in range(4)] == [*jobs, None]
    assert agenda.head(now) is None
    agenda.put_back(*jobs, "archive-999")
    assert agenda.head(now), "or nobody would ask for them"
    assert [agenda.pop(now) for _ in range(4)] == [*jobs, None]


def test_urgent_job_goes_before_those_that_are_put_back(queue: Queue, make_job: MakeJob) -> None:
    now = datetime.now(UTC)
    first = make_job(queue).job
    agenda = Agenda(queue, now)
    agenda.update(agenda.read(now))
    assert agenda.pop(now) == first
    agenda.put_back(first)
    urgent = make_job(queue, routing=Routing(priority=90)).job
    agenda.update(agenda.read(now, at_once=True))
    assert [agenda.pop(now), agenda.pop(now)] == [urgent, first]


def test_large_job_among_small_ones_keeps_its_place(queue: Queue, make_job: MakeJob) -> None:
    now = datetime.now(UTC)
    small, large, last = (make_job(queue, bytes(size)).job for size in (1, 99, 1))
    agenda = Agenda(queue, now)
    agenda.update(agenda.read(now))
    assert agenda.pop_small(now, most=9, size=10) == [small]
    assert [agenda.pop(now), agenda.pop(now)] == [large, last]

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

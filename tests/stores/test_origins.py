"""Which job was made of a file, wherever that job is by now."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores import origins
from lpxfer.stores.queue import Queue

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MakeJob = Callable[..., Control]


@pytest.mark.parametrize("state", [State.HELD, State.PENDING, State.SENT, State.FAILED])
def test_job_is_found_where_it_stands(queue: Queue, make_job: MakeJob, state: State) -> None:
    known = make_job(queue, state=state)
    assert origins.find(queue, known.job) == known
    assert origins.find(queue, "archive-99") is None


@pytest.mark.parametrize("left", [None, "done", "done, with its data"])
def test_finished_job_is_found_in_the_log_whatever_a_power_cut_brings_back(
    queue: Queue, make_job: MakeJob, left: str | None
) -> None:
    known = make_job(queue, state=State.SENT)
    queue.finish(known.job, State.SENT, State.COMPLETED, "stored", NOW)
    if left:
        back = queue.root / "done" / known.job
        back.mkdir()
        if "data" in left:
            (back / "data").write_bytes(b"data")
    found = origins.find(queue, known.job)
    assert found is not None
    assert (found.uid, found.path, found.size) == (known.uid, known.path, known.size)

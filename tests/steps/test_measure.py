"""Measuring: what takes long is not done more often than it may be, and nothing is changed."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.steps import measure as module
from lpxfer.steps.measure import PlaceMeasure, QueueMeasure, Seldom
from lpxfer.stores.spool import Queue

NOW = datetime(2026, 11, 28, 5, 0, tzinfo=UTC)


class Clock:
    """A clock that only work moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.made = 1000.0, 0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module.time, "thread_time", lambda: self.now)

    def work(self, seconds: float) -> Callable[[], int]:
        def make() -> int:
            self.now += seconds
            self.made += 1
            return self.made

        return make


def test_what_takes_seconds_is_done_for_a_fiftieth_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, seldom = Clock(monkeypatch), Seldom[int]()
    start = clock.now
    while clock.now < start + 3600:
        seldom.get(clock.work(4.0))
        clock.now += 15
    assert 3600 / (50 * 4.0) - 5 < clock.made <= 3600 / (50 * 4.0) + 1


def test_what_takes_no_time_is_done_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seldom = Clock(monkeypatch), Seldom[int]()
    assert [seldom.get(clock.work(0.001)) for _ in range(5)] == [1, 2, 3, 4, 5]


def test_failures_have_the_word_of_their_reason(
    queue: Queue, make_job: Callable[..., Control], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REASONS_MOST", 2)
    for _ in range(4):
        job = make_job(queue, b"data")
        queue.move(job.job, State.PENDING, State.FAILED)
    for job_id in queue.ids(State.FAILED):
        with queue.open(job_id, State.FAILED) as opened:
            routing = opened.routing()
            opened.set_routing(routing.__class__(reason="source changed after submit: shorter"))
    found = QueueMeasure[str]().look(queue, lambda: "", NOW)
    assert dict(found.failures) == {"source_changed": 2, "other": 2}


def test_an_instrument_that_was_never_swept_has_no_time_and_no_records(tmp_path: Path) -> None:
    found = PlaceMeasure(str(tmp_path / "none"), str(tmp_path), "minicam").look(NOW)
    assert found.swept is None and found.free is None and not found.placed.records


def test_a_log_of_a_busy_day_is_counted_in_portions(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINES_MOST", 10)
    line = b"2026-11-28T05:00:10.000Z completed job=archive-1 size=1\n"
    (queue.root / "log/20261128.log").write_bytes(line * 25)
    measure = QueueMeasure[str]()
    counts = [measure.look(queue, str, NOW).finished.jobs["completed"] for _ in range(4)]
    assert counts == [10, 20, 25, 25]

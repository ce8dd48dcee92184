"""Metrics in the text format of Prometheus; every one of them is described in xfer-web(5).

For `GET /metrics`, and for a file that the node exporter reads (`xfer-stat --metrics`). The
numbers come from the spool and the logs each time: see steps/measure.py.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from lpxfer.cli import setup
from lpxfer.errors import LpxferError
from lpxfer.formats import tally
from lpxfer.formats.config import Config, QueueConfig
from lpxfer.formats.job import NOT_COMPLETED
from lpxfer.formats.latency import TOTAL
from lpxfer.formats.tally import Histogram
from lpxfer.steps import check, measure
from lpxfer.steps.check import QueueStatus
from lpxfer.steps.measure import (
    PlaceFigures,
    PlaceMeasure,
    QueueMeasure,
    free_bytes,
)
from lpxfer.stores.counts import Count
from lpxfer.stores.spool import Queue, Spool

TYPE = "text/plain; version=0.0.4; charset=utf-8"

QueueFigures = measure.QueueFigures[QueueStatus]

T = TypeVar("T")

Value = tuple[tuple[str, ...], float | None]  # labels; None is what is not known


class Metrics(Collector):
    """What one configuration has to tell."""

    def __init__(self, config: Config) -> None:
        """Know the configuration; everything is looked at when it is asked for."""
        self._config, self._spool = config, setup.spool_path(config)
        self._queues: dict[str, QueueMeasure[QueueStatus]] = {}
        receipts = setup.receipts_path(config)
        self._places = {
            name: PlaceMeasure(instrument.dir, receipts, name)
            for name, instrument in config.instruments.items()
            if instrument.dir
        }
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._lock = threading.Lock()  # two looks at a time find no more than one

    def text(self) -> tuple[bytes, str]:
        """Return all metrics as text, and its type."""
        with self._lock:
            return generate_latest(self._registry), TYPE

    def describe(self) -> list[Metric]:
        """Tell the registry nothing, so that it does not look before it is asked."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Look at everything; what cannot be looked at is missing, and `up` says so."""
        now = datetime.now(UTC)
        known = self._config.queues
        queues: dict[str, QueueFigures] = {}
        up: list[Value] = []
        spool = Spool(self._spool)
        try:
            for name in spool.names(known) if self._spool.exists() else []:
                with contextlib.suppress(LpxferError, OSError):
                    queues[name] = self._look(spool.queue(name), now)
                up.append(((name,), name in queues))
        finally:
            spool.close()
        yield _gauge("lpxfer_queue_up", "1 when the queue could be looked at.", ["queue"], up)
        yield from _of_queues(queues)
        yield from _of_places({n: place.look(now) for n, place in self._places.items()})
        if self._places:
            free: list[Value] = [(("incoming",), free_bytes(self._config.incoming))]
            yield _gauge("lpxfer_free_bytes", "Bytes free for arrivals.", ["place"], free)

    def _look(self, queue: Queue, now: datetime) -> QueueFigures:
        unconfirmed = self._config.queues.get(queue.name, QueueConfig(queue.name)).unconfirmed
        measured = self._queues.setdefault(queue.name, QueueMeasure())
        return measured.look(queue, lambda: check.look(queue, unconfirmed, now, waiting=True), now)


def _of_queues(queues: Mapping[str, QueueFigures]) -> Iterator[Metric]:
    """Make the metrics of the telescope site."""

    def each(value: Callable[[QueueFigures], T]) -> list[tuple[tuple[str, ...], T]]:
        return [((name,), value(found)) for name, found in queues.items()]

    def by_state(value: Callable[[Count], int | None]) -> list[Value]:
        return [
            ((name, state.value), value(found.status.counts[state]))
            for name, found in queues.items()
            for state in NOT_COMPLETED
        ]

    one, two = ["queue"], ["queue", "state"]
    yield _gauge("lpxfer_jobs", "Jobs by state.", two, by_state(lambda c: c.jobs))
    yield _gauge("lpxfer_jobs_bytes", "Bytes of these jobs.", two, by_state(lambda c: c.size))
    yield _gauge("lpxfer_unconfirmed_jobs", "Jobs sent whose receipt is late.", one,
                 each(lambda f: f.status.unconfirmed))  # fmt: skip
    yield _gauge("lpxfer_oldest_job_seconds", "How long the oldest job waits to be sent.", one,
                 each(lambda f: f.status.waiting))  # fmt: skip
    yield _gauge("lpxfer_sender_running", "1 when a sender serves the queue.", one,
                 each(lambda f: f.status.running))  # fmt: skip
    yield _gauge("lpxfer_queue_enabled", "1 when its jobs are sent.", one,
                 each(lambda f: f.status.switches.enabled))  # fmt: skip
    yield _gauge("lpxfer_queue_accepting", "1 when it takes new jobs.", one,
                 each(lambda f: f.status.switches.accepting))  # fmt: skip
    yield _gauge("lpxfer_queue_seen_timestamp_seconds", "When this was so.", one,
                 each(lambda f: f.at.timestamp()))  # fmt: skip
    yield _gauge("lpxfer_spool_free_bytes", "Bytes free on the spool.", one, each(lambda f: f.free))
    failures: list[Value] = [
        ((name, word), found.failures.get(word, 0))
        for name, found in queues.items() for word in tally.REASONS
    ]  # fmt: skip
    yield _gauge("lpxfer_failed_jobs", "Jobs failed or quarantined, by reason.",
                 ["queue", "reason"], failures)  # fmt: skip
    finished: list[Value] = [
        ((name, word), found.finished.jobs[word])
        for name, found in queues.items() for word in tally.OUTCOMES
    ]  # fmt: skip
    yield _counter("lpxfer_finished_jobs", "Jobs finished since midnight UTC.",
                   ["queue", "outcome"], finished)  # fmt: skip
    yield _counter("lpxfer_completed_bytes", "Bytes of completed jobs since then.", one,
                   each(lambda f: f.finished.size))  # fmt: skip
    yield _counter("lpxfer_attempts", "Attempts at finished jobs since then.", one,
                   each(lambda f: f.finished.attempts))  # fmt: skip
    yield _histogram("lpxfer_latency_seconds", "From submit to the receipt.", one,
                     each(lambda f: f.finished.latency))  # fmt: skip


def _of_places(places: Mapping[str, PlaceFigures]) -> Iterator[Metric]:
    """Make the metrics of the archive site."""

    def each(value: Callable[[PlaceFigures], T]) -> list[tuple[tuple[str, ...], T]]:
        return [((name,), value(found)) for name, found in places.items()]

    one = ["instrument"]
    yield _gauge("lpxfer_last_sweep_timestamp_seconds", "When it was swept last.", one,
                 each(lambda f: f.swept.timestamp() if f.swept else 0.0))  # fmt: skip
    yield _gauge("lpxfer_instrument_free_bytes", "Bytes free beside its files.", one,
                 each(lambda f: f.free))  # fmt: skip
    records: list[Value] = [
        ((name, kind), found.placed.records[kind])
        for name, found in places.items() for kind in (*tally.KINDS, tally.OTHER)
    ]  # fmt: skip
    yield _counter("lpxfer_records", "Records of its transfer log since midnight UTC.",
                   ["instrument", "kind"], records)  # fmt: skip
    refused: list[Value] = [
        ((name, word), found.placed.refused[word])
        for name, found in places.items() for word in tally.REASONS
    ]  # fmt: skip
    yield _counter("lpxfer_refused_arrivals", "Arrivals that were not placed, by reason.",
                   ["instrument", "reason"], refused)  # fmt: skip
    yield _counter("lpxfer_placed_bytes", "Bytes placed since then.", one,
                   each(lambda f: f.placed.size))  # fmt: skip
    yield _histogram("lpxfer_transfer_seconds", "How long sending a file took.", one,
                     each(lambda f: f.placed.transfer))  # fmt: skip
    yield _histogram("lpxfer_archived_seconds", "From a file's own time to its receipt.", one,
                     each(lambda f: f.placed.spans[TOTAL]))  # fmt: skip
    staged = [
        ((name, stage), found.placed.spans[stage])
        for name, found in places.items() for stage in tally.STAGES
    ]  # fmt: skip
    yield _histogram("lpxfer_stage_seconds", "How long a file took to a stage from the one before.",
                     ["instrument", "stage"], staged)  # fmt: skip


def _gauge(name: str, text: str, labels: list[str], values: Iterable[Value]) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=labels)
    for words, value in values:
        if value is not None:
            metric.add_metric(words, value)
    return metric


def _counter(name: str, text: str, labels: list[str], values: Iterable[Value]) -> Metric:
    metric = CounterMetricFamily(name, text, labels=labels)
    for words, value in values:
        metric.add_metric(words, value or 0)
    return metric


def _histogram(
    name: str, text: str, labels: list[str], found: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    metric = HistogramMetricFamily(name, text, labels=labels)
    for words, one in found:
        metric.add_metric(words, one.buckets(), one.total)
    return metric

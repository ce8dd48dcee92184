"""Metrics in the text format of Prometheus; every one of them is described in xfer-web(5).

For `GET /metrics`, and for a file that the node exporter reads (`xfer-stat --metrics`). The
numbers come from the spool and the logs each time: see steps/measure.py.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

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

F = TypeVar("F")

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
        yield from _metrics(queues, "queue", _QUEUES)
        places = {name: place.look(now) for name, place in self._places.items()}
        yield from _metrics(places, "instrument", _PLACES)
        if self._places:
            free: list[Value] = [(("incoming",), free_bytes(self._config.incoming))]
            yield _gauge("lpxfer_free_bytes", "Bytes free for arrivals.", ["place"], free)

    def _look(self, queue: Queue, now: datetime) -> QueueFigures:
        unconfirmed = self._config.queues.get(queue.name, QueueConfig(queue.name)).unconfirmed
        measured = self._queues.setdefault(queue.name, QueueMeasure())
        return measured.look(queue, lambda: check.look(queue, unconfirmed, now, waiting=True), now)


def _metrics(figures: Mapping[str, F], label: str, rows: "Sequence[Row[F]]") -> Iterator[Metric]:
    """Make the metrics of queues or of instruments; `label` says which."""
    for make, name, text, more, look in rows:
        found = [(key, look(figure)) for key, figure in figures.items()]
        if more:
            values = [((key, word), value) for key, each in found for word, value in each.items()]
            yield make(name, text, [label, more], values)
        else:
            yield make(name, text, [label], [((key,), value) for key, value in found])


def _gauge(name: str, text: str, labels: list[str], values: list[Value]) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=labels)
    for words, value in values:
        if value is not None:
            metric.add_metric(words, value)
    return metric


def _counter(name: str, text: str, labels: list[str], values: list[Value]) -> Metric:
    metric = CounterMetricFamily(name, text, labels=labels)
    for words, value in values:
        metric.add_metric(words, value or 0)
    return metric


def _histogram(
    name: str, text: str, labels: list[str], values: list[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    metric = HistogramMetricFamily(name, text, labels=labels)
    for words, one in values:
        metric.add_metric(words, one.buckets(), one.total)
    return metric


def _by_state(value: Callable[[Count], int | None]) -> Callable[[QueueFigures], object]:
    return lambda f: {state.value: value(f.status.counts[state]) for state in NOT_COMPLETED}


#: What makes a metric, its name and description, a second label or none, and how its value is
#: found, or with a second label its values by word.
Row = tuple[Callable[[str, str, list[str], list[Any]], Metric], str, str, str, Callable[[F], Any]]

_QUEUES: list[Row[QueueFigures]] = [
    (_gauge, "lpxfer_jobs", "Jobs by state.", "state", _by_state(lambda c: c.jobs)),
    (_gauge, "lpxfer_jobs_bytes", "Bytes of these jobs.", "state", _by_state(lambda c: c.size)),
    (_gauge, "lpxfer_unconfirmed_jobs", "Jobs sent whose receipt is late.", "",
     lambda f: f.status.unconfirmed),
    (_gauge, "lpxfer_oldest_job_seconds", "How long the oldest job waits to be sent.", "",
     lambda f: f.status.waiting),
    (_gauge, "lpxfer_sender_running", "1 when a sender serves the queue.", "",
     lambda f: f.status.running),
    (_gauge, "lpxfer_queue_enabled", "1 when its jobs are sent.", "",
     lambda f: f.status.switches.enabled),
    (_gauge, "lpxfer_queue_accepting", "1 when it takes new jobs.", "",
     lambda f: f.status.switches.accepting),
    (_gauge, "lpxfer_queue_seen_timestamp_seconds", "When this was so.", "",
     lambda f: f.at.timestamp()),
    (_gauge, "lpxfer_spool_free_bytes", "Bytes free on the spool.", "", lambda f: f.free),
    (_gauge, "lpxfer_failed_jobs", "Jobs failed or quarantined, by reason.", "reason",
     lambda f: {word: f.failures.get(word, 0) for word in tally.REASONS}),
    (_counter, "lpxfer_finished_jobs", "Jobs finished since midnight UTC.", "outcome",
     lambda f: {word: f.finished.jobs[word] for word in tally.OUTCOMES}),
    (_counter, "lpxfer_completed_bytes", "Bytes of completed jobs since then.", "",
     lambda f: f.finished.size),
    (_counter, "lpxfer_attempts", "Attempts at finished jobs since then.", "",
     lambda f: f.finished.attempts),
    (_histogram, "lpxfer_latency_seconds", "From submit to the receipt.", "",
     lambda f: f.finished.latency),
]  # fmt: skip

_PLACES: list[Row[PlaceFigures]] = [
    (_gauge, "lpxfer_last_sweep_timestamp_seconds", "When it was swept last.", "",
     lambda f: f.swept.timestamp() if f.swept else 0.0),
    (_gauge, "lpxfer_instrument_free_bytes", "Bytes free beside its files.", "", lambda f: f.free),
    (_counter, "lpxfer_records", "Records of its transfer log since midnight UTC.", "kind",
     lambda f: {kind: f.placed.records[kind] for kind in (*tally.KINDS, tally.OTHER)}),
    (_counter, "lpxfer_refused_arrivals", "Arrivals that were not placed, by reason.", "reason",
     lambda f: {word: f.placed.refused[word] for word in tally.REASONS}),
    (_counter, "lpxfer_placed_bytes", "Bytes placed since then.", "", lambda f: f.placed.size),
    (_histogram, "lpxfer_transfer_seconds", "How long sending a file took.", "",
     lambda f: f.placed.transfer),
    (_histogram, "lpxfer_archived_seconds", "From a file's own time to its receipt.", "",
     lambda f: f.placed.spans[TOTAL]),
    (_histogram, "lpxfer_stage_seconds", "How long a stage took from the one before.", "stage",
     lambda f: {stage: f.placed.spans[stage] for stage in tally.STAGES}),
]  # fmt: skip

"""How long files took from stage to stage, by the stages in their records. Pure.

The clocks of two sites differ. That of the archive is taken to be ahead of the telescope's by

    offset = the number nearest to 0 with  receipted - acknowledged <= offset <= arrived - sent

over all files of one sending host and one hour, each side where it is known: nothing arrives
before it is sent, and no receipt is read before it is written. Where the two sides contradict
each other, because a clock was set, it is their middle. What is below 0 then, is 0.
"""

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lpxfer.formats.stages import (
    ACKNOWLEDGED,
    ARRIVED,
    CREATED,
    RECEIPTED,
    SENT,
    STAGES,
    SUBMITTED,
    TELESCOPE,
)

TOTAL = "total"  # from created to receipted

#: Upper edges of the histogram's bins, in seconds; each belongs to its bin, the last has none.
EDGES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0)

PERCENTS = (50, 90, 99)

TICK = 0.01  # seconds by which the clock of files may be behind that of programs


def reconciled(times: Mapping[str, float], offset: float) -> dict[str, float]:
    """Return a file's times as the telescope's clock shows them; the archive's is ahead."""
    return {stage: time - (stage not in TELESCOPE) * offset for stage, time in times.items()}


def spans(times: Mapping[str, float], offset: float) -> dict[str, float]:
    """Return how long each stage of a file took from the one before it that is known, and TOTAL.

    `times` are in the order of STAGES; the archive's clock is ahead by `offset`.
    """
    said = reconciled(times, offset)
    pairs = pairwise(said.items())
    found = {stage: max(0.0, time - before) for (_, before), (stage, time) in pairs}
    if CREATED in said and RECEIPTED in said:
        found[TOTAL] = max(0.0, said[RECEIPTED] - said[CREATED])
    return found


@dataclass(frozen=True)
class Row:
    """How long a stage took, from the one before it that is known."""

    stage: str
    files: int
    percentiles: tuple[float, ...]  # PERCENTS, then the largest; seconds


@dataclass(frozen=True)
class Report:
    """How long the files of one instrument took; without `total` there are none."""

    inst: str
    rows: Sequence[Row]  # in the order of the way
    total: Row | None
    bins: Sequence[int]  # files up to each of EDGES, then those above the last
    offset: float  # of the archive's clock, that which is furthest from 0


@dataclass(frozen=True)
class File:
    """When one file came to each stage, both clocks reconciled."""

    uid: str
    name: str  # "" where no record says it
    offset: float  # by which the archive's clock was ahead, seconds
    times: Mapping[str, float]  # seconds since 1970 by the telescope's clock, by stage


class Latencies:
    """The stages of the files of one instrument."""

    def __init__(self, each: bool = False) -> None:
        """Begin with none; `each` is whether `files` will be asked for."""
        self._files: list[tuple[str, str]] | None = [] if each else None
        self._numbers: dict[int, int] = {}  # by the hash of a uid, as in steps/logsum.py
        self._hosts: dict[str, int] = {}
        self._host = array("I")
        self._times = {stage: array("d") for stage in STAGES}

    def add(
        self, uid: str, host: str, times: Mapping[str, float], known: bool = False, name: str = ""
    ) -> None:
        """Take a file, or what a later record tells of it; with `known` only the latter."""
        number = self._numbers.get(hash(uid))
        if number is None:
            if known:
                return
            self._numbers[hash(uid)] = len(self._host)
            if self._files is not None:
                self._files.append((uid, name))
            self._host.append(self._hosts.setdefault(host, len(self._hosts)))
            for stage in STAGES:
                self._times[stage].append(times.get(stage, math.nan))
        else:
            for stage, time in times.items():
                self._times[stage][number] = time
            if self._files is not None and name:  # the other site's log may not have it
                self._files[number] = uid, name

    def files(self) -> Iterator[File]:
        """Yield what is known of each file, in the order in which they came."""
        offsets = self._offsets()
        for number, (uid, name) in enumerate(self._files or ()):
            offset = offsets[self._hour(number)]
            yield File(uid, name, offset, reconciled(self._known(number), offset))

    def report(self, inst: str) -> Report:
        """Return how long they took."""
        offsets = self._offsets()
        found: dict[str, list[float]] = {stage: [] for stage in (*STAGES[1:], TOTAL)}
        for number in range(len(self._host)):
            for stage, seconds in spans(self._known(number), offsets[self._hour(number)]).items():
                found[stage].append(seconds)
        total = found.pop(TOTAL)
        rows = [_row(stage, values) for stage, values in found.items() if values]
        furthest = max(offsets.values(), key=abs, default=0.0)
        return Report(inst, rows, _row(TOTAL, total) if total else None, _bins(total), furthest)

    def within(self, limit: float) -> int:
        """Return how many files took no longer than so many seconds from created to receipted."""
        offsets, count = self._offsets(), 0
        for number in range(len(self._host)):
            span = self._times[RECEIPTED][number] - self._times[CREATED][number]
            count += span - offsets[self._hour(number)] <= limit  # what is not known is not
        return count

    def _known(self, number: int) -> dict[str, float]:
        return {stage: time for stage in STAGES
                if not math.isnan(time := self._times[stage][number])}  # fmt: skip

    def _hour(self, number: int) -> tuple[int, int]:
        submitted = self._times[SUBMITTED][number]
        return self._host[number], 0 if math.isnan(submitted) else int(submitted // 3600)

    def _offsets(self) -> dict[tuple[int, int], float]:
        """Return by how much the archive's clock is ahead, by host and hour."""
        bounds: dict[tuple[int, int], tuple[float, float]] = {}
        for number in range(len(self._host)):
            low, high = bounds.get(hour := self._hour(number), (-math.inf, math.inf))
            arrived, sent = self._times[ARRIVED][number], self._times[SENT][number]
            written, read = self._times[RECEIPTED][number], self._times[ACKNOWLEDGED][number]
            if arrived - sent < high:  # never, where one is not known
                high = arrived - sent
            if written - read > low:
                low = written - read
            bounds[hour] = low, high
        return {hour: _nearest(low, high) for hour, (low, high) in bounds.items()}


def _nearest(low: float, high: float) -> float:
    """Return the offset between two bounds that is nearest to 0."""
    if low > high:
        return (low + high) / 2
    offset = min(max(0.0, low), high)
    return 0.0 if abs(offset) <= TICK else offset


def _row(stage: str, values: list[float]) -> Row:
    values.sort()
    ranks = (max(0, math.ceil(percent / 100 * len(values)) - 1) for percent in PERCENTS)
    return Row(stage, len(values), (*(values[rank] for rank in ranks), values[-1]))


def _bins(values: Sequence[float]) -> list[int]:
    bins = [0] * (len(EDGES) + 1)
    for value in values:
        bins[next((n for n, edge in enumerate(EDGES) if value <= edge), len(EDGES))] += 1
    return bins

"""Sum up transfer logs: how many files, how many errors, how fast. See xfer-logsum(1).

One pass over the logs that keeps some forty bytes of each file. A file is counted once, by
its uid, however often it is recorded. Its speed counts only where size, time and rate are
known and above zero: an empty file, or one without a time, says nothing about the link.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, compress

from lpxfer.formats import record, xferlog
from lpxfer.formats.window import Window
from lpxfer.stores import log_lines, transfer_log
from lpxfer.stores.transfer_log import Event

ERRORS = frozenset({record.MISMATCH, record.QUARANTINED, record.ERROR})

#: Upper edges of the histogram's bins, in MB/s; each belongs to its bin, the last has none.
EDGES = (1.0, 2.0, 4.0, 8.0)

MB = 1_000_000  # bytes


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some numbers."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class Performance:
    """What is known of the files whose speed is known: at least one."""

    files: int
    size_min: int  # bytes
    size_max: int
    seconds: Spread
    rate: Spread  # MB/s
    bins: tuple[int, ...]  # files up to each of EDGES, then those above the last


@dataclass(frozen=True)
class Summary:
    """The report on one instrument; without `performance` no file's speed is known."""

    inst: str
    files: int
    errors: int
    performance: Performance | None


class Tally:
    """What has been counted for one instrument so far."""

    def __init__(self) -> None:
        self._errors = 0
        self._uids = _Numbers()
        self._sizes = array("Q")
        self._seconds = array("d")  # of each file, and 0 in both where they are not known
        self._rates = array("d")

    def add(self, event: Event) -> None:
        """Count an event: a file, an error, or something that no report mentions."""
        if event.kind in ERRORS:
            self._errors += 1
        elif event.kind in transfer_log.FILES and self._uids.add(event.uid):
            size, seconds = event.size or 0, event.seconds
            rate = event.rate or (seconds and size / seconds / MB)
            known = size and seconds and rate
            self._sizes.append(size)
            self._seconds.append(seconds if known else 0)
            self._rates.append(rate if known else 0)

    def forget_times(self) -> None:
        """Keep the files and forget how long they took."""
        self._seconds = array("d", bytes(8 * len(self._sizes)))
        self._rates = array("d", bytes(8 * len(self._sizes)))

    def add_time(self, transfer: xferlog.Transfer) -> None:
        """Take a file's time from an FTP server, if it is one of these and went as a whole.

        Fewer bytes than the file has were cut off, which servers may call complete, or were the
        rest of an earlier attempt: neither is the time of the file. The last line wins.
        """
        number = self._uids.find(transfer.uid) if transfer.uid else None
        if number is not None and transfer.size == self._sizes[number] > 0:
            self._seconds[number] = transfer.seconds
            self._rates[number] = transfer.size / transfer.seconds / MB

    def summary(self, inst: str) -> Summary:
        """Return the report on what has been counted."""
        return Summary(inst, len(self._sizes), self._errors, self._performance())

    def _performance(self) -> Performance | None:
        if not any(self._rates):
            return None
        bins = Counter(map(partial(bisect_left, EDGES), filter(None, self._rates)))
        return Performance(
            files=bins.total(),
            size_min=min(compress(self._sizes, self._rates)),
            size_max=max(compress(self._sizes, self._rates)),
            seconds=spread(self._seconds),
            rate=spread(self._rates),
            bins=tuple(bins[number] for number in range(len(EDGES) + 1)),
        )


def count(
    paths: Sequence[str],
    names: Mapping[str, str],
    window: Window,
    report: Callable[[str], None],
    others: bool = False,
) -> dict[str, Tally]:
    """Read transfer logs, directories of them or single files; return the tallies by instrument.

    `names` tells what records may call an instrument, its alias too, and what the report does;
    each has a tally, and with `others` every instrument that the logs name.
    Damaged lines go to `report`. Raises OSError and PermanentError as transfer_log.read does.
    """
    tallies = {name: Tally() for name in names.values()}
    for event in chain.from_iterable(transfer_log.read(path, window, report) for path in paths):
        name = names.get(event.inst, event.inst)
        tally = tallies.get(name)
        if tally is None and others and name:
            tally = tallies[name] = Tally()
        if tally is not None:
            tally.add(event)
    return tallies


def take_times(
    tallies: Iterable[Tally], paths: Iterable[str], report: Callable[[str], None]
) -> None:
    """Replace the times in the records by those in FTP servers' xferlogs, joined by uid.

    The window has chosen the files already, so the zone of the server, which an xferlog does
    not tell, does not matter. Raises OSError for an xferlog that cannot be read.
    """
    tallies = list(tallies)
    for tally in tallies:
        tally.forget_times()
    for path in paths:
        for transfer in log_lines.read_path(path, xferlog.LINE_LIMIT, xferlog.load, report):
            if transfer.upload and transfer.complete:
                for tally in tallies:
                    tally.add_time(transfer)


def spread(values: "array[float]") -> Spread:
    """Return the spread of the values that are not 0."""
    low, high = min(filter(None, values)), max(values)
    return Spread(low, _median(values, low, high), high)


def _median(values: "array[float]", low: float, high: float) -> float:
    """Return the median of the values from low to high; of an even count the middle two's mean.

    A sorted copy of a million values takes 32 MB; one bin of 4096 is sorted instead.
    """
    width = (high - low) / 4096 or 1.0
    bins = Counter(int((value - low) / width) for value in values if value)

    def ranked(rank: int) -> float:
        for number in sorted(bins):
            if rank < bins[number]:
                one = [v for v in values if v and int((v - low) / width) == number]
                return sorted(one)[rank]
            rank -= bins[number]
        raise IndexError(rank)

    count = bins.total()
    return (ranked((count - 1) // 2) + ranked(count // 2)) / 2


class _Numbers:
    """Numbers for uids, in the order they come, in 16 to 24 bytes each instead of 200.

    Of a uid its 64-bit hash is kept, in an open hash table: that two of a million files
    share one, and count as one, has a probability of 1 in 10 million.
    """

    def __init__(self) -> None:
        self._hashes = array("q")
        self._slots = array("I", bytes(4 * 1024))  # number + 1, or 0 where free

    def add(self, uid: str) -> bool:
        """Give a uid the next number; False when it has one already."""
        key = hash(uid)
        slot = self._slot(key)
        if self._slots[slot]:
            return False
        self._hashes.append(key)
        self._slots[slot] = len(self._hashes)
        if len(self._hashes) * 2 > len(self._slots):
            self._slots = array("I", bytes(8 * len(self._slots)))
            for number, known in enumerate(self._hashes, 1):
                self._slots[self._slot(known)] = number
        return True

    def find(self, uid: str) -> int | None:
        """Return the number of a uid, counted from 0; None for one never added."""
        number = self._slots[self._slot(hash(uid))]
        return number - 1 if number else None

    def _slot(self, key: int) -> int:
        """Return the slot that holds a hash, or else the free one where it belongs."""
        slots, hashes, mask = self._slots, self._hashes, len(self._slots) - 1
        slot = key & mask
        while (number := slots[slot]) and hashes[number - 1] != key:
            slot = (slot + 1) & mask
        return slot

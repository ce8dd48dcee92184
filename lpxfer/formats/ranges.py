"""Which bytes of a file are there: ranges that are apart, in order. Pure.

Written `0-8388608,16777216-20971520`: from the first byte to before the last one.
"""

import re
from bisect import bisect_left, bisect_right

from lpxfer.errors import FormatError

#: So many ranges are written down at most; what is left out is only sent again.
WRITTEN_MOST = 64

_RANGE = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)


class Ranges:
    """A set of bytes, as the ranges that it is made of."""

    def __init__(self, *ranges: tuple[int, int]) -> None:
        """Begin with some ranges, each (start, end)."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.bytes = 0  # in all
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> "zip[tuple[int, int]]":
        """Yield the ranges in order."""
        return zip(self._starts, self._ends, strict=True)

    def __bool__(self) -> bool:
        """Tell whether there is any byte."""
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        """Compare the bytes that are there."""
        return isinstance(other, Ranges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def end(self) -> int:
        """The end of the last range; 0 when there is none."""
        return self._ends[-1] if self._ends else 0

    @property
    def contiguous(self) -> int:
        """The number of bytes from the file's first on without a gap."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def add(self, start: int, end: int) -> None:
        """Take bytes in; those that are there already count once."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        merged = range(first, last)
        self.bytes -= sum(self._ends[at] - self._starts[at] for at in merged)
        if merged:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]
        self.bytes += end - start

    def gaps(self, size: int) -> list[tuple[int, int]]:
        """Return what is missing of a file of `size` bytes."""
        found, at = [], 0
        for start, end in self:
            if at < start:
                found.append((at, min(start, size)))
            at = end
        if at < size:
            found.append((at, size))
        return found


def dump(ranges: Ranges) -> str:
    """Write ranges down, the first ones where there are too many."""
    return ",".join(f"{start}-{end}" for start, end in list(ranges)[:WRITTEN_MOST])


def load(text: str) -> Ranges:
    """Read ranges. Raises FormatError for anything else."""
    ranges = Ranges()
    for piece in text.split(",") if text else []:
        match = _RANGE.fullmatch(piece)
        if not match or int(match[1]) >= int(match[2]) or int(match[1]) < ranges.end:
            raise FormatError(f"not ranges of bytes: {text[:40]!r}")
        ranges.add(int(match[1]), int(match[2]))
    return ranges

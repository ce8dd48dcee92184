"""The rate of a link over the last ten minutes: its mean, and how much it varies.

Only the time in which something was under way counts: a link that had nothing to do was not
slow. Bounded: 60 bins of ten seconds each, however many times it is told something.
"""

from collections import deque
from dataclasses import dataclass
from math import sqrt

BIN = 10.0  # seconds; shorter ones would show single files, not the link
BINS = 60  # ten minutes


@dataclass(frozen=True)
class Rates:
    """What the link did lately, in bytes a second; both 0 where nothing is known."""

    mean: float = 0.0
    deviation: float = 0.0  # standard deviation of the bins, by the time each was in use


@dataclass
class _Bin:
    number: int
    moved: float  # bytes
    seconds: float  # in which something was under way


class History:
    """What a link has moved. Times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._bins: deque[_Bin] = deque(maxlen=BINS)

    def add(self, time: float, moved: float, seconds: float) -> None:
        """Note that `moved` bytes were acknowledged in the `seconds` before `time`.

        It is for times in which something was under way, be it that nothing moved.
        """
        number = int((time - seconds) // BIN)
        if not self._bins or self._bins[-1].number < number:
            self._bins.append(_Bin(number, 0.0, 0.0))
        self._bins[-1].moved += moved
        self._bins[-1].seconds += seconds

    def rates(self, time: float) -> Rates:
        """Return mean and standard deviation of the rate over the ten minutes before `time`."""
        first = int(time // BIN) - BINS
        bins = [part for part in self._bins if part.number > first and part.seconds > 0]
        seconds = sum(part.seconds for part in bins)
        if not seconds:
            return Rates()
        mean = sum(part.moved for part in bins) / seconds
        spread = sum(part.seconds * (part.moved / part.seconds - mean) ** 2 for part in bins)
        return Rates(mean, sqrt(spread / seconds))

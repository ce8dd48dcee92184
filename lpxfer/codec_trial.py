"""Whether encoding a file makes it arrive earlier, and how: by a trial on a few samples of it.

`trial` encodes samples in each way worth trying, some 10 ms altogether; `choose` weighs what it
found against the measured rate of the link. The first trial of a process also loads blosc2,
which takes half a second.

Raises TemporaryError where blosc2 is missing, PermanentError for a file that is too short,
and OSError.
"""

import os
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

from lpxfer import codec
from lpxfer.codec import Params
from lpxfer.errors import PermanentError

SHORT = 0.05  # seconds; a file that is sent in less does not wait for a trial
FAST = 150e6  # bytes/s; on such a link the processor is what everybody waits for
GAIN = 0.9  # encode if the file arrives in this part of the time or less

SAMPLES = 4  # spread over the file: the first megabytes may be header, or overscan
SAMPLE = 1 << 18  # bytes; smaller ones shrink less than a whole frame does


@dataclass(frozen=True)
class Trial:
    """What one way of encoding did to the samples."""

    params: Params
    ratio: float  # original bytes for each byte on the wire
    rate: float  # original bytes encoded in a second


def candidates(element: int) -> list[Params]:
    """Return the ways worth trying for elements of so many bytes, the thorough ones first."""
    if element == 1:
        return [Params("zstd", "none", 1), Params("lz4", "none", 1)]
    return [
        Params("zstd", "shuffle", element),
        Params("zstd", "bitshuffle", element),
        Params("lz4", "bitshuffle", element),
    ]


def worth_a_trial(size: int, link_rate: float | None) -> bool:
    """Tell whether encoding may pay at all for a file of `size` bytes, at `link_rate` bytes/s.

    Where the rate is not known (None), nothing is encoded: send a file, measure, ask again.
    """
    return link_rate is not None and 0 < link_rate < FAST and size / link_rate >= SHORT


def trial(source_fd: int, size: int, element: int) -> list[Trial]:
    """Encode samples of the first `size` bytes of an open file in each way worth trying."""
    length = min(SAMPLE, size // SAMPLES) & ~7  # whole elements, beginning with whole ones
    if not length:
        return []
    ways = candidates(element)
    sizes, seconds = dict.fromkeys(ways, 0), {way: list[float]() for way in ways}
    for n in range(SAMPLES):
        at = (size - length) * (2 * n + 1) // (2 * SAMPLES) & ~7
        held = os.pread(source_fd, length, at)
        if len(held) < length:
            raise PermanentError(f"the file ends after {at + len(held)} of {size} bytes")
        codec.sample(held[:1024], ways[0])  # what is loaded now is not measured below
        for way in ways:
            start = time.perf_counter()
            sizes[way] += codec.sample(held, way)
            seconds[way].append(time.perf_counter() - start)
    # the median: a pause of this process in one sample says nothing about the codec
    return [
        Trial(way, SAMPLES * length / sizes[way], length / statistics.median(seconds[way]))
        for way in ways
    ]


def choose(
    trials: Iterable[Trial], size: int, link_rate: float | None, overlapped: bool = True
) -> Params | None:
    """Return the way in which a file of `size` bytes arrives earliest, None for as it is.

    `overlapped`: the file is encoded while it is sent, not before. None too where it would
    gain less than a tenth of the time.
    """
    if link_rate is None or not worth_a_trial(size, link_rate):
        return None

    def needs(found: Trial) -> float:
        encoding, sending = size / found.rate, size / found.ratio / link_rate
        if overlapped:  # the first frame has nothing to be encoded beside
            return max(encoding, sending) + min(size, codec.FRAME) / found.rate
        return encoding + sending

    best = min(trials, key=needs, default=None)
    return best.params if best and needs(best) <= GAIN * size / link_rate else None

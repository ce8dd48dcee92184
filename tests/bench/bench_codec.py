"""What the wire codec makes of frames: ratio and MB/s of each way, and what a trial chooses.

Simulated 16-bit frames (Poisson sky with a gradient of 10 %, stars, 5 counts of read noise; a
field whose noise is white and greater; a bias), floats, and the real ones that astropy's tests
have and that are named on the command line. One thread; seconds are of the processor.
"""

import os
import statistics
import sys
import time
from importlib import resources
from pathlib import Path

import numpy as np

from lpxfer import codec, codec_trial
from lpxfer.formats import fits

SIDE = 2048  # pixels
RUNS = 5  # after one that is not counted
LINK = 12.5e6  # bytes/s, 100 Mbit/s


def simulated(sky: float, white: float = 0, stars: int = 0) -> bytes:
    """Make a frame of 16-bit pixels, without a header."""
    dice = np.random.default_rng(20261120)
    image = dice.poisson(np.ones((SIDE, SIDE)) * sky * np.linspace(0.95, 1.05, SIDE)[:, None])
    image = image + dice.normal(1000, max(white, 5), image.shape)
    y, x = np.mgrid[-8:9, -8:9]
    for _ in range(stars):
        row, column = dice.integers(8, SIDE - 9, 2)
        peak = min(10 ** dice.uniform(2, 4.7), 50_000)
        image[row - 8 : row + 9, column - 8 : column + 9] += peak * np.exp(-(x**2 + y**2) / 8)
    counts = np.clip(np.rint(image), 0, 65535).astype("i4") - 32768
    return counts.astype(">i2").tobytes()


def frames(paths: list[str]) -> dict[str, tuple[bytes, int]]:
    """Return names, bytes and sizes of elements of what is measured."""
    dice = np.random.default_rng(1)
    floats = dice.normal(100, 12, (SIDE // 2, SIDE)).astype(">f4").tobytes()
    found = {
        "bias": (simulated(0), 2),
        "short, sky 50": (simulated(50, stars=500), 2),
        "deep, sky 1500": (simulated(1500, stars=2000), 2),
        "deep, noise 81": (simulated(0, white=81.3, stars=3000), 2),
        "float noise": (floats, 4),
    }
    with resources.as_file(resources.files("astropy.io.fits")) as directory:
        real = [directory / "hdu/compressed/tests/data/m13.fits"]
        real += [directory / "tests/data/o4sp040b0_raw.fits"]
        for path in [*real, *map(Path, paths)]:
            data = path.read_bytes()
            found[path.name] = (data, fits.layout(data[: fits.HEADERS]).element)
    return found


def measure(data: bytes, source: int, params: codec.Params) -> tuple[float, float, float]:
    """Return the ratio, and the rates of encoding and decoding in MB/s."""
    encoding, decoding = [], []
    for _ in range(RUNS + 1):
        wire = os.memfd_create("wire")
        start = time.thread_time()
        wire_size = codec.encode(source, len(data), wire, params)
        encoding.append(time.thread_time() - start)
        start = time.thread_time()
        pieces = list(codec.decode(wire, wire_size, len(data)))
        decoding.append(time.thread_time() - start)
        assert b"".join(pieces) == data
        os.close(wire)
    rates = [len(data) / statistics.median(times[1:]) / 1e6 for times in (encoding, decoding)]
    return len(data) / wire_size, rates[0], rates[1]


def main() -> None:
    """Print a row for each frame and way."""
    say = sys.stdout.write
    say(f"{'frame':26}{'way':20}{'ratio':>7}{'encode':>9}{'decode':>9}  MB/s, {codec.library()}\n")
    for name, (data, element) in frames(sys.argv[1:]).items():
        source = os.memfd_create("source")
        os.write(source, data)
        for params in codec_trial.candidates(element):
            ratio, encode, decode = measure(data, source, params)
            say(f"{name:26}{params.text():20}{ratio:7.2f}{encode:9.0f}{decode:9.0f}\n")
        start = time.perf_counter()
        trials = codec_trial.trial(source, len(data), element)
        seconds = time.perf_counter() - start
        chosen = codec_trial.choose(trials, 1 << 25, LINK)
        text = chosen.text() if chosen else "as it is"
        say(f"{name:26}{text} for 32 MiB at 100 Mbit/s, by a trial of {seconds * 1e3:.1f} ms\n")
        os.close(source)


if __name__ == "__main__":
    main()

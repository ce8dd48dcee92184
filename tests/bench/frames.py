"""What is sent: files of random bytes, and FITS frames as a CCD would write them."""

import random
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
CARD, BLOCK = 80, 2880  # bytes

#: Writes files into a directory; a scale below 1 makes less work of the same kind.
Maker = Callable[[Path, float], None]


def one(mib: int) -> Maker:
    """Make one file of random bytes."""

    def make(directory: Path, scale: float) -> None:
        noise(directory / "one.dat", int(mib * MIB * scale), 0)

    return make


def many(count: int, size: int) -> Maker:
    """Make files of `size` random bytes."""

    def make(directory: Path, scale: float) -> None:
        for number in range(max(1, int(count * scale))):
            noise(directory / f"{number:05d}.dat", size, number)

    return make


def frames(count: int, side: int, sky: float) -> Maker:
    """Make frames of `side` x `side` pixels under a sky of so many electrons; 0 for bias."""

    def make(directory: Path, scale: float) -> None:
        for number in range(max(1, int(count * scale))):
            write_frame(directory / f"{number:03d}.fits", side, sky, number)

    return make


def noise(path: Path, size: int, seed: int) -> None:
    """Write random bytes, always the same for a seed."""
    source = random.Random(seed)
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(source.randbytes(min(size, MIB)))


def write_frame(path: Path, side: int, sky: float, seed: int) -> None:
    """Write a frame of 16 bits: bias, read noise, columns, sky with its noise, and stars."""
    import numpy as np

    rng = np.random.default_rng(seed)
    image = np.full((side, side), 1016.0, np.float32)  # so that both bytes change
    image += 2 * rng.standard_normal(side, np.float32)  # the columns of every CCD differ a bit
    if sky:
        light = np.linspace(0.95 * sky, 1.05 * sky, side, dtype=np.float32)[:, None]
        light = np.repeat(light, side, axis=1)
        star = np.hypot(*np.mgrid[-16:16, -16:16]) / 2.5
        star = np.exp(-0.5 * star**2).astype(np.float32)
        for _ in range(side // 4):
            row, column = rng.integers(0, side - 32, 2)
            light[row : row + 32, column : column + 32] += star * sky * 10 ** rng.uniform(-1, 0.7)
        image += light
        image += np.sqrt(light) * rng.standard_normal((side, side), np.float32)
    image += 5 * rng.standard_normal((side, side), np.float32)  # reading it out
    pixels = np.clip(np.rint(image), 0, 65535).astype(np.int32) - 32768
    cards = ["SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", f"NAXIS1  = {side}",
             f"NAXIS2  = {side}", "BSCALE  = 1.0", "BZERO   = 32768.0", "END"]  # fmt: skip
    with path.open("wb") as file:
        lines = (f"{card[:10]}{card[10:]:>20}" if "=" in card else card for card in cards)
        header = "".join(line.ljust(CARD) for line in lines).encode()
        file.write(header.ljust(BLOCK))
        file.write(pixels.astype(">i2").tobytes())
        file.write(bytes(-file.tell() % BLOCK))

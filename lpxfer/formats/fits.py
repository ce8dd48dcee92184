"""FITS files, as much of them as lpxfer needs, without another package (FITS 4.0, 4.4).

`layout` reads of what elements a file is made, whatever the file is; `frame` writes what
xfer-demo takes: one 16-bit image, noise and stars. Nothing here raises.
"""

import math
import random
import re
import sys
from array import array
from dataclasses import dataclass
from datetime import datetime

BLOCK = 2880  # bytes; header and data are each padded to whole blocks
BIAS, SKY = 1000, 64  # counts that every pixel has, and the range of noise above them

HEADERS = 100 * BLOCK  # bytes in which the first data of a file have to begin

_FIRST_CARD = b"SIMPLE  =" + b"T".rjust(21)
_INTEGER = re.compile(rb"(BITPIX|NAXIS\d{0,3}) *= +(-?\d{1,18}) *(/.*)?")


@dataclass(frozen=True)
class Layout:
    """Where the first data of a file begin, and of what elements they are made."""

    data: int  # bytes from the start of the file
    element: int  # bytes


BYTES = Layout(0, 1)  # what is no FITS file, or has no data


def layout(head: bytes) -> Layout:
    """Find the first data of a FITS file in its first HEADERS bytes, or all if it is shorter.

    Data of the primary header, else of the first extension that has some. Anything else is
    BYTES.
    """
    start, head = 0, head[:HEADERS]
    if not head.startswith(_FIRST_CARD):
        return BYTES
    while (header := _header(head, start)) is not None:
        numbers, start = header
        axes = range(1, min(numbers.get(b"NAXIS", 0), 999) + 1)
        lengths = [numbers.get(b"NAXIS%d" % n, 0) for n in axes]
        if (bits := abs(numbers.get(b"BITPIX", 0))) not in (8, 16, 32, 64):
            break
        if lengths and min(lengths) > 0:
            return Layout(start, bits // 8)
        if not head.startswith(b"XTENSION=", start):
            break
    return BYTES


def _header(head: bytes, start: int) -> tuple[dict[bytes, int], int] | None:
    """Return a header's integers that tell its data's size, and where it ends; None if cut."""
    numbers: dict[bytes, int] = {}
    for at in range(start, len(head) - 79, 80):
        card = head[at : at + 80].rstrip(b" ")
        if card == b"END":
            return numbers, start + -(-(at + 80 - start) // BLOCK) * BLOCK
        if match := _INTEGER.fullmatch(card):
            numbers.setdefault(match[1], int(match[2]))
    return None


def frame(number: int, start: datetime, instrument: str, width: int = 512) -> bytes:
    """Make the exposure `number` of a night: `width` x `width` pixels, always the same ones.

    `start` is when it began (UTC). The instrument's name is one
    that `names` allows; what is too long for its card is cut.
    """
    cards: list[tuple[str, str | int | float | bool, str]] = [
        ("SIMPLE", True, "conforms to the FITS standard"),
        ("BITPIX", 16, "bits per pixel"),
        ("NAXIS", 2, "an image"),
        ("NAXIS1", width, "columns"),
        ("NAXIS2", width, "rows"),
        ("BSCALE", 1, "counts = BZERO + BSCALE * pixel"),
        ("BZERO", 32768, "unsigned 16-bit counts"),
        ("BUNIT", "adu", "unit of a pixel"),
        ("DATE-OBS", f"{start:%Y-%m-%dT%H:%M:%S}.{start.microsecond // 1000:03d}", "UTC"),
        ("TIMESYS", "UTC", "time system of DATE-OBS"),
        ("EXPTIME", 30.0, "[s] exposure"),
        ("INSTRUME", instrument[:60], "instrument"),
        ("IMAGETYP", "object", "kind of exposure"),
        ("OBJECT", "simulated field", "made by xfer-demo"),
        ("FRAMENO", number, "exposure of the night"),
    ]
    header = "".join(_card(*card) for card in cards) + "END".ljust(80)
    data = _pixels(number, width)
    return _pad(header.encode("ascii"), b" ") + _pad(data, b"\0")


def _card(keyword: str, value: str | int | float | bool, comment: str) -> str:
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        text = "'" + value.ljust(8) + "'"
    else:
        text = f"{value:>20}"
    return f"{keyword:<8}= {text:<20} / {comment}"[:80].ljust(80)


def _pixels(number: int, width: int) -> bytes:
    """Noise above a bias, with 60 stars; big-endian, as offsets from BZERO."""
    dice = random.Random(number)
    noise = dice.randbytes(width * width)
    pixels = array("h", [BIAS - 32768 + byte % SKY for byte in noise])
    for _ in range(60):
        x, y, peak = dice.randrange(width), dice.randrange(width), dice.uniform(200, 30000)
        for row in range(max(y - 6, 0), min(y + 7, width)):
            for column in range(max(x - 6, 0), min(x + 7, width)):
                light = peak * math.exp(-((row - y) ** 2 + (column - x) ** 2) / 6)
                place = row * width + column
                pixels[place] = min(pixels[place] + int(light), 32767)
    if sys.byteorder == "little":
        pixels.byteswap()
    return pixels.tobytes()


def _pad(block: bytes, filler: bytes) -> bytes:
    return block + filler * (-len(block) % BLOCK)

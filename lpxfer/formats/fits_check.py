"""Whether a FITS file is whole, by its headers, and what their cards say (FITS 4.0, 4.4 and 7).

Nothing but headers is read, whoever wrote them: at most HEADERS_MOST bytes in HDUS_MOST of them.
That the bytes are those which were submitted is the checksum's business.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lpxfer.formats import keyvalue
from lpxfer.formats.validity import (
    CORRUPTED_HDU,
    EMPTY_FILE,
    NO_FITS_HDUS,
    UNREADABLE_FITS,
    Invalid,
)

#: Reads up to so many bytes from a place in the file on, fewer only at its end: os.pread.
Read = Callable[[int, int], bytes]

CARD, BLOCK = 80, 2880  # bytes

#: No frame has nearly so much; a hostile file has no more of our time.
HDUS_MOST = 10_000
HEADERS_MOST = 32 << 20

_CHUNK = 10 * BLOCK
_END = b"END".ljust(CARD)
_STANDARD = re.compile(rb"SIMPLE  = +T *(/.*)?", re.DOTALL)
_INTEGER = re.compile(rb"= +([+-]?\d{1,18}) *(/.*)?", re.DOTALL)
_STRING = re.compile(rb"= *'((?:[^']|'')*)'")
_BITS = frozenset([8, 16, 32, 64, -32, -64])


@dataclass(frozen=True)
class Header:
    """One header: its cards by keyword, and where its data end."""

    cards: Mapping[bytes, bytes]
    data_end: int  # bytes from the start of the file, without what fills the last block

    def value(self, keyword: str) -> str | None:
        """Return what a card says, without its quotes; None where it says nothing."""
        card = self.cards.get(keyword.encode("ascii", "replace"))
        if card is None or card[8:10] != b"= ":
            return None
        if match := _STRING.match(card, 8):
            raw = match[1].replace(b"''", b"'").rstrip(b" ")
        else:
            raw = card[10:].partition(b"/")[0].strip(b" ")
        return keyvalue.from_bytes(raw) or None


def headers(read: Read, size: int) -> Iterator[Header]:
    """Yield the headers of a file of `size` bytes. Raises Invalid where one is not as it must be.

    Of the last data what fills their block may be missing, and there may be empty blocks behind
    them: no pixel is lost for that.
    """
    if not size:
        raise Invalid(EMPTY_FILE, "it has no bytes")
    if not _STANDARD.fullmatch(read(CARD, 0)):
        raise Invalid(UNREADABLE_FITS, "it does not begin with SIMPLE = T")
    at = number = 0
    rest = HEADERS_MOST
    while at < size:
        if number and not read(BLOCK, at).startswith(b"XTENSION="):
            _refuse_more(read, at, number)
            return
        text = _text(read, at, rest)
        rest -= len(text)
        if not text:
            raise _endless(number, rest)
        header = _header(text, at, number)
        if header.data_end > size:
            said = f"the data of HDU {number} end at byte {header.data_end}, the file at {size}"
            raise Invalid(CORRUPTED_HDU, said)
        yield header
        at, number = _whole(header.data_end), number + 1
        if number > HDUS_MOST:
            raise Invalid(CORRUPTED_HDU, f"it has more than {HDUS_MOST} HDUs")


def _refuse_more(read: Read, at: int, number: int) -> None:
    """Raise Invalid for what stands behind the last HDU, if it is not empty."""
    if read(BLOCK, at).strip(b"\0 "):
        said = f"what follows HDU {number - 1} at byte {at} is no extension"
        raise Invalid(CORRUPTED_HDU, said)


def _endless(number: int, rest: int) -> Invalid:
    if rest <= 0:
        return Invalid(CORRUPTED_HDU, f"it has more than {HEADERS_MOST} bytes of headers")
    reason = CORRUPTED_HDU if number else NO_FITS_HDUS
    return Invalid(reason, f"the header of HDU {number} has no END")


def _text(read: Read, at: int, most: int) -> bytes:
    """Return the cards of a header up to its END, not much more than `most` bytes; else none."""
    text = bytearray()
    while len(text) < most:
        chunk = read(_CHUNK, at + len(text))
        for start in range(0, len(chunk), CARD):
            if chunk[start : start + CARD] == _END:
                return bytes(text) + chunk[: start + CARD]
        text += chunk
        if len(chunk) < _CHUNK:
            break
    return b""


def _header(text: bytes, at: int, number: int) -> Header:
    """Read a header that begins at a byte of the file."""
    cards: dict[bytes, bytes] = {}
    for start in range(0, len(text), CARD):
        card = text[start : start + CARD]
        cards.setdefault(card[:8].rstrip(b" "), card)
    try:
        size = _data(cards, primary=not number)
    except ValueError as error:
        raise Invalid(CORRUPTED_HDU, f"the header of HDU {number}: {error}") from None
    return Header(cards, at + _whole(len(text)) + size)


def _data(cards: Mapping[bytes, bytes], primary: bool) -> int:
    """Return the bytes of an HDU's data. Raises ValueError."""

    def number(keyword: str, default: int | None = None) -> int:
        card = cards.get(keyword.encode())
        if card is None and default is not None:
            return default
        match = _INTEGER.fullmatch(card or b"", 8)
        if not match or int(match[1]) < (0 if keyword != "BITPIX" else -64):
            raise ValueError(f"{keyword} is missing, or no such number")
        return int(match[1])

    bits, axes = number("BITPIX"), number("NAXIS")
    if bits not in _BITS or axes > 999:
        raise ValueError(f"BITPIX = {bits}, NAXIS = {axes}")
    lengths = [number(f"NAXIS{axis}") for axis in range(1, axes + 1)]
    if not lengths:
        return 0
    groups = primary and lengths[0] == 0 and b"GROUPS" in cards
    elements = math.prod(lengths[1:] if groups else lengths)
    if primary and not groups:  # they count in others only
        size = abs(bits) // 8 * elements
    else:
        size = abs(bits) // 8 * number("GCOUNT", 1) * (number("PCOUNT", 0) + elements)
    if size >= 1 << 60:
        raise ValueError("more data than any file has")
    return size


def _whole(size: int) -> int:
    return -(-size // BLOCK) * BLOCK

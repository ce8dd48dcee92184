"""The headers of a FITS file: what their cards say, and how long it is to be (FITS 4.0, 4 and 7).

Nothing but headers is read, whoever wrote them: at most HEADERS_MOST bytes in HDUS_MOST of them.
That the bytes are those which were submitted is the checksum's business.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lpxfer.formats import keyvalue
from lpxfer.formats.fits import BLOCK
from lpxfer.formats.validity import (
    CORRUPTED_HDU,
    EMPTY_FILE,
    NO_FITS_HDUS,
    UNREADABLE_FITS,
    Invalid,
)

#: Reads up to so many bytes from a place in the file on, fewer only at its end: os.pread.
Read = Callable[[int, int], bytes]

CARD = 80  # bytes

#: No frame has nearly so much; a hostile file has no more of our time.
HDUS_MOST = 10_000
HEADERS_MOST = 32 << 20

#: Bytes of a text that goes on in CONTINUE cards; as many as CARDS_MOST fit a record.
TEXT_MOST = 1000

_CHUNK = 10 * BLOCK
_END = b"END".ljust(CARD)
_SIMPLE, _EXTENSION = b"SIMPLE  =", b"XTENSION="
_STANDARD = re.compile(_SIMPLE + rb" +T *(/.*)?", re.DOTALL)
_INTEGER = re.compile(rb" *([+-]?\d{1,18}) *(/.*)?", re.DOTALL)
_STRING = re.compile(rb" *'((?:[^']|'')*)'")
_BITS = frozenset([8, 16, 32, 64, -32, -64])


class Unfinished(Invalid):
    """A file that is valid as far as it goes: more bytes could make it whole."""


@dataclass(frozen=True)
class Header:
    """One header: what stands in its cards by keyword, and where its data begin.

    Of a repeated keyword the first counts; HIERARCH keywords are without that word.
    """

    cards: Mapping[bytes, Sequence[bytes]]  # a card's value and comment, then those of CONTINUE
    data: int  # bytes from the start of the file
    number: int  # of its HDU; the primary one is 0

    @cached_property
    def data_end(self) -> int:
        """Where its data end, without what fills the last block. Raises Invalid."""
        try:
            return self.data + _data(self.cards, primary=not self.number)
        except ValueError as error:
            said = f"the header of HDU {self.number}: {error}"
            raise Invalid(CORRUPTED_HDU, said) from None

    def value(self, keyword: str) -> str | None:
        """Return what a card says, without its quotes; None where it says nothing.

        The words of a HIERARCH keyword may be joined by points: ESO.DET.ID.
        """
        text = b""
        for card in self.cards.get(keyword.replace(".", " ").encode("ascii", "replace"), ()):
            text = text.removesuffix(b"&") + _value(card)
            if not text.endswith(b"&") or len(text) > TEXT_MOST:
                break
        return keyvalue.from_bytes(text[:TEXT_MOST]) or None


def _value(card: bytes) -> bytes:
    if match := _STRING.match(card):
        return match[1].replace(b"''", b"'").rstrip(b" ")
    return card.partition(b"/")[0].strip(b" ")


def unfinished(read: Read, size: int) -> str | None:
    """Say what a FITS file of `size` bytes lacks, "" when nothing; None when it is none.

    It lacks what a header promises: its own end, its data to their last block, and as many
    extensions as NEXTEND says. A file of several HDUs that says no NEXTEND may end behind
    each of them: nobody can tell that more will come.
    """
    end, extensions, wanted = 0, -1, 0
    try:
        for header in headers(read, size):
            end, extensions = _whole(header.data_end), extensions + 1
            wanted = wanted or _integer(header.cards, b"NEXTEND") or 0
    except Unfinished as error:
        return error.words
    except Invalid:
        return None
    if size < end:
        return f"{size} of {end} bytes are there"
    if size > end:
        return f"at byte {end} something has begun"
    return "" if extensions >= wanted else f"{extensions} of {wanted} extensions are there"


def headers(read: Read, size: int) -> Iterator[Header]:
    """Yield the headers of a file of `size` bytes. Raises Invalid where one is not as it must be.

    A header is yielded before its data are looked for. What lacks its last bytes is Unfinished.
    Of the last data what fills their block may be missing, and there may be empty blocks behind
    them: no pixel is lost for that.
    """
    if not size:
        raise Unfinished(EMPTY_FILE, "it has no bytes")
    first = read(CARD, 0)
    if len(first) < CARD and _begins(first, _SIMPLE):
        raise Unfinished(NO_FITS_HDUS, "it ends in its first card")
    if not _STANDARD.fullmatch(first):
        raise Invalid(UNREADABLE_FITS, "it does not begin with SIMPLE = T")
    at = number = 0
    rest = HEADERS_MOST
    while at < size:
        if number and not _follows(read(BLOCK, at), at, number):
            return
        text = _text(read, at, rest)
        rest -= len(text)
        if not text:
            raise _endless(number, rest)
        yield (header := Header(_cards(text), at + _whole(len(text)), number))
        if header.data_end > size:
            said = f"the data of HDU {number} end at byte {header.data_end}, the file at {size}"
            raise Unfinished(CORRUPTED_HDU, said)
        at, number = _whole(header.data_end), number + 1
        if number > HDUS_MOST:
            raise Invalid(CORRUPTED_HDU, f"it has more than {HDUS_MOST} HDUs")


def _begins(head: bytes, word: bytes) -> bool:
    return head[: len(word)] == word[: len(head)]


def _follows(block: bytes, at: int, number: int) -> bool:
    """Tell whether an extension begins here. Raises Invalid for what is neither that nor empty."""
    if block.startswith(_EXTENSION):
        return True
    if not block.strip(b"\0 "):
        return False
    error = Unfinished if _begins(block, _EXTENSION) else Invalid
    said = f"what follows HDU {number - 1} at byte {at} is no extension"
    raise error(CORRUPTED_HDU, said)


def _endless(number: int, rest: int) -> Invalid:
    if rest <= 0:
        return Invalid(CORRUPTED_HDU, f"it has more than {HEADERS_MOST} bytes of headers")
    reason = CORRUPTED_HDU if number else NO_FITS_HDUS
    return Unfinished(reason, f"the header of HDU {number} has no END")


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


def _cards(text: bytes) -> dict[bytes, list[bytes]]:
    """Return what stands in cards, by keyword."""
    cards: dict[bytes, list[bytes]] = {}
    last: list[bytes] = []
    for start in range(0, len(text), CARD):
        card = text[start : start + CARD]
        if card.startswith(b"CONTINUE"):
            last.append(card[8:])
            continue
        if card[8:10] == b"= ":
            keyword, value = card[:8], card[10:]
        elif card.startswith(b"HIERARCH ") and b"=" in card:
            keyword, _, value = card[9:].partition(b"=")
        else:
            continue
        last = [value]
        cards.setdefault(keyword.strip(b" "), last)
    return cards


def _data(cards: Mapping[bytes, Sequence[bytes]], primary: bool) -> int:
    """Return the bytes of an HDU's data. Raises ValueError."""

    def number(keyword: bytes, default: int | None = None) -> int:
        if keyword not in cards and default is not None:
            return default
        found = _integer(cards, keyword)
        if found is None or found < (0 if keyword != b"BITPIX" else -64):
            raise ValueError(f"{keyword.decode()} is missing, or no such number")
        return found

    bits, axes = number(b"BITPIX"), number(b"NAXIS")
    if bits not in _BITS or axes > 999:
        raise ValueError(f"BITPIX = {bits}, NAXIS = {axes}")
    lengths = [number(b"NAXIS%d" % axis) for axis in range(1, axes + 1)]
    if not lengths:
        return 0
    groups = primary and lengths[0] == 0 and b"GROUPS" in cards
    elements = math.prod(lengths[1:] if groups else lengths)
    if primary and not groups:  # they count in others only
        size = abs(bits) // 8 * elements
    else:
        size = abs(bits) // 8 * number(b"GCOUNT", 1) * (number(b"PCOUNT", 0) + elements)
    if size >= 1 << 60:
        raise ValueError("more data than any file has")
    return size


def _integer(cards: Mapping[bytes, Sequence[bytes]], keyword: bytes) -> int | None:
    match = _INTEGER.fullmatch(cards.get(keyword, [b""])[0])
    return int(match[1]) if match else None


def _whole(size: int) -> int:
    return -(-size // BLOCK) * BLOCK

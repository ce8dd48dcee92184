"""What the headers of a FITS file say: the values of cards, and how long the file is to be.

Pure: `read(offset, size)` gives bytes of the file, fewer at its end, so that hundreds of
megabytes of data are passed over unread. Nothing here raises what `read` does not (FITS 4.0,
4.4 and 6.1).
"""

import re
from collections.abc import Callable
from math import prod

from lpxfer.formats.fits import BLOCK

Read = Callable[[int, int], bytes]
Cards = dict[str, str]

HEADER_MOST = 4000 * BLOCK  # bytes; a header without END is not looked for any further
UNITS_MOST = 10_000  # headers of one file

_FIRST = b"SIMPLE  =" + b"T".rjust(21)
_STRING = re.compile(r"'((?:[^']|'')*)'")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def header(read: Read, start: int = 0) -> tuple[Cards, int] | None:
    """Return the cards of the header at `start` and where it ends; None when END is not there.

    Of a repeated keyword the first counts. A text is without quotes and the blanks behind it;
    HIERARCH keywords are without that word.
    """
    cards, last = Cards(), ""
    for at in range(start, start + HEADER_MOST, BLOCK):
        block = read(at, BLOCK).decode("latin-1")
        if len(block) < BLOCK:
            return None
        for card in (block[i : i + 80] for i in range(0, BLOCK, 80)):
            if card.rstrip() == "END":
                return cards, at + BLOCK
            if card.startswith("CONTINUE") and cards.get(last, "").endswith("&"):
                cards[last] = cards[last][:-1] + _value(card[8:])
            elif pair := _pair(card):
                last = pair[0]
                cards.setdefault(*pair)
    return None


def _pair(card: str) -> tuple[str, str] | None:
    if card.startswith("HIERARCH ") and "=" in card:
        keyword, _, value = card[9:].partition("=")
    elif card[8:10] == "= ":
        keyword, value = card[:8], card[10:]
    else:
        return None
    return keyword.strip(), _value(value)


def _value(text: str) -> str:
    if match := _STRING.match(text.strip()):
        return match[1].replace("''", "'").rstrip()
    return text.partition("/")[0].strip()


def unfinished(read: Read, size: int) -> str | None:
    """Say what a FITS file of `size` bytes lacks, "" when nothing; None when it is none.

    It lacks what a header promises: its own end, its data to their last block, and as many
    extensions as NEXTEND says. A file of several units that says no NEXTEND may end behind
    each of them: nobody can tell that more will come.
    """
    head = read(0, len(_FIRST))
    if not _FIRST.startswith(head):
        return None
    if len(head) < len(_FIRST):
        return "it has no header yet"
    at, wanted = 0, 0
    for unit in range(UNITS_MOST):
        if (found := header(read, at)) is None:
            return f"the header at byte {at} has no END yet"
        cards, start = found
        if (length := _data_length(cards)) is None:
            return None
        at = start + -(-length // BLOCK) * BLOCK
        if at > size:
            return f"{size} of {at} bytes are there"
        wanted = wanted or _integer(cards, "NEXTEND", 0) or 0
        follows = read(at, 9)
        if follows.strip(b"\0") and not b"XTENSION=".startswith(follows):
            follows = b""  # records that no header promises
        if not follows:
            return "" if unit >= wanted else f"{unit} of {wanted} extensions are there"
        if follows != b"XTENSION=":
            return f"at byte {at} something has begun"
    return None


def _data_length(cards: Cards) -> int | None:
    """Return the bytes of data that a header promises, unpadded; None when it makes no sense."""
    bits, axes = _integer(cards, "BITPIX"), _integer(cards, "NAXIS")
    if bits is None or axes is None or not 0 <= axes <= 999:
        return None
    lengths = [_integer(cards, f"NAXIS{n}") for n in range(1, axes + 1)]
    extra, groups = _integer(cards, "PCOUNT", 0), _integer(cards, "GCOUNT", 1)
    if None in lengths or extra is None or groups is None:
        return None
    if axes and lengths[0] == 0 and cards.get("GROUPS") == "T":
        lengths = lengths[1:]
    elements = groups * (extra + prod(n for n in lengths if n is not None)) if axes else 0
    length = abs(bits) // 8 * elements
    return length if length >= 0 else None


def _integer(cards: Cards, keyword: str, default: int | None = None) -> int | None:
    text = cards.get(keyword)
    if text is None:
        return default
    return int(text) if _INTEGER.fullmatch(text) else None

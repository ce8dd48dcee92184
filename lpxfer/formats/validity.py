"""What makes a file of an instrument valid, and the words for what does not. Pure.

The reasons are those of Keck's archive, see lpxfer.conf(5). One more of them, DUPLICATE, is no
fault here but a kind of record: the same bytes are in the archive already.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence

from lpxfer.errors import FormatError, PermanentError

EMPTY_FILE = "EMPTY_FILE"
UNREADABLE_FITS = "UNREADABLE_FITS"  # it is none
NO_FITS_HDUS = "NO_FITS_HDUS"  # it begins as one, and not even its first header is whole
CORRUPTED_HDU = "CORRUPTED_HDU"
FILEPATH_REJECT = "FILEPATH_REJECT"  # what comes from there is not wanted
BAD_OFNAME = "BAD_OFNAME"  # its name is none that this instrument gives
MISMATCHED_FILENAME = "MISMATCHED_FILENAME"  # its header gives it another name

CARDS_MOST = 64  # keywords that may be copied into a record

#: Keywords of cards that may stand in a record: its own fields have small letters. The words of
#: a HIERARCH keyword are joined by points.
CARD = re.compile(r"[A-Z][A-Z0-9_-]{0,7}|[A-Z][A-Z0-9_-]*(?:\.[A-Z0-9_-]+)+")

_SPECIAL = re.compile(r"[*?[]")  # in a pattern
_HOLE = re.compile(rf"\{{({CARD.pattern})(?::([1-9][0-9]?))?\}}")


class Invalid(PermanentError):
    """A file that is what was submitted, and not what this instrument's files are."""

    def __init__(self, reason: str, words: str) -> None:
        """Give the reason, one of the above, and say what was found."""
        super().__init__(f"{reason}: {words}")
        self.reason, self.words = reason, words


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a name or path fits one of these patterns of the shell."""
    # fnmatch never takes back what a `*` has matched, so no name makes this slow
    return any(re.fullmatch(fnmatch.translate(pattern), name) for pattern in patterns)


# --- schemes: patterns in which {CARD} is what the header says ------------------------------


def check_scheme(pattern: str) -> str:
    """Return a pattern if it is one, else raise FormatError."""
    if "{" in (rest := _HOLE.sub("", pattern)) or "}" in rest:
        raise FormatError(f'"{pattern}" has more in braces than {{KEYWORD}} or {{KEYWORD:DIGITS}}')
    return pattern


def cards_of(scheme: Sequence[str]) -> list[str]:
    """Return the keywords of the cards that a scheme depends on."""
    return [card for pattern in scheme for card, _ in _HOLE.findall(pattern)]


def check_name(name: str, scheme: Sequence[str], value: Callable[[str], str | None]) -> None:
    """Raise Invalid for a name that fits none of a scheme's patterns.

    `value` tells what a card of the file's header says.
    """
    shapes = [pattern for pattern in scheme if fits(name, [_HOLE.sub("*", pattern)])]
    if not shapes:
        raise Invalid(BAD_OFNAME, f"the name fits none of {' '.join(scheme)}")
    if not any(fits(name, [_filled(pattern, value)]) for pattern in shapes):
        said = [f"{card} = {value(card) or 'nothing'}" for card, _ in _HOLE.findall(shapes[0])]
        raise Invalid(MISMATCHED_FILENAME, f"the header says {', '.join(said)}")


def _filled(pattern: str, value: Callable[[str], str | None]) -> str:
    """Return a pattern with what the header says; a card that is missing fits nothing."""

    def fill(match: re.Match[str]) -> str:
        said = value(match[1])
        if said is None:
            return "[/]"  # no name has one
        return _SPECIAL.sub("[\\g<0>]", said.zfill(int(match[2])) if match[2] else said)

    return _HOLE.sub(fill, pattern)

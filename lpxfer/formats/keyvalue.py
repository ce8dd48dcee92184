"""Lines of `keyword=value`, percent-encoded and sealed with their own checksum.

Control files and routing files are such texts. The last line is
`end=sha256:<hex of all bytes before it>`; a text without it is torn. Values may hold any
bytes: `%`, control characters and bytes that are not UTF-8 travel as `%XX`.
See xfer-control(5).
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping

from lpxfer.errors import FormatError

LIMIT = 65536  # bytes in one text, its last line included

KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")

# Characters that never stand as themselves: `%`, C0 and C1 controls, DEL, the two Unicode
# line separators, what turns the direction of writing around (a log is read by people, too),
# and lone surrogates, which are how Python carries bytes that are not UTF-8.
_ACTING = "%\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[{_ACTING}]")
_UNSAFE_OR_SPACE = re.compile(f"[ {_ACTING}]")
_RAW_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_TO_BE_UNQUOTED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f%]")  # in a text of lines
_PAIR = re.compile(f"^({KEYWORD.pattern})=([^\x00-\x1f\x7f-\x9f]*)$", re.MULTILINE)
_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_PERCENT = re.compile(b"%(..)")


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in to_bytes(match[0]))


def to_bytes(value: str) -> bytes:
    """Return the bytes a value stands for (lone surrogates are the raw bytes they carry)."""
    return value.encode("utf-8", "surrogateescape")


def from_bytes(raw: bytes) -> str:
    """Return any bytes, a file's name for instance, as a value: UTF-8, whatever the locale."""
    return raw.decode("utf-8", "surrogateescape")


def file_name(value: str) -> str:
    """Return a value as the name of a file: the same bytes, whatever the locale."""
    return os.fsdecode(to_bytes(value))


def quote(value: str, space: bool = False) -> str:
    """Percent-encode a value; with `space`, blanks too, so that it is one word."""
    return (_UNSAFE_OR_SPACE if space else _UNSAFE).sub(_percent, value)


def is_plain(text: str) -> bool:
    """Tell that no value in a text of lines is changed, or refused, by `unquote`."""
    return not _TO_BE_UNQUOTED.search(text)


def needs_no_quotes(value: str) -> bool:
    """Tell whether `quote` leaves a value as it is, with `space`, too."""
    return not _UNSAFE_OR_SPACE.search(value)


def unquote(text: str) -> str:
    """Undo `quote`. Raises FormatError for a raw control character or a broken `%`."""
    if _RAW_CONTROL.search(text):
        raise FormatError("a control character that is not percent-encoded")
    if "%" not in text:
        return text
    if _BAD_PERCENT.search(text):
        raise FormatError("a % that is not followed by two hex digits")
    return from_bytes(_PERCENT.sub(lambda m: bytes.fromhex(m[1].decode()), text.encode()))


def printable(value: str) -> str:
    """Return a value as it may be shown on a terminal: nothing in it acts on the terminal.

    Everything Python calls unprintable (controls, bidirectional overrides, lone
    surrogates) is shown as `%XX`, as it would stand in a control file.
    """
    if value.isprintable():
        return value
    return "".join(
        c if c.isprintable() else "".join(f"%{b:02X}" for b in to_bytes(c)) for c in value
    )


def dump(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Write pairs as a sealed text. Raises FormatError when it exceeds the limit."""
    body = "".join(f"{keyword}={quote(value)}\n" for keyword, value in pairs).encode()
    sealed = body + f"end=sha256:{hashlib.sha256(body).hexdigest()}\n".encode()
    if len(sealed) > LIMIT:
        raise FormatError(f"longer than {LIMIT} bytes")
    return sealed


def load(text: bytes) -> dict[str, str]:
    """Read a sealed text; the order of its lines is kept, `end` is left out.

    Raises FormatError for a torn text, one over the limit, bytes that are not UTF-8, a
    line that is no pair, a bad keyword and a repeated one.
    """
    if len(text) > LIMIT:
        raise FormatError(f"longer than {LIMIT} bytes")
    start = text.rfind(b"\nend=") + 1
    if not text.startswith(b"end=", start):
        raise FormatError("torn: no end line")
    body, seal = text[:start], text[start:]
    if seal != f"end=sha256:{hashlib.sha256(body).hexdigest()}\n".encode():
        raise FormatError("torn: the end line does not fit")
    try:
        lines = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("not UTF-8") from error
    pairs: dict[str, str] = dict(_PAIR.findall(lines))
    if len(pairs) != lines.count("\n") or "end" in pairs:
        raise FormatError(_fault(lines))
    return {k: unquote(v) for k, v in pairs.items()} if "%" in lines else pairs


def _fault(text: str) -> str:
    """Say what is wrong with the first line that is no pair, or is one too many."""
    seen = {"end"}
    for line in text.split("\n"):
        keyword, equals, value = line.partition("=")
        if not equals or not KEYWORD.fullmatch(keyword):
            return f"not a keyword=value line: {line[:80]!r}"
        if keyword in seen:
            return f"repeated keyword: {keyword}"
        if _RAW_CONTROL.search(value):
            return "a control character that is not percent-encoded"
        seen.add(keyword)
    return "not keyword=value lines"


def only(pairs: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise FormatError when a text has a keyword that its kind does not know."""
    for keyword in pairs.keys() - set(known):
        raise FormatError(f"unknown keyword: {keyword}")

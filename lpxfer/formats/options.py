"""Options of the form `keyword=value`, as `lp -o` takes them.

    -o inst=minicam -o maxftp=0          separate
    -o inst=minicam,maxftp=60            or joined by commas; %2C is a comma in a value

Three kinds: routing keywords direct the transfer and never enter a control file; the
system's own keywords are refused; everything else travels to the archive site untouched.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from lpxfer.errors import FormatError, UsageError
from lpxfer.formats import keyvalue, names

ROUTING = frozenset({"remhost", "rempath", "remuser", "rempw"})

_MAXFTP = re.compile(r"\d{1,9}(\.\d{1,3})?", re.ASCII)

#: Keywords the system writes itself. `priority` has its own switch, -q.
SYSTEM = frozenset(
    "format job uid host user queue submitted name path size mtime checksum priority "
    "xfer_start xfer_end xfer_seconds attempts xfer_codec xfer_size end".split()
)


@dataclass(frozen=True)
class Options:
    """What the user asked for with -o, sorted by where it goes."""

    inst: str | None = None
    maxftp: str | None = None
    dir: str | None = None
    others: dict[str, str] = field(default_factory=dict)  # travel untouched
    routing: dict[str, str] = field(default_factory=dict)  # never travel


def split(arguments: Iterable[str]) -> dict[str, str]:
    """Split -o arguments into keywords and values; the last of a repeated one wins.

    Raises UsageError for a part that is not keyword=value.
    """
    pairs: dict[str, str] = {}
    for part in (part for argument in arguments for part in argument.split(",")):
        keyword, equals, value = part.partition("=")
        if not equals or not keyvalue.KEYWORD.fullmatch(keyword):
            raise UsageError(
                f'"-o {keyvalue.printable(part)}" is not keyword=value; '
                "write %2C for a comma inside a value"
            )
        pairs.pop(keyword, None)  # the last one wins, and takes the last place
        pairs[keyword] = value.replace("%2C", ",").replace("%2c", ",")
    return pairs


def parse(arguments: Iterable[str]) -> Options:
    """Read -o arguments.

    Raises UsageError for what is not keyword=value, for the system's own keywords, a
    literal password, and values that no sweep would accept.
    """
    return sort(split(arguments))


def sort(pairs: dict[str, str]) -> Options:
    """Sort keywords by where they go; the pairs are used up. Raises UsageError as `parse` does."""
    for keyword in pairs:
        if keyword in SYSTEM:
            hint = "; use -q" if keyword == "priority" else ""
            raise UsageError(f'"{keyword}" is set by the system, not with -o{hint}')
    routing = {k: pairs.pop(k) for k in list(pairs) if k in ROUTING}
    _refuse_literal_password(routing)
    aliases = [pairs.pop(k) for k in list(pairs) if k in ("inst", "instrument")]
    inst = aliases[-1] if aliases else None
    maxftp, directory = pairs.pop("maxftp", None), pairs.pop("dir", None)
    try:
        if inst is not None:
            names.check_instrument(inst)
        if maxftp is not None:
            check_maxftp(maxftp)
        if directory is not None:
            names.check_dir(directory)
    except FormatError as error:
        raise UsageError(str(error)) from error
    return Options(inst, maxftp, directory, pairs, routing)


def check_maxftp(text: str) -> float:
    """Return the seconds one attempt may take, 0 for no bound, or raise FormatError."""
    if not _MAXFTP.fullmatch(text):
        raise FormatError(f"maxftp is a number of seconds, 0 for no limit, not {text!r}")
    return float(text)


def _refuse_literal_password(routing: dict[str, str]) -> None:
    password = routing.get("rempw")
    if password is not None and not re.fullmatch("file:.+", password, re.DOTALL):
        raise UsageError(
            "a password on a command line can be read by everybody on this machine; "
            "put it into a file of mode 0600 and use rempw=file:/path/to/it"
        )

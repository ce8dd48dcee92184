"""How the value of each key in lpxfer.conf is read; see lpxfer.conf(5). Pure.

Each reader raises FormatError for a text that its key does not take.
"""

import re
from collections.abc import Callable
from typing import Any

from lpxfer.errors import FormatError
from lpxfer.formats import dates, names, options, rate, validity, watching

#: Without a password, which would stand here for all to read.
_URL = re.compile(
    r"https?://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?(/[!-~]*)?"
)


def _one_of(*words: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in words:
            raise FormatError(f'"{value}" is not one of: {", ".join(words)}')
        return value

    return check


def _secret(value: str) -> str:
    if not value.startswith("file:/"):
        raise FormatError("a password or token is never written here; use file:/path of mode 0600")
    return value


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port, re.ASCII) or int(port) > 65535:
        raise FormatError(f'"{value}" is not ADDRESS:PORT such as 127.0.0.1:8631')
    return value


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+(/[!-~]*)?", value, re.ASCII):
        raise FormatError(f'"{value}" is not a URL such as https://archive.example.edu/')
    return value


def _roots(value: str) -> str:
    if not all(root.startswith("/") for root in value.split(":")):
        raise FormatError("name directories from / on, with : between them")
    return value


def _tell(value: str) -> str:
    if not (_URL.fullmatch(value) or value.startswith("/")):
        raise FormatError(f'"{value}" is neither a command\'s path from root nor an http(s) URL')
    return value


def _congestion(value: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_-]{0,14}", value, re.ASCII):  # TCP_CA_NAME_MAX of Linux
        raise FormatError(f'"{value}" is not the name of a congestion control such as cubic')
    return value


def _mode(value: str) -> int:
    if not re.fullmatch("[0-7]{3,4}", value, re.ASCII):
        raise FormatError(f'"{value}" is not a mode such as 0444')
    return int(value, 8)


def _maxftp(value: str) -> str:
    options.check_maxftp(value)
    return value


def _words(value: str) -> tuple[str, ...]:
    return tuple(value.split())


def _validate(value: str) -> tuple[str, ...]:
    return {"fits": ("*",), "no": ()}.get(value, _words(value))


def _scheme(value: str) -> tuple[str, ...]:
    return tuple(map(validity.check_scheme, _words(value)))


def _keywords(value: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(_words(value)))
    for keyword in found:
        if not validity.CARD.fullmatch(keyword):
            raise FormatError(f'"{keyword}" is not a FITS keyword such as EXPTIME')
    if len(found) > validity.CARDS_MOST:
        raise FormatError(f"more than {validity.CARDS_MOST} keywords")
    return found


def _zone(value: str) -> str:
    if value != "UTC":
        dates.find_zone(value)
    return value


def _text(check: Callable[[str], object]) -> Callable[[str], str]:
    """Have a text looked at that is read where it is needed."""

    def keep(value: str) -> str:
        check(value)
        return value

    return keep


_CHECKS: dict[str, Callable[[str], Any]] = {
    "transport": _one_of("sftp", "openssh", "local"),
    "confirm": _one_of("receipt", "sent"),
    "rempw": _secret,
    "tokens": _secret,
    "arrivals": _url,
    "arrivals_token": _secret,
    "listen": _listen,
    "roots": _roots,
    "congestion": _congestion,
    "seal": _mode,
    "mode": _mode,
    "maxftp": _maxftp,
    "rate": rate.parse,
    "zone": _zone,
    "validate": _validate,
    "scheme": _scheme,
    "reject": _words,
    "keywords": _keywords,
    "tell": _tell,
    "tell_secret": _secret,
    "inst": names.check_instrument,
    "host": names.check_host,
    "reserve": dates.size,
    "watch": _text(watching.directories),
    "match": _text(watching.Match),
    "finished": _text(watching.finished),
    "monitor": _text(watching.words),
    "frame": watching.frame,
}


def read(key: str, value: str, default: object) -> Any:
    """Read a value by its key's own rule, else by the type of its default."""
    if key in _CHECKS:
        return _CHECKS[key](value)
    if isinstance(default, bool):
        return _one_of("yes", "no")(value) == "yes"
    if isinstance(default, float):
        return dates.duration(value)
    if isinstance(default, int):
        if not (re.fullmatch("[0-9]{1,2}", value, re.ASCII) and 0 < int(value) <= 64):
            raise FormatError(f'"{value}" is not a number from 1 to 64')
        return int(value)
    return value

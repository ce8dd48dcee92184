"""What a request to xfer-web asks for: its body and its parameters, checked.

Everything here comes from a network. Raises UsageError, which says what to write instead.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from lpxfer.errors import FormatError, UsageError
from lpxfer.formats import names, options

FILES_MOST = 1000  # of one submit
PAGE, PAGE_MOST = 1000, 10_000  # jobs of one listing

Check = Callable[[Any], bool]


def body(text: bytes, needed: Mapping[str, Check], known: Mapping[str, Check]) -> dict[str, Any]:
    """Read a JSON object with the keys that are `needed`, and maybe others that are `known`."""
    try:
        asked = json.loads(text, parse_constant=_no_constant)
        path_bytes(json.dumps(asked, ensure_ascii=False))  # every text in it, keys too
    except UnicodeEncodeError as error:
        raise UsageError("a text has a surrogate in it that stands for no byte") from error
    except (ValueError, RecursionError) as error:
        raise UsageError("the body is no JSON") from error
    if not isinstance(asked, dict):
        raise UsageError("the body is no JSON object")
    checks = {**needed, **known}
    for key, value in asked.items():
        if key not in checks:
            raise UsageError(f'unknown key "{key}"; known: {", ".join(sorted(checks))}')
        if not checks[key](value):
            raise UsageError(f'"{key}" has not the form that GET /v1/openapi.json describes')
    if missing := needed.keys() - asked.keys():
        raise UsageError(f'"{sorted(missing)[0]}" is missing')
    return asked


def parameters(given: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a query; `known` has the pattern of each."""
    for key, value in given.items():
        if key not in known:
            raise UsageError(f'unknown parameter "{key}"; known: {", ".join(sorted(known))}')
        if not re.fullmatch(known[key], value, re.ASCII):
            raise UsageError(f'the parameter "{key}" has not the form it must have')
    return dict(given)


def key(text: str | None) -> str | None:
    """Return an Idempotency-Key."""
    if text is not None and not re.fullmatch("[!-~]{1,64}", text):
        raise UsageError("an Idempotency-Key has 1 to 64 printable characters and no blank")
    return text


def pairs(asked: Mapping[str, str]) -> list[str]:
    """Write options as -o takes them; where files go is for the configuration alone to say.

    With `rempw` in it a stranger would have secrets of this machine sent to theirs.
    """
    for keyword in asked:
        if keyword in options.ROUTING:
            raise UsageError(f'"{keyword}" cannot be given here; name a queue that has it')
    return [f"{keyword}={value.replace(',', '%2C')}" for keyword, value in asked.items()]


def path_bytes(path: str) -> bytes:
    """Return a path; its bytes that are no UTF-8 are lone surrogates, as Python has them."""
    return path.encode("utf-8", "surrogateescape")


def is_text(value: object) -> bool:
    """Tell whether it is text."""
    return isinstance(value, str)


def is_texts(most: int) -> Check:
    """Make a check for a list of one to `most` different texts, none of them empty."""
    return lambda value: (
        isinstance(value, list)
        and 0 < len(value) <= most
        and all(isinstance(text, str) and text for text in value)
        and len(set(value)) == len(value)
    )


def is_options(value: object) -> bool:
    """Tell whether it is an object of texts."""
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def is_priority(value: object) -> bool:
    """Tell whether it is a number from 1 to 100."""
    return type(value) in (int, float) and value in range(1, 101)  # 50.0 is 50 in JSON


def instruments(asked: list[str]) -> list[str]:
    """Return names of instruments. Raises UsageError for what cannot be one."""
    try:
        return [names.check_instrument(name) for name in asked]
    except FormatError as error:
        raise UsageError(str(error)) from error


def _no_constant(word: str) -> None:
    raise ValueError(word)

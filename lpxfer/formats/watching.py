"""What the keys of an [instrument NAME] say to xfer-watch; see lpxfer.conf(5). Pure.

Each function reads the text of one key, and raises FormatError for what it cannot be.
"""

import fnmatch
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from lpxfer.errors import FormatError, UsageError
from lpxfer.formats import control, dates, names, options

PLACE = re.compile(r"\{([^{}]+)\}")  # where a value goes into `options`, `queue` and `priority`
HEADER = "fits."  # before the name of a keyword of the header

_NUMBER_OR_NAME = re.compile(r"%(0?[0-9]{0,2})([ds])")


@dataclass(frozen=True)
class Finished:
    """When a file is finished: all that is asked for here must hold."""

    close: bool = False  # nobody has it open for writing
    fits: bool = False  # all that its headers promise is there
    age: float | None = None  # seconds without a change
    flag: str = ""  # suffix of the file that says so


def finished(text: str) -> Finished:
    """Read `finished`: close, fits, age DURATION and flag SUFFIX, joined by commas."""
    close = fits = False
    age, flag = None, ""
    for rule in text.split(","):
        match rule.split():
            case ["close"]:
                close = True
            case ["fits"]:
                fits = True
            case ["age", duration]:
                age = dates.duration(duration)
            case ["flag", suffix] if "/" not in suffix:
                flag = suffix
            case _:
                raise FormatError(
                    f'"{rule.strip()}" is not one of: close, fits, age DURATION, flag SUFFIX'
                )
    return Finished(close, fits, age, flag)


def words(text: str) -> list[str]:
    """Split at blanks as a shell does; quotes keep blanks in a word."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise FormatError(f"{error} in {text!r}") from error


def directories(text: str) -> list[str]:
    """Read `watch`: absolute directories, none within another."""
    found = [os.path.normpath(word) for word in words(text)]
    for path in found:
        if not os.path.isabs(path):
            raise FormatError(f'"{path}" is not an absolute path')
        if any(path == other or path.startswith(other.rstrip("/") + "/") for other in found
               if other is not path):  # fmt: skip
            raise FormatError(f'"{path}" is named twice, or within another')
    return found


class Match:
    """Tells by its name whether a file is one that is meant: `match`."""

    def __init__(self, text: str) -> None:
        """Read patterns of the shell; what begins with ! excludes. Raises FormatError."""
        patterns = words(text)
        taken = [p for p in patterns if not p.startswith("!")] or ["*"]
        left = [p[1:] for p in patterns if p.startswith("!")]
        if any("/" in pattern for pattern in patterns):
            raise FormatError("patterns are for names of files, without /")
        self._taken, self._left = _any(taken), _any([".*", *left])

    def __call__(self, name: str) -> bool:
        """Tell whether a name is meant; one that begins with a dot never is."""
        return bool(self._taken.match(name)) and not self._left.match(name)


def _any(patterns: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)))


def pattern(text: str) -> re.Pattern[str]:
    """Read `pattern`: a regular expression for the path below the watched directory."""
    try:
        return re.compile(text)
    except re.error as error:
        raise FormatError(f"{error} in {text!r}") from error


def frame(text: str) -> str:
    """Read `frame`: how a name is made of a value, with one %s, or %d and its like."""
    if text.count("%") != 1 or not _NUMBER_OR_NAME.search(text):
        raise FormatError(f'"{text}" needs one %s, or %d or %05d for a counter, and no other %')
    return text


def name_of(template: str, value: object) -> str | None:
    """Make the name of a frame of what a control system said; None where that is no value."""
    match = _NUMBER_OR_NAME.search(template)
    assert match  # `frame` has looked
    if match[2] == "s":
        text = str(value).strip().strip("\0")
        return template.replace(match[0], text) if text and "\0" not in text else None
    try:
        number = int(float(str(value)))
    except (ValueError, OverflowError):
        return None
    return template.replace(match[0], f"%{match[1]}d" % number) if number >= 0 else None


@dataclass(frozen=True)
class Recipe:
    """How a file is submitted; each text may have {NAME} and {fits.KEYWORD} in it."""

    queue: str
    priority: str
    options: Mapping[str, str]
    pattern: re.Pattern[str]

    @property
    def wants_header(self) -> bool:
        """Tell whether the file's own header is asked for."""
        texts = [self.queue, self.priority, *self.options.values()]
        return any(f"{{{HEADER}" in text for text in texts)

    def make(self, path: str, card: Callable[[str], str | None]) -> tuple[str, str, dict[str, str]]:
        """Return queue, priority and options of the file at this path below its directory.

        `card` tells what a card of its header says. A value that is not there, or empty, leaves
        its option or priority out. Raises FormatError for a queue that is none; nothing else is
        checked.
        """
        match = self.pattern.search(path)
        values = dict(match.groupdict()) if match else {}

        def said(name: str) -> str | None:
            keyword = name.removeprefix(HEADER)
            return values.get(name) if keyword == name else card(keyword)

        fill = partial(_filled, value=said)
        made = {keyword: value for keyword, text in self.options.items() if (value := fill(text))}
        return names.check_queue(fill(self.queue) or ""), fill(self.priority) or "", made


def _filled(text: str, value: Callable[[str], str | None]) -> str | None:
    """Fill a text's places; None where one has no value."""
    parts = PLACE.split(text)
    parts[1::2] = [value(name) or "" for name in parts[1::2]]
    return "".join(parts) if all(parts[1::2]) else None


def recipe(queue: str, priority: str, asked: str, expression: str) -> Recipe:
    """Read `queue`, `priority`, `options` and `pattern` together. Raises FormatError."""
    compiled = pattern(expression)
    try:
        pairs = options.split([asked]) if asked.strip() else {}
        options.sort({k: v for k, v in pairs.items() if not PLACE.search(v)})
        options.sort({k: "1" for k, v in pairs.items() if PLACE.search(v)})
    except UsageError as error:
        raise FormatError(str(error)) from error
    for text in (queue, priority, *pairs.values()):
        for place in PLACE.findall(text):
            if not place.startswith(HEADER) and place not in compiled.groupindex:
                raise FormatError(
                    f"{{{place}}} is neither a group of `pattern` nor {{fits.KEYWORD}}"
                )
    if priority and not PLACE.search(priority):
        control.check_priority(priority)
    return Recipe(queue, priority, {k.strip(): v for k, v in pairs.items()}, compiled)

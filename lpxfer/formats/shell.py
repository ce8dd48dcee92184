"""Command lines as a person can copy them into a shell."""

import shlex
from collections.abc import Iterable

from lpxfer.formats import keyvalue


def command(words: Iterable[str], **environment: str) -> str:
    """Write a command line, quoted where needed, with assignments before it.

    What cannot be shown as it is goes into $'...', which bash, ksh and zsh read.
    """
    before = [f"{name}={_quote(value)}" for name, value in environment.items()]
    return " ".join(before + [_quote(word) for word in words])


def _quote(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    text = "".join(_escaped(character) for character in word)
    return f"$'{text}'"


def _escaped(character: str) -> str:
    if character in "'\\":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in keyvalue.to_bytes(character))

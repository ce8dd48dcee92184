"""Tokens: who may ask xfer-web for what. See xfer-web(5). Pure.

# name     token                                                             operations
camera     6f1c0d4f7d2d4c1d8a0a2c7e1b9f5e3a6f1c0d4f7d2d4c1d8a0a2c7e1b9f5e3a  submit,list
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lpxfer.errors import FormatError

#: What a token may be for.
OPERATIONS = frozenset({"submit", "list", "cancel", "arrivals", "metrics"})

SHORTEST = 32  # characters: 16 random bytes in hexadecimal digits

_NAME = re.compile("[A-Za-z0-9._-]{1,64}")
_TOKEN = re.compile("[A-Za-z0-9._~+/-]+=*")  # what may stand in a header: RFC 6750


@dataclass(frozen=True)
class Token:
    """One line: whose token it is, and what it is for."""

    name: str
    secret: str
    operations: frozenset[str]

    def __repr__(self) -> str:
        return f"Token({self.name})"  # lest a traceback shows the secret


def parse(text: bytes) -> list[Token]:
    """Read the lines of a file of tokens. Raises FormatError that never shows a token."""
    tokens: list[Token] = []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            token = _parse(words)
            if token.name in {other.name for other in tokens}:
                raise FormatError(f"{token.name} stands twice")
        except FormatError as error:
            raise FormatError(f"line {number}: {error}") from error
        tokens.append(token)
    if not tokens:
        raise FormatError("there is no token in it")
    return tokens


def _parse(words: Sequence[str]) -> Token:
    if len(words) != 3:
        raise FormatError("a line is a name, a token and operations, with blanks between them")
    name, secret, operations = words
    if not _NAME.fullmatch(name):
        raise FormatError("a name is up to 64 of A-Z a-z 0-9 . _ -")
    if not _TOKEN.fullmatch(secret) or len(secret) < SHORTEST:
        raise FormatError(f"the token of {name} is not {SHORTEST} or more of A-Z a-z 0-9 . _ ~ + /")
    chosen = frozenset(operations.split(","))
    if unknown := chosen - OPERATIONS:
        known = ", ".join(sorted(OPERATIONS))
        raise FormatError(f'"{sorted(unknown)[0]}" is no operation; known: {known}')
    return Token(name, secret, chosen)


def find(tokens: Sequence[Token], header: str) -> Token | None:
    """Return the token of an Authorization header, in a time that does not tell which."""
    scheme, _, given = header.partition(" ")
    found = None
    for token in tokens:
        if hmac.compare_digest(token.secret.encode(), given.strip().encode("utf-8", "replace")):
            found = token
    return found if scheme.lower() == "bearer" else None

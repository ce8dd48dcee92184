"""Tokens: one line each, and none of them in a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats import tokens

A, B = "a" * 32, "b" * 64
TEXT = f"# comment\n\n one  {A} submit,list\ntwo\t{B}\tarrivals\r\n".encode()


def test_tokens_are_read_with_what_they_are_for() -> None:
    one, two = tokens.parse(TEXT)
    assert (one.name, one.operations) == ("one", {"submit", "list"})
    assert (two.name, two.secret, two.operations) == ("two", B, {"arrivals"})
    assert A not in repr(one)


@pytest.mark.parametrize("header", [f"Bearer {B}", f"bearer  {B}", f"BEARER {B} "])
def test_a_token_is_found_by_its_header(header: str) -> None:
    found = tokens.find(tokens.parse(TEXT), header)
    assert found and found.name == "two"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", B, f"Basic {B}", f"Bearer {B[1:]}", f"Bearer {B}b", "Bearer é"],
)
def test_nothing_else_is_one(header: str) -> None:
    assert tokens.find(tokens.parse(TEXT), header) is None


@given(st.binary(max_size=300))
def test_no_text_makes_more_than_a_format_error(text: bytes) -> None:
    for whole in (text, TEXT + text):
        try:
            for token in tokens.parse(whole):
                assert len(token.secret) >= tokens.SHORTEST and token.operations
        except FormatError as error:
            assert A not in str(error) and B not in str(error)

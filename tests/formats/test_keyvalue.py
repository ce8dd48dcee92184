"""Lines of keyword=value, sealed with their own checksum."""

import hashlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats import keyvalue

any_bytes = st.binary(max_size=300)
values = any_bytes.map(keyvalue.from_bytes) | st.text(max_size=100).map(
    lambda text: text.encode("utf-8", "replace").decode()
)
keywords = st.from_regex(keyvalue.KEYWORD, fullmatch=True).filter(lambda word: word != "end")


def seal(body: bytes) -> bytes:
    return body + f"end=sha256:{hashlib.sha256(body).hexdigest()}\n".encode()


@given(any_bytes)
def test_any_bytes_survive_as_a_value(raw):
    assert keyvalue.to_bytes(keyvalue.from_bytes(raw)) == raw
    for space in (False, True):
        quoted = keyvalue.quote(keyvalue.from_bytes(raw), space)
        assert keyvalue.to_bytes(keyvalue.unquote(quoted)) == raw


@given(values)
def test_quoted_value_is_one_line_of_utf8_and_one_word_where_blanks_are_quoted_too(value):
    assert quoted_lines(keyvalue.quote(value)) <= 1
    assert len(keyvalue.quote(value, space=True).encode().split()) == (1 if value else 0)


def quoted_lines(text: str) -> int:
    text.encode("utf-8")  # a lone surrogate could not be written
    return len(text.splitlines())


def test_percent_controls_newline_and_bytes_that_are_not_utf8_are_encoded():
    value = keyvalue.from_bytes(b"100%\x00\x1b[0m\n\x7f\xff \xc3\xbc,=")
    assert keyvalue.quote(value) == "100%25%00%1B[0m%0A%7F%FF ü,="
    assert keyvalue.quote("a\x85b\u2028c") == "a%C2%85b%E2%80%A8c"


def test_what_turns_the_direction_of_writing_around_is_encoded():
    for sign in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
        assert keyvalue.quote(f"a{sign}") == "a" + "".join(f"%{b:02X}" for b in sign.encode())


@given(st.dictionaries(keywords, values, max_size=20))
def test_sealed_text_gives_back_what_was_written_in_its_order(pairs):
    assert list(keyvalue.load(keyvalue.dump(pairs.items())).items()) == list(pairs.items())


def test_last_line_is_the_checksum_of_all_bytes_before_it():
    text = keyvalue.dump([("a", "1"), ("b", "x y")])
    assert text == seal(b"a=1\nb=x y\n")


def test_text_cut_anywhere_is_torn():
    text = keyvalue.dump([("a", "1"), ("end2", "x\nend=1")])
    for length in range(len(text)):
        with pytest.raises(FormatError):
            keyvalue.load(text[:length])


@given(st.data())
def test_text_with_one_byte_changed_is_refused(data):
    text = bytearray(keyvalue.dump([("name", "0123.fits"), ("inst", "minicam")]))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError):
        keyvalue.load(bytes(text))


@pytest.mark.parametrize(
    "body, reason",
    [
        (b"a=1\na=2\n", "repeated keyword: a"),
        (b"end=1\n", "repeated keyword: end"),
        (b"a\n", "not a keyword=value line"),
        (b"\n", "not a keyword=value line"),
        (b"=1\n", "not a keyword=value line"),
        (b"1a=1\n", "not a keyword=value line"),
        (b"a b=1\n", "not a keyword=value line"),
        (b" a=1\n", "not a keyword=value line"),
        ("ä=1\n".encode(), "not a keyword=value line"),
        (b"a=1\r\n", "control character"),
        (b"a=\x1b[2J\n", "control character"),
        (b"a=\xc2\x85\n", "control character"),
        (b"a=\xff\n", "not UTF-8"),
        (b"a=100%\n", "two hex digits"),
        (b"a=%0g\n", "two hex digits"),
        (b"a=" + b"x" * 65536 + b"\n", "longer than 65536 bytes"),
    ],
)
def test_sealed_nonsense_is_refused_with_its_reason(body, reason):
    with pytest.raises(FormatError, match=re.escape(reason)):
        keyvalue.load(seal(body))


@given(st.binary(max_size=2000) | st.binary(max_size=500).map(seal))
@example(b"end=")
@example(b"\nend=\n")
def test_reader_raises_nothing_but_format_error(text):
    try:
        pairs = keyvalue.load(text)
    except FormatError:
        return
    assert all(keyvalue.KEYWORD.fullmatch(keyword) for keyword in pairs)


@given(st.text(max_size=100))
def test_unquote_raises_nothing_but_format_error(text):
    try:
        keyvalue.unquote(text.encode("utf-8", "ignore").decode())
    except FormatError:
        pass


def test_text_of_64_kib_is_written_and_read_and_one_byte_more_is_not():
    room = keyvalue.LIMIT - len(keyvalue.dump([("a", "")]))
    assert len(keyvalue.dump([("a", "x" * room)])) == keyvalue.LIMIT
    assert keyvalue.load(keyvalue.dump([("a", "x" * room)])) == {"a": "x" * room}
    with pytest.raises(FormatError, match="longer than 65536 bytes"):
        keyvalue.dump([("a", "x" * (room + 1))])


@given(values)
def test_nothing_printed_acts_on_the_terminal(value):
    shown = keyvalue.printable(value)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert keyvalue.printable(shown) == shown


def test_printable_shows_what_a_terminal_would_obey():
    assert keyvalue.printable("a b ü…") == "a b ü…"
    assert keyvalue.printable("\x1b]0;x\x07") == "%1B]0;x%07"
    assert keyvalue.printable("\u202egnp.exe") == "%E2%80%AEgnp.exe"
    assert keyvalue.printable(keyvalue.from_bytes(b"n\n\xff")) == "n%0A%FF"


def test_only_names_the_keyword_that_is_not_known():
    keyvalue.only({"a": "1"}, ("a", "b"))
    with pytest.raises(FormatError, match="unknown keyword: c"):
        keyvalue.only({"a": "1", "c": "2"}, ("a", "b"))


def test_line_separators_may_stand_as_themselves_in_what_others_wrote():
    assert keyvalue.unquote("a\u2028b") == "a\u2028b"  # no control character, so no error

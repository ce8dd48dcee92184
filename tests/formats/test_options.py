"""Options of the form keyword=value, as lp -o takes them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.errors import FormatError, UsageError
from lpxfer.formats import options

SYSTEM = ["format", "job", "uid", "host", "user", "queue", "submitted", "name", "path", "size",
          "mtime", "checksum", "priority", "xfer_start", "xfer_end", "xfer_seconds", "attempts",
          "xfer_codec", "xfer_size", "end"]  # fmt: skip


def test_options_repeat_or_are_joined_by_commas():
    separate = options.parse(["inst=minicam", "maxftp=0"])
    assert separate == options.parse(["inst=minicam,maxftp=0"])
    assert (separate.inst, separate.maxftp) == ("minicam", "0")


def test_last_of_a_repeated_option_wins():
    assert options.parse(["inst=a", "inst=b"]).inst == "b"
    assert options.parse(["inst=a,inst=b"]).inst == "b"
    assert options.parse(["x=1,y=2", "x=3"]).others == {"y": "2", "x": "3"}


def test_instrument_is_inst_and_the_last_of_both_wins():
    assert options.parse(["instrument=a"]).inst == "a"
    assert options.parse(["instrument=a", "inst=b"]).inst == "b"
    assert options.parse(["inst=b", "instrument=a"]).inst == "a"
    assert options.parse(["inst=b", "instrument=a"]).others == {}


def test_comma_always_separates_and_percent_2c_is_one_in_a_value():
    assert options.parse(["a=x%2Cy%2cz,b=1"]).others == {"a": "x,y,z", "b": "1"}
    with pytest.raises(UsageError, match=re.escape('"-o b" is not keyword=value')):
        options.parse(["a=x,b"])


def test_other_keywords_travel_untouched_in_their_case_and_order():
    asked = options.parse(
        ["Observer=B. Wyatt", "PROG_ID=2003a-12", "a.b-c=100%", "empty=", "e=1=2"]
    )
    assert list(asked.others.items()) == [
        ("Observer", "B. Wyatt"), ("PROG_ID", "2003a-12"), ("a.b-c", "100%"), ("empty", ""),
        ("e", "1=2"),
    ]  # fmt: skip


def test_routing_keywords_are_kept_apart():
    asked = options.parse(["remhost=h,rempath=/p,remuser=u,rempw=file:/etc/pw,x=1"])
    assert asked.routing == {
        "remhost": "h", "rempath": "/p", "remuser": "u", "rempw": "file:/etc/pw",
    }  # fmt: skip
    assert asked.others == {"x": "1"}


@pytest.mark.parametrize("password", ["secret", "", "/etc/pw", "file", "file:", "FILE:/etc/pw"])
def test_literal_password_is_refused_with_the_reason_and_the_safe_way(password):
    with pytest.raises(UsageError) as refusal:
        options.parse([f"rempw={password}"])
    assert "can be read by everybody on this machine" in str(refusal.value)
    assert "rempw=file:/path/to/it" in str(refusal.value)
    assert "0600" in str(refusal.value)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("keyword", SYSTEM)
def test_the_systems_own_keywords_are_refused(keyword):
    with pytest.raises(UsageError, match=f'"{keyword}" is set by the system') as refusal:
        options.parse([f"{keyword}=1"])
    assert refusal.value.exit_status == 2


def test_priority_is_refused_with_a_word_for_the_right_switch():
    with pytest.raises(UsageError, match="use -q"):
        options.parse(["priority=3"])


@pytest.mark.parametrize("argument", ["", "inst", "=x", "1a=x", "a b=x", "inst=a,", "ä=1", "a\n=1"])
def test_what_is_not_keyword_and_value_is_refused(argument):
    with pytest.raises(UsageError, match="is not keyword=value; write %2C for a comma"):
        options.parse([argument])


def test_refusal_cannot_act_on_the_terminal():
    with pytest.raises(UsageError) as refusal:
        options.parse(["\x1b[2J"])
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "argument",
    ["dir=../../etc", "dir=/etc", "dir=", "dir=xferlogs", "inst=", "inst=a/b", "inst=.a",
     "maxftp=", "maxftp=-1", "maxftp=soon", "maxftp=1e9", "maxftp=inf", "maxftp=1.2345"],
)  # fmt: skip
def test_what_no_sweep_would_accept_is_refused_at_once(argument):
    with pytest.raises(UsageError, match=argument.partition("=")[0]):
        options.parse([argument])


@pytest.mark.parametrize("text, seconds", [("0", 0), ("600", 600), ("1.5", 1.5)])
def test_maxftp_is_a_number_of_seconds_and_kept_as_given(text, seconds):
    assert options.check_maxftp(text) == seconds
    assert options.parse([f"maxftp={text}"]).maxftp == text


@given(st.lists(st.text(max_size=80) | st.from_regex(r"[a-z]{1,8}=[a-z,=%/.]*", fullmatch=True)))
def test_reader_raises_nothing_but_usage_error(arguments):
    try:
        asked = options.parse(arguments)
    except UsageError:
        return
    assert not asked.others.keys() & (options.ROUTING | options.SYSTEM)


@given(st.text(max_size=30))
def test_maxftp_raises_nothing_but_format_error(text):
    try:
        assert 0 <= options.check_maxftp(text) < 1e9
    except FormatError:
        pass

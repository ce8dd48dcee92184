"""The keys of an instrument that xfer-watch reads."""

import re

import pytest

from lpxfer.errors import FormatError
from lpxfer.formats import watching
from lpxfer.formats.watching import Finished, Match, name_of, recipe


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("close", Finished(close=True)),
        ("fits", Finished(fits=True)),
        ("fits, age 30s", Finished(fits=True, age=30.0)),
        ("age 0", Finished(age=0.0)),
        ("flag .done", Finished(flag=".done")),
    ],
)
def test_rules_of_finished(text: str, meant: Finished) -> None:
    assert watching.finished(text) == meant


@pytest.mark.parametrize(
    "text", ["", "closed", "age", "age soon", "flag", "flag a/b", "close fits"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        watching.finished(text)


def test_directories_may_have_blanks_in_quotes() -> None:
    assert watching.directories("/data/a '/data/b c/'") == ["/data/a", "/data/b c"]


@pytest.mark.parametrize("text", ["data", "/data /data", "/data /data/x", "'/data", "/ /x"])
def test_directories_that_cannot_be_watched_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        watching.directories(text)


def test_match_takes_and_leaves_names() -> None:
    usual, fits = Match("* !*~ !*.part !*.tmp"), Match("*.fits *.fz !*_test.fits")
    assert [name for name in ("a", "a.fits", "a~", "a.part", "x.tmp", ".a") if usual(name)] == [
        "a",
        "a.fits",
    ]
    assert [name for name in ("a.fits", "a.fz", "b_test.fits", "a.txt", ".b.fits")
            if fits(name)] == ["a.fits", "a.fz"]  # fmt: skip
    assert Match("!*.log")("a.fits") and not Match("!*.log")("a.log")


@pytest.mark.parametrize(
    ("template", "value", "name"),
    [
        ("%s", "kb0001.fits", "kb0001.fits"),
        ("%s", " kb0001.fits\0", "kb0001.fits"),
        ("%s.fits", "kb0001", "kb0001.fits"),
        ("kb%05d.fits", 42, "kb00042.fits"),
        ("kb%05d.fits", "42.0", "kb00042.fits"),
        ("kb%d.fits", "none", None),
        ("kb%d.fits", float("inf"), None),
        ("kb%d.fits", -1, None),
        ("%s", "", None),
        ("%s", "a\0b", None),
    ],
)
def test_name_of_a_frame(template: str, value: object, name: str | None) -> None:
    assert name_of(watching.frame(template), value) == name


@pytest.mark.parametrize("template", ["", "kb.fits", "%s%s", "%x", "100%", "%s %%", "%123d"])
def test_template_of_a_frame_has_one_place(template: str) -> None:
    with pytest.raises(FormatError):
        watching.frame(template)


def test_options_come_from_path_and_header() -> None:
    made = recipe(
        "{camera}",
        "{fits.PRIORITY}",
        "inst=kcwi,night={night},Observer=by {fits.OBSERVER},site=mko",
        r"(?P<night>\d+)/(?P<camera>[a-z]+)",
    )
    assert made.wants_header
    cards = {"PRIORITY": "70", "OBSERVER": "B. Wyatt, K. Lo"}
    assert made.make("2003/blue0001.fits", cards.get) == (
        "blue",
        "70",
        {"inst": "kcwi", "night": "2003", "Observer": "by B. Wyatt, K. Lo", "site": "mko"},
    )


def test_option_whose_value_is_not_there_is_left_out() -> None:
    made = recipe("archive", "{fits.PRIORITY}", "a={fits.A},b={n}", "(?P<n>[0-9]+)?")
    assert made.make("x", {"A": ""}.get) == ("archive", "", {})


@pytest.mark.parametrize("queue", ["", "A b", "../x"])
def test_queue_that_is_none_is_refused(queue: str) -> None:
    with pytest.raises(FormatError):
        recipe("{fits.Q}", "", "", "").make("x", {"Q": queue}.get)


@pytest.mark.parametrize(
    ("priority", "asked", "expression"),
    [
        ("0", "", ""),
        ("", "size=1", ""),
        ("", "size={fits.A}", ""),
        ("", "rempw={fits.A}", ""),
        ("", "night={night}", ""),
        ("", "night={night}", "(?P<day>.)"),
        ("", "night", ""),
        ("", "dir=../x", ""),
        ("", "", "("),
    ],
)
def test_recipe_that_cannot_be_is_refused(priority: str, asked: str, expression: str) -> None:
    with pytest.raises(FormatError):
        recipe("archive", priority, asked, expression)


def test_patterns_are_for_names() -> None:
    with pytest.raises(FormatError, match=re.escape("without /")):
        Match("a/*.fits")

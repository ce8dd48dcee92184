"""Names that cross a border."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats import keyvalue, names

NOW = datetime(2026, 11, 20, 4, 5, 6, tzinfo=UTC)
UID = "20261120T040506Z-telescope-archive-1042-0a1b2c3d"

CHECKS = [
    names.check_queue,
    names.check_host,
    names.check_instrument,
    names.check_ssh_host,
    names.check_ssh_user,
    names.split_request_id,
    names.check_uid,
    names.check_dir,
    names.check_name,
]


@pytest.mark.parametrize("name", ["a", "archive", "a_1", "a" + "b" * 31])
def test_queue_name_is_a_letter_then_letters_digits_and_underscores(name):
    assert names.check_queue(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "_a", "a-b", "a.b", "a/b", "a" * 33, "a\n", "ä"])
def test_other_queue_names_are_refused(name):
    with pytest.raises(FormatError, match="bad queue name"):
        names.check_queue(name)


@pytest.mark.parametrize("name", ["a", "Z-9", "x" * 63])
def test_host_name_is_up_to_63_letters_digits_and_dashes(name):
    assert names.check_host(name) == name


@pytest.mark.parametrize("name", ["", "a.b", "a_b", "x" * 64, "accepts", "a\n", "ä", "../x"])
def test_other_host_names_are_refused(name):
    with pytest.raises(FormatError, match="bad host name"):
        names.check_host(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "x" * 65, "a b", "a\n", "ä"])
def test_instrument_that_could_not_stand_in_a_path_is_refused(name):
    with pytest.raises(FormatError, match="bad instrument name"):
        names.check_instrument(name)


@pytest.mark.parametrize(
    "name",
    ["archive", "archive.example.edu", "archive_1", "a-b", "192.0.2.1", "::1", "fe80::1%eth0"],
)
def test_host_that_ssh_may_be_given_is_a_name_or_an_address(name):
    assert names.check_ssh_host(name) == name


@pytest.mark.parametrize(
    "name", ["", "-", "--", "-oProxyCommand=touch x", "a b", "$(id)", "a;id", "root@host", "%h",
             "ssh://host", "a/b", "`id`", "a|b", "a'b", 'a"b', "a\\b", "a\n", "ä", "x" * 400],
)  # fmt: skip
def test_host_that_would_be_an_option_or_a_word_of_a_shell_is_refused(name):
    with pytest.raises(FormatError, match="is not a host that ssh may be given"):
        names.check_ssh_host(name)


@pytest.mark.parametrize("name", ["tdcin", "lpxfer-deposit", "a.b", "x@REALM.ORG", "_a+1"])
def test_user_that_ssh_may_be_given_is_a_plain_name(name):
    assert names.check_ssh_user(name) == name


@pytest.mark.parametrize(
    "name", ["", "-l", "-oProxyCommand=touch x", "a b", "$(id)", "a;id", "%r", "a'b", "a\n", "@a"]
)
def test_user_that_would_be_an_option_or_a_word_of_a_shell_is_refused(name):
    with pytest.raises(FormatError, match="is not a user that ssh may be given"):
        names.check_ssh_user(name)


def test_request_id_is_split_into_queue_and_number():
    assert names.split_request_id("archive-1042") == ("archive", 1042)
    assert names.split_request_id("a_b-999999999999999") == ("a_b", 999999999999999)


@pytest.mark.parametrize(
    "text", ["", "archive", "archive-", "archive-0", "archive-01", "-1", "a-1\n", "a-" + "9" * 16]
)
def test_other_request_ids_are_refused(text):
    with pytest.raises(FormatError, match="not a request id such as archive-1042"):
        names.split_request_id(text)


def test_uid_is_time_host_request_id_and_eight_random_digits():
    uid = names.make_uid(NOW, "telescope", "archive-1042", bytes.fromhex("0a1b2c3d"))
    assert uid == UID
    assert names.check_uid(uid) == uid
    match = names.UID.fullmatch(uid)
    assert match and match.groups() == ("telescope", "archive-1042")


def test_uids_sort_by_time():
    later = names.make_uid(NOW.replace(year=2027), "a", "a-1", b"\0\0\0\0")
    assert sorted([later, UID]) == [UID, later]


@given(
    st.from_regex(names.HOST, fullmatch=True),
    st.from_regex(names.REQUEST_ID, fullmatch=True),
    st.binary(min_size=4, max_size=4),
)
def test_every_uid_is_one_safe_wire_name(host, request_id, random):
    uid = names.check_uid(names.make_uid(NOW, host, request_id, random))
    assert re.fullmatch(r"[A-Za-z0-9._-]+", uid)
    match = names.UID.fullmatch(uid)
    assert match and match[2] == request_id
    assert len(names.part(uid + names.CONTROL)) <= names.NAME_LIMIT


@pytest.mark.parametrize(
    "uid",
    [
        "",
        UID + "\n",
        UID + "x",
        UID.upper(),
        "../" + UID,
        UID.replace("telescope", "t/x"),
        UID[:-1],
    ],
)
def test_other_uids_are_refused(uid):
    with pytest.raises(FormatError, match="bad uid"):
        names.check_uid(uid)


def test_part_name_is_hidden():
    assert names.part(UID + ".data") == f".{UID}.data.part"


@pytest.mark.parametrize(
    "path, components",
    [
        ("2002.0523", ("2002.0523",)),
        ("a/b-c/d_e.f", ("a", "b-c", "d_e.f")),
        ("a/xferlogs", ("a", "xferlogs")),
        ("x" * 64, ("x" * 64,)),
    ],
)
def test_dir_is_split_into_its_components(path, components):
    assert names.check_dir(path) == components


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc", "../../etc", "a/../b", "a//b", "a/", "./a", ".a", "a/.b", "x" * 65, "a b",
     "a\n", "ä", "xferlogs", "quarantine/x", "receipts", "/".join(["a"] * 600)],
)  # fmt: skip
def test_dir_that_no_sweep_would_make_is_refused(path):
    with pytest.raises(FormatError, match="dir"):
        names.check_dir(path)


@pytest.mark.parametrize(
    "raw", [b"a", b"a b", b"n\nl", b"\xff\xfe", "ü…".encode(), b"x" * 255, b"-rf", b"%41", b"a."]
)
def test_name_of_a_file_is_any_255_bytes(raw):
    name = keyvalue.from_bytes(raw)
    assert names.check_name(name) == name


@pytest.mark.parametrize("raw", [b"", b".", b"..", b".a", b"a/b", b"/", b"a\0b", b"x" * 256])
def test_name_that_could_not_be_placed_is_refused(raw):
    with pytest.raises(FormatError, match="name"):
        names.check_name(keyvalue.from_bytes(raw))


@pytest.mark.parametrize(
    "name, placed",
    [
        ("0123.fits", f"0123.{UID}.fits"),
        ("0123.fits.fz", f"0123.{UID}.fits.fz"),
        ("0123", f"0123.{UID}"),
        ("0123.", f"0123.{UID}."),
    ],
)
def test_taken_name_gets_the_uid_between_stem_and_suffixes(name, placed):
    assert names.renamed(name, UID) == placed


@given(st.binary(min_size=1, max_size=255).filter(lambda b: b[:1] != b"." and not {0, 47} & {*b}))
def test_renamed_file_can_be_placed_too(raw):
    placed = names.renamed(names.check_name(keyvalue.from_bytes(raw)), UID)
    assert names.check_name(placed)
    assert UID in placed
    assert placed == names.renamed(keyvalue.from_bytes(raw), UID)


def test_request_ids_are_joined_in_runs_without_gaps():
    ids = ["a-1", "a-2", "a-3", "a-7", "a-9", "a-10"]
    assert list(names.runs(ids)) == [("a-1", "a-3", 3), ("a-7", "a-7", 1), ("a-9", "a-10", 2)]
    assert list(names.runs([])) == []


@pytest.mark.parametrize("check", CHECKS)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])) | st.binary().map(keyvalue.from_bytes)
)
def test_checks_raise_nothing_but_format_error(check, text):
    try:
        check(text)
    except FormatError:
        pass

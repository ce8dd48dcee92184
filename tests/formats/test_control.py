"""The control file."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats import control, keyvalue, names, options
from lpxfer.formats.control import Control, Encoding, Transfer

NOW = datetime(2003, 4, 2, 5, 12, 33, 120_000, tzinfo=UTC)
SHA = "sha256:" + hashlib.sha256(b"").hexdigest()

KNOWN = Control(
    job="archive-1042",
    uid="20030402T051233Z-mmto-archive-1042-0a1b2c3d",
    host="mmto",
    user="mcam",
    queue="archive",
    submitted=NOW,
    name="0123.fits",
    path="/h/ARCHMINICAM/2002.0523/0123.fits",
    size=0,
    mtime_ns=1_049_260_353_123_456_789,
    checksum=SHA,
    inst="minicam",
)
FULL = replace(
    KNOWN,
    priority=70,
    maxftp="60",
    dir="a/b",
    others={"Observer": "B. Wyatt", "x": "1,2\n"},
    transfer=Transfer(NOW, NOW.replace(minute=13), 27.125, 3),
)

ENCODED = replace(FULL, transfer=replace(FULL.transfer, encoding=Encoding("blosc2", 17)))

values = st.binary(max_size=100).map(keyvalue.from_bytes)
others = st.dictionaries(
    st.from_regex(keyvalue.KEYWORD, fullmatch=True).filter(
        lambda word: word not in options.SYSTEM | options.ROUTING | {"inst", "maxftp", "dir"}
    ),
    values,
    max_size=5,
)
controls = st.builds(
    replace,
    st.just(KNOWN),
    user=values,
    name=values,
    path=values,
    size=st.integers(0, 10**18 - 1),
    mtime_ns=st.integers(-(10**18), 10**19),
    inst=st.from_regex(names.INSTRUMENT, fullmatch=True),
    priority=st.none() | st.integers(1, 100),
    maxftp=st.sampled_from([None, "0", "600", "1.5"]),
    dir=st.none() | values,
    others=others,
    transfer=st.sampled_from([None, FULL.transfer, ENCODED.transfer]),
)


def changed(**pairs: str | None) -> bytes:
    """Write a control file with keywords added, changed, or left out (None)."""
    all_pairs = keyvalue.load(control.dump(FULL)) | pairs
    return keyvalue.dump((k, v) for k, v in all_pairs.items() if v is not None)


@given(controls)
def test_control_file_gives_back_what_was_written(known):
    assert control.load(control.dump(known)) == known


def test_control_file_is_written_as_its_page_says():
    assert control.dump(FULL).decode().splitlines()[:-1] == [
        "format=1",
        "job=archive-1042",
        "uid=20030402T051233Z-mmto-archive-1042-0a1b2c3d",
        "host=mmto",
        "user=mcam",
        "queue=archive",
        "submitted=2003-04-02T05:12:33.120Z",
        "name=0123.fits",
        "path=/h/ARCHMINICAM/2002.0523/0123.fits",
        "size=0",
        "mtime=2003-04-02T05:12:33.123456789Z",
        f"checksum={SHA}",
        "inst=minicam",
        "priority=70",
        "maxftp=60",
        "dir=a/b",
        "Observer=B. Wyatt",
        "x=1,2%0A",
        "xfer_start=2003-04-02T05:12:33.120Z",
        "xfer_end=2003-04-02T05:13:33.120Z",
        "xfer_seconds=27.125",
        "attempts=3",
    ]


def test_sender_adds_the_transfer_and_changes_nothing_else():
    before = control.dump(KNOWN).splitlines()
    after = control.dump(KNOWN.with_transfer(FULL.transfer)).splitlines()
    assert after[: len(before) - 1] == before[:-1]
    assert [line.partition(b"=")[0] for line in after[len(before) - 1 :]] == [
        b"xfer_start", b"xfer_end", b"xfer_seconds", b"attempts", b"end",
    ]  # fmt: skip


def test_encoding_follows_the_transfer_and_changes_nothing_else():
    plain, encoded = control.dump(FULL).splitlines(), control.dump(ENCODED).splitlines()
    assert encoded[:-1] == plain[:-1] + [b"xfer_codec=blosc2", b"xfer_size=17"]
    read = control.load(control.dump(ENCODED))
    assert (read.encoding, read.wire_size) == (Encoding("blosc2", 17), 17)
    assert (read.size, read.checksum) == (FULL.size, FULL.checksum)


def test_plain_file_has_its_own_size_on_the_wire():
    for plain in (replace(KNOWN, size=99), replace(FULL, size=99)):
        assert (plain.encoding, plain.wire_size) == (None, 99)


@pytest.mark.parametrize(
    "mine",
    [
        {"xfer_codec": "h264"},
        {"xfer_codec": "blosc2"},
        {"xfer_size": "17"},
        {"xfer_codec": "blosc2", "xfer_size": "17"},
        {"xfer_size": "17", "xfer_codec": "blosc2"},
        {"codec": "blosc2", "wire_size": "17"},
    ],
)
def test_keywords_of_encoding_that_an_older_submit_let_a_user_have_stay_the_users(mine):
    for transfer in (None, FULL.transfer):
        plain = replace(FULL, others=mine, transfer=transfer)
        assert control.load(control.dump(plain)) == plain
        assert plain.wire_size == plain.size


def test_file_whose_user_has_a_keyword_of_encoding_cannot_be_encoded():
    assert KNOWN.may_be_encoded and FULL.may_be_encoded
    for keyword in ("xfer_codec", "xfer_size"):
        taken = replace(ENCODED, others={keyword: "x"})
        assert not taken.may_be_encoded
        with pytest.raises(FormatError, match="send it plain"):
            control.dump(taken)


def ordered(order: str) -> bytes:
    """Write a control file whose sender's keywords stand in this order."""
    pairs = keyvalue.load(control.dump(ENCODED))
    sender = [(keyword, pairs.pop(keyword)) for keyword in order.split()]
    for keyword in "xfer_codec xfer_size".split():
        pairs.pop(keyword, None)
    return keyvalue.dump([*pairs.items(), *sender])


@pytest.mark.parametrize(
    "order",
    [
        "xfer_codec xfer_size xfer_start xfer_end xfer_seconds attempts",
        "xfer_start xfer_end xfer_seconds attempts xfer_size xfer_codec",
        "xfer_start xfer_end xfer_seconds attempts xfer_codec",
        "xfer_start xfer_end xfer_seconds attempts xfer_size",
        "xfer_start xfer_end xfer_seconds xfer_codec xfer_size attempts",
        "xfer_start xfer_end xfer_seconds attempts xfer_codec xfer_size priority",
    ],
)
def test_only_both_keywords_in_the_senders_place_say_that_a_file_is_encoded(order):
    assert control.load(ordered(order)).encoding is None
    right = "xfer_start xfer_end xfer_seconds attempts xfer_codec xfer_size"
    assert control.load(ordered(right)) == ENCODED


@pytest.mark.parametrize("size", ["", "-1", "1.0", "0x10", " 1", "1" * 19, "²"])
def test_size_on_the_wire_that_is_no_number_is_refused(size):
    with pytest.raises(FormatError, match="xfer_size is not a number"):
        control.load(changed_encoding(xfer_size=size))


@pytest.mark.parametrize("codec", ["blosc3", "", "Blosc2", "blosc2 "])
def test_whole_control_file_of_another_codec_is_unknown_not_damaged(codec):
    with pytest.raises(control.UnknownFormat, match="is not known here"):
        control.load(changed_encoding(xfer_codec=codec))


def changed_encoding(**pairs: str) -> bytes:
    return keyvalue.dump((keyvalue.load(control.dump(ENCODED)) | pairs).items())


def test_what_the_sender_adds_fits_into_the_room_that_submit_leaves():
    longest = Transfer(NOW, NOW, 999_999_999.999, 10**17, Encoding("blosc2", 10**18 - 1))
    added = len(control.dump(KNOWN.with_transfer(longest))) - len(control.dump(KNOWN))
    assert added < control.WIRE_ROOM


@pytest.mark.parametrize(
    "keyword",
    [
        *"format job uid host user queue submitted name path size mtime checksum inst".split(),
        *"xfer_start xfer_end xfer_seconds attempts".split(),
    ],
)
def test_missing_keyword_is_named(keyword):
    with pytest.raises(FormatError, match=f"keyword {keyword} is missing"):
        control.load(changed(**{keyword: None}))


@pytest.mark.parametrize("said", ["2", "", "1 ", "01"])
def test_whole_control_file_of_another_format_is_unknown_not_damaged(said):
    with pytest.raises(control.UnknownFormat, match="is not known here"):
        control.load(changed(format=said))
    with pytest.raises(FormatError) as torn:
        control.load(changed(format=said)[:-1])
    assert not isinstance(torn.value, control.UnknownFormat)


@pytest.mark.parametrize(
    "keyword, value",
    [
        ("uid", "../x"),
        ("host", "a/b"),
        ("queue", "Archive"),
        ("queue", "other"),
        ("job", "archive"),
        ("job", "other-1042"),
        ("job", "archive-1043"),
        ("host", "elsewhere"),
        ("submitted", "yesterday"),
        ("size", "-1"),
        ("size", "1.5"),
        ("size", ""),
        ("size", "9" * 19),
        ("size", "٣"),
        ("mtime", "2003-04-02"),
        ("checksum", "md5:00"),
        ("checksum", SHA.upper()),
        ("inst", "../x"),
        ("priority", "0"),
        ("priority", "101"),
        ("priority", "00500"),
        ("priority", "x"),
        ("maxftp", "soon"),
        ("xfer_start", "now"),
        ("xfer_seconds", "-1"),
        ("xfer_seconds", "inf"),
        ("xfer_seconds", "9" * 400),
        ("attempts", "9" * 5000),
        ("remhost", "evil.example"),
        ("rempw", "file:/etc/pw"),
    ],
)
def test_bad_value_is_refused(keyword, value):
    with pytest.raises(FormatError):
        control.load(changed(**{keyword: value}))


def test_bad_dir_and_name_are_left_to_the_sweep_that_quarantines_them():
    known = control.load(changed(dir="../../etc", name=".bashrc"))
    assert (known.dir, known.name) == ("../../etc", ".bashrc")


lines = st.lists(
    st.tuples(
        st.sampled_from([*options.SYSTEM - {"end"}, "inst", "maxftp", "dir", "remhost", "x"]),
        values | st.sampled_from(["1", "archive-1", "a", NOW.isoformat(), SHA, "9" * 30]),
    ),
    unique_by=lambda pair: pair[0],
)


@given(st.binary(max_size=500) | lines.map(keyvalue.dump))
@example(b"")
def test_reader_raises_nothing_but_format_error(text):
    try:
        control.load(text)
    except FormatError:
        pass


@given(st.dictionaries(st.sampled_from(sorted(options.SYSTEM - {"end"})), values, max_size=3))
def test_reader_of_a_nearly_right_file_raises_nothing_but_format_error(pairs):
    try:
        control.load(changed(**pairs))
    except FormatError:
        pass


@pytest.mark.parametrize("text, priority", [("1", 1), ("50", 50), ("100", 100)])
def test_priority_is_a_number_from_1_to_100(text, priority):
    assert control.check_priority(text) == priority


@given(st.text(max_size=20) | st.text("0123456789", max_size=5000))
def test_priority_raises_nothing_but_format_error(text):
    try:
        assert 1 <= control.check_priority(text) <= 100
    except FormatError:
        pass


def test_uid_of_a_host_whose_name_ends_alike_is_refused():
    uid = "20030402T051233Z-other-mmto-archive-1042-0a1b2c3d"
    with pytest.raises(FormatError, match="is not of mmto archive-1042"):
        control.load(changed(uid=uid))

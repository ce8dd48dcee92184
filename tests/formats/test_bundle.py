"""The bundle: its control file, its index, and where each member's bytes are."""

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer import checksum
from lpxfer.errors import FormatError
from lpxfer.formats import bundle, control, keyvalue
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.control import Control, Transfer, UnknownFormat

NOW = datetime(2003, 4, 2, 5, 12, 33, 120_000, tzinfo=UTC)
LATER = NOW + timedelta(seconds=2)
UID = "20030402T051233Z-mmto-archive-1-ffffffff"


def job(number: int, size: int = 100, **fields: object) -> Control:
    """Return what the spool knows of a job."""
    known = Control(
        job=f"archive-{number}", uid=f"20030402T051233Z-mmto-archive-{number}-{number:08x}",
        host="mmto", user="mcam", queue="archive", submitted=NOW, name=f"{number}.fits",
        path=f"/h/{number}.fits", size=size, mtime_ns=1_049_260_353_123_456_789,
        checksum="sha256:" + hashlib.sha256(b"").hexdigest(), inst="minicam",
    )  # fmt: skip
    return replace(known, **fields)  # type: ignore[arg-type]


def index_of(jobs: list[Control], attempts: int = 1) -> bytes:
    """Return the index of a bundle."""
    return b"".join(bundle.entry(control.dump(known), known.size, attempts) for known in jobs)


def bundle_of(jobs: list[Control], index: bytes, **fields: object) -> Bundle:
    """Return a bundle with this index."""
    size = len(index) + sum(known.size for known in jobs)
    transfer = Transfer(NOW, LATER, 2.0, 1)
    digest = checksum.of_bytes(index)
    known = Bundle(UID, "mmto", "minicam", len(jobs), len(index), size, digest, transfer)
    return replace(known, **fields)  # type: ignore[arg-type]


JOBS = [job(1, 100), job(2, 0), job(3, 300, name="raw\udcff\n")]
INDEX = index_of(JOBS)
KNOWN = bundle_of(JOBS, INDEX)


# --- its control file -------------------------------------------------------------------------


def load(text: bytes) -> Bundle:
    pairs = keyvalue.load(text)
    assert bundle.is_bundle(pairs)
    return bundle.parse(pairs)


def changed(**pairs: str | None) -> bytes:
    """Write a control file with keywords added, changed, or left out (None)."""
    all_pairs = keyvalue.load(bundle.dump(KNOWN)) | pairs
    return keyvalue.dump((k, v) for k, v in all_pairs.items() if v is not None)


def test_control_file_gives_back_what_was_written() -> None:
    assert load(bundle.dump(KNOWN)) == KNOWN


def test_control_file_is_written_as_its_page_says() -> None:
    assert bundle.dump(KNOWN).decode().splitlines()[:-1] == [
        "format=1", "kind=bundle", f"uid={UID}", "host=mmto", "inst=minicam", "members=3",
        f"index={len(INDEX)}", f"size={len(INDEX) + 400}", f"checksum={KNOWN.checksum}",
        "xfer_start=2003-04-02T05:12:33.120Z", "xfer_end=2003-04-02T05:12:35.120Z",
        "xfer_seconds=2.000", "attempts=1",
    ]  # fmt: skip


def test_no_file_is_a_bundle_and_no_bundle_is_a_file() -> None:
    file = control.dump(job(1, others={"kind": "bundle"}))
    assert not bundle.is_bundle(keyvalue.load(file))
    assert control.load(file).others == {"kind": "bundle"}
    with pytest.raises(FormatError, match="keyword job is missing"):
        control.load(bundle.dump(KNOWN))


@pytest.mark.parametrize("keyword", sorted(keyvalue.load(bundle.dump(KNOWN))))
def test_every_keyword_must_be_there(keyword: str) -> None:
    if keyword in ("format", "kind"):
        assert keyword == "format" or not bundle.is_bundle(keyvalue.load(changed(kind=None)))
    with pytest.raises(FormatError, match=f"keyword {keyword} is missing"):
        bundle.parse(keyvalue.load(changed(**{keyword: None})))


def test_all_transfer_keywords_must_be_there() -> None:
    none = dict.fromkeys(("xfer_start", "xfer_end", "xfer_seconds", "attempts"))
    with pytest.raises(FormatError, match="keyword xfer_start is missing"):
        load(changed(**none))


@pytest.mark.parametrize(
    "pairs",
    [
        {"uid": "x"}, {"uid": UID.replace("mmto", "other")}, {"host": "accepts"}, {"host": "mmt"},
        {"inst": "../x"}, {"members": "0"}, {"members": "1001"}, {"members": "-1"},
        {"members": "x"}, {"index": "2097153"}, {"index": "9" * 18}, {"size": "0"},
        {"size": str(len(INDEX) - 1)}, {"size": "9" * 18}, {"size": "9" * 19},
        {"checksum": "md5:0"}, {"checksum": ""}, {"name": "x"}, {"codec": "blosc2"},
        {"attempts": "x"}, {"xfer_seconds": "inf"}, {"xfer_start": "now"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_bundle_is_refused(pairs: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        load(changed(**pairs))


def test_another_format_is_told_from_what_is_none() -> None:
    with pytest.raises(UnknownFormat):
        load(changed(format="2"))


def test_a_bundle_may_have_so_many_members_and_bytes_and_no_more() -> None:
    most = (bundle.MEMBERS_MOST, bundle.INDEX_MOST, bundle.DATA_MOST)
    assert bundle.fits(*most) and bundle.fits(1, 1, 0) and not bundle.fits(0, 0, 0)
    for at in range(3):
        assert not bundle.fits(*(number + (n == at) for n, number in enumerate(most)))


# --- its index --------------------------------------------------------------------------------


def test_members_are_found_with_their_bytes_and_their_share_of_the_time() -> None:
    found = bundle.members(KNOWN, INDEX)
    assert [member.control.with_transfer(None) for member in found] == JOBS  # type: ignore[arg-type]
    starts = [len(INDEX), len(INDEX) + 100, len(INDEX) + 100]
    assert [(member.offset, member.size) for member in found] == list(
        zip(starts, (100, 0, 300), strict=True)
    )
    times = [member.control.transfer for member in found]
    assert times == [Transfer(NOW, LATER, seconds, 1) for seconds in (0.5, 0.0, 1.5)]


def test_each_member_has_its_own_attempts() -> None:
    index = index_of(JOBS[:1], 1) + index_of(JOBS[1:], 7)
    found = bundle.members(bundle_of(JOBS, index), index)
    assert [m.control.transfer.attempts for m in found if m.control.transfer] == [1, 7, 7]


def test_members_without_a_byte_share_the_time_alike() -> None:
    jobs = [job(1, 0), job(2, 0)]
    index = index_of(jobs)
    found = bundle.members(bundle_of(jobs, index), index)
    assert [m.control.transfer.seconds for m in found if m.control.transfer] == [1.0, 1.0]


def test_as_many_members_as_there_may_be_are_read() -> None:
    jobs = [job(number) for number in range(1, bundle.MEMBERS_MOST + 1)]
    index = index_of(jobs)
    assert len(bundle.members(bundle_of(jobs, index), index)) == bundle.MEMBERS_MOST


def test_uids_are_found_without_reading_all() -> None:
    assert list(bundle.uids(INDEX)) == [known.uid for known in JOBS]
    assert list(bundle.uids(b"\xff\nuid=../x\nuid=\n")) == []


def transferred(known: Control) -> Control:
    return known.with_transfer(Transfer(NOW, LATER, 1.0, 1))


HOSTILE = {
    "another host": [job(1), job(2, host="mmt", uid=job(2).uid.replace("mmto", "mmt"))],
    "another instrument": [job(1), job(2, inst="megacam")],
    "a uid twice": [job(1), job(2), job(1)],
    "times of its own": [job(1), transferred(job(2))],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_member_that_is_none_makes_it_no_bundle(what: str) -> None:
    index = index_of(HOSTILE[what])
    with pytest.raises(FormatError):
        bundle.members(bundle_of(HOSTILE[what], index), index)


def test_the_bundles_own_uid_is_no_members() -> None:
    with pytest.raises(FormatError, match="a uid stands in it twice"):
        bundle.members(bundle_of(JOBS, INDEX, uid=JOBS[0].uid), INDEX)


@pytest.mark.parametrize(
    "fields", [{"members": 2}, {"members": 4}, {"size": KNOWN.size - 1}, {"size": KNOWN.size + 1}],
    ids=str,
)  # fmt: skip
def test_members_must_be_as_announced(fields: dict[str, int]) -> None:
    with pytest.raises(FormatError):
        bundle.members(replace(KNOWN, **fields), INDEX)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"control=", b"Control="), (b"attempts=1\n", b"attempts=1 \n"), (b"data=0", b"data=00"),
        (b"attempts=1\n", b"attempts=-1\n"), (b"data=0 ", b""), (b"data=0", b"data=999999999"),
        (b"control=", b"control=+"), (b"control=", b"control=0"), (b"control=", b"control=9"),
        (b"attempts=1\n", b"attempts=1\r\n"), (b"size=300", b"size=301"),
        (b"data=0", b"data=\xd9\xa1"), (b"format=1", b"format=2"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_exactly_right_makes_it_no_bundle(before: bytes, after: bytes) -> None:
    index = INDEX.replace(before, after)
    assert index != INDEX
    with pytest.raises(FormatError):
        bundle.members(bundle_of(JOBS, index), index)


def test_an_index_cut_anywhere_is_none() -> None:
    for length in range(len(INDEX)):
        with pytest.raises(FormatError):
            bundle.members(KNOWN, INDEX[:length])


def test_a_million_members_are_not_read() -> None:
    with pytest.raises(FormatError):
        load(changed(members=str(10**6)))
    index = INDEX * 10
    with pytest.raises(FormatError):
        bundle.members(bundle_of(JOBS, index), index)


@given(st.data())
def test_reader_raises_nothing_but_format_error_and_finds_nothing_outside(
    data: st.DataObject,
) -> None:
    index = bytearray(INDEX)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(index) - 1))
        index[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    known = bundle_of(JOBS, bytes(index))
    try:
        found = bundle.members(known, bytes(index))
    except FormatError:
        return
    at = known.index
    for member in found:
        assert member.offset == at
        at += member.size
    assert at == known.size


@given(st.dictionaries(st.sampled_from([*keyvalue.load(bundle.dump(KNOWN)), "x"]),
                       st.text(max_size=20) | st.integers().map(str), max_size=4))  # fmt: skip
def test_reader_of_the_control_file_raises_nothing_but_format_error(pairs: dict[str, str]) -> None:
    said = keyvalue.load(bundle.dump(KNOWN)) | pairs
    try:
        known = bundle.parse(dict(said))
    except FormatError:
        return
    assert bundle.fits(known.members, known.index, known.size - known.index)
    assert re.fullmatch(r"[A-Za-z0-9-]{1,63}", known.host)


def test_an_index_of_nothing_is_refused_whatever_was_announced() -> None:
    for announced in (0, 3):
        with pytest.raises(FormatError, match="0 members are in it"):
            bundle.members(replace(KNOWN, members=announced), b"")

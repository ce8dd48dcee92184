"""The record of what xfer-watch has submitted."""

from pathlib import Path

import pytest
from arrivals import killed
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.errors import BusyError, PermanentError
from lpxfer.formats.watch_record import MARKED, Version
from lpxfer.stores import watched
from lpxfer.stores.watched import FORGET, Watched

ONE, TWO = Version(10, 1_000_000_001, 7), Version(11, 1_000_000_002, 7)


def test_what_was_submitted_is_known_to_the_next_watch(tmp_path: Path) -> None:
    with Watched(tmp_path / "deep" / "watched", "minicam") as record:
        assert record.new
        record.about(1, [("/d/a b%.fits", ONE), ("/d/\udcff", TWO)])
        record.ended(2, [("/d/a b%.fits", ONE, "archive-1"), ("/d/\udcff", TWO, None)])
    with Watched(tmp_path / "deep" / "watched", "minicam") as record:
        assert not record.new and not record.open
        assert record.known("/d/a b%.fits", ONE)
        assert not record.known("/d/a b%.fits", TWO)
        assert not record.known("/d/\udcff", TWO)


def test_what_was_about_to_be_submitted_is_open(tmp_path: Path) -> None:
    with Watched(tmp_path, "minicam") as record:
        record.about(5, [("/d/a", ONE)])
    with Watched(tmp_path, "minicam") as record:
        assert record.open == {"/d/a": (ONE, 5)}
        assert not record.known("/d/a", ONE)


def test_inode_alone_makes_no_other_version(tmp_path: Path) -> None:
    with Watched(tmp_path, "minicam") as record:
        record.ended(1, [("/d/a", ONE, "archive-1")])
        assert record.known("/d/a", ONE._replace(inode=99))


def test_same_file_under_another_name_is_found(tmp_path: Path) -> None:
    with Watched(tmp_path, "minicam") as record:
        record.ended(1, [("/d/a", ONE, "archive-1")])
        assert record.alias(ONE) == ("/d/a", "archive-1")
        assert record.alias(TWO) is None


def test_one_watch_at_a_time(tmp_path: Path) -> None:
    with Watched(tmp_path, "minicam"), Watched(tmp_path, "other"):
        with pytest.raises(BusyError, match="another xfer-watch watches minicam"):
            Watched(tmp_path, "minicam")


def test_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="file/minicam"):
        Watched(tmp_path / "file", "minicam")


@pytest.mark.parametrize(
    "torn", [b"job 1 10 1000", b"\0" * 100, b"job 1 10 1000000001 7 archive-9 /d/"]
)
def test_torn_line_spoils_only_itself(tmp_path: Path, torn: bytes) -> None:
    with Watched(tmp_path, "minicam") as record:
        record.ended(1, [("/d/a", ONE, "archive-1")])
    with (tmp_path / "minicam").open("ab") as stream:
        stream.write(torn)
    with Watched(tmp_path, "minicam") as record:
        assert set(record.jobs) == {"/d/a"}
        record.ended(2, [("/d/b", TWO, "archive-2")])
    with Watched(tmp_path, "minicam") as record:
        assert set(record.jobs) == {"/d/a", "/d/b"}


def test_marked_files_are_taken_as_submitted_until_they_are_asked_for(tmp_path: Path) -> None:
    with Watched(tmp_path, "minicam") as record:
        record.mark(1, [("/d/a", ONE)])
        record.ended(2, [("/d/b", TWO, "archive-1")])
        assert record.jobs["/d/a"] == (ONE, MARKED)
        record.unmark()
    with Watched(tmp_path, "minicam") as record:
        assert set(record.jobs) == {"/d/b"}


@pytest.mark.parametrize("when", ["before", "half", "after"])
def test_first_record_has_every_mark_or_is_none(tmp_path: Path, when: str) -> None:
    files = [(f"/d/{n}", Version(n, n, n)) for n in range(1000)]
    number, died = 0, True
    while died:
        number += 1
        root = tmp_path / str(number)

        def act(root: Path = root) -> None:
            with Watched(root, "minicam") as record:
                record.mark(1, files)

        died = killed(act, number, when)
        with Watched(root, "minicam") as record:
            assert len(record.jobs) == (0 if record.new else 1000)
    assert number > 4


def test_file_that_is_gone_is_forgotten_after_a_while_only(tmp_path: Path) -> None:
    with Watched(tmp_path, "minicam") as record:
        record.ended(1, [("/d/a", ONE, "archive-1"), ("/d/b", TWO, "archive-2")])
        record.missing(10, ["/d/b"])
        record.missing(10 + FORGET, ["/d/b"])
        assert record.known("/d/a", ONE)
    with Watched(tmp_path, "minicam") as record:
        record.missing(11 + FORGET, ["/d/b"])
        assert not record.known("/d/a", ONE)
        assert record.known("/d/b", TWO)


def test_file_that_comes_back_is_known(tmp_path: Path) -> None:
    with Watched(tmp_path, "minicam") as record:
        record.ended(1, [("/d/a", ONE, "archive-1")])
        record.missing(10, [])
        record.missing(20, ["/d/a"])
        record.missing(20 + FORGET, [])
        assert record.known("/d/a", ONE)


def test_record_is_written_anew_when_most_of_it_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "SLACK", 3)
    with Watched(tmp_path, "minicam") as record:
        for number in range(5):
            record.about(number, [("/d/a", ONE)])
            record.ended(number, [("/d/a", ONE, f"archive-{number}")])
        record.about(9, [("/d/b", TWO)])
        record.missing(10, ["/d/a"])
    assert len((tmp_path / "minicam").read_bytes().splitlines()) == 2
    with Watched(tmp_path, "minicam") as record:
        assert record.jobs == {"/d/a": (ONE, "archive-4")}
        assert record.open == {"/d/b": (TWO, 9)}
    assert not list(tmp_path.glob(".minicam.*.new"))


@given(st.binary(max_size=300))
def test_record_that_is_damaged_is_read_as_far_as_it_can(noise: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "minicam").write_bytes(b"job 1 10 5 7 archive-1 /d/a\n" + noise)
        with Watched(Path(name), "minicam") as record:
            assert "/d/a" in record.jobs

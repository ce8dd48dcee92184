"""Who submits a file, and what others than the watch have noted."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lpxfer.errors import PermanentError
from lpxfer.formats.watch_record import Version
from lpxfer.stores import claims
from lpxfer.stores.claims import Claims
from lpxfer.stores.watched import Watched

ONE, TWO = Version(1, 10, 5), Version(2, 20, 5)


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Claims]:
    with Claims(tmp_path, "minicam") as opened:
        yield opened


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Watched]:
    with Watched(tmp_path, "minicam") as opened:
        yield opened


def test_file_is_claimed_by_one_at_a_time(others: Claims, record: Watched) -> None:
    assert others.take("/d/a") and others.take("/d/a"), "it has it"
    assert record.claim(["/d/a", "/d/b"]) == {"/d/b"}
    assert not others.take("/d/b") and others.take("/d/c")
    others.release()
    assert record.claim(["/d/a", "/d/c"]) == {"/d/a", "/d/c"}
    record.release()
    assert others.take("/d/a") and others.take("/d/b")


def test_what_others_noted_comes_into_the_record(
    others: Claims, record: Watched, tmp_path: Path
) -> None:
    others.note(7, [("/d/a b", ONE, "archive-1"), ("/d/c", ONE, "archive-2")])
    others.note(8, [("/d/c", TWO, "archive-3")])
    expected = {"/d/a b": (ONE, "archive-1", 7), "/d/c": (TWO, "archive-3", 8)}
    record.claim([])
    assert record.others == expected
    assert (tmp_path / ".minicam.others").read_bytes() == b""
    assert others.last(["/d/c"])["/d/c"].job == "archive-3"
    record.ended(9, [("/d/c", TWO, "archive-3")])
    assert list(record.others) == ["/d/a b"]


def test_what_could_not_be_taken_over_stays(others: Claims) -> None:
    others.note(7, [("/d/a", ONE, "archive-1")])
    with suppress(OSError), others.taken_over():
        raise OSError
    with others.taken_over() as notes:
        assert [note.path for note in notes] == ["/d/a"]


def test_last_that_was_noted_is_found_wherever_it_stands(others: Claims, record: Watched) -> None:
    assert others.last(["/d/a"]) == {}
    record.ended(1, [("/d/a", ONE, "archive-1"), ("/d/aa", TWO, "archive-9")])
    record.missing(2, [])
    assert others.last(["/d/a", "/d/none"])["/d/a"].job == "archive-1"
    others.note(3, [("/d/a", TWO, "archive-2")])
    assert others.last(["/d/a"])["/d/a"].job == "archive-2"


def test_watch_that_stays_is_seen(record: Watched, tmp_path: Path) -> None:
    assert not claims.stays(tmp_path, "minicam")
    record.stay()
    record.release()
    assert claims.stays(tmp_path, "minicam")


def test_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="file/watched"):
        Claims(tmp_path / "file" / "watched", "minicam")

"""Reading logs as they grow."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lpxfer.stores.log_tail import LogTail

NOW = datetime(2026, 11, 28, 23, 59, tzinfo=UTC)
TODAY, TOMORROW = "20261128.log", "20261129.log"


@pytest.fixture
def tail(tmp_path: Path) -> LogTail:
    return LogTail(tmp_path, ".log")


def test_each_line_is_given_once_and_only_whole(tmp_path: Path, tail: LogTail) -> None:
    assert list(tail.lines(NOW)) == []
    with (tmp_path / TODAY).open("ab", buffering=0) as log:
        log.write(b"one\ntw")
        assert list(tail.lines(NOW)) == [b"one\n"]
        log.write(b"o\n")
        assert list(tail.lines(NOW)) == [b"two\n"]
        assert list(tail.lines(NOW)) == []


def test_the_rest_of_a_day_comes_before_the_next(tmp_path: Path, tail: LogTail) -> None:
    (tmp_path / "20261127.log").write_bytes(b"old\n")
    (tmp_path / TODAY).write_bytes(b"1\n")
    assert list(tail.lines(NOW)) == [b"1\n"]
    (tmp_path / TODAY).write_bytes(b"1\n2\n")
    (tmp_path / TOMORROW).write_bytes(b"3\n")
    assert list(tail.lines(NOW + timedelta(minutes=2))) == [b"2\n", b"3\n"]
    assert list(LogTail(tmp_path, ".log").lines(NOW)) == [b"1\n", b"2\n"]  # a restart's


def test_who_takes_some_is_given_the_others_later(tmp_path: Path, tail: LogTail) -> None:
    (tmp_path / TODAY).write_bytes(b"1\n2\n3\n")
    assert list(itertools.islice(tail.lines(NOW), 2)) == [b"1\n", b"2\n"]
    assert list(tail.lines(NOW)) == [b"3\n"]


def test_another_file_of_that_name_is_read_from_its_beginning(
    tmp_path: Path, tail: LogTail
) -> None:
    (tmp_path / TODAY).write_bytes(b"1\n2\n")
    assert len(list(tail.lines(NOW))) == 2
    (tmp_path / "new").write_bytes(b"3\n")
    (tmp_path / "new").rename(tmp_path / TODAY)
    assert list(tail.lines(NOW)) == [b"3\n"]


def test_what_cannot_be_read_is_not_there(tmp_path: Path) -> None:
    assert list(LogTail(tmp_path / "none", ".log").lines(NOW)) == []
    (tmp_path / "link.log").write_bytes(b"secret\n")
    (tmp_path / TODAY).symlink_to("link.log")
    assert list(LogTail(tmp_path, ".log").lines(NOW)) == []

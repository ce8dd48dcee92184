"""The counter of a queue, which every member of its group may write and lock."""

import fcntl
from pathlib import Path

import pytest
from traced import trace

from lpxfer.stores import numbers
from lpxfer.stores.spool import Queue


def test_who_keeps_the_counters_lock_keeps_nobody_from_submitting(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "PATIENCE", 0.05)
    assert list(queue.reserve(3)) == [1, 2, 3]
    with open(queue.root / "seq") as seq:
        fcntl.flock(seq, fcntl.LOCK_EX)
        first, second = queue.reserve(2), queue.reserve(2)
    assert first[0] > 3 and second[0] > first[-1]
    assert queue.reserve(1)[0] > second[-1]


@pytest.mark.parametrize("text", ["99999999999999\n", "x" * 100, f"{10**13 - 1}\n"])
@pytest.mark.parametrize("name", [None, "archive-999999999999999", "archive-9999999999999"])
def test_no_number_that_a_member_writes_ends_the_numbers(
    queue: Queue, text: str, name: str | None
) -> None:
    (queue.root / "seq").write_text(text)
    if name:
        (queue.root / "held" / name).mkdir()
    for _ in range(3):
        number = queue.reserve(1)[0]
        assert number < numbers.TOP
        with queue.draft(number) as draft:
            queue.discard(draft)


def test_counter_of_terabytes_is_not_read_whole(queue: Queue, tmp_path: Path) -> None:
    with open(queue.root / "seq", "wb") as seq:
        seq.truncate(1 << 40)
    assert list(queue.reserve(1)) == [1]


def test_half_of_a_number_that_a_crash_has_left_is_none_that_was_given_out(queue: Queue) -> None:
    last = queue.reserve(9)[-1]
    seq = queue.root / "seq"
    before = seq.read_bytes()
    queue.reserve(1)
    after = seq.read_bytes()
    for length in range(len(after) + 1):
        seq.write_bytes(after[:length] + before[length:])
        assert queue.reserve(1)[0] > last


def test_the_first_number_finds_the_queue_durable(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = trace(monkeypatch, tmp_path)
    queue.reserve(1)
    assert calls[0] == "fsync spool/archive"
    calls.clear()
    queue.reserve(1)
    assert "fsync spool/archive" not in calls

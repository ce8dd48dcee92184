"""The counter of a queue, which every member of its group may write and lock."""

import fcntl
from pathlib import Path

import pytest

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

"""The pieces of a file, taken by several connections."""

import os
import random
import threading
from pathlib import Path

import pytest

from lpxfer.formats.ranges import Ranges
from lpxfer.transports.stripes import Share, Stripes


def test_pieces_are_taken_in_order_and_none_twice() -> None:
    stripes = Stripes(10)
    assert [stripes.take(4) for _ in range(4)] == [(0, 4), (4, 8), (8, 10), None]
    assert not stripes.complete


def test_what_was_acknowledged_before_is_not_taken() -> None:
    stripes = Stripes(10, Ranges((0, 2), (5, 7)))
    assert [stripes.take(9) for _ in range(3)] == [(2, 5), (7, 10), None]
    assert stripes.bytes == 4


def test_what_is_given_back_is_taken_next() -> None:
    stripes = Stripes(10)
    stripes.take(4)
    stripes.take(4)
    stripes.give_back(0, 4)
    assert stripes.take(9) == (0, 4)


def test_contiguous_bytes_grow_when_the_gap_is_filled() -> None:
    stripes = Stripes(10)
    stripes.ack(4, 8)
    assert (stripes.acked, stripes.bytes) == (0, 4)
    stripes.ack(0, 4)
    assert stripes.acked == 8
    stripes.ack(8, 10)
    assert stripes.complete


def test_empty_file_is_complete() -> None:
    stripes = Stripes(0)
    assert stripes.take(1) is None
    assert stripes.complete and not stripes.waits


@pytest.mark.parametrize(
    ("done", "size", "fits"),
    [
        (Ranges(), 0, True),
        (Ranges((0, 5)), 5, True),
        (Ranges((0, 5), (7, 9)), 8, False),
        (Ranges((0, 5)), 11, False),
        (Ranges((0, 10**15)), 10**15, False),
    ],
)
def test_part_file_fits_if_it_may_have_what_was_acknowledged(
    done: Ranges, size: int, fits: bool
) -> None:
    assert Stripes(10, done).fits(size) is fits


def test_file_begun_anew_has_nothing() -> None:
    stripes = Stripes(10, Ranges((0, 10**15)))
    stripes.restart()
    assert (stripes.bytes, stripes.take(20)) == (0, (0, 10))


def test_nothing_is_handed_out_after_the_end() -> None:
    stripes = Stripes(10)
    with stripes.offered():
        assert stripes.wants_help
        stripes.end()
        assert stripes.take(5) is None
        assert not stripes.wants_help
    with stripes.helping(0) as fd:
        assert fd is None


def test_helper_has_a_descriptor_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    source = os.open(tmp_path / "a", os.O_RDONLY)
    stripes = Stripes(3)
    with stripes.offered(), stripes.helping(source) as fd:
        assert fd is not None
        os.close(source)
        assert os.pread(fd, 3, 0) == b"abc"
    assert stripes.most == 2


def test_helper_that_is_needed_elsewhere_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpxfer.transports.stripes.ASK_SECONDS", -1)
    leave = False
    share = Share(Stripes(10), lambda: leave)
    assert share.take(4) == (0, 4)
    leave = True
    assert share.take(4) is None
    leave = False
    assert share.take(4) is None


def test_many_connections_carry_every_byte_once_or_again_after_a_break() -> None:
    stripes, lock, taken = Stripes(100_000), threading.Lock(), Ranges()

    def carry(seed: int) -> None:
        dice = random.Random(seed)
        while not stripes.complete:
            if (piece := stripes.take(dice.randint(1, 900))) is None:
                stripes.wait(0.01)
            elif dice.random() < 0.1:
                stripes.give_back(*piece)
            else:
                with lock:
                    before = taken.bytes
                    taken.add(*piece)
                    assert taken.bytes == before + piece[1] - piece[0]
                stripes.ack(*piece)

    threads = [threading.Thread(target=carry, args=[seed]) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert stripes.done == taken == Ranges((0, 100_000))

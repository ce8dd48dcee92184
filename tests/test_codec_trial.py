"""Whether encoding pays, and how."""

import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpxfer import codec_trial
from lpxfer.codec import COMPRESSORS, ELEMENTS, FILTERS, FRAME
from lpxfer.codec_trial import FAST, SHORT, Trial, choose, trial, worth_a_trial
from lpxfer.errors import PermanentError

ZSTD, BITS, LZ4 = codec_trial.candidates(2)
MB = 1e6  # bytes

# what was measured on 16-bit frames of a deep field, of a bias, and on noise
DEEP = [Trial(ZSTD, 1.90, 450 * MB), Trial(BITS, 1.75, 650 * MB), Trial(LZ4, 1.64, 1100 * MB)]
BIAS = [Trial(ZSTD, 3.63, 850 * MB), Trial(BITS, 3.2, 600 * MB), Trial(LZ4, 2.81, 1100 * MB)]
NOISE = [Trial(ZSTD, 1.0, 2000 * MB), Trial(BITS, 1.0, 2000 * MB), Trial(LZ4, 1.0, 3000 * MB)]
LITTLE = [Trial(ZSTD, 1.09, 500 * MB)]
SLOW = [Trial(ZSTD, 2.0, 20 * MB), Trial(LZ4, 1.5, 60 * MB)]


@pytest.mark.parametrize(
    "trials, size, link_rate, overlapped, chosen",
    [
        (DEEP, 32 * MB, 12.5 * MB, True, ZSTD),  # 100 Mbit/s: what shrinks most
        (DEEP, 32 * MB, 12.5 * MB, False, ZSTD),
        (BIAS, 32 * MB, 1 * MB, False, ZSTD),
        (BIAS, 32 * MB, 62.5 * MB, True, ZSTD),  # 500 Mbit/s
        (DEEP, 32 * MB, 62.5 * MB, True, ZSTD),
        (DEEP, 320 * MB, 125 * MB, True, ZSTD),  # 1 Gbit/s
        (DEEP, 320 * MB, 125 * MB, False, LZ4),  # zstd would need 0.7 s before the first byte
        (DEEP, 320 * MB, FAST, True, None),  # here the processor is what is short
        (BIAS, 320 * MB, 500 * MB, True, None),
        (NOISE, 32 * MB, 1 * MB, True, None),
        (LITTLE, 32 * MB, 1 * MB, True, None),  # less than a tenth
        (SLOW, 32 * MB, 12.5 * MB, True, ZSTD),  # encoding keeps up, just
        (SLOW, 32 * MB, 12.5 * MB, False, LZ4),  # zstd would need 1.6 s before the first byte
        (SLOW, 320 * MB, 30 * MB, True, LZ4),  # zstd would hold the link up
        (SLOW, 32 * MB, 60 * MB, True, None),
        (DEEP, SHORT * MB - 1, 1 * MB, True, None),
        (DEEP, 32 * MB, None, True, None),
        (DEEP, 32 * MB, 0, True, None),
        ([], 32 * MB, 1 * MB, True, None),
    ],
)
def test_what_arrives_earliest_is_chosen(trials, size, link_rate, overlapped, chosen):
    assert choose(trials, int(size), link_rate, overlapped) == chosen


rates = st.floats(1, 1e10)


@given(
    st.lists(st.builds(Trial, st.sampled_from([ZSTD, BITS, LZ4]), st.floats(0.9, 1e6), rates)),
    st.integers(0, 10**15),
    rates | st.none(),
    st.booleans(),
)
def test_what_is_chosen_was_tried_and_gains_a_tenth(trials, size, link_rate, overlapped):
    chosen = choose(trials, size, link_rate, overlapped)
    if chosen is not None:
        assert any(t.params == chosen and t.ratio >= 1 / codec_trial.GAIN for t in trials)
        assert worth_a_trial(size, link_rate)


@pytest.mark.parametrize("element", ELEMENTS)
def test_candidates_are_ways_that_can_be_encoded(element):
    for params in codec_trial.candidates(element):
        assert params.compressor in COMPRESSORS and params.filter in FILTERS
        assert params.element == element
        assert (params.filter == "none") == (element == 1)


# --- trials ----------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


def pixels(count: int) -> bytes:
    dice = random.Random(5)
    block = b"".join(int(dice.gauss(1000, 9)).to_bytes(2, "big") for _ in range(50_000))
    return (block * (count // 50_000 + 1))[: 2 * count]


def test_trial_finds_how_much_each_way_shrinks_and_how_fast(memory):
    data = b"SIMPLE  =".ljust(2880) + pixels(FRAME)
    os.write(memory, data)
    found = trial(memory, len(data), 2)
    assert [t.params for t in found] == codec_trial.candidates(2)
    assert all(1.8 < t.ratio < 10 and 1e6 < t.rate < 1e11 for t in found)
    assert choose(found, len(data), 1e6) is not None


def test_trial_of_noise_finds_that_nothing_pays(memory):
    data = random.Random(1).randbytes(2 * FRAME)
    os.write(memory, data)
    for element in ELEMENTS:
        found = trial(memory, len(data), element)
        assert all(0.99 < t.ratio < 1.01 for t in found)
        assert choose(found, len(data), 1e6) is None


@pytest.mark.parametrize("size", [0, 1, 31])
def test_file_without_whole_samples_is_not_tried(memory, size):
    os.write(memory, bytes(size))
    assert trial(memory, size, 2) == []


@pytest.mark.parametrize("size", [32, 100, 1000, FRAME - 1, FRAME + 1, 4 * FRAME])
def test_samples_are_read_within_the_file_and_begin_with_whole_elements(memory, size, monkeypatch):
    read, pread = [], os.pread
    os.write(memory, bytes(size))
    monkeypatch.setattr(os, "pread", lambda *a: read.append(a[1:]) or pread(*a))
    trial(memory, size, 8)
    assert len(read) == codec_trial.SAMPLES
    for length, at in read:
        assert at % 8 == length % 8 == 0 and at + length <= size
        assert length <= codec_trial.SAMPLE


def test_file_that_is_shorter_than_submitted_is_an_error(memory):
    os.write(memory, bytes(FRAME))
    with pytest.raises(PermanentError, match="ends after"):
        trial(memory, 4 * FRAME, 2)


def test_where_nothing_could_pay_there_is_no_trial():
    assert worth_a_trial(int(SHORT * MB), 1 * MB)
    assert not worth_a_trial(int(SHORT * MB) - 1, 1 * MB)
    assert not worth_a_trial(10**9, None)
    assert not worth_a_trial(10**9, 0)
    assert not worth_a_trial(0, 1)
    assert not worth_a_trial(10**12, FAST)

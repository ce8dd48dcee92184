"""Frames that xfer-demo writes."""

import io
import warnings
from datetime import UTC, datetime

import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats import fits, names

START = datetime(2026, 11, 20, 4, 5, 6, 789000, tzinfo=UTC)


@pytest.mark.parametrize("instrument", ["demo", "x" * 64])
def test_astropy_finds_nothing_to_complain_about(instrument):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with astropy_fits.open(io.BytesIO(fits.frame(7, START, instrument))) as frame:
            frame.verify("exception")
            header = frame[0].header
            assert header["DATE-OBS"] == "2026-11-20T04:05:06.789"
            assert header["INSTRUME"] == instrument[:60]
            assert header["EXPTIME"] == 30.0
            assert header["FRAMENO"] == 7
            counts = frame[0].data
            assert counts.shape == (512, 512)
            assert counts.min() >= fits.BIAS
            assert counts.max() > 10 * fits.BIAS  # there are stars


def test_frame_is_of_whole_blocks_and_always_the_same():
    first = fits.frame(1, START, "demo")
    assert len(first) % fits.BLOCK == 0
    assert 300_000 < len(first) < 1_000_000
    assert fits.frame(1, START, "demo") == first
    assert fits.frame(2, START, "demo")[5760:] != first[5760:]


@given(
    st.integers(0, 10**15),
    st.datetimes(timezones=st.just(UTC)),
    st.from_regex(names.INSTRUMENT, fullmatch=True),
)
def test_header_is_printable_cards_of_80_characters_whatever_it_says(number, start, instrument):
    frame = fits.frame(number, start, instrument, width=1)
    assert len(frame) == 2 * fits.BLOCK
    header = frame[: fits.BLOCK].decode("ascii")
    assert header.isprintable()
    cards = [header[i : i + 80].rstrip() for i in range(0, fits.BLOCK, 80)]
    assert cards.count("END") == 1 and not any(cards[cards.index("END") + 1 :])
    assert all(card[8:10] == "= " for card in cards[: cards.index("END")])

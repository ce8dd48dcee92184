"""Layouts of FITS files, and the frames that xfer-demo writes."""

import io
import os
import warnings
from datetime import UTC, datetime
from importlib import resources

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import example, given
from hypothesis import strategies as st

from lpxfer import codec, codec_trial
from lpxfer.formats import fits, names
from lpxfer.formats.fits import BLOCK, BYTES, HEADERS, Layout

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


# --- layouts ---------------------------------------------------------------------------------


def card(text: str) -> bytes:
    return text.ljust(80).encode()


def header(*cards: str) -> bytes:
    text = b"".join(card(each) for each in (*cards, "END"))
    return text + b" " * (-len(text) % BLOCK)


SIMPLE = "SIMPLE  =                    T"
NO_DATA = header(SIMPLE, "BITPIX  =                    8", "NAXIS   =                    0")


def written(*hdus: object) -> bytes:
    file = io.BytesIO()
    astropy_fits.HDUList(list(hdus)).writeto(file)
    return file.getvalue()


KINDS = ["u1", "i2", "u2", "i4", "i8", "f4", "f8"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cards", [0, 30, 300])
def test_layout_of_an_image_is_what_astropy_wrote(kind, cards):
    image = astropy_fits.PrimaryHDU(np.full((7, 5), 99, kind))
    for number in range(cards):
        image.header[f"KEY{number}"] = number
    data = written(image)
    size = np.dtype(kind).itemsize
    where = data.rindex(b"END".ljust(80)) // BLOCK * BLOCK + BLOCK
    assert fits.layout(data) == Layout(where, size)


@pytest.mark.parametrize("kind", KINDS)
def test_layout_of_a_file_without_primary_data_is_that_of_its_first_extension(kind):
    first = astropy_fits.ImageHDU(np.full((70, 50), 99, kind))
    other = astropy_fits.ImageHDU(np.zeros((70, 50), "f8"))
    data = written(astropy_fits.PrimaryHDU(), first, other)
    assert fits.layout(data) == Layout(2 * BLOCK, np.dtype(kind).itemsize)


def test_extension_without_data_is_passed_over():
    empty, image = astropy_fits.ImageHDU(), astropy_fits.ImageHDU(np.zeros((7, 5), "i2"))
    assert fits.layout(written(astropy_fits.PrimaryHDU(), empty, image)) == Layout(3 * BLOCK, 2)


def test_tables_and_compressed_images_are_bytes():
    table = astropy_fits.BinTableHDU.from_columns([astropy_fits.Column("a", "J", array=[1, 2])])
    assert fits.layout(written(astropy_fits.PrimaryHDU(), table)).element == 1
    tiles = astropy_fits.CompImageHDU(np.zeros((64, 64), "i2"))
    assert fits.layout(written(astropy_fits.PrimaryHDU(), tiles)).element == 1


def test_layout_needs_the_header_only():
    data = fits.frame(1, START, "demo")
    assert fits.layout(data) == fits.layout(data[:BLOCK]) == Layout(BLOCK, 2)
    assert fits.layout(data[: 80 * 15]) == BYTES  # cut before END


@pytest.mark.parametrize(
    "cards",
    [
        ["SIMPLE  =                    F", "BITPIX  = 16", "NAXIS   = 1", "NAXIS1  = 9"],
        ["XTENSION= 'IMAGE   '", "BITPIX  = 16", "NAXIS   = 1", "NAXIS1  = 9"],
        [SIMPLE, "BITPIX  = 12", "NAXIS   = 1", "NAXIS1  = 9"],
        [SIMPLE, "BITPIX  = '16'", "NAXIS   = 1", "NAXIS1  = 9"],
        [SIMPLE, "NAXIS   = 1", "NAXIS1  = 9"],
        [SIMPLE, "BITPIX  = 16", "NAXIS1  = 9"],
        [SIMPLE, "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 9"],
        [SIMPLE, "BITPIX  = 16", "NAXIS   = 1", "NAXIS1  = -9"],
        [SIMPLE, "BITPIX  = 16", "NAXIS   = -1", "NAXIS1  = 9"],
        [SIMPLE, "BITPIX  = 16", "NAXIS   = 999999999999999999", "NAXIS1  = 9"],
        [SIMPLE, "BITPIX  = 99999999999999999999", "NAXIS   = 1", "NAXIS1  = 9"],
    ],
)
def test_what_is_not_the_header_of_an_image_is_bytes(cards):
    assert fits.layout(header(*cards) + bytes(BLOCK)) == BYTES


def test_headers_that_go_on_for_ever_are_bytes():
    image = header("XTENSION= 'IMAGE   '", "BITPIX  = 16", "NAXIS   = 1", "NAXIS1  = 9")
    empty = header("XTENSION= 'IMAGE   '", "BITPIX  = 16", "NAXIS   = 0")
    assert fits.layout(NO_DATA + 98 * empty + image) == Layout(HEADERS, 2)
    assert fits.layout(NO_DATA + 99 * empty + image) == BYTES
    assert fits.layout(NO_DATA + 200 * BLOCK * b" " + image) == BYTES
    assert fits.layout(NO_DATA[:-80] * 500) == BYTES


@given(st.binary() | st.binary(max_size=900).map(lambda more: NO_DATA[:240] + more))
@example(b"")
@example(SIMPLE.encode())
def test_layout_of_any_bytes_is_one(data):
    layout = fits.layout(data)
    assert layout.data % BLOCK == 0 and layout.element in codec.ELEMENTS


def test_real_frames_come_back_from_every_way_worth_trying():
    with resources.as_file(resources.files("astropy.io.fits.tests") / "data") as directory:
        frames = sorted(directory.glob("*.fits"))
        for frame in frames:
            with open(frame, "rb") as file, open(os.memfd_create("wire"), "r+b") as wire:
                fd, size = file.fileno(), frame.stat().st_size
                element = fits.layout(os.pread(fd, HEADERS, 0)).element
                for params in codec_trial.candidates(element):
                    os.ftruncate(wire.fileno(), 0)
                    os.lseek(wire.fileno(), 0, os.SEEK_SET)
                    wire_size = codec.encode(fd, size, wire.fileno(), params)
                    pieces = codec.decode(wire.fileno(), wire_size, size)
                    assert b"".join(pieces) == frame.read_bytes()
    assert len(frames) >= 20, "astropy's test data are needed: install lpxfer[test]"

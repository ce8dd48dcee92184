"""Cards of FITS headers, and the length that they promise, against astropy's files."""

import tempfile

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats import fits_cards
from lpxfer.formats.fits import BLOCK
from lpxfer.formats.fits_cards import header, unfinished


def reader(data: bytes) -> fits_cards.Read:
    return lambda offset, size: data[offset : offset + size]


def judged(data: bytes) -> str | None:
    return unfinished(reader(data), len(data))


def written(*units: object) -> bytes:
    with tempfile.TemporaryFile() as stream:
        astropy_fits.HDUList(list(units)).writeto(stream)
        stream.seek(0)
        return stream.read()


def image(**cards: object) -> astropy_fits.PrimaryHDU:
    unit = astropy_fits.PrimaryHDU(np.arange(3000, dtype=np.float32).reshape(50, 60))
    unit.header.update(cards)
    return unit


def table() -> astropy_fits.BinTableHDU:
    """Rows of different lengths: their bytes are in a heap, which PCOUNT counts."""
    rows = np.array([np.arange(n, dtype=np.int32) for n in (3, 900, 20)], dtype=object)
    column = astropy_fits.Column(name="counts", format="PJ()", array=rows)
    return astropy_fits.BinTableHDU.from_columns([column])


def compressed() -> astropy_fits.CompImageHDU:
    return astropy_fits.CompImageHDU(np.arange(10000, dtype=np.int16).reshape(100, 100))


WHOLE = {
    "an image": lambda: written(image()),
    "no data": lambda: written(astropy_fits.PrimaryHDU()),
    "a table with a heap": lambda: written(astropy_fits.PrimaryHDU(), table()),
    "tile compression": lambda: written(astropy_fits.PrimaryHDU(), compressed()),
    "an image and extensions": lambda: written(image(NEXTEND=2), table(), compressed()),
    "random groups": lambda: written(
        astropy_fits.GroupsHDU(
            astropy_fits.GroupData(np.ones((7, 5, 4), "f4"), parnames=["a"], pardata=[np.ones(7)])
        )
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_file_is_whole_at_its_last_byte_and_not_before(name: str) -> None:
    data = WHOLE[name]()
    assert judged(data) == ""
    for cut in (1, BLOCK - 1, 29, 500):
        assert judged(data[:-cut]), f"without its last {cut} bytes"


def test_extensions_that_nextend_promises_are_waited_for() -> None:
    data = written(image(NEXTEND=2), table(), compressed())
    alone = written(image(NEXTEND=2))
    assert judged(alone) == "0 of 2 extensions are there"
    assert judged(alone + data[len(alone) : len(alone) + 4]) == f"at byte {len(alone)} " + (
        "something has begun"
    )


def test_zeros_where_the_next_header_will_be_are_not_the_end() -> None:
    assert judged(written(image()) + bytes(BLOCK))
    assert judged(written(image()) + b"special records") == ""


@pytest.mark.parametrize("data", [b"", b"SIMPLE", b"SIMPLE  =                    T / x"])
def test_beginning_of_a_header_is_not_a_file(data: bytes) -> None:
    assert judged(data)


@pytest.mark.parametrize("data", [b"x", b"\x1f\x8b\x08 gzip", b"SIMPLE  =                    F"])
def test_what_is_no_fits_file_is_not_judged(data: bytes) -> None:
    assert judged(data) is None


@pytest.mark.parametrize("card", ["BITPIX  = many", "NAXIS   = 1000", "NAXIS1  = 1E3"])
def test_header_that_makes_no_sense_is_not_judged(card: str) -> None:
    cards = ["SIMPLE  =                    T", card, "BITPIX  = 8", "NAXIS   = 1", "END"]
    assert judged("".join(c.ljust(80) for c in cards).ljust(BLOCK).encode()) is None


@given(st.binary(max_size=4 * BLOCK), st.integers(0, 3 * BLOCK))
def test_nothing_raises_whatever_the_bytes_are(noise: bytes, at: int) -> None:
    data = written(astropy_fits.PrimaryHDU(), table())
    judged(noise)
    judged(data[:at] + noise + data[at:])


def test_values_are_as_astropy_wrote_them() -> None:
    unit = image(OBJECT="M31's core, deep", EXPTIME=30.5, SHUTTER=True, FRAMENO=-7)
    unit.header["HIERARCH ESO DET ID"] = "ccd 1 / north"
    unit.header["LONG"] = "x" * 150 + "'s end"
    unit.header["OBJECT"] = ("M31's core, deep", "with / a comment")
    cards, end = header(reader(written(unit))) or ({}, 0)
    assert end % BLOCK == 0
    assert cards["OBJECT"] == "M31's core, deep"
    assert (cards["EXPTIME"], cards["SHUTTER"], cards["FRAMENO"]) == ("30.5", "T", "-7")
    assert cards["ESO DET ID"] == "ccd 1 / north"
    assert cards["LONG"] == "x" * 150 + "'s end"


def test_data_are_not_read() -> None:
    data, asked = written(image(), table()), list[tuple[int, int]]()

    def read(offset: int, size: int) -> bytes:
        asked.append((offset, size))
        return data[offset : offset + size]

    assert unfinished(read, len(data)) == ""
    assert sum(size for _, size in asked) < 5 * BLOCK

"""Whether a FITS file is whole: astropy writes them, somebody cuts them."""

import io
import re
import tempfile
from functools import partial

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats import fits_check
from lpxfer.formats.fits import BLOCK
from lpxfer.formats.fits_check import Header, headers
from lpxfer.formats.validity import (
    CORRUPTED_HDU,
    EMPTY_FILE,
    NO_FITS_HDUS,
    UNREADABLE_FITS,
    Invalid,
)


def look(data: bytes) -> list[Header]:
    """Read the headers of a file in memory."""
    return list(headers(lambda size, at: data[at : at + size], len(data)))


def reason(data: bytes) -> str:
    """Return why a file is not valid; "" when it is."""
    try:
        look(data)
    except Invalid as error:
        return error.reason
    return ""


def written(*hdus: object) -> bytes:
    """Return the file that astropy makes of these."""
    with tempfile.NamedTemporaryFile() as stream:
        astropy_fits.HDUList(list(hdus)).writeto(stream.name, overwrite=True)
        return stream.read()


def image(*shape: int, **cards: object) -> astropy_fits.PrimaryHDU:
    hdu = astropy_fits.PrimaryHDU(np.arange(np.prod(shape), dtype=np.int16).reshape(shape))
    hdu.header.update(cards)
    return hdu


TABLE = astropy_fits.BinTableHDU.from_columns(
    [
        astropy_fits.Column("a", "J", array=[1, 2, 3]),
        astropy_fits.Column("b", "PE()", array=np.array([[1.0], [2.0, 3.0], []], dtype=object)),
    ]
)

FILES = {
    "header": written(astropy_fits.PrimaryHDU()),
    "image": written(image(50, 70)),
    "many cards": written(image(3, 4, **{f"KEY{n}": n for n in range(900)})),
    "extensions": written(astropy_fits.PrimaryHDU(), astropy_fits.ImageHDU(np.ones((9, 9))), TABLE),
    "compressed": written(astropy_fits.PrimaryHDU(), astropy_fits.CompImageHDU(np.ones((64, 64)))),
    "groups": written(
        astropy_fits.GroupsHDU(
            astropy_fits.GroupData(np.ones((7, 5, 4), np.float32), parnames=["u", "v"],
                                   pardata=[np.ones(7), np.ones(7)], bitpix=-32)
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_astropy_writes_is_valid(name: str) -> None:
    assert reason(FILES[name]) == ""
    with astropy_fits.open(io.BytesIO(FILES[name]), disable_image_compression=True) as hdus:
        assert len(look(FILES[name])) == len(hdus)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_anywhere_before_its_last_byte_of_data_is_not(name: str) -> None:
    whole = FILES[name]
    ends = [header.data_end for header in look(whole)]
    filler = {at for end in ends for at in range(end, -(-end // BLOCK) * BLOCK + 1)}
    for size in {*range(1, ends[-1], 997), *range(ends[-1] - 90, ends[-1])} - filler:
        assert reason(whole[:size]) in (UNREADABLE_FITS, NO_FITS_HDUS, CORRUPTED_HDU), size
    assert reason(whole[: ends[-1]]) == ""  # what fills the last block is no data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", EMPTY_FILE),
        (b"\x89PNG\r\n", UNREADABLE_FITS),
        (FILES["image"].replace(b"SIMPLE  =                    T", b"SIMPLE  =" + b"F".rjust(21)),
         UNREADABLE_FITS),
        (FILES["image"][:80], NO_FITS_HDUS),
        (FILES["image"].replace(b"END".ljust(80), b"E_D".ljust(80)), NO_FITS_HDUS),
        (FILES["image"].replace(b"BITPIX", b"BITPOX"), CORRUPTED_HDU),
        (FILES["image"].replace(b"NAXIS2 ", b"NAXIS3 "), CORRUPTED_HDU),
        (FILES["image"].replace(b"NAXIS2  =                   50",
                                b"NAXIS2  =                  -50"), CORRUPTED_HDU),
        (FILES["image"].replace(b"NAXIS2  =                   50",
                                b"NAXIS2  =   999999999999999999"), CORRUPTED_HDU),
        (re.sub(rb"PCOUNT  = +12 ", b"PCOUNT  =              2800012 ", FILES["extensions"]),
         CORRUPTED_HDU),
        (FILES["image"] + b"what somebody has appended", CORRUPTED_HDU),
        (FILES["image"] + b"\0" * 3 * BLOCK, ""),
        (FILES["extensions"].replace(b"XTENSION", b"XTONSIEN"), CORRUPTED_HDU),
    ],
)  # fmt: skip
def test_each_fault_has_its_word(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_a_file_of_nothing_but_headers_takes_bounded_time() -> None:
    empty = b"SIMPLE  =".ljust(29) + b"T".ljust(51)
    read: list[int] = []

    def endless(size: int, _: int) -> bytes:
        read.append(size)
        return (empty if size == 80 else b"COMMENT".ljust(80) * (size // 80))[:size]

    with pytest.raises(Invalid, match="more than .* bytes of headers|no END"):
        list(headers(endless, 1 << 50))
    assert sum(read) < 2 * fits_check.HEADERS_MOST

    cards = [b"BITPIX  = 8", b"NAXIS   = 0", b"END"]
    block = b"".join([b"XTENSION= 'IMAGE   '".ljust(80), *(card.ljust(80) for card in cards)])
    first = (empty + block[80:]).ljust(BLOCK)

    def small(size: int, at: int) -> bytes:
        return (block.ljust(BLOCK) if at else first)[:size]

    with pytest.raises(Invalid, match="HDUs"):
        list(headers(small, 1 << 50))


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_nothing_else_is_raised_for_any_bytes(card: bytes, rest: bytes) -> None:
    reason(FILES["header"][:160] + card.ljust(80)[:80] + FILES["header"][240:] + rest)
    reason(FILES["header"][:80] + card)


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("OBJECT  = 'NGC 224 '           / the galaxy", "NGC 224"),
        ("OBJECT  = 'it''s'", "it's"),
        ("OBJECT  = ''", None),
        ("OBJECT  =                 30.5 / [s]", "30.5"),
        ("OBJECT  =                    T", "T"),
        ("OBJECT  =                      / not known", None),
        ("OBJECT    no value at all", None),
        ("OBJECT  = 'never closed", "'never closed"),
    ],
)
def test_a_card_says_its_value(card: str, value: str | None) -> None:
    end = b"END".ljust(80)
    data = FILES["header"].replace(end, card.ljust(80).encode() + end)[:BLOCK]
    [header] = look(data)
    assert header.value("OBJECT") == value


def test_the_first_of_two_cards_counts() -> None:
    cards = b"OBJECT  = 'one'".ljust(80) + b"OBJECT  = 'two'".ljust(80)
    end = b"END".ljust(80)
    [header] = look(FILES["header"].replace(end, cards + end)[:BLOCK])
    assert header.value("OBJECT") == "one"
    assert partial(header.value, "ÄÖÜ")() is None

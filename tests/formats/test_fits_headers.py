"""Headers of FITS files, and what is missing: astropy writes them, somebody cuts them."""

import io
import re
import tempfile
from functools import partial

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given
from hypothesis import strategies as st

from lpxfer.formats import fits_headers
from lpxfer.formats.fits import BLOCK
from lpxfer.formats.fits_headers import Header, headers
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


def lacks(data: bytes) -> str | None:
    """Return what a file that is being written lacks."""
    return fits_headers.unfinished(lambda size, at: data[at : at + size], len(data))


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
    assert sum(read) < 2 * fits_headers.HEADERS_MOST

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
    lacks(FILES["header"][:80] + card)
    lacks(FILES["extensions"][:-BLOCK] + card + rest)


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


def test_values_are_as_astropy_wrote_them() -> None:
    hdu = image(2, 2, EXPTIME=30.5, SHUTTER=True, FRAMENO=-7)
    hdu.header["OBJECT"] = ("M31's core, deep", "with / a comment")
    hdu.header["HIERARCH ESO DET ID"] = "ccd 1 / north"
    hdu.header["HIERARCH ESO DET GAIN"] = 2.5
    hdu.header["LONG"] = "x" * 150 + "'s end"
    [header] = look(written(hdu))
    values = {word: header.value(word) for word in ("OBJECT", "EXPTIME", "SHUTTER", "FRAMENO")}
    assert values == {
        "OBJECT": "M31's core, deep", "EXPTIME": "30.5", "SHUTTER": "T", "FRAMENO": "-7",
    }  # fmt: skip
    assert header.value("ESO DET ID") == header.value("ESO.DET.ID") == "ccd 1 / north"
    assert header.value("ESO.DET.GAIN") == "2.5"
    assert header.value("LONG") == "x" * 150 + "'s end"


@pytest.mark.parametrize(
    ("cards", "value"),
    [
        (["OBJECT  = 'one&'", "CONTINUE  'two'", "CONTINUE  'three'"], "onetwo"),
        (["OBJECT  = 'one&'", "FILTER  = 'V'", "CONTINUE  'two'"], "one&"),
        (["OBJECT  = 'one'", "OBJECT  = 'two&'", "CONTINUE  'three'"], "one"),
        (["CONTINUE  'two'", "OBJECT  = 'one&'"], "one&"),
        (["OBJECT  = '&'", *["CONTINUE  '0123456789&'"] * 900], "0123456789" * 100),
    ],
)
def test_only_what_continues_a_text_belongs_to_it(cards: list[str], value: str) -> None:
    end = b"END".ljust(80)
    text = "".join(card.ljust(80) for card in cards).encode()
    data = FILES["header"][:BLOCK].rstrip().removesuffix(b"END") + text + end
    [header] = look(data.ljust(-(-len(data) // BLOCK) * BLOCK))
    assert header.value("OBJECT") == value


def test_pcount_and_gcount_count_in_extensions_only() -> None:
    data = written(image(50, 70, PCOUNT=5000, GCOUNT=7))
    assert (reason(data), lacks(data)) == ("", "")


# --- a file that somebody is writing --------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_finished_at_its_last_byte_and_not_before(name: str) -> None:
    assert lacks(FILES[name]) == ""
    for cut in (1, BLOCK - 1, 29, 500):
        assert lacks(FILES[name][:-cut]), f"without its last {cut} bytes"


def test_extensions_that_nextend_promises_are_waited_for() -> None:
    alone = written(image(2, 2, NEXTEND=2))
    more = FILES["extensions"][len(FILES["header"]) :]
    assert lacks(alone + more) == ""
    assert lacks(alone) == "0 of 2 extensions are there"
    assert lacks(alone + more[:4]) == f"what follows HDU 0 at byte {len(alone)} is no extension"


def test_zeros_where_the_next_header_will_be_are_not_the_end() -> None:
    assert lacks(FILES["image"] + bytes(BLOCK)) == f"at byte {len(FILES['image'])} " + (
        "something has begun"
    )


@pytest.mark.parametrize("data", [b"", b"SIMPLE", b"SIMPLE  =                    T / x"])
def test_beginning_of_a_header_is_not_a_file(data: bytes) -> None:
    assert lacks(data)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\x1f\x8b\x08 gzip",
        b"SIMPLE  =                    F".ljust(BLOCK),
        FILES["image"] + b"special records",
        *(
            re.sub(word + b" *= .{20}", card.ljust(30), FILES["image"])
            for word, card in (
                (b"BITPIX", b"BITPIX  = many"),
                (b"BITPIX", b"BITPIX  = 7"),
                (b"NAXIS", b"NAXIS   = 1000"),
                (b"NAXIS1", b"NAXIS1  = 1E3"),
            )
        ),
    ],
)
def test_what_more_bytes_could_not_mend_is_not_waited_for(data: bytes) -> None:
    assert lacks(data) is None


def test_data_are_not_read() -> None:
    data, asked = written(image(900, 900), TABLE), list[int]()

    def read(size: int, at: int) -> bytes:
        asked.append(size)
        return data[at : at + size]

    assert fits_headers.unfinished(read, len(data)) == ""
    assert sum(asked) < 25 * BLOCK < len(data) / 20

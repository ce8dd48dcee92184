"""What makes a file valid by its name, its path and its header."""

import pytest
from arrivals import job
from formats.test_fits_headers import FILES, image, written

from lpxfer.errors import FormatError
from lpxfer.formats import validity
from lpxfer.formats.validation import Validation
from lpxfer.formats.validity import BAD_OFNAME, FILEPATH_REJECT, MISMATCHED_FILENAME, Invalid


def reason(name: str, *scheme: str, **cards: str) -> str:
    try:
        validity.check_name(name, scheme, cards.get)
    except Invalid as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("name", "scheme", "expected"),
    [
        ("mini.0042.fits", "mini.{FRAMENO:4}.fits", ""),
        ("mini.42.fits", "mini.{FRAMENO}.fits", ""),
        ("mini.42.fits", "mini.{FRAMENO:4}.fits", MISMATCHED_FILENAME),
        ("mini.0043.fits", "mini.{FRAMENO:4}.fits", MISMATCHED_FILENAME),
        ("mini.0042.fit", "mini.{FRAMENO:4}.fits", BAD_OFNAME),
        ("mini.0042.fits", "{OUTFILE}", MISMATCHED_FILENAME),
        ("kb*.fits", "{FILENAME}", ""),
        ("kbxx.fits", "{FILENAME}", MISMATCHED_FILENAME),  # what a header says is no pattern
        ("a.png", "mini.{FRAMENO}.fits *.png", ""),
        ("0042.log", "[0-9][0-9][0-9][0-9].log", ""),
        ("42.log", "[0-9][0-9][0-9][0-9].log", BAD_OFNAME),
    ],
)
def test_a_name_has_to_fit_the_scheme(name: str, scheme: str, expected: str) -> None:
    assert reason(name, *scheme.split(), FRAMENO="42", FILENAME="kb*.fits") == expected


def test_a_pattern_with_other_braces_is_refused() -> None:
    for pattern in ("{}", "a{frame}", "{FRAMENO:0}", "a}b", "{FRAMENO:abc}"):
        with pytest.raises(FormatError, match="braces"):
            validity.check_scheme(pattern)
    assert validity.check_scheme("a*{DATE-OBS}_{N:99}") == "a*{DATE-OBS}_{N:99}"


def inspect(asked: Validation, data: bytes, **fields: str) -> dict[str, str]:
    return asked.inspect(job(data, **fields), lambda size, at: data[at : at + size])


def test_cards_come_from_the_first_header_that_has_them() -> None:
    asked = Validation(keywords=("OBJECT", "EXPTIME", "TTYPE1", "NONE"))
    data = written(image(2, 2, OBJECT="NGC 224", EXPTIME=30.5))
    assert inspect(asked, data) == {"OBJECT": "NGC 224", "EXPTIME": "30.5"}
    assert inspect(asked, FILES["extensions"]) == {"TTYPE1": "a"}
    assert inspect(asked, b"no FITS file") == {}
    assert inspect(asked, data[:2880]) == {"OBJECT": "NGC 224", "EXPTIME": "30.5"}


def test_a_hierarch_keyword_is_written_with_points() -> None:
    asked = Validation(keywords=("ESO.DET.ID",), scheme=("{ESO.DET.ID}.*.fits",))
    hdu = image(2, 2)
    hdu.header["HIERARCH ESO DET ID"] = "north"
    assert inspect(asked, written(hdu), name="north.1.fits") == {"ESO.DET.ID": "north"}


def test_only_files_of_such_names_have_to_be_fits() -> None:
    asked = Validation(whole=("*.fits",))
    assert inspect(asked, b"a log", name="a.log") == {}
    with pytest.raises(Invalid, match="UNREADABLE_FITS"):
        inspect(asked, b"a log", name="a.fits")


def test_what_comes_from_a_rejected_path_is_not_looked_into() -> None:
    asked = Validation(whole=("*",), reject=("*/test/*", "/tmp/*"))
    with pytest.raises(Invalid) as caught:
        inspect(asked, b"", path="/data/test/deep/a.fits")
    assert caught.value.reason == FILEPATH_REJECT
    assert inspect(asked, FILES["header"], path="/data/testing/a.fits") == {}

"""The xferlog of wu-ftpd, as ProFTPD and vsftpd write it."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpxfer.errors import FormatError
from lpxfer.formats import xferlog
from lpxfer.formats.xferlog import Transfer

UID = "20261120T164955Z-packrat-archive-1042-0123abcd"

# Real lines, of ProFTPD 1.3.8 and vsftpd 3.0.3; only directories and uids are made up.
PROFTPD = (
    f"Fri Nov 20 16:49:55 2026 0 127.0.0.1 5497920 /srv/.{UID}.data.part b _ i r tdcin ftp 0 * c"
)
SFTP = (
    f"Fri Nov 20 16:49:56 2026 13 127.0.0.1 5497920 /srv/.{UID}.data.part b _ i r tdcin sftp 0 * c"
)
VSFTPD = f"Fri Nov 20 16:49:58 2026 1 127.0.0.1 1000 /{UID}.data b _ i a <no_password> ftp 0 * c"


def line(text: str) -> Transfer:
    return xferlog.load(text.encode("utf-8", "surrogateescape"))


def test_a_line_of_proftpd_is_read():
    assert line(SFTP + "\n") == Transfer(13, 5497920, f"/srv/.{UID}.data.part", True, True)


def test_a_line_of_vsftpd_is_read():
    assert line(VSFTPD) == Transfer(1, 1000, f"/{UID}.data", True, True)


def test_less_than_a_second_counts_as_one():
    assert line(PROFTPD).seconds == 1


def test_one_digit_of_a_day_is_padded_with_a_blank():
    assert line(SFTP.replace("Nov 20", "Nov  6")) == line(SFTP)


def test_an_upload_that_was_cut_off_is_not_complete():
    assert not line(SFTP.removesuffix("c") + "i").complete


@pytest.mark.parametrize("direction", ["o", "d"])
def test_downloads_and_deletions_are_no_uploads(direction):
    assert not line(SFTP.replace(" i r ", f" {direction} r ")).upload


@pytest.mark.parametrize(
    "path",
    ["/a b/c  d.fits", "/ends in blank ", "/b _ i r tdcin ftp 0 * c", "/\udcff\udcfe.fits", "/ü",
     "/two\rlines", "relative", "*"],
)  # fmt: skip
def test_a_path_may_hold_anything_but_a_newline(path):
    text = f"Fri Nov 20 16:49:55 2026 2 host 3 {path} b _ i r tdcin ftp 0 * c\n"
    assert line(text).path == path


@pytest.mark.parametrize("name", [f"{UID}.data", f".{UID}.data.part"])
def test_a_data_file_is_known_by_its_wire_name_or_its_part_name(name):
    for directory in ("", "/", "/srv/in coming/"):
        assert line(SFTP.replace(f"/srv/.{UID}.data.part", directory + name)).uid == UID


@pytest.mark.parametrize(
    "name",
    [f"{UID}.control", f".{UID}.control.part", f"{UID}.data.gz", UID, f"x{UID}.data",
     f"{UID}.data ", "mc.0001.fits", "_.data"],
)  # fmt: skip
def test_any_other_file_has_no_uid(name):
    assert line(SFTP.replace(f".{UID}.data.part", name)).uid is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text[10:],
        lambda text: text.replace("2026 13", "2026 -13"),
        lambda text: text.replace("2026 13", "2026 1e9"),
        lambda text: text.replace("2026 13", "2026 " + "9" * 10),
        lambda text: text.replace("5497920", "9" * 19),
        lambda text: text.replace("5497920", "٣"),
        lambda text: text.replace("Fri Nov", "Fr. Nov"),
        lambda text: text + " c",
        lambda text: text + "\n" + text,
        lambda text: text.replace("/srv", "/" + "x" * xferlog.LINE_LIMIT),
        lambda text: "2026-11-20T16:49:55.000Z stored inst=minicam uid=u size=1",
    ],
)
def test_any_other_line_is_refused(damage):
    with pytest.raises(FormatError, match="not a line of an xferlog"):
        line(damage(SFTP))


@given(st.binary())
@example(b"\xff" * (xferlog.LINE_LIMIT + 1))
def test_any_bytes_are_a_line_or_a_format_error(data):
    try:
        transfer = xferlog.load(data)
    except FormatError:
        return
    assert transfer.seconds >= 1


@given(st.lists(st.sampled_from(PROFTPD.split(" ") + ["", "\n", "\0", "\udcff"]), max_size=60))
def test_any_order_of_the_words_of_a_line_is_a_line_or_a_format_error(words):
    try:
        transfer = line(" ".join(words))
    except FormatError:
        return
    assert re.search(re.escape(transfer.path), " ".join(words))


@given(st.binary(max_size=300), st.integers(0, 10**9 - 1), st.integers(0, 10**18 - 1))
def test_every_path_time_and_size_survives(path, seconds, size):
    path = path.replace(b"\n", b"?") or b"/"
    text = b"Fri Nov 20 16:49:55 2026 %d host %d %b b _ i r tdcin ftp 0 * i\n" % (
        seconds,
        size,
        path,
    )
    known = xferlog.load(text)
    assert known.path.encode("utf-8", "surrogateescape") == path
    assert (known.seconds, known.size) == (max(1, seconds), size)

"""What xfer-demo does beside running the commands: its frames, and its own comparison."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from astropy.io import fits

from lpxfer.errors import PermanentError
from lpxfer.formats import record
from lpxfer.formats.record import Record
from lpxfer.steps import demo
from lpxfer.stores.spool import Spool

NOW = datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)
UID = "20261120T235959Z-tel-archive-7-00000000"


class Way:
    """One file at both ends of the way, and the logs that say so."""

    def __init__(self, root: Path) -> None:
        self.source, self.spool, self.archive = root / "a b.fits", root / "spool", root / "archive"
        self.placed = self.archive / "2026.1120" / "a b.fits"
        self.placed.parent.mkdir(parents=True)
        (self.archive / "xferlogs").mkdir()
        for path in (self.source, self.placed):
            path.write_bytes(b"light")
            os.utime(path, ns=(0, 1_234_567_890_123_456_789))
        Spool(self.spool).queue("archive")
        self.completed("completed")
        self.logged("stored", placed="2026.1120/a b.fits")

    def completed(self, kind: str) -> None:
        line = record.dump(Record(NOW, kind, {"job": "archive-7", "uid": UID}))
        (self.spool / "archive/log/20261120.log").write_bytes(line)

    def logged(self, kind: str, **fields: str) -> None:
        line = record.dump(Record(NOW, kind, {"uid": UID, **fields}))
        (self.archive / "xferlogs/20261120.tdcin.log").write_bytes(b"torn\n" + line)

    def compare(self) -> list[demo.Stored]:
        return demo.compare(self.spool, self.archive, {"archive-7": str(self.source)}, NOW)


@pytest.fixture
def way(tmp_path: Path) -> Way:
    return Way(tmp_path)


def test_file_that_arrived_as_it_was_is_stored(way):
    (stored,) = way.compare()
    assert (stored.source, stored.placed, stored.size) == (str(way.source), way.placed, 5)


def test_duplicate_is_compared_with_what_was_there_first(way):
    way.logged("duplicate", placed="2026.1120/a b.fits")
    assert way.compare()[0].placed == way.placed


@pytest.mark.parametrize("kind", ["canceled", "failed"])
def test_job_that_was_not_completed_is_an_error(way, kind):
    way.completed(kind)
    with pytest.raises(PermanentError, match="archive-7 is not completed"):
        way.compare()


def test_quarantined_file_is_an_error(way):
    way.logged("quarantined", placed="2026.1120/a b.fits")
    with pytest.raises(PermanentError, match="archive-7 has no record"):
        way.compare()


def test_other_bytes_are_an_error(way):
    way.placed.write_bytes(b"night")
    os.utime(way.placed, ns=(0, 1_234_567_890_123_456_789))
    with pytest.raises(PermanentError, match="is not as"):
        way.compare()


def test_time_that_is_off_by_a_nanosecond_is_an_error(way):
    os.utime(way.placed, ns=(0, 1_234_567_890_123_456_788))
    with pytest.raises(PermanentError, match="1234567890123456788"):
        way.compare()


def test_frames_of_a_second_run_are_the_next_exposures(tmp_path):
    first = demo.write_frames(tmp_path, "demo", NOW)
    second = demo.write_frames(tmp_path, "demo", NOW)
    assert [Path(path).name for path in first + second] == [
        f"demo.20261120.{number:04d}.fits" for number in range(1, 7)
    ]
    starts = [fits.getheader(path)["DATE-OBS"] for path in first]
    assert starts == sorted(set(starts))
    assert max(starts) < "2026-11-20T23:59:59"


@pytest.mark.parametrize(
    ("printed", "ids"),
    [
        ("request id is archive-9 (1 file(s))\n", ["archive-9"]),
        (
            "request ids are archive-9 … archive-11 (3 file(s))\n"
            "request id is archive-20 (1 file(s))\n",
            ["archive-9", "archive-10", "archive-11", "archive-20"],
        ),
        ("", []),
    ],
)
def test_request_ids_are_read_as_printed(printed, ids):
    assert demo.request_ids(printed) == ids

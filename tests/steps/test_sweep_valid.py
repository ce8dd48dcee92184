"""What an instrument asks of its files: by configuration alone, and nothing is lost by it."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from arrivals import NOW, Site, arrive, arrive_bundle, each_death, job, kinds
from formats.test_fits_headers import FILES, image, written

from lpxfer import checksum, codec
from lpxfer.formats import config, control
from lpxfer.formats.control import Control, Encoding
from lpxfer.formats.record import Record
from lpxfer.formats.testimony import Reach, Source, Weight, judge, said
from lpxfer.formats.verdict import Verdict, verdict
from lpxfer.steps.fsck_instrument import fsck
from lpxfer.steps.sweep import Rules, sweep
from lpxfer.stores.archive import Outcome

FRAME = written(image(8, 8, OBJECT="NGC 224", FRAMENO=42, EXPTIME=30.5))
CONF = """
[instrument minicam]
validate = *.fits
scheme = mini.{FRAMENO:4}.fits *.log
reject = */engineering/*
keywords = OBJECT EXPTIME
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def swept(site: Site, text: str = CONF, dry_run: bool = False) -> list[Outcome]:
    rules = Rules(config.parse(text, "lpxfer.conf").find_instrument("minicam"))
    with site.archive() as archive:
        return list(sweep(archive, rules, dry_run))


def frame(site: Site, number: int = 1, data: bytes = FRAME, **fields: object) -> Control:
    fields = {"name": "mini.0042.fits", "dir": f"{number}"} | fields
    return arrive(site.incoming, data, number, **fields)


def test_a_valid_frame_is_placed_with_its_cards_in_the_record(site: Site) -> None:
    frame(site)
    [outcome] = swept(site)
    [entry] = site.log()
    assert outcome.status == 0 and entry.kind == "stored"
    assert (entry.fields["OBJECT"], entry.fields["EXPTIME"]) == ("NGC 224", "30.5")
    assert site.receipts() == [entry]
    assert b"OBJECT=NGC%20224" in (site.home / "xferlogs/20030402.tdcin.log").read_bytes()


@pytest.mark.parametrize(
    ("fields", "data", "reason"),
    [
        ({}, b"", "EMPTY_FILE"),
        ({}, b"an error message", "UNREADABLE_FITS"),
        ({}, FRAME[:720], "NO_FITS_HDUS"),
        ({}, FRAME[:2900], "CORRUPTED_HDU"),
        ({"path": "/data/engineering/mini.0042.fits"}, FRAME, "FILEPATH_REJECT"),
        ({"name": "mini.42.fits"}, FRAME, "MISMATCHED_FILENAME"),
        ({"name": "maxi.0042.fits"}, FRAME, "BAD_OFNAME"),
    ],
)
def test_an_invalid_file_is_kept_with_its_reason_and_the_next_is_placed(
    site: Site, fields: dict[str, str], data: bytes, reason: str
) -> None:
    bad, good = frame(site, 1, data, **fields), frame(site, 2)
    assert [o.status for o in swept(site)] == [1, 0]
    assert kinds(site.log()) == kinds(site.receipts()) == ["quarantined", "stored"]
    entry = site.receipts()[0]
    assert (entry.fields["invalid"], entry.fields["checksum"]) == (reason, bad.checksum)
    assert (site.home / entry.fields["placed"]).read_bytes() == data
    kept = (site.home / f"quarantine/{bad.uid}.reason").read_text()
    assert kept.startswith(f"{reason}: ")
    assert control.load((site.home / f"quarantine/{bad.uid}.control").read_bytes()) == bad
    assert os.listdir(site.incoming) == [] and good.uid == site.log()[1].fields["uid"]


def test_the_telescope_may_forget_an_invalid_file_and_nobody_calls_its_original_redundant(
    site: Site,
) -> None:
    bad = frame(site, data=FRAME[:2900])
    swept(site)
    [receipt] = site.receipts()
    assert verdict(receipt, bad, 1) is Verdict.COMPLETED
    other = replace(bad, checksum=checksum.of_bytes(b"other bytes"))
    assert verdict(receipt, other, 1) is Verdict.FAILED
    done = said(Source.FINISHED, "archive", Record(NOW, "completed", dict(receipt.fields)))
    words = [said(source, "", receipt) for source in (Source.RECEIPT, Source.LOG)]
    found = judge([done, *words], Reach("", "", {"minicam": ""}))
    assert (found.account, found.weight, found.proven) == ("archived", Weight.NOTED, False)
    assert "CORRUPTED_HDU" in found.message


def test_what_was_refused_by_mistake_is_placed_from_quarantine(site: Site) -> None:
    frame(site, name="maxi.0042.fits")
    swept(site)
    shutil.rmtree(site.incoming)
    os.rename(site.home / "quarantine", site.incoming)
    assert [o.status for o in swept(site, CONF.replace("mini.{", "*.{"))] == [0]
    assert kinds(site.log()) == ["quarantined", "stored"]
    assert (site.home / "1/maxi.0042.fits").read_bytes() == FRAME


def test_members_of_a_bundle_are_judged_each_for_itself(site: Site) -> None:
    data = [FRAME, FRAME[:2900], b"", FRAME, b"text"]
    names = ["mini.0042.fits"] * 3 + ["mini.0043.fits", "night.log"]
    members = [
        (job(bytes_, number, name=name, dir=str(number % 2)), bytes_)
        for number, (bytes_, name) in enumerate(zip(data, names, strict=True), 1)
    ]
    arrive_bundle(site.incoming, *members)
    swept(site)
    assert os.listdir(site.incoming) == []
    found = {e.fields["uid"]: e.fields.get("invalid", e.kind) for e in site.receipts()}
    assert [found[known.uid] for known, _ in members] == [
        "stored", "CORRUPTED_HDU", "EMPTY_FILE", "MISMATCHED_FILENAME", "stored",
    ]  # fmt: skip
    for known, bytes_ in members[1:4]:
        assert (site.home / f"quarantine/{known.uid}.data").read_bytes() == bytes_


def encoded(site: Site, number: int, data: bytes) -> Control:
    """Put a file into incoming that was encoded on its way."""
    known = frame(site, number, data)
    path = site.incoming / f"{known.uid}.data"
    packed = site.root / "packed"
    with path.open("rb") as source, packed.open("w+b") as target:
        codec.encode(source.fileno(), len(data), target.fileno(), codec.parse("zstd-shuffle-2"))
    os.rename(packed, path)
    assert known.transfer
    how = Encoding(codec.NAME, path.stat().st_size)
    known = replace(known, transfer=replace(known.transfer, encoding=how))
    (site.incoming / f"{known.uid}.control").write_bytes(control.dump(known))
    return known


def test_a_file_that_came_encoded_is_judged_by_its_own_bytes(site: Site) -> None:
    encoded(site, 1, written(image(400, 400, FRAMENO=42)))
    swept(site)
    assert kinds(site.log()) == ["stored"]
    bad = encoded(site, 2, written(image(400, 400, FRAMENO=43)))
    swept(site, dry_run=True)
    swept(site)
    entry = site.receipts()[-1]
    assert entry.fields["invalid"] == "MISMATCHED_FILENAME"
    assert verdict(entry, bad, 1) is Verdict.COMPLETED
    assert control.load((site.home / f"quarantine/{bad.uid}.control").read_bytes()) == bad


def test_a_sweep_that_is_killed_anywhere_keeps_an_invalid_file_once(site: Site) -> None:
    def prepare() -> None:
        for path in (site.root / "receipts", site.home, site.incoming):
            shutil.rmtree(path, ignore_errors=True)
        for path in (site.home, site.incoming):
            path.mkdir()
        frame(site, data=FRAME[:2900])

    for where in each_death(lambda: swept(site), prepare):
        swept(site)
        assert os.listdir(site.incoming) == [], where
        assert {e.fields["invalid"] for e in site.receipts()} == {"CORRUPTED_HDU"}, where
        assert len(site.files()) == 3, where


def test_a_card_survives_a_sweep_that_was_killed_after_the_link(site: Site) -> None:
    def prepare() -> None:
        for path in (site.root / "receipts", site.home, site.incoming):
            shutil.rmtree(path, ignore_errors=True)
        for path in (site.home, site.incoming):
            path.mkdir()
        frame(site)

    for where in each_death(lambda: swept(site), prepare):
        swept(site)
        assert {e.fields.get("OBJECT") for e in site.log()} == {"NGC 224"}, where
        assert {e.fields.get("OBJECT") for e in site.receipts()} == {"NGC 224"}, where


def test_a_depositor_who_changes_the_bytes_meanwhile_gets_no_word_for_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = frame(site, data=FRAME[:2900])
    monkeypatch.setattr("lpxfer.stores.settling.is_whole", lambda *_: False)
    swept(site)
    [receipt] = site.receipts()
    assert receipt.kind == "mismatch" and verdict(receipt, bad, 1) is Verdict.AGAIN


def test_dry_run_says_what_would_be_invalid(site: Site) -> None:
    frame(site, data=FRAME[:2900])
    [outcome] = swept(site, dry_run=True)
    assert outcome.record and outcome.record.fields["invalid"] == "CORRUPTED_HDU"
    assert site.files() == []


def test_fsck_finds_nothing_wrong_with_what_is_invalid(site: Site) -> None:
    frame(site, data=FRAME[:2900])
    frame(site, 2)
    swept(site)
    assert fsck(str(site.home), False, NOW, lambda *_: None).findings == []


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_two_new_instruments_are_configuration_alone(site: Site) -> None:
    text = """
[instrument echelle]
validate = fits
scheme = e{FRAMENO:4}.fits
keywords = OBJECT

[instrument guider]
scheme = *.png
"""
    conf = config.parse(text, "lpxfer.conf")
    homes = {name: site.root / name for name in ("echelle", "guider")}
    for home in homes.values():
        home.mkdir()
    arrive(site.incoming, FRAME, 1, name="e0042.fits", inst="echelle", dir="n")
    arrive(site.incoming, FILES["image"], 2, name="e0043.fits", inst="echelle", dir="n")
    arrive(site.incoming, b"\x89PNG", 3, name="field.png", inst="guider", dir="n")
    arrive(site.incoming, FRAME, 4, name="field.fits", inst="guider", dir="n")
    for name, home in homes.items():
        with site.archive(home) as archive:
            list(sweep(archive, Rules(conf.find_instrument(name))))
    found = {name: [e.fields.get("invalid", e.kind) for e in site.log(home)]
             for name, home in homes.items()}  # fmt: skip
    assert found == {"echelle": ["stored", "MISMATCHED_FILENAME"],
                     "guider": ["stored", "BAD_OFNAME"]}  # fmt: skip
    assert site.log(homes["echelle"])[0].fields["OBJECT"] == "NGC 224"

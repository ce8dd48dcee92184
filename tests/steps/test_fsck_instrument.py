"""The check of an instrument directory: what the logs promise, and what stands there."""

import gzip
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arrivals import NOW, Site, arrive, each_death

from lpxfer.errors import PermanentError
from lpxfer.formats import finding, names, record
from lpxfer.formats.finding import Finding, Report
from lpxfer.formats.record import Record
from lpxfer.steps import fsck_instrument
from lpxfer.stores.instrument_dir import InstrumentDir

PLACED = "2003.0401/0123.fits"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with two placed files, of 9 and of 5 bytes."""
    site = Site(tmp_path / "site")
    arrive(site.incoming)
    arrive(site.incoming, b"other", 2, name="0124.fits")
    site.sweep()
    return site


def fsck(site: Site, repair: bool = False, later: timedelta = timedelta(0)) -> Report:
    now = datetime.now(UTC) + later
    return fsck_instrument.fsck(str(site.home), repair, now, lambda size, total: None)


def only(report: Report) -> Finding:
    [found] = report.findings
    return found


def add_record(site: Site, kind: str, **fields: str) -> None:
    entry = record.dump(Record(NOW, kind, fields))
    with open(max((site.home / "xferlogs").iterdir()), "ab") as log:
        log.write(entry)


def alter(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"SIMPLE  +")


def tear(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"SIMP")


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


ALTERED = {
    alter: "has checksum sha256:fb8303debad2c321f967154276a86ecec6c73f5dda1d27ada4791f4f8107d228 "
    "but the record of",
    tear: "has 4 bytes but the record says 9",
    link: "is not a regular file",
    fifo: "is not a regular file",
}

# --- nothing is wrong -------------------------------------------------------------------------


def test_what_a_sweep_placed_is_as_it_should_be(site: Site) -> None:
    assert fsck(site) == Report([], {"files": 2, "bytes": 14, "unrecorded": 0})
    assert fsck(site, repair=True).findings == []


def test_duplicates_renamed_files_and_quarantine_are_as_they_should_be(site: Site) -> None:
    arrive(site.incoming, number=3)
    arrive(site.incoming, b"another", 4)
    arrive(site.incoming, b"shorter", 5, size=9)
    arrive(site.incoming, number=6, dir="../../etc")
    arrive(site.incoming, number=7, name="raw\udcff\n%.fits", dir="deep/er")
    site.sweep()
    found = sorted(entry.kind for entry in site.log())
    assert found == [
        "duplicate",
        "mismatch",
        "quarantined",
        "renamed",
        "stored",
        "stored",
        "stored",
    ]
    report = fsck(site, later=timedelta(days=3))
    assert report == Report([], {"files": 4, "bytes": 30, "unrecorded": 0})


def test_files_from_before_are_counted_and_are_no_finding(site: Site) -> None:
    (site.home / "1999.0101").mkdir()
    (site.home / "1999.0101/old.fits").touch()
    (site.home / "README").touch()
    (site.home / "elsewhere").symlink_to("/etc")
    assert fsck(site).findings == []
    assert fsck(site).checked["unrecorded"] == 3


def test_strangers_wait_for_a_sweep_and_are_no_finding(site: Site) -> None:
    arrive(site.incoming, number=9, inst="nobody")
    site.sweep_any()
    site.home = site.any
    assert fsck(site).findings == []


def test_a_sweep_that_died_anywhere_breaks_no_promise(site: Site) -> None:
    numbers = iter(range(10, 10_000))

    def prepare() -> None:
        number = next(numbers)
        arrive(site.incoming, b"%d" % number, number, name=f"{number}.fits")

    for where in each_death(site.sweep, prepare):
        assert fsck(site).findings == [], where


def test_rotated_and_compressed_logs_are_read(site: Site) -> None:
    log = site.home / "xferlogs/20030402.tdcin.log"
    log.with_name(log.name + ".1.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    (site.home / PLACED).unlink()
    assert only(fsck(site)).where == PLACED


def test_a_directory_without_logs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="has no xferlogs"):
        fsck_instrument.fsck(str(tmp_path), False, NOW, lambda size, total: None)
    with pytest.raises(FileNotFoundError):
        fsck_instrument.fsck(str(tmp_path / "no"), False, NOW, lambda size, total: None)


# --- one broken promise after another ---------------------------------------------------------


@pytest.mark.parametrize("damage", ALTERED, ids=lambda damage: damage.__name__)
def test_an_altered_file_is_named_and_set_aside_and_can_be_sent_again(
    site: Site, damage: Callable[[Path], None]
) -> None:
    damage(site.home / PLACED)
    before = site.files()
    found = only(fsck(site))
    assert found.subject == found.where == PLACED and found.invariant == finding.PLACED
    assert found.message.startswith(ALTERED[damage])
    assert names.UID.fullmatch(found.id) and not found.warning
    assert site.files() == before

    mended = only(fsck(site, repair=True))
    aside = site.home / f"quarantine/{found.id}.placed"
    assert mended.repaired and mended.message.endswith(f"; set aside as quarantine/{aside.name}")
    assert aside.is_symlink() or aside.exists()
    reason = aside.with_name(aside.name + ".reason").read_text()
    assert reason == f"{PLACED} {found.message}\n"
    entry = site.log()[-1]
    assert entry.kind == record.QUARANTINED and entry.fields["instead_of"] == PLACED
    assert entry.fields["inst"] == "minicam"
    assert fsck(site, later=timedelta(days=3)).findings == []

    arrive(site.incoming, number=3)
    site.sweep(now=datetime.now(UTC))
    assert (site.home / PLACED).read_bytes() == b"SIMPLE  ="
    assert fsck(site).findings == []


def test_a_name_of_any_bytes_can_be_set_aside(site: Site) -> None:
    arrive(site.incoming, number=3, name="raw\udcff\n\u202e.fits")
    site.sweep()
    alter(site.home / "2003.0401/raw\udcff\n\u202e.fits")
    assert only(fsck(site, repair=True)).repaired
    [reason] = (site.home / "quarantine").glob("*.reason")
    assert reason.read_text().startswith("2003.0401/raw%FF%0A%E2%80%AE.fits has checksum")
    assert fsck(site).findings == []


def test_a_missing_file_is_named_and_no_repair_pretends_to_bring_it_back(site: Site) -> None:
    (site.home / PLACED).unlink()
    for repair in (False, True):
        report = fsck(site, repair)
        assert only(report).message.endswith(" is missing") and report.broken
        assert not only(report).repaired


def test_a_directory_in_the_place_of_a_file_is_named_and_left_there(site: Site) -> None:
    """There may be anything in it: a person has to look."""
    (site.home / PLACED).unlink()
    (site.home / PLACED).mkdir()
    (site.home / PLACED / "night.log").touch()
    assert only(fsck(site, repair=True)).message == "is a directory"
    assert (site.home / PLACED / "night.log").exists()


def test_a_link_on_the_way_to_a_file_is_not_followed(site: Site, tmp_path: Path) -> None:
    os.rename(site.home / "2003.0401", tmp_path / "outside")
    (site.home / "2003.0401").symlink_to(tmp_path / "outside")
    for repair in (False, True):
        for found in fsck(site, repair).findings:
            assert "is a link, or not a directory" in found.message and not found.repaired
    assert sorted(os.listdir(tmp_path / "outside")) == ["0123.fits", "0124.fits"]


@pytest.mark.parametrize("path", ["../outside", "{root}/outside", "2003.0401/../../outside",
                                  "xferlogs/x", "/outside", "2003.0401/", ".lock", ""])  # fmt: skip
def test_a_record_that_leads_elsewhere_is_named_and_not_followed(site: Site, path: str) -> None:
    path = path.format(root=site.root)
    (site.root / "outside").write_bytes(b"something else")
    fields = dict(site.log()[0].fields) | {"placed": path}
    fields["uid"] = fields["uid"].replace("archive-1-", "archive-8-")
    add_record(site, "stored", **fields)
    for repair in (False, True):
        found = only(fsck(site, repair))
        assert found.where == path and not found.repaired
        assert found.message.startswith(("bad dir", "bad file name", "dir must not begin"))
    assert (site.root / "outside").read_bytes() == b"something else"


def test_a_second_file_of_a_uid_is_named_and_set_aside(site: Site) -> None:
    (site.home / "copy.fits").write_bytes(b"SIMPLE  =")
    add_record(site, "stored", **dict(site.log()[0].fields) | {"placed": "copy.fits"})
    found = only(fsck(site))
    assert found.invariant == finding.ONCE and found.where == "copy.fits"
    assert found.message == f"is a second file of {found.id}, beside {PLACED}"
    assert only(fsck(site, repair=True)).repaired
    assert site.files()[:2] == ["2003.0401/0123.fits", "2003.0401/0124.fits"]
    assert fsck(site).findings == []


def test_a_second_file_that_is_also_somebody_elses_stays(site: Site) -> None:
    (site.home / "copy.fits").write_bytes(b"SIMPLE  =")
    fields = dict(site.log()[0].fields) | {"placed": "copy.fits"}
    add_record(site, "stored", **fields)
    fields["uid"] = fields["uid"].replace("archive-1-", "archive-8-")
    add_record(site, "duplicate", **fields)
    assert not only(fsck(site, repair=True)).repaired
    assert (site.home / "copy.fits").exists()


def test_a_path_that_was_given_to_other_bytes_is_named(site: Site) -> None:
    """The last record counts, and the file has its bytes; but the first uid's are gone."""
    first, second = site.log()
    add_record(site, "stored", **dict(second.fields) | {"placed": PLACED})
    (site.home / PLACED).chmod(0o644)
    (site.home / PLACED).write_bytes(b"other")
    (site.home / "2003.0401/0124.fits").unlink()
    missing = [f for f in fsck(site).findings if f.where != PLACED]
    [found] = [f for f in fsck(site).findings if f.where == PLACED]
    assert found.invariant == finding.ONCE and not found.mendable
    assert "with different contents" in found.message and len(missing) == 1


def test_torn_records_are_no_broken_promise(site: Site) -> None:
    """The sweep that died in the middle of one left it; the next one wrote it again."""
    log = site.home / "xferlogs/20030402.tdcin.log"
    text = log.read_bytes()
    last = text.splitlines(keepends=True)[-1]
    first = text.removesuffix(last)
    for length in range(len(last)):
        for before in (first, text):
            log.write_bytes(before + last[:length])
            assert fsck(site).findings == [], f"torn after {length} bytes"
        log.write_bytes(first + last[:length] + b"\n" + last)
        assert fsck(site).findings == [], f"torn after {length} bytes, and gone on"


def test_damaged_lines_of_the_log_are_named_and_left_as_they_are(site: Site) -> None:
    log = site.home / "xferlogs/20030402.tdcin.log"
    text = log.read_bytes() + b"somebody wrote this\n\0 \0\0\n\xff\n"
    log.write_bytes(text)
    os.mkfifo(site.home / "xferlogs/20030403.tdcin.log")
    for repair in (False, True):
        damaged, unreadable = fsck(site, repair).findings
        assert damaged.subject == "xferlogs" and not damaged.repaired
        assert damaged.message.startswith("20030402.tdcin.log: 3 damaged line(s)")
        assert unreadable.message.startswith("20030403.tdcin.log: ")
    assert log.read_bytes() == text


def test_zeros_that_a_power_cut_left_in_a_log_are_no_damage(site: Site) -> None:
    [log] = (site.home / "xferlogs").iterdir()
    log.write_bytes(log.read_bytes() + bytes(300) + b"\n")
    assert fsck(site).findings == []


@pytest.mark.parametrize("name", [".sweep.tmp", ".sweep.1.tmp", ".sweep.999.tmp"])
def test_an_old_copy_of_a_dead_sweep_is_a_warning_and_set_aside(site: Site, name: str) -> None:
    (site.home / "2003.0401" / name).write_bytes(b"half")
    assert fsck(site).findings == []
    old = timedelta(days=1, minutes=1)
    report = fsck(site, later=old)
    assert only(report).invariant == finding.TEMPORARY and not report.broken
    assert only(fsck(site, repair=True, later=old)).repaired
    assert (site.home / "quarantine/sweep.tmp").read_bytes() == b"half"
    assert fsck(site, later=old).findings == []


def test_what_is_in_quarantine_without_a_reason_gets_one(site: Site) -> None:
    arrive(site.incoming, b"shorter", 5, size=9)
    site.sweep()
    [reason] = (site.home / "quarantine").glob("*.reason")
    reason.unlink()
    assert fsck(site).findings == []  # a sweep may be about it
    later = timedelta(hours=2)
    report = fsck(site, later=later)
    assert {found.invariant for found in report.findings} == {finding.REASON}
    assert len(report.findings) == 2 and not report.broken
    assert all(found.repaired for found in fsck(site, True, later).findings)
    assert fsck(site, later=later).findings == []


def test_a_quarantine_that_is_no_directory_is_named(site: Site, tmp_path: Path) -> None:
    (site.home / "quarantine").symlink_to(tmp_path)
    alter(site.home / PLACED)
    altered, quarantine = fsck(site, repair=True).findings
    assert quarantine.invariant == finding.LAYOUT
    assert not altered.repaired and "; not repaired: " in altered.message
    assert (site.home / PLACED).exists()


def test_two_things_set_aside_of_one_uid_have_names_of_their_own(site: Site) -> None:
    for _ in range(2):
        alter(site.home / PLACED)
        uid = only(fsck(site, repair=True)).id
        add_record(site, "stored", **dict(site.log()[0].fields))
        (site.home / PLACED).write_bytes(b"SIMPLE  =")
    assert {f"{uid}.placed", f"{uid}.placed.2"} <= set(os.listdir(site.home / "quarantine"))


# --- repair and others ------------------------------------------------------------------------


def test_beside_a_sweep_nothing_is_repaired(site: Site) -> None:
    alter(site.home / PLACED)
    with InstrumentDir(str(site.home)) as home, home.locked():
        report = fsck(site, repair=True)
    assert report.busy.startswith("a sweep works in ") and not only(report).repaired
    assert (site.home / PLACED).exists()
    assert only(fsck(site, repair=True)).repaired


def test_a_disk_that_cannot_be_read_is_named_and_nothing_is_set_aside(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, size: int | None = None) -> str:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("lpxfer.checksum.of_file", fail)
        report = fsck(site, repair=True)
    assert {f.message for f in report.findings} == {"cannot be read: Input/output error"}
    assert fsck(site).findings == []

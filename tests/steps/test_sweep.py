"""The sweep of one instrument, on real directories."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from arrivals import MTIME, NOW, Site, arrive, each_death, killed, kinds, refuse
from torture import calls

from lpxfer import checksum, durable
from lpxfer.errors import BusyError, PermanentError
from lpxfer.formats import control, keyvalue, names, record, stages
from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.control import Control
from lpxfer.steps.sweep import Rules, destination, sweep
from lpxfer.stores.delivery import verify


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def left(site: Site) -> list[str]:
    return sorted(os.listdir(site.incoming))


# --- placing ----------------------------------------------------------------------------------


def test_an_arrival_is_placed_with_its_time_recorded_receipted_and_removed(site: Site) -> None:
    known = arrive(site.incoming)
    outcomes = site.sweep()
    placed = site.home / "2003.0401/0123.fits"
    assert placed.read_bytes() == b"SIMPLE  ="
    assert placed.stat().st_mtime_ns == MTIME
    assert placed.stat().st_mode & 0o7222 == 0
    assert site.files() == ["2003.0401/0123.fits"]
    assert left(site) == []
    [entry] = site.log()
    assert [outcome.record for outcome in outcomes] == [entry]
    assert site.receipts() == [entry]
    assert entry.kind == "stored" and entry.time == NOW
    fields = dict(entry.fields)
    assert list(stages.load(fields.pop("stages"))) == list(stages.STAGES[:9])
    assert list(fields.items()) == [
        ("inst", "minicam"), ("uid", known.uid), ("name", "0123.fits"), ("size", "9"),
        ("checksum", known.checksum), ("path", known.path), ("placed", "2003.0401/0123.fits"),
        ("seconds", "13.02"), ("rate", "0.00"), ("attempts", "1"),
    ]  # fmt: skip


def test_an_arrival_made_by_hand_has_no_transfer_times_in_its_record(site: Site) -> None:
    arrive(site.incoming, transfer=None)
    [outcome] = site.sweep()
    assert outcome.record and not {"seconds", "rate", "attempts"} & outcome.record.fields.keys()


def test_an_empty_file_is_placed(site: Site) -> None:
    arrive(site.incoming, b"")
    site.sweep()
    assert (site.home / "2003.0401/0123.fits").read_bytes() == b""


@pytest.mark.parametrize(
    "name",
    ["with space.fits", "äöü.fits", "new\nline.fits", "raw\udcff\udcfe.fits", "%2e%2e", "-rf",
     "~", "x" * 255, "a\x1b]0;title\x07b", "\u202eevil.fits", "semi;colon&'\""],
)  # fmt: skip
def test_other_bytes_of_a_name_are_kept_as_they_are(site: Site, name: str) -> None:
    arrive(site.incoming, name=name)
    site.sweep()
    assert os.listdir(site.home / "2003.0401") == [name]
    [entry] = site.log()
    assert entry.fields["name"] == name and entry.fields["placed"] == f"2003.0401/{name}"
    assert (site.home / "xferlogs/20030402.tdcin.log").read_bytes().count(b"\n") == 1


def test_the_log_is_named_by_the_utc_day_of_the_sweep(site: Site) -> None:
    arrive(site.incoming)
    site.sweep(now=datetime(2003, 4, 2, 23, 59, 59, tzinfo=UTC))
    arrive(site.incoming, number=2, name="b")
    site.sweep(now=datetime(2003, 4, 3, 0, 0, 1, tzinfo=UTC))
    logs = os.listdir(site.home / "xferlogs")
    assert sorted(logs) == ["20030402.tdcin.log", "20030403.tdcin.log"]


def test_other_instruments_arrivals_stay(site: Site) -> None:
    other = arrive(site.incoming, inst="megacam")
    hidden = arrive(site.incoming, number=2, others={"note": "inst=minicam"}, inst="fast")
    assert site.sweep() == []
    assert len(left(site)) == 4 and site.files() == []
    assert (site.incoming / f"{other.uid}.data").exists()
    assert (site.incoming / f"{hidden.uid}.data").exists()


def test_an_alias_of_an_instrument_is_swept_with_it(site: Site) -> None:
    arrive(site.incoming, inst="mini")
    with site.archive() as archive:
        outcomes = list(sweep(archive, Rules(InstrumentConfig("minicam", alias="mini"))))
    assert [o.record.kind for o in outcomes if o.record] == ["stored"]


def test_the_accepts_file_is_rewritten_by_every_sweep(site: Site) -> None:
    site.sweep()
    accepts = site.root / "receipts/accepts/minicam"
    said = keyvalue.load(accepts.read_bytes())
    assert (said["format"], said["bundle"]) == ("1", "1")
    os.utime(accepts, (0, 0))
    site.sweep()
    assert accepts.stat().st_mtime > 0


# --- where ------------------------------------------------------------------------------------

KNOWN = Control(
    job="archive-1", uid="20030402T051220Z-mmto-archive-1-00000001", host="mmto", user="observer",
    queue="archive", submitted=datetime(2003, 4, 2, 5, 12, 20, tzinfo=UTC), name="0123.fits",
    path="/h/ARCHMINICAM/2002.0523/0123.fits", size=0, mtime_ns=0,
    checksum=checksum.of_bytes(b""), inst="minicam",
)  # fmt: skip
ELSEWHERE = replace(KNOWN, path="/h/raw/0123.fits")


@pytest.mark.parametrize(
    ("known", "rules", "expected"),
    [
        (replace(KNOWN, dir="a/b"), {"dir": "given/here"}, "given/here"),
        (replace(KNOWN, dir="../.."), {"dir": "given"}, "given"),
        (replace(KNOWN, dir="a/b.c_d-e"), {}, "a/b.c_d-e"),
        (replace(KNOWN, dir="a"), {"dated": False}, "a"),
        (KNOWN, {"dir": "given", "dated": False}, "given"),
        (KNOWN, {}, "2002.0523"),
        (KNOWN, {"dated": False}, ""),
        (ELSEWHERE, {}, "2003.0402"),
        (replace(KNOWN, path="/h/2002.0523/raw/0123.fits"), {}, "2003.0402"),
        (replace(KNOWN, path="/h/2002.1323/0123.fits"), {}, "2003.0402"),
    ],
)
def test_the_first_directory_that_applies_is_taken(
    known: Control, rules: dict[str, object], expected: str
) -> None:
    components, name = destination(known, Rules(InstrumentConfig("minicam"), **rules))  # type: ignore[arg-type]
    assert "/".join(components) == expected and name == "0123.fits"


def test_the_queuing_time_is_dated_in_the_instruments_zone_and_from_noon() -> None:
    def night(**settings: object) -> str:
        rules = Rules(InstrumentConfig("minicam", **settings))  # type: ignore[arg-type]
        return destination(ELSEWHERE, rules)[0][0]

    assert night(zone="MST") == "2003.0401"  # 22:12 in Arizona
    assert night(zone="MST", noon=True) == "2003.0401"
    assert night(noon=True) == "2003.0401"
    assert night() == "2003.0402"


# --- names that are taken ---------------------------------------------------------------------


def test_other_bytes_of_another_uid_are_renamed_and_the_first_keeps_the_name(site: Site) -> None:
    arrive(site.incoming, b"first")
    site.sweep()
    second = arrive(site.incoming, b"second", number=2)
    site.sweep()
    name = f"0123.{second.uid}.fits"
    assert (site.home / "2003.0401/0123.fits").read_bytes() == b"first"
    assert (site.home / "2003.0401" / name).read_bytes() == b"second"
    entry = site.log()[-1]
    assert entry.kind == "renamed" and site.receipts()[-1] == entry
    assert entry.fields["placed"] == f"2003.0401/{name}"
    assert list(entry.fields.items())[-2] == ("instead_of", "2003.0401/0123.fits")
    assert left(site) == []


def test_the_same_bytes_of_another_uid_are_a_duplicate(site: Site) -> None:
    arrive(site.incoming)
    arrive(site.incoming, number=2)
    site.sweep()
    assert kinds(site.log()) == kinds(site.receipts()) == ["stored", "duplicate"]
    assert site.log()[1].fields["placed"] == "2003.0401/0123.fits"
    assert site.files() == ["2003.0401/0123.fits"] and left(site) == []


def test_a_duplicate_is_known_by_logs_of_any_age_and_form(site: Site) -> None:
    arrive(site.incoming)
    site.sweep()
    logs = site.home / "xferlogs"
    os.rename(logs / "20030402.tdcin.log", logs / "19990101.tdcin.log.1")
    os.system(f"gzip '{logs}/19990101.tdcin.log.1'")
    arrive(site.incoming, number=2)
    site.sweep()
    assert kinds(site.log()) == ["duplicate"]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "dangling"])
def test_what_is_no_file_under_the_final_name_is_not_touched_or_followed(
    site: Site, kind: str, tmp_path: Path
) -> None:
    arrive(site.incoming)
    there = site.home / "2003.0401/0123.fits"
    there.parent.mkdir()
    outside = tmp_path / "outside"
    outside.write_bytes(b"SIMPLE  =")
    {
        "link": lambda: there.symlink_to(outside),
        "dangling": lambda: there.symlink_to(tmp_path / "nothing"),
        "fifo": lambda: os.mkfifo(there),
        "directory": lambda: there.mkdir(),
    }[kind]()
    site.sweep()
    assert kinds(site.log()) == ["renamed"]
    assert there.is_symlink() == (kind in ("link", "dangling"))
    assert not (tmp_path / "nothing").exists()
    assert outside.stat().st_mtime_ns != MTIME


def test_both_names_taken_is_quarantined(site: Site) -> None:
    known = arrive(site.incoming)
    directory = site.home / "2003.0401"
    directory.mkdir()
    (directory / "0123.fits").write_text("other")
    (directory / names.renamed("0123.fits", known.uid)).write_text("other")
    [outcome] = site.sweep()
    assert outcome.record and outcome.record.kind == "quarantined" and outcome.status == 1


# --- the same uid again -----------------------------------------------------------------------


def test_a_repeated_delivery_gets_its_receipt_again_and_nothing_else(site: Site) -> None:
    arrive(site.incoming)
    site.sweep()
    arrive(site.incoming)
    assert site.sweep(now=NOW + timedelta(days=1)) == []
    assert kinds(site.log()) == ["stored"]
    assert kinds(site.receipts()) == ["stored", "stored"]
    assert site.receipts()[0] == site.receipts()[1]
    assert site.files() == ["2003.0401/0123.fits"] and left(site) == []


def test_a_repeated_delivery_is_known_when_the_clock_was_wrong(site: Site) -> None:
    for uid_time in (datetime(1970, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)):
        uid = names.make_uid(uid_time, "mmto", "archive-1", b"0000")
        arrive(site.incoming, uid=uid, name=f"{uid_time:%Y}")
        site.sweep()
        arrive(site.incoming, uid=uid, name=f"{uid_time:%Y}")
        assert site.sweep(now=NOW + timedelta(days=2)) == []
    assert kinds(site.log()) == ["stored", "stored"]


def lose(placed: Path) -> None:
    placed.unlink()


def alter(placed: Path) -> None:
    placed.unlink()
    placed.write_bytes(b"SIMPLE  +")


def cut(placed: Path) -> None:
    placed.unlink()
    placed.write_bytes(b"SIMPLE")


def replace_by_link(placed: Path) -> None:
    moved = placed.rename(placed.parents[2] / "moved")
    placed.symlink_to(moved)


def lose_directory(placed: Path) -> None:
    shutil.rmtree(placed.parent)
    placed.parent.write_text("a file where the directory was")


@pytest.mark.parametrize("harm", [lose, alter, cut, replace_by_link])
def test_what_is_delivered_again_is_placed_again_when_its_copy_is_not_there_any_more(
    site: Site, harm: Callable[[Path], None]
) -> None:
    arrive(site.incoming)
    site.sweep()
    harm(site.home / "2003.0401/0123.fits")
    arrive(site.incoming)
    with site.archive() as archive:
        [foreseen] = sweep(archive, Rules(InstrumentConfig("minicam")), dry_run=True)
    [outcome] = site.sweep()
    kind = "stored" if harm is lose else "renamed"
    assert kinds(site.log()) == kinds(site.receipts()) == ["stored", kind]
    assert outcome.record and foreseen.record and foreseen.record.kind == kind
    copy = site.home / outcome.record.fields["placed"]
    assert copy.read_bytes() == b"SIMPLE  =" and not copy.is_symlink()
    assert left(site) == []
    arrive(site.incoming)
    assert site.sweep() == []  # from now on this one counts
    assert len(site.log()) == 2 and left(site) == []


def test_what_is_delivered_again_is_kept_when_its_directory_is_lost(site: Site) -> None:
    arrive(site.incoming)
    site.sweep()
    lose_directory(site.home / "2003.0401/0123.fits")
    arrive(site.incoming)
    [outcome] = site.sweep()
    assert outcome.record and outcome.record.kind == "quarantined"
    assert (site.home / outcome.record.fields["placed"]).read_bytes() == b"SIMPLE  ="


def test_what_was_set_aside_since_has_a_new_record_when_it_is_placed_again(site: Site) -> None:
    known = arrive(site.incoming)
    site.sweep()
    fields = {"uid": known.uid, "name": "0123.fits", "instead_of": "2003.0401/0123.fits"}
    with site.archive() as archive:
        later = NOW + timedelta(days=1)
        archive.home.log.append(record.Record(later, "quarantined", fields))
    arrive(site.incoming)  # the name is there, as a sweep leaves it that dies before its record
    site.sweep(now=NOW + timedelta(days=2))
    assert kinds(site.log()) == ["stored", "quarantined", "stored"]
    arrive(site.incoming)
    assert site.sweep(now=NOW + timedelta(days=3)) == []


def test_a_copy_that_cannot_be_read_now_leaves_what_is_delivered_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive(site.incoming)
    site.sweep()
    arrive(site.incoming)
    with monkeypatch.context() as broken:
        broken.setattr(checksum, "of_file", refuse(errno.EIO))
        [outcome] = site.sweep()
    assert outcome.status == 75 and len(left(site)) == 2
    assert kinds(site.receipts()) == ["stored"]


@pytest.mark.parametrize("inst", ["minicam", "nobodys"])
def test_name_that_a_killed_sender_gave_is_durable_before_its_data_goes(
    site: Site, inst: str
) -> None:
    arrive(site.incoming, inst=inst)
    seen, incoming = list[str](), os.stat(site.incoming).st_ino

    def after(verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], _: object) -> None:
        fd = args[0] if verb == "fsync" else kwargs.get("dir_fd", -1)
        if verb in ("fsync", "unlink") and os.fstat(fd).st_ino == incoming:
            seen.append(verb)

    with calls.watched(after=after):
        site.sweep() if inst == "minicam" else site.sweep_any()
    assert left(site) == []
    assert seen[0] == "fsync"


def test_killed_sweep_that_places_again_leaves_one_file(memory: Site) -> None:
    def lost() -> None:
        arrive(memory.incoming)
        memory.sweep()
        lose(memory.home / "2003.0401/0123.fits")
        arrive(memory.incoming)

    for where in deaths(memory, lost):
        assert memory.files() == ["2003.0401/0123.fits"], where
        assert set(kinds(memory.log())) == {"stored"} and len(memory.log()) <= 2, where


def test_the_same_uid_with_other_bytes_is_quarantined_and_the_first_copy_kept(site: Site) -> None:
    known = arrive(site.incoming, b"first")
    site.sweep()
    arrive(site.incoming, b"forged")
    [outcome] = site.sweep()
    assert outcome.record and outcome.record.kind == "quarantined"
    assert (site.home / "2003.0401/0123.fits").read_bytes() == b"first"
    assert (site.home / f"quarantine/{known.uid}.data").read_bytes() == b"forged"
    assert left(site) == []


def test_a_final_name_without_record_gets_the_missing_record(site: Site) -> None:
    arrive(site.incoming)
    site.sweep()
    shutil.rmtree(site.home / "xferlogs")
    arrive(site.incoming)
    site.sweep()
    assert kinds(site.log()) == ["stored"]
    assert site.files() == ["2003.0401/0123.fits"]


def test_a_control_file_whose_data_is_unlinked_is_removed_too(site: Site) -> None:
    known = arrive(site.incoming)
    site.sweep()
    arrive(site.incoming)
    (site.incoming / f"{known.uid}.data").unlink()
    assert site.sweep() == []
    assert left(site) == [] and kinds(site.log()) == ["stored"]


# --- what cannot be placed --------------------------------------------------------------------


def quarantined(site: Site, known: Control) -> tuple[bytes, str]:
    """Return data and reason of the one thing in quarantine."""
    base = site.home / "quarantine" / known.uid
    assert control.load(Path(f"{base}.control").read_bytes()) == known
    return Path(f"{base}.data").read_bytes(), Path(f"{base}.reason").read_text()


@pytest.mark.parametrize(
    ("field", "value"),
    [("dir", v) for v in (
        "../../etc", "/etc", "a/../../b", ".", "..", "", "a//b", "a/", "%2e%2e", "a b", "~",
        "xferlogs", "quarantine/x", "receipts", ".hidden", "a/.b", "x" * 65, "a\nb", "a\0b",
        "é", "/".join(["x"] * 600), "a\\..\\b", "\u202e", "\udcff")]
    + [("name", v) for v in ("", ".", "..", ".hidden", "../x", "/etc/passwd", "a/b", "a\0b",
                             "x" * 256, "é" * 128)],
)  # fmt: skip
def test_what_leads_elsewhere_is_quarantined_with_a_reason(
    site: Site, field: str, value: str
) -> None:
    bad = arrive(site.incoming, **{field: value})
    good = arrive(site.incoming, number=2, name="good.fits")
    outcomes = site.sweep()
    data, reason = quarantined(site, bad)
    assert data == b"SIMPLE  =" and len(reason) > 10 and reason.strip().isprintable()
    assert [o.record.kind for o in outcomes if o.record] == ["quarantined", "stored"]
    assert outcomes[0].status == 1 and bad.uid in str(outcomes[0].message)
    assert site.log()[0].fields["reason"] == reason.strip()
    assert kinds(site.receipts()) == ["quarantined", "stored"]
    stem = f"quarantine/{bad.uid}"
    assert site.files() == sorted(
        ["2003.0401/good.fits", f"{stem}.control", f"{stem}.data", f"{stem}.reason"]
    )
    assert left(site) == [] and good.uid
    assert sorted(os.listdir(site.root)) == ["any", "incoming", "minicam", "receipts"]


@pytest.mark.parametrize("name", sorted(names.RESERVED))
def test_without_dates_a_reserved_name_is_quarantined(site: Site, name: str) -> None:
    known = arrive(site.incoming, name=name)
    site.sweep(dated=False)
    assert "reserved" in quarantined(site, known)[1]
    again = arrive(site.incoming, number=2, name=name)
    site.sweep()
    assert site.log()[-1].fields["placed"] == f"2003.0401/{name}" and again


def test_what_was_quarantined_for_its_dir_can_be_swept_from_there(site: Site) -> None:
    arrive(site.incoming, dir="../x")
    site.sweep()
    site.incoming = site.home / "quarantine"
    site.sweep(dir="rescued")
    assert "rescued/0123.fits" in site.files()
    assert [name for name in left(site) if not name.endswith(".reason")] == []


def test_what_cannot_be_swept_from_quarantine_stays_there(site: Site) -> None:
    known = arrive(site.incoming, dir="../x")
    site.sweep()
    site.incoming = site.home / "quarantine"
    before = left(site)
    [outcome] = site.sweep()
    assert outcome.status == 1 and known.uid in str(outcome.message)
    assert left(site) == before and kinds(site.log()) == ["quarantined"]


def test_a_control_file_that_is_alone_in_quarantine_stays_there(site: Site) -> None:
    known = arrive(site.incoming)
    (site.incoming / f"{known.uid}.data").unlink()
    os.mkfifo(site.incoming / f"{known.uid}.data")
    site.sweep()
    site.incoming = site.home / "quarantine"
    before = left(site)
    assert f"{known.uid}.control" in before
    site.sweep()
    site.sweep(dir="2003.0401")
    assert left(site) == before


def test_a_file_is_not_taken_for_a_copy_of_itself(site: Site) -> None:
    site.incoming = site.home / "in"
    site.incoming.mkdir()
    uid = "20030402T051220Z-mmto-archive-1-00000001"
    arrive(site.incoming, name=f"{uid}.data", dir="in")
    before = left(site)
    [outcome] = site.sweep()
    assert outcome.status == 1 and left(site) == before


@pytest.mark.parametrize("found", [b"other bytes", b"SIMPLE  +", b"SIMPLE", b""])
def test_other_bytes_than_submitted_are_a_mismatch(site: Site, found: bytes) -> None:
    known = arrive(site.incoming)
    (site.incoming / f"{known.uid}.data").write_bytes(found)
    [outcome] = site.sweep()
    assert quarantined(site, known)[0] == found
    [receipt] = site.receipts()
    assert receipt.kind == "mismatch" and receipt.fields["attempts"] == "1"
    assert receipt.fields["checksum"] == known.checksum and receipt.fields["reason"]
    assert outcome.record == receipt == site.log()[0]
    assert not (site.home / "2003.0401/0123.fits").exists() and left(site) == []


def test_every_mismatch_of_a_uid_is_kept_and_the_right_bytes_are_stored(site: Site) -> None:
    known = arrive(site.incoming, b"right")
    assert known.transfer
    for attempt in (1, 2):
        transfer = replace(known.transfer, attempts=attempt)
        arrive(site.incoming, b"right", transfer=transfer)
        (site.incoming / f"{known.uid}.data").write_bytes(b"wrong")
        site.sweep()
    arrive(site.incoming, b"right")
    site.sweep()
    assert [r.fields["attempts"] for r in site.receipts()] == ["1", "2", "1"]
    assert kinds(site.log()) == ["mismatch", "mismatch", "stored"]
    uid = known.uid
    assert sorted(os.listdir(site.home / "quarantine")) == sorted(
        f"{uid}{n}.{kind}" for n in ("", ".2") for kind in ("control", "data", "reason")
    )


def test_a_file_that_grows_while_it_is_copied_is_a_mismatch(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = arrive(site.incoming)

    def grow(control: Control, size: int, checksum: str | None = None) -> None:
        if checksum is None:  # looked at, not copied yet
            with open(site.incoming / f"{known.uid}.data", "ab") as stream:
                stream.write(bytes(5 * durable.CHUNK))
        else:
            assert size <= known.size + durable.CHUNK
        verify(control, size, checksum)

    monkeypatch.setattr("lpxfer.steps.sweep.verify", grow)
    [outcome] = site.sweep()
    assert outcome.record and outcome.record.kind == "mismatch"


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "full directory"])
def test_a_data_file_that_is_none_is_quarantined(site: Site, kind: str, tmp_path: Path) -> None:
    known = arrive(site.incoming)
    arrive(site.incoming, number=2, name="good.fits")
    data = site.incoming / f"{known.uid}.data"
    data.unlink()
    outside = tmp_path / "outside"
    outside.write_bytes(b"SIMPLE  =")
    if kind == "link":
        data.symlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(data)
    else:
        data.mkdir()
        if kind == "full directory":
            (data / "x").write_text("x")
    site.sweep()
    assert kinds(site.receipts()) == ["quarantined", "stored"]
    reason = (site.home / f"quarantine/{known.uid}.reason").read_text()
    assert ("symbolic link to" in reason) == (kind == "link") and left(site) == []
    assert outside.read_bytes() == b"SIMPLE  ="
    if kind == "full directory":
        assert (site.home / f"quarantine/{known.uid}.data/x").read_text() == "x"


def test_killed_sweep_of_a_directory_for_data_leaves_no_control_file_unexplained(
    memory: Site,
) -> None:
    def fresh() -> None:
        known = arrive(memory.incoming)
        data = memory.incoming / f"{known.uid}.data"
        data.unlink()
        data.mkdir()

    for where in deaths(memory, fresh):
        assert left(memory) == [], where
        assert kinds(memory.log()) == ["quarantined"], where
        assert kinds(memory.receipts())[-1] == "quarantined", where


def test_a_dated_directory_that_is_a_link_is_not_entered(site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (site.home / "2003.0401").symlink_to(outside)
    (site.home / "a").mkdir()
    (site.home / "a/b").symlink_to(outside)
    arrive(site.incoming)
    arrive(site.incoming, number=2, dir="a/b/c")
    arrive(site.incoming, number=3, dir="a")
    site.sweep()
    assert kinds(site.log()) == ["quarantined", "quarantined", "stored"]
    assert os.listdir(outside) == [] and left(site) == []


@pytest.mark.parametrize("own", ["quarantine", "xferlogs"])
def test_an_own_directory_that_is_a_link_is_not_entered(
    site: Site, own: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (site.home / own).symlink_to(outside)
    arrive(site.incoming, dir="../x")
    arrive(site.incoming, number=2)
    try:
        outcomes = site.sweep()
    except PermanentError:
        assert own == "xferlogs"  # without the log it is not known what has been placed
    else:
        assert outcomes[0].status == 1 and outcomes[0].record is None
        assert kinds(site.log()) == ["stored"]
    assert os.listdir(outside) == []
    assert any(name.endswith("archive-1-00000001.data") for name in left(site))


def test_control_files_that_cannot_be_read_stay_and_disturb_nobody(site: Site) -> None:
    whole = control.dump(KNOWN)
    uids = [names.make_uid(NOW, "mmto", f"archive-{n}", b"0000") for n in range(1, 9)]
    hostile = [whole[:-1], whole[:200], b"", b"\ninst=minicam\n", b"\ninst=minicam\n" * 9000,
               whole.replace(b"size=0", b"size=1"), os.urandom(5000), whole]  # fmt: skip
    for uid, text in zip(uids, hostile, strict=True):
        (site.incoming / f"{uid}.control").write_bytes(text)
        (site.incoming / f"{uid}.data").write_bytes(b"")
    sparse = site.incoming / f"{names.make_uid(NOW, 'mmto', 'archive-10', b'0000')}.control"
    with open(sparse, "wb") as stream:
        stream.truncate(10 << 30)
    odd = [site.incoming / f"{names.make_uid(NOW, 'mmto', f'archive-{n}', b'0000')}.control"
           for n in (11, 12, 13)]  # fmt: skip
    odd[0].symlink_to("/etc/passwd")
    os.mkfifo(odd[1])
    odd[2].mkdir()
    before = left(site)
    arrive(site.incoming, number=20)
    assert kinds([o.record for o in site.sweep() if o.record]) == ["stored"]
    assert left(site) == before
    assert site.files() == ["2003.0401/0123.fits"]


def test_a_control_file_of_another_format_is_left_and_reported(site: Site) -> None:
    known = arrive(site.incoming)
    path = site.incoming / f"{known.uid}.control"
    path.write_bytes(keyvalue.dump([("format", "2"), ("inst", "minicam")]))
    [outcome] = site.sweep()
    assert outcome.record is None and outcome.status == 1
    assert known.uid in str(outcome.message) and len(left(site)) == 2


def test_half_arrivals_are_not_touched(site: Site) -> None:
    (site.incoming / f".{KNOWN.uid}.data.part").write_text("half")
    (site.incoming / f".{KNOWN.uid}.control.part").write_text("half")
    data = arrive(site.incoming, number=2)
    (site.incoming / f"{data.uid}.control").unlink()
    alone = arrive(site.incoming, number=3)
    (site.incoming / f"{alone.uid}.data").unlink()
    before = left(site)
    modified = (site.incoming / f"{alone.uid}.control").stat().st_mtime
    written = datetime.fromtimestamp(modified, UTC)
    assert site.sweep(now=written + timedelta(minutes=59)) == []
    [outcome] = site.sweep(now=written + timedelta(minutes=61))
    assert "data file is missing" in str(outcome.message)
    assert left(site) == before and not (site.home / "xferlogs").exists()


# --- faults -----------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_and_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(site.incoming)
    with monkeypatch.context() as full:
        full.setattr(checksum, "write_all", refuse(errno.ENOSPC))
        [outcome] = site.sweep()
        [again] = site.sweep()
    assert outcome.status == again.status == 75
    assert "No space left on device" in str(outcome.message)
    assert len([n for n in left(site) if not n.startswith(".")]) == 2
    assert site.files() == []
    assert kinds(site.log()) == ["error"]  # once, though it failed twice
    assert site.sweep()[0].status == 0
    assert kinds(site.log()) == ["error", "stored"] and left(site) == []


def test_a_disk_that_is_too_full_for_quarantine_is_told_in_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive(site.incoming, name="../evil")
    with monkeypatch.context() as full:
        full.setattr(checksum, "write_all", refuse(errno.ENOSPC))
        [outcome] = site.sweep()
    assert outcome.status == 75 and "No space left on device" in str(outcome.message)
    assert kinds(site.log()) == ["error"] and len(left(site)) == 2
    site.sweep()
    assert kinds(site.log()) == ["error", "quarantined"] and left(site) == []


def test_nothing_relies_on_a_sync_that_failed(memory: Site) -> None:
    """Let every sync of a sweep fail in turn; the next one makes everything again."""
    real = durable.sync
    for number in range(1, 100):
        for path in (memory.home, memory.incoming, memory.root / "receipts"):
            shutil.rmtree(path, ignore_errors=True)
        memory.home.mkdir()
        memory.incoming.mkdir()
        arrive(memory.incoming)
        failed: list[str] = []
        count = 0

        def sync(fd: int) -> None:
            nonlocal count
            count += 1
            if count == number:  # noqa: B023
                failed.append(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: B023
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(durable, "sync", sync)
            with contextlib.suppress(OSError):
                outcomes = memory.sweep()
                assert not failed or outcomes[-1].status == 75
        if not failed:
            assert number > 10
            return
        if not failed[0].endswith("/incoming"):  # what is removed has its receipt
            assert left(memory) != [] and "stored" not in kinds(memory.receipts()), failed
        if failed[0].startswith(str(memory.home)):
            assert "stored" not in kinds(memory.log()), failed
        if failed[0].endswith("/2003.0401"):
            assert memory.files() == []
        memory.sweep()
        assert memory.files() == ["2003.0401/0123.fits"], failed
        assert kinds(memory.log()).count("stored") == 1, failed
        assert "stored" in kinds(memory.receipts()) and left(memory) == [], failed
    raise AssertionError("the syncs of a sweep have no end")


@pytest.mark.parametrize("fault", ["append", "link_unsynced", "remove", "make_dir", "create"])
def test_one_failing_arrival_does_not_stop_the_others(
    site: Site, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    for number in (1, 2, 3):
        arrive(site.incoming, str(number).encode(), number, name=f"{number}.fits", dir=str(number))
    calls, real = 0, getattr(durable, fault)
    site.sweep()  # makes what is made once
    for number in (4, 5, 6):
        arrive(site.incoming, str(number).encode(), number, name=f"{number}.fits", dir=str(number))

    def fails_once(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == {"make_dir": 3, "create": 2}.get(fault, 1):
            raise OSError(5, "Input/output error")
        return real(*args, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(durable, fault, fails_once)
        outcomes = site.sweep()
    placed = [0, 0, 0] if fault == "remove" else [0, 0]
    assert sorted(o.status for o in outcomes) == [*placed, 75]
    site.sweep()
    assert left(site) == []
    assert kinds(site.log()).count("stored") == 6


def test_a_bug_is_reported_with_its_traceback_and_the_others_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = arrive(site.incoming)
    arrive(site.incoming, number=2, name="good.fits")
    real = names.check_name

    def buggy(name: str) -> str:
        if name == "0123.fits":
            raise ZeroDivisionError("a bug")
        return real(name)

    monkeypatch.setattr(names, "check_name", buggy)
    broken, good = site.sweep()
    assert broken.status == 1 and bad.uid in str(broken.message)
    assert "ZeroDivisionError: a bug" in str(broken.message)
    assert good.record and good.record.kind == "stored"


def test_a_busy_instrument_directory_is_left_to_the_other_sweep(site: Site) -> None:
    arrive(site.incoming)
    with site.archive() as archive, archive.home.locked():
        with pytest.raises(BusyError):
            site.sweep()
    assert len(left(site)) == 2


@pytest.mark.parametrize("kind", ["dangling", "fifo", "directory"])
@pytest.mark.parametrize("any_", [True, False])
def test_what_is_no_log_among_the_logs_is_told_once_and_stops_nobody(
    site: Site, kind: str, any_: bool
) -> None:
    home, inst = (site.any, "wyatt") if any_ else (site.home, "minicam")
    sweep_it = site.sweep_any if any_ else site.sweep
    arrive(site.incoming, inst=inst)
    sweep_it()
    odd = home / "xferlogs/20030401.tdcin.log"
    {
        "dangling": lambda: odd.symlink_to("nothing"),
        "fifo": lambda: os.mkfifo(odd),
        "directory": odd.mkdir,
    }[kind]()
    arrive(site.incoming, inst=inst)  # of which the log after it speaks
    arrive(site.incoming, number=2, inst=inst)
    placed, told = sweep_it()
    assert placed.record and placed.record.kind == ("stranger" if any_ else "duplicate")
    assert told.message and f'passed over "{odd}"' in told.message and told.status == 1
    odd.rename(site.root / "odd")  # the test would wait for a FIFO
    assert left(site) == [] and len(site.log(home)) == 2


def test_an_arrival_that_another_process_holds_is_passed_over(site: Site) -> None:
    known = arrive(site.incoming)
    with site.archive() as archive, archive.incoming.hold_arrival(known.uid) as arrival:
        assert arrival
        assert site.sweep() == []
    assert site.sweep()[0].status == 0


def test_a_dry_run_says_what_a_sweep_does_and_changes_nothing(site: Site) -> None:
    arrive(site.incoming, b"first")
    site.sweep()
    arrive(site.incoming, b"first")
    arrive(site.incoming, b"first", 2)
    arrive(site.incoming, b"second", 3)
    arrive(site.incoming, b"third", 4, dir="new")
    arrive(site.incoming, b"x", 5, dir="../x")
    arrive(site.incoming, b"x", 6, size=3)

    def state() -> list[tuple[str, float, int]]:
        return sorted((str(p), p.stat().st_mtime, p.stat().st_size) for p in site.root.rglob("*"))

    before = state()
    rules = Rules(InstrumentConfig("minicam"))
    with site.archive() as archive:
        foreseen = [o.record for o in sweep(archive, rules, dry_run=True)]
    assert state() == before
    done = [outcome.record for outcome in site.sweep()]
    told = ["duplicate", "renamed", "stored", "quarantined", "mismatch"]
    assert [r.kind for r in foreseen if r] == [r.kind for r in done if r] == told
    assert [r.fields["placed"] for r in foreseen[:3] if r] == [
        r.fields["placed"] for r in done[:3] if r
    ]


def test_what_stands_in_the_way_of_the_copy_is_named_with_its_directory(site: Site) -> None:
    way = site.home / "2003.0401/.sweep.tmp"
    way.mkdir(parents=True)
    arrive(site.incoming)
    [outcome] = site.sweep()
    assert f'Is a directory - "{way}"' in str(outcome.message)


# --- kill -9 at every call --------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[Site]:
    """A site where a sync costs nothing, for hundreds of sweeps: a kill undoes no write."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as directory:
        yield Site(Path(directory) / "site")


def healthy(site: Site, where: str, *homes: Path) -> None:
    """Nothing is left over, in incoming or in an instrument directory."""
    assert left(site) == [], where
    for home in homes or (site.home,):
        assert not list(home.rglob(".sweep.tmp")), where
        assert (home / ".lock").read_bytes() == b"", where


def deaths(
    site: Site, prepare: Callable[[], object], interrupted: Iterable[int] = (), **rules: Any
) -> Iterator[str]:
    """Kill a sweep at every call; sweep again after each death, and yield.

    Each of `interrupted` is a call at which a sweep after it is killed, too.
    """

    def fresh() -> None:
        for path in (site.home, site.incoming, site.root / "receipts"):
            shutil.rmtree(path, ignore_errors=True)
        site.home.mkdir()
        site.incoming.mkdir()
        prepare()

    for where in each_death(lambda: site.sweep(**rules), fresh):
        for number in interrupted:
            killed(lambda: site.sweep(**rules), number, "after")
        site.sweep(**rules)
        healthy(site, where)
        yield where


@pytest.mark.parametrize("rules", [{}, {"dated": False}, {"dir": "a/b"}], ids=str)
def test_killed_sweep_leaves_one_file_and_one_record(memory: Site, rules: dict[str, Any]) -> None:
    for where in deaths(memory, lambda: arrive(memory.incoming), **rules):
        [placed] = memory.files()
        assert (memory.home / placed).read_bytes() == b"SIMPLE  =", where
        assert (memory.home / placed).stat().st_mtime_ns == MTIME, where
        assert kinds(memory.log()) == ["stored"], where
        assert set(kinds(memory.receipts())) == {"stored"}, where


def test_killed_sweep_of_three_with_one_name_keeps_them_apart(memory: Site) -> None:
    def three() -> None:
        arrive(memory.incoming, b"one", 1)
        arrive(memory.incoming, b"one", 2)
        arrive(memory.incoming, b"two", 3)

    for where in deaths(memory, three):
        assert len(memory.files()) == 2, where
        assert kinds(memory.log()) == ["stored", "duplicate", "renamed"], where
        assert len({receipt.fields["uid"] for receipt in memory.receipts()}) == 3, where


@pytest.mark.parametrize(
    ("kind", "fields"), [("mismatch", {"size": 3}), ("quarantined", {"dir": "/etc"})]
)
def test_killed_sweep_quarantines_once(memory: Site, kind: str, fields: dict[str, Any]) -> None:
    for where in deaths(memory, lambda: arrive(memory.incoming, **fields)):
        assert len(memory.files()) == 3, where
        assert kinds(memory.log()) == [kind], where
        assert set(kinds(memory.receipts())) == {kind}, where


def test_killed_sweep_quarantines_a_forged_uid_once(memory: Site) -> None:
    def forged() -> None:
        arrive(memory.incoming, b"first")
        memory.sweep()
        arrive(memory.incoming, b"forged")

    for where in deaths(memory, forged):
        assert len(memory.files()) == 4, where
        assert kinds(memory.log()) == ["stored", "quarantined"], where


def test_killed_sweep_of_a_repeated_delivery_places_nothing(memory: Site) -> None:
    def again() -> None:
        arrive(memory.incoming)
        memory.sweep()
        arrive(memory.incoming)

    for where in deaths(memory, again):
        assert memory.files() == ["2003.0401/0123.fits"], where
        assert kinds(memory.log()) == ["stored"], where


def test_killed_sweep_may_be_killed_again_while_it_recovers(memory: Site) -> None:
    for where in deaths(memory, lambda: arrive(memory.incoming), interrupted=range(1, 60, 28)):
        [placed] = memory.files()
        assert kinds(memory.log()) == ["stored"], where


def test_killed_sweep_is_not_repeated_in_another_directory(memory: Site) -> None:
    other = memory.root / "other"
    now = datetime.now(UTC)  # marks have the system's time

    def fresh() -> None:
        for path in (memory.home, other, memory.incoming, memory.root / "receipts"):
            shutil.rmtree(path, ignore_errors=True)
        for path in (memory.home, other, memory.incoming):
            path.mkdir()
        arrive(memory.incoming)

    for where in each_death(lambda: memory.sweep(now=now), fresh):
        memory.sweep(other, now)
        memory.sweep(now=now)
        memory.sweep(other, now)
        healthy(memory, where, memory.home, other)
        assert len(memory.files() + memory.files(other)) == 1, where
        logs = [memory.log(home) for home in (memory.home, other) if (home / "xferlogs").exists()]
        assert kinds(sum(logs, [])) == ["stored"], where


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [({"dir": "a/b"}, {}, "0124.fits"), ({}, {"dated": False}, "0123.fits")],
    ids=str,
)
def test_killed_sweep_is_not_repeated_under_other_rules(
    memory: Site, before: dict[str, Any], after: dict[str, Any], name: str
) -> None:
    def fresh() -> None:
        for path in (memory.home, memory.incoming, memory.root / "receipts"):
            shutil.rmtree(path, ignore_errors=True)
        memory.incoming.mkdir()
        (memory.home / "2003.0401").mkdir(parents=True)
        (memory.home / "2003.0401/0123.fits").write_bytes(b"other bytes")
        arrive(memory.incoming, name=name)

    for where in each_death(lambda: memory.sweep(**before), fresh):
        with memory.archive() as archive:
            foreseen = list(sweep(archive, Rules(InstrumentConfig("minicam"), **after), True))
        memory.sweep(**after)
        healthy(memory, where)
        [entry] = memory.log()
        placed = entry.fields["placed"]
        assert set(memory.files()) == {placed, "2003.0401/0123.fits"}, where
        assert {o.record.fields["placed"] for o in foreseen if o.record} <= {placed}, where


@pytest.mark.parametrize("below", ["../minicam/d", "quarantine", "/", "d/./", "elsewhere", "d"])
def test_a_mark_that_lies_leads_nowhere(site: Site, below: str) -> None:
    for path in ("d", "quarantine"):
        (site.home / path).mkdir()
        (site.home / path / "0123.fits").write_bytes(b"SIMPLE  =")
    other = arrive(site.incoming, number=2)
    site.sweep(dir="d")  # it is this one's
    known = arrive(site.incoming)
    os.symlink(f"{site.home}/{below}/0123.fits", site.incoming / f".{known.uid}.placing")
    site.sweep()
    placed = {entry.fields["uid"]: entry.fields["placed"] for entry in site.log()}
    assert placed == {other.uid: "d/0123.fits", known.uid: "2003.0401/0123.fits"}
    assert left(site) == []


def test_every_step_is_durable_before_the_next(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(site.incoming)  # for whom directories and logs are made
    known = arrive(site.incoming, number=2, name="b.fits")
    steps: list[str] = []

    def name_of(fd: int) -> str:
        return os.path.basename(os.readlink(f"/proc/self/fd/{fd}")).replace(known.uid, "UID")

    def watch(call: str, describe: Callable[..., str]) -> None:
        real = getattr(os, call)

        def watched(*args: object, **kwargs: object) -> object:
            steps.append(describe(*args))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, call, watched)

    watch("fsync", lambda fd: f"sync {name_of(fd)}")
    watch("link", lambda src, dst, *_: f"link {dst}")
    watch("unlink", lambda name: f"unlink {name.replace(known.uid, 'UID')}")
    watch("utime", lambda fd, *_: "time")
    watch("write", lambda fd, _: f"write {name_of(fd)}")
    site.sweep()
    start = len(steps) - 1 - steps[::-1].index("write .sweep.tmp")
    hidden = [
        ".sweep.tmp",
        *(f".UID.{n}" for n in "placing placing.new data.part control.part".split()),
    ]
    quiet = [step for step in steps[start:] if step not in [f"unlink {name}" for name in hidden]]
    assert quiet == [
        "write .sweep.tmp", "time", "sync .sweep.tmp", "link b.fits", "sync 2003.0401",
        "write 20030402.tdcin.log", "sync 20030402.tdcin.log",
        "write mcam-20030402.log", "sync mcam-20030402.log",
        "unlink UID.data", "sync incoming", "unlink UID.control", "sync incoming",
    ]  # fmt: skip

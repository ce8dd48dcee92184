"""The sweep of what belongs to no known instrument, on real directories."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arrivals import NOW, Site, arrive, each_death, kinds

from lpxfer.errors import BusyError
from lpxfer.formats import keyvalue, names
from lpxfer.formats.control import Transfer
from lpxfer.steps.sweep_any import SAO, AnyRules, sweep_any

UID = "20030402T051220Z-mmto-archive-9-00000009"
DAY = 86400.0


@pytest.fixture
def site() -> Iterator[Site]:
    """A site in memory where that can be had: there are many sweeps here."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as directory:
        yield Site(Path(directory) / "site")


def left(site: Site) -> list[str]:
    return sorted(os.listdir(site.incoming))


def after(path: Path, seconds: float) -> datetime:
    """Return the time so long after a file was last changed."""
    return datetime.fromtimestamp(path.lstat().st_ctime + seconds, UTC)


def test_a_stranger_is_copied_unchanged_recorded_receipted_and_removed(site: Site) -> None:
    known = arrive(site.incoming, inst="wyatt", dir="some/where")
    before = {name: (site.incoming / name).read_bytes() for name in left(site)}
    times = {name: (site.incoming / name).stat().st_mtime_ns for name in left(site)}
    site.sweep_any()
    there = site.any / "2003.0402"
    assert {path.name: path.read_bytes() for path in there.iterdir()} == before
    assert {path.name: path.stat().st_mtime_ns for path in there.iterdir()} == times
    [entry] = site.log(site.any)
    assert site.receipts() == [entry] and entry.kind == "stranger"
    assert entry.fields["placed"] == f"2003.0402/{known.uid}.data"
    assert entry.fields["checksum"] == known.checksum
    assert left(site) == []


def test_known_instruments_are_left_to_their_sweeps(site: Site) -> None:
    for number, inst in enumerate(sorted(SAO), 1):
        arrive(site.incoming, number=number, inst=inst)
    arrive(site.incoming, number=20, inst="undef")
    site.sweep_any()
    assert [entry.fields["inst"] for entry in site.log(site.any)] == ["undef"]
    assert len(left(site)) == 2 * len(SAO)


@pytest.mark.parametrize(
    ("rules", "place"), [({"dir": "a/b"}, "a/b/"), ({"dated": False}, ""), ({}, "2003.0402/")]
)
def test_a_stranger_goes_where_the_command_says(
    site: Site, rules: dict[str, object], place: str
) -> None:
    known = arrive(site.incoming, inst="wyatt")
    site.sweep_any(**rules)
    assert site.files(site.any) == [f"{place}{known.uid}.control", f"{place}{known.uid}.data"]


def test_a_stranger_is_taken_by_its_instruments_sweep_later(site: Site) -> None:
    incoming = site.incoming
    arrive(incoming)
    site.sweep_any(ignore=frozenset())
    site.incoming = site.any / "2003.0402"
    site.sweep()
    assert left(site) == [] and site.files() == ["2003.0401/0123.fits"]
    assert kinds(site.log()) == ["stored"]
    assert kinds(site.receipts()) == ["stranger", "stored"]
    site.incoming = incoming
    arrive(incoming)
    site.sweep_any(ignore=frozenset())  # delivered again: here it is not known where it went
    assert left(site) == [] and kinds(site.log(site.any)) == ["stranger"] * 2
    site.incoming = site.any / "2003.0402"
    assert len(left(site)) == 2
    site.sweep()
    assert left(site) == [] and kinds(site.log()) == ["stored"]


def test_a_stranger_that_is_delivered_again_is_removed_while_its_copy_is_there(site: Site) -> None:
    known = arrive(site.incoming, inst="wyatt")
    site.sweep_any()
    arrive(site.incoming, inst="wyatt")
    assert site.sweep_any() == [] and left(site) == []
    assert kinds(site.log(site.any)) == ["stranger"]
    (site.any / f"2003.0402/{known.uid}.data").unlink()
    arrive(site.incoming, inst="wyatt")
    site.sweep_any()
    assert (site.any / f"2003.0402/{known.uid}.data").read_bytes() == b"SIMPLE  ="
    assert kinds(site.log(site.any)) == ["stranger"] * 2


def test_other_bytes_than_submitted_are_no_stranger(site: Site) -> None:
    known = arrive(site.incoming, inst="wyatt", size=8)
    [outcome] = site.sweep_any()
    assert outcome.status == 1 and kinds(site.receipts()) == ["mismatch"]
    stem = f"quarantine/{known.uid}"
    assert site.files(site.any) == [f"{stem}.control", f"{stem}.data", f"{stem}.reason"]
    assert left(site) == []


def test_a_strangers_copy_is_never_overwritten(site: Site) -> None:
    known = arrive(site.incoming, inst="wyatt")
    there = site.any / "2003.0402"
    there.mkdir()
    (there / f"{known.uid}.data").write_bytes(b"something else")
    site.sweep_any()
    assert (there / f"{known.uid}.data").read_bytes() == b"something else"
    assert kinds(site.log(site.any)) == ["quarantined"]


def test_a_stranger_of_a_later_attempt_is_the_same_when_the_logs_are_gone(site: Site) -> None:
    arrive(site.incoming, inst="wyatt")
    site.sweep_any()
    shutil.rmtree(site.any / "xferlogs")
    again = Transfer(NOW, NOW, 1.0, 2)
    arrive(site.incoming, inst="wyatt", transfer=again)
    [outcome] = site.sweep_any()
    assert outcome.status == 0 and left(site) == []
    assert kinds(site.receipts()) == ["stranger"] * 2


def test_strangers_and_quarantine_are_not_swept_into_themselves(site: Site) -> None:
    arrive(site.incoming, inst="wyatt")
    arrive(site.incoming, number=2, inst="wyatt", size=3)
    site.sweep_any()
    before = site.files(site.any)
    for place in ("2003.0402", "quarantine"):
        site.incoming = site.any / place
        site.sweep_any(now=after(site.incoming, 100 * DAY))
        assert site.files(site.any) == before


def test_killed_sweep_keeps_one_copy_of_a_stranger(site: Site) -> None:
    def fresh() -> None:
        for path in (site.any, site.incoming, site.root / "receipts"):
            shutil.rmtree(path, ignore_errors=True)
        site.any.mkdir()
        site.incoming.mkdir()
        arrive(site.incoming, inst="wyatt")

    for where in each_death(site.sweep_any, fresh):
        site.sweep_any()
        assert left(site) == [], where
        assert len(site.files(site.any)) == 2, where
        assert kinds(site.log(site.any)) == ["stranger"], where
        assert set(kinds(site.receipts())) == {"stranger"}, where


def test_an_arrival_that_an_instruments_sweep_has_placed_is_left_to_it(site: Site) -> None:
    known = arrive(site.incoming)
    (site.home / "2003.0401").mkdir()
    (site.home / "2003.0401/0123.fits").write_bytes(b"SIMPLE  =")
    with site.archive() as archive:
        archive.incoming.mark(known.uid, str(site.home / "2003.0401/0123.fits"))
    now = datetime.now(UTC)
    assert site.sweep_any(now=now, ignore=frozenset()) == []
    assert [o.status for o in site.sweep_any(now + timedelta(days=2), ignore=frozenset())] == [0]


# --- what is no arrival -----------------------------------------------------------------------

HALVES = [
    f".{UID}.data.part", f".{UID}.control.part", f"{UID}.data", "odd\nname.data",
    "raw\udcff.data", "x" * 250 + ".data",
]  # fmt: skip


@pytest.mark.parametrize("name", HALVES)
def test_half_arrivals_are_set_aside_when_they_are_stale(site: Site, name: str) -> None:
    path = site.incoming / name
    path.write_text("half")
    os.utime(path, (0, 0))  # whoever deposits it can do that
    assert site.sweep_any(after(path, 7 * DAY - 60)) == [] and left(site) == [name]
    os.utime(path, (1 << 33, 1 << 33))
    [outcome] = site.sweep_any(after(path, 7 * DAY + 60))
    assert left(site) == [] and not (site.root / "receipts/mmto").exists()
    kept = [p for p in site.files(site.any) if not p.endswith(".reason")]
    assert len(kept) == 1 and (site.any / kept[0]).read_text() == "half"
    assert outcome.status == 1 and outcome.record and outcome.record.kind == "quarantined"
    assert site.log(site.any)[0].fields["name"] == name
    assert "\n" not in str(outcome.message)


def test_a_control_file_whose_data_never_came_is_set_aside_when_it_is_stale(site: Site) -> None:
    known = arrive(site.incoming)  # of an instrument that is ignored
    (site.incoming / f"{known.uid}.data").unlink()
    control = site.incoming / f"{known.uid}.control"
    assert site.sweep_any(after(control, 6 * DAY)) == []
    [outcome] = site.sweep_any(after(control, 8 * DAY))
    assert outcome.record and left(site) == []
    assert site.files(site.any)[0] == f"quarantine/{known.uid}.control"


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def oversized(path: Path) -> None:
    path.write_bytes(b"inst=minicam\n" * 6000)


def sparse(path: Path) -> None:
    with open(path, "wb") as stream:
        stream.truncate(1 << 20)


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    path.write_bytes(path.read_bytes())
    path.rename(path.with_name(f"{UID}.control"))
    path.with_suffix(".data").rename(path.with_name(f"{UID}.data"))


@pytest.mark.parametrize("spoil", [torn, oversized, sparse, link, fifo, directory, foreign])
def test_a_control_file_that_cannot_be_read_is_set_aside_after_an_hour(
    site: Site, spoil: object
) -> None:
    known = arrive(site.incoming)
    control = site.incoming / f"{known.uid}.control"
    spoil(control)  # type: ignore[operator]
    if not os.path.lexists(control):
        control = site.incoming / f"{UID}.control"
    os.utime(control, (0, 0), follow_symlinks=False)
    assert site.sweep_any(after(control, 3500)) == [] and len(left(site)) == 2
    arrive(site.incoming, number=2, inst="wyatt")
    outcomes = site.sweep_any(after(control, 3700))
    assert sorted(kinds([o.record for o in outcomes if o.record])) == ["quarantined", "stranger"]
    assert left(site) == []
    stem = site.any / "quarantine" / control.stem
    assert Path(f"{stem}.data").read_bytes() == b"SIMPLE  ="
    assert "cannot be read" in Path(f"{stem}.reason").read_text()
    assert not os.path.islink(f"{stem}.control")
    assert kinds(site.receipts()) == ["stranger"]


@pytest.mark.parametrize("stem", [UID, "no uid"])
@pytest.mark.parametrize("both", [True, False])
def test_killed_sweep_says_once_what_it_has_set_aside(site: Site, both: bool, stem: str) -> None:
    def fresh() -> None:
        for path in (site.any, site.incoming, site.root / "receipts"):
            shutil.rmtree(path, ignore_errors=True)
        site.any.mkdir()
        site.incoming.mkdir()
        (site.incoming / f"{stem}.data").write_text("half")
        if both:
            (site.incoming / f"{stem}.control").write_text("torn")

    late = datetime.now(UTC) + timedelta(days=100)
    for where in each_death(lambda: site.sweep_any(late), fresh):
        site.sweep_any(late)
        assert left(site) == [], where
        assert len(site.files(site.any)) == 2 + both, where
        assert (site.any / f"quarantine/{stem}.reason").read_text().endswith("\n"), where
        log = site.log(site.any)
        whole = [e for e in log if e.fields.get("reason") == log[-1].fields["reason"]]  # not cut
        assert kinds(whole) == ["quarantined"], where


def test_killed_sweep_says_once_what_it_has_set_aside_without_a_uid(site: Site) -> None:
    def fresh() -> None:
        for path in (site.any, site.incoming, site.root / "receipts"):
            shutil.rmtree(path, ignore_errors=True)
        site.any.mkdir()
        site.incoming.mkdir()
        (site.incoming / "no uid.data").write_text("half")

    late = datetime.now(UTC) + timedelta(days=100)
    for where in each_death(lambda: site.sweep_any(late), fresh):
        site.sweep_any(late)
        assert left(site) == [], where
        whole = [e for e in site.log(site.any) if e.fields.get("reason", "").endswith("arrival")]
        assert kinds(whole) == ["quarantined"], where


def test_a_control_file_of_another_format_is_left_and_reported(site: Site) -> None:
    path = site.incoming / f"{UID}.control"
    path.write_bytes(keyvalue.dump([("format", "2"), ("inst", "wyatt")]))
    (site.incoming / f"{UID}.data").write_text("x")
    [outcome] = site.sweep_any(after(path, 100 * DAY))
    assert outcome.status == 1 and UID in str(outcome.message) and outcome.record is None
    assert len(left(site)) == 2


def test_what_has_no_wire_name_is_none_of_its_business(site: Site) -> None:
    (site.incoming / "lost+found").mkdir()
    (site.incoming / ".nfs0001").write_text("x")
    (site.incoming / "notes.txt").write_text("x")
    assert site.sweep_any(after(site.incoming, 100 * DAY)) == [] and len(left(site)) == 3


def test_what_another_process_holds_is_not_set_aside(site: Site) -> None:
    path = site.incoming / f"{UID}.data"
    path.write_text("half")
    with site.archive() as archive, archive.incoming.hold(path.name):
        assert site.sweep_any(after(path, 8 * DAY)) == []
    assert left(site) == [path.name]


def test_two_sweeps_of_one_directory_do_not_meet(site: Site) -> None:
    with site.archive(site.any) as archive, archive.home.locked():
        with pytest.raises(BusyError):
            site.sweep_any()


def test_a_dry_run_says_what_a_sweep_does_and_changes_nothing(site: Site) -> None:
    arrive(site.incoming, inst="wyatt")
    arrive(site.incoming, number=2, inst="wyatt", size=3)
    arrive(site.incoming, number=3)
    half = site.incoming / f"{UID}.data"
    half.write_text("half")
    now = after(half, 8 * DAY)
    before = sorted((str(p), p.stat().st_mtime) for p in site.root.rglob("*"))
    rules = AnyRules(SAO, 7 * DAY)
    with site.archive(site.any, now) as archive:
        foreseen = [o.record for o in sweep_any(archive, rules, dry_run=True)]
    assert sorted((str(p), p.stat().st_mtime) for p in site.root.rglob("*")) == before
    told = ["stranger", "mismatch", "quarantined"]
    assert kinds([r for r in foreseen if r]) == told
    assert kinds([o.record for o in site.sweep_any(now) if o.record]) == told


def test_sao_names_are_names_of_instruments() -> None:
    assert len({names.check_instrument(name) for name in SAO}) == 8

"""The sweep of bundles, on real directories: every member as if it had come alone."""

import errno
import json
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from arrivals import MTIME, NOW, Site, arrive, arrive_bundle, each_death, job, killed, kinds, refuse
from click.testing import CliRunner
from traced import trace

from lpxfer import checksum, durable
from lpxfer.checksum import Slice, SourceError
from lpxfer.cli.xfer_sweep import main
from lpxfer.formats import bundle, control, keyvalue, names
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.control import Control, Transfer
from lpxfer.steps import fsck_instrument
from lpxfer.steps.sweep import Rules, sweep
from lpxfer.stores.instrument_log import InstrumentLog
from lpxfer.stores.placing import TOGETHER

Member = tuple[Control, bytes]


@pytest.fixture
def site() -> Iterator[Site]:
    """A site in memory where that can be had: there are many sweeps here."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as directory:
        yield Site(Path(directory) / "site")


def member(number: int, data: bytes | None = None, **fields: Any) -> Member:
    """Return a job and its bytes."""
    data = b"data of %d" % number if data is None else data
    return job(data, number, **{"name": f"{number}.fits"} | fields), data


def several(count: int = 3) -> list[Member]:
    return [member(number) for number in range(1, count + 1)]


def left(site: Site) -> list[str]:
    return sorted(os.listdir(site.incoming))


def placed(site: Site) -> dict[str, bytes]:
    """Return the files that are placed, by their names."""
    return {Path(name).name: (site.home / name).read_bytes() for name in site.files()
            if not name.startswith("quarantine/")}  # fmt: skip


def by_uid(site: Site) -> dict[str, list[str]]:
    """Return the kinds of receipts, by uid."""
    found: dict[str, list[str]] = {}
    for entry in site.receipts():
        found.setdefault(entry.fields.get("uid", "bundle"), []).append(entry.kind)
    return found


# --- placing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, TOGETHER + 1])
def test_each_member_is_placed_recorded_and_receipted_and_the_bundle_removed(
    site: Site, count: int
) -> None:
    members = several(count)
    known = arrive_bundle(site.incoming, *members)
    outcomes = site.sweep()
    assert placed(site) == {job.name: data for job, data in members}
    for path in (site.home / "2003.0401").iterdir():
        assert path.stat().st_mtime_ns == MTIME and path.stat().st_mode & 0o7222 == 0
    assert left(site) == []
    *entries, last = site.log()
    assert [outcome.record for outcome in outcomes] == entries == site.receipts()
    assert kinds(entries) == ["stored"] * count
    assert [entry.fields["uid"] for entry in entries] == [job.uid for job, _ in members]
    assert last.kind == "unpacked" and list(last.fields.items()) == [
        ("inst", "minicam"), ("bundle", known.uid), ("members", str(count)),
        ("size", str(known.size)), ("seconds", "2"), ("rate", last.fields["rate"]),
        ("attempts", "1"),
    ]  # fmt: skip


def test_a_record_has_its_members_share_of_the_time_and_its_own_attempts(site: Site) -> None:
    again = Transfer(NOW, NOW, 1.0, 7)
    small, large = member(1, b"x" * 1000, transfer=again), member(2, b"y" * 3_000_000)
    known = arrive_bundle(site.incoming, small, large, member(3, b""))
    transfer = replace(known.transfer, seconds=0.03001)
    (site.incoming / f"{known.uid}.control").write_bytes(
        bundle.dump(replace(known, transfer=transfer))
    )
    site.sweep()
    said = [{k: e.fields.get(k) for k in ("seconds", "rate", "attempts")} for e in site.log()[:3]]
    assert said == [
        {"seconds": "0.00001", "rate": "100.00", "attempts": "7"},
        {"seconds": "0.03", "rate": "100.00", "attempts": "1"},
        {"seconds": "0", "rate": None, "attempts": "1"},
    ]


def test_members_go_where_their_own_control_files_say(site: Site) -> None:
    arrive_bundle(
        site.incoming,
        member(1, dir="a/b"),
        member(2, path="/h/2002.0523/x"),
        member(3, dir="a/b"),
        member(4, path="/h/raw/x"),
    )
    site.sweep()
    assert site.files() == ["2002.0523/2.fits", "2003.0402/4.fits", "a/b/1.fits", "a/b/3.fits"]


def test_members_with_one_name_are_kept_apart(site: Site) -> None:
    first, twin = member(1, b"one", name="x.fits"), member(2, b"one", name="x.fits")
    other = member(3, b"two", name="x.fits")
    arrive_bundle(site.incoming, first, twin, other)
    site.sweep()
    assert kinds(site.receipts()) == ["stored", "duplicate", "renamed"]
    assert placed(site) == {"x.fits": b"one", f"x.{other[0].uid}.fits": b"two"}


def test_bundles_and_files_beside_each_other_are_all_placed(site: Site) -> None:
    arrive(site.incoming, number=9)
    arrive_bundle(site.incoming, *several(2), number=1)
    arrive_bundle(site.incoming, member(3), member(4), number=2)
    arrive_bundle(
        site.incoming, (job(inst="megacam", number=5), b"SIMPLE  ="), number=3, inst="megacam"
    )
    outcomes = site.sweep()
    assert len(outcomes) == 5 and len(left(site)) == 2
    assert kinds(site.log()).count("unpacked") == 2


def test_a_file_of_which_a_user_says_that_it_is_a_bundle_is_a_file(site: Site) -> None:
    arrive(site.incoming, others={"kind": "bundle"})
    site.sweep()
    assert kinds(site.log()) == ["stored"]


def test_logs_are_read_once_for_all_bundles(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        arrive_bundle(site.incoming, member(2 * number + 1), member(2 * number + 2), number=number)
    asked: list[int] = []
    history = InstrumentLog.history

    def counted(self: InstrumentLog, uids: set[str], now: datetime) -> Any:
        asked.append(len(uids))
        return history(self, uids, now)

    monkeypatch.setattr(InstrumentLog, "history", counted)
    site.sweep()
    assert [number for number in asked if number] == [9]


def test_what_a_bundle_needs_of_memory_does_not_grow_with_its_data(site: Site) -> None:
    arrive_bundle(site.incoming, *(member(n, bytes(6 << 20)) for n in range(1, 11)))
    tracemalloc.start()
    site.sweep()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20 and len(placed(site)) == 10


# --- what is known already --------------------------------------------------------------------


def test_a_bundle_that_is_delivered_again_gets_its_receipts_again(site: Site) -> None:
    arrive_bundle(site.incoming, *several())
    site.sweep()
    arrive_bundle(site.incoming, *several())
    assert site.sweep(now=NOW + timedelta(days=1)) == []
    assert kinds(site.log()) == ["stored"] * 3 + ["unpacked"]
    assert kinds(site.receipts()) == ["stored"] * 6 and left(site) == []


def test_a_member_that_came_alone_as_well_is_placed_once(site: Site) -> None:
    alone, data = member(2)
    for before in (True, False):
        if before:
            arrive(site.incoming, data, 2, name=alone.name)
            site.sweep()
        arrive_bundle(site.incoming, *several())
        if not before:
            arrive(site.incoming, data, 2, name=alone.name)
        site.sweep()
    assert kinds(site.log()).count("stored") == 3 and left(site) == []
    assert by_uid(site)[alone.uid] == ["stored"] * 4


def test_a_member_of_two_bundles_of_one_sweep_is_placed_once(site: Site) -> None:
    arrive_bundle(site.incoming, *several(2), number=1)
    arrive_bundle(site.incoming, member(2), member(3), number=2)
    site.sweep()
    assert kinds(site.log()) == ["stored", "stored", "unpacked", "stored", "unpacked"]
    first, both, last = (job.uid for job, _ in several())
    assert by_uid(site) == {first: ["stored"], both: ["stored"] * 2, last: ["stored"]}


def test_a_known_uid_with_other_bytes_is_quarantined_alone(site: Site) -> None:
    arrive(site.incoming, b"first", 2, name="2.fits")
    site.sweep()
    arrive_bundle(site.incoming, *several())
    site.sweep()
    assert kinds(site.log()) == ["stored"] * 3 + ["quarantined", "unpacked"]
    assert placed(site)["2.fits"] == b"first" and left(site) == []


# --- members that cannot be placed --------------------------------------------------------------


def spoil(site: Site, known: Bundle, at: int, data: bytes = b"\0") -> None:
    """Change bytes of a bundle's data file; before its end if `at` is below zero."""
    with open(site.incoming / f"{known.uid}.data", "r+b") as stream:
        stream.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        stream.write(data)


def test_a_member_with_other_bytes_is_a_mismatch_alone(site: Site) -> None:
    bad = member(2, transfer=Transfer(NOW, NOW, 1.0, 3))
    known = arrive_bundle(site.incoming, member(1), bad, member(3))
    spoil(site, known, -len(member(3)[1]) - 1, b"!")
    outcomes = site.sweep()
    assert sorted(placed(site)) == ["1.fits", "3.fits"] and left(site) == []
    [refused] = [entry for entry in site.receipts() if entry.kind == "mismatch"]
    assert refused.fields["uid"] == bad[0].uid and refused.fields["attempts"] == "3"
    assert refused.fields["checksum"] == bad[0].checksum and refused.fields["reason"]
    assert [o.status for o in outcomes] == [0, 0, 1] and bad[0].uid in str(outcomes[2].message)
    stem = site.home / "quarantine" / bad[0].uid
    assert Path(f"{stem}.data").read_bytes() == b"data of !"
    kept = control.load(Path(f"{stem}.control").read_bytes())
    assert replace(kept, transfer=None) == replace(bad[0], transfer=None)
    assert kept.transfer and kept.transfer.attempts == 3
    assert Path(f"{stem}.reason").read_text() == refused.fields["reason"] + "\n"


@pytest.mark.parametrize(
    "fields", [{"dir": "../../etc"}, {"dir": "quarantine"}, {"name": "../x"}, {"name": ".hidden"}],
    ids=str,
)  # fmt: skip
def test_a_member_that_leads_elsewhere_is_quarantined_alone(
    site: Site, fields: dict[str, str]
) -> None:
    bad = member(2, **fields)
    arrive_bundle(site.incoming, member(1), bad, member(3))
    site.sweep()
    assert sorted(placed(site)) == ["1.fits", "3.fits"] and left(site) == []
    assert kinds(site.log()) == ["stored", "stored", "quarantined", "unpacked"]
    assert by_uid(site)[bad[0].uid] == ["quarantined"]
    site.incoming = site.home / "quarantine"
    site.sweep(dir="rescued")  # for its dir that helps
    assert (site.home / "rescued").exists() == ("dir" in fields)


def test_members_of_a_directory_that_is_a_link_are_quarantined(site: Site) -> None:
    (site.home / "there").symlink_to(site.root)
    arrive_bundle(site.incoming, member(1, dir="there"), member(2), member(3, dir="there/x"))
    site.sweep()
    assert kinds(site.receipts()) == ["stored", "quarantined", "quarantined"]
    assert left(site) == []


def test_a_member_for_which_both_names_are_taken_is_quarantined_alone(site: Site) -> None:
    (site.home / "2003.0401").mkdir()
    for name in ("2.fits", names.renamed("2.fits", member(2)[0].uid)):
        (site.home / "2003.0401" / name).write_text("other")
    arrive_bundle(site.incoming, *several())
    site.sweep()
    assert kinds(site.receipts()) == ["stored", "stored", "quarantined"] and left(site) == []


@pytest.mark.parametrize("short", [1, 9, 10, 18, 19, 27])
def test_members_whose_bytes_did_not_all_arrive_are_mismatches(site: Site, short: int) -> None:
    known = arrive_bundle(site.incoming, *several())
    os.truncate(site.incoming / f"{known.uid}.data", known.size - short)
    site.sweep()
    lost = -(-short // 9)
    assert kinds(site.receipts()) == ["stored"] * (3 - lost) + ["mismatch"] * lost
    assert left(site) == []
    held = b"".join((site.home / f"quarantine/{job.uid}.data").read_bytes()
                    for job, _ in several()[3 - lost :])  # fmt: skip
    assert held == b"".join(data for _, data in several())[27 - 9 * lost : 27 - short]


def test_a_member_that_lost_its_bytes_in_a_hole_is_a_mismatch(site: Site) -> None:
    known = arrive_bundle(site.incoming, *several())
    os.truncate(site.incoming / f"{known.uid}.data", known.size - 9)
    os.truncate(site.incoming / f"{known.uid}.data", known.size)
    site.sweep()
    assert kinds(site.receipts()) == ["stored", "stored", "mismatch"] and left(site) == []


def test_more_or_less_data_than_a_control_file_says_is_a_mismatch_alone(site: Site) -> None:
    arrive_bundle(site.incoming, member(1), member(2, size=3), member(3), member(4, size=10**17))
    site.sweep()
    assert kinds(site.receipts()) == ["stored", "stored", "mismatch", "mismatch"]
    assert left(site) == []


def test_what_was_placed_is_told_where_quarantine_is_none(site: Site) -> None:
    (site.home / "quarantine").symlink_to(site.root)
    known = arrive_bundle(site.incoming, member(1), member(2, dir="../x"), member(3))
    *stored, told = site.sweep()
    assert kinds([o.record for o in stored if o.record]) == ["stored"] * 2
    assert told.status == 1 and f"{known.uid}: " in str(told.message)
    (site.home / "quarantine").unlink()
    site.sweep()
    assert kinds(site.log()) == ["stored", "stored", "quarantined", "unpacked"]
    assert left(site) == []


def test_all_members_may_be_refused(site: Site) -> None:
    arrive_bundle(site.incoming, *(member(n, dir="../x") for n in (1, 2)))
    site.sweep()
    assert kinds(site.receipts()) == ["quarantined"] * 2 and left(site) == []
    assert kinds(site.log()) == ["quarantined"] * 2 + ["unpacked"]


# --- bundles that are none ----------------------------------------------------------------------


def quarantined(site: Site, known: Bundle, kind: str) -> str:
    """Check that a bundle was set aside as a whole; return the reason."""
    stem = f"quarantine/{known.uid}"
    assert [f for f in site.files() if not f.startswith("2003")] == [
        f"{stem}.control", f"{stem}.data", f"{stem}.reason",
    ]  # fmt: skip
    [receipt] = [entry for entry in site.receipts() if "bundle" in entry.fields]
    assert receipt.kind == kind and receipt.fields["bundle"] == known.uid
    assert receipt.fields["attempts"] == "1" and "uid" not in receipt.fields
    assert receipt in site.log() and left(site) == []
    return receipt.fields["reason"]


def test_an_index_cut_anywhere_is_a_mismatch_of_the_bundle(site: Site) -> None:
    for length in range(0, 1000, 37):
        for path in (site.home, site.incoming, site.root / "receipts"):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        known = arrive_bundle(site.incoming, *several())
        os.truncate(site.incoming / f"{known.uid}.data", length)
        [outcome] = site.sweep()
        assert outcome.status == 1
        assert f"{length} bytes arrived" in quarantined(site, known, "mismatch")


@pytest.mark.parametrize("at", [0, 8, 500, 1000])
def test_an_index_with_a_changed_byte_is_a_mismatch_of_the_bundle(site: Site, at: int) -> None:
    known = arrive_bundle(site.incoming, *several())
    spoil(site, known, at)
    site.sweep()
    assert "index" in quarantined(site, known, "mismatch")
    assert len(site.receipts()) == 1  # nobody gets a word of what is not known to be its own


def broken(known: Bundle, **fields: Any) -> Bundle:
    return replace(known, **fields)


LIARS: dict[str, Callable[[Path], Bundle]] = {
    "another host": lambda path: arrive_bundle(
        path, member(1), member(2, host="mmt", uid=member(2)[0].uid.replace("mmto", "mmt"))
    ),
    "another instrument": lambda path: arrive_bundle(path, member(1), member(2, inst="megacam")),
    "a uid twice": lambda path: arrive_bundle(path, *several(), member(1)),
    "its own uid": lambda path: arrive_bundle(path, *several(), uid=member(2)[0].uid),
    "fewer members": lambda path: arrive_bundle(path, *several(), members=2),
    "more members": lambda path: arrive_bundle(path, *several(), members=4),
    "a member of another format": lambda path: arrive_bundle(
        path, member(1), member(2, others={"format": "2"})
    ),
    "a size of its own": lambda path: arrive_bundle(path, *several(), size=10**6),
}


@pytest.mark.parametrize("what", LIARS)
def test_a_bundle_that_lies_is_quarantined_and_nobody_gets_a_receipt(site: Site, what: str) -> None:
    known = LIARS[what](site.incoming)
    [outcome] = site.sweep()
    assert quarantined(site, known, "quarantined") and placed(site) == {}
    assert outcome.status == 1 and known.uid in str(outcome.message)
    assert len(site.receipts()) == 1


@pytest.mark.parametrize("junk", [b"x", b"control=1 data=1 attempts=1\nx"])
def test_what_is_no_members_is_kept(site: Site, junk: bytes) -> None:
    known = arrive_bundle(site.incoming, *several())
    with open(site.incoming / f"{known.uid}.data", "ab") as stream:
        stream.write(junk)
    site.sweep()
    assert sorted(placed(site)) == ["1.fits", "2.fits", "3.fits"]
    assert f"{known.size} were sent" in quarantined(site, known, "mismatch")
    assert kinds(site.receipts()) == ["stored"] * 3 + ["mismatch"]
    assert (site.home / f"quarantine/{known.uid}.data").stat().st_size == known.size + len(junk)
    site.incoming = site.home / "quarantine"
    [outcome] = site.sweep()
    assert "stays in quarantine" in str(outcome.message) and len(left(site)) == 3


def test_a_hole_of_terabytes_behind_a_bundle_takes_no_time_and_no_room(site: Site) -> None:
    known = arrive_bundle(site.incoming, *several())
    os.truncate(site.incoming / f"{known.uid}.data", 1 << 40)
    site.sweep()
    quarantined(site, known, "mismatch")
    found = (site.home / f"quarantine/{known.uid}.data").stat()
    assert found.st_size == 1 << 40 and found.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    "pairs", [{"members": "0"}, {"members": "1000000"}, {"size": "9" * 15}, {"index": "9" * 15},
              {"host": "other"}, {"codec": "x"}, {"name": "x.fits"}],
    ids=str,
)  # fmt: skip
def test_a_control_file_that_is_no_bundles_is_left_to_those_who_take_strangers(
    site: Site, pairs: dict[str, str]
) -> None:
    known = arrive_bundle(site.incoming, *several())
    path = site.incoming / f"{known.uid}.control"
    path.write_bytes(keyvalue.dump((keyvalue.load(bundle.dump(known)) | pairs).items()))
    assert site.sweep() == [] and len(left(site)) == 2
    late = datetime.fromtimestamp(path.stat().st_ctime + 4000, UTC)
    [outcome] = site.sweep_any(now=late)
    assert "cannot be read" in str(outcome.message) and left(site) == []


def test_a_bundle_of_another_format_is_left_and_reported(site: Site) -> None:
    known = arrive_bundle(site.incoming, *several())
    path = site.incoming / f"{known.uid}.control"
    path.write_bytes(keyvalue.dump((keyvalue.load(bundle.dump(known)) | {"format": "2"}).items()))
    [outcome] = site.sweep()
    assert known.uid in str(outcome.message) and len(left(site)) == 2


@pytest.mark.parametrize("kind", ["link", "fifo", "full directory"])
def test_a_data_file_that_is_none_is_quarantined(site: Site, kind: str) -> None:
    known = arrive_bundle(site.incoming, *several())
    data = site.incoming / f"{known.uid}.data"
    data.unlink()
    if kind == "link":
        data.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(data)
    else:
        data.mkdir()
        (data / "x").write_text("x")
    site.sweep()
    assert kinds(site.receipts()) == kinds(site.log()) == ["quarantined"] and left(site) == []
    assert (site.home / f"quarantine/{known.uid}.control").exists()


def test_a_control_file_without_data_is_reported_unless_it_was_dealt_with(site: Site) -> None:
    known = arrive_bundle(site.incoming, *several())
    (site.incoming / f"{known.uid}.data").unlink()
    changed = (site.incoming / f"{known.uid}.control").stat().st_mtime
    late = datetime.fromtimestamp(changed, UTC) + timedelta(minutes=61)
    assert site.sweep(now=late - timedelta(minutes=2)) == []
    [outcome] = site.sweep(now=late)
    assert "data file is missing" in str(outcome.message) and len(left(site)) == 1
    arrive_bundle(site.incoming, *several())
    site.sweep()
    arrive_bundle(site.incoming, *several())
    (site.incoming / f"{known.uid}.data").unlink()
    assert site.sweep(now=late) == [] and left(site) == []


# --- faults -----------------------------------------------------------------------------------


def test_a_member_that_cannot_be_read_now_does_not_stop_the_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = arrive_bundle(site.incoming, *several())
    real = Slice.chunks
    ill = known.index + len(member(1)[1])

    def chunks(self: Slice) -> Iterator[bytes]:
        if self.offset == ill:
            raise SourceError(errno.EIO, os.strerror(errno.EIO))
        return real(self)

    with monkeypatch.context() as broken:
        broken.setattr(Slice, "chunks", chunks)
        outcomes = site.sweep()
        for _ in range(3):
            site.sweep()
    assert sorted(o.status for o in outcomes) == [0, 0, 75]
    assert {Path(name).suffix for name in left(site)} == {".placing", ".data", ".control"}
    assert kinds(site.log()) == ["stored", "stored", "error"]
    assert kinds(site.receipts()) == ["stored", "stored"]  # not with every sweep again
    site.sweep()
    assert kinds(site.log())[3:] == ["stored", "unpacked"] and left(site) == []
    assert {kind for found in by_uid(site).values() for kind in found} == {"stored"}


def test_a_full_disk_loses_nothing_and_is_told_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = arrive_bundle(site.incoming, *(member(n, dir=f"d{n}") for n in range(1, 9)))
    with monkeypatch.context() as full:
        full.setattr(checksum, "write_all", refuse(errno.ENOSPC))
        outcomes = site.sweep()
        site.sweep()
    assert {outcome.status for outcome in outcomes} == {75}
    assert site.files() == [] and kinds(site.log()) == ["error"]
    assert site.log()[0].fields["bundle"] == known.uid and site.receipts() == []
    site.sweep()
    assert kinds(site.log()) == ["error"] + ["stored"] * 8 + ["unpacked"] and left(site) == []


def test_a_directory_that_fails_does_not_stop_the_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.home / "b/.sweep.tmp").mkdir(parents=True)
    arrive_bundle(site.incoming, *(member(n, dir=d) for n, d in enumerate("abc", 1)))
    outcomes = site.sweep()
    assert sorted(placed(site)) == ["1.fits", "3.fits"] and len(left(site)) >= 2
    assert f'Is a directory - "{site.home}/b/.sweep.tmp"' in str(outcomes[-1].message)
    (site.home / "b/.sweep.tmp").rmdir()
    site.sweep()
    assert sorted(placed(site)) == ["1.fits", "2.fits", "3.fits"] and left(site) == []


@pytest.mark.parametrize("count", [2, TOGETHER])
def test_nothing_relies_on_a_sync_that_failed(site: Site, count: int) -> None:
    """Let every sync of a sweep fail in turn; the next one makes everything again."""
    real, real_all = durable.sync, durable.sync_filesystem
    for number in range(1, 100):
        fresh(site)
        arrive_bundle(site.incoming, *several(count))
        failed: list[str] = []
        calls = 0

        def sync(fd: int, real: Callable[[int], None] = real) -> None:
            nonlocal calls
            calls += 1
            if calls == number:  # noqa: B023
                failed.append(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: B023
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(durable, "sync", sync)
            broken.setattr(durable, "sync_filesystem", lambda fd: sync(fd, real_all))
            try:
                outcomes = site.sweep()
                assert not failed or outcomes[-1].status == 75
            except OSError:
                assert failed
        if not failed:
            assert number > 10
            return
        if not failed[0].endswith(("/incoming", "tdcin.log", "/mcam-20030402.log")):
            assert left(site) != [] and site.receipts() == [], failed
        if failed[0].endswith("/2003.0401"):
            assert site.files() == []
        site.sweep()
        assert len(placed(site)) == count, failed
        assert kinds(site.log()).count("stored") == count, failed
        assert len(by_uid(site)) == count and left(site) == [], failed
    raise AssertionError("the syncs of a sweep have no end")


@pytest.mark.parametrize("count", [2, TOGETHER])
def test_every_step_is_durable_before_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    arrive_bundle(site.incoming, member(100))  # for whom directories and logs are made
    site.sweep()
    known = arrive_bundle(site.incoming, *several(count), number=2)
    calls = trace(monkeypatch, site.root)
    site.sweep()
    hidden = (".lock", "accepts", ".placing", ".part")
    quiet = [call.replace(known.uid, "UID") for call in calls
             if call != "fsync minicam" and not any(word in call for word in hidden)]  # fmt: skip
    day, log, receipts = (
        "minicam/2003.0401",
        "minicam/xferlogs/20030402.tdcin.log",
        "receipts/mmto/mcam-20030402.log",
    )
    temporary = [f"{day}/.sweep.{n}.tmp" if n else f"{day}/.sweep.tmp" for n in range(count)]
    each = [[f"write {name}", f"fsync {name}"] if count < TOGETHER else [f"write {name}"]
            for name in temporary]  # fmt: skip
    start = quiet.index(f"write {temporary[0]}")
    assert quiet[start:] == [
        *(call for calls in each for call in calls),
        *([f"syncfs {day}"] if count >= TOGETHER else []),
        *(f"link {name} {day}/{n}.fits" for n, name in enumerate(temporary, 1)),
        *(f"unlink {name}" for name in temporary),
        f"fsync {day}",
        f"write {log}", f"fsync {log}",
        f"write {receipts}", f"fsync {receipts}",
        f"write {log}", f"fsync {log}",
        "unlink incoming/UID.data", "fsync incoming", "unlink incoming/UID.control",
        "fsync incoming",
    ]  # fmt: skip


def test_a_bundle_that_another_process_holds_is_passed_over(site: Site) -> None:
    known = arrive_bundle(site.incoming, *several())
    with site.archive() as archive, archive.incoming.hold_arrival(known.uid) as arrival:
        assert arrival and site.sweep() == []
    assert len(site.sweep()) == 3


# --- what is only foreseen ----------------------------------------------------------------------


def test_a_dry_run_says_what_becomes_of_each_member_and_changes_nothing(site: Site) -> None:
    arrive(site.incoming, b"data of 1", 1, name="1.fits")
    site.sweep()
    arrive_bundle(site.incoming, *several(), member(4, dir="../x"), member(5, size=3))
    liar = LIARS["a uid twice"](site.root)
    for suffix in (".data", ".control"):
        os.rename(site.root / f"{liar.uid}{suffix}", site.incoming / f"{liar.uid[:-1]}0{suffix}")
    text = bundle.dump(replace(liar, uid=liar.uid[:-1] + "0"))
    (site.incoming / f"{liar.uid[:-1]}0.control").write_bytes(text)

    def state() -> list[tuple[str, float, int]]:
        return sorted((str(p), p.stat().st_mtime, p.stat().st_size) for p in site.root.rglob("*"))

    before = state()
    with site.archive() as archive:
        rules = Rules(InstrumentConfig("minicam"))
        foreseen = [o.record for o in sweep(archive, rules, dry_run=True)]
    assert state() == before
    done = [outcome.record for outcome in site.sweep()]
    assert sorted(r.kind for r in foreseen if r) == sorted(r.kind for r in done if r)
    assert sorted(r.kind for r in done if r) == [
        "mismatch",
        "quarantined",
        "quarantined",
        "stored",
        "stored",
    ]


def test_json_rows_are_members(site: Site, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("[lpxfer]\n")
    arrive_bundle(site.incoming, *several())
    asked = ["--config", str(tmp_path / "conf"), "-i", "minicam", "-d", str(site.home), "-f",
             str(site.incoming), "--json"]  # fmt: skip
    foreseen = CliRunner().invoke(main, [*asked, "--dry-run"])
    done = CliRunner().invoke(main, asked)
    for result in (foreseen, done):
        rows = json.loads(result.stdout)["records"]
        assert [(row["kind"], row["name"]) for row in rows] == [
            ("stored", f"{n}.fits") for n in (1, 2, 3)
        ]


def test_the_check_of_an_instrument_directory_finds_nothing_wrong(site: Site) -> None:
    known = arrive_bundle(site.incoming, *several(), member(4, dir="../x"))
    spoiled = arrive_bundle(site.incoming, member(5), member(6), number=2)
    spoil(site, spoiled, 0)
    site.sweep()
    arrive_bundle(site.incoming, *several(), number=3)
    later = datetime.now(UTC) + timedelta(days=3)
    report = fsck_instrument.fsck(str(site.home), False, later, lambda *_: None)
    assert report.findings == [] and report.checked["files"] == 3 and known


# --- kill -9 at every call ----------------------------------------------------------------------


def fresh(site: Site) -> None:
    for path in (site.home, site.any, site.incoming, site.root / "receipts"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (site.home, site.any, site.incoming):
        path.mkdir()


def deaths(site: Site, prepare: Callable[[], object], **rules: Any) -> Iterator[str]:
    """Kill a sweep at every call; sweep again after each death, and yield."""

    def again() -> None:
        fresh(site)
        prepare()

    for where in each_death(lambda: site.sweep(**rules), again):
        site.sweep(**rules)
        assert left(site) == [], where
        assert not list(site.home.rglob(".sweep.*")), where
        assert (site.home / ".lock").read_bytes() == b"", where
        yield where


@pytest.mark.parametrize("count", [3, TOGETHER])
def test_killed_sweep_leaves_each_member_once(site: Site, count: int) -> None:
    for where in deaths(site, lambda: arrive_bundle(site.incoming, *several(count))):
        assert placed(site) == {job.name: data for job, data in several(count)}, where
        assert sorted(kinds(site.log())) == ["stored"] * count + ["unpacked"], where
        assert {job.uid for job, _ in several(count)} == by_uid(site).keys(), where
        assert set(kinds(site.receipts())) == {"stored"}, where


def test_killed_sweep_of_every_kind_of_member_does_each_once(site: Site) -> None:
    members = [
        member(1, b"one", name="x.fits"), member(2, b"one", name="x.fits"),
        member(3, b"two", name="x.fits"), member(4, dir="../x"), member(5, size=3),
        member(6, dir="a/b"), member(7),
    ]  # fmt: skip

    def all_kinds() -> None:
        arrive(site.incoming, b"data of 7", 7, name="7.fits")
        site.sweep()
        arrive_bundle(site.incoming, *members)

    for where in deaths(site, all_kinds):
        # half a write may end in a reason, and look like a whole record
        once = {
            (entry.kind, entry.fields["uid"]) for entry in site.log() if entry.kind != "unpacked"
        }
        told = sorted(kind for kind, _ in once)
        assert told == ["duplicate", "mismatch", "quarantined", "renamed", *["stored"] * 3], where
        found = by_uid(site)
        assert {found[job.uid][-1] for job, _ in members} == set(told), where
        assert all(len(set(of_one)) == 1 for of_one in found.values()), where
        assert len([f for f in site.files() if f.startswith("quarantine")]) == 6, where


def test_killed_sweep_quarantines_a_damaged_bundle_once(site: Site) -> None:
    def damaged() -> None:
        spoil(site, arrive_bundle(site.incoming, *several()), 0)

    for where in deaths(site, damaged):
        assert kinds(site.log()) == ["mismatch"] and len(site.files()) == 3, where
        assert set(kinds(site.receipts())) == {"mismatch"}, where


def test_killed_sweep_keeps_what_is_no_members(site: Site) -> None:
    def longer() -> None:
        known = arrive_bundle(site.incoming, *several(2))
        with open(site.incoming / f"{known.uid}.data", "ab") as stream:
            stream.write(b"junk")

    for where in deaths(site, longer):
        assert sorted(kinds(site.log())) == ["mismatch", "stored", "stored"], where
        assert len(site.files()) == 5, where


def test_killed_sweep_may_be_killed_again_while_it_recovers(site: Site) -> None:
    def again() -> None:
        fresh(site)
        arrive_bundle(site.incoming, *several())

    for where in each_death(site.sweep, again):
        for number in range(1, 60, 28):
            killed(site.sweep, number, "after")
        site.sweep()
        assert len(placed(site)) == 3 and left(site) == [], where
        assert sorted(kinds(site.log())) == ["stored"] * 3 + ["unpacked"], where


@pytest.mark.parametrize(
    ("before", "after"), [({"dir": "a/b"}, {}), ({}, {"dated": False}), ({}, {"dir": "c"})], ids=str
)
def test_killed_sweep_is_not_repeated_under_other_rules(
    site: Site, before: dict[str, Any], after: dict[str, Any]
) -> None:
    members = [
        member(1),
        member(2, path="/h/2002.0523/2"),
        member(3),
        member(4, b"x", name="1.fits"),
    ]

    def again() -> None:
        fresh(site)
        arrive_bundle(site.incoming, *members)

    for where in each_death(lambda: site.sweep(**before), again):
        site.sweep(**after)
        assert left(site) == [], where
        files = list(placed(site).values())
        assert len(site.files()) == 4 and len(set(files)) == len(files), where
        told = [e.fields["placed"] for e in site.log() if "placed" in e.fields]
        assert sorted(told) == site.files(), where


def test_killed_sweep_is_not_repeated_in_another_directory(site: Site) -> None:
    other, now = site.root / "other", datetime.now(UTC)  # marks have the system's time

    def again() -> None:
        fresh(site)
        shutil.rmtree(other, ignore_errors=True)
        other.mkdir()
        arrive_bundle(site.incoming, member(1), member(2, dir="a"))

    for where in each_death(lambda: site.sweep(now=now), again):
        site.sweep(other, now)
        site.sweep(now=now)
        site.sweep(other, now)
        assert left(site) == [], where
        found = site.files() + site.files(other)
        assert sorted(found) == ["2003.0401/1.fits", "a/2.fits"], where


# --- strangers ----------------------------------------------------------------------------------


def strangers(site: Site) -> list[Member]:
    members = [member(n, inst="wyatt") for n in (1, 2)]
    arrive_bundle(site.incoming, *members, inst="wyatt")
    return members


def test_members_that_are_strangers_are_kept_each_with_its_control_file(site: Site) -> None:
    members = strangers(site)
    assert site.sweep() == [] and len(left(site)) == 2
    site.sweep_any()
    assert kinds(site.log(site.any)) == ["stranger", "stranger", "unpacked"]
    assert kinds(site.receipts()) == ["stranger"] * 2 and left(site) == []
    for (known, data), entry in zip(members, site.receipts(), strict=True):
        kept = site.any / entry.fields["placed"]
        assert kept.read_bytes() == data and entry.fields["checksum"] == known.checksum
        text = control.load(kept.with_suffix(".control").read_bytes())
        assert replace(text, transfer=None) == replace(known, transfer=None)
    incoming, site.incoming = site.incoming, site.any / "2003.0402"
    with site.archive() as archive:
        outcomes = list(sweep(archive, Rules(InstrumentConfig("wyatt"))))
    assert [o.record.kind for o in outcomes if o.record] == ["stored"] * 2 and left(site) == []
    assert all(e.fields["seconds"] and e.fields["attempts"] == "1" for e in site.log())
    site.incoming = incoming


def test_a_bundle_of_strangers_that_is_delivered_again_is_removed(site: Site) -> None:
    strangers(site)
    site.sweep_any()
    strangers(site)
    assert site.sweep_any() == [] and left(site) == []
    assert kinds(site.receipts()) == ["stranger"] * 4 and len(site.files(site.any)) == 4


def test_a_spoiled_stranger_in_a_bundle_is_a_mismatch_alone(site: Site) -> None:
    members = [member(n, inst="wyatt") for n in (1, 2)]
    known = arrive_bundle(site.incoming, *members, inst="wyatt")
    spoil(site, known, -1)
    site.sweep_any()
    assert kinds(site.receipts()) == ["stranger", "mismatch"] and left(site) == []


def test_killed_sweep_keeps_one_copy_of_each_stranger(site: Site) -> None:
    def again() -> None:
        fresh(site)
        strangers(site)

    for where in each_death(site.sweep_any, again):
        site.sweep_any()
        assert left(site) == [] and len(site.files(site.any)) == 4, where
        assert sorted(kinds(site.log(site.any))) == ["stranger", "stranger", "unpacked"], where
        assert set(kinds(site.receipts())) == {"stranger"} and len(by_uid(site)) == 2, where


def test_a_dry_run_foresees_strangers(site: Site) -> None:
    from lpxfer.steps.sweep_any import SAO, AnyRules, sweep_any

    strangers(site)
    with site.archive(site.any) as archive:
        outcomes = list(sweep_any(archive, AnyRules(SAO, 1.0), dry_run=True))
    assert [o.record.kind for o in outcomes if o.record] == ["stranger"] * 2
    assert len(left(site)) == 2

"""Receipts, as the archive site writes them."""

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from arrivals import NOW, records

from lpxfer.errors import FormatError
from lpxfer.formats import accepts, record
from lpxfer.formats.accepts import PLAIN, Accepts
from lpxfer.formats.record import Record
from lpxfer.stores.receipts import Receipts

ENTRY = Record(NOW, "stored", {"uid": "u", "size": "1"})


def write(path: Path, account: str, count: int = 1) -> None:
    with Receipts(str(path), account) as receipts:
        receipts.make()
        for _ in range(count):
            receipts.append("mmto", NOW, ENTRY)


def test_a_receipt_is_the_record_in_the_hosts_directory(tmp_path: Path) -> None:
    write(tmp_path / "receipts", "mcam")
    assert (tmp_path / "receipts/mmto/mcam-20030402.log").read_bytes() == record.dump(ENTRY)


def test_everything_is_readable_by_the_sending_account_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path / "receipts", "mcam")
        with Receipts(str(tmp_path / "receipts"), "mcam") as receipts:
            receipts.make()
            receipts.accept("minicam", PLAIN, NOW)
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o7777 for p in (tmp_path / "receipts").rglob("*")}
    assert modes == {
        "mmto": 0o2775, "mcam-20030402.log": 0o644, "accepts": 0o2775, "minicam": 0o644,
    }  # fmt: skip
    assert (tmp_path / "receipts").stat().st_mode & 0o7777 == 0o2775


@pytest.mark.parametrize("when", range(1, 7))
def test_a_sweep_that_dies_over_a_mode_leaves_nothing_unreadable(
    tmp_path: Path, when: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count(1)
    before = os.umask(0o077)
    try:
        with monkeypatch.context() as patch:
            for name in ("fchmod", "fsync"):
                patch.setattr(os, name, dies_at(when, calls, getattr(os, name)))
            with pytest.raises(Crash):
                write(tmp_path / "receipts", "mcam")
        write(tmp_path / "receipts", "mcam")
    finally:
        os.umask(before)
    for path in [tmp_path / "receipts", *(tmp_path / "receipts").rglob("*")]:
        assert path.stat().st_mode & 0o004, path


class Crash(BaseException):
    """Stands for kill -9."""


def dies_at(when: int, calls: Iterator[int], call: Callable[..., None]) -> Callable[..., None]:
    def counted(*args: object) -> None:
        if next(calls) == when:
            raise Crash
        call(*args)

    return counted


def test_a_directory_that_somebody_else_filled_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "receipts/mmto").mkdir(parents=True)
    (tmp_path / "receipts").chmod(0o750)
    (tmp_path / "receipts/mmto").chmod(0o750)
    write(tmp_path / "receipts", "mcam")
    assert (tmp_path / "receipts").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "receipts/mmto").stat().st_mode & 0o777 == 0o750


def test_a_torn_tail_gets_its_newline_first(tmp_path: Path) -> None:
    write(tmp_path, "mcam")
    path = tmp_path / "mmto/mcam-20030402.log"
    with open(path, "ab") as stream:
        stream.write(b"2003-04-02T05:1")
    write(tmp_path, "mcam")
    whole = record.dump(ENTRY)
    assert path.read_bytes() == whole + b"2003-04-02T05:1\n" + whole


def test_a_repeated_receipt_is_written_today(tmp_path: Path) -> None:
    with Receipts(str(tmp_path), "mcam") as receipts:
        receipts.make()
        receipts.append("mmto", NOW + timedelta(days=1), ENTRY)
    assert os.listdir(tmp_path / "mmto") == ["mcam-20030403.log"]


def test_many_writers_of_one_account_tear_no_line(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write, args=(tmp_path, "mcam", 25)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = (tmp_path / "mmto/mcam-20030402.log").read_bytes()
    assert lines == record.dump(ENTRY) * 200 and len(records(tmp_path / "mmto")) == 200


def test_what_a_sweep_understands_is_a_sealed_text(tmp_path: Path) -> None:
    with Receipts(str(tmp_path), "mcam") as receipts:
        receipts.make()
        receipts.accept("minicam", Accepts(bundle=True), NOW)
    said = (tmp_path / "accepts/minicam").read_bytes()
    assert accepts.load(said, NOW) == Accepts(bundle=True)


def test_what_killed_sweeps_left_of_their_word_is_removed(tmp_path: Path) -> None:
    with Receipts(str(tmp_path), "mcam") as receipts:
        receipts.make()
        receipts.accept("minicam", PLAIN, NOW)
        (tmp_path / "accepts/.minicam.0a1b2c3d.new").write_bytes(b"form")
        receipts.accept("minicam", PLAIN, NOW)
    assert os.listdir(tmp_path / "accepts") == ["minicam"]


def test_no_host_or_instrument_leads_elsewhere(tmp_path: Path) -> None:
    with Receipts(str(tmp_path / "receipts"), "../../evil account") as receipts:
        receipts.make()
        for host in ("..", "accepts", "a/b", ""):
            with pytest.raises(FormatError):
                receipts.append(host, NOW, ENTRY)
        with pytest.raises(FormatError):
            receipts.accept("../x", PLAIN, NOW)
        receipts.append("mmto", NOW, ENTRY)
    assert os.listdir(tmp_path / "receipts/mmto") == ["..-..-evil-account-20030402.log"]


def test_a_hosts_directory_that_is_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "receipts").mkdir()
    (tmp_path / "receipts/mmto").symlink_to(tmp_path / "outside")
    with pytest.raises(NotADirectoryError):
        write(tmp_path / "receipts", "mcam")
    assert os.listdir(tmp_path / "outside") == []


def test_a_tree_without_a_parent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "no/receipts", "mcam")

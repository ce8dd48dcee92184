"""Who is told of placed files is told once of each, whatever happens on the way."""

import gzip
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arrivals import NOW, Site, arrive, each_death
from receivers import Service

from lpxfer import durable
from lpxfer.errors import AttemptError, LinkError
from lpxfer.formats import stages, telling
from lpxfer.formats.record import Record
from lpxfer.steps.tell import GIVE_UP, Teller
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.instrument_log import place
from lpxfer.stores.tellings import Tellings
from lpxfer.transports.receiver import Receiver, receiver


class Archive:
    """A site, who tells of its files, and what is said of that."""

    def __init__(self, root: Path, answer: Receiver | None = None) -> None:
        """Let telling begin. Without `answer` everything is heard, and that is all."""
        self.site = Site(root)
        self.answer = answer or (lambda *_: "0")
        self.heard: list[str] = []
        self.said: list[str] = []
        self.now = NOW
        self.log: tuple[str | None, str | None] = (None, None)
        self.teller = self.new()
        self.teller.begin()
        self.number = 0

    def new(self) -> Teller:
        """Return one who knows nothing of the others, as the next sweep's."""
        return Teller(self.opened, self._hear, lambda: self.now, self.said.append)

    @contextmanager
    def opened(self) -> Iterator[Tellings]:
        with InstrumentDir(str(self.site.home), *self.log) as home:
            yield Tellings(home)

    def _hear(self, body: bytes, uid: str, when: str) -> str:
        answer = self.answer(body, uid, when)
        self.heard.append(uid)
        return answer

    def place(self, count: int = 1) -> list[str]:
        """Let files be placed; return their uids."""
        made = []
        for _ in range(count):
            self.number += 1
            name = f"{self.number}.fits"
            made.append(arrive(self.site.incoming, b"x", self.number, name=name).uid)
        self.site.sweep(now=self.now)
        return made

    def told(self) -> list[str]:
        """Return the uids whose answers are recorded, in order."""
        lines = b"".join(
            (gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes())
            for p in sorted((self.site.home / "xferlogs").iterdir())
        )
        whole = [line for line in lines.decode().splitlines(True) if line.endswith("\n")]
        words = [line.split() for line in whole if ",told:" in line]
        return [line[3].removeprefix("uid=") for line in words if line[1:2] == ["told"]]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "site")


def test_each_placed_file_is_told_once_and_the_answer_is_recorded(archive: Archive) -> None:
    archive.answer = lambda *_: "200 thank you\x1b[31m"
    uids = archive.place(3)
    assert archive.teller.once() == 3 and archive.new().once() == 0
    assert archive.heard == archive.told() == uids
    entry = archive.site.log()[0]
    log = (archive.site.home / "xferlogs/20030402.tdcin.log").read_text()
    line = next(line for line in log.splitlines() if " told " in line)
    assert "placed=2003.0401/1.fits answer=200%20thank%20you%1B[31m" in line
    assert list(stages.load(line.split("stages=")[1]))[-2:] == ["receipted", "told"]
    assert entry.kind == "stored" and archive.said == []


def test_what_was_placed_before_is_nothing_that_anybody_is_told_of(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "site")
    os.unlink(archive.site.home / ".tell")
    archive.place(2)
    archive.now += timedelta(minutes=1)
    archive.teller.begin()
    archive.teller.begin()
    new = archive.place(1)
    archive.teller.once()
    assert archive.heard == new


def test_only_files_that_were_placed_are_told(archive: Archive) -> None:
    archive.place(1)
    arrive(archive.site.incoming, b"x", 50, name="1.fits")  # a duplicate
    arrive(archive.site.incoming, b"y", 51, name="1.fits")  # renamed
    arrive(archive.site.incoming, b"y", 52, name="b", checksum="sha256:" + "0" * 64)
    archive.site.sweep()
    assert archive.teller.once() == 2
    assert [uid[-8:] for uid in archive.heard] == ["00000001", "00000033"]


def test_a_service_that_is_down_for_an_hour_hears_of_each_file_once_afterwards(
    tmp_path: Path,
) -> None:
    service = Service()
    with service.listening():
        pass  # from now on nobody listens there
    archive = Archive(tmp_path / "site", receiver(service.url))
    uids = []
    for number in range(7):  # sweeps, each a process of its own
        archive.now = NOW + number * timedelta(minutes=10)
        uids += archive.place(1)
        assert archive.new().once() == 0
    assert len(archive.said) == 1 and "1 file(s) wait" in archive.said[0]
    with service.listening():
        archive.new().once()
        archive.new().once()
    assert [row["uid"] for row in service.rows] == uids == archive.told()
    assert {headers["Idempotency-Key"] for headers, _ in service.heard} == set(uids)


def test_who_stays_tries_again_with_backoff_and_asks_nobody_meanwhile(archive: Archive) -> None:
    tried: list[int] = []

    def down(*_: object) -> str:
        tried.append(1)
        raise LinkError("down")

    archive.answer = down
    archive.place(5)
    archive.teller.once()
    assert len(tried) == 1
    assert not archive.teller._link.may_try(time.monotonic())
    assert archive.said == ["cannot tell of placed files, and goes on trying: down; "
                            "5 file(s) wait"]  # fmt: skip


def test_a_file_that_is_not_wanted_keeps_no_other_waiting_and_is_given_up_in_the_end(
    archive: Archive,
) -> None:
    uids = archive.place(3)

    def choosy(_: bytes, uid: str, when: str) -> str:
        if uid == uids[1]:
            raise AttemptError("400 bad")
        return "0"

    archive.answer = choosy
    assert archive.new().once() == 2 and archive.new().once() == 0
    assert archive.told() == [uids[0], uids[2]]
    assert archive.said == [f"cannot tell of placed files, and goes on trying: {uids[1]}: 400 bad"]
    archive.now += GIVE_UP
    archive.new().once()
    assert archive.said[1:] == [f"{uids[1]}: given up telling of it: 400 bad"]
    with archive.opened() as tellings:
        assert tellings.due() == {}
    more = archive.place(1)
    archive.new().once()
    assert archive.told()[-1:] == more


def test_one_who_is_killed_after_the_answer_tells_again_with_the_same_key(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    [uid] = archive.place()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tellings, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            archive.new().once()
    assert archive.new().once() == 1
    assert archive.heard == [uid, uid] and archive.told() == [uid]
    assert archive.new().once() == 0


def test_killed_anywhere_everything_is_told_and_what_is_recorded_is_not_told_again(
    tmp_path: Path,
) -> None:
    root, heard = tmp_path / "site", tmp_path / "heard"
    archive = Archive(root, lambda _, uid, when: _append(heard, uid))
    uids: list[str] = []

    def prepare() -> None:
        nonlocal archive, uids
        shutil.rmtree(root)
        heard.unlink(missing_ok=True)
        archive = Archive(root, lambda _, uid, when: _append(heard, uid))
        uids = archive.place(2)
        archive.now += timedelta(days=1)  # the mark moves to another file
        uids += archive.place(2)

    def act() -> None:
        archive.new().once()
        archive.new().once()

    for where in each_death(act, prepare):
        recorded = archive.told()
        before = _lines(heard)
        act()
        assert list(dict.fromkeys(_lines(heard))) == uids, where
        again = _lines(heard)[len(before) :]
        assert not set(again) & set(recorded), where
        assert len(before) - len(set(recorded)) <= 1, where
        assert archive.told() == uids, where


def _append(path: Path, line: str) -> str:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # no call that is counted
    with open(fd, "w") as stream:
        stream.write(f"{line}\n")
    return "0"


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("how", ["rename", "gzip", "copy and truncate"])
def test_logs_that_are_rotated_meanwhile_lose_nothing_and_repeat_nothing(
    archive: Archive, how: str
) -> None:
    uids = archive.place(3)

    def only_two(_: bytes, uid: str, when: str) -> str:
        if uid == uids[2]:
            raise LinkError("down")
        return "0"

    archive.answer = only_two
    archive.teller.once()
    log = archive.site.home / "xferlogs/20030402.tdcin.log"
    old = log.with_suffix(".log.1")
    if how == "copy and truncate":
        shutil.copy(log, old)
        os.truncate(log, 0)
    else:
        log.rename(old)
    if how == "gzip":
        old.with_suffix(".1.gz").write_bytes(gzip.compress(old.read_bytes()))
        old.unlink()
    archive.answer = lambda *_: "0"
    uids += archive.place(2)
    archive.new().once()
    archive.now += timedelta(days=1)
    uids += archive.place(1)
    archive.new().once()
    archive.new().once()
    assert archive.heard == uids and sorted(archive.told()) == sorted(uids)
    with archive.opened() as tellings:
        mark = tellings.mark()
    assert mark and mark.at.log == "20030403.tdcin.log"


def test_one_log_for_ever_is_rotated_and_elsewhere(archive: Archive, tmp_path: Path) -> None:
    archive.log = place(str(archive.site.home), str(tmp_path), "all.log")
    os.unlink(archive.site.home / ".tell")
    archive.teller.begin()
    log = tmp_path / "all.log"

    def placed(number: int) -> str:
        uid = arrive(archive.site.incoming, b"x", number, name=str(number)).uid
        archive.site.sweep()
        entry = archive.site.log()[-1]
        durable_line = telling.record.dump(entry)
        with log.open("ab") as stream:
            stream.write(durable_line)
        return uid

    first = placed(1)
    archive.new().once()
    second = placed(2)
    log.rename(tmp_path / "all.log-20030402")
    third = placed(3)
    archive.new().once()
    assert archive.heard == [first, second, third]
    archive.new().once()
    assert len(archive.heard) == 3


def test_half_a_line_waits_until_it_is_whole(archive: Archive) -> None:
    archive.place(1)
    log = archive.site.home / "xferlogs/20030402.tdcin.log"
    whole = log.read_bytes()
    log.write_bytes(whole[:-30])
    assert archive.new().once() == 0
    log.write_bytes(whole)
    assert archive.new().once() == 1


def test_a_mark_that_is_damaged_begins_anew_and_says_nothing_twice(archive: Archive) -> None:
    archive.place(2)
    archive.new().once()
    for text in (b"", b"torn", b"\0" * 100):
        (archive.site.home / ".tell").write_bytes(text)
        archive.now += timedelta(seconds=1)
        archive.new().begin()
        archive.new().once()
    assert len(archive.heard) == 2


def test_more_files_than_are_known_at_a_time_are_all_told(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpxfer.stores.tellings.DUE_MOST", 3)
    uids = archive.place(8)
    while archive.new().once():
        pass
    assert archive.heard == uids
    assert archive.new().once() == 0


def test_only_one_tells_at_a_time(archive: Archive) -> None:
    archive.place(1)
    with InstrumentDir(str(archive.site.home)) as home, durable.locked(".tell.lock", home.fd):
        assert archive.new().once() == 0
    assert archive.new().once() == 1


def test_a_log_that_cannot_be_read_is_said_once(archive: Archive) -> None:
    logs = archive.site.home / "xferlogs"
    archive.place(1)
    logs.rename(archive.site.home / "moved")
    logs.symlink_to(archive.site.home / "moved")
    for _ in range(3):
        assert archive.teller.once() == 0
    assert len(archive.said) == 1 and "is a link" in archive.said[0]


def test_who_stays_hears_of_news_and_is_stopped(archive: Archive) -> None:
    news, stop, heard = threading.Event(), threading.Event(), threading.Event()

    def answer(*_: object) -> str:
        heard.set()
        return "0"

    archive.answer = answer
    thread = threading.Thread(target=archive.teller.serve, args=(news, stop.is_set))
    thread.start()
    archive.place(1)
    news.set()
    assert heard.wait(60)
    stop.set()
    news.set()
    thread.join(60)
    assert not thread.is_alive() and len(archive.told()) == 1


def test_what_is_told_is_the_record_and_always_the_same() -> None:
    entry = Record(
        NOW, "stored", {"uid": "u", "size": "9", "OBJECT": "it's \udcff", "rate": "3.20"}
    )
    assert telling.body(entry) == telling.body(entry) == (
        b'{"version": 1, "time": "2003-04-02T05:20:00.000Z", "kind": "stored", "uid": "u", '
        b'"size": 9, "OBJECT": "it\'s \\udcff", "rate": 3.2}'
    )  # fmt: skip


def test_the_time_is_that_of_the_answer(archive: Archive) -> None:
    archive.place(1)
    archive.now = datetime(2003, 4, 2, 6, 20, tzinfo=UTC)
    archive.teller.once()
    log = (archive.site.home / "xferlogs/20030402.tdcin.log").read_text().splitlines()
    assert log[-1].startswith("2003-04-02T06:20:00.000Z told inst=minicam")
    assert log[-1].endswith(",told:3600.000")

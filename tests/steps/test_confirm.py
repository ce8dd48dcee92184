"""The confirm step: what each receipt does to a job."""

import errno
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from traced import trace

from lpxfer.formats.attempts import ACKED, COMMIT, CONTROL, START
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.formats.record import Record, dump
from lpxfer.steps.confirm import Confirm
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.spool import Queue, Spool
from lpxfer.transports.target import Links
from lpxfer.transports.transport import Transport

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
OTHER = "sha256:" + "0" * 64


class Site:
    """A queue whose archive is a directory, with one job in sent/."""

    def __init__(self, root: Path, make_job: Callable[..., Control]) -> None:
        self.make_job = make_job
        self.said: list[str] = []
        self.incoming, self.receipts = root / "incoming", root / "receipts"
        self.incoming.mkdir()
        self.settings = QueueConfig("archive", transport="local", rempath=str(self.incoming))
        self.queue: Queue = Spool(root / "spool").queue("archive")
        self.links = Links(self.settings)
        self.confirm = Confirm(self.queue, self.settings, "tester", self.said.append)
        self.job = self.sent_job()

    def sent_job(self, attempts: int = 1, at: datetime = NOW) -> Control:
        job = self.make_job(self.queue, b"data", submitted=at)
        with self.queue.claim(job.job) as opened:
            for _ in range(attempts):
                opened.note(START, at)
                opened.note(ACKED, at, acked="4")
            opened.note(COMMIT, at)
        self.queue.move(job.job, State.ACTIVE, State.SENT)
        return job

    def receive(self, kind: str, at: datetime = NOW, **fields: str) -> None:
        directory = self.receipts / self.job.host
        directory.mkdir(parents=True, exist_ok=True)
        words = {"inst": "x", "uid": self.job.uid, "checksum": self.job.checksum} | fields
        with (directory / f"sweeper-{at:%Y%m%d}.log").open("ab") as log:
            log.write(dump(Record(at, kind, words)))

    def run(self, now: datetime = NOW) -> State | None:
        self.confirm.run(self.links.connected, now)
        return self.queue.where(self.job.job)

    def outcome(self) -> str:
        return next(line.kind for line in self.queue.log() if line.fields["uid"] == self.job.uid)


@pytest.fixture
def site(tmp_path: Path, make_job: Callable[..., Control]) -> Iterator[Site]:
    made = Site(tmp_path, make_job)
    yield made
    made.links.close()


@pytest.mark.parametrize("kind", ["stored", "duplicate", "renamed", "stranger"])
def test_receipt_with_the_checksum_completes_the_job(site: Site, kind: str) -> None:
    site.receive(kind)
    assert site.run() is None
    assert site.outcome() == "completed"


@pytest.mark.parametrize("kind", ["stored", "duplicate", "renamed", "stranger"])
def test_receipt_with_another_checksum_does_nothing(site: Site, kind: str) -> None:
    site.receive(kind, checksum=OTHER)
    assert site.run() is State.SENT


@pytest.mark.parametrize("kind", ["error", "unheardof"])
def test_receipt_of_another_kind_does_nothing(site: Site, kind: str) -> None:
    site.receive(kind)
    assert site.run() is State.SENT


def test_receipt_of_another_uid_does_nothing(site: Site) -> None:
    site.receive("stored", uid=site.job.uid[:-1] + ("0" if site.job.uid[-1] != "0" else "1"))
    assert site.run() is State.SENT


def test_mismatch_of_the_current_attempt_sends_again_from_the_start(site: Site) -> None:
    site.receive("mismatch", attempts="1", checksum=OTHER)
    assert site.run() is State.PENDING
    with site.queue.open(site.job.job, State.PENDING) as job:
        assert job.routing().mismatches == 1
        assert not job.attempts().done
        assert not job.attempts().committing  # the archive refused it: a cancel is true again


def test_mismatch_of_an_earlier_attempt_does_nothing(site: Site) -> None:
    site.job = site.sent_job(attempts=2)
    site.receive("mismatch", attempts="1")
    assert site.run() is State.SENT


def test_mismatch_counts_once_for_an_attempt_however_often_it_is_read(site: Site) -> None:
    """The sweep that wrote it was killed before it could take the arrival away."""
    site.receive("mismatch", attempts="1", checksum=OTHER)
    for _ in range(4):
        site.run()
        again = Confirm(site.queue, site.settings, "tester", site.said.append)
        if site.queue.where(site.job.job) is State.PENDING:  # found in incoming: back to sent
            site.queue.move(site.job.job, State.PENDING, State.SENT)
        again.run(site.links.connected, NOW)
    assert site.queue.where(site.job.job) is State.SENT
    with site.queue.open(site.job.job, State.SENT) as job:
        assert job.routing().mismatches == 1


def test_mismatch_is_believed_of_the_attempt_whose_control_file_was_committed(site: Site) -> None:
    """A cut between seal and rename: the next attempt gives the sealed file its final name."""
    with site.queue.open(site.job.job, State.SENT) as job:
        job.note(CONTROL, NOW)  # of the first attempt; the second found it sealed
        job.note(START, NOW)
        job.note(COMMIT, NOW)
    site.receive("mismatch", attempts="2", checksum=OTHER)
    assert site.run() is State.SENT
    site.receive("mismatch", attempts="1", checksum=OTHER)
    assert site.run() is State.PENDING
    with site.queue.open(site.job.job, State.PENDING) as job:
        assert job.routing().refused == 1


def test_quarantine_of_an_earlier_attempt_does_nothing_after_a_retry(site: Site) -> None:
    site.job = site.sent_job(attempts=2)
    site.receive("quarantined", attempts="1", reason="bad dir")
    assert site.run() is State.SENT
    site.receive("stored", attempts="2")
    assert site.run() is None


def test_file_of_receipts_that_cannot_be_read_keeps_no_other_from_being_read(site: Site) -> None:
    site.receive("stored")
    (site.receipts / site.job.host / f"another-{NOW:%Y%m%d}.log").mkdir()
    assert site.run() is None
    assert len(site.said) == 1
    assert "cannot read" in site.said[0]


def test_third_mismatch_fails_the_job_and_keeps_its_data(site: Site) -> None:
    for attempt in (1, 2, 3):
        site.receive("mismatch", attempts=str(attempt))
        state = site.run()
        if attempt < 3:
            assert state is State.PENDING
            with site.queue.claim(site.job.job) as job:
                job.note(START, NOW)
                job.note(COMMIT, NOW)
            site.queue.move(site.job.job, State.ACTIVE, State.SENT)
    assert state is State.FAILED
    with site.queue.open(site.job.job, State.FAILED) as job:
        assert "mismatch" in (job.routing().reason or "")
        assert job.data_size() == 4


def test_quarantined_fails_the_job_with_the_archives_reason(site: Site) -> None:
    site.receive("quarantined", reason="bad dir '../x'")
    assert site.run() is State.FAILED
    with site.queue.open(site.job.job, State.FAILED) as job:
        assert "bad dir '../x'" in (job.routing().reason or "")


def test_stored_after_a_mismatch_wins(site: Site) -> None:
    site.receive("mismatch", attempts="1")
    site.receive("stored")
    assert site.run() is None
    assert site.outcome() == "completed"


def test_receipts_are_read_twice_without_harm(site: Site) -> None:
    site.receive("stored")
    site.run()
    again = Confirm(site.queue, site.settings, "tester", site.said.append)
    again.run(site.links.connected, NOW)
    assert [line.kind for line in site.queue.log()] == ["completed"]


def test_receipt_that_comes_before_the_job_is_in_sent_is_remembered(site: Site) -> None:
    early = site.make_job(site.queue, b"early", submitted=NOW)
    other, site.job = site.job, early
    site.receive("stored")
    site.job = other
    site.queue.claim(early.job).close()
    assert site.run() is State.SENT  # reads the early receipt, and leaves the job to its worker
    site.queue.move(early.job, State.ACTIVE, State.SENT)
    site.job = early
    assert site.run() is None


def test_torn_last_line_is_read_when_it_is_whole(site: Site) -> None:
    site.receive("stored")
    log = next((site.receipts / site.job.host).iterdir())
    text = log.read_bytes()
    log.write_bytes(text[:-20])
    assert site.run() is State.SENT
    log.write_bytes(text)
    assert site.run() is None


def test_rubbish_among_the_receipts_is_passed_over(site: Site) -> None:
    site.receive("error")
    log = next((site.receipts / site.job.host).iterdir())
    with log.open("ab") as lines:
        lines.write(b"\x00\xff garbage\n\n" + b"x" * 1_000_000 + b"\n")
    site.receive("stored")
    assert site.run() is None


def test_files_older_than_the_oldest_sent_job_are_not_read(site: Site) -> None:
    site.receive("stored", at=NOW - timedelta(days=9))
    assert site.run() is State.SENT


def test_unconfirmed_job_that_has_left_incoming_is_sent_again(site: Site) -> None:
    assert site.run(NOW + timedelta(minutes=59)) is State.SENT
    assert site.run(NOW + timedelta(minutes=61)) is State.PENDING
    with site.queue.open(site.job.job, State.PENDING) as job:
        assert job.attempts().committing  # it may be archived all the same: no cancel
        assert job.routing().stalls == 0


def test_unconfirmed_job_that_waits_in_incoming_stays_sent(site: Site) -> None:
    (site.incoming / f"{site.job.uid}.control").write_bytes(b"there")
    assert site.run(NOW + timedelta(hours=2)) is State.SENT


def test_job_with_its_own_target_that_is_gone_does_not_keep_others_waiting(
    site: Site, tmp_path: Path
) -> None:
    routing = Routing(rempath=str(tmp_path / "nowhere"))
    lost = site.make_job(site.queue, b"lost", routing=routing, submitted=NOW)
    site.queue.move(lost.job, State.PENDING, State.SENT)
    site.receive("stored")
    assert site.run() is None


# --- jobs that wait elsewhere ---------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.FAILED, State.HELD, State.PENDING])
def test_job_that_is_archived_after_all_is_completed_wherever_it_waits(
    site: Site, state: State
) -> None:
    """A person at the archive site has swept what had been quarantined."""
    site.queue.move(site.job.job, State.SENT, state)
    other, site.job = site.job, site.sent_job()  # so that there is a reason to look
    assert site.run() is State.SENT
    site.job = other
    site.receive("stored")
    assert site.run() is None
    assert site.outcome() == "completed"


@pytest.mark.parametrize("state", [State.FAILED, State.HELD])
def test_receipts_are_read_for_a_job_that_was_set_aside_alone(site: Site, state: State) -> None:
    site.queue.move(site.job.job, State.SENT, state)
    site.receive("stored")
    assert site.run() is None


def test_job_that_failed_before_it_was_ever_sent_needs_no_connection(site: Site) -> None:
    site.queue.move(site.job.job, State.SENT, State.FAILED)
    with site.queue.open(site.job.job, State.FAILED) as job:
        os.unlink("attempts", dir_fd=job.fd)

    def connect(_: object) -> Transport:
        raise AssertionError("it connects")

    assert site.confirm.run(connect, NOW) == 0


@pytest.mark.parametrize("state", [State.SENT, State.HELD, State.FAILED])
def test_job_whose_target_is_none_keeps_no_other_from_its_receipt(site: Site, state: State) -> None:
    site.make_job(site.queue, state=state, routing=Routing(remhost="host:x"))
    site.receive("stored")
    assert site.run() is None
    assert site.outcome() == "completed"


@pytest.mark.parametrize("kind", ["mismatch", "quarantined", "error"])
def test_only_the_archives_good_word_moves_a_job_that_was_set_aside(site: Site, kind: str) -> None:
    site.queue.move(site.job.job, State.SENT, State.FAILED)
    site.receive(kind, attempts="1")
    assert site.run() is State.FAILED


# --- clocks that do not agree ---------------------------------------------------------------------


@pytest.mark.parametrize("days", [-6, 6])
def test_receipt_of_an_archive_whose_clock_is_days_off_is_read_at_once(
    site: Site, days: int
) -> None:
    site.receive("stored", at=NOW + timedelta(days=days))
    assert site.run() is None


def test_receipt_dated_1970_is_read_before_the_job_is_sent_again(site: Site) -> None:
    site.receive("stored", at=datetime(1970, 1, 1, tzinfo=UTC))
    assert site.run() is State.SENT
    assert site.run(NOW + timedelta(minutes=61)) is None
    assert site.outcome() == "completed"


def test_job_that_was_sent_by_a_clock_ahead_is_looked_for_all_the_same(site: Site) -> None:
    """The clock was a month ahead, and has been put right."""
    assert site.run(NOW - timedelta(days=30)) is State.PENDING


def test_job_that_was_sent_by_a_clock_ahead_gets_its_receipt(site: Site) -> None:
    now = NOW - timedelta(days=30)
    site.receive("stored", at=now)
    assert site.run(now) is None


def test_receipts_that_were_cut_and_written_anew_are_read_again(site: Site) -> None:
    site.receive("error", reason="a long story about a disk that failed")
    assert site.run() is State.SENT
    next((site.receipts / site.job.host).iterdir()).unlink()
    site.receive("stored")
    assert site.run() is None


@pytest.mark.parametrize("state", ["pending", "held", "failed", "done"])
@pytest.mark.parametrize("kind", ["directory", "file", "job"])
def test_what_stands_elsewhere_under_its_id_keeps_no_job_from_its_receipt(
    site: Site, state: str, kind: str
) -> None:
    path = site.queue.root / state / site.job.job
    if kind == "file":
        path.touch()
    elif kind == "directory":
        path.mkdir()
        (path / "control").write_text("made by hand")
    else:
        site.make_job(site.queue, state=State.HELD)
        (site.queue.root / "held/archive-2").rename(path)
    site.receive("stored")
    site.run()
    assert site.outcome() == "completed"
    assert not (site.queue.root / "sent" / site.job.job).exists()


def test_receipts_without_an_end_in_a_jobs_own_place_are_left_at_some_point(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "own/incoming").mkdir(parents=True)
    log = tmp_path / f"own/receipts/{site.job.host}/x-{NOW:%Y%m%d}.log"
    log.parent.mkdir(parents=True)
    log.touch()
    os.truncate(log, 1 << 42)
    with site.queue.open(site.job.job, State.SENT) as job:
        job.set_routing(Routing(rempath=str(tmp_path / "own/incoming")))
    assert site.run() is State.SENT


# --- many at once ---------------------------------------------------------------------------------


def test_many_receipts_complete_their_jobs_with_few_syncs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [site.job, *(site.sent_job() for _ in range(40))]
    for job in jobs:
        site.receive("stored", uid=job.uid)
    calls = trace(monkeypatch, site.queue.root)
    assert site.confirm.run(site.links.connected, NOW) == 0
    assert [line.fields["uid"] for line in site.queue.log()] == [job.uid for job in jobs]
    assert len([call for call in calls if call.startswith(("fsync", "syncfs"))]) < 10


def test_job_that_a_member_has_closed_keeps_no_other_from_its_receipt(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = site.sent_job()
    real = Queue.open

    def closed(queue: Queue, job_id: str, state: State) -> JobDir:
        if job_id == other.job and state is State.SENT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(queue, job_id, state)

    for job in (site.job, other):
        site.receive("stored", uid=job.uid)
    with monkeypatch.context() as patch:
        patch.setattr(Queue, "open", closed)
        assert site.run() is None
    assert site.queue.where(other.job) is State.SENT
    site.run()
    assert site.queue.where(other.job) is None


def test_receipts_that_met_a_full_disk_are_not_forgotten(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [site.job, site.sent_job()]
    for job in jobs:
        site.receive("stored", uid=job.uid)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(JobDir, "prepare_routing", full)
        with pytest.raises(OSError):
            site.run()
    assert site.run() is None
    assert len(list(site.queue.log())) == 2


def test_what_is_known_of_sent_jobs_is_not_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.run()
    opened: list[str] = []
    real = Queue.open

    def count(queue: Queue, job_id: str, state: State) -> JobDir:
        opened.append(job_id)
        return real(queue, job_id, state)

    monkeypatch.setattr(Queue, "open", count)
    another = site.sent_job()
    opened.clear()
    site.run()
    site.run()
    assert opened == [another.job]

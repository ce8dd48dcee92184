"""The audit step: what was submitted is archived, or named."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lpxfer.errors import PermanentError
from lpxfer.formats import names, record
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.control import Control, Transfer
from lpxfer.formats.job import Routing, State
from lpxfer.formats.record import Record
from lpxfer.formats.testimony import Weight
from lpxfer.formats.window import Window
from lpxfer.steps import audit as module
from lpxfer.steps.audit import File, Gap, Question, Report, Sources, audit
from lpxfer.stores import census
from lpxfer.stores.queue import Queue
from lpxfer.stores.receipts import Receipts
from lpxfer.stores.spool import Spool

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
NIGHT = Window(MIDNIGHT, MIDNIGHT + timedelta(days=1))
NOW = MIDNIGHT + timedelta(hours=20)
WRONG = "sha256:" + 64 * "2"


class Place:
    """Two sites in a directory: jobs that are submitted, archived and finished by hand."""

    def __init__(self, root: Path, spool: Spool, make_job: Callable[..., Control]) -> None:
        """Make them empty."""
        self.root, self.spool, self._make = root, spool, make_job
        self.receipts, self.logs = root / "receipts", root / "xferlogs"
        self.receipts.mkdir()
        self.logs.mkdir()
        self.files = root / "files"
        self.files.mkdir()
        self.said: list[str] = []

    def submit(
        self,
        state: State = State.PENDING,
        hours: float = 4,
        queue: str = "archive",
        file: str = "",
        **fields: object,
    ) -> Control:
        """Submit a file of its own, or the named one, `hours` after midnight."""
        target = self.spool.queue(queue)
        number = (sum(1 for _ in self.files.iterdir())) + 1
        path = self.files / (file or f"{number:04d}.fits")
        if not path.exists():
            path.write_bytes(b"%d" % number)
        when = MIDNIGHT + timedelta(hours=hours)
        job_id = f"{queue}-{(self._last(target) or 0) + 1}"
        uid = names.make_uid(when, "telescope", job_id, os.urandom(4))
        known = {"uid": uid, "submitted": when, "path": str(path), "name": path.name}
        known |= {"mtime_ns": path.stat().st_mtime_ns}
        return self._make(target, path.read_bytes(), state, **(known | fields))

    @staticmethod
    def _last(queue: Queue) -> int | None:
        text = (queue.root / "seq").read_text()
        return int(text) if text else None

    def say(self, known: Control, kind: str = "stored", where: str = "both", **more: str) -> None:
        """Write what the archive says of a job: a receipt, a record, or both."""
        entry = record.of_arrival(known.submitted + timedelta(minutes=1), kind, known, "p/a.fits")
        entry = Record(entry.time, entry.kind, {**entry.fields, **more})
        if where in ("both", "receipt"):
            with Receipts(str(self.receipts), "mcam") as receipts:
                receipts.make()
                receipts.append(known.host, entry.time, entry)
        if where in ("both", "log"):
            with open(self.logs / f"{entry.time:%Y%m%d}.tdcin.log", "ab") as stream:
                stream.write(record.dump(entry))

    def finish(self, known: Control, outcome: State = State.COMPLETED, **more: object) -> None:
        """Finish a job that waits, as the sender does."""
        queue = self.spool.queue(known.queue)
        [state] = [s for s in State if s.directory != "done"
                   and any(e.id == known.job for e in queue.entries(s))]  # fmt: skip
        reason = str(more.pop("reason", "stored"))
        queue.finish(known.job, state, outcome, reason, known.submitted + timedelta(minutes=2))

    def archived(self, **given: object) -> Control:
        """Take a job all the way."""
        known = self.submit(**given)  # type: ignore[arg-type]
        self.say(known)
        self.finish(known)
        return known

    def audit(self, **asked: object) -> Report:
        """Look at everything."""
        return self.look(Sources(self.spool, (str(self.receipts),), self.both_logs), **asked)

    @property
    def both_logs(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return ((str(self.logs), ("minicam",)),)

    def look(
        self, sources: Sources, tell: Callable[[File], None] | None = None, **asked: object
    ) -> Report:
        question = Question(**({"window": NIGHT, "host": "telescope"} | asked))  # type: ignore[arg-type]
        return audit(sources, question, NOW, self.said.append, tell)

    def originals(self) -> dict[str, str]:
        """Return why each original is to be kept; "" where it may be deleted."""
        found: list[File] = []
        sources = Sources(self.spool, (str(self.receipts),), self.both_logs)
        self.look(sources, found.append)
        assert all(file.safe is not bool(file.reason) for file in found)
        return {os.path.basename(file.path): file.reason for file in found}


@pytest.fixture
def place(
    tmp_path: Path,
    spool: Spool,
    make_job: Callable[..., Control],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    """Two sites; the second look comes at once."""
    monkeypatch.setattr(module, "PAUSE", 0)
    return Place(tmp_path, spool, make_job)


def accounts(report: Report) -> dict[str, int]:
    """Return the accounts that are not empty, of all queues and instruments."""
    found: dict[str, int] = {}
    for counts in report.totals.values():
        for account, number in counts.items():
            found[account] = found.get(account, 0) + number
    return found


def named(report: Report) -> dict[str, str]:
    """Return the request ids that are named, and in which account."""
    return {row.said.job: row.verdict.account for row in report.rows}


# --- accounts -----------------------------------------------------------------------------


def test_a_night_that_is_archived_or_canceled_owes_nothing(place: Place) -> None:
    for _ in range(3):
        place.archived()
    place.finish(place.submit(), State.CANCELED, reason="typo")
    report = place.audit()
    assert accounts(report) == {"archived": 3, "canceled": 1}
    assert not report.owed and not report.rows and not place.said


def test_every_job_is_in_one_account_whatever_its_state(place: Place) -> None:
    waiting = [State.PENDING, State.HELD, State.ACTIVE, State.SENT, State.FAILED,
               State.QUARANTINED]  # fmt: skip
    ids = {place.submit(state).job: state.value for state in waiting}
    place.archived()
    report = place.audit()
    assert accounts(report) == {"archived": 1} | dict.fromkeys(ids.values(), 1)
    assert named(report) == ids and report.owed


def test_the_reason_why_a_job_waits_is_told(place: Place) -> None:
    place.submit(State.FAILED, routing=Routing(reason="source changed after submit"))
    [row] = place.audit().rows
    assert row.verdict.message == "source changed after submit"


def test_a_job_whose_receipt_has_another_checksum_is_named(place: Place) -> None:
    place.archived()
    known = place.submit()
    place.say(known, checksum=WRONG)
    place.finish(known)
    report = place.audit()
    assert named(report) == {"archive-2": "unproven"} and WRONG in report.rows[0].verdict.message


@pytest.mark.parametrize("lost", ["receipt", "log"])
def test_a_lost_word_of_the_archives_is_named(place: Place, lost: str) -> None:
    place.archived()
    known = place.submit()
    place.say(known, where="log" if lost == "receipt" else "receipt")
    place.finish(known)
    report = place.audit()
    assert named(report) == {"archive-2": "archived"} and report.owed
    assert accounts(report) == {"archived": 2}


def test_a_line_that_is_gone_from_the_finished_log_is_named_by_its_uid(place: Place) -> None:
    jobs = [place.archived() for _ in range(3)]
    [log] = (place.spool.root / "archive/log").iterdir()
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[::2]))
    report = place.audit()
    assert [(row.said.uid, row.verdict.account) for row in report.rows] == [
        (jobs[1].uid, "unknown")
    ]
    assert report.owed and not report.lost


def test_jobs_of_another_spool_of_this_host_are_only_counted(place: Place) -> None:
    known = place.archived()
    for uid in (
        known.uid[:-8] + "ffffffff",  # its number is another job's here
        known.uid.replace("archive-1-", "archive-2-"),  # its number was not given out here
        known.uid.replace("archive-1-", "backup-1-"),  # this queue is not here
    ):
        place.say(known, uid=uid)
    report = place.audit()
    assert accounts(report) == {"archived": 1, "unknown": 3} and not report.owed
    assert sum(report.notes.values()) == 3


def test_jobs_of_other_hosts_in_a_shared_log_are_not_ours(place: Place) -> None:
    place.archived()
    known = place.submit()
    place.say(known, where="log", uid=known.uid.replace("telescope", "other"))
    place.say(known)
    place.finish(known)
    assert not place.audit().owed


def test_a_job_that_is_finished_and_stands_in_the_spool_is_named(place: Place) -> None:
    known = place.submit()
    place.say(known)
    queue = place.spool.root / "archive"
    copy = place.root / "copy"
    copy.mkdir()
    for name in ("control", "data"):
        (copy / name).write_bytes((queue / "pending/archive-1" / name).read_bytes())
    place.finish(known)
    os.rename(copy, queue / "held/archive-1")
    report = place.audit()
    assert named(report) == {"archive-1": "archived"} and report.owed


def test_a_damaged_job_is_named_in_the_time_in_which_it_was_damaged(place: Place) -> None:
    place.submit(State.QUARANTINED)
    (place.spool.root / "archive/quarantine/archive-1/control").write_bytes(b"torn")
    now = datetime.now(UTC)
    recent = Window(now - timedelta(hours=1), now + timedelta(hours=1))
    question = Question(recent, "telescope")
    report = audit(Sources(place.spool), question, now + timedelta(seconds=2), place.said.append)
    assert named(report) == {"archive-1": "quarantined"}
    assert "torn" in report.rows[0].verdict.message


# --- which jobs ---------------------------------------------------------------------------


def test_a_job_belongs_to_the_second_in_its_uid(place: Place) -> None:
    for hours in (-0.001, 0, 18.9, 19):
        place.submit(hours=hours)
    end = MIDNIGHT + timedelta(hours=19)
    assert set(named(place.audit(window=Window(MIDNIGHT, end)))) == {"archive-2", "archive-3"}
    half = Window(MIDNIGHT + timedelta(microseconds=1), end)
    assert set(named(place.audit(window=half))) == {"archive-3"}


def test_jobs_from_the_future_belong_to_a_time_that_reaches_the_present(place: Place) -> None:
    ahead = (NOW - MIDNIGHT) / timedelta(hours=1) + 72  # the clock was, when they were submitted
    place.archived(hours=ahead)
    place.submit(State.FAILED, hours=ahead)
    last_day = Window(NOW - timedelta(days=1), NOW)
    assert accounts(place.audit(window=last_day)) == {"archived": 1, "failed": 1}
    assert named(place.audit(window=last_day)) == {"archive-2": "failed"}
    archive = place.look(Sources(receipts=(str(place.receipts),)), window=last_day)
    assert accounts(archive) == {"archived": 1}
    over = Window(NIGHT.start, NOW - timedelta(seconds=1))
    assert not place.audit(window=over).totals


def test_only_the_asked_instrument_and_queues_are_counted(place: Place) -> None:
    for inst in ("minicam", "mc", "megacam"):
        place.submit(inst=inst)
    place.submit(queue="backup")
    aliases = {"mc": "minicam", "minicam": "minicam"}
    assert set(named(place.audit(inst="minicam", aliases=aliases))) == {
        "archive-1", "archive-2", "backup-1",
    }  # fmt: skip
    assert set(named(place.audit(inst="megacam"))) == {"archive-3"}
    assert set(named(place.audit(queues={"backup"}))) == {"backup-1"}


def test_a_job_that_was_moved_to_another_queue_is_counted_there(place: Place) -> None:
    known = place.submit()
    here, there = place.spool.queue("archive"), place.spool.queue("backup")
    here.move_to_queue(known.job, State.PENDING, there)
    report = place.audit()
    assert list(report.totals) == [("backup", "minicam")] and not report.lost


def test_a_job_archived_days_after_its_night_is_found(place: Place) -> None:
    known = place.submit()
    late = Record(known.submitted + timedelta(days=40), "stored",
                  record.of_arrival(NOW, "stored", known, "p/a.fits").fields)  # fmt: skip
    with Receipts(str(place.receipts), "mcam") as receipts:
        receipts.make()
        receipts.append("telescope", late.time, late)
    place.spool.queue("archive").finish(
        known.job, State.PENDING, State.COMPLETED, "stored", late.time
    )
    report = place.look(Sources(place.spool, (str(place.receipts / "telescope"),)))
    assert accounts(report) == {"archived": 1} and not report.owed


def test_what_was_not_looked_at_is_not_taken_for_granted(place: Place) -> None:
    place.archived()
    report = place.look(Sources(place.spool))
    assert accounts(report) == {"archived": 1} and not report.owed
    assert (report.reach.receipts, report.reach.logs) == (None, {})
    assert report.notes == {"archived by the finished log's word alone": 1}


def test_the_archive_site_holds_its_receipts_against_its_logs(place: Place) -> None:
    for where in ("both", "receipt", "log"):
        place.say(place.submit(), where=where)
    report = place.look(Sources(None, (str(place.receipts),), place.both_logs))
    assert named(report) == {"archive-2": "archived", "archive-3": "archived"}
    assert report.reach.finished is None


def test_damaged_lines_and_what_is_no_log_are_said_and_stop_nothing(place: Place) -> None:
    place.archived()
    log = next((place.receipts / "telescope").iterdir())
    log.write_bytes(b"\xff\n" + log.read_bytes() + b"2026-11-20T04:01:00.000Z sto")
    (log.parent / "x-20261121.log").symlink_to("/dev/zero")
    assert not place.audit().owed
    assert len(place.said) == 2 and "1 damaged line(s)" in place.said[0]


def test_a_spool_of_another_account_is_not_looked_at_by_halves(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.submit()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PermanentError, match="belongs to another account"):
        place.audit()


# --- what moves meanwhile -----------------------------------------------------------------


def test_a_job_that_is_finished_while_it_is_looked_at_adds_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = place.submit(State.SENT)
    place.say(known)
    standing = census.standing

    def meanwhile(queues: object) -> Iterator[tuple[str, Record]]:
        yield from standing(queues)  # type: ignore[arg-type]
        place.finish(known)

    monkeypatch.setattr(census, "standing", meanwhile)
    report = place.audit()
    assert accounts(report) == {"archived": 1} and not report.owed


def test_a_job_that_appears_while_it_is_looked_for_is_neither_lost_nor_unknown(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.archived()
    new: list[Control] = []
    standing = census.standing

    def meanwhile(queues: object) -> Iterator[tuple[str, Record]]:
        yield from standing(queues)  # type: ignore[arg-type]
        new.append(place.submit(State.SENT))
        place.say(new[0])

    monkeypatch.setattr(census, "standing", meanwhile)
    assert not place.audit().owed


# --- request ids --------------------------------------------------------------------------


def test_a_job_that_vanished_is_named_by_its_number(place: Place) -> None:
    for _ in range(5):
        place.submit()
    pending = place.spool.root / "archive/pending"
    for number in (1, 3, 5):
        os.rename(pending / f"archive-{number}", place.root / f"gone-{number}")
    report = place.audit()
    assert report.lost == [Gap("archive", n, n) for n in (1, 3, 5)] and report.owed


def test_numbers_that_a_submit_did_not_need_are_not_missed(place: Place) -> None:
    place.archived()
    queue = place.spool.queue("archive")
    queue.reserve(5)
    queue.forgo(2, 4)
    queue.forgo(6, 6)
    place.archived()
    assert place.audit().lost == [Gap("archive", 5, 5)]


@pytest.mark.parametrize("text", [None, b"", b"junk", b"0\n"])
def test_a_lost_seq_hides_no_gap(place: Place, text: bytes | None) -> None:
    for _ in range(3):
        place.submit()
    root = place.spool.root / "archive"
    os.rename(root / "pending/archive-2", place.root / "gone")
    (root / "seq").unlink()
    if text is not None:
        (root / "seq").write_bytes(text)
    assert place.audit().lost == [Gap("archive", 2, 2)]


def test_a_submit_at_work_is_not_waited_for(place: Place) -> None:
    place.archived()
    queue = place.spool.queue("archive")
    numbers = queue.reserve(5)
    with queue.draft(numbers[0]):
        place.archived()
        assert not place.audit().owed


def test_a_number_is_missed_in_the_time_between_its_neighbours(place: Place) -> None:
    for hours in (-20, -19, 1, 2):
        place.submit(hours=hours)
    pending = place.spool.root / "archive/pending"
    os.rename(pending / "archive-2", place.root / "gone")
    day = timedelta(days=1)
    assert place.audit().lost == [Gap("archive", 2, 2)]  # it may have been in either night
    assert place.audit(window=Window(NIGHT.start - day, NIGHT.start)).lost
    assert not place.audit(window=Window(MIDNIGHT + timedelta(hours=1.5), NIGHT.end)).lost


def test_numbers_from_before_the_logs_that_were_kept_are_not_missed(place: Place) -> None:
    place.finish(place.submit(hours=-24 * 60))
    place.finish(place.submit(hours=-24 * 30))
    place.archived()
    oldest = min((place.spool.root / "archive/log").iterdir())
    oldest.unlink()
    assert not place.audit().lost
    held = place.submit(State.HELD, hours=-24 * 90)  # a number from long ago is no neighbour
    assert held.job == "archive-4" and not place.audit().lost


# --- the instruments' own numbers ---------------------------------------------------------


def frames(place: Place, *numbers: int, hours: float = 4, **fields: object) -> None:
    for seq in numbers:
        place.archived(hours=hours, others={"seq": str(seq)}, **fields)


def test_missing_numbers_of_an_instrument_are_named(place: Place) -> None:
    frames(place, 7, 8, 11, 12, 14)
    frames(place, 3, inst="megacam")
    place.say(place.submit(others={"seq": "10"}))  # known from the control file, too
    place.finish(place.submit(others={"seq": "9"}), State.CANCELED)
    report = place.audit()
    assert report.missing == [Gap("minicam", 13, 13)] and report.owed


def test_one_number_of_different_files_is_named(place: Place) -> None:
    frames(place, 1, 2, 2)
    frames(place, 3, 3, file="same.fits")
    place.finish(place.submit(others={"seq": "1"}), State.CANCELED)
    assert place.audit().twice == [("minicam", 2, ["archive-2", "archive-3"])]


def test_an_instrument_may_number_each_night_anew_or_go_on(place: Place) -> None:
    two = Window(MIDNIGHT - timedelta(days=1), NIGHT.end)
    frames(place, 1, 2, 3, hours=-20)
    frames(place, 1, 2, hours=4)
    frames(place, 1, 2, 3, hours=-20, inst="megacam")
    frames(place, 4, 5, hours=4, inst="megacam")
    report = place.audit(window=two)
    assert not report.missing and not report.twice
    frames(place, 4, hours=5)
    frames(place, 9, hours=5, inst="megacam")
    report = place.audit(window=two)
    assert report.missing == [Gap("megacam", 6, 8), Gap("minicam", 3, 3)]


def test_a_seq_that_is_no_number_counts_for_nothing(place: Place) -> None:
    for seq in ("", "12a", "٣", "-4", "9" * 99):
        place.archived(others={"seq": seq})
    assert not place.audit().owed


# --- originals ----------------------------------------------------------------------------


def test_originals_of_archived_jobs_may_be_deleted(place: Place) -> None:
    place.archived(file="a.fits")
    place.archived(file="b\n\udcff.fits")
    place.archived(file="gone.fits")
    (place.files / "gone.fits").unlink()
    assert place.originals() == {"a.fits": "", "b\n\udcff.fits": ""}


def test_an_original_that_changed_is_kept(place: Place) -> None:
    for name in "size", "time", "link", "same":
        place.archived(file=name)
    (place.files / "size").write_bytes(b"other")
    status = (place.files / "time").stat()
    os.utime(place.files / "time", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    os.rename(place.files / "link", place.files / "target")
    (place.files / "link").symlink_to("target")
    changed = "changed since it was submitted"
    assert place.originals() == {
        "size": changed, "time": changed, "link": "is not a regular file", "same": "",
    }  # fmt: skip


def test_an_original_of_a_job_that_is_not_proven_is_kept(place: Place) -> None:
    place.submit(file="pending")
    known = place.submit(file="wrong")
    place.say(known, checksum=WRONG)
    place.finish(known)
    known = place.submit(file="halves")
    place.say(known, where="receipt")
    place.finish(known)
    place.say(place.submit(State.SENT, file="unread"))
    place.finish(place.submit(file="canceled"), State.CANCELED)
    assert place.originals() == {
        "pending": "archive-1 is not archived", "wrong": "archive-2 is not archived",
        "halves": "archive-3 is not archived", "unread": "",
    }  # fmt: skip


@pytest.mark.parametrize("hours", [-200, 3, 5, 26])
def test_an_original_is_kept_while_any_job_of_it_waits(place: Place, hours: float) -> None:
    place.archived(file="a.fits", hours=4)
    place.submit(State.HELD, hours=hours, queue="backup", inst="other", file="a.fits")
    assert place.originals() == {"a.fits": "backup-1 is not archived"}


def test_an_original_that_was_submitted_again_needs_the_version_it_has(place: Place) -> None:
    place.archived(file="a.fits")
    (place.files / "a.fits").write_bytes(b"second")
    assert place.originals() == {"a.fits": "changed since it was submitted"}
    place.finish(place.submit(file="a.fits"), State.CANCELED)
    assert place.originals() == {"a.fits": "changed since it was submitted"}
    place.archived(file="a.fits")
    assert place.originals() == {"a.fits": ""}


def test_originals_of_other_hosts_are_not_ours(place: Place) -> None:
    known = place.submit()
    uid = known.uid.replace("telescope", "other")
    place.finish(known)
    [log] = (place.spool.root / "archive/log").iterdir()
    log.write_text(log.read_text().replace(known.uid, uid))
    assert place.originals() == {}


def test_the_weight_of_a_row_says_whether_it_is_owed(place: Place) -> None:
    known = place.submit()
    place.say(known)
    place.finish(known, State.CANCELED)
    report = place.audit()
    assert [row.verdict.weight for row in report.rows] == [Weight.NOTED] and not report.owed


def test_what_is_said_of_a_bundle_as_a_whole_is_said_of_no_job(place: Place) -> None:
    known = place.archived()
    before = place.audit(everything=True)
    uid = known.uid[:-8] + "ffffffff"
    transfer = Transfer(known.submitted, known.submitted, 1.0, 1)
    packed = Bundle(uid, known.host, known.inst, 2, 9, 9, WRONG, transfer)
    for kind in ("mismatch", "quarantined", "error", "unpacked"):
        entry = record.of_arrival(known.submitted, kind, packed, "quarantine/x.data", reason="x")
        with open(place.logs / f"{entry.time:%Y%m%d}.tdcin.log", "ab") as stream:
            stream.write(record.dump(entry))
        with Receipts(str(place.receipts), "mcam") as receipts:
            receipts.make()
            receipts.append(known.host, entry.time, entry)
    after = place.audit(everything=True)
    assert (after.rows, after.totals, after.owed) == (before.rows, before.totals, False)
    assert place.said == []

"""What two sites say of a job, and what that amounts to: every row of the table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lpxfer.formats.record import Record
from lpxfer.formats.testimony import (
    ACCOUNTS,
    ARCHIVED,
    UNKNOWN,
    UNPROVEN,
    Reach,
    Said,
    Source,
    Verdict,
    Weight,
    judge,
    said,
)

UID = "20261120T040000Z-telescope-archive-1-0123abcd"
NOW = datetime(2026, 11, 20, 5, tzinfo=UTC)
RIGHT, WRONG = "sha256:" + 64 * "1", "sha256:" + 64 * "2"
EVERYWHERE = Reach(finished="20261101", receipts="20261101", logs={"minicam": "20261101"})
FINE, NOTED, OWED = Weight


def word(source: Source, kind: str, minutes: int = 0, **fields: str) -> Said:
    known = {"uid": UID, "inst": "minicam", "checksum": RIGHT, "placed": "2026.1120/a.fits"}
    entry = Record(NOW + timedelta(minutes=minutes), kind, known | fields)
    return said(source, "archive" if source <= Source.FINISHED else "", entry)


def here(kind: str, **fields: str) -> Said:
    return word(Source.SPOOL, kind, **fields)


def finished(kind: str = "completed", **fields: str) -> Said:
    return word(Source.FINISHED, kind, **fields)


def receipt(kind: str = "stored", minutes: int = 0, **fields: str) -> Said:
    return word(Source.RECEIPT, kind, minutes, **fields)


def log(kind: str = "stored", minutes: int = 0, **fields: str) -> Said:
    return word(Source.LOG, kind, minutes, **fields)


def result(*group: Said, reach: Reach = EVERYWHERE) -> tuple[str, Weight]:
    verdict = judge(group, reach)
    return verdict.account, verdict.weight


@pytest.mark.parametrize("kind", ["stored", "duplicate", "renamed"])
def test_a_completed_job_with_a_receipt_and_a_record_is_archived_and_proven(kind: str) -> None:
    verdict = judge([finished(), receipt(kind), log(kind)], EVERYWHERE)
    assert verdict == Verdict(ARCHIVED, proven=True)


@pytest.mark.parametrize(
    ("group", "account", "weight"),
    [
        ([finished(), receipt()], ARCHIVED, OWED),  # the transfer log has lost its record
        ([finished(), log()], ARCHIVED, OWED),  # the receipt is gone
        ([finished(), receipt("stranger")], ARCHIVED, FINE),  # its record is elsewhere
        ([finished()], UNPROVEN, OWED),
        ([finished(), receipt("mismatch"), log("mismatch")], UNPROVEN, OWED),
        ([finished(), receipt(checksum=WRONG), log(checksum=WRONG)], UNPROVEN, OWED),
        ([finished(), receipt(checksum=WRONG), log()], ARCHIVED, OWED),
        ([finished(), receipt(checksum="sha256:11"), log()], ARCHIVED, OWED),  # torn: no word
        ([finished(reason="sent")], "sent", FINE),  # confirm = sent
        ([finished("canceled")], "canceled", FINE),
        ([finished("canceled"), receipt("quarantined")], "canceled", FINE),
        ([finished("canceled"), receipt(), log()], "canceled", NOTED),
        ([finished(), finished("canceled"), receipt(), log()], "canceled", OWED),
        ([finished("canceled"), finished(), receipt(), log()], ARCHIVED, OWED),
        ([finished(), finished(), receipt(), log()], ARCHIVED, FINE),  # a sender that died
        ([here("completed"), receipt(), log()], ARCHIVED, FINE),  # in done/
        ([here("completed"), finished(), receipt(), log()], ARCHIVED, FINE),
        ([here("canceled")], "canceled", FINE),
    ],
)  # fmt: skip
def test_a_finished_job(group: list[Said], account: str, weight: Weight) -> None:
    assert result(*group) == (account, weight)


def test_a_record_of_the_finished_log_that_a_crash_has_cut_does_not_count() -> None:
    assert result(finished(), finished(checksum="sha256:11"), receipt(), log()) == (ARCHIVED, FINE)


@pytest.mark.parametrize("state", ["pending", "held", "active", "sent", "failed", "quarantined"])
def test_a_job_in_the_spool_is_owed_until_the_archive_has_it(state: str) -> None:
    assert result(here(state)) == (state, OWED)
    assert result(here(state), receipt("mismatch"), log("mismatch")) == (state, OWED)
    assert result(here(state), receipt(checksum=WRONG)) == (state, OWED)
    assert result(here(state), receipt()) == result(here(state), log()) == (ARCHIVED, FINE)
    assert result(here(state), finished()) == (state, OWED)
    assert result(here(state), finished(), receipt()) == (ARCHIVED, OWED)
    assert result(here(state), here("failed")) == (state, OWED)
    assert state in ACCOUNTS


def test_a_job_in_the_spool_is_proven_by_the_archive_only() -> None:
    assert judge([here("sent"), receipt()], EVERYWHERE).proven
    assert not judge([here("sent")], EVERYWHERE).proven


def test_the_finished_log_is_believed_where_nothing_of_the_archives_reaches() -> None:
    for reach in (Reach(finished=""), replace(EVERYWHERE, receipts="20261121", logs={})):
        verdict = judge([finished()], reach)
        assert (verdict.account, verdict.weight, verdict.proven) == (ARCHIVED, FINE, False)
    assert result(finished(), reach=Reach(receipts="")) == (UNPROVEN, OWED)  # an empty directory
    other = Reach(logs={"megacam": ""})  # a log of another instrument says nothing
    assert result(finished(), reach=other) == (ARCHIVED, FINE)


def test_a_file_that_was_set_aside_in_the_archive_is_not_archived_any_more() -> None:
    taken = {("minicam", "2026.1120/a.fits"): "2026-11-20T05:30:00.000Z"}
    reach = replace(EVERYWHERE, taken=taken)
    for kind in ("stored", "duplicate"):  # of another uid's file
        assert result(finished(), receipt(kind), log(kind), reach=reach) == (UNPROVEN, OWED)
    assert result(finished(), receipt(placed=""), log(), reach=reach) == (UNPROVEN, OWED)
    again = [receipt(minutes=45), log(minutes=45)]  # it was submitted and placed once more
    assert result(finished(), receipt(), log(), *again, reach=reach) == (ARCHIVED, FINE)


def test_a_job_that_only_the_archive_knows_does_not_add_up() -> None:
    assert result(receipt(), log()) == (UNKNOWN, OWED)
    assert result(receipt("quarantined")) == (UNKNOWN, OWED)


def test_a_job_from_before_the_finished_logs_begin_is_only_counted() -> None:
    later = replace(EVERYWHERE, finished="20261121")
    assert result(receipt(), log(), reach=later) == (UNKNOWN, FINE)


def test_without_a_spool_receipts_and_records_are_held_against_each_other() -> None:
    archive = replace(EVERYWHERE, finished=None)
    assert result(receipt(), log(), reach=archive) == (ARCHIVED, FINE)
    assert result(receipt(), reach=archive) == (ARCHIVED, OWED)
    assert result(log(), reach=archive) == (ARCHIVED, OWED)
    assert result(receipt("stranger"), reach=archive) == (ARCHIVED, FINE)
    assert result(receipt(), log(checksum=WRONG), reach=archive) == (ARCHIVED, OWED)
    assert result(log("mismatch"), receipt("mismatch"), reach=archive) == (UNPROVEN, OWED)
    assert result(log(), reach=replace(archive, receipts=None)) == (ARCHIVED, FINE)


def test_what_is_no_uid_is_none_and_the_request_id_is_in_the_uid() -> None:
    assert receipt().job == "archive-1"
    assert receipt(uid="../../etc/passwd").uid == receipt(uid="x").job == ""

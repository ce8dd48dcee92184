"""xfer-stat, as a person and a program use it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from lpxfer.cli.xfer_stat import main
from lpxfer.formats.attempts import COMMIT, START
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.stores import counts
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Queue, Spool

NOW = datetime.now(UTC)
ME = account(os.geteuid())
MakeJob = Callable[..., Control]

KEYS = "id uid queue state user size submitted name path priority attempts not_before reason"


@dataclass
class Stat:
    """The command, over a spool with the queues archive and backup."""

    conf: Path

    def __call__(self, *words: str) -> str:
        """Run it, and expect nothing to be wrong."""
        status, out, err = self.fails(*words)
        assert (status, err) == (0, "")
        return out

    def fails(self, *words: str) -> tuple[int, str, str]:
        words = ("--config", str(self.conf), *words)
        result = CliRunner().invoke(main, words, prog_name="xfer-stat")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stdout, result.stderr

    def ids(self, *words: str) -> list[str]:
        return [line.split()[0] for line in self(*words).splitlines()]


@pytest.fixture
def stat(tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> Stat:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    conf = tmp_path / "lpxfer.conf"
    conf.write_text(f"[lpxfer]\nspool = {spool.root}\n[queue archive]\n[queue backup]\n")
    return Stat(conf)


@pytest.fixture
def backup(spool: Spool) -> Queue:
    return spool.queue("backup")


# --- jobs ---------------------------------------------------------------------------------


def test_plain_command_lists_all_jobs_that_are_not_completed(
    stat: Stat, queue: Queue, backup: Queue, make_job: MakeJob
) -> None:
    submitted = datetime(2026, 11, 20, 4, 5, 6, tzinfo=UTC)
    make_job(queue, b"12345", name="a b.fits", submitted=submitted)
    make_job(queue, state=State.HELD)
    make_job(backup, state=State.FAILED)
    gone = make_job(queue).job
    queue.finish(gone, State.PENDING, State.COMPLETED, "", NOW)
    out = stat()
    assert out.splitlines()[0].split("  ")[0] == "archive-1"
    words = rf"archive-1 +{ME} +5 +pending +2026-11-20 04:05:06 UTC +a b\.fits"
    assert re.fullmatch(words, out.splitlines()[0])
    assert [line.split()[0] for line in out.splitlines()] == ["archive-1", "archive-2", "backup-1"]


def test_nothing_in_the_spool_prints_nothing(stat: Stat) -> None:
    assert stat() == ""
    assert stat("-l") == ""


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["-o"], ["archive-1", "archive-2", "backup-1"]),
        (["-o", "-l"], ["archive-1", "archive-2", "backup-1"]),
        (["-o", "archive"], ["archive-1", "archive-2"]),
        (["-oarchive"], ["archive-1", "archive-2"]),
        (["-o", "archive-2"], ["archive-2"]),
        (["-o", "archive-2", "-o", "backup"], ["backup-1", "archive-2"]),
        (["archive-2"], ["archive-2"]),
        (["backup-1", "archive-2", "backup-1"], ["backup-1", "archive-2"]),
        (["-u", ME, "-o", "backup"], ["backup-1"]),
        (["-u", "nobody_at_all"], []),
        (["-W", "completed"], []),
    ],
    ids=" ".join,
)  # fmt: skip
def test_jobs_are_chosen(
    stat: Stat,
    queue: Queue,
    backup: Queue,
    make_job: MakeJob,
    words: list[str],
    ids: list[str],
) -> None:
    make_job(queue)
    make_job(queue, state=State.SENT)
    make_job(backup)
    rows = [line for line in stat(*words).splitlines() if not line.startswith("\t")]
    assert [row.split()[0] for row in rows] == ids


def test_completed_jobs_are_those_of_the_last_week_with_their_outcome(
    stat: Stat, queue: Queue, make_job: MakeJob
) -> None:
    for days, outcome in ((9, State.COMPLETED), (2, State.COMPLETED), (1, State.CANCELED)):
        job = make_job(queue).job
        queue.finish(job, State.PENDING, outcome, "why", NOW - timedelta(days=days))
    make_job(queue)
    rows = [line.split() for line in stat("-W", "completed").splitlines()]
    assert [(row[0], row[3]) for row in rows] == [
        ("archive-2", "completed"), ("archive-3", "canceled"),
    ]  # fmt: skip
    assert stat.ids("-W", "all") == ["archive-2", "archive-3", "archive-4"]
    assert stat.ids("archive-1") == ["archive-1"], "who asks for one by its id gets it"


def test_unknown_id_is_an_error_and_the_others_are_shown(
    stat: Stat, queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue)
    status, out, err = stat.fails("archive-9", "archive-1")
    assert status == 1
    assert err == 'xfer-stat: Error - there is no job "archive-9"\n'
    assert out.split()[0] == "archive-1"


def test_word_that_is_no_request_id_is_an_error(stat: Stat) -> None:
    status, _, err = stat.fails("../etc")
    assert status == 1
    assert "is not a request id such as archive-1042" in err


def test_unknown_queue_is_wrong_usage(stat: Stat) -> None:
    status, _, err = stat.fails("-o", "nosuch")
    assert status == 2
    assert 'there is no queue "nosuch"; known: archive, backup' in err


def test_long_listing_says_why_and_when(stat: Stat, queue: Queue, make_job: MakeJob) -> None:
    later = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)
    make_job(queue, routing=Routing(priority=7, not_before=later, reason="no route", stalls=2))
    make_job(queue, routing=Routing(not_before=later))
    make_job(queue, state=State.HELD, routing=Routing(reason="wait\x1b[2J"))
    with queue.still("archive-1", State.PENDING) as job:
        job.note(START, NOW)
        job.note(START, NOW)
    details = [line[1:] for line in stat("-l").splitlines() if line.startswith("\t")]
    path = "/data/2026.1120/0123.fits"
    assert details == [
        "deferred until 2099-01-02 03:04:05 UTC: no route",
        "priority 7, 2 attempt(s), inst minicam",
        path,
        "not before 2099-01-02 03:04:05 UTC",
        "priority 50, 0 attempt(s), inst minicam",
        path,
        "reason: wait%1B[2J",
        "priority 50, 0 attempt(s), inst minicam",
        path,
    ]


def test_long_listing_says_when_a_job_was_finished(
    stat: Stat, queue: Queue, make_job: MakeJob
) -> None:
    queue.finish(make_job(queue).job, State.PENDING, State.CANCELED, "by her", NOW)
    assert f"\tcanceled {NOW:%Y-%m-%d %H:%M:%S} UTC\n\treason: by her\n" in stat("-l", "archive-1")


def test_names_that_would_act_on_the_terminal_do_not(
    stat: Stat, queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue, name="a\nb\x1b[31m\u202e\udcff.fits", path="/x\ny")
    out = stat("-l")
    assert "a%0Ab%1B[31m%E2%80%AE%FF.fits" in out
    assert "/x%0Ay" in out


def test_times_are_local_unless_utc_is_asked_for(
    stat: Stat, queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(queue, submitted=datetime(2026, 11, 20, 4, 5, 6, tzinfo=UTC))
    monkeypatch.setenv("TZ", "MST7")
    time.tzset()
    assert "2026-11-19 21:05:06 MST" in stat()
    assert "2026-11-20 04:05:06 UTC" in stat("--utc")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_sent_job_without_its_receipt_is_shown_as_unconfirmed(
    stat: Stat, queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue, state=State.SENT)
    assert " sent " in stat()
    text = stat.conf.read_text()
    stat.conf.write_text(text.replace("[queue archive]", "[queue archive]\nunconfirmed = 0"))
    assert " unconfirmed " in stat()
    out = stat("-s")
    assert "queue archive has 1 unconfirmed job(s), the oldest sent 0s ago" in out


# --- queues and the sender --------------------------------------------------------------------


def test_queues_idle_sending_and_disabled(
    stat: Stat, queue: Queue, backup: Queue, make_job: MakeJob
) -> None:
    since = datetime(2026, 11, 20, 1, 2, 3, tzinfo=UTC)
    backup.switch(lambda switches: switches.disable("link\nmaintenance", since))
    assert stat("-p").splitlines() == [
        "sender of queue archive is not running",
        "queue archive is idle",
        "sender of queue backup is not running",
        "queue backup disabled since 2026-11-20 01:02:03 UTC - link%0Amaintenance",
    ]
    make_job(queue, state=State.ACTIVE)
    make_job(backup, state=State.ACTIVE)
    with queue.locked():
        out = stat("-p").splitlines()
    assert out[:2] == [
        "sender of queue archive is running",
        "queue archive is sending archive-1",
    ]
    assert out[3].endswith("; still sending backup-1")


def test_queues_accepting_and_not(stat: Stat, backup: Queue) -> None:
    since = datetime(2026, 11, 20, 1, 2, 3, tzinfo=UTC)
    backup.switch(lambda switches: switches.reject("", since))
    assert stat("-a").splitlines() == [
        "queue archive accepting jobs",
        "queue backup not accepting jobs since 2026-11-20 01:02:03 UTC - reason unknown",
    ]
    assert stat("-a", "-o", "archive") == "queue archive accepting jobs\n"


def test_summary_counts_jobs_and_bytes(
    stat: Stat, queue: Queue, backup: Queue, make_job: MakeJob
) -> None:
    for _ in range(3):
        make_job(queue, b"1234")
    make_job(backup, b"12", state=State.QUARANTINED)
    backup.switch(lambda switches: switches.disable("why", NOW))
    lines = [line.split() for line in stat("-s").splitlines()]
    assert lines[0] == "sender of queue archive is not running".split()
    assert lines[2][:3] == ["queue", "backup", "disabled"]
    assert lines[3:] == [
        ["queue", "state", "jobs", "bytes"],
        ["archive", "pending", "3", "12"],
        ["backup", "quarantined", "1", "2"],
    ]


def test_counts_that_are_not_of_this_moment_say_so(
    stat: Stat, queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "MANY", 1)
    make_job(queue, b"1234")
    make_job(queue, b"1234", state=State.HELD)
    make_job(queue, b"1234")
    at = datetime.now(UTC).replace(microsecond=0)
    assert [line.split() for line in stat("-s").splitlines()[-2:]] == [
        ["archive", "pending", "2", "-"],
        ["archive", "held", "1", "4"],
    ]
    queue.counter().look(at)
    make_job(queue, b"1234")
    head, pending, held = stat("-s", "--utc").splitlines()[-3:]
    assert head.split() == ["queue", "state", "jobs", "bytes", "as", "of"]
    assert pending.split()[:4] == ["archive", "pending", "2", "8"]
    assert pending.endswith(f"  {at:%Y-%m-%d %H:%M:%S} UTC")
    assert held.split() == ["archive", "held", "1", "4"]
    row = json.loads(stat("-s", "--json"))["queues"][0]
    assert (row["pending"], row["pending_bytes"]) == (2, 8)
    assert row["as_of"] == f"{at:%Y-%m-%dT%H:%M:%S}.000Z"


def test_everything_is_all_of_it(stat: Stat, queue: Queue, make_job: MakeJob) -> None:
    make_job(queue)
    out = stat("-t")
    for words in ("sender of queue", "is idle", "accepting jobs", "bytes", "0123.fits"):
        assert words in out


def test_jobs_of_a_queue_that_the_configuration_forgot_are_shown(
    stat: Stat, spool: Spool, make_job: MakeJob
) -> None:
    make_job(spool.queue("old"))
    assert stat.ids() == ["old-1"]
    assert stat.ids("-o", "old") == ["old-1"]


def test_queue_that_cannot_be_used_hides_no_other(
    stat: Stat, spool: Spool, queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue)
    (spool.root / "backup").write_text("not a directory")
    status, out, err = stat.fails()
    assert status == 1
    assert out.split()[0] == "archive-1"
    assert "queue backup cannot be set up" in err
    status, out, _ = stat.fails("--check")
    assert (status, out.count("\n")) == (1, 1)
    assert "backup cannot be set up" in out


# --- programs -----------------------------------------------------------------------------


def test_json_has_the_keys_that_the_page_promises(
    stat: Stat, queue: Queue, make_job: MakeJob
) -> None:
    known = make_job(queue, b"12345", name="\udcff\n", routing=Routing(priority=9, reason="x"))
    queue.switch(lambda switches: switches.disable("why", NOW))
    with queue.locked():
        found = json.loads(stat("--json"))
    assert list(found) == ["version", "jobs", "queues", "sender"]
    assert found["version"] == 1
    [row] = found["jobs"]
    assert list(row) == KEYS.split()
    assert row == {
        "id": "archive-1", "uid": known.uid, "queue": "archive", "state": "pending", "user": ME,
        "size": 5, "submitted": "2026-11-20T04:00:00.000Z", "name": "\udcff\n",
        "path": known.path, "priority": 9, "attempts": 0, "not_before": None, "reason": "x",
    }  # fmt: skip
    archive, backup = found["queues"]
    assert archive["name"] == "archive"
    assert (archive["state"], archive["enabled"], archive["enabled_reason"]) == (
        "disabled", False, "why",
    )  # fmt: skip
    assert (archive["pending"], archive["pending_bytes"]) == (1, 5)
    assert backup["accepting"] is True
    assert found["sender"] == {"running": False, "queues": {"archive": True, "backup": False}}


def test_json_has_null_for_what_is_not_known(stat: Stat, queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    (queue.root / "pending" / job / "control").write_text("torn")
    [row] = json.loads(stat("--json"))["jobs"]
    assert row["user"] == ME
    assert [row[key] for key in ("uid", "size", "name", "priority", "attempts")] == [None] * 5


def test_json_of_an_unknown_id_is_whole_and_the_status_is_1(stat: Stat) -> None:
    status, out, err = stat.fails("--json", "archive-9")
    assert status == 1
    assert json.loads(out)["jobs"] == []
    assert "archive-9" in err


# --- --check ------------------------------------------------------------------------------


def test_check_is_content_or_not_in_one_line(
    stat: Stat, queue: Queue, backup: Queue, make_job: MakeJob
) -> None:
    make_job(queue, submitted=datetime.now(UTC) - timedelta(hours=2))
    with queue.locked(), backup.locked():
        assert stat("--check") == (
            "OK - archive: 1 pending, 0 active, 0 held, 0 sent; "
            "backup: 0 pending, 0 active, 0 held, 0 sent\n"
        )
        assert stat("--check", "3h").startswith("OK - ")
        assert stat("--check", "30m", "-o", "backup").startswith("OK - backup: ")
        for words in (["--check", "30m"], ["--check=30m"]):
            status, out, err = stat.fails(*words)
            assert (status, err) == (1, "")
            assert re.fullmatch(
                r"CRITICAL - archive: the oldest job has waited for 2h( \d+[ms])?\n", out
            )
    status, out, _ = stat.fails("--check")
    assert status == 1
    assert out == (
        "CRITICAL - archive: the sender is not running; backup: the sender is not running\n"
    )


def test_check_of_no_duration_is_wrong_usage(stat: Stat) -> None:
    status, _, err = stat.fails("--check", "soon")
    assert status == 2
    assert "not a duration such as" in err


# --- --watch ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--json"], ["--check"]])
def test_watch_is_for_people(stat: Stat, words: list[str]) -> None:
    assert stat.fails("--watch", *words)[0] == 2


def test_watch_draws_until_interrupted(stat: Stat, queue: Queue, make_job: MakeJob) -> None:
    make_job(queue)
    main_fd, terminal = pty.openpty()
    code = "from lpxfer.cli.xfer_stat import main; main(prog_name='xfer-stat')"
    command = [sys.executable, "-c", code, "--config", str(stat.conf), "--watch"]
    with subprocess.Popen(command, stdout=terminal) as watch:
        os.close(terminal)
        shown = b""
        while shown.count(b"archive-1 ") < 2:
            shown += os.read(main_fd, 4096)
        make_job(queue)
        while b"archive-2 " not in shown:
            shown += os.read(main_fd, 4096)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 0
    os.close(main_fd)
    assert b"Traceback" not in shown


# --- a sender at work -----------------------------------------------------------------------


def test_job_that_was_committed_is_listed_like_any_other(
    stat: Stat, queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    with queue.claim(job) as opened:
        opened.note(START, NOW)
        opened.note(COMMIT, NOW)
    assert stat().split()[3] == "active"

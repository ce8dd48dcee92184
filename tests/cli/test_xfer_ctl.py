"""xfer-ctl, as a person uses it."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from arrivals import refuse
from click.testing import CliRunner

from lpxfer import durable
from lpxfer.cli import xfer_ctl, xfer_submit
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.formats.switches import Switches
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Queue, Spool

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ME = account(os.geteuid())
MakeJob = Callable[..., Control]


@dataclass
class Ctl:
    """The command, over a spool with the queues archive and backup."""

    conf: Path

    def __call__(self, *words: str, command: click.Command = xfer_ctl.main) -> tuple[int, str]:
        """Run it; return the exit status and the errors."""
        environ = {"XFER_CONF": str(self.conf)}
        result = CliRunner().invoke(command, words, env=environ, prog_name="xfer-ctl")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.exit_code or result.stdout == "", "what works is silent"
        return result.exit_code, result.stderr

    def works(self, *words: str) -> None:
        assert self(*words) == (0, "")


@pytest.fixture
def ctl(tmp_path: Path, spool: Spool) -> Ctl:
    conf = tmp_path / "lpxfer.conf"
    conf.write_text(f"[lpxfer]\nspool = {spool.root}\n[queue archive]\n[queue backup]\n")
    return Ctl(conf)


@pytest.fixture
def backup(spool: Spool) -> Queue:
    return spool.queue("backup")


@pytest.fixture
def job(queue: Queue, make_job: MakeJob) -> str:
    return make_job(queue).job


def routing(queue: Queue, job_id: str) -> Routing:
    with queue.open(job_id, queue.where(job_id) or State.PENDING) as job:
        return job.routing()


# --- jobs ---------------------------------------------------------------------------------


def test_job_is_held_and_released(ctl: Ctl, queue: Queue, job: str) -> None:
    ctl.works("hold", job)
    assert queue.where(job) is State.HELD
    assert routing(queue, job).reason == f"held by {ME}"
    ctl.works("hold", "-r", "wait for me", job)
    assert routing(queue, job).reason == "wait for me"
    ctl.works("release", job)
    assert queue.where(job) is State.PENDING
    assert routing(queue, job) == Routing()


@pytest.mark.parametrize("words", [["77", "archive-1"], ["archive-1", "77"]])
def test_priority_is_set(ctl: Ctl, queue: Queue, job: str, words: list[str]) -> None:
    ctl.works("priority", *words)
    assert routing(queue, job).priority == 77


@pytest.mark.parametrize("words", [["archive-1", "archive-2", "backup"], ["backup", "archive-1"]])
def test_jobs_are_moved(
    ctl: Ctl, queue: Queue, backup: Queue, make_job: MakeJob, words: list[str]
) -> None:
    jobs = {make_job(queue).job, make_job(queue).job}
    ctl.works("move", *words)
    moved = {entry.id for entry in backup.entries(State.PENDING)}
    assert moved == jobs & set(words)
    assert {entry.id for entry in queue.entries(State.PENDING)} == jobs - moved
    ctl.works("hold", *moved)
    assert {entry.id for entry in backup.entries(State.HELD)} == moved, "they keep their ids"


def test_failed_job_is_retried(ctl: Ctl, queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue, state=State.FAILED, routing=Routing(reason="x", stalls=3)).job
    ctl.works("retry", job)
    assert queue.where(job) is State.PENDING
    assert routing(queue, job) == Routing()


def test_unconfirmed_job_is_retried_after_the_queues_own_time(
    ctl: Ctl, queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue, state=State.SENT).job
    status, err = ctl("retry", job)
    assert status == 1
    assert "its receipt is not late yet" in err
    text = ctl.conf.read_text()
    ctl.conf.write_text(text.replace("[queue archive]", "[queue archive]\nunconfirmed = 0"))
    ctl.works("retry", job)
    assert queue.where(job) is State.PENDING


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["hold"], 2, "Missing argument"),
        (["hold", "archive-9"], 1, 'there is no job "archive-9"'),
        (["hold", "archive"], 1, '"archive" is not a request id'),
        (["release", "archive-1"], 1, "archive-1 is pending; this is for jobs that are held"),
        (["priority", "archive-1"], 2, "give one priority from 1 to 100, and request ids"),
        (["priority", "5"], 2, "give one priority from 1 to 100, and request ids"),
        (["priority", "0", "archive-1"], 2, "a priority is a number from 1 to 100"),
        (["priority", "101", "archive-1"], 2, "a priority is a number from 1 to 100"),
        (["priority", "5", "6", "archive-1"], 2, "give one priority"),
        (["move", "archive-1"], 2, "give request ids and one queue"),
        (["move", "archive", "backup"], 2, "give request ids and one queue"),
        (["move", "archive-1", "nosuch"], 2, 'there is no queue "nosuch"'),
        (["move", "archive-1", "archive"], 1, "archive-1 is in queue archive already"),
        (["disable", "nosuch"], 2, 'there is no queue "nosuch"; known: archive, backup'),
        (["purge", "nosuch"], 2, 'there is no queue "nosuch"'),
        (["nosuch"], 2, "No such command"),
        (["--config", "/nonexistent", "hold", "archive-1"], 2, "no such configuration file"),
        (["hold", "--config", "/nonexistent", "archive-1"], 2, "no such configuration file"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_cannot_be_done_is_said_and_not_done(
    ctl: Ctl, queue: Queue, job: str, words: list[str], status: int, said: str
) -> None:
    code, err = ctl(*words)
    assert code == status
    assert said in err
    assert "Traceback" not in err
    assert queue.where(job) is State.PENDING
    assert routing(queue, job) == Routing()


def test_one_that_is_refused_keeps_no_other(ctl: Ctl, queue: Queue, make_job: MakeJob) -> None:
    sent, job = make_job(queue, state=State.SENT).job, make_job(queue).job
    assert ctl("hold", sent, "archive-9", job) == (
        1,
        f"xfer-ctl: Error - {sent}: too late: sent\n"
        'xfer-ctl: Error - there is no job "archive-9"\n',
    )
    assert queue.where(job) is State.HELD


def test_job_is_not_moved_to_a_queue_that_takes_none(
    ctl: Ctl, queue: Queue, backup: Queue, job: str
) -> None:
    backup.switch(lambda switches: switches.reject("disk is full", NOW))
    assert ctl("move", job, "backup") == (
        1,
        'xfer-ctl: Error - queue "backup" is not accepting jobs: disk is full\n',
    )
    assert queue.where(job) is State.PENDING


def test_job_with_a_damaged_routing_is_reported_by_its_id(ctl: Ctl, queue: Queue, job: str) -> None:
    (queue.root / "pending" / job / "routing").write_text("x")
    assert ctl("hold", job) == (1, f"xfer-ctl: Error - {job}: torn: no end line\n")


# --- queues -------------------------------------------------------------------------------


def test_queues_are_disabled_and_enabled(ctl: Ctl, queue: Queue, backup: Queue) -> None:
    ctl.works("disable", "-r", "link maintenance", "archive", "backup")
    for switches in (queue.switches(), backup.switches()):
        assert (switches.enabled, switches.enabled_reason) == (False, "link maintenance")
        assert switches.accepting
        assert switches.enabled_since
    ctl.works("enable", "archive")
    assert queue.switches() == Switches()
    assert not backup.switches().enabled


def test_rejecting_queue_refuses_a_submit_with_the_reason(
    ctl: Ctl, queue: Queue, tmp_path: Path
) -> None:
    file = tmp_path / "x.fits"
    file.write_bytes(b"x")
    submit = ["-s", "-d", "archive", str(file)]
    ctl.works("reject", "archive", "-r", "disk is full")
    status, err = ctl(*submit, command=xfer_submit.main)
    assert status == 1
    assert 'queue "archive" is not accepting jobs: disk is full' in err
    ctl.works("accept", "archive")
    assert ctl(*submit, command=xfer_submit.main) == (0, "")
    assert len(queue.entries(State.PENDING)) == 1


def test_reason_is_who_did_it_when_none_is_given(ctl: Ctl, queue: Queue) -> None:
    ctl.works("disable", "archive")
    ctl.works("reject", "archive")
    assert queue.switches().enabled_reason == queue.switches().accepting_reason == f"by {ME}"


def test_purge_withdraws_what_was_set_aside_and_nothing_else(
    ctl: Ctl, queue: Queue, backup: Queue, make_job: MakeJob
) -> None:
    states = [State.FAILED, State.QUARANTINED, State.PENDING, State.HELD, State.SENT, State.FAILED]
    jobs = [make_job(queue, state=state).job for state in states]
    other = make_job(backup, state=State.FAILED).job
    (queue.root / "quarantine" / jobs[1] / "control").write_text("torn")
    ctl.works("purge", "archive", "-r", "old tests")
    left = {entry.id for state in State for entry in queue.entries(state)}
    assert left == set(jobs[2:5])
    assert backup.where(other) is State.FAILED
    reasons = {line.fields["job"]: line.fields["reason"] for line in queue.log()}
    assert reasons == dict.fromkeys((jobs[0], jobs[1], jobs[5]), f"purged by {ME}: old tests")


def test_purge_leaves_a_job_that_is_retried_meanwhile(
    ctl: Ctl, queue: Queue, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job(queue, state=State.FAILED).job for _ in range(2)]
    real = xfer_ctl.withdraw

    def withdraw(*words: object) -> None:
        if queue.where(jobs[1]) is State.FAILED:
            queue.move(jobs[1], State.FAILED, State.PENDING)
        real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(xfer_ctl, "withdraw", withdraw)
    ctl.works("purge", "archive")
    assert queue.outcome(jobs[0]) is State.CANCELED
    assert queue.where(jobs[1]) is State.PENDING


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 75), (errno.EIO, 1)])
def test_a_full_spool_is_for_later_and_a_broken_one_is_not(
    ctl: Ctl, job: str, monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    monkeypatch.setattr(durable, "replace", refuse(code))
    ended, said = ctl("hold", job)
    assert ended == status
    assert f"{job}: the spool failed: {os.strerror(code)}" in said
    assert ("make room" in said) == (status == 75)


# --- pacing -------------------------------------------------------------------------------

TRACE = """\
# a file on a busy link
2026-11-20T04:00:00.000Z pace waiting=5000000 rate=0 delay=0.150
2026-11-20T04:00:00.500Z pace waiting=20480 rate=5.00 delay=0.150 oldest=0.1
2026-11-20T04:00:01.200Z pace waiting=40960 rate=5.00 delay=0.150 oldest=0.8
2026-11-20T04:00:01.300Z pace waiting=0 rate=5.00 delay=0.150
"""


def replay(trace: str, *words: str) -> tuple[int, str, str]:
    words = ("pace", "--replay", "-", *words)
    result = CliRunner().invoke(xfer_ctl.main, words, input=trace, prog_name="xfer-ctl")
    return result.exit_code, result.stdout, result.stderr


def test_replay_of_a_trace_prints_what_is_decided() -> None:
    status, out, err = replay(TRACE)
    assert (status, err) == (0, "")
    header, *lines = out.splitlines()
    assert header.split() == "seconds waiting active MB/s +/- delay period decision".split()
    assert lines[1].split() == "0.500 20480 1 5.00 0.00 0.150 1.200 wait 0.700: gather".split()
    said = [line.rpartition("1.200  ")[2] for line in lines]
    assert said == ["send: free", "wait 0.700: gather", "send: due", "wait: nothing"]


def test_replay_as_json_has_flat_rows() -> None:
    status, out, _ = replay(TRACE, "--json")
    found = json.loads(out)
    assert (status, found["version"]) == (0, 1)
    row = found["decisions"][1]
    assert (row["time"], row["send"], row["reason"]) == (
        "2026-11-20T04:00:00.500Z",
        False,
        "gather",
    )
    assert (row["wait"], row["period"], row["mean"]) == (0.7, 1.2, 5_000_000)
    assert found["decisions"][3]["wait"] is None


def test_replay_needs_neither_a_spool_nor_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XFER_CONF", str(tmp_path / "none"))
    trace = tmp_path / "trace"
    trace.write_text(TRACE)
    words = ["pace", "--replay", str(trace)]
    assert CliRunner().invoke(xfer_ctl.main, words).exit_code == 0


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_trace_that_is_wrong_is_named_with_its_line(words: tuple[str, ...]) -> None:
    status, _, err = replay(TRACE + "nonsense\n", *words)
    assert (status, err) == (1, "xfer-ctl: Error - -: line 6: not a record\n")


def test_trace_that_is_missing_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        xfer_ctl.main, ["pace", "--replay", f"{tmp_path}/x"], prog_name="xfer-ctl"
    )
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr

"""xfer-cancel, as a person uses it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from played_sender import PlayedSender

from lpxfer.cli.xfer_cancel import main
from lpxfer.formats.attempts import COMMIT
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Queue, Spool

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ME = account(os.geteuid())
MakeJob = Callable[..., Control]


@dataclass
class Cancel:
    """The command, over a spool with the queues archive and backup."""

    spool: Spool
    conf: Path

    def __call__(self, *words: str) -> tuple[int, str]:
        """Run it; return the exit status and what it printed."""
        words = ("--config", str(self.conf), *words)
        result = CliRunner().invoke(main, words, prog_name="xfer-cancel")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.stdout == "", "cancel is silent"
        return result.exit_code, result.stderr

    def left(self) -> list[str]:
        """Return the jobs that are not finished."""
        queues = [self.spool.queue(name) for name in ("archive", "backup")]
        return sorted(
            entry.id
            for queue in queues
            for state in State
            if state.directory != "done"
            for entry in queue.entries(state)
        )


@pytest.fixture
def cancel(tmp_path: Path, spool: Spool) -> Cancel:
    conf = tmp_path / "lpxfer.conf"
    conf.write_text(f"[lpxfer]\nspool = {spool.root}\n[queue archive]\n[queue backup]\n")
    return Cancel(spool, conf)


@pytest.fixture
def jobs(spool: Spool, make_job: MakeJob) -> list[str]:
    """archive-1 pending, archive-2 held, archive-3 sent, backup-1 failed."""
    archive, backup = spool.queue("archive"), spool.queue("backup")
    return [
        make_job(archive).job,
        make_job(archive, state=State.HELD).job,
        make_job(archive, state=State.SENT).job,
        make_job(backup, state=State.FAILED).job,
    ]


def test_jobs_are_withdrawn_in_silence(cancel: Cancel, jobs: list[str], queue: Queue) -> None:
    assert cancel("archive-1", "backup-1") == (0, "")
    assert cancel.left() == ["archive-2", "archive-3"]
    [line] = queue.log()
    assert (line.kind, line.fields["reason"]) == ("canceled", f"canceled by {ME}")


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["-a"], ["archive-3"]),
        (["-a", "archive"], ["archive-3", "backup-1"]),
        (["-a", "backup"], ["archive-1", "archive-2", "archive-3"]),
        (["-u", ME], ["archive-3"]),
        (["-a", "archive", "-u", ME], ["archive-3", "backup-1"]),
        (["-u", str(os.geteuid()), "-a"], ["archive-3"]),
        (["-u", "54321"], ["archive-1", "archive-2", "archive-3", "backup-1"]),
    ],
    ids=" ".join,
)
def test_many_jobs_are_chosen_as_cancel_does(
    cancel: Cancel, jobs: list[str], words: list[str], left: list[str]
) -> None:
    assert cancel(*words) == (0, "")
    assert cancel.left() == left


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "give request ids, or -a, or -u USER"),
        (["-a", "archive", "archive-1"], 2, "give request ids, or -a, or -u USER"),
        (["-u", ME, "archive-1"], 2, "give request ids, or -a, or -u USER"),
        (["-a", "nosuch"], 2, 'there is no queue "nosuch"'),
        (["-u", "nobody_at_all"], 1, 'there is no user "nobody_at_all"'),
        (["archive-9"], 1, 'there is no job "archive-9"'),
        (["archive"], 1, '"archive" is not a request id such as archive-1042'),
        (["archive-3"], 1, "archive-3: too late: sent"),
    ],
)
def test_what_cannot_be_done_is_said_and_not_done(
    cancel: Cancel, jobs: list[str], words: list[str], status: int, said: str
) -> None:
    code, err = cancel(*words)
    assert code == status
    assert err.startswith("xfer-cancel: Error - ")
    assert said in err
    assert cancel.left() == jobs


def test_one_that_is_too_late_keeps_no_other(cancel: Cancel, jobs: list[str]) -> None:
    assert cancel("archive-3", "archive-1") == (
        1,
        "xfer-cancel: Error - archive-3: too late: sent\n",
    )
    assert cancel.left() == ["archive-2", "archive-3", "backup-1"]


def test_job_that_was_committed_is_not_said_to_be_canceled(
    cancel: Cancel, jobs: list[str], queue: Queue
) -> None:
    with queue.still("archive-1", State.PENDING) as job:
        job.note(COMMIT, NOW)
    assert cancel("archive-1") == (
        1,
        "xfer-cancel: Error - too late: archive-1 may already be at the archive site; "
        "xfer-send finds out\n",
    )


def test_active_job_is_canceled_with_and_without_a_sender(
    cancel: Cancel, queue: Queue, make_job: MakeJob
) -> None:
    sending, orphan = make_job(queue).job, make_job(queue, state=State.ACTIVE).job
    with PlayedSender(queue.root, queue.name, sending):
        assert cancel(sending) == (0, "")
    assert cancel(orphan) == (0, "")
    assert cancel.left() == []
    assert cancel(orphan) == (1, f"xfer-cancel: Error - {orphan} is canceled already\n")


def test_job_in_a_queue_that_the_configuration_forgot_can_be_canceled(
    cancel: Cancel, spool: Spool, make_job: MakeJob
) -> None:
    old = spool.queue("old")
    jobs = [make_job(old).job for _ in range(2)]
    assert cancel(jobs[0]) == (0, "")
    assert cancel("-a", "old") == (0, "")
    assert old.entries(State.PENDING) == []


def test_message_about_a_hostile_name_is_printable(cancel: Cancel) -> None:
    status, err = cancel("x\x1b[2J\ny")
    assert status == 1
    assert "\x1b" not in err
    assert err.count("\n") == 1

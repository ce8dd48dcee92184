"""The cancel step: at every moment of a send the user is told the truth."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from played_sender import PlayedSender

from lpxfer.errors import PermanentError
from lpxfer.formats.attempts import COMMIT, START
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.steps.cancel import ASIDE, cancel, selected, withdraw
from lpxfer.steps.send import Sender
from lpxfer.stores.spool import Queue

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MakeJob = Callable[..., Control]


def kinds(queue: Queue) -> dict[str, list[str]]:
    """Return what the finished log says of each job."""
    found: dict[str, list[str]] = {}
    for line in queue.log():
        found.setdefault(line.fields["job"], []).append(line.kind)
    return found


@pytest.mark.parametrize(
    "state", [State.PENDING, State.HELD, State.FAILED, State.QUARANTINED, State.ACTIVE]
)
def test_job_that_is_not_sent_is_withdrawn(queue: Queue, make_job: MakeJob, state: State) -> None:
    known = make_job(queue, state=state)
    cancel(queue, known.job, "by me", NOW)
    [line] = queue.log()
    assert (line.kind, line.fields["uid"], line.fields["reason"]) == (
        "canceled",
        known.uid,
        "by me",
    )
    assert queue.where(known.job) is None


@pytest.mark.parametrize("state", [State.SENT, State.COMPLETED, State.CANCELED])
def test_too_late_is_said(queue: Queue, make_job: MakeJob, state: State) -> None:
    job = make_job(queue, state=State.SENT).job
    if state is not State.SENT:
        queue.finish(job, State.SENT, state, "", NOW)
    before = kinds(queue)
    words = {
        State.SENT: "archive-1: too late: sent",
        State.COMPLETED: "archive-1: too late: completed",
        State.CANCELED: "archive-1 is canceled already",
    }
    with pytest.raises(PermanentError, match=f"^{words[state]}$"):
        cancel(queue, job, "", NOW)
    assert kinds(queue) == before


def test_job_that_nobody_knows_is_said_to_be_none(queue: Queue) -> None:
    with pytest.raises(PermanentError, match='there is no job "archive-9"'):
        cancel(queue, "archive-9", "", NOW)


def test_active_job_is_canceled_by_its_sender(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    with PlayedSender(queue.root, queue.name, job):
        cancel(queue, job, "", NOW)
    assert kinds(queue) == {job: ["canceled"]}


@pytest.mark.parametrize(
    ("word", "said", "state"),
    [("commit", "archive-1: too late: sent", State.SENT),
     ("lose", "too late: archive-1 may already be at the archive site", State.PENDING)],
)  # fmt: skip
def test_sender_that_was_faster_is_believed(
    queue: Queue, make_job: MakeJob, word: str, said: str, state: State
) -> None:
    job = make_job(queue).job
    with PlayedSender(queue.root, queue.name, job, obedient=False) as sender:
        faster = threading.Timer(0.1, sender.tell, [word])
        faster.start()
        with pytest.raises(PermanentError, match=said):
            cancel(queue, job, "", NOW)
        faster.join()
    assert queue.where(job) is state
    assert kinds(queue) == {}


def test_sender_that_dies_leaves_the_rest_to_the_command(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue).job
    with PlayedSender(queue.root, queue.name, job, obedient=False) as sender:
        dies = threading.Timer(0.1, sender.tell, ["die"])
        dies.start()
        cancel(queue, job, "", NOW)
        dies.join()
    assert kinds(queue) == {job: ["canceled"]}


@pytest.mark.parametrize("state", [State.PENDING, State.HELD, State.ACTIVE])
def test_job_that_was_committed_is_never_said_to_be_canceled(
    queue: Queue, make_job: MakeJob, state: State
) -> None:
    job = make_job(queue, state=state).job
    with queue.open(job, state) as opened:
        opened.note(START, NOW)
        opened.note(COMMIT, NOW)
    with pytest.raises(PermanentError, match="may already be at the archive site") as error:
        cancel(queue, job, "", NOW)
    assert ("release it" in str(error.value)) is (state is State.HELD)
    assert queue.where(job) in (state, State.PENDING)
    assert kinds(queue) == {}


@pytest.mark.parametrize("state", ASIDE)
def test_job_set_aside_after_a_commit_is_withdrawn_with_a_remark(
    queue: Queue, make_job: MakeJob, state: State
) -> None:
    job = make_job(queue, state=state).job
    with queue.open(job, state) as opened:
        opened.note(COMMIT, NOW)
    cancel(queue, job, "by me", NOW)
    [line] = queue.log()
    assert line.fields["reason"] == "by me; it may be at the archive site"


def test_quarantined_job_with_hostile_attempts_is_withdrawn(
    queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue, state=State.QUARANTINED).job
    (queue.root / "quarantine" / job / "attempts").symlink_to("/etc/passwd")
    cancel(queue, job, "", NOW)
    assert kinds(queue) == {job: ["canceled"]}


def test_withdrawing_from_a_state_leaves_a_job_that_has_left_it(
    queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    with pytest.raises(FileNotFoundError):
        withdraw(queue, job, State.FAILED, "", NOW)
    assert queue.where(job) is State.PENDING


def test_selected_are_the_jobs_that_are_not_too_late(queue: Queue, make_job: MakeJob) -> None:
    jobs = {state: make_job(queue, state=state).job for state in
            (State.PENDING, State.SENT, State.FAILED, State.HELD)}  # fmt: skip
    assert {job for job, _ in selected(queue)} == set(jobs.values()) - {jobs[State.SENT]}
    assert list(selected(queue, ASIDE)) == [(jobs[State.FAILED], State.FAILED)]
    mine = (queue.root / "pending").stat().st_uid
    assert len(list(selected(queue, uid=mine))) == 3
    assert not list(selected(queue, uid=mine + 1))


# --- beside the real sender -----------------------------------------------------------------


@dataclass
class Running:
    """The real sender in a thread, over a directory as its archive site."""

    queue: Queue
    incoming: Path

    def __post_init__(self) -> None:
        self.incoming.mkdir()
        settings = QueueConfig("archive", transport="local", rempath=str(self.incoming))
        sender = Sender(
            self.queue,
            settings,
            "tester",
            lambda *_: 0,
            lambda *_: False,
            lambda _: None,
            lambda: datetime.now(UTC),
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=sender.serve, args=(self.stop, lambda: None))

    def __enter__(self) -> "Running":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def test_cancel_at_any_moment_of_a_real_send_tells_the_truth(
    queue: Queue, make_job: MakeJob, tmp_path: Path
) -> None:
    own = Queue(queue.root, queue.name)
    said: dict[str, bool] = {}
    delay = 0.005  # grows and shrinks towards the instant at which it becomes too late
    with Running(own, tmp_path / "incoming") as sender:
        while len(said) < 25 or len(set(said.values())) < 2:
            assert sender.thread.is_alive()
            known = make_job(queue, b"x" * 2_000_000)
            time.sleep(delay)
            try:
                cancel(queue, known.job, "", NOW)
                said[known.uid] = True
                delay *= 1.3
            except PermanentError as error:
                assert "too late" in str(error)
                said[known.uid] = False
                delay *= 0.7
    own.close()
    arrived = {path.name.removesuffix(".control") for path in sender.incoming.glob("*.control")}
    assert arrived == {uid for uid, canceled in said.items() if not canceled}
    canceled = {line.fields["uid"] for line in queue.log()}
    assert canceled == {uid for uid, canceled in said.items() if canceled}

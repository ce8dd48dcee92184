"""Entries under another job's id, made by hand: nothing is lost, and nobody is stopped."""

import errno
import os
from pathlib import Path

import pytest
from stores.test_spool import NOW, MakeJob, outcomes

from lpxfer import durable
from lpxfer.formats.job import State
from lpxfer.stores import aside
from lpxfer.stores.spool import Queue


def squat(queue: Queue, state: str, name: str) -> Path:
    path = queue.root / state / name
    path.mkdir()
    (path / "x").touch()
    return path


@pytest.mark.parametrize("kind", ["directory", "file", "FIFO"])
def test_claim_passes_what_stands_in_active_under_the_jobs_id(
    queue: Queue, make_job: MakeJob, kind: str
) -> None:
    job = make_job(queue).job
    path = queue.root / "active" / job
    {"directory": path.mkdir, "file": path.touch, "FIFO": lambda: os.mkfifo(path)}[kind]()
    if kind == "directory":
        (path / "x").touch()
    with queue.claim(job) as opened:
        assert opened.control().job == job
    assert len(list(path.parent.iterdir())) == 2, "nothing was removed"


def test_job_is_finished_past_what_stands_in_done_under_its_id(
    queue: Queue, make_job: MakeJob
) -> None:
    job = make_job(queue).job
    squat(queue, "done", job)
    queue.finish(job, State.PENDING, State.COMPLETED, "stored", NOW)
    assert outcomes(queue, job) == ["completed"]


def test_of_two_jobs_of_one_id_each_is_sent_when_the_name_is_free(
    queue: Queue, make_job: MakeJob
) -> None:
    mine, theirs = make_job(queue, b"mine"), make_job(queue, b"theirs")
    (queue.root / "pending" / theirs.job).rename(queue.root / "active" / mine.job)
    queue.recover(NOW)
    assert (queue.root / f"pending/{mine.job}/data").read_bytes() == b"mine"
    queue.claim(mine.job).close()
    queue.move(mine.job, State.ACTIVE, State.SENT)
    queue.recover(NOW)
    assert (queue.root / f"pending/{mine.job}/data").read_bytes() == b"theirs"
    assert (queue.root / f"sent/{mine.job}/data").read_bytes() == b"mine"


def test_what_a_member_made_by_hand_stops_no_recovery(queue: Queue, make_job: MakeJob) -> None:
    job = make_job(queue, state=State.ACTIVE).job
    for state in ("tmp", "done"):
        path = queue.root / state / "archive-77"
        for name in ["data", *("d/" * depth + "x" for depth in range(1, 20))]:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).touch()
    queue.recover(NOW)
    assert queue.where(job) is State.PENDING


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EMFILE])
def test_failing_disk_is_no_members_work(code: int) -> None:
    with pytest.raises(OSError), aside.past():
        raise OSError(code, os.strerror(code))


def test_who_is_quicker_again_and_again_is_left_beside(tmp_path: Path) -> None:
    for name in ("src/a", "dst"):
        (tmp_path / name).mkdir(parents=True)

    def taken(name: str, src: int, dst: int, new_name: str) -> None:
        if new_name == "a":
            raise OSError(errno.ENOTEMPTY, "taken")
        durable.rename_unsynced(name, src, dst, new_name)

    with durable.opened_dir(tmp_path / "src") as src, durable.opened_dir(tmp_path / "dst") as dst:
        aside.move(taken, "a", src, dst, gives_way=True)
        [left] = os.listdir(dst)
        assert left.startswith(".a.") and left.endswith(".aside")

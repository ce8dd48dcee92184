"""One job's directory: what is read from it, and what is not believed."""

import os
import pwd
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from traced import trace

from lpxfer.errors import FormatError
from lpxfer.formats import keyvalue
from lpxfer.formats.attempts import ACKED, COMMIT, CONTROL, END, START, Attempts
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.formats.ranges import Ranges
from lpxfer.stores.job_dir import ATTEMPTS_LIMIT, CANCEL, HOLD, JobDir, account
from lpxfer.stores.spool import Queue

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def known(queue: Queue, make_job: Callable[..., Control]) -> Control:
    return make_job(queue, b"data")


@pytest.fixture
def job(queue: Queue, known: Control) -> Iterator[JobDir]:
    with queue.open(known.job, State.PENDING) as job:
        yield job


@pytest.fixture
def inside(queue: Queue, job: JobDir) -> Path:
    """The job's directory, for who puts something into it by hand."""
    return queue.root / "pending" / job.id


# --- a job in order -----------------------------------------------------------------------


def test_job_as_it_was_submitted_is_in_order(job: JobDir, known: Control) -> None:
    assert job.check(links=False) == known == job.control()


def test_job_of_an_account_that_was_renamed_is_in_order(
    queue: Queue, make_job: Callable[..., Control], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender remembers names for as long as they fit."""
    account(os.geteuid())
    status = pwd.struct_passwd(("renamed", "x", 0, 0, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: status)
    try:
        job_id = make_job(queue, user="renamed").job
        with queue.open(job_id, State.PENDING) as job:
            assert job.check(links=False).user == "renamed"
    finally:
        monkeypatch.undo()
        account(os.geteuid(), afresh=True)


def test_job_with_all_its_files_is_in_order(job: JobDir, inside: Path) -> None:
    job.set_routing(Routing(priority=3))
    job.note(START, NOW)
    job.set_request(HOLD)
    (inside / ".routing.new").write_text("left by a process that died here")
    assert job.check(links=False).size == 4


def test_request_that_is_taken_back_meanwhile_is_no_fault(
    job: JobDir, known: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda fd: [*real(fd), "request"])
    assert job.check(links=False) == known


def replaced_by_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def replaced_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replaced_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def hard_linked(path: Path) -> None:
    os.link(path, path.parent.parent / "elsewhere")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x" * keyvalue.LIMIT)


def removed(path: Path) -> None:
    path.unlink()


HARMS = [replaced_by_link, replaced_by_fifo, replaced_by_directory, hard_linked, cut, grown,
         removed]  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["control", "data"])
def test_job_with_a_harmed_file_is_refused(
    job: JobDir, inside: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(inside / name)
    with pytest.raises(FormatError):
        job.check(links=False)


@pytest.mark.parametrize("name", ["routing", "attempts", "request", ".routing.new"])
@pytest.mark.parametrize("harm", HARMS[:4])
def test_harmed_file_that_need_not_be_there_is_refused_too(
    job: JobDir, inside: Path, name: str, harm: Callable[[Path], None]
) -> None:
    (inside / name).write_bytes(keyvalue.dump([]))
    harm(inside / name)
    with pytest.raises(FormatError):
        job.check(links=False)


def test_damaged_routing_is_refused(job: JobDir, inside: Path) -> None:
    (inside / "routing").write_text("priority=50\n")
    with pytest.raises(FormatError, match="torn"):
        job.check(links=False)
    assert job.routing_or_default() == Routing()


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "data.part", ".new.data", "core"])
def test_file_that_does_not_belong_there_is_refused(job: JobDir, inside: Path, name: str) -> None:
    (inside / name).write_text("x")
    with pytest.raises(FormatError, match="does not belong"):
        job.check(links=False)


def test_control_file_of_another_job_is_refused(
    queue: Queue, job: JobDir, inside: Path, make_job: Callable[..., Control]
) -> None:
    other = make_job(queue, b"data")
    (inside / "control").write_bytes((inside.parent / other.job / "control").read_bytes())
    with pytest.raises(FormatError, match=other.job):
        job.check(links=False)


def test_control_file_that_names_another_user_is_refused(
    queue: Queue, make_job: Callable[..., Control]
) -> None:
    forged = make_job(queue, user="somebody_else")
    with queue.open(forged.job, State.PENDING) as job:
        with pytest.raises(FormatError, match="somebody_else"):
            job.check(links=False)


def test_linked_data_is_in_order_where_the_queue_allows_links(job: JobDir, inside: Path) -> None:
    hard_linked(inside / "data")
    assert job.check(links=True)
    hard_linked_control = inside / "control"
    os.link(hard_linked_control, inside.parent / "another")
    with pytest.raises(FormatError, match="control is a hard link"):
        job.check(links=True)


@pytest.mark.root
@pytest.mark.parametrize("name", ["control", "data"])
def test_file_of_another_user_than_the_job_is_refused(job: JobDir, inside: Path, name: str) -> None:
    os.chown(inside / name, 65534, 65534)
    with pytest.raises(FormatError, match="another user"):
        job.check(links=False)


def test_data_that_is_a_link_is_not_opened(job: JobDir, inside: Path) -> None:
    replaced_by_link(inside / "data")
    with pytest.raises(FormatError), job.opened_data():
        pass


# --- routing, request -----------------------------------------------------------------------


def test_routing_comes_back_as_it_was_set(job: JobDir) -> None:
    assert job.routing() == Routing()
    routing = Routing("h", "/p", "u", "file:/f", 7, NOW, "why\nnot", 2, 1, 3, State.CANCELED)
    job.set_routing(routing)
    assert job.routing() == routing
    job.set_routing(Routing())
    assert job.routing() == Routing()


def test_routing_is_the_old_or_the_new_after_a_crash(
    job: JobDir, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.set_routing(Routing(priority=1))

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", crash)
        job.set_routing(Routing(priority=2))
    assert job.routing() == Routing(priority=1)
    job.set_routing(Routing(priority=3))
    assert job.routing() == Routing(priority=3)
    assert sorted(os.listdir(inside)) == ["control", "data", "routing"]


def test_request_is_left_changed_and_taken_away(job: JobDir) -> None:
    assert job.request() is None
    for word in (CANCEL, HOLD):
        job.set_request(word)
        assert job.request() == word
    job.set_request(None)
    job.set_request(None)
    assert job.request() is None


def test_request_that_no_command_of_ours_has_left_asks_for_nothing(job: JobDir) -> None:
    for odd in (b"x" * 17, b"cancel\0", b""):
        fd = os.open("request", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=job.fd)
        os.write(fd, odd)
        os.close(fd)
        assert job.request() is None
    os.unlink("request", dir_fd=job.fd)
    os.mkfifo("request", dir_fd=job.fd)
    assert job.request() is None


@pytest.mark.parametrize("text", [b"", b"remove\n", b"\xff\n"])
def test_request_that_is_none_is_passed_over(job: JobDir, inside: Path, text: bytes) -> None:
    (inside / "request").write_bytes(text)
    assert job.request() is None


# --- attempts -----------------------------------------------------------------------------


def test_attempts_add_up(job: JobDir) -> None:
    assert job.attempts() == Attempts()
    job.note(START, NOW)
    job.note(ACKED, NOW, acked="3", seconds="1.5")
    job.note(END, NOW, seconds="0.5", reason="a reason with blanks")
    job.note(START, NOW)
    assert job.attempts() == Attempts(2, Ranges((0, 3)), 2.0, False, False, NOW)
    job.note(ACKED, NOW, acked="4")
    job.note(COMMIT, NOW, sync=True)
    assert job.attempts() == Attempts(2, Ranges((0, 4)), 2.0, True, True, NOW)


def test_what_several_connections_have_carried_adds_up(job: JobDir) -> None:
    job.note(START, NOW)
    job.note(ACKED, NOW, acked="3", also="5-9,20-30")
    assert job.attempts().done == Ranges((0, 3), (5, 9), (20, 30))
    job.note(ACKED, NOW, acked="9", also="nonsense")  # a line that makes no sense says nothing
    job.note(END, NOW)
    assert job.attempts().done == Ranges((0, 3), (5, 9), (20, 30))
    job.note(ACKED, NOW, acked="0")
    assert not job.attempts().done


def test_data_that_was_written_after_the_control_file_may_have_changed(
    job: JobDir, inside: Path
) -> None:
    time.sleep(0.02)  # some kernels' clocks for files tick slowly
    os.utime(inside / "control")
    with job.opened_data() as fd:
        assert not job.may_have_changed(fd)
        os.link(inside / "data", inside / "another name")
        assert job.may_have_changed(fd)
        os.unlink(inside / "another name")
        assert job.may_have_changed(fd), "its ctime says that there was something"


def test_commit_that_is_noted_durably_survives_with_its_name(
    job: JobDir, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.note(START, NOW)
    calls = trace(monkeypatch, inside)
    job.note(COMMIT, NOW, sync=True)
    assert calls == ["write attempts", "fsync attempts", "fsync ."]


@pytest.mark.parametrize("torn", [b"2026-11-20T12", b"2026-11-20T12:00:00.000Z ack", b"\xff\xfe"])
def test_torn_line_spoils_only_itself(job: JobDir, inside: Path, torn: bytes) -> None:
    job.note(START, NOW)
    with (inside / "attempts").open("ab") as attempts:
        attempts.write(torn)
    assert job.attempts().count == 1
    job.note(COMMIT, NOW)
    assert job.attempts().committing


@pytest.mark.parametrize(
    "fields",
    ["acked=-5", "acked=1_0", "acked=\u0661", "acked=" + "9" * 30, "acked=x",
     "seconds=nan", "seconds=inf", "seconds=-1", "seconds=1e9"],
)  # fmt: skip
def test_hostile_line_counts_for_nothing(job: JobDir, inside: Path, fields: str) -> None:
    job.note(START, NOW)
    job.note(ACKED, NOW, acked="2", seconds="1")
    before = job.attempts()
    with (inside / "attempts").open("ab") as attempts:
        attempts.write(f"2026-11-20T12:00:00.000Z start {fields}\n".encode())
    assert job.attempts() == before


def test_endless_attempts_are_refused(job: JobDir, inside: Path) -> None:
    job.note(START, NOW)
    os.truncate(inside / "attempts", ATTEMPTS_LIMIT + 1)
    with pytest.raises(FormatError, match="longer"):
        job.attempts()


@pytest.mark.parametrize(
    ("lines", "may_be_there"),
    [
        ([(COMMIT, {})], True),
        ([(COMMIT, {}), (START, {}), (END, {"reason": "incoming is not mounted"})], True),
        ([(COMMIT, {}), (START, {}), (ACKED, {"acked": "3"})], False),
        ([(COMMIT, {}), (START, {}), (CONTROL, {})], False),
        ([(COMMIT, {}), (END, {"acked": "0", "reason": "mismatch"})], False),
        ([(COMMIT, {}), (START, {}), (CONTROL, {}), (COMMIT, {})], True),
    ],
)
def test_job_that_was_committed_may_be_there_until_it_was_looked_for_in_vain(
    job: JobDir, lines: list[tuple[str, dict[str, str]]], may_be_there: bool
) -> None:
    """A later attempt that came to nothing has shown nothing: incoming may have been away."""
    for kind, fields in lines:
        job.note(kind, NOW, **fields)
    assert job.attempts().committing == may_be_there


@pytest.mark.parametrize("kind", ["link", "FIFO", "directory"])
def test_nothing_is_noted_in_what_is_no_attempts_file(
    job: JobDir, inside: Path, tmp_path: Path, kind: str
) -> None:
    path, outside = inside / "attempts", tmp_path / "outside"
    outside.write_text("as it was")
    {
        "link": lambda: path.symlink_to(outside),
        "FIFO": lambda: os.mkfifo(path),
        "directory": path.mkdir,
    }[kind]()
    with pytest.raises(FormatError):
        job.note(START, NOW, sync=True)
    assert outside.read_text() == "as it was"

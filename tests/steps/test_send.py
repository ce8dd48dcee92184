"""The sender against a real sshd that is stopped, killed, filled, changed and repaired."""

import errno
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from arrivals import refuse
from sshd import Sshd
from telescope import Telescope

from lpxfer.errors import AttemptError, BusyError, FormatError
from lpxfer.formats import backoff
from lpxfer.formats.attempts import COMMIT, START
from lpxfer.formats.control import Control, load
from lpxfer.formats.job import Routing, State
from lpxfer.steps import send
from lpxfer.stores import agenda, waiting
from lpxfer.stores.job_dir import CANCEL, HOLD, JobDir
from lpxfer.stores.spool import Queue
from lpxfer.transports import carry, packets, sftp, wire
from lpxfer.transports.attempt import Requested
from lpxfer.transports.sftp import SftpTransport
from lpxfer.transports.target import PROBE
from lpxfer.transports.transport import Upload


@pytest.fixture
def telescope(
    tmp_path: Path, sshd: Sshd, make_job: Callable[..., Control], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Telescope]:
    monkeypatch.setattr(backoff, "QUEUE_FIRST", 0.3)  # the waiting is not what is tested
    monkeypatch.setattr(backoff.LinkState, "GREET", 0.3)
    made = Telescope(tmp_path, sshd, make_job)
    yield made
    made.halt()


def big() -> bytes:
    """More than a pipeline's worth of bytes, so that a transfer can be caught in the middle."""
    return os.urandom(1 << 20) * 48


# --- one pass -----------------------------------------------------------------------------------


def test_one_pass_sends_everything_and_leaves_it_unconfirmed(telescope: Telescope) -> None:
    jobs = [telescope.job(os.urandom(size)) for size in (0, 1, 2880, 3_000_000)]
    assert telescope.sender().once() == 4
    for job in jobs:
        assert telescope.state(job) is State.SENT
        assert len(telescope.arrived(job) or b"") == job.size
    assert not telescope.said


def test_next_pass_completes_what_has_its_receipt(telescope: Telescope) -> None:
    job = telescope.job()
    telescope.sender().once()
    telescope.receive(job)
    assert telescope.sender().once() == 0
    assert telescope.state(job) is None
    assert [line.kind for line in telescope.queue.log()] == ["completed"]


def test_control_file_on_the_wire_says_what_the_transfer_took(telescope: Telescope) -> None:
    job = telescope.job(os.urandom(100_000))
    telescope.sender().once()
    known = load((telescope.incoming / f"{job.uid}.control").read_bytes())
    assert known.transfer and known.transfer.attempts == 1 and known.transfer.seconds > 0
    assert replace(known, transfer=None) == job


def test_queue_that_gives_up_receipts_completes_at_once(telescope: Telescope) -> None:
    job = telescope.job()
    assert telescope.sender(confirm="sent").once() == 0
    assert telescope.state(job) is None
    assert telescope.arrived(job) == b"data"


def test_pass_with_the_server_down_says_so_once_and_blames_no_job(telescope: Telescope) -> None:
    jobs = [telescope.job() for _ in range(5)]
    telescope.sshd.stop()
    assert telescope.sender().once() == 5
    assert len(telescope.said) == 1
    for job in jobs:
        assert telescope.state(job) is State.PENDING
        assert telescope.routing(job) == Routing()


def test_two_senders_of_one_queue_are_one_too_many(telescope: Telescope) -> None:
    with telescope.queue.locked(), pytest.raises(BusyError):
        telescope.sender().once()


def test_disabled_queue_sends_nothing_and_still_confirms(telescope: Telescope) -> None:
    sent, waiting = telescope.job(), None
    telescope.sender().once()
    telescope.receive(sent)
    waiting = telescope.job()
    telescope.queue.switch(lambda switches: replace(switches, enabled=False))
    assert telescope.sender().once() == 1
    assert telescope.state(sent) is None
    assert telescope.state(waiting) is State.PENDING


def test_higher_priority_goes_first(telescope: Telescope) -> None:
    low = telescope.job(routing=Routing(priority=10))
    middle = telescope.job()
    high = telescope.job(routing=Routing(priority=90))
    telescope.sender(connections=1).once()
    arrived = [telescope.incoming / f"{job.uid}.control" for job in (high, middle, low)]
    times = [path.stat().st_ctime_ns for path in arrived]
    assert times == sorted(times)


def test_job_is_not_sent_before_its_time(telescope: Telescope) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    job = telescope.job(routing=Routing(not_before=soon))
    assert telescope.sender().once() == 1
    assert telescope.state(job) is State.PENDING
    assert telescope.arrived(job) is None


def test_job_deferred_by_a_clock_that_was_days_ahead_goes_at_once(telescope: Telescope) -> None:
    wrong = datetime.now(UTC) + timedelta(days=3)
    job = telescope.job(routing=Routing(not_before=wrong, stalls=1))
    telescope.sender().once()
    assert telescope.state(job) is State.SENT


def test_running_sender_notices_that_its_clock_was_set_back(telescope: Telescope) -> None:
    ahead = timedelta(days=3)
    telescope.clock = lambda: datetime.now(UTC) + ahead
    job = telescope.job(routing=Routing(not_before=telescope.clock() + timedelta(hours=1)))
    telescope.serve()
    telescope.wait_for(telescope.job(), State.SENT)
    assert telescope.state(job) is State.PENDING
    ahead = timedelta()
    telescope.queue.wake()
    telescope.wait_for(job, State.SENT)


def test_job_with_its_own_path_goes_there(telescope: Telescope, tmp_path: Path) -> None:
    other = tmp_path / "other" / "incoming"
    other.mkdir(parents=True)
    job = telescope.job(routing=Routing(rempath=str(other)))
    telescope.sender().once()
    assert (other / f"{job.uid}.control").exists()
    assert b"rempath" not in (other / f"{job.uid}.control").read_bytes()


@pytest.mark.parametrize(
    "own",
    [Routing(remhost="127.0.0.1:1", priority=99), Routing(remuser="nobody-here", priority=99)],
    ids=["host", "user"],
)
def test_job_whose_own_target_is_dead_delays_no_other(telescope: Telescope, own: Routing) -> None:
    lost = telescope.job(routing=own)
    good = telescope.job()
    telescope.sender().once()
    assert telescope.state(good) is State.SENT
    assert telescope.state(lost) is State.PENDING
    assert telescope.routing(lost).stalls == 1


# --- jobs that are not in order -----------------------------------------------------------------


def test_job_whose_data_changed_is_failed_and_not_committed(telescope: Telescope) -> None:
    job, good = telescope.job(b"x" * 5000), telescope.job()
    path = telescope.root / "spool/archive/pending" / job.job / "data"
    path.write_bytes(b"y" * 5000)
    telescope.sender().once()
    assert telescope.state(job) is State.FAILED
    assert "source changed after submit" in (telescope.routing(job).reason or "")
    assert telescope.arrived(job) is None
    assert telescope.state(good) is State.SENT


def test_linked_file_that_was_cut_short_is_failed_as_changed(telescope: Telescope) -> None:
    job = telescope.job(b"x" * 5000)
    path = telescope.root / "spool/archive/pending" / job.job / "data"
    path.write_bytes(b"")
    telescope.sender(link=True).once()
    assert telescope.state(job) is State.FAILED
    assert "source changed after submit" in (telescope.routing(job).reason or "")


@pytest.mark.parametrize("harm", ["link", "fifo", "directory", "torn", "extra", "gone", "hard"])
def test_job_that_is_no_proper_job_is_quarantined(telescope: Telescope, harm: str) -> None:
    job, good = telescope.job(), telescope.job()
    place = telescope.root / "spool/archive/pending" / job.job
    data, control = place / "data", place / "control"
    if harm == "link":
        data.rename(telescope.root / "stolen")
        data.symlink_to(telescope.root / "stolen")
    elif harm == "fifo":
        data.unlink()
        os.mkfifo(data)
    elif harm == "directory":
        control.unlink()
        control.mkdir()
    elif harm == "torn":
        control.write_bytes(control.read_bytes()[:-10])
    elif harm == "extra":
        (place / "surprise").write_text("!")
    elif harm == "hard":
        os.link(data, telescope.root / "second")
    else:
        data.unlink()
    telescope.sender().once()
    assert telescope.state(job) is State.QUARANTINED
    assert telescope.routing(job).reason
    assert telescope.state(good) is State.SENT


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "state"), [(CANCEL, None), (HOLD, State.HELD)])
def test_request_in_the_middle_of_a_transfer_is_obeyed(
    telescope: Telescope, word: str, state: State | None
) -> None:
    job = telescope.job(big())
    telescope.sshd.pause()
    telescope.serve(stall=30.0)
    telescope.wait_for(job, State.ACTIVE)
    with telescope.queue.open(job.job, State.ACTIVE) as opened:
        opened.set_request(word)
    telescope.sshd.resume()
    telescope.wait_for(job, state)
    assert telescope.arrived(job) is None
    if word == CANCEL:
        assert [line.kind for line in telescope.queue.log()] == ["canceled"]


# --- the link -------------------------------------------------------------------------------------


def check_repair(telescope: Telescope, jobs: list[Control]) -> None:
    """All is delivered without a hand on the spool, and no job was blamed."""
    for job in jobs:
        telescope.wait_for(job, State.SENT)
        assert len(telescope.arrived(job) or b"") == job.size
        assert telescope.routing(job).stalls == 0
        assert telescope.routing(job).not_before is None


def test_stopped_server_is_survived(telescope: Telescope) -> None:
    telescope.sshd.pause()
    jobs = [telescope.job(), telescope.job()]
    telescope.serve()
    telescope.wait_said("its jobs wait")
    telescope.sshd.resume()
    check_repair(telescope, jobs)
    assert sum("its jobs wait" in line for line in telescope.said) == 1


def test_server_stopped_in_the_middle_of_a_file_is_survived(telescope: Telescope) -> None:
    job = telescope.job(big())
    telescope.serve()
    part = telescope.incoming / f".{job.uid}.data.part"
    while not part.exists() or part.stat().st_size < 1 << 20:
        time.sleep(0.001)
        assert telescope.state(job) is not State.SENT, "too fast to be caught: make it bigger"
    telescope.sshd.pause()
    telescope.wait_said("its jobs wait")
    telescope.sshd.resume()
    check_repair(telescope, [job])


def test_server_that_fell_silent_is_not_waited_for_twice(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once is enough to know that nobody answers; the second look takes a moment only."""
    limits: list[float] = []
    watched = sftp.watched

    def noted(cut: Any, stall: float, limit: float = 0.0) -> Any:
        limits.append(stall)
        return watched(cut, stall, limit)

    monkeypatch.setattr(sftp, "watched", noted)
    rename = wire.Session.rename

    def silent(session: wire.Session, old: bytes, new: bytes) -> wire.Answer[None]:
        telescope.sshd.pause()
        return rename(session, old, new)

    monkeypatch.setattr(wire.Session, "rename", silent)
    job = telescope.job()
    telescope.sender(stall=3.0).once()
    telescope.sshd.resume()
    assert telescope.state(job) is State.PENDING
    assert limits[-1] == PROBE


def test_server_killed_in_the_middle_of_a_file_is_survived(telescope: Telescope) -> None:
    job = telescope.job(big())
    telescope.serve()
    part = telescope.incoming / f".{job.uid}.data.part"
    while not part.exists() or part.stat().st_size < 1 << 20:
        time.sleep(0.001)
        assert telescope.state(job) is not State.SENT, "too fast to be caught: make it bigger"
    telescope.sshd.stop()
    telescope.wait_said("its jobs wait")
    time.sleep(1)  # several probes
    assert sum("its jobs wait" in line for line in telescope.said) == 1, telescope.said
    telescope.sshd.start()
    check_repair(telescope, [job])


def test_server_that_refuses_the_key_is_survived(telescope: Telescope) -> None:
    telescope.sshd.reject_key()
    jobs = [telescope.job(), telescope.job()]
    telescope.serve()
    telescope.wait_said("its jobs wait")
    telescope.sshd.accept_key()
    check_repair(telescope, jobs)


def test_changed_host_key_stops_the_queue_before_a_byte_is_sent(telescope: Telescope) -> None:
    telescope.sshd.change_host_key()
    jobs = [telescope.job(), telescope.job()]
    telescope.serve()
    telescope.wait_said("HOST KEY HAS CHANGED")
    assert not list(telescope.incoming.iterdir())
    telescope.sshd.trust_host_key()
    check_repair(telescope, jobs)


def test_missing_incoming_is_survived(telescope: Telescope) -> None:
    telescope.incoming.rmdir()
    jobs = [telescope.job(), telescope.job()]
    telescope.serve()
    telescope.wait_said(str(telescope.incoming))
    telescope.incoming.mkdir()
    check_repair(telescope, jobs)


def full(telescope: Telescope) -> None:
    size = ["-o", "size=4M", "none"]
    subprocess.run(["mount", "-t", "tmpfs", *size, str(telescope.incoming)], check=True)


@pytest.mark.root
def test_full_incoming_is_said_once_and_filled_up_when_there_is_room(telescope: Telescope) -> None:
    full(telescope)
    try:
        job, small = telescope.job(os.urandom(6 << 20)), telescope.job()
        telescope.serve()
        telescope.wait_said("is full")
        time.sleep(3)  # several probes
        assert sum("its jobs wait" in line for line in telescope.said) == 1, telescope.said
        remount = ["mount", "-o", "remount,size=64M", str(telescope.incoming)]
        subprocess.run(remount, check=True)
        check_repair(telescope, [job, small])
    finally:
        telescope.halt()
        subprocess.run(["umount", str(telescope.incoming)], check=True)


def test_arrival_that_was_refused_and_not_taken_away_is_waited_for(telescope: Telescope) -> None:
    job = telescope.job()
    telescope.sender().once()
    with (telescope.incoming / f"{job.uid}.data").open("wb") as data:
        data.write(b"rot!")
    pair = {p.name: p.read_bytes() for p in telescope.incoming.iterdir()}
    telescope.receive(job, "mismatch")  # its sweep is killed before it takes the pair away
    for name, content in pair.items():
        (telescope.incoming / name).write_bytes(content)
    log = next((telescope.receipts / job.host).iterdir())
    log.write_text(log.read_text().replace(f"uid={job.uid}", f"uid={job.uid} attempts=1"))
    for _ in range(4):
        telescope.sender().once()
    assert telescope.state(job) is State.PENDING
    assert telescope.routing(job).mismatches == 1
    assert "has not taken the arrival away" in (telescope.routing(job).reason or "")


def test_restarted_server_is_not_even_noticed(telescope: Telescope) -> None:
    telescope.serve()
    first = telescope.job()
    telescope.queue.wake()
    telescope.wait_for(first, State.SENT)
    telescope.sshd.restart()
    second = telescope.job()
    telescope.queue.wake()
    telescope.wait_for(second, State.SENT)
    assert not telescope.said


def test_job_that_stalls_alone_waits_and_others_go(telescope: Telescope) -> None:
    # A data file that somebody else has put under the job's own part name, and locked away:
    # the write is refused for this file and for no other.
    job, good = telescope.job(b"x" * 10_000), telescope.job()
    (telescope.incoming / f".{job.uid}.data.part").mkdir()
    telescope.sender().once()
    assert telescope.state(good) is State.SENT
    assert telescope.state(job) in (State.PENDING, State.FAILED)
    assert telescope.routing(job).reason


def lose(monkeypatch: pytest.MonkeyPatch, bad: Control, times: float) -> None:
    """Break the connections in which this job's data is about to be put."""
    put, lost = SftpTransport.put, itertools.count(1)

    def losing(link: SftpTransport, uploads: Sequence[Upload], limit: float = 0) -> None:
        bads = uploads[0].name.startswith(bad.uid)
        if bads and link._connection and next(lost) <= times:
            link._connection.shut()
        put(link, uploads, limit)

    monkeypatch.setattr(SftpTransport, "put", losing)


def test_one_pass_goes_on_behind_a_job_whose_connection_is_always_lost(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = telescope.job(routing=Routing(priority=90))
    good = [telescope.job() for _ in range(5)]
    lose(monkeypatch, bad, math.inf)
    telescope.sender(connections=1).once()
    assert {telescope.state(job) for job in good} == {State.SENT}
    assert telescope.state(bad) is State.PENDING
    assert telescope.routing(bad).not_before, "it has to wait, at last"


def test_connection_that_is_lost_once_is_blamed_on_nobody(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = telescope.job()
    lose(monkeypatch, job, 2)
    telescope.sender().once()
    assert telescope.state(job) is State.SENT
    assert telescope.routing(job) == Routing()
    assert not telescope.said


def test_control_file_sealed_by_one_attempt_is_committed_by_the_next_with_its_number(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = telescope.job()
    rename, calls = wire.Session.rename, itertools.count(1)

    def lose_second(session: wire.Session, old: bytes, new: bytes) -> wire.Answer[None]:
        if next(calls) == 2:
            raise packets.Broken("cut between seal and rename")
        return rename(session, old, new)

    monkeypatch.setattr(wire.Session, "rename", lose_second)
    telescope.sender().once()
    known = load((telescope.incoming / f"{job.uid}.control").read_bytes())
    with telescope.queue.open(job.job, State.SENT) as opened:
        attempts = opened.attempts()
    assert known.transfer
    assert (attempts.count, attempts.committed, known.transfer.attempts) == (2, 1, 1)


@pytest.mark.parametrize("suffix", ["data", "control"])
def test_rename_of_an_attempt_that_was_cut_may_come_late(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """A server that was stuck carries it out when the next attempt has looked already."""
    job = telescope.job()
    rename = wire.Session.rename

    def overtaken(session: wire.Session, old: bytes, new: bytes) -> wire.Answer[None]:
        if new.endswith(suffix.encode()):
            os.rename(old, new)
        return rename(session, old, new)

    monkeypatch.setattr(wire.Session, "rename", overtaken)
    telescope.sender().once()
    assert telescope.state(job) is State.SENT
    assert telescope.arrived(job) == b"data"


# --- the sender itself ---------------------------------------------------------------------------


def test_stopped_sender_gives_its_jobs_back(telescope: Telescope) -> None:
    job = telescope.job(big())
    telescope.sshd.pause()
    telescope.serve(stall=60.0)
    telescope.wait_for(job, State.ACTIVE)
    telescope.halt()
    assert telescope.state(job) is State.PENDING
    assert telescope.routing(job) == Routing()
    telescope.sshd.resume()
    telescope.sender().once()
    assert telescope.arrived(job) == big_of(telescope, job)


def big_of(telescope: Telescope, job: Control) -> bytes:
    state = telescope.state(job)
    assert state
    return (telescope.root / "spool/archive" / state.directory / job.job / "data").read_bytes()


def test_crashed_sender_leaves_its_job_to_the_next(telescope: Telescope) -> None:
    job = telescope.job()
    telescope.queue.claim(job.job).close()
    telescope.sender().once()
    assert telescope.state(job) is State.SENT


def test_job_that_was_committed_before_a_crash_is_found_in_incoming(telescope: Telescope) -> None:
    job = telescope.job()
    telescope.sender().once()
    before = (telescope.incoming / f"{job.uid}.data").stat().st_ino
    telescope.queue.move(job.job, State.SENT, State.ACTIVE)
    telescope.sender().once()
    assert telescope.state(job) is State.SENT
    assert (telescope.incoming / f"{job.uid}.data").stat().st_ino == before


def test_job_that_was_swept_before_a_crash_is_found_in_the_receipts(telescope: Telescope) -> None:
    job = telescope.job()
    telescope.sender().once()
    telescope.receive(job)
    telescope.queue.move(job.job, State.SENT, State.ACTIVE)
    assert telescope.sender().once() == 0
    assert not list(telescope.incoming.iterdir())
    assert [line.kind for line in telescope.queue.log()] == ["completed"]


def test_transfer_goes_on_where_it_was_acknowledged(telescope: Telescope) -> None:
    data = big()
    job = telescope.job(data)
    with telescope.queue.claim(job.job) as opened:
        opened.note(START, datetime.now(UTC))
        opened.note("acked", datetime.now(UTC), acked=str(1 << 20))
    telescope.queue.move(job.job, State.ACTIVE, State.PENDING)
    part = telescope.incoming / f".{job.uid}.data.part"
    part.write_bytes(b"?" * (1 << 20) + data[1 << 20 : 2 << 20])
    telescope.sender().once()
    assert (telescope.arrived(job) or b"")[: 1 << 20] == b"?" * (1 << 20)  # it was not sent again
    assert (telescope.arrived(job) or b"")[1 << 20 :] == data[1 << 20 :]


def test_killed_sender_is_followed_by_one_that_finishes(telescope: Telescope) -> None:
    """kill -9 at moments all over the session; then everything arrives, whole."""
    jobs = [telescope.job(os.urandom(200_000)) for _ in range(3)]
    conf = telescope.root / "lpxfer.conf"
    keys = ("remhost", "rempath", "remuser", "identity", "known_hosts")
    lines = [f"{key} = {getattr(telescope.settings, key)}" for key in keys]
    spool = telescope.root / "spool"
    conf.write_text(f"[lpxfer]\nspool = {spool}\n[queue archive]\n" + "\n".join(lines) + "\n")
    run = "from lpxfer.cli.xfer_send import main; main()"
    command = [sys.executable, "-c", run, "--once", "--config", str(conf)]
    for moment in range(12):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(0.25 + 0.02 * moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    telescope.sender().once()
    for job in jobs:
        assert telescope.state(job) is State.SENT
        data = (telescope.root / "spool/archive/sent" / job.job / "data").read_bytes()
        assert telescope.arrived(job) == data
    left = [path.name for path in telescope.incoming.iterdir() if path.name.startswith(".")]
    assert not left


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO, errno.ENOSPC])
def test_spool_whose_disk_fails_is_told_once_and_tried_again(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(send, "RECOVER", 0.1)
    monkeypatch.setattr(waiting, "BY_ITSELF", 0.1)
    jobs = [telescope.job() for _ in range(3)]
    with monkeypatch.context() as broken:
        broken.setattr(Queue, "claim", refuse(code))
        telescope.serve()
        telescope.wait_said(os.strerror(code))
        time.sleep(0.5)  # it goes on trying
        assert len(telescope.said) == 1 and "until that is mended" in telescope.said[0]
    for job in jobs:
        telescope.wait_for(job, State.SENT)


def test_pass_over_a_spool_whose_disk_fails_ends(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        telescope.job()
    monkeypatch.setattr(Queue, "claim", refuse(errno.EROFS))
    assert telescope.sender().once() == 3
    assert len(telescope.said) == 1 and "Read-only file system" in telescope.said[0]


def test_what_could_not_be_claimed_is_tried_again_when_it_has_changed(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "RECOVER", 0.1)
    monkeypatch.setattr(waiting, "BY_ITSELF", 0.1)
    job = telescope.job()
    with monkeypatch.context() as trap:
        trap.setattr(Queue, "claim", refuse(errno.EACCES))
        telescope.serve()
        telescope.wait_said("cannot be claimed")
    time.sleep(0.5)
    assert telescope.state(job) is State.PENDING and len(telescope.said) == 1
    (telescope.queue.root / "pending" / job.job).chmod(0o700)  # as who mends it would
    telescope.wait_for(job, State.SENT)


def test_what_could_not_be_claimed_is_tried_again_after_an_hour(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "RECOVER", 0.1)
    monkeypatch.setattr(waiting, "BY_ITSELF", 0.1)
    monkeypatch.setattr(agenda, "BARRED", 0.3)
    job = telescope.job()
    with monkeypatch.context() as trap:
        trap.setattr(Queue, "claim", refuse(errno.EACCES))
        telescope.serve()
        telescope.wait_said("cannot be claimed")
    telescope.wait_for(job, State.SENT)


def test_commit_mark_outlives_everything_until_the_next_attempt(telescope: Telescope) -> None:
    job = telescope.job()
    telescope.sender().once()
    with telescope.queue.open(job.job, State.SENT) as opened:
        assert opened.attempts().committing
        assert (telescope.root / "spool/archive/sent" / job.job / "attempts").read_text().count(
            f" {COMMIT} "
        ) == 1


def test_job_that_a_command_keeps_ends_no_pass_late(telescope: Telescope) -> None:
    kept, good = telescope.job(), telescope.job()
    with telescope.queue.still(kept.job, State.PENDING):
        assert telescope.sender().once() == 2
    assert telescope.state(kept) is State.PENDING
    assert telescope.state(good) is State.SENT


def test_nothing_is_read_again_that_the_archive_does_not_have(telescope: Telescope) -> None:
    """Attempts made by hand may say that terabytes of holes were acknowledged."""
    size = 1 << 40
    job = telescope.job(size=size, maxftp="1")
    place = telescope.root / "spool/archive/pending" / job.job
    os.truncate(place / "data", size)
    (place / "attempts").write_text(f"2026-11-20T00:00:00.000Z acked acked={size}\n")
    begun = time.monotonic()
    telescope.sender(stall=1.0).once()
    assert time.monotonic() - begun < 60, "it was read: that takes ten minutes"
    assert telescope.state(job) is State.PENDING


@pytest.mark.parametrize("error", [None, FormatError("data is missing")])
def test_job_that_is_moved_by_hand_while_it_is_sent_is_said_in_one_line(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    job, good = telescope.job(), telescope.job()
    queue = telescope.root / "spool/archive"
    real = carry.attempt

    def attempt(opened: JobDir, *rest: object) -> None:
        real(opened, *rest)  # type: ignore[arg-type]
        if opened.id == job.job:
            (queue / "active" / job.job).rename(queue / "held" / job.job)
            if error:
                raise error

    monkeypatch.setattr(carry, "attempt", attempt)
    telescope.sender().once()
    assert telescope.state(job) is State.HELD
    assert telescope.state(good) is State.SENT
    assert [line for line in telescope.said if job.job in line] == [
        f"{job.job} was moved by somebody else while it was sent"
    ]


@pytest.mark.parametrize(
    ("spoiled", "error"),
    [("attempts", AttemptError("refused")), ("routing", Requested("hold"))],
)
def test_job_that_is_spoiled_while_it_is_sent_is_quarantined(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch, spoiled: str, error: Exception
) -> None:
    job, good = telescope.job(routing=Routing(priority=90)), telescope.job()
    place = telescope.root / "spool/archive/active" / job.job / spoiled
    real = carry.attempt

    def attempt(opened: JobDir, *rest: object) -> None:
        if opened.id == job.job:
            place.unlink()
            os.mkfifo(place)
            raise error
        real(opened, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(carry, "attempt", attempt)
    (telescope.root / "spool/archive/pending" / job.job / "attempts").touch()
    telescope.sender().once()
    assert telescope.state(job) is State.QUARANTINED
    assert telescope.state(good) is State.SENT
    assert telescope.said == [f"{job.job} quarantined: {spoiled}: not a regular file"]

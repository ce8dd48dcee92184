"""One system spool, a sender's account and two members of its group: real users, as root."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import accounts as made
from accounts import own, run_as
from several_users import ALICE, BOB, CAROL, GROUP, SENDER, System

from lpxfer import durable
from lpxfer.formats.job import Routing, dump_routing
from lpxfer.stores import aside

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def accounts() -> Iterator[None]:
    with made(SENDER, ALICE, BOB, group=GROUP), made(CAROL):
        yield


@pytest.fixture
def system(accounts: None) -> Iterator[System]:
    root = Path(tempfile.mkdtemp(prefix="lpxfer-users-"))
    made = System(root)
    made.run(SENDER, "xfer-send", "--once")
    yield made
    shutil.rmtree(root)


def test_member_submits_and_the_sender_sends(system: System) -> None:
    job = system.job(ALICE)
    status, said = system.run(SENDER, "xfer-send", "--once")
    assert status == 75, said
    assert (system.queue / "sent" / job).is_dir()
    assert [p.read_bytes() for p in (system.root / "incoming").glob("*.data")] == [b"data"]


def test_job_is_readable_by_its_user_and_the_sender_only(system: System) -> None:
    job = system.queue / "pending" / system.job(ALICE)
    for user, may in ((ALICE, True), (SENDER, True), (BOB, False), (CAROL, False)):
        assert can_read(user, job / "data") is may


def can_read(user: str, path: Path) -> bool:
    return run_as(user, lambda: os.close(os.open(path, os.O_RDONLY)))[0] == 0


@pytest.mark.parametrize(
    "command",
    [["xfer-cancel"], ["xfer-ctl", "hold"], ["xfer-ctl", "priority", "90"]],
    ids=lambda words: words[-1],
)
def test_member_cannot_touch_anothers_job(system: System, command: list[str]) -> None:
    job = system.job(ALICE)
    before = sorted(path.name for path in (system.queue / "pending" / job).iterdir())
    status, said = system.run(BOB, *command, job)
    assert status == 1
    assert "permission" in said.lower()
    assert "Traceback" not in said
    assert sorted(path.name for path in (system.queue / "pending" / job).iterdir()) == before


def test_member_withdraws_a_job_of_their_own(system: System) -> None:
    job = system.job(ALICE)
    status, said = system.run(ALICE, "xfer-cancel", job)
    assert (status, said) == (0, "")
    assert not (system.queue / "pending" / job).exists()
    assert system.run(SENDER, "xfer-send", "--once")[0] == 0  # logs it and removes the rest
    log = next((system.queue / "log").glob("*.log")).read_text()
    assert f"canceled job={job}" in log
    assert not list((system.queue / "done").iterdir())


def test_member_sees_anothers_job_without_its_contents(system: System) -> None:
    job = system.job(ALICE, "secret-name.fits")
    status, said = system.run(BOB, "xfer-stat")
    assert status == 0
    assert job in said
    assert ALICE in said
    assert "secret-name" not in said


def test_stranger_to_the_group_cannot_submit(system: System) -> None:
    status, said = system.run(CAROL, "xfer-submit", system.file(CAROL, "c.fits"))
    assert status == 1
    assert "Error - no permission to use queue archive" in said
    assert "members of its group" in said
    assert "Traceback" not in said


def test_member_cannot_set_up_a_queue_and_is_told_who_can(system: System) -> None:
    with system.conf.open("a") as conf:
        conf.write("[queue other]\ntransport = local\n")
    status, said = system.run(ALICE, "xfer-submit", "-d", "other", system.file(ALICE, "a.fits"))
    assert status == 1
    assert "start xfer-send once" in said


@pytest.mark.parametrize("victim", ["data", "control"])
def test_job_with_a_link_in_it_is_set_aside_unread(system: System, victim: str) -> None:
    secret = system.file(SENDER, "sender-key", b"PRIVATE KEY")
    job, good = system.job(ALICE), system.job(ALICE, "good.fits")
    place = system.queue / "pending" / job
    (place / victim).unlink()
    (place / victim).symlink_to(secret)
    os.lchown(place / victim, pwd.getpwnam(ALICE).pw_uid, -1)
    system.run(SENDER, "xfer-send", "--once")
    assert (system.queue / "quarantine" / job).is_dir()
    assert (system.queue / "sent" / good).is_dir()
    for path in (system.root / "incoming").iterdir():
        assert b"PRIVATE" not in path.read_bytes()


def test_sender_empties_a_cancelled_active_job_of_a_member(system: System) -> None:
    job = system.job(ALICE)
    (system.queue / "pending" / job).rename(system.queue / "active" / job)  # its sender died
    status, said = system.run(ALICE, "xfer-cancel", job)
    assert status == 0, said
    assert not (system.queue / "active" / job).exists()


def test_spool_of_several_users_is_clean_in_the_eyes_of_fsck(system: System) -> None:
    system.job(ALICE)
    system.job(BOB)
    status, said = system.run(SENDER, "xfer-fsck")
    assert status == 0, said


def test_member_may_link_a_file_the_sender_can_read(system: System) -> None:
    path = system.file(ALICE, "shared.fits")
    status, said = system.run(ALICE, "xfer-submit", "--link", path)
    assert status == 1, "a link keeps its mode 0600, which the sender cannot read"
    assert "read" in said
    assert not list((system.queue / "tmp").iterdir())
    os.chmod(path, 0o644)
    status, said = system.run(ALICE, "xfer-submit", "--link", path)
    assert status == 0, said
    system.run(SENDER, "xfer-send", "--once")
    assert len(list((system.queue / "sent").iterdir())) == 1


def test_root_acts_as_the_sender_and_leaves_nothing_it_cannot_write(system: System) -> None:
    jobs = [system.job(ALICE, f"{n}.fits") for n in range(4)]
    assert system.run("root", "xfer-ctl", "priority", "90", jobs[0]) == (0, "")
    assert system.run("root", "xfer-ctl", "hold", jobs[1]) == (0, "")
    assert system.run("root", "xfer-cancel", jobs[2]) == (0, "")
    assert system.run("root", "xfer-ctl", "disable", "archive") == (0, "")
    assert system.run("root", "xfer-ctl", "enable", "archive") == (0, "")
    sender = pwd.getpwnam(SENDER).pw_uid
    made = [path for path in system.queue.rglob("*") if path.lstat().st_uid == 0]
    assert not made
    assert next((system.queue / "log").iterdir()).stat().st_uid == sender
    assert "reason=canceled%20by%20root" in next((system.queue / "log").iterdir()).read_text()
    assert system.run(SENDER, "xfer-send", "--once")[0] == 75
    assert {path.name for path in (system.queue / "sent").iterdir()} == {jobs[0], jobs[3]}


def test_member_changes_a_job_that_the_sender_has_written_to(system: System) -> None:
    job = system.job(ALICE)
    assert system.run(SENDER, "xfer-ctl", "priority", "90", job) == (0, "")
    assert system.run(ALICE, "xfer-ctl", "hold", "-r", "mine", job) == (0, "")
    status, said = system.run(ALICE, "xfer-stat", "-l", job)
    assert status == 0
    assert "priority 90" in said
    assert "reason: mine" in said
    status, said = system.run(BOB, "xfer-ctl", "release", job)
    assert (status, said) == (
        1,
        f"xfer-ctl: Error - {job}: no permission; it belongs to another account\n",
    )


def test_member_cannot_stop_the_queue(system: System) -> None:
    for words in (["disable"], ["reject", "-r", "x"], ["enable"]):
        status, said = system.run(ALICE, "xfer-ctl", *words, "archive")
        assert (status, said) == (
            1,
            "xfer-ctl: Error - archive: no permission; it belongs to another account\n",
        )
    assert not (system.queue / "switches").exists()


def test_all_jobs_of_a_user_are_withdrawn_by_that_user_alone(system: System) -> None:
    mine, other = system.job(ALICE), system.job(BOB)
    status, said = system.run(BOB, "xfer-cancel", "-u", ALICE)
    assert status == 1
    assert "no permission" in said
    assert system.run(ALICE, "xfer-cancel", "-u", ALICE) == (0, "")
    assert not (system.queue / "pending" / mine).exists()
    assert (system.queue / "pending" / other).exists()


def test_empty_directory_of_another_member_under_its_id_stops_no_submit(system: System) -> None:
    for user, state in ((ALICE, "tmp"), (BOB, "pending")):
        (system.queue / state / "archive-7").mkdir()
        own(system.queue / state / "archive-7", user)

    def commit() -> None:
        with durable.opened_dir(system.queue / "tmp") as tmp:
            with durable.opened_dir(system.queue / "pending") as pending:
                aside.move(durable.rename_unsynced, "archive-7", tmp, pending, gives_way=False)

    status, said = run_as(ALICE, commit)
    assert status == 0, said
    assert len(os.listdir(system.queue / "pending")) == 2


def test_directory_that_is_closed_gives_its_name_to_the_job_it_keeps_off(system: System) -> None:
    job = system.job(ALICE)
    (system.queue / "pending" / job).rename(system.queue / f"pending/.{job}.0123abcd.aside")
    (system.queue / "pending" / job / "x").mkdir(parents=True)
    own(system.queue / "pending" / job, BOB, 0)
    system.run(SENDER, "xfer-send", "--once")
    assert [p.read_bytes() for p in (system.root / "incoming").glob("*.data")] == [b"data"]


def test_canceled_job_that_waits_for_the_sender_is_seen_as_canceled(system: System) -> None:
    job = system.job(ALICE)
    assert system.run(ALICE, "xfer-cancel", job)[0] == 0
    status, said = system.run(ALICE, "xfer-stat", job)
    assert status == 0
    assert "canceled" in said
    assert system.run(ALICE, "xfer-cancel", job)[1].endswith(f"{job} is canceled already\n")


def test_member_cannot_have_a_file_of_the_senders_offered_as_a_password(system: System) -> None:
    secret = system.file(SENDER, "sender-secret", b"hunter2")
    job = system.job(ALICE)
    place = system.queue / "pending" / job
    routing = Routing(remhost="localhost", rempw=f"file:{secret}")
    (place / "routing").write_bytes(dump_routing(routing))
    os.chown(place / "routing", pwd.getpwnam(ALICE).pw_uid, -1)
    _, said = system.run(SENDER, "xfer-send", "--once")
    assert "rempw is for jobs of the sender's own account" in said
    assert (system.queue / "failed" / job).is_dir()


@pytest.mark.parametrize("state", ["pending", "tmp", "active", "sent", "done"])
def test_directory_that_the_sender_may_not_open_stops_nothing(system: System, state: str) -> None:
    good = system.job(ALICE)
    trap = system.queue / state / "archive-77"
    trap.mkdir()
    (trap / "control").write_text("made by hand")
    os.chown(trap, pwd.getpwnam(BOB).pw_uid, -1)
    trap.chmod(0o700)
    status, said = system.run(SENDER, "xfer-send", "--once")
    assert status == 75, said
    assert "Traceback" not in said
    assert said.count("archive-77") == (state == "pending")  # xfer-fsck names the others
    assert (system.queue / "sent" / good).is_dir()

"""The sender's command: exit statuses, signals, systemd."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores.spool import Queue

PATIENCE = 60.0
RUN = "from lpxfer.cli.xfer_send import main; main(prog_name='xfer-send')"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    path = tmp_path / "lpxfer.conf"
    path.write_text(
        f"[lpxfer]\nspool = {tmp_path}/spool\n"
        f"[queue archive]\ntransport = local\nrempath = {tmp_path}/incoming\n"
    )
    return path


def start(conf: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", RUN, "--config", str(conf), *arguments]
    return subprocess.Popen(words, env=os.environ | environ, stderr=subprocess.PIPE, text=True)


def run(conf: Path, *arguments: str) -> tuple[int, str]:
    with start(conf, *arguments) as process:
        _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_pass_with_nothing_to_do_is_silent(conf: Path) -> None:
    assert run(conf, "--once") == (0, "")


def test_pass_that_leaves_jobs_says_how_many(
    conf: Path, queue: Queue, make_job: Callable[..., Control]
) -> None:
    make_job(queue)
    status, said = run(conf, "--once")
    assert status == 75
    assert said == "xfer-send: 1 job(s) are left to send or to confirm\n"


def test_link_that_is_down_is_named(
    conf: Path, queue: Queue, make_job: Callable[..., Control]
) -> None:
    make_job(queue)
    (conf.parent / "incoming").rmdir()
    status, said = run(conf, "--once")
    assert status == 75
    assert f"{conf.parent}/incoming" in said


def test_held_and_failed_jobs_are_not_left(
    conf: Path, queue: Queue, make_job: Callable[..., Control]
) -> None:
    make_job(queue, state=State.HELD)
    make_job(queue, state=State.FAILED)
    assert run(conf, "--once")[0] == 0


def test_second_sender_is_told_to_come_back(conf: Path, queue: Queue) -> None:
    with queue.locked():
        status, said = run(conf, "--once")
    assert status == 75
    assert "another sender serves queue archive" in said


def test_nothing_that_the_sender_says_acts_on_a_terminal(
    conf: Path, tmp_path: Path, queue: Queue, make_job: Callable[..., Control]
) -> None:
    host = tmp_path / "receipts" / make_job(queue, state=State.SENT).host
    host.mkdir(parents=True)
    (host / "\x1b]0;x\x07all is well-20991231.log").symlink_to("/dev/null")
    _, said = run(conf, "--once")
    assert "%1B]0;x%07all is well-20991231.log" in said
    assert said.replace("\n", "").isprintable()


def test_unknown_queue_is_refused_with_the_known_ones(conf: Path) -> None:
    status, said = run(conf, "--once", "nosuch")
    assert status == 2
    assert 'there is no queue "nosuch"; known: archive' in said


def test_no_configuration_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "empty.conf").write_text("")
    status, said = run(tmp_path / "empty.conf")
    assert status == 2
    assert "no queue is configured" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_sender_cleanly(conf: Path, queue: Queue, number: int) -> None:
    with start(conf) as process:
        wait_until(queue.running)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, "")
    assert not queue.running()


def test_sender_is_woken_by_a_submit(
    conf: Path, queue: Queue, make_job: Callable[..., Control]
) -> None:
    with start(conf) as process:
        wait_until(queue.running)
        job = make_job(queue)
        wait_until(lambda: queue.where(job.job) is State.SENT)
        process.terminate()
        process.communicate(timeout=PATIENCE)


def test_systemd_is_told_that_the_sender_is_ready_alive_and_stopping(
    conf: Path, queue: Queue, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        with start(conf, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert systemd.recv(100) == b"READY=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            process.terminate()
            process.communicate(timeout=PATIENCE)
        assert systemd.recv(100) == b"STOPPING=1"

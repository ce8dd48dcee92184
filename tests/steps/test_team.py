"""Several connections: one file over all of them, urgent jobs first, servers that take no more."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sshd import Sshd
from steps.test_send import Telescope

from lpxfer.errors import LinkError
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.transports import team
from lpxfer.transports.sftp import SftpTransport
from lpxfer.transports.stripes import Stripes

MIB = 1 << 20
LARGE = 24 * MIB


@pytest.fixture
def telescope(tmp_path: Path, sshd: Sshd, make_job: Callable[..., Control]) -> Iterator[Telescope]:
    telescope = Telescope(tmp_path, sshd, make_job)
    yield telescope
    telescope.halt()


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each piece of a file take a while, and many connections share a large file."""
    take = Stripes.take

    def taken(stripes: Stripes, most: int) -> tuple[int, int] | None:
        piece = take(stripes, most)
        if piece and stripes.size >= LARGE:
            time.sleep(0.01)
        return piece

    monkeypatch.setattr(Stripes, "take", taken)
    monkeypatch.setattr(team, "HELPED", MIB)


def attempts(telescope: Telescope, job_id: str, state: State) -> str:
    path = telescope.queue.root / state.directory / job_id / "attempts"
    return path.read_text() if path.exists() else ""


def test_large_file_goes_over_several_connections(telescope: Telescope, slowly: None) -> None:
    job = telescope.job(bytes(LARGE))
    telescope.serve(connections=2)
    telescope.wait_for(job, State.SENT)
    assert "streams=2" in attempts(telescope, job.job, State.SENT)
    assert telescope.arrived(job) == bytes(LARGE)
    assert not telescope.said


def test_more_connections_than_one_help_in_a_single_pass(
    telescope: Telescope, slowly: None
) -> None:
    job = telescope.job(bytes(LARGE))
    telescope.sender(connections=3).once()
    assert "streams=" in attempts(telescope, job.job, State.SENT)
    assert telescope.arrived(job) == bytes(LARGE)


def test_connection_that_breaks_while_it_helps_loses_nothing(
    telescope: Telescope, slowly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = SftpTransport.help, threading.Event()

    def breaking(link: SftpTransport, *args: object) -> None:
        assert link._connection
        threading.Timer(0.1, link._connection.shut).start()
        broken.set()
        real(link, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(SftpTransport, "help", breaking)
    job = telescope.job(bytes(LARGE))
    telescope.serve(connections=2)
    telescope.wait_for(job, State.SENT)
    assert broken.is_set()
    assert telescope.arrived(job) == bytes(LARGE)
    assert not telescope.said


@pytest.mark.parametrize("connections", [1, 2])
def test_urgent_job_does_not_wait_for_a_large_one(
    telescope: Telescope, slowly: None, connections: int
) -> None:
    large = telescope.job(bytes(4 * LARGE))
    telescope.serve(connections=connections)
    telescope.wait_for(large, State.ACTIVE)
    while "acked=" not in attempts(telescope, large.job, State.ACTIVE):
        time.sleep(0.01)
    urgent = telescope.job(routing=Routing(priority=90))
    telescope.queue.wake()
    telescope.wait_for(urgent, State.SENT)
    assert telescope.state(large) in (State.ACTIVE, State.PENDING)
    telescope.wait_for(large, State.SENT)
    assert telescope.arrived(large) == bytes(4 * LARGE)
    story = attempts(telescope, large.job, State.SENT)
    assert ("gave%20way" in story) is (connections == 1)
    assert telescope.routing(large) == Routing(), "nobody is to blame"


def test_job_of_the_same_priority_makes_nobody_give_way(telescope: Telescope, slowly: None) -> None:
    large = telescope.job(bytes(LARGE))
    telescope.serve(connections=1)
    telescope.wait_for(large, State.ACTIVE)
    other = telescope.job()
    telescope.queue.wake()
    telescope.wait_for(other, State.SENT)
    assert telescope.state(large) is State.SENT
    assert "gave%20way" not in attempts(telescope, large.job, State.SENT)


def test_server_that_takes_no_second_connection_is_no_trouble(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, up = SftpTransport.connect, set[SftpTransport]()

    def limited(link: SftpTransport) -> None:
        if up - {link}:
            raise LinkError("the server closed the connection")
        connect(link)
        up.add(link)

    monkeypatch.setattr(SftpTransport, "connect", limited)
    jobs = [telescope.job() for _ in range(8)]
    telescope.serve(connections=4)
    for job in jobs:
        telescope.wait_for(job, State.SENT)
    assert not telescope.said

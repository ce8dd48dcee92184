"""TCP congestion control: what is asked for is used, and what cannot be had is said."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sshd import Sshd

from lpxfer.errors import LinkError
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.job import Routing
from lpxfer.transports import congestion
from lpxfer.transports.target import open_transport, target

IPV4 = Path("/proc/sys/net/ipv4")


def allowed() -> list[str]:
    path = IPV4 / "tcp_allowed_congestion_control"  # not in every container
    return path.read_text().split() if path.exists() else ["reno"]


def used(sock: socket.socket) -> str:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A connected socket."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sock,
    ):
        yield sock


@pytest.mark.parametrize("name", allowed())
def test_what_is_asked_for_is_used(sock: socket.socket, name: str) -> None:
    congestion.choose(sock, name)
    assert used(sock) == name


def test_system_leaves_the_connection_as_it_was(sock: socket.socket) -> None:
    congestion.choose(sock, "reno")
    congestion.choose(sock, congestion.SYSTEM)
    assert used(sock) == "reno"


def test_without_a_setting_it_is_bbr_where_that_can_be_had(sock: socket.socket) -> None:
    congestion.choose(sock, "reno")
    congestion.choose(sock, "")
    has_bbr = "bbr" in allowed()
    assert used(sock) in (["bbr"] if has_bbr else ["bbr", "reno"])


def test_a_queue_s_setting_goes_as_far_as_the_connection(sshd: Sshd) -> None:
    values = sshd.values()
    settings = QueueConfig(
        "archive",
        remhost=f"{sshd.host}:{sshd.port}",
        remuser=sshd.user,
        rempath="/",
        identity=str(values["identity"]),
        known_hosts=str(values["known_hosts"]),
        congestion="nosuch",
    )
    where = target(settings, Routing(), sshd.user)
    with closing(open_transport(settings, where)) as transport:
        with pytest.raises(LinkError, match='"congestion = nosuch" .*tcp_allowed') as error:
            transport.connect()
        assert "\n" not in str(error.value)
    with closing(open_transport(replace(settings, congestion="reno"), where)) as transport:
        transport.connect()

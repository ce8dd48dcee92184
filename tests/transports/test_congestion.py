"""TCP congestion control: what is asked for is used, and what cannot be had is said."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sshd import Sshd

from lpxfer.errors import LinkError
from lpxfer.transports import congestion
from lpxfer.transports.sftp import SftpTransport

IPV4 = Path("/proc/sys/net/ipv4")


def listed(name: str) -> list[str]:
    return (IPV4 / name).read_text().split()


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


@pytest.mark.parametrize("name", listed("tcp_allowed_congestion_control"))
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
    has_bbr = "bbr" in listed("tcp_allowed_congestion_control")
    assert used(sock) in (["bbr"] if has_bbr else ["bbr", "reno"])


def test_a_setting_goes_as_far_as_the_connection(sshd: Sshd, tmp_path: Path) -> None:
    values = {**sshd.values(), "rempath": "/"}
    with closing(SftpTransport(**values, congestion="nosuch")) as transport:
        with pytest.raises(LinkError, match='"congestion = nosuch" .*tcp_allowed') as error:
            transport.connect()
        assert "\n" not in str(error.value)
    with closing(SftpTransport(**values, congestion="reno")) as transport:
        transport.connect()

"""The sftp transport against servers that are not OpenSSH: ProFTPD, and the embedded one."""

import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from servers import Proftpd
from sshd import HOST, make_key
from transports.conformance import Conformance, Make, put

from lpxfer.errors import LinkError
from lpxfer.transports import embedded
from lpxfer.transports.sftp import SftpTransport


@pytest.fixture(scope="module")
def proftpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proftpd]:
    """A running ProFTPD for tests that leave it as it is."""
    with Proftpd(tmp_path_factory.mktemp("proftpd")) as server:
        assert isinstance(server, Proftpd)
        yield server


@pytest.fixture(scope="module")
def kept(proftpd: Proftpd) -> Iterator[SftpTransport]:
    """One connection for many tests, as a sender keeps it: this server's login is slow."""
    transport = connection(proftpd, "/")
    yield transport
    transport.close()


def connection(proftpd: Proftpd, rempath: str, **values: float) -> SftpTransport:
    """Make an unconnected transport to a ProFTPD."""
    return SftpTransport(
        proftpd.host,
        proftpd.sftp_port,
        proftpd.login[0],
        rempath,
        identity=str(proftpd.identity),
        known_hosts=str(proftpd.known_hosts),
        **values,  # type: ignore[arg-type]
    )


class TestProftpd(Conformance):
    # It follows the link of an LSTAT; incoming is not to be shared with others then.
    test_link_in_place_of_the_part_is_not_followed = None  # type: ignore[assignment]
    test_stat_of_something_that_is_no_file_says_so = None  # type: ignore[assignment]

    @pytest.fixture
    def make(self, proftpd: Proftpd) -> Make:
        return partial(connection, proftpd)

    @pytest.fixture
    def transport(self, kept: SftpTransport, incoming: Path) -> SftpTransport:
        kept.rempath = str(incoming)
        kept.connect()
        return kept


def test_password_of_a_file_logs_in(proftpd: Proftpd, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(proftpd.login[1] + "\n")
    path.chmod(0o600)
    transport = SftpTransport(
        proftpd.host,
        proftpd.sftp_port,
        proftpd.login[0],
        str(tmp_path),
        password_file=str(path),
        known_hosts=str(proftpd.known_hosts),
    )
    transport.connect()
    put(transport, "a", b"abc", 3)
    transport.close()
    path.write_text("wrong\n")
    with pytest.raises(LinkError, match=f"login as tdcin refused with the password in {path}"):
        transport.connect()


class Embedded:
    """The embedded server on a port."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory, self.root = directory, root
        for name in ("id", "host_key"):
            make_key(directory / name)
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        key = (directory / "host_key.pub").read_text()
        (directory / "known_hosts").write_text(f"[{HOST}]:{self.port} {key}")
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        """Serve every visitor until the listener is closed."""
        served = []
        while True:
            try:
                visitor = self.listener.accept()[0]
            except OSError:
                break
            key, known = self.directory / "host_key", self.directory / "id.pub"
            served.append(embedded.serve(visitor, self.root, "observer", key, known))
        for transport in served:
            transport.close()
            transport.join(20)

    def close(self) -> None:
        """Stop listening, and close every connection."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(20)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """The embedded server for all that tests make."""
    root = tmp_path_factory.getbasetemp()
    server = Embedded(tmp_path_factory.mktemp("embedded"), root)
    yield server
    server.close()


class TestEmbedded(Conformance):
    # It does not tell the free space, so nobody can say why a write failed.
    test_full_incoming_is_the_links_trouble_and_is_sent_after_the_repair = None  # type: ignore[assignment]
    test_read_only_incoming_is_the_links_trouble = None  # type: ignore[assignment]

    @pytest.fixture
    def make(self, served: Embedded) -> Make:
        return partial(
            SftpTransport,
            host=HOST,
            port=served.port,
            user="observer",
            identity=str(served.directory / "id"),
            known_hosts=str(served.directory / "known_hosts"),
        )

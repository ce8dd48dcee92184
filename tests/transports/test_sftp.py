"""The sftp transport against a real sshd: the conformance suite, servers that stop, die or lack."""

import os
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sshd import Sshd
from transports.conformance import BIG, MIB, Conformance, Make, noise, put, threads_ended

from lpxfer.errors import AttemptError, LinkError
from lpxfer.transports import packets, wire
from lpxfer.transports.sftp import SftpTransport
from lpxfer.transports.transport import Stat


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A running sshd for tests that leave it as it is."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


class TestSftp(Conformance):
    @pytest.fixture
    def make(self, server: Sshd) -> Make:
        return partial(SftpTransport, **server.values(), stall=30.0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A running sshd without the extensions that a put makes use of."""
    directory = tmp_path_factory.mktemp("sshd")
    with Sshd(directory, sftp="internal-sftp -P fsync,limits,statvfs") as server:
        yield server


class TestSftpWithoutExtensions(Conformance):
    """A server that offers neither fsync nor limits nor statvfs still gets every byte."""

    @pytest.fixture
    def make(self, bare: Sshd) -> Make:
        return partial(SftpTransport, **bare.values(), stall=30.0)  # type: ignore[arg-type]

    # Without statvfs nobody can tell why a write failed.
    test_full_incoming_is_the_links_trouble_and_is_sent_after_the_repair = None  # type: ignore[assignment]
    test_read_only_incoming_is_the_links_trouble = None  # type: ignore[assignment]

    @pytest.mark.root
    def test_full_incoming_ends_the_attempt(
        self, small: Path, make: Make, big: tuple[int, bytes]
    ) -> None:
        transport = make(rempath=str(small))
        transport.connect()
        with pytest.raises(AttemptError, match="a write refused: Failure"):
            put(transport, "a", big[0], BIG)
        transport.close()


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@pytest.fixture
def connect(sshd: Sshd, incoming: Path) -> Iterator[Callable[..., SftpTransport]]:
    """Connects to the test's own server."""
    made, threads = [], threading.enumerate()

    def connected(stall: float = 60.0) -> SftpTransport:
        transport = SftpTransport(**sshd.values(), rempath=str(incoming))  # type: ignore[arg-type]
        made.append(transport)
        transport.connect()
        # Only now: a busy machine may be slow to log in.
        transport.stall = transport.patience = stall
        return transport

    yield connected
    for transport in made:
        transport.close()
    assert threads_ended(threads)  # nothing lives on


@pytest.fixture
def big(tmp_path: Path) -> Iterator[int]:
    """An open file that takes several requests."""
    (tmp_path / "big").write_bytes(noise(BIG))
    with (tmp_path / "big").open("rb") as file:
        yield file.fileno()


# --- servers that stop or die -------------------------------------------------------------------


class Once:
    """Does something at the first acknowledgement; keeps the last offset."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.offset = 0
        self.action = action

    def __call__(self, offset: int) -> None:
        first, self.offset = not self.offset, offset
        if first:
            self.action()


def test_stopped_server_ends_the_attempt_at_the_stall_limit(
    sshd: Sshd, connect: Callable[..., SftpTransport], incoming: Path, big: int
) -> None:
    transport = connect(stall=1.0)
    acked = Once(sshd.pause)
    with pytest.raises(AttemptError, match=r"^no byte acknowledged for 1 s$"):
        put(transport, "a", big, BIG, acked=acked)
    with pytest.raises(LinkError, match=r"no answer for 1 s"):
        transport.connect()  # the kernel takes the connection, the server says nothing
    sshd.resume()
    transport.stall = transport.patience = 60.0
    transport.connect()
    put(transport, "a", big, BIG, start=acked.offset)
    assert (incoming / "a").read_bytes() == noise(BIG)


def test_stopped_server_ends_the_attempt_at_its_time_limit(
    sshd: Sshd, connect: Callable[..., SftpTransport], big: int
) -> None:
    transport = connect()
    with pytest.raises(AttemptError, match=r"^maxftp: not done within 0.5 s$"):
        put(transport, "a", big, BIG, limit=0.5, acked=Once(sshd.pause))


def test_stopped_server_is_the_links_trouble_when_nothing_is_being_sent(
    sshd: Sshd, connect: Callable[..., SftpTransport], tmp_path: Path
) -> None:
    calls: list[Callable[[SftpTransport], object]] = [
        lambda transport: transport.stat("a"),
        lambda transport: transport.names(str(tmp_path)),
        lambda transport: transport.read(str(tmp_path / "a"), 0, 1),
    ]
    transports = [connect(stall=0.3) for _ in calls]
    sshd.pause()
    for call, transport in zip(calls, transports, strict=True):
        with pytest.raises(LinkError, match=r"no answer for 0.3 s"):
            call(transport)


def test_cut_ends_a_call_that_a_stopped_server_blocks(
    sshd: Sshd, connect: Callable[..., SftpTransport], big: int
) -> None:
    transport = connect()
    timer = threading.Timer(0.3, transport.cut, ["canceled by alice"])
    with pytest.raises(AttemptError, match="canceled by alice"):
        put(transport, "a", big, BIG, acked=Once(lambda: (sshd.pause(), timer.start())))
    timer.join()


def test_cut_ends_a_connect_that_a_stopped_server_blocks(
    sshd: Sshd, connect: Callable[..., SftpTransport]
) -> None:
    transport = connect()
    transport.close()
    sshd.pause()
    timer = threading.Timer(0.3, transport.cut, ["stopping"])
    timer.start()
    with pytest.raises(AttemptError, match="stopping"):
        transport.connect()
    timer.join()


def test_server_killed_in_the_middle_is_the_links_trouble_and_loses_nothing(
    sshd: Sshd, connect: Callable[..., SftpTransport], incoming: Path, big: int
) -> None:
    transport = connect()
    acked = Once(sshd.stop)
    with pytest.raises(LinkError, match="connection lost"):
        put(transport, "a", big, BIG, acked=acked)
    with pytest.raises(LinkError, match="Connection refused"):
        transport.connect()
    sshd.start()
    transport.connect()
    put(transport, "a", big, BIG, start=acked.offset)
    assert (incoming / "a").read_bytes() == noise(BIG)


def test_connection_that_died_while_idle_is_made_anew(
    sshd: Sshd, connect: Callable[..., SftpTransport]
) -> None:
    transport = connect()
    sshd.drop_connections()
    with pytest.raises(LinkError, match="connection lost"):
        transport.stat("a")
    transport.connect()
    assert transport.stat("a") == [None]


def test_keys_are_exchanged_again_while_bytes_flow(
    tmp_path: Path, incoming: Path, big: int
) -> None:
    with Sshd(tmp_path / "sshd", extra="LogLevel DEBUG\nRekeyLimit 256K") as sshd:
        transport = SftpTransport(**sshd.values(), rempath=str(incoming))  # type: ignore[arg-type]
        transport.connect()
        put(transport, "a", big, BIG)
        transport.close()
        assert sshd.log().count("rekeying out") >= 2
    assert (incoming / "a").read_bytes() == noise(BIG)


# --- what a server refuses ------------------------------------------------------------------------


def test_refused_write_with_space_left_ends_the_attempt(
    tmp_path: Path, incoming: Path, big: int
) -> None:
    """A quota, say: here the limit of the server's process."""
    sshd = Sshd(tmp_path / "sshd")
    try:
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))  # noqa: E731
        sshd.start(preexec_fn=limit, restore_signals=False)
        transport = SftpTransport(**sshd.values(), rempath=str(incoming))  # type: ignore[arg-type]
        transport.connect()
        with pytest.raises(AttemptError, match="incoming: a write refused: Failure"):
            put(transport, "a", big, BIG)
        put(transport, "b", b"abc", 3)  # over the same connection
        transport.close()
    finally:
        sshd.stop()


def test_failed_sync_is_not_repeated_but_the_file_sent_anew(
    connect: Callable[..., SftpTransport], incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = connect()
    offsets: list[int] = []

    def fail(session: wire.Session, handle: bytes) -> wire.Answer[None]:
        def answer() -> None:
            raise packets.Refused(packets.FAILURE, "Input/output error")

        return answer

    with monkeypatch.context() as patch:
        patch.setattr(wire.Session, "fsync", fail)
        with pytest.raises(AttemptError, match="syncing refused: Input/output error"):
            put(transport, "a", b"abc", 3, acked=offsets.append)
    assert transport.stat(".a.part") == [Stat(0, 0o600)]
    put(transport, "a", b"abc", 3, start=3, acked=offsets.append)
    assert (incoming / "a").read_bytes() == b"abc"
    assert offsets == [3, 3]


def test_server_that_lets_no_mode_be_set_is_said_to(tmp_path: Path, incoming: Path) -> None:
    with Sshd(tmp_path / "sshd", sftp="internal-sftp -P fsetstat") as sshd:
        transport = SftpTransport(**sshd.values(), rempath=str(incoming))  # type: ignore[arg-type]
        transport.connect()
        with pytest.raises(LinkError, match="must allow fsetstat"):
            put(transport, "a", b"abc", 3)
        transport.close()
    assert os.listdir(incoming) == [".a.part"]


def test_deposit_account_s_requests_are_enough(tmp_path: Path, incoming: Path) -> None:
    """The requests that the shipped sshd drop-in leaves are all that a put needs."""
    denied = "remove,rmdir,mkdir,setstat,lsetstat,posix-rename,hardlink,symlink,readlink"
    with Sshd(tmp_path / "sshd", sftp=f"internal-sftp -u 0137 -P {denied}") as sshd:
        transport = SftpTransport(**sshd.values(), rempath=str(incoming))  # type: ignore[arg-type]
        transport.connect()
        put(transport, "a", b"abc", 3)
        assert transport.stat("a") == [Stat(3, 0o440)]
        transport.close()


@pytest.fixture
def forbidden(incoming: Path) -> Iterator[Path]:
    """A part that is not ours to write; for root only an immutable one is."""
    path = incoming / ".a.part"
    path.write_bytes(b"another's")
    path.chmod(0o442)  # not sealed
    if os.geteuid() == 0:
        subprocess.run(["chattr", "+i", path], check=True)
    yield path
    if os.geteuid() == 0:
        subprocess.run(["chattr", "-i", path], check=True)


def test_part_of_another_account_ends_the_attempt_and_not_the_queue(
    connect: Callable[..., SftpTransport], forbidden: Path
) -> None:
    transport = connect()
    with pytest.raises(AttemptError, match="it has to be removed at the archive site"):
        put(transport, "a", b"abc", 3)
    put(transport, "b", b"abc", 3)

"""The embedded SFTP server, as paramiko's own client sees it."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from lpxfer.errors import LinkError
from lpxfer.transports import embedded

USER = "observer"
PATIENCE = 20


class Served:
    """A directory served to whoever `connect`s, until the end of the test."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "a site"
        self.root.mkdir()
        self.host_key, self.known = directory / "host_key", directory / "authorized_keys"
        paramiko.ECDSAKey.generate().write_private_key_file(self.host_key)
        self.key = paramiko.ECDSAKey.generate()
        self.known.write_text(f"# a comment\n{self.key.get_name()} {self.key.get_base64()} me\n")
        self.ends: list[paramiko.Transport] = []

    def connect(self) -> paramiko.Transport:
        ours, theirs = socket.socketpair()
        self.ends.append(
            embedded.serve(theirs, self.root, USER, self.host_key, self.known),
        )
        client = paramiko.Transport(ours)
        self.ends.append(client)
        client.start_client(timeout=PATIENCE)
        return client

    def log_in(self) -> paramiko.SFTPClient:
        client = self.connect()
        client.auth_publickey(USER, self.key)
        sftp = client.open_sftp_client()
        sftp.get_channel().settimeout(PATIENCE)
        return sftp


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path)
    yield server
    for end in reversed(server.ends):
        end.close()
        end.join(PATIENCE)


def test_key_of_the_account_is_let_in_and_nobody_else(served):
    with pytest.raises(paramiko.AuthenticationException):
        served.connect().auth_publickey("root", served.key)
    client = served.connect()
    with pytest.raises(paramiko.AuthenticationException):
        client.auth_publickey(USER, paramiko.ECDSAKey.generate())
    with pytest.raises(paramiko.AuthenticationException):
        client.auth_password(USER, "")
    client.auth_publickey(USER, served.key)
    with pytest.raises(paramiko.ChannelException):
        client.open_channel("direct-tcpip", ("127.0.0.1", 22), ("127.0.0.1", 1))
    channel = client.open_session(timeout=PATIENCE)
    with pytest.raises(paramiko.SSHException):
        channel.exec_command("id")


def test_key_that_is_taken_off_the_list_is_refused_from_then_on(served):
    served.log_in()
    served.known.write_text("")
    with pytest.raises(paramiko.AuthenticationException):
        served.log_in()


def test_host_key_that_cannot_be_read_is_a_link_error(served):
    served.host_key.write_text("nonsense")
    ours, theirs = socket.socketpair()
    with ours, pytest.raises(LinkError, match="host key"):
        embedded.serve(theirs, served.root, USER, served.host_key, served.known)
    assert theirs.fileno() == -1  # closed


def test_file_is_written_sealed_renamed_and_read_back(served):
    sftp, root = served.log_in(), served.root
    data = os.urandom(3 << 20)
    with sftp.open(f"{root}/.a.part", "wb") as remote:
        remote.set_pipelined(True)
        remote.write(data)
        remote.chmod(0o440)
        assert remote.stat().st_size == len(data)
    sftp.rename(f"{root}/.a.part", f"{root}/a")
    assert os.listdir(root) == ["a"]
    assert (root / "a").read_bytes() == data
    assert (root / "a").stat().st_mode & 0o7777 == 0o440
    with sftp.open(f"{root}/a") as remote:
        remote.prefetch(len(data))
        assert remote.read() == data
    assert sftp.stat("a").st_size == len(data)  # relative names begin at the directory


def test_handle_cuts_a_file_and_keeps_setuid_bits_away(served):
    sftp, root = served.log_in(), served.root
    with sftp.open("a", "wb") as remote:
        remote.write(b"0123456789")
        remote.truncate(4)
        remote.chmod(0o4755)
        with pytest.raises(OSError, match="unsupported"):
            remote.utime((1, 1))
    assert (root / "a").read_bytes() == b"0123"
    assert (root / "a").stat().st_mode & 0o7777 == 0o755


def test_rename_never_overwrites(served):
    sftp, root = served.log_in(), served.root
    (root / "a").write_text("old")
    (root / "b").write_text("new")
    with pytest.raises(OSError, match="Failure"):
        sftp.rename("b", "a")
    with pytest.raises(OSError, match="unsupported"):
        sftp.posix_rename("b", "a")
    assert (root / "a").read_text() == "old"
    assert (root / "b").read_text() == "new"


def test_nothing_can_be_removed_made_or_linked(served):
    sftp, root = served.log_in(), served.root
    (root / "a").write_text("kept")
    (root / "d").mkdir()
    for call in (
        lambda: sftp.remove("a"),
        lambda: sftp.rmdir("d"),
        lambda: sftp.mkdir("e"),
        lambda: sftp.symlink("a", "l"),
        lambda: sftp.chmod("a", 0o777),
        lambda: sftp.truncate("a", 0),
    ):
        with pytest.raises(OSError, match="unsupported"):
            call()
    assert sorted(sftp.listdir(str(root))) == ["a", "d"]
    assert (root / "a").read_text() == "kept"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "d/../../secret", "/", ".."])
def test_paths_outside_are_denied(served, path):
    (served.root.parent / "secret").write_text("secret")
    (served.root / "d").mkdir()
    (served.root / "a").write_text("a")
    sftp = served.log_in()
    for call in (
        lambda: sftp.stat(path),
        lambda: sftp.lstat(path),
        lambda: sftp.open(path),
        lambda: sftp.listdir(path),
        lambda: sftp.rename("a", path),
        lambda: sftp.rename(path, "b"),
    ):
        with pytest.raises(PermissionError):
            call()
    assert os.listdir(served.root.parent / "a site" / "d") == []


def test_links_do_not_lead_out(served):
    (served.root.parent / "secret").write_text("secret")
    (served.root / "out").symlink_to("..")
    (served.root / "file").symlink_to("../secret")
    sftp = served.log_in()
    for call in (
        lambda: sftp.stat("out/secret"),
        lambda: sftp.open("out/secret"),
        lambda: sftp.open("file"),
        lambda: sftp.open("file", "w"),
        lambda: sftp.listdir("out"),
    ):
        with pytest.raises(OSError):
            call()
    assert sftp.stat("file").st_mode & 0o170000 == 0o120000  # the link itself
    assert (served.root.parent / "secret").read_text() == "secret"


def test_fifo_does_not_stop_the_server(served):
    os.mkfifo(served.root / "fifo")
    sftp = served.log_in()
    with pytest.raises(OSError):
        sftp.open("fifo")
    assert sftp.listdir(".") == ["fifo"]


def test_missing_file_is_said_to_be_missing(served):
    sftp = served.log_in()
    for call in (lambda: sftp.stat("a"), lambda: sftp.open("a"), lambda: sftp.listdir("a")):
        with pytest.raises(FileNotFoundError):
            call()


def test_two_clients_are_served_at_once(served):
    sftps = [served.log_in() for _ in range(2)]

    def write(number: int) -> None:
        with sftps[number].open(f"f{number}", "wb") as remote:
            remote.write(bytes([number]) * 500_000)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for number in range(2):
        assert (served.root / f"f{number}").read_bytes() == bytes([number]) * 500_000

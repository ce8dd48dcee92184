"""Logging in: known hosts, keys, passwords, and what is said when it does not work."""

import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sshd import HOST, PATIENCE, Sshd, free_port, make_key
from transports.conformance import threads_ended

from lpxfer.errors import LinkError
from lpxfer.transports.sftp import SftpTransport

PASSWORD = "correct horse"


@pytest.fixture
def connect(sshd: Sshd) -> Iterator[Callable[..., None]]:
    """Connects to the test's own server once; arguments replace what the transport needs."""
    threads = threading.enumerate()

    def connected(**values: Any) -> None:
        arguments: dict[str, Any] = {**sshd.values(), "rempath": "/", **values}
        transport = SftpTransport(**arguments)
        try:
            transport.connect()
            assert transport.stat("nowhere") == [None]
        finally:
            transport.close()

    yield connected
    assert threads_ended(threads)  # nothing lives on, not even a handshake's timer


def only_line(error: pytest.ExceptionInfo[LinkError]) -> str:
    """Return the message, which is one line without a secret."""
    text = str(error.value)
    assert "\n" not in text
    assert PASSWORD not in text
    return text


# --- known hosts ------------------------------------------------------------------------------


def test_unknown_host_key_is_refused_with_the_way_to_add_it(
    sshd: Sshd, connect: Callable[..., None]
) -> None:
    sshd.known_hosts.unlink()
    with pytest.raises(LinkError) as error:
        connect()
    text = only_line(error)
    add = f"ssh-keyscan -t ed25519 -p {sshd.port} {sshd.host} >> {sshd.known_hosts}"
    assert "unknown host key SHA256:" in text
    assert text.endswith(add)
    # The fingerprint is the one that the archive site reads from its own key.
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", sshd.directory / "host_key.pub"], capture_output=True, text=True
    )
    assert shown.stdout.split()[1] in text
    subprocess.run(add, shell=True, check=True, stderr=subprocess.DEVNULL)
    connect()


def test_changed_host_key_is_refused_with_the_way_to_replace_it(
    sshd: Sshd, connect: Callable[..., None]
) -> None:
    sshd.change_host_key()
    with pytest.raises(LinkError, match="THE HOST KEY HAS CHANGED") as error:
        connect()
    remove, add = only_line(error).split("if the new key is theirs: ")[1].split(", then: ")
    for command in (remove, add):
        subprocess.run(command, shell=True, check=True, capture_output=True)
    connect()


def test_any_of_several_known_keys_will_do(sshd: Sshd, connect: Callable[..., None]) -> None:
    known = sshd.known_hosts.read_text()
    make_key(sshd.directory / "old")
    old = (sshd.directory / "old.pub").read_text()
    sshd.known_hosts.write_text(f"[{sshd.host}]:{sshd.port} {old}# comment\n\nnonsense\n{known}")
    connect()


def test_hashed_known_hosts_are_understood(sshd: Sshd, connect: Callable[..., None]) -> None:
    subprocess.run(["ssh-keygen", "-H", "-f", sshd.known_hosts], check=True, capture_output=True)
    assert "127.0.0.1" not in sshd.known_hosts.read_text()
    connect()


def test_revoked_key_is_refused(sshd: Sshd, connect: Callable[..., None]) -> None:
    known = sshd.known_hosts.read_text()
    key = known.partition(" ")[2]
    sshd.known_hosts.write_text(f"{known}@cert-authority * {key}")
    connect()
    sshd.known_hosts.write_text(f"{known}@revoked * {key}")
    with pytest.raises(LinkError, match="unknown host key"):
        connect()


def test_key_known_for_another_port_is_unknown(sshd: Sshd, connect: Callable[..., None]) -> None:
    sshd.known_hosts.write_text(sshd.known_hosts.read_text().replace(f":{sshd.port}", ":1"))
    with pytest.raises(LinkError, match="unknown host key"):
        connect()


# --- keys ---------------------------------------------------------------------------------------


def test_refused_key_is_named(sshd: Sshd, connect: Callable[..., None]) -> None:
    sshd.reject_key()
    with pytest.raises(LinkError) as error:
        connect()
    assert only_line(error).endswith(f"login as {sshd.user} refused with the key {sshd.identity}")
    sshd.accept_key()
    connect()


def test_key_that_others_may_read_is_not_used(sshd: Sshd, connect: Callable[..., None]) -> None:
    sshd.identity.chmod(0o644)
    with pytest.raises(LinkError, match=rf"others may read .*; chmod 600 {sshd.identity}"):
        connect()


def test_key_that_cannot_be_used_is_named(
    sshd: Sshd, connect: Callable[..., None], tmp_path: Path
) -> None:
    with pytest.raises(LinkError, match="cannot read the private key .*none: No such file"):
        connect(identity=str(tmp_path / "none"))
    (tmp_path / "nonsense").write_text("nonsense")
    (tmp_path / "nonsense").chmod(0o600)
    with pytest.raises(LinkError, match="nonsense is not a private key"):
        connect(identity=str(tmp_path / "nonsense"))
    shutil.copy(sshd.identity, tmp_path / "locked")
    command = ["ssh-keygen", "-q", "-p", "-N", "a passphrase", "-f", tmp_path / "locked"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(LinkError, match="locked has a passphrase: use an agent"):
        connect(identity=str(tmp_path / "locked"))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys_log_in_too(
    sshd: Sshd, connect: Callable[..., None], tmp_path: Path, kind: str
) -> None:
    key = tmp_path / kind
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
    (sshd.directory / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    connect(identity=str(key))


def test_users_own_keys_and_known_hosts_are_found(
    sshd: Sshd, connect: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    values: dict[str, Any] = {"identity": None, "known_hosts": None, "user": ""}
    shutil.copy(sshd.known_hosts, tmp_path / ".ssh")
    with pytest.raises(LinkError, match="no key and no password to log in with"):
        connect(**values)
    shutil.copy(sshd.identity, tmp_path / ".ssh" / "id_ed25519")
    connect(**values)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An ssh-agent, empty, and a home without keys."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    yield
    process.kill()
    process.wait()


@pytest.mark.usefixtures("agent")
def test_agents_keys_are_used(sshd: Sshd, connect: Callable[..., None]) -> None:
    subprocess.run(["ssh-add", "-q", sshd.identity], check=True)
    connect(identity=None)
    sshd.reject_key()
    with pytest.raises(LinkError, match="refused with the agent's key test"):
        connect(identity=None)


# --- passwords ------------------------------------------------------------------------------------


def test_password_file_that_is_unsafe_is_refused_before_it_is_read(
    sshd: Sshd, connect: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "password"
    values: dict[str, Any] = {"identity": None, "password_file": str(path)}
    with pytest.raises(LinkError, match=f"cannot read the password file {path}: No such file"):
        connect(**values)
    path.write_text(PASSWORD)
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(LinkError) as error:
            connect(**values)
        assert only_line(error) == f"others may read the password file {path}; chmod 600 {path}"
    path.rename(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    with pytest.raises(LinkError, match=f"cannot read the password file {path}"):
        connect(**values)
    path.unlink()
    path.mkdir(mode=0o700)
    with pytest.raises(LinkError, match="not a regular file"):
        connect(**values)


def test_refused_password_is_not_shown(
    sshd: Sshd,
    connect: Callable[..., None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(0, "paramiko")
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    with pytest.raises(LinkError, match=f"refused with the password in {path}") as error:
        connect(identity=None, password_file=str(path))
    only_line(error)
    assert PASSWORD not in caplog.text
    assert capfd.readouterr() == ("", "")


# --- no server, or none of the right sort ---------------------------------------------------------


@contextmanager
def listener(greeting: bytes | None) -> Iterator[int]:
    """Listen on a port; greet every visitor and close, or stay silent."""
    with socket.create_server((HOST, 0)) as server:

        def greet() -> None:
            while True:
                try:
                    visitor = server.accept()[0]
                except OSError:
                    return
                with visitor:
                    if greeting is not None:
                        visitor.sendall(greeting)
                    else:
                        visitor.recv(1000)
                        visitor.recv(1)

        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (None, r"no answer for 0.3 s"),
        (b"", "no SSH server answers there"),
        (b"220 ftp.example.org ready\r\n", "no SSH server answers there"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the server closed the connection|Connection reset by peer"),
        (b"SSH-1.5-old\r\n", "Incompatible version"),
    ],
)
def test_what_is_no_ssh_server_is_said_to_be_none(
    connect: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    greeting: bytes | None,
    said: str,
) -> None:
    with listener(greeting) as port, pytest.raises(LinkError, match=said) as error:
        connect(port=port, stall=0.3 if greeting is None else 60.0)
    assert only_line(error).startswith(f"{HOST}:{port}: ")
    assert capfd.readouterr() == ("", "")  # paramiko logs nothing by itself


@pytest.mark.parametrize("seed", range(20))
def test_nonsense_from_a_server_is_the_links_trouble(
    connect: Callable[..., None], capfd: pytest.CaptureFixture[str], seed: int
) -> None:
    chance = random.Random(seed)
    body = chance.randbytes(chance.choice([3, 30, 300]))
    packet = (len(body) + 5).to_bytes(4, "big") + bytes([4, chance.choice([1, 2, 20, 31])]) + body
    with listener(b"SSH-2.0-x\r\n" + packet + bytes(4)) as port, pytest.raises(LinkError) as error:
        connect(port=port)
    only_line(error)
    assert capfd.readouterr() == ("", "")


def test_nobody_listening_is_said_to_be_so(connect: Callable[..., None]) -> None:
    port = free_port()
    with pytest.raises(LinkError) as error:
        connect(port=port)
    assert only_line(error) == f"{HOST}:{port}: Connection refused"


def test_host_without_an_address_is_said_to_be_so(connect: Callable[..., None]) -> None:
    for host in ("no-such-host.invalid", "x" * 64, ""):
        with pytest.raises(LinkError, match="cannot find the host's address"):
            connect(host=host)


def test_server_without_sftp_is_said_to_have_none(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", sftp="/nonexistent") as sshd:
        transport = SftpTransport(**sshd.values(), rempath="/")  # type: ignore[arg-type]
        with pytest.raises(LinkError, match="SFTP"):
            transport.connect()


def test_fast_cipher_is_preferred(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", extra="LogLevel DEBUG") as sshd:
        transport = SftpTransport(**sshd.values(), rempath="/")  # type: ignore[arg-type]
        transport.connect()
        transport.close()
        assert "client->server cipher: aes128-gcm@openssh.com" in sshd.log()


def test_weak_cipher_is_never_used(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", extra="Ciphers aes128-cbc") as sshd:
        transport = SftpTransport(**sshd.values(), rempath="/")  # type: ignore[arg-type]
        with pytest.raises(LinkError, match="no acceptable ciphers"):
            transport.connect()

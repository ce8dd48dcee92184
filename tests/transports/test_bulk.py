"""Batches of packets over paramiko: every cipher, new keys in the middle, windows of any size."""

from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from sshd import Sshd
from transports.conformance import BIG, noise, put

from lpxfer.transports import bulk, ssh
from lpxfer.transports.sftp import SftpTransport


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd"), extra="LogLevel DEBUG") as server:
        yield server


@pytest.fixture
def send(server: Sshd, tmp_path: Path) -> Iterator[Callable[[], SftpTransport]]:
    """Sends a large file and checks it."""
    made: list[SftpTransport] = []

    def sent() -> SftpTransport:
        transport = SftpTransport(**server.values(), rempath=str(tmp_path))  # type: ignore[arg-type]
        made.append(transport)
        transport.connect()
        for name in ("a", "b"):
            put(transport, name, noise(BIG), BIG)
            assert (tmp_path / name).read_bytes() == noise(BIG)
        return transport

    yield sent
    for transport in made:
        transport.close()


def packetizer(transport: SftpTransport) -> bulk.BulkPacketizer:
    assert transport._connection and transport._connection._transport
    found: bulk.BulkPacketizer = transport._connection._transport.packetizer  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("cipher", ssh.CIPHERS)
def test_every_cipher_carries_every_byte(
    send: Callable[[], SftpTransport], monkeypatch: pytest.MonkeyPatch, cipher: str
) -> None:
    monkeypatch.setattr(ssh, "CIPHERS", [cipher])
    batches = packetizer(send())._bytes > 2 * BIG
    assert batches is ("gcm" in cipher)


def test_without_encryption_into_a_buffer_packets_go_one_by_one(
    send: Callable[[], SftpTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older cryptography has no encrypt_into."""

    class Old:
        def __init__(self, key: bytes) -> None:
            self.real = paramiko.Transport._cipher_info["aes256-gcm@openssh.com"]["class"](key)
            self.encrypt, self.decrypt = self.real.encrypt, self.real.decrypt

    known = paramiko.Transport._cipher_info | {}
    known["aes128-gcm@openssh.com"] = known["aes128-gcm@openssh.com"] | {"class": Old}
    monkeypatch.setattr(paramiko.Transport, "_cipher_info", known)
    assert packetizer(send())._bytes == 0


@pytest.mark.parametrize("limit", ["REKEY_BYTES", "REKEY_PACKETS"])
def test_keys_are_exchanged_when_it_is_time(
    server: Sshd, send: Callable[[], SftpTransport], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    asked = "SSH2_MSG_KEXINIT received"
    before = server.log().count(asked)
    monkeypatch.setattr(bulk.BulkPacketizer, limit, 1 << (21 if "BYTES" in limit else 6))
    send()
    assert server.log().count(asked) > before + 3  # the first is the login's


def test_window_of_the_server_is_never_overrun(
    send: Callable[[], SftpTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = ssh.Channel._room
    most = []

    def noted(channel: ssh.Channel, size: int) -> int:
        found = room(channel, size)
        most.append(found)
        assert channel._channel.out_window_size >= 0
        return found

    monkeypatch.setattr(ssh.Channel, "_room", noted)
    send()
    assert max(most) <= bulk.BATCH * bulk.PACKET

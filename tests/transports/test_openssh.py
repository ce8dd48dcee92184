"""The openssh transport against a real sshd: the conformance suite, jump hosts, what ssh leaves."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sshd import HOST, PATIENCE, Sshd, descendants, free_port, make_key
from transports.conformance import BIG, Conformance, Make, noise, put, threads_ended

from lpxfer.errors import AttemptError, LinkError
from lpxfer.transports import openssh
from lpxfer.transports.account import Account
from lpxfer.transports.sftp import SftpTransport

ROUNDS = 50

SFTP_SERVERS = "/usr/lib/openssh:/usr/libexec/openssh:/usr/lib/ssh:/usr/libexec"

#: Whatever the configuration is of who runs the tests.
ALONE = ("-F", "none")


def over_ssh(*extra: str) -> Callable[..., SftpTransport]:
    """Makes transports over ssh, with these options before all others."""
    return partial(SftpTransport, open_connection=partial(openssh.Connection, extra=extra or ALONE))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A running sshd for tests that leave it as it is."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


class TestOpenssh(Conformance):
    @pytest.fixture
    def make(self, server: Sshd) -> Make:
        return partial(over_ssh(), **server.values(), stall=30.0)


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@pytest.fixture
def big(tmp_path: Path) -> Iterator[int]:
    """An open file that takes several requests."""
    (tmp_path / "big").write_bytes(noise(BIG))
    with (tmp_path / "big").open("rb") as file:
        yield file.fileno()


def running() -> list[int]:
    """List every ssh that we have started or that one of them has, also ones not waited for."""
    found = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "ssh\n":
                found.append(pid)
    return found


def open_files() -> list[str]:
    """List what our descriptors are, but for the one that lists them."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return sorted(name.partition(":")[0] for name in found)


@pytest.fixture
def connect(tmp_path: Path, incoming: Path) -> Iterator[Callable[..., SftpTransport]]:
    """Connects to a server; arguments replace what the transport needs. Nothing may be left."""
    made: list[SftpTransport] = []
    files, threads = open_files(), threading.enumerate()

    def connected(server: Sshd, *extra: str, **values: Any) -> SftpTransport:
        arguments: dict[str, Any] = {**server.values(), "rempath": str(incoming), **values}
        made.append(transport := over_ssh(*extra)(**arguments))
        transport.connect()
        return transport

    yield connected
    for transport in made:
        transport.close()
    assert threads_ended(threads)
    assert not running()
    assert open_files() == files


def only_line(error: pytest.ExceptionInfo[LinkError]) -> str:
    text = str(error.value)
    assert "\n" not in text and text.isprintable()
    return text


# --- host keys ------------------------------------------------------------------------------------


def test_unknown_host_key_is_refused_with_the_way_to_look_at_it(
    server: Sshd, connect: Callable[..., SftpTransport], tmp_path: Path
) -> None:
    with pytest.raises(LinkError) as error:
        connect(server, known_hosts=str(tmp_path / "none"))
    text = only_line(error)
    name = f"[{HOST}]:{server.port}"
    assert text.startswith(f"{HOST}:{server.port}: unknown host key of {name}; nothing was sent")
    command = shlex.split(text.partition("archive site says: ")[2])
    assert command[0] == "ssh" and command[-1] == HOST
    assert f'UserKnownHostsFile="{tmp_path}/none"' in command


def test_changed_host_key_is_refused_with_the_way_to_replace_it(
    sshd: Sshd, connect: Callable[..., SftpTransport]
) -> None:
    sshd.change_host_key()
    with pytest.raises(LinkError, match="HAS CHANGED") as error:
        connect(sshd)
    text = only_line(error)
    public = sshd.directory / "host_key.pub"
    shown = subprocess.run(["ssh-keygen", "-l", "-f", public], capture_output=True, text=True)
    assert shown.stdout.split()[1] in text
    remove = text.partition("if the new key is theirs: ")[2].partition(", then log in")[0]
    subprocess.run(remove, shell=True, check=True, capture_output=True)
    with pytest.raises(LinkError, match="unknown host key"):
        connect(sshd)
    sshd.trust_host_key()
    connect(sshd)


def test_revoked_key_is_refused(server: Sshd, connect: Callable[..., Any], tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    key = server.known_hosts.read_text().partition(" ")[2]
    known.write_text(f"{server.known_hosts.read_text()}@revoked * {key}")
    with pytest.raises(LinkError, match="key is revoked in known_hosts; nothing was sent"):
        connect(server, known_hosts=str(known))


def test_configuration_of_ssh_cannot_take_away_what_must_hold(
    server: Sshd, connect: Callable[..., SftpTransport], tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "StrictHostKeyChecking no\nNoHostAuthenticationForLocalhost yes\n"
        "ControlMaster auto\nControlPersist yes\n"
        f"ControlPath {tmp_path}/control\nRemoteCommand ls\nRequestTTY force\nBatchMode no\n"
        f"PermitLocalCommand yes\nLocalCommand touch {tmp_path}/touched\nForwardAgent yes\n"
        f"ForwardX11 yes\nLocalForward {free_port()} {HOST}:1\nCompression yes\nLogLevel QUIET\n"
    )
    transport = connect(server, "-F", str(config))
    put(transport, "a", b"abc", 3)
    assert not (tmp_path / "control").exists()
    assert not (tmp_path / "touched").exists()
    with pytest.raises(LinkError, match="unknown host key"):
        connect(server, "-F", str(config), known_hosts=str(tmp_path / "none"))


# --- whom ssh logs in to, and how -----------------------------------------------------------------


def test_paths_may_hold_blanks_and_percent_signs(
    server: Sshd, connect: Callable[..., SftpTransport], tmp_path: Path
) -> None:
    directory = tmp_path / "50%h a site"
    directory.mkdir()
    shutil.copy(server.identity, directory)
    shutil.copy(server.known_hosts, directory)
    connect(
        server, identity=str(directory / "id"), known_hosts=str(directory / server.known_hosts.name)
    )


def test_refused_login_is_said_to_be_refused(
    sshd: Sshd, connect: Callable[..., SftpTransport], tmp_path: Path
) -> None:
    sshd.reject_key()
    with pytest.raises(LinkError) as error:
        connect(sshd)
    text = only_line(error)
    assert f"login as {sshd.user} refused ({sshd.user}@{HOST}: publickey); set identity" in text


def test_keys_that_cannot_be_used_are_named(
    server: Sshd, connect: Callable[..., SftpTransport], tmp_path: Path
) -> None:
    key = tmp_path / "a key"
    with pytest.raises(LinkError, match="cannot read the private key .*a key: No such file"):
        connect(server, identity=str(key))
    key.write_text("nonsense")
    key.chmod(0o644)
    with pytest.raises(LinkError, match="others may read the private key .*; chmod 600 '.*a key'"):
        connect(server, identity=str(key))
    key.chmod(0o600)
    with pytest.raises(LinkError, match='login as .* refused .*; Load key ".*a key": '):
        connect(server, identity=str(key))


def test_key_with_a_passphrase_asks_nobody(
    server: Sshd,
    connect: Callable[..., SftpTransport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = tmp_path / "asked"
    askpass = tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\ntouch {asked}\n")
    askpass.chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(askpass))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("DISPLAY", ":1")
    shutil.copy(server.identity, tmp_path / "locked")
    command = ["ssh-keygen", "-q", "-p", "-N", "a passphrase", "-f", tmp_path / "locked"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(LinkError, match="refused"):
        connect(server, identity=str(tmp_path / "locked"))
    assert not asked.exists()


def test_password_file_is_refused_with_the_way_out(
    server: Sshd, connect: Callable[..., SftpTransport]
) -> None:
    with pytest.raises(LinkError, match=r"ssh reads no password .*set transport = sftp$"):
        connect(server, password_file="/nowhere")


@pytest.mark.parametrize(
    ("values", "what"),
    [({"host": "-oProxyCommand=id"}, "host"), ({"host": "$(id)\n"}, "host"),
     ({"host": ""}, "host"), ({"user": "-oProxyCommand=id"}, "user")],
)  # fmt: skip
def test_what_ssh_may_not_be_given_is_refused_before_it_is_started(
    server: Sshd,
    connect: Callable[..., SftpTransport],
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, str],
    what: str,
) -> None:
    monkeypatch.delattr(openssh, "_start")
    with pytest.raises(LinkError, match=f"is not a {what} that ssh may be given") as error:
        connect(server, **values)
    only_line(error)


def test_host_is_never_taken_for_an_option() -> None:
    assert openssh.arguments(Account("archive", 0)) == ["--", "archive"]
    words = openssh.arguments(Account("::1", 2222, "depositor"))
    assert words == ["-p", "2222", "-l", "depositor", "--", "::1"]


def test_what_is_not_said_is_left_to_the_configuration_of_ssh(
    server: Sshd, connect: Callable[..., SftpTransport], tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host archive\n HostName {HOST}\n Port {server.port}\n User {server.user}\n"
        f' IdentityFile "{server.identity}"\n UserKnownHostsFile "{server.known_hosts}"\n'
    )
    unsaid = {"host": "archive", "port": 0, "user": "", "identity": None, "known_hosts": None}
    transport = connect(server, "-F", str(config), **unsaid)
    put(transport, "a", b"abc", 3)
    assert transport.label == "archive"
    config.write_text(config.read_text().replace(f"Port {server.port}", f"Port {free_port()}"))
    with pytest.raises(LinkError, match=rf"^archive: {HOST} port \d+: Connection refused$"):
        connect(server, "-F", str(config), **unsaid)


def test_server_with_old_algorithms_only_is_reached_where_ssh_config_allows_them(
    tmp_path: Path, incoming: Path, connect: Callable[..., SftpTransport]
) -> None:
    old = "Ciphers aes128-cbc\nMACs hmac-sha1\nKexAlgorithms diffie-hellman-group14-sha1"
    config = tmp_path / "config"
    config.write_text(f"Host {HOST}\n{old}\n")
    with Sshd(tmp_path / "old", extra=old) as server:
        with pytest.raises(LinkError, match="no matching key exchange method found. Their offer"):
            connect(server)
        transport = connect(server, "-F", str(config))
        put(transport, "a", noise(BIG), BIG)
        transport.close()
    assert (incoming / "a").read_bytes() == noise(BIG)


# --- no server, or none of the right sort ---------------------------------------------------------


def test_ssh_that_is_not_installed_is_said_to_be_missing(
    server: Sshd,
    connect: Callable[..., SftpTransport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LinkError, match="ssh is not installed here: install OpenSSH's client"):
        connect(server)
    (tmp_path / "ssh").mkdir()
    with pytest.raises(LinkError, match="cannot start ssh: Permission denied"):
        connect(server)


def test_nobody_listening_is_said_to_be_so(
    server: Sshd, connect: Callable[..., SftpTransport]
) -> None:
    port = free_port()
    with pytest.raises(LinkError) as error:
        connect(server, port=port)
    assert only_line(error) == f"{HOST}:{port}: Connection refused"


def test_host_without_an_address_is_said_to_be_so(
    server: Sshd, connect: Callable[..., SftpTransport]
) -> None:
    with pytest.raises(LinkError, match=r"cannot find the address of no-such-host\.invalid: "):
        connect(server, host="no-such-host.invalid")


def test_far_end_is_said_to_greet_since_nobody_can_tell() -> None:
    assert openssh.Connection(Account("no-such-host.invalid")).greets()


def test_server_without_sftp_is_said_to_have_none(
    tmp_path: Path, connect: Callable[..., SftpTransport]
) -> None:
    banner = tmp_path / "banner"
    banner.write_text("Authorized use only.\n")
    for sftp, said in [
        ("/nonexistent", "no SFTP after the login: it ended there with status 127"),
        ("/bin/echo hello", "a reply of impossible size; does the login print something"),
    ]:
        with Sshd(tmp_path / sftp[-5:], sftp=sftp, extra=f"Banner {banner}") as server:
            with pytest.raises(LinkError, match=said) as error:
                connect(server)
            assert "Authorized" not in only_line(error)


def test_server_that_talks_without_end_is_carried_over_all_the_same(
    tmp_path: Path, incoming: Path, connect: Callable[..., SftpTransport], big: int
) -> None:
    program = tmp_path / "talker"
    sftp = shutil.which("sftp-server", path=SFTP_SERVERS)
    program.write_text(f"#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' x >&2 &\nexec {sftp}\n")
    program.chmod(0o755)
    with Sshd(tmp_path / "sshd", sftp=str(program)) as server:
        transport = connect(server)
        put(transport, "a", big, BIG)
        transport.close()
    assert (incoming / "a").read_bytes() == noise(BIG)


# --- jump hosts -----------------------------------------------------------------------------------


@dataclass
class Jump:
    """A jump host before a server, both ours, and an ssh_config that says so."""

    server: Sshd
    jump: Sshd
    config: Path
    values: dict[str, Any] = field(default_factory=dict)

    def write(self, **jump: object) -> None:
        """Write the configuration; arguments replace what it says of the jump host."""
        says = {"HostName": HOST, "Port": self.jump.port, "IdentityFile": self.jump.identity,
                "UserKnownHostsFile": self.jump.known_hosts, **jump}  # fmt: skip
        lines = "\n".join(f" {key} {value}" for key, value in says.items())
        self.config.write_text(
            f"Host hop\n{lines}\nHost {HOST}\n ProxyJump hop\n"
            f"Match host {HOST}\n GlobalKnownHostsFile /dev/null\n"
        )


@pytest.fixture
def jump(server: Sshd, sshd: Sshd, tmp_path: Path) -> Jump:
    jump = Jump(server, sshd, tmp_path / "config")
    # By its other name, so that the jump host itself is not behind a jump host.
    jump.write(HostName="localhost", HostKeyAlias=f"[{HOST}]:{sshd.port}")
    return jump


def test_file_goes_through_a_jump_host(
    jump: Jump, connect: Callable[..., SftpTransport], incoming: Path, big: int
) -> None:
    transport = connect(jump.server, "-F", str(jump.config))
    put(transport, "a", big, BIG)
    assert (incoming / "a").read_bytes() == noise(BIG)
    assert "Accepted publickey" in jump.jump.log()
    assert len(running()) == 2


def test_jump_host_that_hangs_is_cut_with_all_that_ssh_has_started(
    jump: Jump, connect: Callable[..., SftpTransport], big: int
) -> None:
    transport = connect(jump.server, "-F", str(jump.config))
    transport.stall = 1.0
    with pytest.raises(AttemptError, match=r"^no byte acknowledged for 1 s$"):
        put(transport, "a", big, BIG, acked=Once(jump.jump.pause))
    jump.jump.resume()


def test_what_is_wrong_with_a_jump_host_is_said(
    jump: Jump, connect: Callable[..., SftpTransport], tmp_path: Path
) -> None:
    through = ("-F", str(jump.config))
    alias = {"HostName": "localhost", "HostKeyAlias": f"[{HOST}]:{jump.jump.port}"}
    with pytest.raises(LinkError, match="the jump host cannot reach it: connect failed: Conn"):
        connect(jump.server, *through, port=free_port())
    jump.write(**{**alias, "UserKnownHostsFile": "/dev/null"})
    with pytest.raises(LinkError, match="unknown host key of a host on the way"):
        connect(jump.server, *through)
    make_key(tmp_path / "other")
    jump.write(**{**alias, "IdentityFile": tmp_path / "other", "IdentitiesOnly": "yes"})
    with pytest.raises(LinkError, match=r"refused \(\S+@localhost: publickey\)"):
        connect(jump.server, *through)
    jump.write(**{**alias, "Port": free_port()})
    with pytest.raises(LinkError, match=r"localhost port \d+: Connection refused"):
        connect(jump.server, *through)


# --- servers that stop or die, and what is left ---------------------------------------------------


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
    transport = connect(sshd)
    transport.stall = transport.patience = 1.0
    acked = Once(sshd.pause)
    with pytest.raises(AttemptError, match=r"^no byte acknowledged for 1 s$"):
        put(transport, "a", big, BIG, acked=acked)
    with pytest.raises(LinkError, match=r"no answer for 1 s"):
        transport.connect()
    sshd.resume()
    transport.stall = transport.patience = 60.0
    transport.connect()
    put(transport, "a", big, BIG, start=acked.offset)
    assert (incoming / "a").read_bytes() == noise(BIG)


def test_cut_ends_a_connect_that_a_stopped_server_blocks(
    sshd: Sshd, connect: Callable[..., SftpTransport]
) -> None:
    transport = connect(sshd)
    transport.close()
    sshd.pause()
    timer = threading.Timer(0.3, transport.cut, ["stopping"])
    timer.start()
    began = time.monotonic()
    with pytest.raises(AttemptError, match="stopping"):
        transport.connect()
    timer.join()
    assert time.monotonic() - began < PATIENCE


def test_connection_that_was_cut_before_it_began_starts_nothing(
    server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(openssh, "_start")
    connection = openssh.Connection(Account(HOST))
    connection.shut()
    with pytest.raises(LinkError, match="cut"):
        connection.open(1.0, lambda: None)
    connection.close()


def test_server_killed_in_the_middle_is_the_links_trouble_and_loses_nothing(
    sshd: Sshd, connect: Callable[..., SftpTransport], incoming: Path, big: int
) -> None:
    transport = connect(sshd)
    acked = Once(sshd.stop)
    with pytest.raises(LinkError, match="connection lost: ") as error:
        put(transport, "a", big, BIG, acked=acked)
    only_line(error)
    with pytest.raises(LinkError, match="Connection refused"):
        transport.connect()
    sshd.start()
    transport.connect()
    put(transport, "a", big, BIG, start=acked.offset)
    assert (incoming / "a").read_bytes() == noise(BIG)


def test_connection_that_died_while_idle_is_made_anew(
    sshd: Sshd, connect: Callable[..., SftpTransport]
) -> None:
    transport = connect(sshd)
    sshd.drop_connections()
    with pytest.raises(LinkError, match=r"connection lost: \S"):
        transport.stat("a")
    transport.connect()
    assert transport.stat("a") == [None]


def test_many_connections_leave_no_process_and_no_descriptor(
    server: Sshd, connect: Callable[..., SftpTransport]
) -> None:
    before = open_files()
    for number in range(ROUNDS):
        if number % 5:
            connect(server).close()
        else:
            with pytest.raises(LinkError):
                connect(server, port=free_port())
    assert open_files() == before
    assert not running()


SENDER = """
import sys
from lpxfer.transports import openssh
from lpxfer.transports.sftp import SftpTransport
from functools import partial
values = {values!r}
by = partial(openssh.Connection, extra={extra!r})
transport = SftpTransport(**values, rempath="/", open_connection=by)
transport.connect()
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("paused", [False, True], ids=["server answers", "server hangs"])
def test_ssh_does_not_outlive_a_sender_that_is_killed(jump: Jump, paused: bool) -> None:
    extra = ("-F", str(jump.config), "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")
    code = SENDER.format(values=jump.server.values(), extra=extra)
    command = [sys.executable, "-c", code]
    # ssh ends the one to its jump host by SIGHUP, and the tests may run under nohup.
    heeding = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heeding
    ) as sender:
        assert sender.stdout
        assert sender.stdout.readline() == "connected\n"
        started = descendants(sender.pid)
        assert len(started) == 2, "ssh, and the one to the jump host"
        if paused:
            jump.jump.pause()
        sender.kill()
        sender.wait()
        deadline = time.monotonic() + PATIENCE
        while any(map(runs, started)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(runs, started))
    jump.jump.resume()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

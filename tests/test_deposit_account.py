"""The deposit account of etc/, behind a real sshd: it can deposit, and nothing else.

The shipped sshd drop-in and the shipped directories are used as they are, but for their
paths and account names. Two accounts are made for the test and removed after it.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
import pytest
from paramiko.sftp import CMD_EXTENDED
from sshd import Sshd

from lpxfer.errors import AttemptError
from lpxfer.transports.sftp import SftpTransport
from lpxfer.transports.transport import Stat

ETC = Path(__file__).parents[1] / "etc"
DEPOSIT, SWEEPER = f"lpxd{os.getpid()}", f"lpxs{os.getpid()}"

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Site:
    """An archive site, and the deposit account logged in to it."""

    root: Path
    server: Sshd
    ssh: paramiko.Transport
    sftp: paramiko.SFTPClient

    @contextlib.contextmanager
    def sender(self) -> Iterator[SftpTransport]:
        """A sender's connection, with the `seal` that lpxfer.conf(5) advises here."""
        server = self.server
        transport = SftpTransport(
            server.host,
            server.port,
            DEPOSIT,
            "/incoming",
            identity=str(server.identity),
            known_hosts=str(server.known_hosts),
            seal=0o040,
        )
        with contextlib.closing(transport):
            transport.connect()
            yield transport


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        for account in (DEPOSIT, SWEEPER):
            # `*` and not `!`: without PAM sshd takes the latter for a locked account
            run("useradd", "--system", "--user-group", "--password", "*", account)
            stack.callback(run, "userdel", account)
        # sshd wants every directory above a chroot to be root's alone: /tmp is not
        base = Path(tempfile.mkdtemp(prefix="lpxfer-test-", dir="/srv"))
        stack.callback(shutil.rmtree, base)
        base.chmod(0o755)
        tmpfiles = shipped("tmpfiles.d/lpxfer.conf", base)
        lines = [line for line in tmpfiles.splitlines() if str(base) in line]
        (base / "tmpfiles.conf").write_text("\n".join(lines) + "\n")
        run("systemd-tmpfiles", "--create", f"{base}/tmpfiles.conf")
        drop_in = shipped("ssh/sshd_config.d/lpxfer-deposit.conf", base)
        server = stack.enter_context(Sshd(base / "sshd", f"internal-sftp\n{drop_in}"))
        shutil.copy(server.identity.with_suffix(".pub"), base / "deposit_keys")
        ssh = paramiko.Transport((server.host, server.port))
        stack.callback(ssh.close)
        key = paramiko.Ed25519Key.from_private_key_file(str(server.identity))
        ssh.connect(username=DEPOSIT, pkey=key)
        sftp = paramiko.SFTPClient.from_transport(ssh)
        assert sftp is not None
        stack.callback(sftp.close)
        yield Site(base / "site", server, ssh, sftp)


def shipped(name: str, base: Path) -> str:
    """Return a file of etc/ with the test's accounts and paths in place of the real ones."""
    text = (ETC / name).read_text()
    for real, ours in (
        ("/srv/lpxfer", f"{base}/site"),
        ("/etc/lpxfer/deposit_keys", f"{base}/deposit_keys"),
        ("lpxfer-deposit", DEPOSIT),
        ("lpxfer-sweep", SWEEPER),
    ):
        text = text.replace(real, ours)
    return text


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def as_sweeper(*command: str) -> bytes:
    group = pwd.getpwnam(SWEEPER).pw_gid
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, user=SWEEPER, group=group, extra_groups=[]
    ).stdout


def test_a_sender_deposits_a_file(site: Site) -> None:
    with site.sender() as sender:
        sender.put("a.data", b"SIMPLE  =", 9)
        assert sender.stat("a.data") == Stat(9, 0o040)
    assert (site.root / "incoming/a.data").stat().st_uid == pwd.getpwnam(DEPOSIT).pw_uid


def test_a_sender_goes_on_with_an_interrupted_file(site: Site) -> None:
    data, reached = os.urandom(1 << 20), [0]

    def acked(offset: int) -> None:
        reached[0] = offset
        raise AttemptError("interrupted")

    with site.sender() as sender, pytest.raises(AttemptError, match="interrupted"):
        sender.put("b.data", data, len(data), acked=acked)
    offsets: list[int] = []
    with site.sender() as sender:
        sender.put("b.data", data, len(data), start=reached[0], acked=offsets.append)
    assert (site.root / "incoming/b.data").read_bytes() == data
    assert 0 < reached[0] < len(data) and min(offsets) > reached[0]


def test_the_sweepers_read_and_remove_what_was_deposited(site: Site) -> None:
    with site.sender() as sender:
        sender.put("c.data", b"for the sweeper", 15)
    path = str(site.root / "incoming/c.data")
    assert as_sweeper("cat", path) == b"for the sweeper"
    as_sweeper("rm", "-f", path)
    assert not os.path.exists(path)


def test_a_sender_lists_and_reads_receipts(site: Site) -> None:
    directory = site.root / "receipts/telescope1"
    as_sweeper("mkdir", str(directory))
    as_sweeper("sh", "-c", f"echo stored > '{directory}/minicam-20261120.log'")
    with site.sender() as sender:
        assert sender.names("/receipts/telescope1") == ["minicam-20261120.log"]
        assert sender.read("/receipts/telescope1/minicam-20261120.log", 0, 99) == b"stored\n"


def hardlink(sftp: paramiko.SFTPClient, old: str, new: str) -> None:
    sftp._request(CMD_EXTENDED, "hardlink@openssh.com", old, new)  # type: ignore[attr-defined]


def read(sftp: paramiko.SFTPClient, path: str) -> bytes:
    with sftp.open(path) as file:
        return file.read()


def write(sftp: paramiko.SFTPClient, path: str, mode: str) -> None:
    with sftp.open(path, mode) as file:
        file.write(b"other bytes")


#: What the account tries with an arrival whose name it knows, and with a part file.
REFUSED: dict[str, Callable[[paramiko.SFTPClient], object]] = {
    "list incoming": lambda sftp: sftp.listdir("/incoming"),
    "read an arrival": lambda sftp: read(sftp, "/incoming/known.data"),
    "read a part file": lambda sftp: read(sftp, "/incoming/.known.data.part"),
    "overwrite an arrival": lambda sftp: write(sftp, "/incoming/known.data", "w"),
    "write into an arrival": lambda sftp: write(sftp, "/incoming/known.data", "r+"),
    "append to an arrival": lambda sftp: write(sftp, "/incoming/known.data", "a"),
    "remove an arrival": lambda sftp: sftp.remove("/incoming/known.data"),
    "remove a directory": lambda sftp: sftp.rmdir("/incoming/directory"),
    "make a directory": lambda sftp: sftp.mkdir("/incoming/new"),
    "change a mode by path": lambda sftp: sftp.chmod("/incoming/known.data", 0o666),
    "cut by path": lambda sftp: sftp.truncate("/incoming/known.data", 0),
    "change times by path": lambda sftp: sftp.utime("/incoming/known.data", (0, 0)),
    "rename over an arrival": lambda sftp: sftp.rename(
        "/incoming/.known.data.part", "/incoming/known.data"
    ),
    "posix-rename over an arrival": lambda sftp: sftp.posix_rename(
        "/incoming/.known.data.part", "/incoming/known.data"
    ),
    "posix-rename to a free name": lambda sftp: sftp.posix_rename(
        "/incoming/.known.data.part", "/incoming/free.data"
    ),
    "make a hard link": lambda sftp: hardlink(sftp, "/incoming/known.data", "/incoming/link"),
    "make a symbolic link": lambda sftp: sftp.symlink("/etc/passwd", "/incoming/link"),
    "write beside incoming": lambda sftp: write(sftp, "/new", "w"),
    "write a receipt": lambda sftp: write(sftp, "/receipts/new", "w"),
    "leave its root": lambda sftp: read(sftp, "/../../../etc/passwd"),
}


@pytest.mark.parametrize("act", REFUSED.values(), ids=REFUSED)
def test_refused(site: Site, act: Callable[[paramiko.SFTPClient], object]) -> None:
    incoming = site.root / "incoming"
    run("find", str(incoming), "-mindepth", "1", "-delete")
    (incoming / "directory").mkdir()
    with site.sender() as sender:
        sender.put("known.data", b"SIMPLE  =", 9)
    write(site.sftp, "/incoming/.known.data.part", "wx")
    before = seen(incoming)
    with pytest.raises(OSError):
        act(site.sftp)
    assert seen(incoming) == before


def seen(directory: Path) -> dict[str, tuple[int, int, int, int]]:
    """What is in a directory: a file's inode, mode, size and time by its name."""
    found = {path.name: path.stat() for path in directory.iterdir()}
    return {n: (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns) for n, s in found.items()}


def test_no_command_runs(site: Site) -> None:
    with contextlib.closing(site.ssh.open_session(timeout=20)) as channel:
        channel.settimeout(20)
        channel.exec_command("touch /incoming/ran; echo ran")
        channel.sendall(b"\0\0\0\5\1\0\0\0\3")  # the SFTP server answers instead: version 3
        assert b"ran" not in channel.recv(4096)
    assert not (site.root / "incoming/ran").exists()


def test_no_port_is_forwarded(site: Site) -> None:
    target = (site.server.host, site.server.port)
    with pytest.raises(paramiko.ChannelException):
        site.ssh.open_channel("direct-tcpip", target, ("127.0.0.1", 1), timeout=20)
    with pytest.raises(paramiko.SSHException):
        site.ssh.request_port_forward("127.0.0.1", 0)


def test_no_terminal_is_given(site: Site) -> None:
    with contextlib.closing(site.ssh.open_session(timeout=20)) as channel:
        with pytest.raises(paramiko.SSHException):
            channel.get_pty()

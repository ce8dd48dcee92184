"""The deposit account of etc/, behind a real sshd: it can deposit, and nothing else.

Every request of SFTP, and every way to open a file, is tried by torture/deposit.py.
"""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from deposit_site import DEPOSIT, READER, SWEEPER, Site, archive_site, command_as
from paramiko.sftp import CMD_EXTENDED
from transports.conformance import put

from lpxfer.errors import AttemptError
from lpxfer.transports.transport import Stat

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with archive_site() as site:
        yield site


@pytest.fixture(scope="module")
def sftp(site: Site) -> Iterator[paramiko.SFTPClient]:
    sftp = paramiko.SFTPClient.from_transport(site.ssh)
    assert sftp is not None
    with contextlib.closing(sftp):
        yield sftp


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def as_sweeper(*command: str) -> bytes:
    status, said = command_as(SWEEPER, *command)
    assert status == 0, said
    return said.encode()


def test_a_sender_deposits_a_file(site: Site) -> None:
    with site.sending() as sender:
        put(sender, "a.data", b"SIMPLE  =", 9)
        assert sender.stat("a.data") == [Stat(9, 0o040)]
    assert (site.root / "incoming/a.data").stat().st_uid == pwd.getpwnam(DEPOSIT).pw_uid


def test_a_sender_goes_on_with_an_interrupted_file(site: Site) -> None:
    data, reached = os.urandom(1 << 20), [0]

    def acked(offset: int) -> None:
        reached[0] = offset
        raise AttemptError("interrupted")

    with site.sending() as sender, pytest.raises(AttemptError, match="interrupted"):
        put(sender, "b.data", data, len(data), acked=acked)
    offsets: list[int] = []
    with site.sending() as sender:
        put(sender, "b.data", data, len(data), start=reached[0], acked=offsets.append)
    assert (site.root / "incoming/b.data").read_bytes() == data
    assert 0 < reached[0] < len(data) and min(offsets) > reached[0]


def test_the_sweepers_read_and_remove_what_was_deposited(site: Site) -> None:
    with site.sending() as sender:
        put(sender, "c.data", b"for the sweeper", 15)
    path = str(site.root / "incoming/c.data")
    assert as_sweeper("cat", path) == b"for the sweeper"
    as_sweeper("rm", "-f", path)
    assert not os.path.exists(path)


def test_a_sender_lists_and_reads_receipts(site: Site) -> None:
    directory = site.root / "receipts/telescope1"
    as_sweeper("mkdir", str(directory))
    as_sweeper("sh", "-c", f"echo stored > '{directory}/minicam-20261120.log'")
    with site.sending() as sender:
        assert sender.names("/receipts/telescope1") == ["minicam-20261120.log"]
        assert sender.read("/receipts/telescope1/minicam-20261120.log", 0, 99) == b"stored\n"


def test_other_accounts_read_receipts_and_no_arrivals(site: Site) -> None:
    with site.sending() as sender:
        put(sender, "d.data", b"not for others", 14)
    as_sweeper("sh", "-c", f"echo x >'{site.root}/receipts/other.log'")
    assert command_as(READER, "cat", f"{site.root}/receipts/other.log") == (0, "x\n")
    for command in (["ls"], ["cat"], ["rm", "-f"]):
        where = site.root / "incoming" / ("" if command == ["ls"] else "d.data")
        assert command_as(READER, *command, str(where))[0] != 0
    assert (site.root / "incoming/d.data").exists()


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
def test_refused(
    site: Site, sftp: paramiko.SFTPClient, act: Callable[[paramiko.SFTPClient], object]
) -> None:
    incoming = site.root / "incoming"
    run("find", str(incoming), "-mindepth", "1", "-delete")
    (incoming / "directory").mkdir()
    with site.sending() as sender:
        put(sender, "known.data", b"SIMPLE  =", 9)
    write(sftp, "/incoming/.known.data.part", "wx")
    before = seen(incoming)
    with pytest.raises(OSError):
        act(sftp)
    assert seen(incoming) == before


def seen(directory: Path) -> dict[str, tuple[int, int, int, int]]:
    """What is in a directory: a file's inode, mode, size and time by its name."""
    found = {path.name: path.stat() for path in directory.iterdir()}
    return {n: (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns) for n, s in found.items()}


def test_no_command_runs(site: Site) -> None:
    with contextlib.closing(site.ssh.open_session(timeout=20)) as channel:
        channel.settimeout(20)
        channel.exec_command("touch /incoming/ran; echo ran")
        with contextlib.suppress(OSError):  # the server may have closed it, as it should
            channel.sendall(b"\0\0\0\5\1\0\0\0\3")  # or the SFTP server answers instead
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


def test_known_limit_who_knows_its_name_can_rename_an_arrival(
    site: Site, sftp: paramiko.SFTPClient
) -> None:
    """Its bytes stay as they are; its receipt does not come, and the sender delivers again."""
    with site.sending() as sender:
        put(sender, "e.control", b"as it was", 9)
        sftp.rename("/incoming/e.control", "/incoming/elsewhere")
        assert sender.stat("e.control") == [None]
        put(sender, "e.control", b"as it was", 9)
    assert as_sweeper("cat", f"{site.root}/incoming/elsewhere") == b"as it was"

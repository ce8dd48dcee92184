"""An archive site as etc/ sets it up, behind a real sshd, and the accounts around it.

The shipped sshd drop-in and the shipped directories are used as they are, but for their
paths and account names.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import paramiko
from accounts import accounts, run_as
from sshd import Sshd

from lpxfer.transports.sftp import SftpTransport

ETC = Path(__file__).parents[1] / "etc"
DEPOSIT, SWEEPER, READER = (f"lpx{letter}{os.getpid()}" for letter in ("dep", "swp", "rdr"))
SEAL = 0o040  # what lpxfer.conf(5) advises here


@dataclass(frozen=True)
class Site:
    """An archive site; `sweeper` is in the group of the sweepers, `reader` in none."""

    root: Path
    server: Sshd

    @cached_property
    def ssh(self) -> paramiko.Transport:
        """The deposit account logged in."""
        ssh = paramiko.Transport((self.server.host, self.server.port))
        key = paramiko.Ed25519Key.from_private_key_file(str(self.server.identity))
        ssh.connect(username=DEPOSIT, pkey=key)
        return ssh

    def sender(self) -> SftpTransport:
        """Return a sender's transport, not connected yet."""
        server = self.server
        return SftpTransport(
            server.host,
            server.port,
            DEPOSIT,
            "/incoming",
            identity=str(server.identity),
            known_hosts=str(server.known_hosts),
            seal=SEAL,
        )

    @contextlib.contextmanager
    def sending(self) -> Iterator[SftpTransport]:
        """Hold a sender's connection for a block."""
        with contextlib.closing(self.sender()) as transport:
            transport.connect()
            yield transport


@contextlib.contextmanager
def archive_site() -> Iterator[Site]:
    """Make the accounts and the site for a block."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(accounts(DEPOSIT, SWEEPER, READER))
        # sshd wants every directory above a chroot to be root's alone: /tmp is not
        base = Path(tempfile.mkdtemp(prefix="lpxfer-test-", dir="/srv"))
        stack.callback(shutil.rmtree, base)
        base.chmod(0o755)
        tmpfiles = shipped("tmpfiles.d/lpxfer.conf", base)
        lines = [line for line in tmpfiles.splitlines() if str(base) in line]
        (base / "tmpfiles.conf").write_text("\n".join(lines) + "\n")
        make = ["systemd-tmpfiles", "--create", f"{base}/tmpfiles.conf"]
        subprocess.run(make, check=True, stdin=subprocess.DEVNULL)
        drop_in = shipped("ssh/sshd_config.d/lpxfer-deposit.conf", base)
        server = stack.enter_context(Sshd(base / "sshd", f"internal-sftp\n{drop_in}"))
        shutil.copy(server.identity.with_suffix(".pub"), base / "deposit_keys")
        site = Site(base / "site", server)
        stack.callback(lambda: site.ssh.close())
        yield site


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


def command_as(user: str, *command: str) -> tuple[int, str]:
    """Run a program as an account; return its exit status and what it printed."""
    return run_as(user, lambda: os.execvp(command[0], command), umask=0o022)

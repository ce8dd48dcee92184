"""Real FTP servers of one's own, for their xferlogs: ProFTPD with mod_sftp, and vsftpd.

Loopback, free high ports, throw-away keys, no root needed: each runs as whoever runs the
tests, and keeps its files under one directory. Uploads go to its `incoming`.
"""

import contextlib
import ftplib
import grp
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import HOST, PATIENCE, free_port, make_key

SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])

USER = "tdcin"

#: crypt(3) of "tdcin", for the server's own password file.
PASSWORD_HASH = "$5$lpxfer$f6h1TXHUYQ/Kt0eHE1A5/k6KHhDyAkLnm.LD6TTl0M0"

PROFTPD_CONF = """\
LoadModule mod_sftp.c
ServerName test
ServerType standalone
DefaultAddress {host}
SocketBindTight on
Port {port}
UseIPv6 off
UseReverseDNS off
WtmpLog off
DelayEngine off
User {account}
Group {group}
PidFile "{directory}/pid"
ScoreboardFile "{directory}/scoreboard"
SystemLog "{directory}/log"
TransferLog "{directory}/xferlog"
<IfModule mod_ctrls.c>
  ControlsEngine off
</IfModule>
<Global>
  RootLogin on
  RequireValidShell off
  AuthOrder mod_auth_file.c
  AuthUserFile "{directory}/passwd"
  AllowOverwrite on
  AllowStoreRestart on
</Global>
<VirtualHost {host}>
  Port {sftp_port}
  SFTPEngine on
  SFTPLog "{directory}/sftp.log"
  SFTPHostKey "{directory}/host_key"
  SFTPAuthorizedUserKeys "file:{directory}/authorized_keys"
  SFTPAuthMethods publickey password
  TransferLog "{directory}/xferlog"
</VirtualHost>
"""

VSFTPD_CONF = """\
listen=YES
listen_address={host}
listen_port={port}
background=NO
run_as_launching_user=YES
ftp_username={account}
nopriv_user={account}
anonymous_enable=YES
no_anon_password=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_root={incoming}
local_enable=NO
write_enable=YES
secure_chroot_dir={directory}/empty
seccomp_sandbox=NO
xferlog_enable=YES
xferlog_std_format=YES
xferlog_file={directory}/xferlog
"""


class FtpServer:
    """One server in its own directory. Use it in a `with`, which stops it whatever happened."""

    login = (USER, USER)

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.incoming = directory / "incoming"
        self.xferlog = directory / "xferlog"
        self.host = HOST
        self.port = free_port()
        self.account = pwd.getpwuid(os.geteuid()).pw_name
        self.group = grp.getgrgid(os.getegid()).gr_name
        self.process: subprocess.Popen[bytes] | None = None
        self.incoming.mkdir(parents=True)
        (directory / "empty").mkdir()

    def command(self) -> list[str]:
        """Write the server's configuration and return the command that runs it."""
        raise NotImplementedError

    def __enter__(self) -> "FtpServer":
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        deadline = time.monotonic() + PATIENCE
        while not self._greets():
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = (self.directory / "output").read_text(errors="replace")
                raise RuntimeError(f"{type(self).__name__} does not start:\n{text}")
            time.sleep(0.02)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def _greets(self) -> bool:
        with contextlib.suppress(OSError):
            with socket.create_connection((self.host, self.port), timeout=PATIENCE) as sock:
                return sock.recv(4) == b"220 "
        return False

    @contextlib.contextmanager
    def session(self) -> Iterator[ftplib.FTP]:
        """Log in over FTP."""
        with ftplib.FTP(timeout=PATIENCE) as ftp:
            ftp.connect(self.host, self.port)
            ftp.login(*self.login)
            yield ftp

    def break_off(self, name: str, data: bytes, *, reset: bool) -> None:
        """Upload the beginning of a file and lose the connection.

        With `reset` it ends as when a host goes away. Without, it is closed as the kernel
        does for a killed program: the same, on the wire, as the end of a file.
        """
        with self.session() as ftp:
            ftp.voidcmd("TYPE I")
            with ftp.transfercmd(f"STOR {name}") as connection:
                connection.sendall(data)
                while not self._arrived(name, len(data)):
                    time.sleep(0.02)
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            with contextlib.suppress(ftplib.Error, EOFError):
                ftp.voidresp()

    def _arrived(self, name: str, size: int) -> bool:
        path = self.incoming / name
        return path.exists() and path.stat().st_size == size

    def lines(self, count: int) -> list[bytes]:
        """Return the xferlog once it has that many lines; a server writes after it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = self.xferlog.read_bytes().splitlines() if self.xferlog.exists() else []
            if len(lines) >= count:
                return lines
            assert time.monotonic() < deadline, f"only {len(lines)} lines: {lines}"
            time.sleep(0.02)


class Proftpd(FtpServer):
    """ProFTPD: FTP with a password, and SFTP with a key on a port of its own; one xferlog."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.sftp_port = free_port()
        self.identity = directory / "id"
        self.known_hosts = directory / "known_hosts"

    def command(self) -> list[str]:
        binary = shutil.which("proftpd", path=SYSTEM_PATH)
        if binary is None:
            pytest.fail("no proftpd here: apt-get install proftpd-core proftpd-mod-crypto")
        make_key(self.identity)
        make_key(self.directory / "host_key")
        key = ["ssh-keygen", "-e", "-m", "RFC4716", "-f", f"{self.identity}.pub"]
        rfc4716 = subprocess.run(key, check=True, capture_output=True).stdout
        (self.directory / "authorized_keys").write_bytes(rfc4716)
        host_key = " ".join((self.directory / "host_key.pub").read_text().split()[:2])
        self.known_hosts.write_text(f"[{self.host}]:{self.sftp_port} {host_key}\n")
        passwd = self.directory / "passwd"
        ids = f"{os.geteuid()}:{os.getegid()}"
        passwd.write_text(f"{USER}:{PASSWORD_HASH}:{ids}::{self.incoming}:/bin/sh\n")
        passwd.chmod(0o600)
        conf = self.directory / "proftpd.conf"
        conf.write_text(PROFTPD_CONF.format(**vars(self)))
        return [binary, "--nodaemon", "--quiet", "--config", str(conf)]

    def sftp(self, batch: str) -> None:
        """Run commands in OpenSSH's sftp program; raises CalledProcessError when one fails."""
        options = ["-q", "-b", "-", "-i", str(self.identity), "-P", str(self.sftp_port)]
        for option in ("IdentitiesOnly=yes", f'UserKnownHostsFile="{self.known_hosts}"'):
            options += ["-o", option]
        subprocess.run(
            ["sftp", *options, f"{USER}@{self.host}"],
            input=batch.encode(),
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )


class Vsftpd(FtpServer):
    """vsftpd: anonymous FTP; its xferlog."""

    login = ("anonymous", "")

    def command(self) -> list[str]:
        """Find vsftpd: named by $LPXFER_VSFTPD, unpacked by system-packages, or installed."""
        unpacked = Path(__file__).parents[1] / ".cache" / "vsftpd"
        named = Path(os.environ.get("LPXFER_VSFTPD") or unpacked)
        within = named / "usr" / "sbin" / "vsftpd"
        places = [str(path) for path in (named, within) if path.is_file()]
        binary = next(iter(places), None) or shutil.which("vsftpd", path=SYSTEM_PATH)
        if binary is None:
            pytest.fail(
                "no vsftpd here: run tests/system-packages, or `apt-get download vsftpd; "
                "dpkg -x vsftpd_*.deb DIR` and set LPXFER_VSFTPD=DIR"
            )
        conf = self.directory / "vsftpd.conf"
        conf.write_text(VSFTPD_CONF.format(**vars(self)))
        return [binary, str(conf)]

"""A real OpenSSH sshd of one's own: loopback, free high port, throw-away keys, no root needed.

It serves the whole file system as the user who runs the tests; what a test calls incoming
is a directory it made itself.
"""

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

SSHD = "/usr/sbin/sshd"
HOST = "127.0.0.1"
PATIENCE = 20.0  # seconds until a server that does not start is an error

CONFIG = """\
{extra}
Port {port}
ListenAddress {host}
HostKey "{directory}/host_key"
PidFile "{directory}/pid"
AuthorizedKeysFile "{directory}/authorized_keys"
AuthenticationMethods publickey
UsePAM no
UseDNS no
StrictModes no
MaxStartups {startups}
LogLevel VERBOSE
Subsystem sftp {sftp}
"""


class Sshd:
    """One server in its own directory. Use it in a `with`, which stops it whatever happened."""

    def __init__(
        self,
        directory: Path,
        sftp: str = "internal-sftp",
        extra: str = "",
        host: str = HOST,
        before: Sequence[str] = (),
        startups: str = "100",
    ) -> None:
        self.directory = directory
        self.sftp = sftp  # say `internal-sftp -P fsync` for a server without that extension
        self.extra = extra  # lines of sshd_config(5) that go before ours
        self.host = host  # an address of the loopback, or of where `before` leads
        self.before = before  # what stands in front of its command line, and execs it
        self.startups = startups  # logins at a time; no keyword of `extra`, the last one counts
        self.port = free_port()
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.identity = directory / "id"
        self.known_hosts = directory / "known_hosts"
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_key(self.identity)
        make_key(directory / "host_key")
        self.accept_key()
        self.trust_host_key()

    def __enter__(self) -> "Sshd":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def values(self) -> dict[str, object]:
        """What a transport must know of this server; rempath, stall and seal are the test's."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "identity": str(self.identity),
            "known_hosts": str(self.known_hosts),
        }

    def start(self, **popen: object) -> None:
        """Start the server and wait for its greeting. Arguments go to Popen."""
        config = self.directory / "sshd_config"
        config.write_text(CONFIG.format(**vars(self)))
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)  # sshd's own chroot when it runs as root
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.before, SSHD, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **popen,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + PATIENCE
        while not self._greets():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd does not start:\n{self.log()}")
            time.sleep(0.02)

    def _greets(self) -> bool:
        with contextlib.suppress(OSError):
            with socket.create_connection((self.host, self.port), timeout=PATIENCE) as sock:
                return sock.recv(4) == b"SSH-"
        return False

    def stop(self) -> None:
        """Kill the server and every connection at once, as a power cut would."""
        if self.process is None:
            return
        self.pause()  # so that no connection is born while the others are being found
        self._signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.process = None

    def restart(self) -> None:
        """Kill everything and start again on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server and its connections: they keep the sockets and never answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def drop_connections(self) -> None:
        """Kill the connections only; new ones are accepted at once."""
        assert self.process is not None
        for pid in descendants(self.process.pid):
            send_signal(pid, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        for pid in [*descendants(self.process.pid), self.process.pid]:
            send_signal(pid, number)

    def accept_key(self) -> None:
        """Let our user's key in."""
        public = self.identity.with_suffix(".pub").read_text()
        (self.directory / "authorized_keys").write_text(public)

    def reject_key(self) -> None:
        """Refuse our user's key from the next connection on."""
        (self.directory / "authorized_keys").write_text("")

    def change_host_key(self) -> None:
        """Give the server another host key, which nobody knows yet, and restart it."""
        for name in ("host_key", "host_key.pub"):
            (self.directory / name).unlink()
        make_key(self.directory / "host_key")
        self.restart()

    def trust_host_key(self) -> None:
        """Put the server's present host key into known_hosts, as a careful person would."""
        key = " ".join((self.directory / "host_key.pub").read_text().split()[:2])
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {key}\n")

    def log(self) -> str:
        """What the server has written so far."""
        return (self.directory / "log").read_text(errors="replace")


def make_key(path: Path) -> None:
    """Make an ed25519 key pair without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def send_signal(pid: int, number: int) -> None:
    """Signal a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """List a process's children and theirs; sshd gives each a session of its own."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        born = children.get(queue.pop(), [])
        found += born
        queue += born
    return found

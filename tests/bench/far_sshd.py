"""The one server of a benchmark: tests/sshd.py's at the far end, with OpenSSH's own limits."""

import time
from pathlib import Path

from cpu import Group
from sshd import PATIENCE, Sshd, descendants, send_signal
from wan import Ends

SSH_CONFIG = """\
Host far
HostName {host}
Port {port}
User {user}
IdentityFile {identity}
IdentitiesOnly yes
UserKnownHostsFile {known_hosts}
BatchMode yes
"""


class FarSshd(Sshd):
    """Everybody's server; its processes are in a group, so that their CPU can be told."""

    def __init__(self, directory: Path, ends: Ends, group: Group) -> None:
        # an empty home, so that no shell of a peer reads what somebody's .bashrc says
        home = directory / "home"
        home.mkdir(parents=True)
        super().__init__(
            directory,
            extra=f"SetEnv HOME={home}",
            host=ends.host,
            before=(*group.prefix, *ends.far),
            startups="10:30:100",
        )
        self.group = group
        self.ssh_config = directory / "ssh_config"
        self.ssh_config.write_text(SSH_CONFIG.format(**vars(self)))

    def __enter__(self) -> "FarSshd":
        self.start()
        return self

    def start(self, **popen: object) -> None:
        """Start it; its CPU is counted from here on."""
        super().start(**popen)
        assert self.process
        self.group.watch(self.process.pid)

    def _greets(self) -> bool:
        """Say whether it listens: from here, the far end cannot be reached."""
        return "Server listening" in self.log()

    def sessions(self) -> set[int]:
        """Return the processes of its connections."""
        assert self.process
        return set(descendants(self.process.pid))

    def end_sessions(self, keep: set[int]) -> None:
        """Let the other sessions end, and kill those that do not."""
        deadline = time.monotonic() + PATIENCE
        while left := self.sessions() - keep:
            if time.monotonic() > deadline:
                for pid in left:
                    send_signal(pid, 9)
            time.sleep(0.02)

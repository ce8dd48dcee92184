"""Where and as whom a connection logs in: for paramiko (ssh.py) and ssh(1) (openssh.py)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """Where to log in, and as whom; paths are None or empty for the usual places."""

    host: str
    port: int = 22  # 0: as ssh_config(5) says, for openssh.py
    user: str = ""  # the name of the account we run as, or as ssh_config(5) says
    identity: str | None = None  # private key file; else the agent's and the user's own
    password_file: str | None = None  # regular file of mode 0600; its first line
    known_hosts: str | None = None
    congestion: str = ""  # see congestion.choose; ssh(1) has no such option

    @property
    def label(self) -> str:
        """How messages name the far end."""
        host = f"[{self.host}]" if ":" in self.host else self.host  # an IPv6 address
        return host if self.port in (0, 22) else f"{host}:{self.port}"

    @property
    def known_name(self) -> str:
        """How known_hosts names it; see sshd(8)."""
        return self.host if self.port in (0, 22) else f"[{self.host}]:{self.port}"

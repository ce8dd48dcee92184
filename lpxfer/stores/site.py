"""A demo site: one directory with both ends of a transfer on this machine. See xfer-demo(1).

    lpxfer.conf                               for every command
    spool/  keys/id  keys/known_hosts         the telescope site
    incoming/  receipts/  archive/<inst>/     the archive site
    server/host_key  authorized_keys  sshd_config  program  log     its SFTP server
    files/                                    frames that the demo wrote

The configuration is written first, so a directory is a site from that instant on, however
the rest ended. What is there already is left as it is: a person may have changed it. Only
the port, and a section for a new instrument, are written into a configuration that exists.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lpxfer import durable
from lpxfer.errors import ConfigError, PermanentError, UsageError
from lpxfer.formats import config, keyvalue
from lpxfer.formats.config import Config, QueueConfig

LOOPBACK = "127.0.0.1"
QUEUE = "archive"
PRIVATE = ("keys", "server", "spool")  # a spool that is open to a group is one for many users
DIRECTORIES = (*PRIVATE, "incoming", "receipts", "archive", "archive/strangers", "files")

FIRST_LINE = "# A demo site, made by xfer-demo: both ends of a transfer on one machine.\n"

CONF = """\
# Its server is started with `xfer-demo --serve`. The keys are explained in lpxfer.conf(5).

[lpxfer]
spool = {root}/spool
queue = archive
incoming = {root}/incoming
receipts = {root}/receipts
strangers = {root}/archive/strangers

[queue archive]
transport = sftp
remhost = {host}:{port}
rempath = {root}/incoming
remuser = {user}
identity = {root}/keys/id
known_hosts = {root}/keys/known_hosts
receipts = {root}/receipts
"""

SSHD_CONFIG = """\
# For `sshd -i`, one connection at a time; xfer-demo listens. See sshd_config(5).
HostKey "{root}/server/host_key"
AuthorizedKeysFile "{tokens}/server/authorized_keys"
AuthenticationMethods publickey
PidFile none
UsePAM no
UseDNS no
StrictModes no
PermitRootLogin prohibit-password
PermitUserRC no
X11Forwarding no
AllowTcpForwarding no
AllowAgentForwarding no
ForceCommand internal-sftp
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Site:
    """An existing site."""

    root: Path

    @property
    def conf(self) -> Path:
        """The configuration of every command."""
        return self.root / "lpxfer.conf"

    @property
    def server(self) -> Path:
        """What the archive site's server needs."""
        return self.root / "server"

    def config(self) -> Config:
        """Read the configuration. Raises ConfigError, and when the site was moved."""
        read = config.parse(self.conf.read_text(encoding="utf-8"), str(self.conf))
        if read.find_queue(QUEUE).identity != str(self.root / "keys/id"):
            raise ConfigError(
                f"{self.conf}: identity is not {self.root}/keys/id; a site that was moved "
                "or copied does not work: make a new one"
            )
        return read

    def settings(self) -> QueueConfig:
        """Read the queue's settings. Raises ConfigError."""
        return self.config().find_queue(QUEUE)

    def port(self) -> int:
        """Return the port of the loopback that the server has. Raises ConfigError."""
        remhost = self.settings().remhost
        match = re.fullmatch(rf"{re.escape(LOOPBACK)}:(\d{{1,5}})", remhost, re.ASCII)
        if not match or not 0 < int(match[1]) < 65536:
            raise ConfigError(f"{self.conf}: remhost is {remhost}, not {LOOPBACK}:PORT")
        return int(match[1])

    def set_port(self, port: int) -> None:
        """Give the site another port, in the configuration and in known_hosts."""
        old, new = f"{LOOPBACK}:{self.port()}", f"{LOOPBACK}:{port}"
        key = re.compile(rf"(?m)^(remhost\s*=\s*){re.escape(old)}(\s*)$")
        _write(self.conf, key.sub(rf"\g<1>{new}\g<2>", self.conf.read_text(encoding="utf-8")))
        known_hosts = self.root / "keys/known_hosts"
        old, new = (f"[{remhost.replace(':', ']:')} " for remhost in (old, new))
        _write(known_hosts, known_hosts.read_text(encoding="utf-8").replace(old, new))

    def add_instrument(self, name: str) -> Path:
        """Make an instrument's directory, and its section where there is none."""
        known = self.config().instruments
        directory = self.root / "archive" / name
        if name not in known:
            text = self.conf.read_text(encoding="utf-8")
            _write(self.conf, f"{text}\n[instrument {name}]\ndir = {directory}\n")
        elif known[name].dir:
            directory = Path(known[name].dir)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def program(self) -> str | None:
        """Return what serves the site: the path of an sshd, or "embedded"; None: not chosen."""
        try:
            return (self.server / "program").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def set_program(self, program: str) -> None:
        """Remember what serves the site."""
        _write(self.server / "program", program + "\n")


def find(directory: str) -> Site | None:
    """Return the site in a directory; None when there is nothing yet.

    Raises PermanentError for a directory that is something else's, UsageError for a path
    that cannot be written into sshd's configuration.
    """
    root = Path(os.path.realpath(directory))
    if not str(root).isprintable() or {'"', "\\"} & set(str(root)):
        raise UsageError(
            f'"{keyvalue.printable(str(root))}" cannot hold a site: use a path without '
            "quotation marks, backslashes and characters that cannot be printed"
        )
    if not root.exists() or (root.is_dir() and not os.listdir(root)):
        return None
    if not root.is_dir():
        raise UsageError(f'"{root}" is not a directory: the first argument names where to build')
    try:
        if (root / "lpxfer.conf").read_text(encoding="utf-8").startswith(FIRST_LINE):
            return Site(root)
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    raise PermanentError(
        f'"{root}" is not empty and not a demo site: name a new directory, or an empty one'
    )


def make(directory: str, port: int, user: str) -> Site:
    """Make a site in a new or empty directory; `user` is the account that serves it."""
    site = Site(Path(os.path.realpath(directory)))
    site.root.mkdir(parents=True, exist_ok=True)
    text = FIRST_LINE + CONF.format(root=site.root, host=LOOPBACK, port=port, user=user)
    _write(site.conf, text)
    return site


def complete(site: Site) -> None:
    """Make what is missing in a site: directories, keys, the server's configuration."""
    for name in DIRECTORIES:
        (site.root / name).mkdir(mode=0o700 if name in PRIVATE else 0o755, exist_ok=True)
    host_key, identity = site.server / "host_key", site.root / "keys/id"
    for private, public, before in [
        (host_key, site.root / "keys/known_hosts", f"[{LOOPBACK}]:{site.port()} "),
        (identity, site.server / "authorized_keys", ""),
    ]:
        if not (private.exists() and public.exists()):
            _write(public, before + _new_key(private) + "\n")
    sshd_config = site.server / "sshd_config"
    if not sshd_config.exists():
        tokens = str(site.root).replace("%", "%%")  # sshd expands %h and its like there
        _write(sshd_config, SSHD_CONFIG.format(root=site.root, tokens=tokens))


def _new_key(path: Path) -> str:
    """Make a private key file of mode 0600 and return the public key's words."""
    from paramiko import ECDSAKey  # 120 ms that only this pays

    path.unlink(missing_ok=True)
    key = ECDSAKey.generate()
    key.write_private_key_file(path)
    return f"{key.get_name()} {key.get_base64()}"


def _write(path: Path, text: str) -> None:
    with durable.opened_dir(path.parent) as fd:
        durable.replace(path.name, text.encode(), fd, 0o644)

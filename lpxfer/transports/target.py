"""Where a job goes: the queue's settings with the job's own routing over them.

A job that names another host or path is sent there and confirmed from there; the queue's
password goes to the queue's own host only.
"""

import os
from dataclasses import dataclass

from lpxfer.errors import LpxferError, PermanentError
from lpxfer.formats import names
from lpxfer.formats.config import QueueConfig
from lpxfer.formats.job import Routing
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.transport import Transport

SSH_PORT = 22

PROBE = 1.5  # seconds for each answer when it is asked whether a silent far end is there at all


@dataclass(frozen=True)
class Target:
    """One archive site as one account sees it."""

    transport: str
    host: str
    port: int  # 0: as ssh_config(5) says; openssh only
    user: str  # empty: the same
    rempath: str
    receipts: str
    password_file: str = ""

    def __str__(self) -> str:
        """Name the target in messages."""
        if self.transport == "local":
            return self.rempath
        return f"{self.host}:{self.port}" if self.port else self.host


def target(settings: QueueConfig, routing: Routing, account: str) -> Target:
    """Work out where a job goes. `account` is the user where none is configured.

    Raises PermanentError for a remhost that is no HOST or HOST:PORT, and for what a job may not
    have the system's ssh given.
    """
    openssh = settings.transport == "openssh"
    if openssh:
        _check_for_ssh(routing)
    host, port = _split(routing.remhost or settings.remhost)
    rempath = routing.rempath or settings.rempath
    beside = os.path.join(os.path.dirname(rempath.rstrip("/")), "receipts")
    rempw = routing.rempw or ("" if routing.remhost else settings.rempw)
    return Target(
        transport=settings.transport,
        host=host,
        port=port or (0 if openssh else SSH_PORT),
        user=routing.remuser or settings.remuser or ("" if openssh else account),
        rempath=rempath,
        receipts=beside if routing.rempath else settings.receipts_path,
        password_file=rempw.removeprefix("file:"),
    )


def open_transport(
    settings: QueueConfig, where: Target, patience: float = 0.0, limiter: Limiter | None = None
) -> Transport:
    """Make an unconnected transport; what it needs is imported only now.

    `patience` bounds each step of connecting, in seconds; 0 is the queue's stall limit.
    `limiter` is the queue's rate limit.
    """
    if settings.transport == "local":
        from lpxfer.transports.local import LocalTransport

        return LocalTransport(
            where.rempath,
            stall=settings.stall,
            seal=settings.seal,
            patience=patience,
            limiter=limiter,
        )
    from lpxfer.transports import openssh, ssh
    from lpxfer.transports.sftp import SftpTransport

    by_ssh = settings.transport == "openssh"
    return SftpTransport(
        host=where.host,
        port=where.port,
        user=where.user,
        rempath=where.rempath,
        identity=settings.identity or None,
        password_file=where.password_file or None,
        known_hosts=settings.known_hosts or None,
        congestion=settings.congestion,
        stall=settings.stall,
        seal=settings.seal,
        patience=max(patience, openssh.LOGIN) if by_ssh and patience else patience,
        open_connection=openssh.Connection if by_ssh else ssh.Connection,
        limiter=limiter,
    )


def greets(settings: QueueConfig, account: str) -> bool:
    """Tell whether the queue's own target answers at all."""
    return open_transport(settings, target(settings, Routing(), account)).greets()


class Links:
    """One worker's connection, kept as long as its jobs go to the same target."""

    def __init__(
        self, settings: QueueConfig, patience: float = 0.0, limiter: Limiter | None = None
    ) -> None:
        """Know the queue's settings; connect when asked. The others as in open_transport."""
        self._settings, self._patience, self._limiter = settings, patience, limiter
        self._where: Target | None = None
        self._link: Transport | None = None
        self.stopping = False  # cut because the sender stops, so nobody is to blame
        self.fresh = False  # connected for the job at hand, so a failure is not its age

    @property
    def up(self) -> bool:
        """Tell whether there is a connection."""
        return self._link is not None

    def connected(self, where: Target) -> Transport:
        """Return the kept connection, or a new one. Raises LinkError."""
        if self._link is not None and self._where == where:
            self.fresh = False
            return self._link
        return self.reconnected(where)

    def reconnected(self, where: Target, patience: float = 0.0) -> Transport:
        """Return a new connection. Raises LinkError."""
        self.close()
        link = open_transport(self._settings, where, patience or self._patience, self._limiter)
        self._link, self._where = link, where
        try:
            link.connect()
        except LpxferError:
            self.close()
            raise
        self.fresh = True
        return link

    def cut(self, reason: str) -> None:
        """Break the connection under the worker that uses it, because the sender stops."""
        self.stopping = True
        if link := self._link:
            link.cut(reason)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._link is not None:
            self._link.close()
        self._link = self._where = None


def _check_for_ssh(routing: Routing) -> None:
    """Raise PermanentError for a job that wants ssh to be given what it must not.

    The queue's own settings are checked where ssh is started: they blame no job.
    """
    if routing.remhost:
        names.check_ssh_host(_split(routing.remhost)[0])
    if routing.remuser:
        names.check_ssh_user(routing.remuser)
    if routing.rempw:
        raise PermanentError("ssh reads no password from a file: a queue of transport = sftp does")


def _split(remhost: str) -> tuple[str, int]:
    """Split HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT; the port is 0 where it is not said."""
    host, _, port = remhost.rpartition("]")
    if host:  # an IPv6 address in brackets
        host, port = host.lstrip("["), port.lstrip(":")
    elif remhost.count(":") == 1:
        host, _, port = remhost.partition(":")
    else:
        host, port = remhost, ""
    if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise PermanentError(f'remhost "{remhost}" is not HOST or HOST:PORT')
    return host, int(port or 0)

"""Serve a demo site: be its archive site's SFTP server, on the loopback only.

The listening socket is this process's own, and each connection is handed to `sshd -i`, or
to the embedded server. So a port that was chosen cannot be lost again before the server has
it, and nothing listens when this process is gone, however it ended.
"""

import contextlib
import errno
import logging
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lpxfer.errors import BusyError, LinkError, LpxferError
from lpxfer.formats.job import Routing
from lpxfer.stores import site as sites
from lpxfer.stores.site import LOOPBACK, Site
from lpxfer.transports import target

EMBEDDED = "embedded"
PATIENCE = 10.0  # seconds for an answer, and for a process to end
PAUSE = 0.1  # seconds after a client that could not be served, lest that be all we do

_logger = logging.getLogger("lpxfer.server")
_logger.setLevel(logging.INFO)
_logger.propagate = False  # what is logged goes to the site's own log, never to the terminal

_MISSING = re.compile(r"Missing privilege separation directory: (/\S+)")


def listen(port: int) -> socket.socket:
    """Take a port of the loopback, 0 for any free one. Raises BusyError when it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise BusyError(f"port {port} of {LOOPBACK} is taken by another program") from error
    return listener


def log_in(site: Site) -> None:
    """Log in as the site's sender does, and ask for a file. Raises LinkError."""
    settings = site.settings()
    settings = replace(settings, stall=min(settings.stall, PATIENCE))
    link = target.open_transport(settings, target.target(settings, Routing(), settings.remuser))
    try:
        link.connect()
        link.stat("any")
    finally:
        link.close()


class Server:
    """What answers on a listening socket; use it in a `with`, which ends every connection."""

    def __init__(self, site: Site, listener: socket.socket, program: str) -> None:
        """Serve `site` with `program`, the path of an sshd, or EMBEDDED."""
        self.program = program
        self._site, self._listener = site, listener
        self._user = site.settings().remuser
        self._connections: list[Any] = []  # of Popen, or of paramiko's Transport
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="listener")
        self._log = logging.FileHandler(site.server / "log", delay=True)
        self._log.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def __enter__(self) -> "Server":
        _logger.addHandler(self._log)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread's accept
        self._thread.join()
        self._listener.close()
        for connection in self._connections:
            _end(connection)
        _logger.removeHandler(self._log)
        self._log.close()

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with client:
                    self._connections = [c for c in self._connections if _lives(c)]
                    self._connections.append(self._served(client))
            except (OSError, LpxferError) as error:
                if not self._ending.wait(PAUSE):
                    _logger.error("no connection: %s", error)

    def _served(self, client: socket.socket) -> Any:
        server = self._site.server
        if self.program != EMBEDDED:
            command = [self.program, "-i", "-e", "-f", str(server / "sshd_config")]
            fd = client.fileno()
            with (server / "log").open("ab") as log:
                return subprocess.Popen(command, stdin=fd, stdout=fd, stderr=log)
        from lpxfer.transports import embedded  # paramiko's 120 ms

        return embedded.serve(
            client.dup(),
            self._site.root,
            self._user,
            server / "host_key",
            server / "authorized_keys",
        )


@contextlib.contextmanager
def running(directory: str, user: str, sshd: str, say: Callable[[str], None]) -> Iterator[Site]:
    """Have the site of a directory served for a block, making the site where there is none.

    `user` is the account of a new site; `sshd` the path of OpenSSH's, "" for none; `say` is
    told what a person should know. Where the site's port is taken it gets another, unless
    it is the site's own server that runs there: then that one is used.
    """
    site = sites.find(directory)
    if site is None:
        with listen(0) as listener:
            site = sites.make(directory, listener.getsockname()[1], user)
            with served(site, listener, sshd, say):
                yield site
        return
    sites.complete(site)
    try:
        listener = listen(site.port())
    except BusyError as error:
        if _answers(site):
            say("the site's server is running already")
            yield site
            return
        listener = listen(0)
        site.set_port(listener.getsockname()[1])
        say(f"{error}; the site has port {site.port()} from now on")
    with listener, served(site, listener, sshd, say):
        yield site


@contextlib.contextmanager
def served(
    site: Site, listener: socket.socket, sshd: str, say: Callable[[str], None]
) -> Iterator[str]:
    """Serve a site on a listening socket for a block, which is given the program's name.

    The program is chosen when the site is new, and kept; raises LinkError when none works.
    Later the site is served as it is found: what a person changed or removed is not mended.
    """
    chosen = site.program()
    if chosen is None:
        sites.complete(site)
    program = chosen or sshd or EMBEDDED
    if program != EMBEDDED and (reason := _unfit(program, site, say)):
        say(f"{program} cannot be used: {reason}; the embedded server takes its place")
        program = EMBEDDED
    with Server(site, listener, program) as server:
        if chosen is None:
            _settle(server, site, say)
        yield server.program


def _settle(server: Server, site: Site, say: Callable[[str], None]) -> None:
    """Try a login, and remember what serves the site; where sshd refuses, embed one."""
    try:
        log_in(site)
    except LinkError as error:
        if server.program == EMBEDDED:
            raise
        log = site.server / "log"
        say(f"{server.program} lets nobody in: {error}; why is in {log}")
        say("the embedded server takes its place")
        server.program = EMBEDDED
        log_in(site)
    site.set_program(server.program)


def _answers(site: Site) -> bool:
    try:
        log_in(site)
    except LinkError:
        return False
    return True


def _unfit(sshd: str, site: Site, say: Callable[[str], None]) -> str:
    """Return why an sshd cannot serve a site, "" when it can."""
    command = [sshd, "-t", "-f", str(site.server / "sshd_config")]
    for _ in range(2):
        try:
            tried = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if tried.returncode == 0:
            return ""
        missing = _MISSING.search(tried.stderr)
        if not missing or os.geteuid() != 0:
            break
        Path(missing[1]).mkdir(mode=0o755)
        say(f"made {missing[1]}, the empty directory that sshd wants when root starts it")
    return tried.stderr.strip() or f"exit status {tried.returncode}"


def _lives(connection: Any) -> bool:
    if isinstance(connection, subprocess.Popen):
        return connection.poll() is None
    return bool(connection.is_active())


def _end(connection: Any) -> None:
    """End a connection; what does not end in time is killed."""
    if not isinstance(connection, subprocess.Popen):
        connection.close()
        return
    connection.terminate()
    try:
        connection.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        connection.kill()
        connection.wait()

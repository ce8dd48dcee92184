"""One SSH connection over the system's ssh: it logs in as the user's ssh_config(5) says.

So whatever ssh reaches is reached: through jump hosts, with Kerberos, with keys in hardware, to
servers whose algorithms are out of use. The host's key must be known here, too.

No shell is started, no password asked for, nothing forwarded. What a job may name, the host and
the user, cannot become an option of ssh nor a word of a shell in its configuration. Whatever goes
wrong before the first byte from the server is a LinkError with one line that says what to do.

ssh and all that it starts are one process group. `shut` kills that from any thread; when the
sender is killed, ssh finds its input at an end and goes, at the latest when the server has not
answered for two minutes. Only one killed while it still logs in to a server that hangs is left
to TCP.
"""

import contextlib
import io
import math
import os
import select
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from lpxfer.errors import FormatError, LinkError
from lpxfer.formats import names
from lpxfer.formats.keyvalue import printable
from lpxfer.transports import ssh_said
from lpxfer.transports.account import Account
from lpxfer.transports.packets import LARGE, SMALL, Broken
from lpxfer.transports.wire import Fill

PROGRAM = "ssh"

#: Seconds in which a login must be possible: nothing is seen of its steps, and there are some
#: ten round trips to each host on the way.
LOGIN = 20.0

#: Bytes that may wait between ssh and us. A socket is as fast as a pipe of this size, and can be
#: shut down under whoever waits for it.
BUFFER = 1 << 20

SAID_LIMIT = 65536  # bytes read of what ssh says: all that a pipe holds
MOMENT = 1.0  # seconds that ssh may take to say why it has ended

OPTIONS = (
    *("-T", "-a", "-x"),  # no terminal; no agent and no X11 for the far end
    *("-o", "BatchMode=yes"),  # ask nobody
    *("-o", "StrictHostKeyChecking=yes", "-o", "NoHostAuthenticationForLocalhost=no"),
    *("-o", "ControlMaster=no", "-o", "ControlPath=none"),  # a connection of its own
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "PermitLocalCommand=no", "-o", "RemoteCommand=none"),
    *("-o", "Compression=no"),
    *("-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=3"),
    *("-o", "LogLevel=INFO"),  # with less it does not say what the server is unable to
)


def arguments(account: Account) -> list[str]:
    """Return the options that say whom to log in to, and as whom, with the host at the end.

    What the account does not say is left to ssh_config(5). Raises LinkError for what ssh cannot
    or must not be given.
    """
    if account.password_file:
        raise LinkError(
            f"{account.label}: ssh reads no password from a file; use a key, "
            "or set transport = sftp"
        )
    try:
        names.check_ssh_host(account.host)
        user = ["-l", names.check_ssh_user(account.user)] if account.user else []
    except FormatError as error:
        raise LinkError(printable(str(error))) from error
    words = ["-p", str(account.port)] if account.port else []
    if account.identity:
        words += ["-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={_path(account.identity)}"]
    if account.known_hosts:
        words += ["-o", f"UserKnownHostsFile={_path(account.known_hosts)}"]
        words += ["-o", "GlobalKnownHostsFile=/dev/null"]
    return [*words, *user, "--", account.host]


def _path(path: str) -> str:
    """Return a path as a value in ssh_config(5)."""
    return '"' + os.path.expanduser(path).replace("%", "%%") + '"'


class Channel:
    """ssh's input and output as wire.py wants its stream."""

    def __init__(
        self, sock: socket.socket, heard: Callable[[], None], ended: Callable[[], Exception]
    ) -> None:
        """Know the socket; `heard` is told of bytes, `ended` says why there are no more."""
        self._socket, self._heard, self._ended = sock, heard, ended
        self._buffer = memoryview(bytearray(LARGE + SMALL))  # a write at once
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def send(self, size: int, fill: Fill) -> None:
        """Send bytes that `fill` puts into a buffer."""
        while size:
            view = self._buffer[: min(size, len(self._buffer))]
            fill([view])
            size -= len(view)
            try:
                self._socket.sendall(view)
            except OSError as error:
                raise self._ended() from error

    def recv(self, size: int) -> bytes:
        """Return some bytes."""
        data = b""
        with contextlib.suppress(OSError):
            data = self._socket.recv(size)
        if not data:
            raise self._ended()
        self._heard()
        return data

    def recv_ready(self) -> bool:
        """Say whether recv would return at once."""
        return bool(self._poll.poll(0))


class Connection:
    """One connection and its login, made by one process of ssh. See connection.Connection."""

    def __init__(self, account: Account, extra: Sequence[str] = ()) -> None:
        """Know the account; `extra` options of ssh go before all others, and so prevail."""
        self._account, self._extra = account, extra
        self._lock = threading.Lock()  # guards the next three
        self._process: subprocess.Popen[bytes] | None = None  # until its pid may be another's
        self._socket: socket.socket | None = None
        self._shut = False
        self._errors: io.FileIO | None = None  # what ssh says
        self._heard = False  # the server has spoken SFTP, or has tried

    @property
    def alive(self) -> bool:
        """False once ssh is known to have ended."""
        return self._process is not None and self._status() is None

    def greets(self) -> bool:
        """Return True: only ssh knows the way there."""
        return True

    def open(self, timeout: float, progress: Callable[[], None]) -> Channel:
        """Start ssh, which connects while the SFTP session waits for its first answer."""
        wait = ["-o", f"ConnectTimeout={math.ceil(timeout)}"] if timeout else []
        words = [*self._extra, *OPTIONS, *wait, "-s", *arguments(self._account), "sftp"]
        with self._lock:
            if self._shut:
                raise LinkError(f"{self._account.label}: cut")
            try:
                self._socket, self._errors, self._process = _start([PROGRAM, *words])
            except FileNotFoundError as error:
                raise LinkError(
                    f"{PROGRAM} is not installed here: install OpenSSH's client, "
                    "or set transport = sftp"
                ) from error
            except OSError as error:
                raise LinkError(f"cannot start {PROGRAM}: {error.strerror}") from error
        progress()
        return Channel(self._socket, self._hear, self._ended)

    def shut(self) -> None:
        """Break the connection; every call under way in another thread ends with an error."""
        with self._lock:
            self._shut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the connection and wait for the process."""
        self.shut()
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(MOMENT)
        for file in (self._socket, self._errors):
            if file is not None:
                file.close()

    def _hear(self) -> None:
        """Take note of bytes from the server; what was said while logging in is done with."""
        if not self._heard:
            self._heard = True
            self._said(time.monotonic())

    def _ended(self) -> Exception:
        """Find out why ssh's output has ended."""
        if self._shut:
            return Broken("the connection was cut")
        deadline = time.monotonic() + MOMENT
        text = self._said(deadline)
        status = self._status()
        while status is None and time.monotonic() < deadline:
            time.sleep(0.01)
            status = self._status()
        if self._heard:
            return Broken(ssh_said.last(text) or "the server closed the connection")
        by_hand = shlex.join([PROGRAM, *arguments(self._account)])
        return LinkError(ssh_said.explain(self._account, text, status, by_hand))

    def _said(self, deadline: float) -> str:
        """Read what ssh has said, until all who could say more have ended or time is over."""
        assert self._errors
        text = b""
        poll = select.poll()
        poll.register(self._errors, select.POLLIN)
        while len(text) < SAID_LIMIT:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                break
            if not (more := self._errors.read(SAID_LIMIT)):
                break
            text += more
        return text.decode("utf-8", "replace")

    def _status(self) -> int | None:
        """Return ssh's exit status, None while it runs; leave its pid taken, for `shut`."""
        if self._process is None:
            return None
        with contextlib.suppress(ChildProcessError):
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            found = os.waitid(os.P_PID, self._process.pid, flags)
            return None if found is None else found.si_status
        return 0


def _start(command: list[str]) -> tuple[socket.socket, io.FileIO, "subprocess.Popen[bytes]"]:
    """Start ssh in a session of its own, without a terminal; raises OSError.

    Returns the socket that is its input and output, and what it says, whatever it says: a pipe
    that is full keeps nobody waiting.
    """
    with contextlib.ExitStack() as failed, contextlib.ExitStack() as theirs:
        ours, its = socket.socketpair()
        failed.callback(ours.close)
        theirs.callback(its.close)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        read, write = os.pipe()
        errors = failed.enter_context(io.FileIO(read))
        theirs.callback(os.close, write)
        os.set_blocking(write, False)
        process = subprocess.Popen(
            command,
            stdin=its.fileno(),
            stdout=its.fileno(),
            stderr=write,
            start_new_session=True,
        )
        failed.pop_all()
    return ours, errors, process

"""One SSH connection over paramiko: a host whose key is known, an account, the SFTP channel.

Everything that can go wrong on the way is a LinkError with one line that says what to do.
Nothing here has a time limit of its own that matters: the caller watches, and `shut` ends
whatever is under way from any thread.
"""

import logging
import os
import pwd
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import paramiko

from lpxfer.errors import LinkError
from lpxfer.formats.keyvalue import printable
from lpxfer.transports import bulk, congestion, host_keys, secret_file
from lpxfer.transports.account import Account
from lpxfer.transports.packets import Broken
from lpxfer.transports.wire import Fill

# What goes wrong is raised; without this Python would also print paramiko's log to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

#: Best first: GCM costs half of what CTR with a separate MAC does. No CBC, no 3DES.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com",
           "aes128-ctr", "aes192-ctr", "aes256-ctr")  # fmt: skip

USUAL_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")

GREETING = 5.0  # seconds that a server which works needs at most to greet

LOOK = 5.0  # seconds between paramiko's looks whether it was closed; `shut` wakes it in any case

LATER = 3600  # seconds of paramiko's own limits: who watches the call comes first


def greets(account: Account) -> bool:
    """Tell whether an SSH server sends its greeting (RFC 4253, 4.2) within a few seconds."""
    with (
        suppress(OSError, UnicodeError),
        socket.create_connection((account.host, account.port), timeout=GREETING) as sock,
    ):
        return sock.recv(4, socket.MSG_WAITALL) == b"SSH-"
    return False


class Channel:
    """The SFTP channel as wire.py wants its stream."""

    def __init__(self, channel: Any) -> None:  # paramiko's, with what its types leave out
        self._channel = channel
        self._packet = min(bulk.PACKET, channel.out_max_packet_size)
        self.recv_ready = channel.recv_ready

    def send(self, size: int, fill: Fill) -> None:
        """Send bytes that `fill` puts into the packets."""
        try:
            while size:
                room = self._room(size)
                whole, rest = divmod(room, self._packet)
                sizes = [self._packet] * whole + ([rest] if rest else [])
                batch = bulk.Batch(self._channel.remote_chanid, sizes, fill)
                self._channel.transport._send_user_message(batch)
                size -= room
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Broken(_reason(error)) from error

    def _room(self, size: int) -> int:
        """Wait until the server takes more; return how many bytes, `size` or a batch at most."""
        channel, size = self._channel, min(size, bulk.BATCH * self._packet)
        with channel.lock:
            room: int = channel._wait_for_send_window(size)
            if not room:
                raise Broken("the server closed the connection")
            more: int = min(size - room, channel.out_window_size)
            channel.out_window_size -= more
            return room + more

    def recv(self, size: int) -> bytes:
        """Return some bytes; nothing at the stream's end."""
        try:
            data: bytes = self._channel.recv(size)
            return data
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Broken(_reason(error)) from error


class Connection:
    """One connection and its login. See connection.Connection."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._socket: socket.socket | None = None
        self._transport: paramiko.Transport | None = None
        self._shut = False

    @property
    def alive(self) -> bool:
        """False once the connection is known to be gone."""
        return self._transport is not None and self._transport.is_active()

    def greets(self) -> bool:
        """Tell whether an SSH server answers there."""
        return greets(self._account)

    def open(self, timeout: float, progress: Callable[[], None]) -> Channel:
        """Connect, check the host's key, log in, open the SFTP channel.

        `timeout` bounds the TCP connection to each address, in seconds; `progress` is
        called after each step. Raises LinkError.
        """
        account = self._account
        try:
            self._socket = self._dial(timeout)
            progress()
            transport = self._transport = paramiko.Transport(
                self._socket, packetizer_class=bulk.BulkPacketizer
            )
            known = host_keys.known_keys(account)
            _prefer(transport.get_security_options(), known)
            transport.banner_timeout = transport.handshake_timeout = LATER
            transport.auth_timeout = LATER
            transport.start_client()
            host_keys.check(account, transport.get_remote_server_key(), known)
            progress()
            _log_in(account, transport)
            progress()
            channel = _open_channel(account, transport)
            self._socket.settimeout(LOOK)
        except LinkError:
            raise
        except Exception as error:  # nonsense from a server raises anything
            raise LinkError(f"{account.label}: {_reason(error)}") from error
        return Channel(channel)

    def _dial(self, timeout: float) -> socket.socket:
        """Make the TCP connection to the first address that answers."""
        try:
            found = socket.getaddrinfo(
                self._account.host, self._account.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            raise LinkError(
                f"{self._account.label}: cannot find the host's address: {_reason(error)}"
            ) from error
        failure: OSError = OSError("no address")
        for family, kind, protocol, _, address in found:
            self._socket = sock = socket.socket(family, kind, protocol)
            try:
                if self._shut:
                    raise OSError("cut")
                sock.settimeout(timeout or None)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                congestion.choose(sock, self._account.congestion)
                return sock
            except OSError as error:
                sock.close()
                failure = error
        raise failure

    def shut(self) -> None:
        """Break the connection; every call under way in another thread ends with an error."""
        self._shut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection and wait for its thread."""
        self.shut()
        if self._transport is not None:
            self._transport.packetizer.complete_handshake()  # its timer would live on for 15 s
            self._transport.close()
            if self._transport.is_alive():
                self._transport.join(1)
        if self._socket is not None:
            self._socket.close()


def _open_channel(account: Account, transport: paramiko.Transport) -> paramiko.Channel:
    channel = transport.open_session()
    try:
        channel.invoke_subsystem("sftp")
    except paramiko.SSHException as error:
        raise LinkError(f"{account.label}: the server offers no SFTP") from error
    return channel


def _prefer(options: paramiko.transport.SecurityOptions, known: list[paramiko.PKey]) -> None:
    """Ask for fast ciphers, and for a host key of a kind that we know."""
    options.ciphers = [cipher for cipher in CIPHERS if cipher in options.ciphers]
    kinds = {key.get_name() for key in known}
    if "ssh-rsa" in kinds:
        kinds |= {"rsa-sha2-512", "rsa-sha2-256"}
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in kinds)


def _log_in(account: Account, transport: paramiko.Transport) -> None:
    """Try each key, then the password. Raises LinkError, or what paramiko raises."""
    user = account.user or pwd.getpwuid(os.geteuid()).pw_name
    tried = []
    with closing(_Keys(account)) as keys:
        for name, key in keys:
            tried.append(name)
            with suppress(paramiko.AuthenticationException):
                if not transport.auth_publickey(user, key):
                    return
            if not transport.is_active():
                break
    if account.password_file and transport.is_active():
        secret = secret_file.read(account.password_file, "password")
        password = secret.decode("utf-8", "surrogateescape")
        tried.append(f"the password in {account.password_file}")
        with suppress(paramiko.AuthenticationException):
            if not transport.auth_password(user, password):
                return
    if not transport.is_active():
        raise LinkError(
            f"{account.label}: the server ended the login as {user} after {', '.join(tried)}"
        )
    if not tried:
        raise LinkError(
            f"{account.label}: no key and no password to log in with as {user}; "
            "set identity, or rempw=file:PATH"
        )
    raise LinkError(f"{account.label}: login as {user} refused with {', '.join(tried)}")


class _Keys:
    """The private keys to try, in order, each with a name for messages."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._agent: paramiko.Agent | None = None

    def __iter__(self) -> Iterator[tuple[str, paramiko.PKey]]:
        if self._account.identity:
            path = os.path.expanduser(self._account.identity)
            yield f"the key {path}", _read_key(path)
        elif not self._account.password_file:
            self._agent = paramiko.Agent()
            for key in self._agent.get_keys():
                yield f"the agent's key {printable(key.comment)}", key
            for path in map(os.path.expanduser, USUAL_KEYS):
                if os.path.exists(path):
                    with suppress(LinkError):
                        yield f"the key {path}", _read_key(path)

    def close(self) -> None:
        """Let go of the agent."""
        if self._agent is not None:
            self._agent.close()


def _read_key(path: str) -> paramiko.PKey:
    """Read a private key file without a passphrase."""
    try:
        mode = os.stat(path)
        if mode.st_uid == os.geteuid() and mode.st_mode & 0o077:
            raise LinkError(f"others may read the private key {path}; chmod 600 {path}")
        return paramiko.PKey.from_path(path)
    except OSError as error:
        raise LinkError(f"cannot read the private key {path}: {error.strerror}") from error
    except (TypeError, paramiko.PasswordRequiredException) as error:
        raise LinkError(f"the private key {path} has a passphrase: use an agent") from error
    except (ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        raise LinkError(f"{path} is not a private key that can be used here") from error


def _reason(error: BaseException) -> str:
    """Say in a few words what the network or paramiko meant."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, EOFError):
        return "the server closed the connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "protocol banner" in str(error):
        return "no SSH server answers there"
    return printable(str(error))[:200] or type(error).__name__

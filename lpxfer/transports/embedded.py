"""An SFTP server over paramiko for one directory, where there is no OpenSSH.

It speaks to one account with one public key, and does what a deposit account may do: open,
read, write, list, stat, set a file's mode by its handle, and rename without overwriting. It
neither removes nor makes directories. Paths are those of this machine, as with OpenSSH, and
nothing outside the directory is reached: no link beneath it is followed.

paramiko's server has no place for fsync@openssh.com, so a file is synced when its mode is
set by the handle, which is how a sender seals it, and a directory after each rename.
"""

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import paramiko
from paramiko import SFTPAttributes, SFTPHandle, SFTPServer, SFTPServerInterface
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)
from paramiko.sftp import SFTP_OK, SFTP_OP_UNSUPPORTED

from lpxfer import durable
from lpxfer.errors import LinkError


def serve(connection: socket.socket, root: Path, user: str, host_key: Path, known: Path) -> Any:
    """Serve one connection in threads of its own; return it as paramiko's Transport.

    `root` is the directory served, `user` the only account, `host_key` a private key file,
    `known` an authorized_keys file, read anew for each login. The caller closes what is
    returned; it is active for as long as the client stays. Raises LinkError for a host key
    that cannot be used.
    """
    try:
        key = paramiko.PKey.from_path(host_key)
    except (OSError, ValueError, paramiko.SSHException) as error:
        connection.close()
        raise LinkError(f"host key {host_key}: {error}") from error
    transport = paramiko.Transport(connection)
    transport.set_log_channel("lpxfer.server.embedded")
    transport.add_server_key(key)
    transport.set_subsystem_handler("sftp", SFTPServer, _Files, root)
    transport.start_server(threading.Event(), _Door(user, known))
    return transport


class _Door(paramiko.ServerInterface):
    """Lets the one account in, by its key, to the one subsystem."""

    def __init__(self, user: str, known: Path) -> None:
        self.user, self.known = user, known

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        lines = [line.split()[:2] for line in self.known.read_text().splitlines()]
        if username == self.user and [key.get_name(), key.get_base64()] in lines:
            return AUTH_SUCCESSFUL
        return AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        session = kind == "session"
        return OPEN_SUCCEEDED if session else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


def _answered(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turn an OSError into the status that SFTP has for it."""

    @wraps(method)
    def answer(*args: Any) -> Any:
        try:
            return method(*args)
        except OSError as error:
            return SFTPServer.convert_errno(error.errno or errno.EIO)

    return answer


class _File(SFTPHandle):
    """An open file."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)

    @_answered
    def read(self, offset: int, length: int) -> bytes | int:
        return os.pread(self.fd, min(length, durable.CHUNK), offset)

    @_answered
    def write(self, offset: int, data: bytes) -> int:
        while data:
            done = os.pwrite(self.fd, data, offset)
            offset, data = offset + done, data[done:]
        return SFTP_OK

    @_answered
    def stat(self) -> SFTPAttributes | int:
        return SFTPAttributes.from_stat(os.fstat(self.fd))

    @_answered
    def chattr(self, attr: SFTPAttributes) -> int:
        if attr.st_uid is not None or attr.st_mtime is not None:
            return SFTP_OP_UNSUPPORTED
        if attr.st_size is not None:
            os.ftruncate(self.fd, attr.st_size)
        if attr.st_mode is not None:
            os.fchmod(self.fd, stat.S_IMODE(attr.st_mode) & 0o777)
        durable.sync(self.fd)
        return SFTP_OK


class _Files(SFTPServerInterface):
    """The files beneath one directory; what is not here is answered "unsupported"."""

    def __init__(self, server: paramiko.ServerInterface, root: Path) -> None:
        super().__init__(server)
        self.root = root

    def canonicalize(self, path: str) -> str:
        return os.path.normpath(self.root / path)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the directory of a path, step by step from the root; give it and the name."""
        beneath = os.path.relpath(self.canonicalize(path), self.root)
        *directories, name = beneath.split("/")
        if ".." in (*directories, name):
            raise PermissionError(errno.EACCES, "outside the directory served", path)
        fd = durable.open_dir(self.root)
        try:
            for directory in directories:
                inner = durable.open_dir(directory, fd)
                os.close(fd)
                fd = inner
            yield fd, name
        finally:
            os.close(fd)

    @_answered
    def open(self, path: str, flags: int, attr: SFTPAttributes) -> _File | int:
        mode = 0o666 if attr.st_mode is None else attr.st_mode & 0o777
        with self._parent(path) as (parent, name):
            safe = flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, safe, mode, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return _File(fd)

    @_answered
    def lstat(self, path: str) -> SFTPAttributes | int:
        with self._parent(path) as (parent, name):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        return SFTPAttributes.from_stat(status)

    stat = lstat  # links are not followed here

    @_answered
    def list_folder(self, path: str) -> list[SFTPAttributes] | int:
        with self._parent(path) as (parent, name), durable.opened_dir(name, parent) as fd:
            found = []
            for entry in os.listdir(fd):
                with suppress(FileNotFoundError):
                    status = os.stat(entry, dir_fd=fd, follow_symlinks=False)
                    found.append(SFTPAttributes.from_stat(status, entry))
            return found

    @_answered
    def rename(self, oldpath: str, newpath: str) -> int:
        """As OpenSSH does it: link, which refuses to overwrite, then unlink."""
        with self._parent(oldpath) as (old, name), self._parent(newpath) as (new, new_name):
            durable.link(name, new_name, old, new)
            os.unlink(name, dir_fd=old)
            durable.sync(old)
        return SFTP_OK

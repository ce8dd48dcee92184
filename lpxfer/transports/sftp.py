"""Carries files to an archive site over SFTP; all that site needs is an sshd.

Nothing blocks for ever: every call is watched from another thread, which breaks the
connection when no byte was acknowledged for `stall` seconds or the call's limit is over.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from lpxfer.errors import AttemptError, LinkError, LostError, LpxferError, PermanentError
from lpxfer.formats.keyvalue import printable
from lpxfer.transports import order, ssh, wire
from lpxfer.transports.connection import Connection
from lpxfer.transports.transport import Stat
from lpxfer.transports.watchdog import watched

NAMES_LIMIT = 100_000  # names read of one directory of receipts

ROOM = 4 << 20  # free bytes under which a refused write means a full file system


class SftpTransport:
    """One connection to `rempath` at an archive site. See Transport."""

    def __init__(
        self,
        host: str,
        port: int,
        user: str,
        rempath: str,
        *,
        identity: str | None = None,
        password_file: str | None = None,
        known_hosts: str | None = None,
        stall: float = 60.0,
        seal: int = 0o440,
        patience: float = 0.0,
        open_connection: Callable[[ssh.Account], Connection] = ssh.Connection,
    ) -> None:
        """Keep what is needed to connect; see ssh.Account and connection.Connection.

        `rempath` is the incoming directory, `stall` in seconds, `seal` the mode of files
        in incoming; `patience` takes the place of `stall` while it connects, if it is less.
        """
        self._account = ssh.Account(host, port, user, identity, password_file, known_hosts)
        self._open_connection = open_connection
        self.rempath = rempath
        self.stall = stall
        self.patience = min(stall, patience or stall)
        self.seal = seal
        self._connection: Connection | None = None
        self._session: wire.Session | None = None
        self._cut: LpxferError | None = None  # why the connection was broken from outside

    def connect(self) -> None:
        """Open the connection, unless it is open."""
        if self._session and self._connection and self._connection.alive and not self._cut:
            return
        self.close()
        self._cut = None
        connection = self._connection = self._open_connection(self._account)
        try:
            with watched(lambda _: self._break(LinkError(self._silent())), self.patience) as watch:
                session = wire.Session(connection.open(self.patience, watch.progress))
        except (wire.Broken, LinkError) as error:
            alive = connection.alive
            self.close()
            if self._cut:
                raise self._cut from error
            if isinstance(error, LinkError):
                raise
            raise LinkError(
                f"{self.label}: no SFTP after the login: {error}" if alive else self._gone(error)
            ) from error
        self._session = session
        if self._cut:  # between the last step and here
            raise self._cut

    def greets(self) -> bool:
        """Tell whether the far end answers."""
        return self._open_connection(self._account).greets()

    def stat(self, name: str) -> Stat | None:
        """Look at a file in incoming."""
        with self._calling() as session:
            return self._incoming(session).stat(name)

    def put(
        self,
        name: str,
        source: int | bytes,
        size: int,
        *,
        start: int = 0,
        limit: float = 0,
        acked: Callable[[int], None] = lambda offset: None,
        before_rename: Callable[[], None] = lambda: None,
    ) -> None:
        """Write a file in incoming, durably; see Transport.put."""
        with self._calling(limit, putting=True) as session:
            incoming = self._incoming(session)
            order.put(incoming, name, source, size, start, acked, before_rename)

    def names(self, directory: str) -> list[str]:
        """List a directory of receipts."""
        with self._calling() as session:
            try:
                found = session.names(os.fsencode(directory), NAMES_LIMIT)
            except wire.Refused as refused:
                if refused.code == wire.NO_SUCH_FILE:
                    return []
                raise self._refused(f"cannot list {directory}", refused) from refused
        return sorted(map(os.fsdecode, found))

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Read a part of a receipts file."""
        data = bytearray()
        with self._calling() as session:
            try:
                handle = session.open(os.fsencode(path), wire.FOR_READING)
                try:
                    while len(data) < limit:
                        more = session.read(handle, offset + len(data), limit - len(data))
                        if not more:
                            break
                        data += more
                finally:
                    session.close(handle)
            except wire.Refused as refused:
                if refused.code == wire.NO_SUCH_FILE:
                    return b""
                raise PermanentError(
                    f"{self.label}: cannot read {path}: {_text(refused)}"
                ) from refused
        return bytes(data)

    def cut(self, reason: str) -> None:
        """Break the connection from another thread."""
        self._break(AttemptError(reason))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._session = None

    def _break(self, why: LpxferError) -> None:
        self._cut = self._cut or why
        if (connection := self._connection) is not None:
            connection.shut()

    @contextmanager
    def _calling(self, limit: float = 0.0, putting: bool = False) -> Iterator[wire.Session]:
        """Watch over one call; a connection that breaks in it is closed and said to be."""
        if self._cut:
            raise self._cut
        if (session := self._session) is None:
            raise LinkError(f"{self.label}: not connected")

        def cut(stalled: bool) -> None:
            if not putting:
                self._break(LostError(self._silent()))
            elif stalled:
                self._break(AttemptError(f"no byte acknowledged for {self.stall:g} s"))
            else:
                self._break(AttemptError(f"maxftp: not done within {limit:g} s"))

        try:
            with watched(cut, self.stall, limit) as watch:
                session.progress = watch.progress
                yield session
        except wire.Broken as error:
            self.close()
            raise self._cut or LostError(self._gone(error)) from error

    def _incoming(self, session: wire.Session) -> "_Incoming":
        return _Incoming(session, self.label, self.rempath, self.seal, self.close)

    @property
    def label(self) -> str:
        """How messages name the far end."""
        return self._account.label

    def _silent(self) -> str:
        return f"{self.label}: no answer for {self.stall:g} s"

    def _gone(self, error: wire.Broken) -> str:
        return f"{self.label}: connection lost: {error}"

    def _refused(self, what: str, refused: wire.Refused) -> LinkError:
        return LinkError(f"{self.label}: {what}: {_text(refused)}")


class _Incoming:
    """The incoming directory over one session; what it refuses is explained here."""

    def __init__(
        self, session: wire.Session, label: str, rempath: str, seal: int, drop: Callable[[], None]
    ) -> None:
        self.session, self.seal, self.drop = session, seal, drop
        self._rempath = rempath
        self._where = f"{label}:{rempath}"

    def _path(self, name: str) -> bytes:
        return os.fsencode(os.path.join(self._rempath, name))

    def stat(self, name: str) -> Stat | None:
        try:
            found = self.session.lstat(self._path(name))
        except wire.Refused as refused:
            if refused.code == wire.NO_SUCH_FILE:
                return None
            raise LinkError(f"cannot look into {self._where}: {_text(refused)}") from refused
        # A server that tells no mode tells no type either: open for writing, and a file.
        mode = stat.S_IFREG | 0o600 if found.mode is None else found.mode
        if not stat.S_ISREG(mode) or found.size is None:
            raise PermanentError(
                f"{self._where}/{name} is not a regular file: somebody put it there"
            )
        return Stat(found.size, stat.S_IMODE(mode))

    def open_part(self, part: str, create: bool, empty: bool) -> "_Part":
        flags = wire.FOR_WRITING
        if create:
            flags |= wire.CREATE | wire.EXCLUSIVE
        elif empty:
            flags |= wire.TRUNCATE
        try:
            return _Part(self, self.session.open(self._path(part), flags))
        except wire.Refused as refused:
            if refused.code == wire.NO_SUCH_FILE:
                raise LinkError(
                    f"{self._where}: there is no such directory; make it, or correct rempath"
                ) from refused
            if refused.code == wire.PERMISSION_DENIED and create:
                raise LinkError(f"{self._where}: no permission to write there") from refused
            if refused.code == wire.PERMISSION_DENIED:
                raise AttemptError(
                    f"{self._where}/{part} is another account's, or sealed with other bytes: "
                    "it has to be removed at the archive site"
                ) from refused
            raise self.explain(f"opening {part}", refused) from refused

    def rename(self, part: str, name: str) -> None:
        try:
            self.session.rename(self._path(part), self._path(name))
        except wire.Refused as refused:
            if self.stat(name) is not None:
                raise PermanentError(f"{self._where}/{name} exists already") from refused
            raise self.explain(f"renaming {part}", refused) from refused

    def explain(self, what: str, refused: wire.Refused) -> LinkError | AttemptError:
        """Find out what the server's "Failure" means: everybody's trouble, or this file's."""
        space = None
        with suppress(wire.Refused):
            space = self.session.space(os.fsencode(self._rempath))
        if space is not None and space.read_only:
            return LinkError(f"{self._where} is read-only")
        if space is not None and (space.free < ROOM or not space.inodes):
            files = "" if space.inodes else " and no more files"
            return LinkError(f"{self._where} is full: {space.free} bytes free{files}")
        return AttemptError(f"{self._where}: {what} refused: {_text(refused)}")


class _Part:
    """An open part file over one session."""

    def __init__(self, incoming: _Incoming, handle: bytes) -> None:
        self._incoming, self._session, self._handle = incoming, incoming.session, handle
        self._replies_due = False

    def write(
        self, source: int | bytes, start: int, size: int, acked: Callable[[int], None]
    ) -> None:
        self._replies_due = True
        try:
            self._session.write(self._handle, order.reader(source), start, size, acked)
        except wire.Refused as refused:
            self._replies_due = False  # the session drops them
            raise self._incoming.explain("a write", refused) from refused
        self._replies_due = False

    def size(self) -> int:
        try:
            return self._session.fstat(self._handle).size or 0
        except wire.Refused as refused:
            raise self._incoming.explain("asking for the size", refused) from refused

    def seal(self) -> None:
        try:
            self._session.set_mode(self._handle, self._incoming.seal)
        except wire.Refused as refused:
            raise LinkError(
                f"the archive does not let a file be sealed ({_text(refused)}); its sshd must "
                "allow fsetstat"
            ) from refused

    def sync(self) -> None:
        try:
            self._session.fsync(self._handle)
        except wire.Refused as refused:
            raise self._incoming.explain("syncing", refused) from refused

    def spoil(self) -> None:
        with suppress(wire.Refused):
            self._session.set_size(self._handle, 0)
            self._session.set_mode(self._handle, 0o600)

    def close(self) -> None:
        if self._replies_due:
            # Left in the middle, by a cancel or a cut: quicker than waiting for what is
            # under way, which may be megabytes on a slow link.
            self._incoming.drop()
        with suppress(wire.Broken, wire.Refused):
            self._session.close(self._handle)


def _text(refused: wire.Refused) -> str:
    return printable(str(refused))[:200]

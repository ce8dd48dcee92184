"""Carries files to an archive site over SFTP; all that site needs is an sshd.

Nothing blocks for ever: every call is watched from another thread, which breaks the
connection when no byte was acknowledged for `stall` seconds or the call's limit is over.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TypeVar

from lpxfer.errors import AttemptError, LinkError, LostError, LpxferError, PermanentError
from lpxfer.formats import names
from lpxfer.formats.keyvalue import printable
from lpxfer.transports import order, packets, ssh, wire
from lpxfer.transports.account import Account
from lpxfer.transports.connection import Connection
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.stripes import Pieces, Share, Stripes
from lpxfer.transports.transport import Stat, Upload
from lpxfer.transports.watchdog import watched
from lpxfer.transports.wire import Answer

T = TypeVar("T")

NAMES_LIMIT = 100_000  # names read of one directory of receipts

WAIT = 0.1  # seconds between looks at a file whose last pieces are with other connections

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
        congestion: str = "",
        stall: float = 60.0,
        seal: int = 0o440,
        patience: float = 0.0,
        open_connection: Callable[[Account], Connection] = ssh.Connection,
        limiter: Limiter | None = None,
    ) -> None:
        """Keep what is needed to connect; see account.Account and connection.Connection.

        `rempath` is the incoming directory, `stall` in seconds, `seal` the mode of files
        in incoming; `patience` takes the place of `stall` while it connects, if it is less.
        `limiter` is the rate limit that it shares with others.
        """
        self._account = Account(host, port, user, identity, password_file, known_hosts, congestion)
        self._open_connection = open_connection
        self.rempath = rempath
        self.stall = stall
        self.patience = min(stall, patience or stall)
        self.seal, self._limiter = seal, limiter
        self._connection: Connection | None = None
        self._session: wire.Session | None = None
        self._cut: LpxferError | None = None  # why the connection was broken from outside

    @property
    def rtt(self) -> float:
        """The round trip in seconds."""
        return self._session.rtt if self._session else 0.0

    def connect(self) -> None:
        """Open the connection, unless it is open."""
        if self._session and self._connection and self._connection.alive and not self._cut:
            return
        self.close()
        self._cut = None
        connection = self._connection = self._open_connection(self._account)
        try:
            with watched(self._too_late, self.patience) as watch:
                channel = connection.open(self.patience, watch.progress)
                session = wire.Session(channel, self._limiter)
        except (packets.Broken, LinkError) as error:
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
        session.gone = lambda: self._cut is not None
        if self._cut:  # between the last step and here
            raise self._cut

    def greets(self) -> bool:
        """Tell whether the far end answers."""
        return self._open_connection(self._account).greets()

    def stat(self, *names: str) -> list[Stat | None]:
        """Look at files in incoming."""
        with self._calling() as session:
            return self._incoming(session).stat(*names)

    def put(self, uploads: Sequence[Upload], limit: float = 0) -> None:
        """Bring files under their final names, durably; see Transport.put."""
        with self._calling(limit, putting=True) as session:
            order.put(self._incoming(session), uploads)

    def help(
        self, name: str, source: int, stripes: Stripes, leave: Callable[[], bool] = lambda: False
    ) -> None:
        """Carry pieces of a file that another connection puts."""
        with self._calling(putting=True) as session, stripes.helping(source) as own:
            incoming = self._incoming(session)
            if own is not None:
                with closing(incoming.open_part(names.part(name), False, False)()) as part:
                    part.write_some(own, Share(stripes, leave))

    def names(self, directory: str) -> list[str]:
        """List a directory of receipts."""
        with self._calling() as session:
            try:
                found = session.names(os.fsencode(directory), NAMES_LIMIT)
            except packets.Refused as refused:
                if refused.code == packets.NO_SUCH_FILE:
                    return []
                raise self._refused(f"cannot list {directory}", refused) from refused
        return sorted(map(os.fsdecode, found))

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Read a part of a receipts file."""
        data = bytearray()
        with self._calling() as session:
            try:
                handle = session.open(os.fsencode(path), packets.FOR_READING)()
                try:
                    while len(data) < limit:
                        more = session.read(handle, offset + len(data), limit - len(data))
                        if not more:
                            break
                        data += more
                finally:
                    session.close(handle)
            except packets.Refused as refused:
                if refused.code == packets.NO_SUCH_FILE:
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
                self._break(LostError(self._silent(self.stall)))
            elif stalled:
                self._break(AttemptError(f"no byte acknowledged for {self.stall:g} s"))
            else:
                self._break(AttemptError(f"maxftp: not done within {limit:g} s"))

        try:
            with watched(cut, self.stall, limit) as watch:
                session.progress = watch.progress
                yield session
        except packets.Broken as error:
            self.close()
            raise self._cut or LostError(self._gone(error)) from error

    def _incoming(self, session: wire.Session) -> "_Incoming":
        return _Incoming(session, self.label, self.rempath, self.seal, self.close)

    @property
    def label(self) -> str:
        """How messages name the far end."""
        return self._account.label

    def _too_late(self, stalled: bool) -> None:
        self._break(LinkError(self._silent(self.patience)))

    def _silent(self, seconds: float) -> str:
        return f"{self.label}: no answer for {seconds:g} s"

    def _gone(self, error: packets.Broken) -> str:
        return f"{self.label}: connection lost: {error}"

    def _refused(self, what: str, refused: packets.Refused) -> LinkError:
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

    def stat(self, *names: str) -> list[Stat | None]:
        answers = [self.session.lstat(self._path(name)) for name in names]
        return [self._found(name, answer) for name, answer in zip(names, answers, strict=True)]

    def _found(self, name: str, answer: Answer[packets.Attributes]) -> Stat | None:
        try:
            found = answer()
        except packets.Refused as refused:
            if refused.code == packets.NO_SUCH_FILE:
                return None
            raise LinkError(f"cannot look into {self._where}: {_text(refused)}") from refused
        # A server that tells no mode tells no type either: open for writing, and a file.
        mode = stat.S_IFREG | 0o600 if found.mode is None else found.mode
        if not stat.S_ISREG(mode) or found.size is None:
            raise PermanentError(
                f"{self._where}/{name} is not a regular file: somebody put it there"
            )
        return Stat(found.size, stat.S_IMODE(mode))

    def open_part(self, part: str, create: bool, empty: bool) -> "Answer[_Part]":
        flags = packets.FOR_WRITING
        if create:
            flags |= packets.CREATE | packets.EXCLUSIVE
        elif empty:
            flags |= packets.TRUNCATE
        answer = self.session.open(self._path(part), flags)

        def opened() -> _Part:
            try:
                return _Part(self, answer())
            except packets.Refused as refused:
                raise self._not_opened(part, create, refused) from refused

        return opened

    def _not_opened(self, part: str, create: bool, refused: packets.Refused) -> LpxferError:
        if refused.code == packets.NO_SUCH_FILE:
            return LinkError(
                f"{self._where}: there is no such directory; make it, or correct rempath"
            )
        if refused.code == packets.PERMISSION_DENIED and create:
            return LinkError(f"{self._where}: no permission to write there")
        if refused.code == packets.PERMISSION_DENIED:
            return AttemptError(
                f"{self._where}/{part} is another account's, or sealed with other bytes: "
                "it has to be removed at the archive site"
            )
        return self.explain(f"opening {part}", refused)

    def rename(self, part: str, name: str) -> Answer[None]:
        answer = self.session.rename(self._path(part), self._path(name))

        def renamed() -> None:
            try:
                answer()
            except packets.Refused as refused:
                if self.stat(name)[0] is not None:
                    raise PermanentError(f"{self._where}/{name} exists already") from refused
                raise self.explain(f"renaming {part}", refused) from refused

        return renamed

    def explain(self, what: str, refused: packets.Refused) -> LinkError | AttemptError:
        """Find out what the server's "Failure" means: everybody's trouble, or this file's."""
        space = None
        with suppress(packets.Refused):
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

    def write(self, source: int, stripes: Stripes, moved: Callable[[], None]) -> None:
        with stripes.offered():
            self.write_some(source, stripes, moved)
            while stripes.waits:  # the rest is with others, who are watched themselves
                stripes.wait(WAIT)
                self._session.progress()
                if not stripes.over:
                    moved()
                    self.write_some(source, stripes, moved)

    def write_some(
        self, source: int, pieces: Pieces, moved: Callable[[], None] = lambda: None
    ) -> None:
        """Write what nobody else has taken."""
        self._replies_due = True
        try:
            self._session.write(self._handle, order.reader(source), pieces, moved)
        except packets.Refused as refused:
            self._replies_due = False  # the session drops them
            raise self._incoming.explain("a write", refused) from refused
        self._replies_due = False

    def write_small(self, data: bytes) -> Answer[None]:
        return self._asked("a write", self._session.write_small(self._handle, data))

    def size(self) -> Answer[int]:
        answer = self._asked("asking for the size", self._session.fstat(self._handle))
        return lambda: answer().size or 0

    def seal(self) -> Answer[None]:
        answer = self._session.set_mode(self._handle, self._incoming.seal)

        def sealed() -> None:
            try:
                answer()
            except packets.Refused as refused:
                raise LinkError(
                    f"the archive does not let a file be sealed ({_text(refused)}); its sshd must "
                    "allow fsetstat"
                ) from refused

        return sealed

    def sync(self) -> Answer[None]:
        return self._asked("syncing", self._session.fsync(self._handle))

    def _asked(self, what: str, answer: Answer[T]) -> Answer[T]:
        def wait() -> T:
            try:
                return answer()
            except packets.Refused as refused:
                raise self._incoming.explain(what, refused) from refused

        return wait

    def spoil(self) -> None:
        with suppress(packets.Refused):
            self._session.set_size(self._handle, 0)()
            self._session.set_mode(self._handle, 0o600)()

    def close(self) -> None:
        if self._replies_due:
            # Left in the middle, by a cancel or a cut: quicker than waiting for what is
            # under way, which may be megabytes on a slow link.
            self._incoming.drop()
        with suppress(packets.Broken):
            self._session.close(self._handle)


def _text(refused: packets.Refused) -> str:
    return printable(str(refused))[:200]

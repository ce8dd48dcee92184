"""Carries files to a mounted file system: `rempath` is a directory, the steps are the same.

Each call opens the directory anew, so that it goes to what is mounted there now, and runs in
a thread of its own: a network file system that hangs holds up nobody past the limits. Where
the file system is not mounted its mount point must not be writable, or files go there.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from lpxfer import durable
from lpxfer.errors import AttemptError, LinkError, LpxferError, PermanentError
from lpxfer.transports import order
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.stripes import Stripes
from lpxfer.transports.transport import Stat, Upload
from lpxfer.transports.watchdog import watched
from lpxfer.transports.wire import Answer
from lpxfer.transports.worker import Worker

T = TypeVar("T")

#: Errors that may be one file's alone.
THIS_FILES = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EEXIST, errno.ELOOP, errno.ENXIO}

#: How a file system says that it has no hard links.
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalTransport:
    """One directory of a mounted file system. See Transport."""

    def __init__(
        self,
        rempath: str,
        *,
        stall: float = 60.0,
        seal: int = 0o440,
        patience: float = 0.0,
        limiter: Limiter | None = None,
    ) -> None:
        """Keep the directory, the stall limit in seconds and the mode of files in it.

        `patience` takes the place of `stall` while it connects, if it is less. `limiter` is
        the rate limit that it shares with others.
        """
        self.rempath = rempath
        self.stall = stall
        self.patience = min(stall, patience or stall)
        self.seal, self._limiter = seal, limiter or Limiter()
        self._connected = False
        self._worker: Worker[Any] | None = None
        self._cut: LpxferError | None = None  # why the last call was left

    @property
    def rtt(self) -> float:
        """The round trip, which is none."""
        return 0.0

    def connect(self) -> None:
        """See whether the directory can be opened, unless that is known."""
        if self._connected and not self._cut:
            return
        if self._worker is not None and self._worker.is_alive():
            self._worker.join(self.patience)
            if self._worker.is_alive():
                raise self._silent()  # it hangs there still: send no other after it
        self._cut, self._connected = None, True
        try:
            self._run(lambda worker: os.close(_open_dir(self.rempath)), patience=self.patience)
        except LpxferError:
            self._connected = False
            raise

    def greets(self) -> bool:
        """Tell whether the directory can be opened."""
        try:
            self.connect()
        except LpxferError:
            return False
        return True

    def stat(self, *names: str) -> list[Stat | None]:
        """Look at files in the directory."""

        def look(worker: Worker[list[Stat | None]]) -> list[Stat | None]:
            with _Incoming(self.rempath, self.seal, worker, self._limiter) as incoming:
                return incoming.stat(*names)

        return self._run(look)

    def put(self, uploads: Sequence[Upload], limit: float = 0) -> None:
        """Bring files under their final names, durably; see Transport.put."""

        def write(worker: Worker[None]) -> None:
            with ExitStack() as stack:
                incoming = _Incoming(self.rempath, self.seal, worker, self._limiter)
                stack.enter_context(incoming)
                own = [_own(upload, worker, stack) for upload in uploads]
                worker.step()  # the caller was still there: its descriptor was the one meant
                order.put(incoming, own)

        self._run(write, limit, putting=True)

    def help(
        self, name: str, source: int, stripes: Stripes, leave: Callable[[], bool] = lambda: False
    ) -> None:
        """Do nothing: a second hand makes no mounted file system quicker."""

    def names(self, directory: str) -> list[str]:
        """List a directory of receipts."""

        def listed(worker: Worker[list[str]]) -> list[str]:
            try:
                with durable.opened_dir(directory) as fd:
                    return sorted(os.listdir(fd))
            except FileNotFoundError:
                return []
            except OSError as error:
                raise LinkError(f"cannot list {directory}: {error.strerror}") from error

        return self._run(listed)

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Read a part of a receipts file."""

        def content(worker: Worker[bytes]) -> bytes:
            folder, name = os.path.split(path)
            try:
                with durable.opened_dir(folder or ".") as dir_fd:
                    fd = durable.open_regular(name, dir_fd)
                try:
                    return os.pread(fd, limit, offset)
                finally:
                    os.close(fd)
            except FileNotFoundError:
                return b""
            except OSError as error:
                raise PermanentError(f"cannot read {path}: {error.strerror}") from error

        return self._run(content)

    def cut(self, reason: str) -> None:
        """Leave the call under way."""
        self._leave(AttemptError(reason))

    def close(self) -> None:
        """Forget that the directory could be opened."""
        self._connected = False

    def _leave(self, why: LpxferError) -> None:
        self._cut = self._cut or why
        if (worker := self._worker) is not None:
            worker.leave(self._cut)

    def _run(
        self,
        work: Callable[[Worker[T]], T],
        limit: float = 0.0,
        putting: bool = False,
        patience: float = 0.0,
    ) -> T:
        """Run one call beside its caller and watch over it."""

        def cut(stalled: bool) -> None:
            if not putting:
                self._leave(self._silent())
            elif stalled:
                self._leave(AttemptError(f"no byte acknowledged for {self.stall:g} s"))
            else:
                self._leave(AttemptError(f"maxftp: not done within {limit:g} s"))

        self._worker = worker = Worker(work)
        if self._cut:
            raise self._cut
        if not self._connected:
            raise LinkError(f"{self.rempath}: not connected")
        with watched(cut, patience or self.stall, limit) as watch:
            worker.progress = watch.progress
            worker.start()
            try:
                return worker.result()
            finally:
                if not self._cut:
                    worker.join()

    def _silent(self) -> LinkError:
        return LinkError(f"{self.rempath}: no answer for {self.stall:g} s; does its server hang?")


class _Incoming:
    """The directory, held open for one call. What it refuses is explained here."""

    def __init__(self, rempath: str, seal: int, worker: Worker[Any], limiter: Limiter) -> None:
        self.rempath, self.seal, self.step, self.fd = rempath, seal, worker.step, -1
        self.limiter = limiter

    def __enter__(self) -> "_Incoming":
        self.fd = _open_dir(self.rempath)
        self.step()
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)

    def stat(self, *names: str) -> list[Stat | None]:
        return [self._stat(name) for name in names]

    def _stat(self, name: str) -> Stat | None:
        try:
            found = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.explain(f"looking at {name}", error) from error
        self.step()
        if not stat.S_ISREG(found.st_mode):
            raise PermanentError(
                f"{self.rempath}/{name} is not a regular file: somebody put it there"
            )
        return Stat(found.st_size, stat.S_IMODE(found.st_mode))

    def open_part(self, part: str, create: bool, empty: bool) -> "Answer[_Part]":
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        elif empty:
            flags |= os.O_TRUNC
        try:
            fd = os.open(part, flags, 0o600, dir_fd=self.fd)
        except OSError as error:
            if isinstance(error, PermissionError) and not create:
                raise AttemptError(
                    f"{self.rempath}/{part} is another account's, or sealed with other bytes: "
                    "it has to be removed"
                ) from error
            raise self.explain(f"opening {part}", error) from error
        opened = _Part(self, fd)
        return lambda: opened

    def rename(self, part: str, name: str) -> Answer[None]:
        self.step()
        try:
            durable.link(part, name, self.fd, self.fd)
            os.unlink(part, dir_fd=self.fd)
        except OSError as error:
            # A part that is gone may have got its name meanwhile.
            taken = isinstance(error, FileExistsError | FileNotFoundError)
            if taken and self._stat(name) is not None:
                raise PermanentError(f"{self.rempath}/{name} exists already") from error
            if error.errno in NO_LINKS:
                raise LinkError(
                    f"{self.rempath}: {error.strerror}: the file system must have hard links, "
                    "to rename without overwriting"
                ) from error
            raise self.explain(f"renaming {part}", error) from error
        self.step()
        return _done

    def explain(self, what: str, error: OSError) -> LinkError | AttemptError:
        """Tell everybody's trouble from this file's."""
        if error.errno == errno.ENOSPC:
            with suppress(OSError):
                space = os.fstatvfs(self.fd)
                free = space.f_frsize * space.f_bavail
                return LinkError(f"{self.rempath} is full: {free} bytes free")
        if error.errno in THIS_FILES:
            return AttemptError(f"{self.rempath}: {what} refused: {error.strerror}")
        return LinkError(f"{self.rempath}: {what} refused: {error.strerror}")


class _Part:
    """An open part file."""

    def __init__(self, incoming: _Incoming, fd: int) -> None:
        self._incoming, self._fd = incoming, fd

    def write(self, source: int, stripes: Stripes, moved: Callable[[], None]) -> None:
        fill = order.reader(source)
        buffer = memoryview(bytearray(durable.CHUNK))
        limiter = self._incoming.limiter
        while piece := stripes.take(min(len(buffer), limiter.portion())):
            start, end = piece
            limiter.take(end - start, self._waits)
            fill([chunk := buffer[: end - start]], start)
            self._write(chunk, start)
            stripes.ack(start, end)
            moved()

    def write_small(self, data: bytes) -> Answer[None]:
        self._incoming.limiter.take(len(data), self._waits)
        self._write(memoryview(data), 0)
        self._incoming.step()
        return _done

    def _waits(self) -> bool:
        self._incoming.step()  # it is no stall; it raises when nobody waits for it any more
        return False

    def _write(self, data: memoryview, start: int) -> None:
        try:
            os.lseek(self._fd, start, os.SEEK_SET)
            durable.write_all(self._fd, data)
        except OSError as error:
            raise self._incoming.explain("a write", error) from error

    def size(self) -> Answer[int]:
        size = os.fstat(self._fd).st_size
        return lambda: size

    def seal(self) -> Answer[None]:
        try:
            os.fchmod(self._fd, self._incoming.seal)
        except OSError as error:
            raise self._incoming.explain("sealing", error) from error
        self._incoming.step()
        return _done

    def sync(self) -> Answer[None]:
        try:
            durable.sync(self._fd)
        except OSError as error:
            raise self._incoming.explain("syncing", error) from error
        self._incoming.step()
        return _done

    def spoil(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.fchmod(self._fd, 0o600)

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._fd)


def _open_dir(rempath: str) -> int:
    try:
        return os.open(rempath, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LinkError(f"{rempath}: there is no such directory; is it mounted?") from error
    except OSError as error:
        raise LinkError(f"{rempath}: {error.strerror}") from error


def _done() -> None:
    """Be the answer of what is done when it is asked for."""


def _own(upload: Upload, worker: Worker[None], stack: ExitStack) -> Upload:
    """Return an upload for the worker: it calls back in the caller's thread.

    Its descriptor stays when the caller, who no longer waits, closes its own.
    """
    source = upload.source
    own: int | Callable[[], bytes]
    if isinstance(source, int):
        own = fd = os.dup(source)
        stack.callback(os.close, fd)
    else:
        own = partial(_made, source, worker)
    return replace(
        upload,
        source=own,
        moved=partial(worker.ask, upload.moved),
        before_rename=partial(worker.ask, upload.before_rename),
    )


def _made(make: Callable[[], bytes], worker: Worker[None]) -> bytes:
    made: list[bytes] = []
    worker.ask(lambda: made.append(make()))
    return made[0]

"""One job: a directory that holds everything about it.

    control    what is known about the data file; written once
    data       the data file
    encoded    the data file as it goes over the wire, where that is shorter
    routing    what may change while it waits; absent while everything has its default
    attempts   one line per event of sending it; a torn last line is ignored
    request    a cancel or hold that waits for the sender

On a system spool the directory belongs to the user who submitted, so for the sender it is
as hostile as an arrival: `check` accepts regular files of that user and nothing else.
"""

import contextlib
import errno
import functools
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from lpxfer import checksum, durable
from lpxfer.errors import FormatError
from lpxfer.formats import attempts, control, job, keyvalue, record
from lpxfer.formats.attempts import Attempts
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing
from lpxfer.formats.record import Record
from lpxfer.stores import listing

FILES = ("data", "encoded", "attempts", "request", "routing", "control")

ENCODING = ".encoded.new"  # until it is whole

CANCEL, HOLD = "cancel", "hold"

#: Bytes from which on data is worth a tick of the file clock, and the milliseconds of the longest.
LARGE, TICKS = 1 << 20, 30

ATTEMPTS_LIMIT = 1 << 24  # bytes; a line of 60 for each 8 MiB sent: a file of 2 TB


#: What comes of writing to a file that the job's owner has put something else in the place of.
_NO_FILE_OF_OURS = durable.NOT_REGULAR | {
    errno.EACCES, errno.EPERM, errno.EISDIR, errno.EAGAIN, errno.ESPIPE, errno.EPIPE,
}  # fmt: skip


class JobDir:
    """An open job directory; close it, or use it in a `with`."""

    def __init__(self, job_id: str, fd: int) -> None:
        """Take over the open directory `fd` of the job with this request id."""
        self.id = job_id
        self.fd = fd
        self._control: Control | None = None

    def __enter__(self) -> "JobDir":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory, and with it the lock of a draft."""
        os.close(self.fd)

    def write_data(self, source_fd: int, limit: int) -> tuple[int, str]:
        """Copy an open file of `limit` bytes into the job, or more where it has grown.

        Returns size and checksum of what was copied. Not synced. Raises as checksum.copy.
        """
        fd = durable.create("data", self.fd)
        try:
            return checksum.copy(source_fd, fd, limit)
        finally:
            os.close(fd)

    def link_data(self, path: bytes, source_fd: int) -> bool:
        """Hard-link the file at `path` as the job's data; tell whether it is the open one."""
        durable.link(path, "data", None, self.fd)
        linked = os.stat("data", dir_fd=self.fd, follow_symlinks=False)
        return os.path.samestat(linked, os.fstat(source_fd))

    def write(self, name: str, text: bytes) -> None:
        """Write a new file. Not synced: `seal` does it for a whole draft."""
        fd = durable.create(name, self.fd)
        try:
            durable.write_all(fd, text)
        finally:
            os.close(fd)

    def date_control(self) -> None:
        """Make the control file of a draft later than its data, for `may_have_changed`.

        The clock of files ticks every few milliseconds, which only a large file is worth.
        """
        data = os.stat("data", dir_fd=self.fd, follow_symlinks=False)
        if data.st_size < LARGE or data.st_nlink > 1:
            return
        for _ in range(TICKS):
            known = os.stat("control", dir_fd=self.fd, follow_symlinks=False)
            if known.st_ctime_ns > data.st_ctime_ns:
                return
            time.sleep(0.001)
            os.utime("control", dir_fd=self.fd, follow_symlinks=False)

    def seal(self) -> None:
        """Sync every file of a draft and its directory."""
        for name in os.listdir(self.fd):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.fd)
            try:
                durable.sync(fd)
            finally:
                os.close(fd)
        durable.sync(self.fd)

    def control_text(self) -> bytes:
        """Return the control file's bytes. Raises FormatError for what is no such file."""
        return self._read("control", keyvalue.LIMIT)

    def control(self) -> Control:
        """Read the control file, once. Raises FormatError when it is damaged or another job's."""
        if self._control is None:
            loaded = control.load(self.control_text())
            if loaded.job != self.id:
                raise FormatError(f"the control file says {loaded.job}")
            self._control = loaded
        return self._control

    def routing(self) -> Routing:
        """Read the routing file; defaults when there is none. Raises FormatError."""
        if not listing.stands(self.fd, "routing"):
            return Routing()  # as is usual: cheaper than an exception
        try:
            return job.load_routing(self._read("routing", keyvalue.LIMIT))
        except FileNotFoundError:
            return Routing()

    def routing_or_default(self) -> Routing:
        """Read the routing file of a job that may be damaged: defaults then."""
        try:
            return self.routing()
        except FormatError:
            return Routing()

    def set_routing(self, routing: Routing) -> None:
        """Replace the routing file: after a crash it is the old one or the new, whole."""
        durable.replace("routing", job.dump_routing(routing), self.fd)

    def prepare_routing(self, routing: Routing) -> str:
        """Write a routing file under another name, unsynced, and return that."""
        temporary = f".routing.{os.urandom(4).hex()}.new"
        try:
            self.write(temporary, job.dump_routing(routing))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self.fd)
            raise
        return temporary

    def attempts(self) -> Attempts:
        """Read the attempts file; a damaged line counts for nothing."""
        try:
            lines = self._read("attempts", ATTEMPTS_LIMIT).split(b"\n")
        except FileNotFoundError:
            return Attempts()
        return attempts.load(lines)

    def last_event(self) -> datetime | None:
        """Tell when the last event of the attempts file was; None when there is none."""
        with contextlib.suppress(FileNotFoundError):
            lines = self._read("attempts", ATTEMPTS_LIMIT).split(b"\n")
            for line in filter(None, reversed(lines)):
                with contextlib.suppress(FormatError):
                    return record.load(line).time
        return None

    def note(self, kind: str, now: datetime, sync: bool = False, **fields: str) -> None:
        """Append a line to the attempts file; without `sync` a crash may lose it.

        A torn last line gets its newline first, so that it spoils only itself. With `sync`
        the file's name is durable, too, whoever made it. Raises FormatError when the job's owner
        has put something else there.
        """
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open("attempts", flags | os.O_CLOEXEC, 0o660, dir_fd=self.fd)
            try:
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
                durable.write_all(fd, b"\n" * torn + record.dump(Record(now, kind, fields)))
                if sync:
                    durable.sync(fd)
                    durable.sync(self.fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in _NO_FILE_OF_OURS:
                raise
            raise FormatError(f"attempts: {error.strerror}") from error

    def request(self) -> str | None:
        """Return CANCEL or HOLD when somebody waits for the sender to do that.

        What no command of ours has left there, or nobody may read, asks for nothing.
        """
        try:
            word = self._read("request", 16).decode("ascii", "replace").strip()
        except (FileNotFoundError, FormatError):
            return None
        return word if word in (CANCEL, HOLD) else None

    def set_request(self, word: str | None) -> None:
        """Leave a request for the sender, or take it away."""
        if word:
            durable.replace("request", word.encode() + b"\n", self.fd)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink("request", dir_fd=self.fd)

    def remove_files(self) -> None:
        """Remove the files of a finished job, and nothing else that may be there."""
        for name in FILES:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.fd)

    def encoded_size(self) -> int | None:
        """Return the bytes of the encoded data file; None when there is none."""
        try:
            return os.stat("encoded", dir_fd=self.fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def opened_encoded(self) -> contextlib.AbstractContextManager[int]:
        """Hold the encoded data file open. Raises FormatError for anything but a regular file."""
        return self._opened("encoded")

    def write_encoded(self, write: Callable[[int], object]) -> None:
        """Let `write` make the encoded data file: after a crash it is whole, or not there.

        Raises what `write` raises; what it has made is gone then.
        """
        self.drop_encoded()
        fd = durable.create(ENCODING, self.fd)
        try:
            write(fd)
            durable.sync(fd)
            durable.move(ENCODING, self.fd, self.fd, "encoded")
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(ENCODING, dir_fd=self.fd)
            raise
        finally:
            os.close(fd)

    def drop_encoded(self) -> None:
        """Remove the encoded data file, durably; what was acknowledged of it counts for nothing."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(ENCODING, dir_fd=self.fd)
        durable.remove("encoded", self.fd)

    def opened_data(self) -> contextlib.AbstractContextManager[int]:
        """Hold the data file open. Raises FormatError for anything but a regular file."""
        return self._opened("data")

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:
            fd = durable.open_regular(name, self.fd)
        except OSError as error:
            raise FormatError(f"{name}: {error.strerror}") from error
        try:
            yield fd
        finally:
            os.close(fd)

    def may_have_changed(self, data_fd: int) -> bool:
        """Tell whether somebody may have written to the data file since it was submitted.

        Who has another name of it may; else its ctime, which nobody can set, would tell. The
        control file was written after it.
        """
        data, known = os.fstat(data_fd), os.stat("control", dir_fd=self.fd, follow_symlinks=False)
        return data.st_nlink > 1 or data.st_ctime_ns >= known.st_ctime_ns

    def data_size(self) -> int:
        """Return the size of the data file in bytes."""
        return os.stat("data", dir_fd=self.fd, follow_symlinks=False).st_size

    def owner(self) -> str:
        """Return the account that the job belongs to."""
        return account(os.fstat(self.fd).st_uid)

    def check(self, links: bool) -> Control:
        """Return the control file of a job that is in order, else raise FormatError.

        In order: only the known files, all regular, control and data of the directory's
        owner, the user in the control file is that owner, the size is right, and data has
        other hard links only where the queue allows `--link`.
        """
        owner = os.fstat(self.fd).st_uid
        missing, size, routed = {"control", "data"}, 0, False
        for name in os.listdir(self.fd):
            try:
                status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # a request, taken back this instant
            replacement = name.startswith(".") and name.endswith(".new")  # being made, or left
            if not (name in FILES or replacement):
                raise FormatError(f"{name!r} does not belong in a job")
            if not stat.S_ISREG(status.st_mode):
                raise FormatError(f"{name} is not a regular file")
            if name in ("control", "data") and status.st_uid != owner:
                raise FormatError(f"{name} belongs to another user than the job")
            if status.st_nlink > 1 and not (links and name == "data"):
                raise FormatError(f"{name} is a hard link")
            missing.discard(name)
            size = status.st_size if name == "data" else size
            routed |= name == "routing"
        for name in missing:
            raise FormatError(f"{name} is missing")
        loaded = self.control()
        if loaded.user != account(owner) and loaded.user != account(owner, afresh=True):
            raise FormatError(f"the control file says user {loaded.user}")
        if size != loaded.size and not links:
            raise FormatError("data has another size than the control file says")
        if routed:
            self.routing()
        return loaded

    def _read(self, name: str, limit: int) -> bytes:
        try:
            text = durable.read_small(name, self.fd, limit)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise FormatError(f"{name}: {error.strerror}") from error
        if len(text) > limit:
            raise FormatError(f"{name} is longer than {limit} bytes")
        return text


def account(uid: int, afresh: bool = False) -> str:
    """Return the name of an account, or its number when it has none.

    A name is remembered, unless it is asked for `afresh`: a sender asks for each job.
    """
    if afresh:
        _name.cache_clear()
    try:
        return _name(uid)
    except KeyError:
        return str(uid)


@functools.cache
def _name(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name

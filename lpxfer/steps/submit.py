"""Submit: take files into the spool, durably, and give each a request id.

Guarantees: an id that is given out belongs to a job that survives kill -9 and power loss,
whole and with the checksum in its control file. What could not be submitted leaves nothing
behind, but for a draft of a killed submit, which the sender removes when it next starts. The
source is never modified.

Raises nothing for one file among many: each has its own result, and the next goes on.
"""

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lpxfer import checksum, durable
from lpxfer.checksum import SourceError
from lpxfer.errors import ChangedError, FormatError, LpxferError, PermanentError, TemporaryError
from lpxfer.formats import control, job, keyvalue, names
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.queue import Queue

#: Files whose syncs are paid together; each draft holds one descriptor until then.
BATCH_FILES = 200
#: Bytes that may wait for one sync: a frame goes out while the next one is being read.
BATCH_BYTES = 32 << 20

_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Order:
    """What is asked for every file of one submit."""

    host: str
    user: str  # the account that this process runs as
    inst: str
    maxftp: str | None = None
    dir: str | None = None
    priority: int | None = None
    others: dict[str, str] | None = None
    routing: Routing = Routing()
    hold: bool = False
    link: bool = False
    reserve: int = 0  # bytes to leave free on the spool
    opener: Callable[[bytes], int] | None = None  # opens a source for reading, without waiting


@dataclass(frozen=True)
class Wanted:
    """One file to submit, with an order of its own."""

    path: bytes
    order: Order
    seen: tuple[int, int, int] | None = None  # inode, size, mtime (ns): this version, no other


@dataclass(frozen=True)
class Result:
    """What became of one file: its control file, or the error."""

    path: bytes
    control: Control | None = None
    error: LpxferError | None = None


def submit(
    queue: Queue,
    paths: Sequence[bytes],
    order: Order,
    now: datetime,
    about: Callable[[Sequence[str]], None] = lambda ids: None,
) -> Iterator[Result]:
    """Take files into the spool, all with the same order; see `submit_each`."""
    return submit_each(queue, [Wanted(path, order) for path in paths], now, about)


def submit_each(
    queue: Queue,
    wanted: Sequence[Wanted],
    now: datetime,
    about: Callable[[Sequence[str]], None] = lambda ids: None,
) -> Iterator[Result]:
    """Take files into the spool; all of them are held, or none.

    `about` is told, before there is any job, which request ids they will have if none of them
    is refused: the next file has the id of one that is.

    Yields a result for each, in order. A result with a control file is durable when it
    is yielded. Several files share their syncs, in batches. Raises LpxferError when the spool
    gives no numbers, before the first result.
    """
    try:
        free = deque(queue.reserve(len(wanted)))
    except OSError as error:
        raise _spool_error(queue, error) from error
    rest = iter(wanted)
    try:
        about([f"{queue.name}-{number}" for number in free])
        while batch := _take_batch(queue, free, rest, now):
            yield from batch
    finally:
        _forgo(queue, (f"{queue.name}-{number}" for number in free))


def _take_batch(
    queue: Queue, free: deque[int], rest: Iterator[Wanted], now: datetime
) -> list[Result]:
    """Take as many of the rest as share their syncs; what is interrupted leaves nothing."""
    results: list[Result] = []
    drafts: list[JobDir] = []
    size, committed, hold = 0, False, False
    try:
        while len(results) < BATCH_FILES and size < BATCH_BYTES:
            wanted = next(rest, None)
            if wanted is None:
                break
            hold = wanted.order.hold
            result, draft = _take(queue, free, wanted, now)
            results.append(result)
            if draft and result.control:
                drafts.append(draft)
                size += result.control.size
        queue.commit(drafts, State.HELD if hold else State.PENDING)
        committed = True
    except OSError as error:
        reason = _spool_error(queue, error)
        return [r if r.error else Result(r.path, error=_named(r.path, reason)) for r in results]
    finally:
        for draft in drafts:
            _discard(queue, draft)
        if not committed:
            _forgo(queue, (draft.id for draft in drafts if not queue.where(draft.id)))
    return results


def _take(
    queue: Queue, free: deque[int], wanted: Wanted, now: datetime
) -> tuple[Result, JobDir | None]:
    """Make a draft of one file, or say why not and leave nothing."""
    path, order = wanted.path, wanted.order
    try:
        source = _open_source(path, order.opener or _open)
        try:
            _check_version(source, wanted.seen)
            _check_space(queue, os.fstat(source).st_size, order)
            draft = _draft(queue, free)
            try:
                known = _fill(queue, draft, source, path, order, now)
            except BaseException:
                _discard(queue, draft)
                raise
        finally:
            os.close(source)
    except SourceError as error:
        shown = keyvalue.printable(keyvalue.from_bytes(path))
        failed = PermanentError(f'unable to access "{shown}" - {error.strerror}')
        return Result(path, error=failed), None
    except OSError as error:
        return Result(path, error=_named(path, _spool_error(queue, error))), None
    except LpxferError as error:
        return Result(path, error=_named(path, error)), None
    free.popleft()
    return Result(path, control=known), draft


def _open(path: bytes) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(error.errno, error.strerror) from error


def _open_source(path: bytes, opener: Callable[[bytes], int]) -> int:
    """Open a file to submit; anything but a regular file is refused, without waiting."""
    if b"\0" in path:
        raise PermanentError("there is a NUL in its name: names that end in NUL need -0")
    fd = opener(path)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise PermanentError("it is a directory: name its files, or use --files-from")
        if not stat.S_ISREG(mode):
            raise PermanentError("it is not a regular file")
        names.check_name(keyvalue.from_bytes(os.path.basename(path)))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_version(source: int, seen: tuple[int, int, int] | None) -> None:
    status = os.fstat(source)
    if seen and (status.st_ino, status.st_size, status.st_mtime_ns) != seen:
        raise ChangedError("it has changed, or another is in its place, since it was looked at")


def _check_space(queue: Queue, size: int, order: Order) -> None:
    free = queue.free_bytes()
    if not order.link and free < size + order.reserve:
        raise TemporaryError(
            f"no space on the spool: {size} bytes, with {order.reserve} to be left free, "
            f"and {free} are there; try again later"
        )


def _draft(queue: Queue, free: deque[int]) -> JobDir:
    """Make an empty draft; a number somebody has taken by hand is passed over."""
    while True:
        if not free:
            free.extend(queue.reserve(1))
        try:
            return queue.draft(free[0])
        except FileExistsError:
            free.popleft()


def _discard(queue: Queue, draft: JobDir) -> None:
    """Close a draft, and remove it unless it has become a job."""
    try:
        queue.discard(draft)
    except OSError:
        pass  # of a disk that failed; the sender tries again when it starts
    finally:
        draft.close()


def _forgo(queue: Queue, ids: Iterable[str]) -> None:
    """Note the request ids that no job will have."""
    with contextlib.suppress(OSError):  # of a disk that failed
        for first, last, _ in names.runs(ids):
            queue.forgo(*(names.split_request_id(job_id)[1] for job_id in (first, last)))


def _fill(
    queue: Queue, draft: JobDir, source: int, path: bytes, order: Order, now: datetime
) -> Control:
    """Write data, control and routing into a draft. Raises when the source changes meanwhile."""
    if order.link:
        _link(draft, path, source)
    before = os.fstat(source)
    if order.link:
        size, digest = before.st_size, checksum.of_file(source)
    else:
        size, digest = draft.write_data(source, before.st_size)
    if size != before.st_size or _identity(os.fstat(source)) != _identity(before):
        raise ChangedError("it changed while it was read: submit it when it is finished")
    known = _control(draft, path, order, now, before, digest)
    text = control.dump(known)
    if len(text) > keyvalue.LIMIT - control.WIRE_ROOM:
        raise FormatError("too many options: the control file would exceed 64 KiB")
    draft.write("control", text)
    draft.date_control()
    if order.routing != Routing():
        draft.write("routing", job.dump_routing(order.routing))
    if not queue.sender_can_read(draft):
        raise PermanentError(
            "the sender could not read it: let everybody read it, or submit it without --link"
            if order.link
            else "the sender could not read it in the spool: its tmp directory has lost its "
            "default ACL, see xfer-spool(5)"
        )
    return known


def _control(
    draft: JobDir, path: bytes, order: Order, now: datetime, status: os.stat_result, digest: str
) -> Control:
    absolute = keyvalue.from_bytes(_absolute(path))
    return Control(
        job=draft.id,
        uid=names.make_uid(now, order.host, draft.id, os.urandom(4)),
        host=order.host,
        user=order.user,
        queue=names.split_request_id(draft.id)[0],
        submitted=now,
        name=os.path.basename(absolute),
        path=absolute,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        checksum=digest,
        inst=order.inst,
        priority=order.priority,
        maxftp=order.maxftp,
        dir=order.dir,
        others=order.others or {},
    )


def _absolute(path: bytes) -> bytes:
    try:
        return os.path.abspath(path)
    except FileNotFoundError as error:  # the working directory has been removed
        raise SourceError(error.errno, error.strerror) from error


def _link(draft: JobDir, path: bytes, source: int) -> None:
    """Hard-link the open source into the draft: the same inode, and one's own file."""
    if os.fstat(source).st_uid != os.geteuid():
        raise PermanentError("--link is for your own files; submit it without --link")
    try:
        same = draft.link_data(path, source)
    except OSError as error:
        if durable.is_disk_fault(error):
            raise
        raise PermanentError(
            f"it cannot be hard-linked into the spool ({error.strerror}): --link needs a file on "
            "the spool's own file system; submit it without --link"
        ) from error
    if not same:
        raise PermanentError("it is a symbolic link: name the file itself, or omit --link")


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """What stays the same while nobody writes, replaces or removes the file."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _named(path: bytes, error: LpxferError) -> LpxferError:
    shown = keyvalue.printable(keyvalue.from_bytes(path))
    return type(error)(f'unable to submit "{shown}" - {error}')


def _spool_error(queue: Queue, error: OSError) -> LpxferError:
    """Say what a failure to write the spool means; nothing was queued."""
    if error.errno in _FULL:
        return TemporaryError(f"the spool {queue.root} is full ({error.strerror}): try again later")
    return PermanentError(f"the spool {queue.root} failed: {error.strerror}")

"""Submit: take files into the spool, durably, and give each a request id.

Guarantees: an id that is given out belongs to a job that survives kill -9 and power loss,
whole and with the checksum in its control file. What could not be submitted leaves nothing
behind. The source is never modified.

Raises nothing for one file among many: each has its own result, and the next goes on.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lpxfer import durable
from lpxfer.errors import FormatError, LpxferError, PermanentError, TemporaryError
from lpxfer.formats import control, job, keyvalue, names
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.stores.job_dir import JobDir, account
from lpxfer.stores.spool import Queue

#: Files whose syncs are paid together; each draft holds one descriptor until then.
BATCH_FILES = 200
BATCH_BYTES = 1 << 30  # bytes that may wait for one sync of the file system

_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Order:
    """What is asked for every file of one submit."""

    host: str
    inst: str
    maxftp: str | None = None
    dir: str | None = None
    priority: int | None = None
    others: dict[str, str] | None = None
    routing: Routing = Routing()
    hold: bool = False
    link: bool = False
    reserve: int = 0  # bytes to leave free on the spool


@dataclass(frozen=True)
class Result:
    """What became of one file: its control file, or the error."""

    path: bytes
    control: Control | None = None
    error: LpxferError | None = None


def submit(queue: Queue, paths: Sequence[bytes], order: Order, now: datetime) -> Iterator[Result]:
    """Take files into the spool.

    Yields a result for each path, in order. A result with a control file is durable when it
    is yielded. Several files share their syncs, in batches.
    """
    numbers = iter(queue.reserve(len(paths)))
    drafts: list[JobDir] = []
    waiting: list[Result] = []
    size = 0
    for path in paths:
        number = next(numbers)
        result, draft = _take(queue, number, path, order, now)
        waiting.append(result)
        if draft and result.control:
            drafts.append(draft)
            size += result.control.size
        if len(waiting) >= BATCH_FILES or size >= BATCH_BYTES:
            yield from _commit(queue, drafts, waiting, order)
            drafts, waiting, size = [], [], 0
    yield from _commit(queue, drafts, waiting, order)


def _take(
    queue: Queue, number: int, path: bytes, order: Order, now: datetime
) -> tuple[Result, JobDir | None]:
    """Make a draft of one file, or say why not and leave nothing."""
    try:
        source = _open_source(path)
        try:
            draft = _draft(queue, number)
            try:
                known = _fill(queue, draft, source, path, order, now)
            except BaseException:
                queue.discard(draft)
                draft.close()
                raise
        finally:
            os.close(source)
    except LpxferError as error:
        return Result(path, error=error), None
    except OSError as error:
        return Result(path, error=_spool_error(queue, error)), None
    return Result(path, control=known), draft


def _commit(
    queue: Queue, drafts: list[JobDir], waiting: list[Result], order: Order
) -> list[Result]:
    """Make a batch of drafts durable; when that fails, none of them becomes a job."""
    failed: LpxferError | None = None
    try:
        queue.commit(drafts, State.HELD if order.hold else State.PENDING)
    except OSError as error:
        failed = _spool_error(queue, error)
        for draft in drafts:
            queue.discard(draft)
    finally:
        for draft in drafts:
            draft.close()
    if failed is None:
        return waiting
    return [Result(result.path, error=result.error or failed) for result in waiting]


def _open_source(path: bytes) -> int:
    """Open a file to submit; anything but a regular file is refused, without waiting."""
    shown = keyvalue.printable(os.fsdecode(path))
    names.check_name(os.fsdecode(os.path.basename(os.path.abspath(path))))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PermanentError(f'unable to access "{shown}" - {error.strerror}') from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        hint = "; name its files, or list them with --files-from" if stat.S_ISDIR(mode) else ""
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise PermanentError(f'unable to submit "{shown}" - it is {kind}{hint}')
    return fd


def _draft(queue: Queue, number: int) -> JobDir:
    """Make an empty draft; a number somebody has taken by hand is passed over."""
    while True:
        try:
            return queue.draft(number)
        except FileExistsError:
            number = queue.reserve(1)[0]


def _fill(
    queue: Queue, draft: JobDir, source: int, path: bytes, order: Order, now: datetime
) -> Control:
    """Write data, control and routing into a draft. Raises when the source changes meanwhile."""
    before = os.fstat(source)
    shown = keyvalue.printable(os.fsdecode(path))
    if not order.link and queue.free_bytes() < before.st_size + order.reserve:
        raise TemporaryError(
            f'no space for "{shown}" on the spool: {before.st_size} bytes, with '
            f"{order.reserve} to be left free, and {queue.free_bytes()} there; try again later"
        )
    size, checksum = _link(draft, path, before) if order.link else draft.write_data(source)
    after = os.fstat(source)
    if _identity(before, order.link) != _identity(after, order.link) or size != before.st_size:
        raise TemporaryError(f'"{shown}" changed while it was read; submit it when it is finished')
    known = _control(queue, draft, path, order, now, before, size, checksum)
    draft.write("control", control.dump(known))
    if order.routing != Routing():
        draft.write("routing", job.dump_routing(order.routing))
    if not queue.sender_can_read(draft):
        raise PermanentError(
            f'the sender could not read "{shown}" in the spool; '
            "the spool's tmp directory has lost its default ACL, see xfer-spool(5)"
        )
    return known


def _control(
    queue: Queue,
    draft: JobDir,
    path: bytes,
    order: Order,
    now: datetime,
    status: os.stat_result,
    size: int,
    checksum: str,
) -> Control:
    absolute = os.fsdecode(os.path.abspath(path))
    known = Control(
        job=draft.id,
        uid=names.make_uid(now, order.host, draft.id, os.urandom(4)),
        host=order.host,
        user=account(os.geteuid()),
        queue=queue.name,
        submitted=now,
        name=os.path.basename(absolute),
        path=absolute,
        size=size,
        mtime_ns=status.st_mtime_ns,
        checksum=checksum,
        inst=order.inst,
        priority=order.priority,
        maxftp=order.maxftp,
        dir=order.dir,
        others=order.others or {},
    )
    if len(control.dump(known)) > keyvalue.LIMIT - control.WIRE_ROOM:
        raise FormatError("too many options: the control file would exceed 64 KiB")
    return known


def _link(draft: JobDir, path: bytes, status: os.stat_result) -> tuple[int, str]:
    """Hard-link the source into the draft; the same inode, and its owner's own file."""
    if status.st_uid != os.geteuid():
        raise PermanentError("--link is for your own files; submit this one without it")
    try:
        with durable.opened_dir(os.path.dirname(os.path.abspath(path))) as directory:
            size, checksum = draft.link_data(os.fsdecode(os.path.basename(path)), directory)
    except OSError as error:
        raise PermanentError(
            f"--link needs a plain file on the spool's own file system ({error.strerror}); "
            "submit it without --link"
        ) from error
    return size, checksum


def _identity(status: os.stat_result, linked: bool) -> tuple[int, ...]:
    """What stays the same while nobody writes; a new hard link alone changes the ctime."""
    ctime = 0 if linked else status.st_ctime_ns
    return (status.st_size, status.st_mtime_ns, ctime)


def _spool_error(queue: Queue, error: OSError) -> LpxferError:
    """Say what a failure to write the spool means; nothing was queued."""
    if error.errno in _FULL:
        return TemporaryError(
            f"the spool {queue.root} is full ({error.strerror}); not queued, try again later"
        )
    return PermanentError(f"the spool {queue.root} failed: {error.strerror}; not queued")

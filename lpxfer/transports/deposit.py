"""The order of durable steps on the wire for one job, over any transport.

The data file goes first; the control file goes last, and the arrival exists at the instant
it has its final name. An attempt may die anywhere: what it leaves is what the next one goes
on from, and at worst the archive gets a file twice under one uid, which it knows.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

from lpxfer.errors import AttemptError, PermanentError
from lpxfer.formats import names
from lpxfer.transports.transport import Transport


class Found(Enum):
    """What earlier attempts brought into incoming under final names."""

    NOTHING = "nothing"
    #: The data file, whole; the control file is still to come.
    DATA = "data"
    #: The control file: the job is committed.
    CONTROL = "control"


def look(transport: Transport, uid: str, size: int) -> Found:
    """Look what is in incoming already. A sweep may have taken the pair: read receipts next.

    Raises PermanentError when a data file of another size has the final name.
    """
    if transport.stat(uid + names.CONTROL) is not None:
        return Found.CONTROL
    data = transport.stat(uid + names.DATA)
    if data is None:
        return Found.NOTHING
    if data.size != size:
        raise PermanentError(
            f"{uid}{names.DATA} is at the archive site with {data.size} bytes instead of {size}"
        )
    return Found.DATA


def deposit(
    transport: Transport,
    uid: str,
    data_fd: int,
    size: int,
    make_control: Callable[[float], bytes],
    *,
    found: Found | None = None,
    start: int = 0,
    limit: float = 0.0,
    acked: Callable[[int], None] = lambda offset: None,
    before_commit: Callable[[], None] = lambda: None,
) -> None:
    """Bring a job's pair into incoming; the job is committed when this returns.

    `found` is what `look` has just said; without it this looks itself. `start`, `limit` and
    `acked` are for the data file, as in Transport.put; the control file is small and bound
    by the stall limit alone. `make_control` gets the seconds that the data took and returns
    the control file; it is called once the data is complete, and not at all when an earlier
    attempt left a complete control file. `before_commit` is called just before the last
    rename: what it raises stops the job, and nothing was committed.

    Raises what the transport and the callbacks raise.
    """
    began = time.monotonic()
    if found is None:
        found = look(transport, uid, size)
    if found is Found.CONTROL:
        return
    data, control = uid + names.DATA, uid + names.CONTROL
    if found is Found.NOTHING:
        with _unless_there(transport, data):
            transport.put(data, data_fd, size, start=start, limit=limit, acked=acked)
    elif (left := transport.stat(names.part(control))) is not None and left.sealed:
        # An attempt died just before its commit. Its control file is complete and true, and
        # sealed against being written again: it needs its final name only.
        with _unless_there(transport, control):
            transport.put(control, b"", left.size, before_rename=before_commit)
        return
    text = make_control(time.monotonic() - began)
    with _unless_there(transport, control):
        transport.put(control, text, len(text), before_rename=before_commit)


@contextmanager
def _unless_there(transport: Transport, name: str) -> Iterator[None]:
    """End the attempt, not the job, when a name is there now that was not there before.

    A server that was stuck may carry out the rename of an attempt that was cut long ago. The
    next attempt looks again, and tells ours from another's.
    """
    try:
        yield
    except PermanentError as error:
        transport.connect()
        if transport.stat(name) is None:
            raise
        raise AttemptError(f"{name} came to be there meanwhile: {error}") from error

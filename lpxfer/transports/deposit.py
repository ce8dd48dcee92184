"""The order of durable steps on the wire for one job, over any transport.

The data file goes first; the control file goes last, and the arrival exists at the instant
it has its final name. An attempt may die anywhere: what it leaves is what the next one goes
on from, and at worst the archive gets a file twice under one uid, which it knows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from lpxfer.errors import AttemptError, PermanentError
from lpxfer.formats import names
from lpxfer.transports.stripes import Stripes
from lpxfer.transports.transport import Stat, Transport, Upload


class Found(Enum):
    """What earlier attempts brought into incoming under final names."""

    NOTHING = "nothing"
    #: The data file, whole; the control file is still to come.
    DATA = "data"
    #: The control file: the job is committed.
    CONTROL = "control"


@dataclass(frozen=True)
class Looked:
    """What there is of an arrival, under final names and as part files."""

    found: Found
    data_part: Stat | None = None
    control_part: Stat | None = None


#: What there is of an arrival whose uid is new.
NEW = Looked(Found.NOTHING)


def look(transport: Transport, uid: str, size: int) -> Looked:
    """Look what is in incoming already. A sweep may have taken the pair: read receipts next.

    Raises PermanentError when a data file of another size has the final name.
    """
    final = (uid + names.CONTROL, uid + names.DATA)
    control, data, control_part, data_part = transport.stat(*final, *map(names.part, final))
    if control is not None:
        return Looked(Found.CONTROL)
    if data is not None and data.size != size:
        raise PermanentError(
            f"{uid}{names.DATA} is at the archive site with {data.size} bytes instead of {size}"
        )
    return Looked(Found.DATA if data else Found.NOTHING, data_part, control_part)


def deposit(
    transport: Transport,
    uid: str,
    source: int,
    stripes: Stripes,
    make_control: Callable[[], bytes],
    *,
    looked: Looked | None = None,
    limit: float = 0.0,
    moved: Callable[[], None] = lambda: None,
    before_commit: Callable[[], None] = lambda: None,
) -> None:
    """Bring a job's pair into incoming; the job is committed when this returns.

    `source` is the open data file, and `stripes` know how far it is. `looked` is what `look` has
    just said; without it this looks itself. `limit` is as in Transport.put, and `moved` is called
    when more of the data is acknowledged. `make_control` returns the control file; it is called
    once the data is complete, and not at all when an earlier attempt left a complete control
    file. `before_commit` is called just before the last rename: what it raises stops the job,
    and nothing was committed.

    Raises what the transport and the callbacks raise.
    """
    if looked is None:
        looked = look(transport, uid, stripes.size)
    if looked.found is Found.CONTROL:
        return
    uploads = [
        Upload(uid + names.CONTROL, make_control, before_rename=before_commit,
               looked=True, left=looked.control_part)
    ]  # fmt: skip
    if looked.found is Found.NOTHING:
        data = Upload(uid + names.DATA, source, stripes, moved, looked=True, left=looked.data_part)
        uploads.insert(0, data)
    try:
        transport.put(uploads, limit)
    except PermanentError as error:
        # A server that was stuck may carry out the rename of an attempt that was cut long ago.
        # The next attempt looks again, and tells ours from another's: only this one ends.
        transport.connect()
        for upload, there in zip(uploads, transport.stat(*(u.name for u in uploads)), strict=True):
            if there is not None:
                raise AttemptError(f"{upload.name} came to be there meanwhile: {error}") from error
        raise

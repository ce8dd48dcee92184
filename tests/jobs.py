"""Jobs made without a source file, as a submit would have left them."""

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime

from lpxfer.formats import control, job, names
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Queue


def make_job(
    queue: Queue,
    data: bytes = b"SIMPLE  =",
    state: State = State.PENDING,
    routing: Routing | None = None,
    **fields: object,
) -> Control:
    """Make a job in any state; `fields` replace those of its control file."""
    draft = queue.draft(queue.reserve(1)[0])
    submitted = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
    known = Control(
        job=draft.id,
        uid=names.make_uid(submitted, "telescope", draft.id, hashlib.md5(data).digest()[:4]),
        host="telescope",
        user=account(os.geteuid()),
        queue=queue.name,
        submitted=submitted,
        name="0123.fits",
        path="/data/2026.1120/0123.fits",
        size=len(data),
        mtime_ns=1_795_147_200_123_456_789,
        checksum=f"sha256:{hashlib.sha256(data).hexdigest()}",
        inst="minicam",
        maxftp="600",
    )
    known = replace(known, **fields)  # type: ignore[arg-type]
    with draft:
        draft.write("data", data)
        draft.write("control", control.dump(known))
        if routing:
            draft.write("routing", job.dump_routing(routing))
        queue.commit([draft], state)
    return known

"""Which jobs were made of which files, for a watch that died before it could note them.

Guarantees: looking changes nothing. A job that goes its way meanwhile is met.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from lpxfer.errors import FormatError
from lpxfer.formats import dates, keyvalue
from lpxfer.formats.job import State
from lpxfer.stores.queue import Queue
from lpxfer.stores.watched import Version, Watched

#: A job that goes its way is met by these looks, in this order, or in the finished log after
#: them; one that comes back to pending meanwhile by the last two.
_LOOKS = (State.HELD, State.PENDING, State.ACTIVE, State.SENT, State.FAILED, State.QUARANTINED,
          State.COMPLETED, State.PENDING, State.ACTIVE)  # fmt: skip

CLOCK = timedelta(days=1)  # that a clock may have been set back before a job was finished

#: A job: the path of its origin, size, mtime (ns), when it was submitted, request id.
_Origin = tuple[str, int, int, datetime, str]


def note(record: Watched, queues: Sequence[Queue], time: int) -> None:
    """Note in the record of a watch that died what has become of what it was about to submit."""
    if record.open:
        jobs = jobs_of(queues, record.open)
        record.ended(time, [
            (path, *jobs.get(path, (version, None))) for path, (version, _) in record.open.items()
        ])  # fmt: skip


def jobs_of(
    queues: Sequence[Queue], wanted: Mapping[str, tuple[Version, int]]
) -> dict[str, tuple[Version, str]]:
    """Return the jobs that this account has made of files since a time (ns), by path.

    `wanted` has what a file was, and the time; what was submitted may be a later version.
    """
    paths = {keyvalue.from_bytes(os.fsencode(path)): path for path in wanted}
    since = _time(min(time for _, time in wanted.values())) - CLOCK
    found: dict[str, tuple[Version, str]] = {}
    for origin, size, mtime, submitted, job_id in _origins(queues, since):
        if path := paths.get(origin):
            version, time = wanted[path]
            if submitted >= _time(time) - timedelta(milliseconds=1):
                found[path] = version._replace(size=size, mtime=mtime), job_id
                if len(found) == len(wanted):
                    break
    return found


def _origins(queues: Sequence[Queue], since: datetime) -> Iterator[_Origin]:
    for state in _LOOKS:
        for queue in queues:
            for entry in queue.entries(state):
                if entry.uid == os.geteuid():  # its time may be by another clock than ours
                    with (
                        contextlib.suppress(OSError, FormatError),
                        queue.open(entry.id, state) as job,
                    ):
                        known = job.control()
                        yield known.path, known.size, known.mtime_ns, known.submitted, known.job
    for queue in queues:
        for record in queue.log(since):
            with contextlib.suppress(KeyError, ValueError, FormatError):
                said = record.fields
                size, mtime = int(said["size"]), dates.parse_iso_ns(said["mtime"])
                yield said["path"], size, mtime, dates.parse_iso(said["submitted"]), said["job"]


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)

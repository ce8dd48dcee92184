"""Which jobs were made of which files, for a watch that died before it could note them.

Guarantees: looking changes nothing. A job that goes its way meanwhile is met. What is found
survives a power cut, though its maker may have died before that was so.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from lpxfer.errors import FormatError
from lpxfer.formats import dates, keyvalue, names
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.formats.watch_record import Version
from lpxfer.stores.queue import Queue
from lpxfer.stores.watched import Watched

#: A job that goes its way is met by these looks, in this order, or in the finished log after
#: them; one that comes back to pending meanwhile by the last two.
_LOOKS = (State.HELD, State.PENDING, State.ACTIVE, State.SENT, State.FAILED, State.QUARANTINED,
          State.COMPLETED, State.PENDING, State.ACTIVE)  # fmt: skip

CLOCK = timedelta(days=1)  # that a clock may have been set back before a job was finished


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
    Raises OSError.
    """
    paths = {keyvalue.from_bytes(os.fsencode(path)): path for path in wanted}
    since = _time(min(time for _, time in wanted.values())) - CLOCK
    found: dict[str, tuple[Version, str]] = {}
    for known in _origins(queues, since):
        if path := paths.get(known.path):
            version, time = wanted[path]
            if known.submitted >= _time(time) - timedelta(milliseconds=1):
                found[path] = version._replace(size=known.size, mtime=known.mtime_ns), known.job
                if len(found) == len(wanted):
                    break
    for state in _LOOKS if found else ():
        for queue in queues:
            queue.keep(state)
    return found


def find(queue: Queue, job_id: str) -> Control | None:
    """Return a job that this account has made, finished or not; None where there is none.

    Raises OSError.
    """
    for _ in range(3):  # one that moves is looked for again
        state = queue.where(job_id)
        if state and (found := _standing(queue, job_id, state)):
            return found
        if state in (None, State.COMPLETED):  # a power cut brings back less than all of a job
            line = queue.finished(job_id)
            if line or state is None:
                return _logged(queue, line.fields) if line else None
    return None


def _standing(queue: Queue, job_id: str, state: State) -> Control | None:
    """Return a job of this account that stands in a state, whole, and will after a power cut."""
    found = None
    with contextlib.suppress(OSError, FormatError):
        if queue.entry(job_id, state).uid == os.geteuid():
            with queue.open(job_id, state) as job:
                found = job.control()
    if found:
        queue.keep(state)
    return found if queue.stands(job_id, [state]) else None


def _logged(queue: Queue, said: Mapping[str, str]) -> Control | None:
    with contextlib.suppress(KeyError, ValueError, FormatError):
        match = names.UID.fullmatch(said["uid"])
        return match and Control(
            job=said["job"], uid=said["uid"], host=match[1], user=said["user"], queue=queue.name,
            submitted=dates.parse_iso(said["submitted"]), name=said["name"], path=said["path"],
            size=int(said["size"]), mtime_ns=dates.parse_iso_ns(said["mtime"]),
            checksum=said["checksum"], inst=said["inst"],
        )  # fmt: skip
    return None


def is_of(known: Control | None, path: str, version: Version) -> bool:
    """Tell whether a job was made of a version of a file, which may have been named by a link."""
    return known is not None and (
        known.name == os.path.basename(keyvalue.from_bytes(os.fsencode(path)))
        and (known.size, known.mtime_ns) == version[:2]
    )


def _origins(queues: Sequence[Queue], since: datetime) -> Iterator[Control]:
    for state in _LOOKS:
        for queue in queues:
            for entry in queue.entries(state):
                if entry.uid == os.geteuid():  # its time may be by another clock than ours
                    with (
                        contextlib.suppress(OSError, FormatError),
                        queue.open(entry.id, state) as job,
                    ):
                        yield job.control()
    for queue in queues:
        for record in queue.log(since):
            if known := _logged(queue, record.fields):
                yield known


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)

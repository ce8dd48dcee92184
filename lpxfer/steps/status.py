"""Status: list the jobs of a queue. Looking changes nothing.

Guarantees: a job is listed once, whatever it does while it is looked at. One that cannot be
read, damaged or another user's, is listed with what its directory tells.
"""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from lpxfer.errors import FormatError
from lpxfer.formats import dates, names
from lpxfer.formats.attempts import WAY
from lpxfer.formats.job import State
from lpxfer.formats.record import Record
from lpxfer.stores.job_dir import JobDir, account
from lpxfer.stores.spool import Entry, Queue

#: Names of accounts, asked for once each: a listing has many jobs of few users.
_account = functools.cache(account)

#: A job that goes its way is met by these looks, in this order; one that comes back to
#: pending meanwhile is met by the last two.
_LOOKS = (State.HELD, State.PENDING, State.ACTIVE, State.SENT, State.FAILED,
          State.QUARANTINED, State.PENDING, State.ACTIVE)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One row of a listing; None is what is not known."""

    id: str
    queue: str
    state: str  # a State's value, or "unconfirmed"
    user: str
    uid: str | None = None
    size: int | None = None  # bytes
    submitted: datetime | None = None
    name: str | None = None
    path: str | None = None
    inst: str | None = None
    priority: int | None = None
    attempts: int | None = None
    not_before: datetime | None = None
    reason: str | None = None
    finished: datetime | None = None
    way: Mapping[str, str] = field(default_factory=dict)  # see Attempts.way


def not_completed(
    queue: Queue, unconfirmed: float, now: datetime, user: str | None = None
) -> list[Job]:
    """List the jobs of a queue that are not finished, in the order of their numbers.

    A job in sent/ for more than `unconfirmed` seconds is unconfirmed.
    """
    found: dict[str, tuple[Entry, State]] = {}
    for state in _LOOKS:
        found |= {entry.id: (entry, state) for entry in queue.entries(state)}
    rows = []
    for job_id in sorted(found, key=names.split_request_id):
        entry, state = found[job_id]
        if user is None or _account(entry.uid) == user:
            if row := _read(queue, entry, state, unconfirmed, now):
                rows.append(row)
    return rows


def find(queue: Queue, job_id: str, unconfirmed: float, now: datetime) -> Job | None:
    """Return one job, finished or not; None when the queue does not know it."""
    for _ in range(3):  # a job that moves is looked for again
        state = queue.where(job_id)
        if state is None:
            line = queue.finished(job_id)
            return _logged(queue, line) if line else None
        with contextlib.suppress(FileNotFoundError):
            entry = queue.entry(job_id, state)
            if row := _read(queue, entry, state, unconfirmed, now):
                return row
    return None


def finished(queue: Queue, since: datetime, user: str | None = None) -> list[Job]:
    """List the jobs that were completed or canceled from the day of `since`, oldest first."""
    done = [_read(queue, entry, State.COMPLETED) for entry in queue.entries(State.COMPLETED)]
    rows = [_logged(queue, line) for line in queue.log(since)]
    known = {row.id for row in rows}
    rows += [row for row in done if row and row.id not in known]
    return [row for row in rows if user is None or row.user == user]


def _read(
    queue: Queue,
    entry: Entry,
    state: State,
    unconfirmed: float = 0.0,
    now: datetime | None = None,
) -> Job | None:
    """Make the row of a job, wherever it has gone meanwhile; None when it is finished."""
    moved = True
    while True:
        late = state is State.SENT and now and now - entry.changed > timedelta(seconds=unconfirmed)
        word = "unconfirmed" if late else state.value
        try:
            with queue.open(entry.id, state) as opened:
                return _row(queue, opened, entry, state, word)
        except FileNotFoundError:
            if not moved:  # it is there, but its control file is not
                return Job(
                    entry.id, queue.name, word, _account(entry.uid), reason="no control file"
                )
        except OSError:  # another user's, or no directory
            return Job(entry.id, queue.name, word, _account(entry.uid))
        before, found = state, queue.where(entry.id)
        if found is None or (found is State.COMPLETED and before is not found):
            return None
        moved, state = found is not before, found
        with contextlib.suppress(FileNotFoundError):
            entry = queue.entry(entry.id, state)


def _row(queue: Queue, opened: JobDir, entry: Entry, state: State, word: str) -> Job:
    """Make the row of an open job. Raises FileNotFoundError when it has no control file."""
    row = Job(entry.id, queue.name, word, _account(entry.uid))
    try:
        known = opened.control()
        row = replace(row, user=known.user, uid=known.uid, size=known.size, name=known.name,
                      submitted=known.submitted, path=known.path, inst=known.inst)  # fmt: skip
        routing = opened.routing()
        if state is State.COMPLETED:
            word = (routing.outcome or State.CANCELED).value
        row = replace(row, state=word, priority=routing.priority, not_before=routing.not_before,
                      reason=routing.reason)  # fmt: skip
        attempts = opened.attempts()
        return replace(row, attempts=attempts.count, way=attempts.way(known.size))
    except FormatError as error:
        return replace(row, reason=opened.routing_or_default().reason or str(error))


def _logged(queue: Queue, line: Record) -> Job:
    """Make the row of a job from its record in the finished log."""
    fields = line.fields
    submitted = None
    with contextlib.suppress(FormatError):
        submitted = dates.parse_iso(fields.get("submitted", ""))
    return Job(
        id=fields.get("job", "-"),
        queue=queue.name,
        state=line.kind,
        user=fields.get("user", "-"),
        uid=fields.get("uid"),
        size=_number(fields.get("size")),
        submitted=submitted,
        name=fields.get("name"),
        path=fields.get("path"),
        inst=fields.get("inst"),
        attempts=_number(fields.get("attempts")),
        reason=fields.get("reason"),
        finished=line.time,
        way={key: fields[key] for key in WAY if key in fields},
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None

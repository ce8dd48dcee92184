"""The finished log: one record for each job that was completed or canceled.

`log/YYYYMMDD.log` in the queue, one file a UTC day, only ever appended to; see xfer-spool(5).
"""

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from lpxfer import durable
from lpxfer.errors import FormatError
from lpxfer.formats import dates, record
from lpxfer.formats.attempts import WAY
from lpxfer.formats.job import Routing, State
from lpxfer.formats.record import Record
from lpxfer.stores import log_lines
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.log_tail import LogTail

#: What a record says of the attempts, which are not synced like the rest of a job.
_FROM_ATTEMPTS = ("attempts", "seconds", *WAY)
T = TypeVar("T")

_NAME = re.compile(r"(\d{8})\.log")
_JOB = re.compile(rb" job=([a-z0-9_]+-[0-9]+)[ \n]")


def read(log_fd: int, since: datetime | None = None) -> Iterator[Record]:
    """Read the records from the day of `since`, oldest first; other lines are passed over."""
    for name in _names(log_fd, since):
        with open(durable.open_regular(name, log_fd), "rb") as lines:
            for line in lines:
                with contextlib.suppress(FormatError):
                    yield _whole(line)


def inspect(
    log_fd: int,
    report: Callable[[str], None],
    load: Callable[[bytes], T | None],
    since: datetime | None = None,
) -> Iterator[T]:
    """Yield what `load` makes of the lines from the day of `since`, oldest first, but for None.

    `report` is told of files that cannot be read, and of lines for which it raises FormatError.
    """
    for name in _names(log_fd, since):
        try:
            lines = log_lines.read(name, log_fd, record.LINE_LIMIT, load, report)
            yield from (entry for entry in lines if entry)
        except OSError as error:
            report(f"{name}: {error.strerror}")


def find(log_fd: int, job_id: str, since: datetime | None = None) -> Record | None:
    """Return a job's last record from the day of `since` on, or None; newest days first."""
    word, found = f" job={job_id}".encode(), None
    for name in reversed(_names(log_fd, since)):
        with open(durable.open_regular(name, log_fd), "rb") as stream:
            for line in stream:
                if word in line:  # most lines need no reading
                    with contextlib.suppress(FormatError):
                        candidate = _whole(line)
                        if candidate.fields.get("job") == job_id:
                            found = candidate
        if found:
            return found
    return None


def durable_records(log_fd: int, job_ids: Collection[str], since: datetime) -> dict[str, Record]:
    """Return the last record of each of these jobs from the day of `since` on, synced.

    Who wrote them may have died before that.
    """
    found: dict[str, Record] = {}
    for name in _names(log_fd, since) if job_ids else ():
        here: dict[str, Record] = {}
        with open(durable.open_regular(name, log_fd), "rb") as lines:
            for line in lines:
                match = _JOB.search(line)  # most lines need no reading
                if match and match[1].decode() in job_ids:
                    with contextlib.suppress(FormatError):
                        here[match[1].decode()] = _whole(line)
        if here:
            durable.sync_file(name, log_fd)
        found |= here
    return found


def is_whole(found: Record | None, job: JobDir, routing: Routing) -> bool:
    """Tell whether the record that was found of a finished job is there, and all of it.

    A crash may have cut it. What was lost of the job since then, or is removed already, stands
    in the record alone.
    """
    if found is None:
        return False
    fields = dict(of_job(job, routing, found.time).fields)
    cut = "uid" in fields and _FROM_ATTEMPTS[0] not in found.fields
    for word in _FROM_ATTEMPTS:
        fields.pop(word, None)
    return not cut and fields.items() <= found.fields.items()


def _whole(line: bytes) -> Record:
    """Read a line. Raises FormatError; also for one without its end, which a crash has cut."""
    if not line.endswith(b"\n"):
        raise FormatError("torn")
    return record.load(line)


def tail(queue_root: Path) -> LogTail:
    """Return the tail of a queue's log, by which it is read as it grows."""
    return LogTail(queue_root / "log", ".log")


def first_day(log_fd: int) -> str | None:
    """Return the day of the oldest log, `20030402`; None when there is none."""
    return next((name[:8] for name in _names(log_fd, None)), None)


def _names(log_fd: int, since: datetime | None) -> list[str]:
    """List the log's files from a day on, oldest first."""
    first = dates.log_date(since) if since else ""
    with durable.opened_dir(".", log_fd) as fd:
        matches = (_NAME.fullmatch(name) for name in os.listdir(fd))
        return sorted(match[0] for match in matches if match and match[1] >= first)


def append(log_fd: int, records: Iterable[Record], now: datetime) -> None:
    """Record finished jobs, durably.

    The caller excludes others. Half a line that a crash left goes: its job stands in done/ and
    gets a line of its own.
    """
    name = f"{dates.log_date(now)}.log"
    lines = b"".join(map(record.dump, records))
    if lines:
        durable.cut_torn_line(name, log_fd)
        durable.append(name, lines, log_fd, 0o640, True)


def of_job(job: JobDir, routing: Routing, now: datetime, stages: str = "") -> Record:
    """Make the finished log's record of a job.

    Of a damaged one, or one that says it is another user's, that is little more than its id.
    """
    fields = {"job": job.id}
    with contextlib.suppress(FormatError, OSError):
        known = describe(job)
        fields |= known if known["user"] == job.owner() else {"user": job.owner()}
    if routing.reason:
        fields["reason"] = routing.reason
    if stages:
        fields["stages"] = stages
    return Record(now, (routing.outcome or State.CANCELED).value, fields)


def describe(job: JobDir) -> dict[str, str]:
    """Return what a record of a job says of it. Raises FormatError, OSError."""
    known, attempts = job.control(), job.attempts()
    fields = {
        "job": job.id,
        "uid": known.uid,
        "inst": known.inst,
        "user": known.user,
        "name": known.name,
        "size": str(known.size),
        "checksum": known.checksum,
        "path": known.path,
        "mtime": dates.iso_ns(known.mtime_ns),
        "submitted": dates.iso(known.submitted),
        "attempts": str(attempts.count),
    }
    if "seq" in known.others:
        fields["seq"] = known.others["seq"]
    if attempts.seconds > 0:
        fields["seconds"] = f"{attempts.seconds:.2f}"
    return fields | dict(attempts.way(known.size))

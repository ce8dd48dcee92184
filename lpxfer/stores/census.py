"""Every job that stands in a spool, found once, whatever it does while it is looked for.

Guarantees: looking changes nothing. A job that is finished meanwhile is in the finished log
by the time this has ended.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats.job import State
from lpxfer.formats.record import Record
from lpxfer.stores import finished_log, survey
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.spool import Spool
from lpxfer.stores.survey import Survey

#: A job that goes its way is met by these looks, in this order; one that comes back to
#: pending meanwhile is met by the last two.
_LOOKS = ("held", "pending", "active", "sent", "failed", "quarantine", "done", "pending", "active")

_STATES = {state.directory: state for state in State if state.directory != "done"}


@contextlib.contextmanager
def opened(spool: Spool) -> Iterator[list[Survey]]:
    """Hold every queue that was ever set up open.

    Raises PermanentError for one that cannot be used, or not be seen whole by this account.
    """
    with contextlib.ExitStack() as stack:
        queues = []
        for name in survey.made(spool):
            queue = Survey(spool, name)
            stack.callback(queue.close)
            if not queue.open_to_me():
                raise PermanentError(
                    f"queue {name} belongs to another account, and so do its jobs: "
                    "look at it as the account of the sender"
                )
            queues.append(queue)
        yield queues


def standing(queues: Sequence[Survey]) -> Iterator[tuple[str, Record]]:
    """Yield a record of each job that stands in a state, and the name of the queue it is in.

    Its kind is the state, COMPLETED or CANCELED in done/; its time is when it came there. Of a
    job that cannot be read it has no uid, but a reason.
    """
    found: dict[tuple[str, int], tuple[Survey, str]] = {}
    for directory in _LOOKS:
        for queue in queues:
            for name, inode, proper in queue.listing(directory):
                if proper:
                    found[name, inode] = queue, directory
    for (name, inode), place in found.items():
        for _ in range(3):  # one that moves is looked for again
            try:
                queue, directory = place
                with queue.open_in(directory, name) as job:
                    yield queue.name, _describe(job, directory)
                break
            except FileNotFoundError:
                places = ((queue, queue.place(name, inode)) for queue in queues)
                now = next(((queue, there) for queue, there in places if there), None)
                if now is None:
                    break  # finished, and in the log
                place = now


def stands(queues: Sequence[Survey], job_id: str, uid: str) -> bool:
    """Tell whether the job of a uid stands in a state that is not the end of it."""
    for queue in queues:
        for directory in _STATES:
            with contextlib.suppress(OSError, FormatError):
                with queue.open_in(directory, job_id) as job:
                    if job.control().uid == uid:
                        return True
    return False


def drafts(queues: Sequence[Survey]) -> set[str]:
    """Return the ids of the jobs that are being submitted, or whose submit has died."""
    return {name for queue in queues for name, _, proper in queue.listing("tmp") if proper}


def numbers(queues: Sequence[Survey]) -> set[str]:
    """Return every request id that stands anywhere in these queues this instant."""
    listed = (queue.listing(directory) for queue in queues for directory in _LOOKS)
    return {name for found in listed for name, _, proper in found if proper}


def _describe(job: JobDir, directory: str) -> Record:
    """Make the record of a job in a state directory. Raises FileNotFoundError when it is gone."""
    changed = datetime.fromtimestamp(os.fstat(job.fd).st_ctime, UTC)
    routing = job.routing_or_default()
    ended = routing.outcome or State.CANCELED
    kind = (ended if directory == "done" else _STATES[directory]).value
    fields, fault = {"job": job.id}, ""
    try:
        fields |= finished_log.describe(job)
    except FileNotFoundError as error:
        if directory == "done" or os.fstat(job.fd).st_nlink == 0:
            raise  # it is being removed, and in the log
        fault = f"{error.filename} is missing"
    except FormatError as error:
        fault = str(error)
    except OSError as error:
        fault = f"cannot be read: {error.strerror}"
    if reason := routing.reason or fault:
        fields["reason"] = reason
    return Record(changed, kind, fields)

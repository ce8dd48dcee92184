"""How xfer-stat shows jobs and queues to programs; see xfer-stat(1) for every key."""

from collections.abc import Sequence
from datetime import datetime

from lpxfer.formats import dates
from lpxfer.formats.attempts import WAY
from lpxfer.formats.job import NOT_COMPLETED
from lpxfer.steps.check import QueueStatus
from lpxfer.steps.status import Job


def job_row(job: Job, long: bool = False) -> dict[str, object]:
    """Make the row of a job; null is what is not known. With `long` it tells how the job went."""
    row: dict[str, object] = {
        "id": job.id, "uid": job.uid, "queue": job.queue, "state": job.state, "user": job.user,
        "size": job.size, "submitted": _time(job.submitted), "name": job.name, "path": job.path,
        "priority": job.priority, "attempts": job.attempts, "not_before": _time(job.not_before),
        "reason": job.reason,
    }  # fmt: skip
    return row | {key: job.way.get(key) for key in WAY if long}


def queue_row(queue: QueueStatus) -> dict[str, object]:
    """Make the row of a queue."""
    switches = queue.switches
    state = "sending" if queue.active else "idle"
    row: dict[str, object] = {
        "name": queue.name,
        "state": state if switches.enabled else "disabled",
        "accepting": switches.accepting,
        "accepting_reason": switches.accepting_reason or None,
        "accepting_since": _time(switches.accepting_since),
        "enabled": switches.enabled,
        "enabled_reason": switches.enabled_reason or None,
        "enabled_since": _time(switches.enabled_since),
    }
    for word in NOT_COMPLETED:
        row[word.value], row[f"{word.value}_bytes"] = queue.counts[word][:2]
    earlier = [count.at for count in queue.counts.values() if count.at]
    row["as_of"] = _time(min(earlier, default=None))
    row["unconfirmed"] = queue.unconfirmed
    row["unconfirmed_seconds"] = round(queue.unconfirmed_age, 3)
    return row


def sender(queues: Sequence[QueueStatus]) -> dict[str, object]:
    """Tell whether all queues are served, and which."""
    served = {queue.name: queue.running for queue in queues}
    return {"running": bool(served) and all(served.values()), "queues": served}


def _time(time: datetime | None) -> str | None:
    return dates.iso(time) if time else None

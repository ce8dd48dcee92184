"""How xfer-stat shows jobs and queues to people; everything shown is printable."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import click

from lpxfer.cli import setup
from lpxfer.formats import dates
from lpxfer.formats.keyvalue import printable
from lpxfer.steps.check import QueueStatus
from lpxfer.steps.status import Job
from lpxfer.stores.counts import Count


@dataclass(frozen=True)
class Text:
    """What does not change from one row to the next."""

    now: datetime
    utc: bool

    def jobs(self, jobs: Sequence[Job], long: bool) -> None:
        """Print jobs, a row each; `long` prints all that is known below it."""
        rows = [self._row(job) for job in jobs]
        if not long:
            setup.print_table(rows)
            return
        for job, row in zip(jobs, rows, strict=True):
            click.echo("  ".join(row))
            for line in self._details(job):
                click.echo(f"\t{line}")

    def _row(self, job: Job) -> list[str]:
        submitted = setup.local_time(job.submitted, self.utc) if job.submitted else None
        return [_text(value) for value in
                (job.id, job.user, job.size, job.state, submitted, job.name)]  # fmt: skip

    def _details(self, job: Job) -> Iterator[str]:
        reason = printable(job.reason) if job.reason else ""
        if job.finished:
            yield f"{job.state} {setup.local_time(job.finished, self.utc)}"
        if job.not_before and job.not_before > self.now:
            until = setup.local_time(job.not_before, self.utc)
            yield f"deferred until {until}: {reason}" if reason else f"not before {until}"
        elif reason:
            yield f"reason: {reason}"
        attempts, priority = _text(job.attempts), _text(job.priority)
        yield f"priority {priority}, {attempts} attempt(s), inst {_text(job.inst)}"
        if job.way:
            yield "went " + ", ".join(f"{key} {printable(said)}" for key, said in job.way.items())
        yield _text(job.path)

    def sender(self, queue: QueueStatus) -> str:
        """Say whether a sender serves a queue."""
        return f"sender of queue {queue.name} is {'' if queue.running else 'not '}running"

    def sending(self, queue: QueueStatus) -> str:
        """Say whether a queue is idle, sending or disabled."""
        active = "sending " + ", ".join(queue.active) if queue.active else ""
        switches = queue.switches
        if switches.enabled:
            return f"queue {queue.name} is {active or 'idle'}"
        since = self._since(switches.enabled_since, switches.enabled_reason)
        return f"queue {queue.name} disabled{since}" + (f"; still {active}" if active else "")

    def accepting(self, queue: QueueStatus) -> str:
        """Say whether a queue takes new jobs."""
        switches = queue.switches
        if switches.accepting:
            return f"queue {queue.name} accepting jobs"
        since = self._since(switches.accepting_since, switches.accepting_reason)
        return f"queue {queue.name} not accepting jobs{since}"

    def _since(self, since: datetime | None, reason: str) -> str:
        when = f" since {setup.local_time(since, self.utc)}" if since else ""
        return f"{when} - {printable(reason) or 'reason unknown'}"

    def _as_of(self, count: Count) -> str:
        return setup.local_time(count.at, self.utc) if count.at else ""

    def counts(self, queues: Sequence[QueueStatus]) -> None:
        """Print jobs and bytes by queue and state, then what is unconfirmed."""
        rows = [
            [queue.name, state.value, str(count.jobs), _text(count.size), self._as_of(count)]
            for queue in queues
            for state, count in queue.counts.items()
            if count.jobs
        ]
        shown = 5 if any(row[4] for row in rows) else 4
        head = ["queue", "state", "jobs", "bytes", "as of"]
        setup.print_table([row[:shown] for row in rows], head[:shown])
        for queue in queues:
            if queue.unconfirmed:
                age = dates.short(queue.unconfirmed_age)
                click.echo(
                    f"queue {queue.name} has {queue.unconfirmed} unconfirmed job(s), "
                    f"the oldest sent {age} ago"
                )


def _text(value: object) -> str:
    return "-" if value is None else printable(str(value))

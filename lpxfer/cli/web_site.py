"""What xfer-web does when it is asked: submit, list and cancel jobs, as the commands do.

Answers are values for JSON. Raises what the steps raise; web_app makes statuses of that.
"""

import contextlib
import heapq
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from lpxfer.cli import setup, stat_json, web_ask
from lpxfer.cli.stat_look import Look
from lpxfer.cli.submit_order import order
from lpxfer.cli.web_once import About, fixed_queue, submit_once, watched_by
from lpxfer.errors import LpxferError, PermanentError, UsageError
from lpxfer.formats import dates, names
from lpxfer.formats.config import Config, QueueConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import NOT_COMPLETED
from lpxfer.formats.keyvalue import from_bytes
from lpxfer.steps import status
from lpxfer.steps.cancel import cancel
from lpxfer.steps.submit import Order, Result
from lpxfer.stores import origins, roots
from lpxfer.stores.repeats import Repeats
from lpxfer.stores.spool import Queue, Spool

Answer = dict[str, Any]


class Unknown(PermanentError):
    """There is no such job or queue."""


class Refused(LpxferError):
    """Nothing was submitted; `first` is why, and `errors` tells it of each file."""

    def __init__(self, first: LpxferError, errors: list[Answer]) -> None:
        super().__init__(str(first))
        self.first, self.errors = first, errors


class Site:
    """The spool of this machine, as its configuration describes it."""

    def __init__(self, config: Config) -> None:
        """Know the configuration; the spool is opened for each request."""
        self.config = config
        self._path = setup.spool_path(config)
        self._repeats = Repeats(setup.state_path() / "web")
        self._roots = [root for root in config.web.roots.split(":") if root]

    def submit_keyed(self, key: str, body: bytes, asked: Mapping[str, Any]) -> Answer:
        """Submit files as below, once, however often that is asked for with a key."""
        with self._repeats.request(key, body) as request:
            if request.answer is None:

                def about(ids: Sequence[str]) -> None:
                    request.ids += ids
                    self._repeats.keep(key, request)

                request.answer = self.submit(asked, request.ids, about)
                self._repeats.keep(key, request)
            return request.answer

    def submit(
        self,
        asked: Mapping[str, Any],
        earlier: Sequence[str] = (),
        about: About = lambda ids: None,
    ) -> Answer:
        """Submit files from beneath the roots. A file outside of them, and nothing is submitted.

        Those of which there are jobs with the `earlier` ids are not submitted again.
        """
        paths = [web_ask.path_bytes(path) for path in asked["files"]]
        for path in paths:
            roots.check(self._roots, path)
        wanted, own = dict(asked.get("options", {})), None
        if not wanted.keys() & {"inst", "instrument"}:
            if own := watched_by(self.config, paths):
                wanted["inst"] = own.name
        name = asked.get("queue") or (own and fixed_queue(own)) or self.config.queue
        if not name:
            raise UsageError('no queue: give "queue", or set queue in [lpxfer]')
        self._check_queue(name, self.config.queues)
        now = datetime.now(UTC)
        pairs = web_ask.pairs(wanted)
        priority = int(asked["priority"]) if "priority" in asked else None
        asked_for = order(self.config, name, pairs, priority, asked.get("when"), False, now)
        asked_for = replace(asked_for, opener=partial(roots.open_beneath, self._roots))
        with self._opened() as spool:
            queue = spool.queue(name)
            found = {job.path: job for job_id in earlier if (job := origins.find(queue, job_id))}
            made = [Result(path, found.get(from_bytes(os.path.abspath(path)))) for path in paths]
            if rest := [result.path for result in made if not result.control]:
                made = [result for result in made if result.control]
                made += self._submit(queue, rest, asked_for, now, about)
            return _submitted(made)

    def _submit(
        self, queue: Queue, paths: Sequence[bytes], asked: Order, now: datetime, about: About
    ) -> list[Result]:
        switches = queue.switches()
        if not switches.accepting:
            reason = switches.accepting_reason
            raise PermanentError(f'queue "{queue.name}" is not accepting jobs: {reason}')
        return submit_once(self.config, queue, paths, asked, now, about)

    def jobs(self, asked: Mapping[str, str]) -> Answer:
        """List jobs as `xfer-stat --json` does, at most so many, in the order of their numbers."""
        only = [asked["queue"]] if asked.get("queue") else []
        limit = int(asked.get("limit", web_ask.PAGE))
        now = datetime.now(UTC)
        with self._opened() as spool:
            for name in only:
                self._check_queue(name, spool.names(self.config.queues))
            look = Look(self.config, spool, only, [], "not-completed", None, now)
            queues, _ = look.queues()
            found = _after(queues, asked.get("after"), limit + 1)
            rows = [self._job(queue, job_id, now) for job_id, queue in found[:limit]]
            standing = [look.status(queue) for queue in queues]
        return {
            "jobs": [stat_json.job_row(row) for row in rows if row],
            "next": found[limit - 1][0] if len(found) > limit else None,
            "queues": [stat_json.queue_row(one) for one in standing],
            "sender": stat_json.sender(standing),
        }

    def job(self, job_id: str) -> Answer:
        """Tell all that is known of one job."""
        with self._opened() as spool:
            if row := self._job(_queue_of(spool, self.config, job_id), job_id, datetime.now(UTC)):
                return {"job": stat_json.job_row(row, long=True)}
        raise Unknown(f'there is no job "{job_id}"')

    def cancel(self, job_id: str, caller: str) -> Answer:
        """Withdraw a job."""
        with self._opened() as spool:
            queue = _queue_of(spool, self.config, job_id)
            cancel(queue, job_id, f"canceled by {caller} through xfer-web", datetime.now(UTC))
        return {"id": job_id, "state": "canceled"}

    def _check_queue(self, name: str, known: Collection[str]) -> None:
        if name not in known:
            raise Unknown(
                f'there is no queue "{name}"; known: {", ".join(sorted(known)) or "none"}'
            )

    def _job(self, queue: Queue, job_id: str, now: datetime) -> status.Job | None:
        settings = self.config.queues.get(queue.name, QueueConfig(queue.name))
        return status.find(queue, job_id, settings.unconfirmed, now)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Spool]:
        spool = Spool(self._path)
        try:
            yield spool
        finally:
            spool.close()


def _after(queues: list[Queue], after: str | None, most: int) -> list[tuple[str, Queue]]:
    """Name the first jobs after one, without looking at any and without keeping a million names."""
    start = names.split_request_id(after) if after else ("", 0)
    numbers = (
        (number, index)
        for index, queue in enumerate(queues)
        for state in NOT_COMPLETED
        for job_id in queue.ids(state)
        if (number := names.split_request_id(job_id)) > start
    )
    # One that moves meanwhile may be met in each of its states.
    chosen = sorted(set(heapq.nsmallest(most * 2, numbers)))[:most]
    return [(f"{name}-{number}", queues[index]) for (name, number), index in chosen]


def _queue_of(spool: Spool, config: Config, job_id: str) -> Queue:
    try:
        return spool.queue_of(job_id, spool.names(config.queues))
    except PermanentError as error:
        raise Unknown(str(error)) from error


def _submitted(results: list[Result]) -> Answer:
    jobs = [_row(result.control) for result in results if result.control]
    errors = [
        {"path": from_bytes(result.path), "error": str(result.error),
         "later": result.error.exit_status == 75}
        for result in results if result.error
    ]  # fmt: skip
    if not jobs:
        raise Refused(next(result.error for result in results if result.error), errors)
    return {"jobs": jobs, "errors": errors}


def _row(job: Control) -> Answer:
    return {
        "id": job.job, "uid": job.uid, "queue": job.queue, "name": job.name, "path": job.path,
        "size": job.size, "checksum": job.checksum, "submitted": dates.iso(job.submitted),
    }  # fmt: skip

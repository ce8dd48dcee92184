"""What xfer-watch does with finished files: each is submitted as its instrument's section says."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from lpxfer.cli import submit_order
from lpxfer.errors import LpxferError, PermanentError, UsageError
from lpxfer.formats import control, options, watching
from lpxfer.formats.config import Config, InstrumentConfig
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.watch_record import Version
from lpxfer.sources import judge
from lpxfer.sources.finder import Found
from lpxfer.steps.submit import Wanted, submit_each
from lpxfer.steps.watch import Taken
from lpxfer.stores import origins
from lpxfer.stores.spool import Spool


class Submitter:
    """Submits finished files of one instrument."""

    def __init__(
        self,
        config: Config,
        instrument: InstrumentConfig,
        spool: Spool,
        others: Mapping[str, tuple[Version, str, int]],
        say: Callable[[str], None],
    ) -> None:
        """Read what the section says of how. Raises ConfigError for a queue that is none.

        `others` has what others may have submitted, by path: the version and the job.
        """
        self._config, self._spool, self._others, self._say = config, spool, others, say
        self._told: set[str] = set()
        self._inst = instrument.name
        queue = instrument.queue or config.queue
        self._recipe = replace(instrument.recipe, queue=queue)
        if not queue:
            raise UsageError(
                f"no queue: set queue in [instrument {self._inst}] or in [lpxfer] of lpxfer.conf"
            )
        if not watching.PLACE.search(queue):
            config.find_queue(queue)

    def submit(self, batch: Sequence[Found], now: datetime) -> Iterator[Taken]:
        """Yield what became of each file, those of one queue together.

        Raises LpxferError when the only queue takes no jobs.
        """
        wanted: dict[str, list[tuple[Found, Wanted]]] = {}
        for found in batch:
            try:
                if job_id := self._submitted_by_others(found):
                    yield Taken(found, job_id)
                    continue
                queue, one = self._wanted(found, now)
                wanted.setdefault(queue, []).append((found, one))
            except (LpxferError, OSError) as error:
                said = error.strerror if isinstance(error, OSError) else str(error)
                message = f'unable to submit "{printable(found.path)}" - {said}'
                yield Taken(found, error=PermanentError(message))
        for queue, files in wanted.items():
            try:
                yield from self._submitted(queue, files, now)
            except LpxferError as error:
                if len(wanted) == 1:
                    raise
                yield from (Taken(found, error=error) for found, _ in files)

    def _submitted_by_others(self, found: Found) -> str | None:
        version, job_id, _ = self._others.get(found.path, (None, "", 0))
        if found.version.same(version):
            with contextlib.suppress(PermanentError):  # it was not made, for its maker died
                queue = self._spool.queue_of(job_id, self._spool.names(self._config.queues))
                if origins.is_of(origins.find(queue, job_id), found.path, found.version):
                    return job_id
        return None

    def _wanted(self, found: Found, now: datetime) -> tuple[str, Wanted]:
        """Make the order of one file. Raises LpxferError for a queue that is none."""
        header = judge.header(found.path) if self._recipe.wants_header else None
        card = header.value if header else lambda _: None
        queue, priority, pairs = self._recipe.make(found.below, card)
        asked = options.sort({"inst": self._inst} | {
            keyword: value for keyword, value in pairs.items()
            if self._can_be(found, keyword, lambda: options.sort({keyword: value}))  # noqa: B023
        })  # fmt: skip
        check = partial(control.check_priority, priority)
        number = int(priority) if priority and self._can_be(found, "priority", check) else None
        order = submit_order.of_options(self._config, queue, asked, number, None, False, now)
        seen = found.version.inode, found.version.size, found.version.mtime
        return queue, Wanted(os.fsencode(found.path), order, seen)

    def _can_be(self, found: Found, keyword: str, check: Callable[[], object]) -> bool:
        """Tell whether a value is one; the file goes without what is none, and it is said once."""
        try:
            check()
        except LpxferError as error:
            if keyword not in self._told:
                self._say(f'"{found.path}", and others, are submitted without {keyword}: {error}')
            self._told.add(keyword)
            return False
        return True

    def _submitted(
        self, name: str, files: Sequence[tuple[Found, Wanted]], now: datetime
    ) -> Iterator[Taken]:
        queue = self._spool.queue(name)
        switches = queue.switches()
        if not switches.accepting:
            raise PermanentError(
                f'queue "{name}" is not accepting jobs: {switches.accepting_reason}'
            )
        results = submit_each(queue, [wanted for _, wanted in files], now)
        for (found, _), result in zip(files, results, strict=True):
            if result.control:
                known = result.control
                version = found.version._replace(size=known.size, mtime=known.mtime_ns)
                yield Taken(found, known.job, version)
            else:
                yield Taken(found, error=result.error)

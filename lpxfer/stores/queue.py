"""One queue of the spool: its jobs, their states, its switches. See xfer-spool(5).

Guarantees: a job that `commit` returned for is whole and durable. Nobody but the holder of
`lock` moves a job out of active/. A job in done/ is finished whatever happens next, and is
logged once.
"""

import contextlib
import errno
import os
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from lpxfer import durable
from lpxfer.errors import BusyError, FormatError, PermanentError
from lpxfer.formats import job, names
from lpxfer.formats.job import Routing, State
from lpxfer.formats.record import Record
from lpxfer.formats.switches import Switches
from lpxfer.stores import (
    aside,
    counts,
    drafts,
    finished_log,
    finishing,
    layout,
    listing,
    numbers,
    sender,
    switch_file,
)
from lpxfer.stores.counts import Count, Counter
from lpxfer.stores.finishing import End
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.listing import Entry, Glance
from lpxfer.stores.waiting import Waiting

_DEFAULT = Routing()


class Queue:
    """One queue's directory."""

    def __init__(self, root: Path, name: str) -> None:
        """Open the queue at `root`; raises PermanentError when it is not set up."""
        self.name = name
        self.root = root
        with contextlib.ExitStack() as opened:
            hold = opened.enter_context
            try:
                self._fd = hold(durable.opened_dir(root))
                self._dirs = {
                    word: hold(durable.opened_dir(word, self._fd)) for word in layout.DIRECTORIES
                }
            except OSError as error:
                raise PermanentError(
                    f"queue {name} in {root.parent} cannot be used: {error.strerror}; it is set "
                    "up when the account that owns the spool starts xfer-send once"
                ) from error
            self._close = weakref.finalize(self, opened.pop_all().close)
        self._places = finishing.Places(self._fd, self._dirs["done"], self._dirs["log"])
        states = (state for state in State if state is not State.CANCELED)
        self._states: dict[State, int] = {s: self._dirs[s.directory] for s in states}
        self._glances = {fd: Glance(fd) for fd in self._states.values()}

    def close(self) -> None:
        """Close the queue's directories, as happens when nobody has the queue any more."""
        self._close()

    # --- new jobs ---------------------------------------------------------------------

    def reserve(self, count: int) -> range:
        """Take `count` numbers for new jobs that are never given out again; see numbers.py."""
        return numbers.reserve(self._fd, count, self._highest)

    def forgo(self, first: int, last: int) -> None:
        """Note reserved numbers that no job will have."""
        numbers.forgo(self._fd, (first, last))

    def draft(self, number: int) -> JobDir:
        """Make an empty job in tmp/; it is live while its directory stays open.

        Raises FileExistsError when a job of that number exists in any state.
        """
        job_id = f"{self.name}-{number}"
        if self._look(job_id):
            raise FileExistsError(errno.EEXIST, "a job of that number exists", job_id)
        return drafts.make(job_id, self._fd, self._dirs["tmp"])

    def commit(self, ready: Sequence[JobDir], state: State) -> None:
        """Turn drafts into jobs, durably; each exists at the instant of its rename.

        When it raises OSError they are drafts again, but for one that a sender has claimed
        meanwhile.
        """
        if ready:
            drafts.commit(ready, self._fd, self._dirs["tmp"], self._dirs[state.directory])
            self.wake(*(draft.id for draft in ready))

    def keep(self, state: State) -> None:
        """Sync a state's directory, for who relies on jobs there: their makers may have died."""
        durable.sync(self._dirs[state.directory])

    def discard(self, draft: JobDir) -> None:
        """Remove a draft that will not become a job."""
        durable.remove_tree(draft.id, self._dirs["tmp"])

    def free_bytes(self) -> int:
        """Return the bytes that an ordinary user may still write on the spool."""
        status = os.fstatvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def sender_can_read(self, draft: JobDir) -> bool:
        """Tell whether the account that owns the spool may read and move this draft."""
        return drafts.sender_can_read(draft, self._fd)

    # --- looking ----------------------------------------------------------------------

    def entries(self, state: State) -> list[Entry]:
        """List the jobs in a state. Whatever is not a job directory is passed over."""
        return listing.entries(self._dirs[state.directory])

    def ids(self, state: State) -> Iterator[str]:
        """Yield the ids of the jobs in a state, for a tenth of what `entries` costs."""
        return listing.ids(self._dirs[state.directory])

    def any(self, state: State) -> bool:
        """Tell whether there is a job in a state."""
        return listing.any_job(self._dirs[state.directory])

    def glance(self, state: State) -> Glance:
        """Return what tells whether a state is worth being listed again."""
        return Glance(self._dirs[state.directory])

    def stands(self, job_id: str, states: Iterable[State]) -> State | None:
        """Return the first of these states that a job is in; one that moves may slip through."""
        places = ((state, self._dirs[state.directory]) for state in states)
        return next((state for state, fd in places if listing.stands(fd, job_id)), None)

    def entry(self, job_id: str, state: State) -> Entry:
        """Return one job's entry. Raises FileNotFoundError when it is not in this state."""
        return listing.entry(self._dirs[state.directory], job_id)

    def count(self, state: State) -> tuple[int, int]:
        """Return the number of jobs in a state and the bytes of their data files."""
        return listing.count(self._dirs[state.directory])

    def data_size(self, job_id: str) -> int:
        """Return the bytes of a pending job's data file; 0 when it is pending no more."""
        try:
            name = f"{job_id}/data"
            return os.stat(name, dir_fd=self._dirs["pending"], follow_symlinks=False).st_size
        except OSError:
            return 0

    def counts(self, now: datetime, sizes: bool = True) -> dict[State, Count]:
        """Return the number of jobs in each state that is not the end, and their bytes.

        A million are counted by the sender; where that was before, the count says when.
        """
        return counts.look(self._fd, self._states, now, sizes)

    def counter(self) -> Counter:
        """Return what counts large states for those who ask; for the sender to run."""
        return Counter(self._fd, self._states)

    def where(self, job_id: str) -> State | None:
        """Return the state a job is in; COMPLETED stands for done/; None when it is gone.

        A job that moves while it is looked for may slip through once, so it is not believed
        to be gone before the second look.
        """
        return self._look(job_id) or self._look(job_id)

    def finished(self, job_id: str) -> Record | None:
        """Return a job's record in the finished log, or None."""
        return finished_log.find(self._dirs["log"], job_id)

    def outcome(self, job_id: str) -> State | None:
        """Return how a job ended, COMPLETED or CANCELED; None when nobody knows."""
        outcome = None
        with contextlib.suppress(FileNotFoundError, PermissionError):
            with self.open(job_id, State.COMPLETED) as opened:
                outcome = opened.routing_or_default().outcome
        line = None if outcome else self.finished(job_id)
        kinds = {state.value: state for state in (State.COMPLETED, State.CANCELED)}
        return outcome or (kinds.get(line.kind) if line else None)

    def routing(self, job_id: str) -> Routing:
        """Read the routing of a pending job, as an index needs it: defaults when in doubt."""
        pending = self._dirs["pending"]
        try:
            if not listing.stands(pending, f"{job_id}/routing"):
                return _DEFAULT  # as most have it, at a third of the price of an exception
            return job.load_routing(durable.read_small(f"{job_id}/routing", pending))
        except (OSError, FormatError):
            return _DEFAULT

    def open(self, job_id: str, state: State) -> JobDir:
        """Open a job that is in this state. Raises FileNotFoundError when it is not."""
        return JobDir(job_id, durable.open_dir(job_id, self._dirs[state.directory]))

    def log(self, since: datetime | None = None) -> Iterator[Record]:
        """Read the finished log from the day of `since`, oldest first."""
        yield from finished_log.read(self._dirs["log"], since)  # keeps the queue open meanwhile

    # --- changes of state ---------------------------------------------------------------

    @contextlib.contextmanager
    def still(self, job_id: str, state: State) -> Iterator[JobDir]:
        """Hold a job that waits still, and open: no sender claims it, nobody else changes it.

        Raises FileNotFoundError when it is not in this state any more, BusyError when
        another command has held it for a second.
        """
        with self.open(job_id, state) as opened:
            for attempt in range(20):
                try:
                    durable.lock_fd(opened.fd)
                    break
                except BusyError:
                    if attempt == 19:
                        raise BusyError(f"{job_id}: another command is at work on it") from None
                    time.sleep(0.05)
            self.entry(job_id, state)  # still there, now that nobody can move it
            yield opened

    def move(self, job_id: str, src: State, dst: State) -> None:
        """Move a job to another state, durably.

        Raises FileNotFoundError when somebody else has moved it first. Out of ACTIVE, the
        caller must hold the sender's lock.
        """
        self._move(durable.move, job_id, src.directory, dst.directory)

    def move_many(self, job_ids: Sequence[str], src: State, dst: State) -> dict[str, OSError]:
        """Move jobs as `move` does, with one sync of each directory; return by id why any is not.

        Raises OSError when the disk fails.
        """
        failed: dict[str, OSError] = {}
        for job_id in job_ids:
            try:
                self._move(durable.rename_unsynced, job_id, src.directory, dst.directory)
            except OSError as error:
                if aside.stops_all(error):
                    raise
                failed[job_id] = error
        if len(failed) < len(job_ids):
            durable.sync(self._dirs[dst.directory])
            durable.sync(self._dirs[src.directory])
        return failed

    def move_to_queue(self, job_id: str, src: State, other: "Queue") -> None:
        """Move a job to another queue, where it waits as pending or held. It keeps its id."""
        dst = State.HELD if src is State.HELD else State.PENDING
        there = other._dirs[dst.directory]
        aside.move(durable.move, job_id, self._dirs[src.directory], there, gives_way=False)
        other.wake(job_id)

    def claim(self, job_id: str) -> JobDir:
        """Move a job from pending to active for the holder of the lock, and open it.

        Not synced: after a power cut the job is pending again, which is as true.
        Raises FileNotFoundError when it is pending no more, BusyError when a command is at work
        on it, which wakes the sender when it has done.
        """
        opened = self.open(job_id, State.PENDING)
        try:
            durable.lock_fd(opened.fd)
            self._move(durable.rename_unsynced, job_id, "pending", "active")
            durable.unlock_fd(opened.fd)
            return opened
        except BaseException:
            opened.close()
            raise

    def finish(self, job_id: str, src: State, outcome: State, reason: str, now: datetime) -> None:
        """Complete or cancel a job: outcome, done/, finished log, remove.

        The job is finished at the instant of the rename to done/; a crash after it is made
        good by `recover`. Without permission to write the log (another user's cancel) the
        rest is left to the sender. Raises FileNotFoundError as `move`.
        """
        with self.open(job_id, src) as opened:
            for error in self.finish_many([End(opened, outcome, reason)], src, now).values():
                raise error

    def finish_many(self, ends: Sequence[End], src: State, now: datetime) -> dict[str, OSError]:
        """Finish open jobs of a state as `finish` does, with the same syncs for all of them.

        Takes finishing.BATCH at a time, or fewer: others wait for the log meanwhile. Returns by
        their ids why some could not be finished; raises OSError when the disk fails.
        """
        return finishing.finish(self._places, self._dirs[src.directory], ends, now)

    def recover(self, now: datetime, working: Collection[str] = ()) -> None:
        """Make good what a dead sender, submit or cancel left. The caller holds the lock.

        active/, but for the jobs in `working`, goes back to pending/; done/ is logged, and removed
        like dead drafts. What a member is at work on, or has made by hand, stops nothing.
        """
        for entry in self.entries(State.ACTIVE):
            if entry.id not in working:
                with aside.past(), contextlib.suppress(BusyError):
                    with aside.held(entry.id, self._dirs["active"]):
                        self.move(entry.id, State.ACTIVE, State.PENDING)
        self.finish_done(now)
        aside.remove_dead(self._dirs["tmp"], partial(numbers.forgo_drafts, self._fd))
        for fd, glance in self._glances.items():
            if glance.changed():
                with glance.taken():
                    again = aside.back(fd)
                if again:
                    glance.forget()

    def take_back(self, job: JobDir) -> None:
        """Move an active job back to pending, unless a sender serves the queue.

        A member, who may not take the lock, holds the job still: a sender that starts then
        passes it over. Raises BusyError, FileNotFoundError.
        """
        try:
            with self.locked():
                self.move(job.id, State.ACTIVE, State.PENDING)
        except PermissionError:
            durable.lock_fd(job.fd)
            if not self.running():
                self.move(job.id, State.ACTIVE, State.PENDING)
            durable.unlock_fd(job.fd)

    def finish_done(self, now: datetime) -> None:
        """Log and remove the jobs that stand in done/, each logged once."""
        if entries := self.entries(State.COMPLETED):
            # Who moved them there may have died before that, wherever they came from.
            for fd in (self._dirs["done"], *self._states.values()):
                durable.sync(fd)
            finishing.finish_done(self._places, entries, now)

    # --- the sender ---------------------------------------------------------------------

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Be the queue's one sender for a block. Raises BusyError when there is another."""
        return sender.locked(self._fd, self.name)

    def running(self) -> bool:
        """Tell whether a sender serves this queue."""
        return sender.running(self._fd)

    def wake(self, *job_ids: str) -> None:
        """Tell the sender to look at these jobs; without any, at all there is.

        Only a hint: it looks by itself now and then.
        """
        sender.wake(self._fd, job_ids or (sender.ALL,))

    def open_wake(self) -> int:
        """Open the FIFO on which the sender is woken; `Waiting.hear` reads it."""
        return sender.open_wake(self._fd)

    def waiting(self) -> Waiting:
        """Return a view of what is pending that costs little to keep up to date."""
        return Waiting(self._dirs["pending"])

    # --- the switches -------------------------------------------------------------------

    def switches(self) -> Switches:
        """Read the queue's switches."""
        return switch_file.read(self._fd)

    def switch(self, change: Callable[[Switches], Switches]) -> None:
        """Change the queue's switches and wake the sender. Raises PermissionError."""
        with finishing.owner_locked(self._fd) as mine:
            if not mine:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.root))
            switch_file.write(self._fd, change(self.switches()))
        self.wake()

    # --- inside ---------------------------------------------------------------------------

    def _look(self, job_id: str) -> State | None:
        return self.stands(job_id, self._states)

    def _highest(self) -> int:
        """Return the highest number any state directory or finished log knows."""
        ids: list[str] = []
        for directory in layout.WITH_JOBS:
            ids += os.listdir(self._dirs[directory])
        ids += [line.fields.get("job", "") for line in self.log()]
        matches = (names.REQUEST_ID.fullmatch(job_id) for job_id in ids)
        found = (int(match[2]) for match in matches if match and match[1] == self.name)
        return max(found, default=0)

    def _move(self, how: aside.How, job_id: str, src: str, dst: str) -> None:
        """Move a job past what somebody may have made under its name where it goes."""
        aside.move(how, job_id, self._dirs[src], self._dirs[dst], dst in layout.IN_USE)

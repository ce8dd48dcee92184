"""The spool: the only owner of the jobs on disk. See xfer-spool(5).

    <spool>/<queue>/tmp/ pending/ held/ active/ sent/ failed/ quarantine/ done/
                    log/YYYYMMDD.log   lock   seq   switches   wake

A job is a directory and a state is a directory: a change of state is one rename, and at
that instant it has happened. Nothing else is authoritative; whoever wants to know what is
queued lists the directories. Only this module builds a path into the spool.

Guarantees: a job that `commit` returned for is whole and durable. Nobody but the holder of
`lock` moves a job out of active/. A job in done/ is finished whatever happens next.
"""

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lpxfer import durable
from lpxfer.errors import BusyError, FormatError, PermanentError
from lpxfer.formats import dates, job, keyvalue, names
from lpxfer.formats.job import Routing, State
from lpxfer.formats.record import Record
from lpxfer.stores import finished_log, layout
from lpxfer.stores.job_dir import JobDir


@dataclass(frozen=True)
class Switches:
    """A queue's two switches, each with its reason and since when it is off."""

    accepting: bool = True
    accepting_reason: str = ""
    accepting_since: datetime | None = None
    enabled: bool = True
    enabled_reason: str = ""
    enabled_since: datetime | None = None


@dataclass(frozen=True)
class Entry:
    """A job as its directory entry shows it; `stamp` changes when its routing does."""

    id: str
    stamp: int


class Queue:
    """One queue's directory."""

    def __init__(self, root: Path, name: str) -> None:
        """Open the queue at `root`; raises PermanentError when it is not set up."""
        self.name = name
        self.root = root
        try:
            self._fd = durable.open_dir(root)
            self._dirs = {word: durable.open_dir(word, self._fd) for word in layout.DIRECTORIES}
        except OSError as error:
            raise PermanentError(
                f"queue {name} in {root.parent} cannot be used: {error.strerror}; it is set up "
                "when the account that owns the spool starts xfer-send once"
            ) from error

    # --- new jobs ---------------------------------------------------------------------

    def reserve(self, count: int) -> range:
        """Take `count` numbers for new jobs; the numbers are never given out again.

        A missing or unreadable `seq` restarts above every number in the state directories
        and the logs.
        """
        with durable.locked("seq", self._fd, wait=True) as fd:
            text = os.pread(fd, 32, 0)
            match = re.fullmatch(rb"([0-9]{1,14})\n", text)
            first = int(match[1]) + 1 if match else self._highest() + 1
            text = b"%d\n" % (first + count - 1)
            os.pwrite(fd, text, 0)
            os.ftruncate(fd, len(text))
            durable.sync(fd)
        return range(first, first + count)

    def draft(self, number: int) -> JobDir:
        """Make an empty job in tmp/; it is live while its directory stays open.

        Raises FileExistsError when a job of that number exists in any state.
        """
        job_id = f"{self.name}-{number}"
        if self.where(job_id):
            raise FileExistsError(errno.EEXIST, "a job of that number exists", job_id)
        os.mkdir(job_id, 0o770, dir_fd=self._dirs["tmp"])
        fd = durable.open_dir(job_id, self._dirs["tmp"])
        durable.lock_fd(fd, wait=True)
        return JobDir(job_id, fd)

    def commit(self, drafts: Sequence[JobDir], state: State) -> None:
        """Turn drafts into jobs. Each exists at the instant of its rename.

        One draft is synced file by file; several at once by one sync of the file system,
        which is the same promise for far less waiting. Durable on return.
        """
        if len(drafts) == 1:
            drafts[0].seal()
        elif drafts:
            durable.sync_filesystem(self._fd)
        for draft in drafts:
            durable.rename_unsynced(draft.id, self._dirs["tmp"], self._dirs[state.directory])
        if drafts:
            durable.sync(self._dirs[state.directory])
            self.wake()

    def discard(self, draft: JobDir) -> None:
        """Remove a draft that will not become a job."""
        durable.remove_tree(draft.id, self._dirs["tmp"])

    def free_bytes(self) -> int:
        """Return the bytes that an ordinary user may still write on the spool."""
        status = os.fstatvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def sender_can_read(self, draft: JobDir) -> bool:
        """Tell whether the account that owns the spool may read and move this draft."""
        owner, mine = os.fstat(self._fd).st_uid, os.fstat(draft.fd)
        if owner in (0, mine.st_uid):
            return True
        return all(layout.grants(name, draft.fd, owner) for name in [".", *os.listdir(draft.fd)])

    # --- looking ----------------------------------------------------------------------

    def entries(self, state: State) -> list[Entry]:
        """List the jobs in a state. Whatever is not a job directory is passed over."""
        found = []
        with os.scandir(self._dirs[state.directory]) as entries:
            for entry in entries:
                if names.REQUEST_ID.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        if entry.is_dir(follow_symlinks=False):
                            stamp = entry.stat(follow_symlinks=False).st_mtime_ns
                            found.append(Entry(entry.name, stamp))
        return found

    def count(self, state: State) -> tuple[int, int]:
        """Return the number of jobs in a state and the bytes of their data files."""
        jobs = total = 0
        directory = self._dirs[state.directory]
        with os.scandir(directory) as entries:
            for entry in entries:
                if names.REQUEST_ID.fullmatch(entry.name):
                    jobs += 1
                    with contextlib.suppress(OSError):
                        status = os.stat(
                            f"{entry.name}/data", dir_fd=directory, follow_symlinks=False
                        )
                        total += status.st_size
        return jobs, total

    def where(self, job_id: str) -> State | None:
        """Return the state a job is in; COMPLETED stands for done/; None when it is gone."""
        for state in State:
            if state is not State.CANCELED:
                with contextlib.suppress(FileNotFoundError):
                    os.stat(job_id, dir_fd=self._dirs[state.directory], follow_symlinks=False)
                    return state
        return None

    def routing(self, job_id: str) -> Routing:
        """Read the routing of a pending job, as an index needs it: defaults when in doubt."""
        try:
            text = durable.read_small(f"{job_id}/routing", self._dirs["pending"])
            return job.load_routing(text)
        except (OSError, FormatError):
            return Routing()

    def open(self, job_id: str, state: State) -> JobDir:
        """Open a job that is in this state. Raises FileNotFoundError when it is not."""
        return JobDir(job_id, durable.open_dir(job_id, self._dirs[state.directory]))

    def log(self, since: datetime | None = None) -> Iterator[Record]:
        """Read the finished log from the day of `since`, oldest first."""
        return finished_log.read(self._dirs["log"], since)

    # --- changes of state ---------------------------------------------------------------

    def move(self, job_id: str, src: State, dst: State) -> None:
        """Move a job to another state, durably.

        Raises FileNotFoundError when somebody else has moved it first. Out of ACTIVE, the
        caller must hold the sender's lock.
        """
        durable.move(job_id, self._dirs[src.directory], self._dirs[dst.directory])

    def move_to_queue(self, job_id: str, src: State, other: "Queue") -> None:
        """Move a job to another queue, where it waits as pending or held. It keeps its id."""
        dst = State.HELD if src is State.HELD else State.PENDING
        durable.move(job_id, self._dirs[src.directory], other._dirs[dst.directory])
        other.wake()

    def claim(self, job_id: str) -> JobDir:
        """Move a job from pending to active for the holder of the lock, and open it.

        Not synced: after a power cut the job is pending again, which is as true.
        Raises FileNotFoundError when it is pending no more.
        """
        durable.rename_unsynced(job_id, self._dirs["pending"], self._dirs["active"])
        return self.open(job_id, State.ACTIVE)

    def finish(self, job_id: str, src: State, outcome: State, reason: str, now: datetime) -> None:
        """Complete or cancel a job: outcome, done/, finished log, remove.

        The job is finished at the instant of the rename to done/; a crash after it is made
        good by `recover`. Without permission to write the log (another user's cancel) the
        rest is left to the sender. Raises FileNotFoundError as `move`.
        """
        with self.open(job_id, src) as opened:
            opened.set_routing(replace(opened.routing_or_default(), outcome=outcome, reason=reason))
        durable.move(job_id, self._dirs[src.directory], self._dirs["done"])
        with contextlib.suppress(PermissionError):
            self._log_and_remove(job_id, now)

    def recover(self, now: datetime) -> None:
        """Make good what a dead sender or submit left. The caller holds the lock.

        active/ goes back to pending/, done/ is logged and removed, dead drafts are removed.
        """
        for entry in self.entries(State.ACTIVE):
            self.move(entry.id, State.ACTIVE, State.PENDING)
        self.finish_done(now)
        for name in os.listdir(self._dirs["tmp"]):
            self._remove_if_dead(name)

    def finish_done(self, now: datetime) -> None:
        """Log and remove the jobs that stand in done/."""
        for entry in self.entries(State.COMPLETED):
            since = datetime.fromtimestamp(entry.stamp / 1e9, UTC) - timedelta(days=1)
            if any(line.fields.get("job") == entry.id for line in self.log(since)):
                self._remove_done(entry.id)
            else:
                with contextlib.suppress(FileNotFoundError):
                    self._log_and_remove(entry.id, now)

    # --- the sender and the switches ----------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the queue's one sender for a block. Raises BusyError when there is another.

        `running` takes the lock for an instant to look, so one refusal is not believed.
        """
        for attempt in range(10):
            try:
                with durable.locked("lock", self._fd) as fd:
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, b"pid=%d\n" % os.getpid(), 0)
                    yield
                    return
            except BusyError:
                if attempt == 9:
                    raise BusyError(f"another sender serves queue {self.name}") from None
                time.sleep(0.05)

    def running(self) -> bool:
        """Tell whether a sender serves this queue."""
        try:
            with durable.locked("lock", self._fd):
                return False
        except BusyError:
            return True

    def wake(self) -> None:
        """Tell the sender to look. Only a hint: it looks by itself now and then."""
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            fd = os.open("wake", flags, dir_fd=self._fd)
            with contextlib.suppress(OSError):
                os.write(fd, b"!")
            os.close(fd)

    def open_wake(self) -> int:
        """Open the FIFO on which the sender is woken; read it without waiting."""
        with contextlib.suppress(FileExistsError):
            os.mkfifo("wake", 0o660, dir_fd=self._fd)
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open("wake", flags, dir_fd=self._fd)

    def switches(self) -> Switches:
        """Read the queue's switches; both are on when there is no such file."""
        try:
            pairs = keyvalue.load(durable.read_small("switches", self._fd))
        except FileNotFoundError:
            return Switches()
        return Switches(
            accepting=pairs.get("accepting") != "no",
            accepting_reason=pairs.get("accepting_reason", ""),
            accepting_since=_time(pairs.get("accepting_since")),
            enabled=pairs.get("enabled") != "no",
            enabled_reason=pairs.get("enabled_reason", ""),
            enabled_since=_time(pairs.get("enabled_since")),
        )

    def set_switches(self, switches: Switches) -> None:
        """Write the queue's switches and wake the sender."""
        pairs = []
        for word in ("accepting", "enabled"):
            if not getattr(switches, word):
                pairs.append((word, "no"))
                pairs.append((f"{word}_reason", getattr(switches, f"{word}_reason")))
                since = getattr(switches, f"{word}_since")
                if since:
                    pairs.append((f"{word}_since", dates.iso(since)))
        durable.replace("switches", keyvalue.dump(pairs), self._fd, 0o644)
        self.wake()

    # --- inside ---------------------------------------------------------------------------

    def _highest(self) -> int:
        """Return the highest number any state directory or finished log knows."""
        ids: list[str] = []
        for directory in layout.WITH_JOBS:
            ids += os.listdir(self._dirs[directory])
        ids += [line.fields.get("job", "") for line in self.log()]
        matches = (names.REQUEST_ID.fullmatch(job_id) for job_id in ids)
        numbers = [int(match[2]) for match in matches if match and match[1] == self.name]
        return max(numbers, default=0)

    def _log_and_remove(self, job_id: str, now: datetime) -> None:
        """Log and remove a job in done/, unless somebody else is about it."""
        with self.open(job_id, State.COMPLETED) as opened:
            try:
                durable.lock_fd(opened.fd)
                os.stat(job_id, dir_fd=self._dirs["done"])
            except (BusyError, FileNotFoundError):
                return
            finished_log.append(self._dirs["log"], opened, now)
        self._remove_done(job_id)

    def _remove_done(self, job_id: str) -> None:
        durable.remove_tree(job_id, self._dirs["done"])
        durable.sync(self._dirs["done"])

    def _remove_if_dead(self, name: str) -> None:
        try:
            with durable.opened_dir(name, self._dirs["tmp"]) as fd:
                durable.lock_fd(fd)
                durable.remove_tree(name, self._dirs["tmp"])
        except (BusyError, FileNotFoundError):
            return  # its owner is at work, or has just finished
        except NotADirectoryError:
            os.unlink(name, dir_fd=self._dirs["tmp"])


class Spool:
    """The tree that holds the queues."""

    def __init__(self, root: Path) -> None:
        """Take `root` as the spool; nothing is opened or made yet."""
        self.root = root

    def queue(self, name: str) -> Queue:
        """Open a queue, setting it up when this account may.

        Raises PermanentError when it can be neither set up nor used.
        """
        root = self.root / names.check_queue(name)
        try:
            if not (root / "log").is_dir():
                layout.set_up(self.root, root)
        except OSError as error:
            raise PermanentError(
                f"queue {name} cannot be set up in {self.root}: {error.strerror}; "
                "let the account that owns the spool start xfer-send once"
            ) from error
        return Queue(root, name)

    def find(self, job_id: str, queues: Iterable[str]) -> tuple[Queue, State] | None:
        """Find a job by its request id in the queues named; its own queue is tried first."""
        own = names.split_request_id(job_id)[0]
        for name in sorted(queues, key=lambda name: name != own):
            with contextlib.suppress(PermanentError):
                queue = self.queue(name)
                if state := queue.where(job_id):
                    return queue, state
        return None


def _time(text: str | None) -> datetime | None:
    return dates.parse_iso(text) if text else None

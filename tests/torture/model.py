"""What a disk may hold after the power failed: the model, and every state it allows.

After a crash
- a rename is one record, kept wholly or not at all (ext4, XFS), and certain once the
  destination directory was synced;
- of other directory changes (create, link, unlink, mkdir, rmdir, symlink) that were not synced
  any subset may survive; they are certain once that directory was synced;
- what took a name away implies what had put it there;
- bytes, mode, time and size survive only if the file was synced after they were written; else
  none, half or all of what was written since, or all of the length with its second half zeros;
- syncfs makes everything on its file system certain. Nothing else orders anything: a file's own
  sync does not make its name certain.

`Recorder` takes down what a process does; `Disk` is one site's share of it.
"""

import bisect
import itertools
import math
import os
import random
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

SITES = ("telescope", "archive")


@dataclass(frozen=True)
class Content:
    """What an inode holds: bytes, or where a link points."""

    kind: int  # stat.S_IFREG and its like
    mode: int
    data: bytes = b""
    mtime_ns: int | None = None  # None: whenever it is looked at


@dataclass(frozen=True)
class Names:
    """A change of directories: a name taken away, a name put there, or both at once (rename)."""

    taken: tuple[int, str] | None
    put: tuple[int, str, int] | None
    sure_by: int  # the directory whose sync makes it certain


@dataclass(frozen=True)
class Bytes:
    """A change of one inode: bytes at an offset, a size, a mode or a time."""

    node: int
    data: bytes = b""
    offset: int | None = None
    size: int | None = None
    mode: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True)
class Sync:
    """A sync of one inode, or of all of them."""

    node: int | None


Change = Names | Bytes | Sync

#: A tree as it may be found: path below the site -> what is there. Hashable, so that states
#: which look the same are one.
Tree = tuple[tuple[str, Content], ...]


@dataclass
class Disk:
    """One site: its directories and inodes before, and what was done to them."""

    top: int
    entries: dict[int, dict[str, int]] = field(default_factory=dict)  # by directory
    content: dict[int, Content] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)  # the number of each change's call

    def states(self, call: int, most: int, rng: random.Random) -> tuple[list[Tree], bool]:
        """Return the states that a cut after a call may leave, and whether that is all of them.

        The first is the one in which nothing is lost. When there are more than `most`
        combinations: every one with a single loss, with a single survivor, and a sample.
        """
        done = self.changes[: bisect.bisect_right(self.calls, call)]
        synced = _Synced(done)
        unsure = [
            at
            for at, change in enumerate(done)
            if isinstance(change, Names) and not synced.after(at, change.sure_by)
        ]
        whole, fates = self._fates(done, synced)
        choices = [2] * len(unsure) + [len(fate) for _, fate in fates]
        every = math.prod(choices)
        picks: Iterable[Sequence[int]] = itertools.product(*(range(n)[::-1] for n in choices))
        if every > most:
            picks = _some(choices, most, rng)
        found = {}
        for pick in picks:
            lost = {at for at, kept in zip(unsure, pick, strict=False) if not kept}
            chosen = zip(fates, pick[len(unsure) :], strict=True)
            found[self._tree(done, lost, whole | {n: fate[i] for (n, fate), i in chosen})] = None
        return list(found), every <= most

    def with_old_names(self) -> list[Tree]:
        """Return the states in which old names survive beside the new ones, at the end.

        The stricter reading: a rename is over when the directory that it leaves was synced too.
        """
        synced = _Synced(self.changes)
        whole, _ = self._fates(self.changes, synced)
        last = {c.put[2]: at for at, c in enumerate(self.changes)
                if isinstance(c, Names) and c.put and c.taken}  # fmt: skip
        found = []
        for node, at in last.items():
            change = self.changes[at]
            if isinstance(change, Names) and change.taken and not synced.after(at, change.taken[0]):
                old = Names(None, (*change.taken, node), 0)
                found.append(self._tree([*self.changes, old], set(), whole))
        return found

    def _fates(
        self, done: Sequence[Change], synced: "_Synced"
    ) -> tuple[dict[int, Content], list[tuple[int, list[Content]]]]:
        """Return what changed inodes hold, and what may be left of those not synced."""
        ours: dict[int, list[tuple[bool, Bytes]]] = {}
        for at, change in enumerate(done):
            if isinstance(change, Bytes):
                pair = (synced.after(at, change.node), change)
                ours.setdefault(change.node, []).append(pair)
        whole, fates = {}, []
        for node, pairs in ours.items():
            sure = _apply(self.content[node], [change for kept, change in pairs if kept])
            lost = [change for kept, change in pairs if not kept]
            whole[node] = _apply(sure, lost)
            if lost:
                fates.append((node, list(dict.fromkeys(_fates_of(sure, lost)))))
        return whole, fates

    def _tree(self, done: Sequence[Change], lost: set[int], now: dict[int, Content]) -> Tree:
        """Make the tree in which some changes of names are lost, and inodes hold what is given."""
        if lost:
            lost = _with_causes(done, lost)
        entries = {node: dict(names) for node, names in self.entries.items()}
        for at, change in enumerate(done):
            if isinstance(change, Names) and at not in lost:
                if change.taken:
                    entries[change.taken[0]].pop(change.taken[1], None)
                if change.put:
                    directory, name, node = change.put
                    entries[directory][name] = node
        return tuple(self._walk(self.top, "", entries, now))

    def _walk(
        self, node: int, path: str, entries: dict[int, dict[str, int]], now: dict[int, Content]
    ) -> Iterator[tuple[str, Content]]:
        for name, below in sorted(entries[node].items()):
            where = f"{path}/{name}" if path else name
            found = now.get(below) or self.content[below]
            yield where, found
            if stat.S_ISDIR(found.kind):
                yield from self._walk(below, where, entries, now)


class _Synced:
    """Which changes were synced after they were made."""

    def __init__(self, done: Sequence[Change]) -> None:
        self._last = {change.node: at for at, change in enumerate(done) if isinstance(change, Sync)}
        self._all = self._last.get(None, -1)

    def after(self, at: int, node: int) -> bool:
        """Tell whether an inode was synced after a change."""
        return max(self._last.get(node, -1), self._all) > at


def _with_causes(done: Sequence[Change], lost: set[int]) -> set[int]:
    """Keep what put a name there that something which is kept took away."""
    taken = set()
    for at in range(len(done) - 1, -1, -1):
        change = done[at]
        if not isinstance(change, Names):
            continue
        if change.put and change.put[:2] in taken:
            taken.discard(change.put[:2])
            lost = lost - {at}
        if change.taken and at not in lost:
            taken.add(change.taken)
    return lost


def _apply(content: Content, changes: Sequence[Bytes], most: int | None = None) -> Content:
    """Do changes to an inode, up to `most` bytes of them, in their order."""
    data = bytearray(content.data)
    mode, mtime_ns = content.mode, content.mtime_ns
    for change in changes:
        if change.offset is not None:
            piece = change.data if most is None else change.data[:most]
            data.extend(bytes(max(0, change.offset - len(data))))
            data[change.offset : change.offset + len(piece)] = piece
            mtime_ns = None
            if most is not None and (most := most - len(piece)) <= 0:
                break
        if change.size is not None:
            data = data[: change.size] + bytes(max(0, change.size - len(data)))
        mode = mode if change.mode is None else change.mode
        mtime_ns = mtime_ns if change.mtime_ns is None else change.mtime_ns
    return replace(content, data=bytes(data), mode=mode, mtime_ns=mtime_ns)


def _fates_of(sure: Content, lost: Sequence[Bytes]) -> Iterator[Content]:
    """Yield what becomes of unsynced writes: none, half, zeros at the end, all."""
    yield sure
    written = sum(len(change.data) for change in lost)
    whole = _apply(sure, lost)
    if written > 1:
        yield _apply(sure, lost, written // 2)
    if len(whole.data) > len(sure.data) + 1:
        middle = (len(sure.data) + len(whole.data)) // 2
        yield replace(whole, data=whole.data[:middle] + bytes(len(whole.data) - middle))
    yield whole


def _some(choices: Sequence[int], most: int, rng: random.Random) -> Iterator[Sequence[int]]:
    """Pick from too many combinations: all kept, single losses and survivors, then at random."""
    all_kept = [count - 1 for count in choices]
    yield all_kept
    yield [0] * len(choices)
    for base in (all_kept, [0] * len(choices)):
        for at, count in enumerate(choices):
            for other in range(count):
                if other != base[at]:
                    yield [*base[:at], other, *base[at + 1 :]]
    for _ in range(most):
        yield [rng.randrange(count) for count in choices]


class Recorder:
    """Takes down every change of two sites, from the calls that `calls.watched` shows."""

    def __init__(self, root: Path) -> None:
        """Look at both sites as they are; all of that is durable."""
        self.calls = 0
        self._node = itertools.count(1)
        self._known: dict[tuple[int, int], int] = {}
        self._site: dict[int, Disk] = {}
        self.disks: dict[str, Disk] = {}
        self._fresh = False
        for site in SITES:
            status = os.lstat(root / site)
            top = self._number(status)
            self.disks[site] = self._site[top] = disk = Disk(top)
            disk.content[top] = Content(stat.S_IFDIR, stat.S_IMODE(status.st_mode))
            self._look(disk, top, str(root / site))

    def _look(self, disk: Disk, node: int, path: str) -> None:
        disk.entries[node] = {}
        for entry in sorted(os.listdir(path)):
            below = f"{path}/{entry}"
            status = os.lstat(below)
            child = self._number(status)
            disk.entries[node][entry] = child
            if child not in disk.content:
                self._site[child] = disk
                disk.content[child] = content(below, status)
                if stat.S_ISDIR(status.st_mode):
                    self._look(disk, child, below)

    def _number(self, status: os.stat_result, new: bool = False) -> int:
        key = (status.st_dev, status.st_ino)
        if new or key not in self._known:
            self._known[key] = next(self._node)
        return self._known[key]

    def before(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See whether an `open` is going to make a file."""
        if verb == "open":
            try:
                os.stat(args[0], dir_fd=kwargs.get("dir_fd"), follow_symlinks=False)
                self._fresh = False
            except FileNotFoundError:
                self._fresh = True

    def after(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Take a call down that was made."""
        self.calls += 1
        for disk, change in getattr(self, f"_{verb}")(result, *args, **kwargs):
            disk.changes.append(change)
            disk.calls.append(self.calls)

    # --- one for each verb of calls.VERBS ---------------------------------------------------

    def _place(self, name: Any, dir_fd: int | None) -> tuple[Disk, int, str] | None:
        """Return the site, the directory and the name of a path; None for other places."""
        head, tail = os.path.split(os.fsdecode(name))
        status = os.stat(head or ".", dir_fd=dir_fd)
        node = self._known.get((status.st_dev, status.st_ino))
        return (self._site[node], node, tail) if node in self._site else None

    def _made(self, name: Any, dir_fd: int | None) -> Iterator[tuple[Disk, Change]]:
        if not (place := self._place(name, dir_fd)):
            return
        disk, directory, tail = place
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        node = self._number(status, new=True)
        self._site[node] = disk
        kind = stat.S_IFMT(status.st_mode)
        target = os.readlink(name, dir_fd=dir_fd) if kind == stat.S_IFLNK else ""
        disk.content[node] = Content(kind, stat.S_IMODE(status.st_mode), os.fsencode(target))
        if kind == stat.S_IFDIR:
            disk.entries[node] = {}
        yield disk, Names(None, (directory, tail, node), directory)

    def _gone(self, name: Any, dir_fd: int | None) -> Iterator[tuple[Disk, Change]]:
        if place := self._place(name, dir_fd):
            disk, directory, tail = place
            yield disk, Names((directory, tail), None, directory)

    def _inode(self, fd: int) -> tuple[Disk, int] | None:
        status = os.fstat(fd)
        node = self._known.get((status.st_dev, status.st_ino))
        return (self._site[node], node) if node in self._site else None

    def _change(self, fd: int, **what: Any) -> Iterator[tuple[Disk, Change]]:
        if found := self._inode(fd):
            yield found[0], Bytes(found[1], **what)

    def _open(
        self, fd: int, name: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> Iterator[tuple[Disk, Change]]:
        if self._fresh:
            yield from self._made(name, dir_fd)
        elif flags & os.O_TRUNC:
            yield from self._change(fd, size=0)

    def _mkdir(
        self, _: None, name: Any, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> Iterator[tuple[Disk, Change]]:
        return self._made(name, dir_fd)

    def _symlink(
        self, _: None, src: Any, dst: Any, *, dir_fd: int | None = None
    ) -> Iterator[tuple[Disk, Change]]:
        return self._made(dst, dir_fd)

    def _unlink(
        self, _: None, name: Any, *, dir_fd: int | None = None
    ) -> Iterator[tuple[Disk, Change]]:
        return self._gone(name, dir_fd)

    _rmdir = _unlink

    def _link(
        self,
        _: None,
        src: Any,
        dst: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> Iterator[tuple[Disk, Change]]:
        if place := self._place(dst, dst_dir_fd):
            disk, directory, tail = place
            node = self._number(os.stat(dst, dir_fd=dst_dir_fd, follow_symlinks=False))
            yield disk, Names(None, (directory, tail, node), directory)

    def _rename(
        self,
        _: None,
        src: Any,
        dst: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> Iterator[tuple[Disk, Change]]:
        old, new = self._place(src, src_dir_fd), self._place(dst, dst_dir_fd)
        if old and new:
            node = self._number(os.stat(dst, dir_fd=dst_dir_fd, follow_symlinks=False))
            yield new[0], Names(old[1:], (*new[1:], node), new[1])

    def _write(self, count: int, fd: int, data: Any) -> Iterator[tuple[Disk, Change]]:
        offset = os.lseek(fd, 0, os.SEEK_CUR) - count
        yield from self._change(fd, data=bytes(data)[:count], offset=offset)

    def _pwrite(self, count: int, fd: int, data: Any, offset: int) -> Iterator[tuple[Disk, Change]]:
        yield from self._change(fd, data=bytes(data)[:count], offset=offset)

    def _ftruncate(self, _: None, fd: int, size: int) -> Iterator[tuple[Disk, Change]]:
        yield from self._change(fd, size=size)

    def _fchmod(self, _: None, fd: int, mode: int) -> Iterator[tuple[Disk, Change]]:
        yield from self._change(fd, mode=mode)

    def _utime(
        self, _: None, fd: int, times: None = None, *, ns: tuple[int, int]
    ) -> Iterator[tuple[Disk, Change]]:
        yield from self._change(fd, mtime_ns=ns[1])

    def _fsync(self, _: None, fd: int) -> Iterator[tuple[Disk, Change]]:
        if found := self._inode(fd):
            yield found[0], Sync(found[1])

    def _syncfs(self, _: None, fd: int) -> Iterator[tuple[Disk, Change]]:
        if found := self._inode(fd):
            yield found[0], Sync(None)


def content(path: str, status: os.stat_result) -> Content:
    """Read what an inode holds."""
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    if kind == stat.S_IFREG:
        with open(path, "rb") as stream:
            return Content(kind, mode, stream.read(), status.st_mtime_ns)
    if kind == stat.S_IFLNK:
        return Content(kind, mode, os.fsencode(os.readlink(path)))
    return Content(kind, mode)


def build(tree: Tree, top: Path) -> None:
    """Make a site as it may be found."""
    os.mkdir(top)
    modes = []
    for name, found in tree:
        path = f"{top}/{name}"
        if stat.S_ISDIR(found.kind):
            os.mkdir(path)
            modes.append((path, found.mode))
        elif stat.S_ISLNK(found.kind):
            os.symlink(found.data, path)
        elif stat.S_ISFIFO(found.kind):
            os.mkfifo(path)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, found.data)
            os.fchmod(fd, found.mode)
            if found.mtime_ns is not None:
                os.utime(fd, ns=(found.mtime_ns, found.mtime_ns))
            os.close(fd)
    for path, mode in modes:
        os.chmod(path, mode)

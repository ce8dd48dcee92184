"""Changes on disk that survive a power cut, and the locks beside them.

The rule of the whole package: prepare under a temporary name, sync, rename or link, sync
the directory. Nothing else in lpxfer renames, links or syncs, so this file is where a
missing sync would be looked for. A failed sync is never repeated: the kernel may have
dropped the pages, and a second call would lie. The error goes up, and the caller starts
again with a new file.

Every function takes an open directory and a name in it, or an open file: what was checked
is then what is changed, whoever renames the path above it meanwhile.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from lpxfer.errors import BusyError

CHUNK = 1 << 20  # bytes read or written at once

#: Open flags for a file somebody else may have planted: never a link, never a FIFO's wait.
HOSTILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: What `open_regular` raises for links, directories, FIFOs, sockets and devices.
NOT_REGULAR = {errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV}


#: A disk that is full, read-only or broken: no file's own fault, and it may pass.
_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def is_disk_fault(error: BaseException) -> bool:
    """Tell whether an error is the disk's, and not that of the file at hand."""
    return isinstance(error, OSError) and error.errno in _DISK_FAULTS


def open_dir(path: str | bytes | os.PathLike[str], dir_fd: int | None = None) -> int:
    """Open a directory, refusing a link in its last component."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, dir_fd=dir_fd)


@contextlib.contextmanager
def opened_dir(path: str | bytes | os.PathLike[str], dir_fd: int | None = None) -> Iterator[int]:
    """Hold a directory open for a block."""
    fd = open_dir(path, dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def open_regular(name: str, dir_fd: int) -> int:
    """Open a file for reading that may be hostile.

    Raises OSError: ELOOP for a link, ENOENT, or EINVAL for anything that is not a
    regular file (opened without waiting, so a FIFO cannot stop the caller).
    """
    fd = os.open(name, HOSTILE, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return fd


def read_small(name: str, dir_fd: int, limit: int = 65536) -> bytes:
    """Read a small file that may be hostile: at most `limit` + 1 bytes of it."""
    fd = open_regular(name, dir_fd)
    try:
        text = b""
        while len(text) <= limit and (more := os.read(fd, min(CHUNK >> 4, limit + 1 - len(text)))):
            text += more
        return text
    finally:
        os.close(fd)


def create(name: str, dir_fd: int, mode: int = 0o660) -> int:
    """Create a file that must not exist, open for writing and for reading back."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, mode, dir_fd=dir_fd)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte, however many calls the kernel wants for it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync(fd: int) -> None:
    """Bring an open file or directory to stable storage. Never called twice for one write."""
    os.fsync(fd)


def sync_file(name: str, dir_fd: int) -> None:
    """Bring a file on which somebody will rely to stable storage: its writer may have died."""
    fd = open_regular(name, dir_fd)
    try:
        sync(fd)
    finally:
        os.close(fd)


def sync_filesystem(fd: int) -> None:
    """Bring everything on the file system of `fd` to stable storage, in one call.

    One such call stands for thousands of syncs when many files are written at once.
    Raises OSError when any write back failed since the descriptor was opened, if
    `filesystem_sync_tells`.
    """
    import ctypes  # 10 ms of start-up that a single file does not pay

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def filesystem_sync_tells() -> bool:
    """Tell whether this kernel says so when `sync_filesystem` could not write (Linux 5.8)."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (5, 8)


def write_new(name: str, data: bytes, dir_fd: int, mode: int | None = None) -> None:
    """Create a file with these bytes and sync it; its name is durable once `dir_fd` is synced.

    With `mode` it has that, whatever the umask.
    """
    fd = create(name, dir_fd)
    try:
        if mode is not None:
            os.fchmod(fd, mode)
        write_all(fd, data)
        sync(fd)
    finally:
        os.close(fd)


def replace(name: str, data: bytes, dir_fd: int, mode: int | None = None) -> None:
    """Give a small file new contents: after a crash it has the old ones or the new, whole.

    `mode` is as in `write_new`. Of several who do this at once the last wins. A crash may leave
    a `.<name>.*.new`, which goes with its directory, or by `forget_replacements`.
    """
    temporary = f".{name}.{os.urandom(4).hex()}.new"
    try:
        write_new(temporary, data, dir_fd, mode)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    sync(dir_fd)


def forget_replacements(name: str, dir_fd: int) -> None:
    """Remove what a `replace` of this name left that died; one under way fails, and may."""
    left = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.new")
    with opened_dir(".", dir_fd) as fd:
        for found in filter(left.fullmatch, os.listdir(fd)):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(found, dir_fd=dir_fd)


def move(name: str, src_fd: int, dst_fd: int, new_name: str | None = None) -> None:
    """Move a file or a directory to another directory.

    The move has happened at the instant of the rename, and is durable on return. The
    destination is synced first: a power cut between the two syncs may leave the entry in
    the old place or the new, never in neither.
    """
    os.rename(name, new_name or name, src_dir_fd=src_fd, dst_dir_fd=dst_fd)
    sync(dst_fd)
    sync(src_fd)


def rename_unsynced(name: str, src_fd: int, dst_fd: int, new_name: str | None = None) -> None:
    """Move one of many; the caller syncs both directories once for all of them."""
    os.rename(name, new_name or name, src_dir_fd=src_fd, dst_dir_fd=dst_fd)


def link(src: str | bytes, dst: str, src_fd: int | None, dst_fd: int) -> None:
    """Give a synced file its final name and sync the directory. Never overwrites.

    Without `src_fd`, `src` is a path. Raises FileExistsError when the name is taken.
    """
    os.link(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd, follow_symlinks=False)
    sync(dst_fd)


def make_dir(name: str, dir_fd: int, mode: int = 0o777) -> bool:
    """Make a directory where there is none, durably; tell whether it was made.

    The parent is synced in any case: whoever made it may have died before doing so. Where
    that fails, what was made is taken back, so that the next one makes it again.
    """
    made = True
    try:
        os.mkdir(name, mode, dir_fd=dir_fd)
    except FileExistsError:
        made = False
    try:
        sync(dir_fd)
    except OSError:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=dir_fd)
        raise
    return made


def make_dirs(path: Path) -> None:
    """Make a directory for this account alone, and those it is in, where there is none, durably."""
    if not path.is_dir():
        make_dirs(path.parent)
        with opened_dir(path.parent) as fd:
            make_dir(path.name, fd, 0o700)


def link_unsynced(temporary: str, name: str, dir_fd: int) -> None:
    """Give one of many synced files its final name; the caller syncs the directory once for all.

    The file has its final name at the instant of the link. Never overwrites: raises
    FileExistsError when the name is taken. The temporary name stays.
    """
    os.link(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)


def remove(name: str, dir_fd: int) -> None:
    """Remove a file that is there or not, durably."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=dir_fd)
    sync(dir_fd)


def remove_tree(name: str, dir_fd: int, depth: int = 8) -> None:
    """Remove a directory and what is in it, following no link; what is gone already is fine.

    Raises OSError for directories nested more than `depth` deep: nothing of ours is, and
    somebody else's may go on until memory or descriptors end.
    """
    if depth < 0:
        raise OSError(errno.ENOTEMPTY, "directories nested too deep to be removed", name)
    try:
        fd = open_dir(name, dir_fd)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=dir_fd)
        return
    try:
        for entry in list(os.scandir(fd)):
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.name, fd, depth - 1)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=fd)
    finally:
        os.close(fd)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=dir_fd)


def cut_torn_line(name: str, dir_fd: int) -> None:
    """Cut half a line that a crash left from the end of a log, if it is there.

    For logs that have one writer at a time, and readers who do not mind. What has no end of a
    line in its last MiB is no log of ours, and stays.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            start = max(0, size - CHUNK)
            end = start + os.pread(fd, CHUNK, start).rfind(b"\n") + 1
            if end > start or not start:
                os.ftruncate(fd, end)
    finally:
        os.close(fd)


def append(
    name: str,
    lines: bytes,
    dir_fd: int,
    mode: int = 0o640,
    alone: bool = False,
    patience: float = 10.0,
) -> None:
    """Append whole lines to a log under its lock, and sync.

    A torn last line, left by a crash, gets its newline first, so that it spoils only itself.
    Lines that do not fit on a full disk, or whose sync fails, are cut off again: nobody may
    read, and rely on, what a power cut could undo.
    A log that is new, or empty because its maker died, has its directory synced before the
    first line: whoever finds a line there need not think of the directory any more.

    `alone` is for a caller that keeps other writers off by itself. Else who can only read the
    log could keep its lock: after `patience` seconds the lines go in without it, at the end as
    always, and nothing is cut off.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=dir_fd)
    try:
        if not alone:
            with contextlib.suppress(BusyError):
                lock_fd(fd, patience=patience)
                alone = True
        size = os.fstat(fd).st_size
        if not size:
            sync(dir_fd)
        elif os.pread(fd, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        try:
            write_all(fd, lines)
            sync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                if alone:
                    os.ftruncate(fd, size)
            raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened(name: str, dir_fd: int, mode: int = 0o660) -> Iterator[int]:
    """Hold a file open for reading and writing for a block; made where there is none."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(
    name: str,
    dir_fd: int,
    mode: int = 0o660,
    wait: bool = False,
    shared: bool = False,
    patience: float = 0.0,
) -> Iterator[int]:
    """Hold the lock file `name` for a block; the descriptor is given to the block.

    Raises BusyError when another process holds it for `patience` seconds and `wait` is false;
    `shared` locks exclude only the others. The lock goes with the process, however it ends.
    """
    with opened(name, dir_fd, mode) as fd:
        lock_fd(fd, wait, shared, patience)
        yield fd


def lock_fd(fd: int, wait: bool = False, shared: bool = False, patience: float = 0.0) -> None:
    """Take the lock of an open file or directory; raises BusyError when it is held.

    Whoever can open a file, if only for reading, can keep its lock for ever: `wait` is for
    files that nobody else can open, `patience` (seconds) for the others.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, kind | (0 if wait else fcntl.LOCK_NB))
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise BusyError("the lock is held by another process") from error
            time.sleep(0.01)


def unlock_fd(fd: int) -> None:
    """Give the lock of an open file or directory back before it is closed."""
    fcntl.flock(fd, fcntl.LOCK_UN)

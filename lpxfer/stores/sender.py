"""A queue's one sender: the lock it holds while it serves, and how it is woken."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

from lpxfer import durable
from lpxfer.errors import BusyError

ALL = "!"  # what is written into `wake` instead of a request id

#: Lines written at once: the kernel mixes no two writers' words of up to 4096 bytes.
_TOGETHER = 4096 // 64

WAKE_MODE = 0o620  # who can read it could take its bytes, and pass for the sender


@contextlib.contextmanager
def locked(queue_fd: int, name: str) -> Iterator[None]:
    """Be the one sender of the queue `name` for a block. Raises BusyError when there is another.

    Only the account that owns the queue can take the lock. `running` takes it for an instant to
    look, so one refusal is not believed. Whoever holds the lock has `wake` open, too.
    """
    with contextlib.ExitStack() as held:
        for attempt in range(10):
            try:
                fd = held.enter_context(durable.locked("lock", queue_fd))
                break
            except BusyError:
                if attempt == 9:
                    raise BusyError(f"another sender serves queue {name}") from None
                time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):
            held.callback(os.close, _open_wake(queue_fd))
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"pid=%d\n" % os.getpid(), 0)
        yield


def running(queue_fd: int) -> bool:
    """Tell whether a sender serves the queue.

    A member of a spool's group may not open the lock, lest it keeps it: `wake` has a reader then,
    which only the sender's account can be.
    """
    try:
        with durable.locked("lock", queue_fd, shared=True):
            return False
    except BusyError:
        return True
    except PermissionError:
        return wake(queue_fd, [])


def wake(queue_fd: int, words: Iterable[str]) -> bool:
    """Tell the sender what to look at; return whether there is one that hears it.

    The words are request ids, or `ALL`. Only hints: it looks by itself now and then.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open("wake", flags, dir_fd=queue_fd)
    except OSError:
        return False
    lines = [f"{word}\n".encode() for word in words]
    with contextlib.suppress(OSError):
        for start in range(0, len(lines), _TOGETHER):
            os.write(fd, b"".join(lines[start : start + _TOGETHER]))
    os.close(fd)
    return True


def open_wake(queue_fd: int) -> int:
    """Open the FIFO on which the sender is woken; read it without waiting."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo("wake", WAKE_MODE, dir_fd=queue_fd)
    return _open_wake(queue_fd)


def _open_wake(queue_fd: int) -> int:
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open("wake", flags, dir_fd=queue_fd)
    with contextlib.suppress(PermissionError):
        os.fchmod(fd, WAKE_MODE)  # whatever the umask: on a spool of several users all may wake
    return fd

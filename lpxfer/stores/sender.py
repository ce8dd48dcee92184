"""A queue's one sender: the lock it holds while it serves, and how it is woken."""

import contextlib
import os
import time
from collections.abc import Iterator

from lpxfer import durable
from lpxfer.errors import BusyError


@contextlib.contextmanager
def locked(queue_fd: int, name: str) -> Iterator[None]:
    """Be the one sender of the queue `name` for a block. Raises BusyError when there is another.

    `running` takes the lock for an instant to look, so one refusal is not believed.
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
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"pid=%d\n" % os.getpid(), 0)
        yield


def running(queue_fd: int) -> bool:
    """Tell whether a sender serves the queue."""
    try:
        with durable.locked("lock", queue_fd, shared=True):
            return False
    except BusyError:
        return True


def wake(queue_fd: int) -> None:
    """Tell the sender to look. Only a hint: it looks by itself now and then."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        fd = os.open("wake", flags, dir_fd=queue_fd)
        with contextlib.suppress(OSError):
            os.write(fd, b"!")
        os.close(fd)


def open_wake(queue_fd: int) -> int:
    """Open the FIFO on which the sender is woken; read it without waiting."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo("wake", 0o660, dir_fd=queue_fd)
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open("wake", flags, dir_fd=queue_fd)
    with contextlib.suppress(PermissionError):
        os.fchmod(fd, 0o660)  # whatever the umask: on a spool of several users all may wake
    return fd

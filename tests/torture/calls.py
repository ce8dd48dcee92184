"""Every call that changes a disk, from all threads, seen one at a time before and after."""

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lpxfer import durable

#: Changes of names, of bytes, of what is known about a file; and the syncs.
VERBS = (
    "open link symlink rename mkdir unlink rmdir write pwrite ftruncate fchmod utime fsync".split()
)

#: Called with verb, positional and keyword arguments; after the call also with its result.
Before = Callable[[str, tuple[Any, ...], dict[str, Any]], None]
After = Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]


@contextlib.contextmanager
def watched(before: Before = lambda *_: None, after: After = lambda *_: None) -> Iterator[None]:
    """Let each change of a disk pass `before` and `after` for a block.

    What either raises, the caller of the changing function gets: an OSError from `before` is a
    call that failed. `open` is seen only where it may create or empty a file; writes to
    what is no file (a pipe, a socket) are not seen. `sync_filesystem` has the verb `syncfs`.
    Reentrant calls, from inside `before` and `after`, are not seen.
    """
    lock, real = threading.RLock(), {verb: getattr(os, verb) for verb in VERBS}
    inside = False

    def wrap(verb: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if not _changes(verb, args):
                return function(*args, **kwargs)
            with lock:
                if inside:
                    return function(*args, **kwargs)
                inside = True
                try:
                    before(verb, args, kwargs)
                    result = function(*args, **kwargs)
                    after(verb, args, kwargs, result)
                    return result
                finally:
                    inside = False

        return call

    syncfs = durable.sync_filesystem
    try:
        for verb, function in real.items():
            setattr(os, verb, wrap(verb, function))
        durable.sync_filesystem = wrap("syncfs", syncfs)
        yield
    finally:
        durable.sync_filesystem = syncfs
        for verb, function in real.items():
            setattr(os, verb, function)


def _changes(verb: str, args: tuple[Any, ...]) -> bool:
    if verb == "open":
        return bool(args[1] & (os.O_CREAT | os.O_TRUNC))
    if verb in ("write", "pwrite"):
        return stat.S_ISREG(os.fstat(args[0]).st_mode)
    return True

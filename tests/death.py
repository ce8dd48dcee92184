"""Dying at a call, without a process of its own: a hundred times cheaper than a fork.

What has died changes nothing any more: whoever wraps the calls raises Death again at each of
those that its `finally` blocks try. Its descriptors are closed, and so its locks are gone.
"""

import gc
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class Death(BaseException):
    """Nothing of what runs goes on."""


@contextmanager
def mortal() -> Iterator[None]:
    """Let what is done in a block die: close what it leaves open, if Death comes out of it."""
    before = descriptors()
    try:
        yield
    except Death as death:
        error: BaseException | None = death
        while error:  # let go of what its frames hold
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
        if descriptors() - before:
            gc.collect()  # so that no file object closes them a second time
            for fd in descriptors() - before:
                os.close(fd)


def descriptors() -> set[int]:
    """Return the numbers of what this process has open, and not what it takes to list them."""
    numbers = {int(name) for name in os.listdir("/proc/self/fd")}
    return {number for number in numbers if os.path.lexists(f"/proc/self/fd/{number}")}

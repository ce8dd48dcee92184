"""Repeat: sweep whenever something arrives, and at intervals, until told to stop.

A sweep that fails is reported, once while it goes on failing in the same way, and made
again. Never raises what a sweep raises, except for bugs.
"""

import os
import time
from collections.abc import Callable, Iterator

from lpxfer.errors import BusyError, LpxferError
from lpxfer.stores.archive import Outcome, explain
from lpxfer.stores.ear import POLL, Ear

RESCAN = 60.0  # seconds after which it is swept though it has not changed


def repeat(
    sweep: Callable[[], Iterator[Outcome]], path: str, stop: Callable[[], bool]
) -> Iterator[Outcome]:
    """Yield the outcomes of one sweep after another.

    `path` is the directory whose changes are waited for, and `stop` is asked after every
    outcome. A message is yielded again only after a sweep without it.
    """
    with Ear(path) as ear:
        yield from _listening(ear, sweep, path, stop)


def _listening(
    ear: Ear, sweep: Callable[[], Iterator[Outcome]], path: str, stop: Callable[[], bool]
) -> Iterator[Outcome]:
    """Sweep when an arrival is heard, and when a look shows a change that was not."""
    told: set[str] = set()
    seen: tuple[int, ...] | None = None
    due, heard = 0.0, True
    while not stop():
        now = _stamp(path)
        if not heard and now == seen and time.monotonic() < due:
            heard = ear.wait()
            continue
        ear.listen()  # before the sweep: what comes from now on is heard
        seen, due, heard = now, time.monotonic() + RESCAN, False
        messages: set[str] = set()
        for outcome in _one(sweep):
            if outcome is None:  # busy: what came meanwhile may be left
                seen = None
                time.sleep(POLL)
            elif outcome.message not in told:
                yield outcome
            if outcome and outcome.message:
                messages.add(outcome.message)
            if stop():
                return
        told = messages


def _one(sweep: Callable[[], Iterator[Outcome]]) -> Iterator[Outcome | None]:
    """Yield the outcomes of a sweep, one for a sweep that failed, None for one that is busy."""
    try:
        yield from sweep()
    except BusyError:
        yield None
    except LpxferError as error:
        yield Outcome(None, str(error), error.exit_status)
    except OSError as error:
        yield Outcome(None, explain(error), 1)


def _stamp(path: str) -> tuple[int, ...]:
    """Return what changes with every file that comes into a directory or leaves it."""
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_mtime_ns

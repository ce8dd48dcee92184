"""Whether a file is finished. A slow writer's file must never be taken for one.

Where the file system is this machine's, the kernel tells whether anybody has a file open for
writing, by refusing a lease (fcntl(2), F_SETLEASE); then the file is not finished, whatever its
size, and nothing has to be waited for when it is closed. Elsewhere, or where this account may
take no lease, time has to tell.
"""

import errno
import fcntl
import os
import signal
from dataclasses import dataclass
from functools import partial

from lpxfer.formats import fits_headers
from lpxfer.formats.fits_headers import Header
from lpxfer.formats.validity import Invalid
from lpxfer.formats.watching import Finished

SETTLE = 60.0  # seconds without a change that stand for a file's being closed
STALE = 3600.0  # seconds without a change after which nobody will bring what a file lacks
CLOCKS = 300.0  # seconds that another machine's clock may be off: a change may be that much older

_SETSIG = 10  # F_SETSIG of linux/fcntl.h, which Python has no name for


@dataclass(frozen=True)
class Unfinished:
    """Why a file is not finished, and in how many seconds it may be, if anybody knows."""

    reason: str
    again: float | None = None
    given_up: bool = False  # nobody goes on with it: it is to be taken as it is


def unfinished(
    path: str, status: os.stat_result, rule: Finished, quiet: float, remote: bool
) -> Unfinished | None:
    """Say why a file is not finished; None when it is. Raises OSError.

    `quiet` is for how many seconds it has not changed.
    """
    if rule.flag:
        return None if _flagged(path + rule.flag, status) else Unfinished("it has no flag file yet")
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        written = None if remote else being_written(fd)
        if written:
            return Unfinished("somebody has it open for writing")
        lacks = None
        if rule.fits:
            lacks = fits_headers.unfinished(partial(os.pread, fd), status.st_size)
    finally:
        os.close(fd)
    if lacks and quiet < STALE:
        return Unfinished(lacks)
    sure = written is False or (lacks == "" and not rule.close)
    wait = rule.age if rule.age is not None else 0.0 if sure else SETTLE
    if quiet < wait:
        return Unfinished("it changed lately", wait - quiet)
    return Unfinished(lacks, given_up=True) if lacks else None


def being_written(fd: int) -> bool | None:
    """Tell whether anybody has an open file open for writing; None when nobody may say.

    A lease is for files of one's own, or for CAP_LEASE, and not for every file system. It is
    given back at once: who opens the file meanwhile waits for that, some microseconds.
    """
    try:
        fcntl.fcntl(fd, _SETSIG, signal.SIGURG)  # is ignored; SIGIO would end the process
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _flagged(flag: str, status: os.stat_result) -> bool:
    """Tell whether there is a flag file that is not older than what it speaks of."""
    try:
        return os.lstat(flag).st_mtime_ns >= status.st_mtime_ns
    except FileNotFoundError:
        return False


def header(path: str) -> Header | None:
    """Return a file's first header; None where it is no FITS file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return next(fits_headers.headers(partial(os.pread, fd), os.fstat(fd).st_size), None)
    except Invalid:
        return None
    finally:
        os.close(fd)

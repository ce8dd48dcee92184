"""Errors, named by what to do next.

    LpxferError              exit status 1
    +-- UsageError           2   the command line asks for something impossible: correct it
    |   +-- ConfigError      2   the configuration does: correct the file
    +-- PermanentError       1   this file, job or arrival cannot be done as it is
    |   +-- FormatError      1   text from a disk or a network is not what its page says
    +-- TemporaryError       75  nothing is wrong with the request: try again later
        +-- BusyError        75  somebody else holds the lock
        +-- ChangedError     75  the source is not what it was: it is being written
        +-- AttemptError     75  this attempt at one job failed; the job's own count goes up
        +-- LinkError        75  the link or the far end failed; the queue waits, no job is blamed
            +-- LostError    75  one connection broke or fell silent: a new one may work

Every message says what happened and, where there is a choice, what to do.
"""


class LpxferError(Exception):
    """Something lpxfer refused or could not do."""

    exit_status = 1


class UsageError(LpxferError):
    """The command line asks for something impossible."""

    exit_status = 2


class ConfigError(UsageError):
    """The configuration file is wrong; the message begins with file and line."""


class PermanentError(LpxferError):
    """Trying again would not help."""


class FormatError(PermanentError):
    """A control file, record, receipt or log line does not follow its format."""


class TemporaryError(LpxferError):
    """Trying again later may help."""

    exit_status = 75


class BusyError(TemporaryError):
    """Another process holds the lock."""


class ChangedError(TemporaryError):
    """A file to submit changed while it was read, or since it was looked at."""


class AttemptError(TemporaryError):
    """One attempt at one job ended early: a stall, its time limit, a refused write."""


class LinkError(TemporaryError):
    """The link or the far end does not work; it concerns every job of the queue alike."""


class LostError(LinkError):
    """A connection that worked broke or fell silent; whether others do, a new one shows."""

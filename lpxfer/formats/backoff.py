"""When to try again after a failure. Pure: counts in, seconds out.

A queue whose link fails probes soon and often, because nobody is to blame and a night's
data wait behind it. A job that fails by itself waits longer each time, because others can
go before it.
"""

from datetime import datetime, timedelta

QUEUE_FIRST, QUEUE_MOST = 5.0, 300.0  # seconds between probes of a link that is down
JOB_FIRST, JOB_MOST = 60.0, 3600.0  # seconds before a job that stalled goes again
SPREAD = 0.1  # of such a delay, at most, is added to it
WISH_MOST = 86400.0  # seconds: a time of day that somebody wished is not further off


def queue_delay(failures: int) -> float:
    """Return the seconds to the next probe after `failures` + 1 failures in a row."""
    return min(QUEUE_FIRST * 2.0 ** min(failures, 10), QUEUE_MOST)


def job_not_before(now: datetime, stalls: int, random: float) -> datetime:
    """Return when a job may go again after `stalls` + 1 attempts without progress.

    `random` (0 to 1) spreads jobs that failed together over a tenth of the delay.
    """
    delay = min(JOB_FIRST * 2.0 ** min(stalls, 10), JOB_MOST)
    return now + timedelta(seconds=delay * (1 + SPREAD * random))


def still_to_wait(until: datetime | None, stalls: int, now: datetime) -> datetime | None:
    """Return until when a job waits, None when it need not.

    `until` is what its routing says. What is further off than anything that is ever set comes
    from a clock that was wrong and has been put right: it counts for nothing.
    """
    most = JOB_MOST * (1 + SPREAD) if stalls else WISH_MOST
    return None if until is None or until - now > timedelta(seconds=most) else until


class LinkState:
    """Whether a queue's link works, and when to try it next. Pure: monotonic seconds in.

    A link that is down is tried again after `queue_delay`. Between two tries a silent far
    end is asked for its greeting, which costs it nothing; when it answers again it is tried
    at once. One that greets and does not let us work gains nothing by greeting.
    """

    GREET = 5.0  # seconds between looks whether a silent far end is back

    def __init__(self) -> None:
        """Start with a link that nothing is known against."""
        self.reason = ""  # what went wrong; empty once it works
        self._failures = 0
        self._retry_at = self._greet_at = 0.0
        self._answered: bool | None = None  # what the last greeting showed

    @property
    def down(self) -> bool:
        """Tell whether the last try failed."""
        return self._failures > 0

    def failed(self, now: float, reason: str) -> None:
        """Take note of a failure.

        Connections that fail together are one failure: those that come before the next try
        is due are not counted.
        """
        if self.may_try(now):
            self._retry_at = now + queue_delay(self._failures)
            self._failures += 1
        self.reason = reason

    def moves(self) -> None:
        """Take note that bytes are taken: others may try, too. It is not repaired for that."""
        self._failures, self._retry_at, self._answered = 0, 0.0, None

    def works(self) -> bool:
        """Take note of a success; tell whether there was something wrong before."""
        self.moves()
        was_wrong, self.reason = bool(self.reason), ""
        return was_wrong

    def may_try(self, now: float) -> bool:
        """Tell whether the link works or its next try is due."""
        return now >= self._retry_at

    def may_greet(self, now: float) -> bool:
        """Tell whether the far end is to be asked for its greeting; then not again soon."""
        due = self.down and now >= self._greet_at
        if due:
            self._greet_at = now + self.GREET
        return due

    def greeted(self, answers: bool) -> None:
        """Take note of what a greeting showed."""
        if answers and self._answered is False:
            self._retry_at = 0.0
        self._answered = answers

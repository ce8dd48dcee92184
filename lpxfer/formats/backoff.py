"""When to try again after a failure. Pure: counts in, seconds out.

A queue whose link fails probes soon and often, because nobody is to blame and a night's
data wait behind it. A job that fails by itself waits longer each time, because others can
go before it.
"""

from datetime import datetime, timedelta

QUEUE_FIRST, QUEUE_MOST = 5.0, 300.0  # seconds between probes of a link that is down
JOB_FIRST, JOB_MOST = 60.0, 3600.0  # seconds before a job that stalled goes again


def queue_delay(failures: int) -> float:
    """Return the seconds to the next probe after `failures` + 1 failures in a row."""
    return min(QUEUE_FIRST * 2.0 ** min(failures, 10), QUEUE_MOST)


def job_not_before(now: datetime, stalls: int, random: float) -> datetime:
    """Return when a job may go again after `stalls` + 1 attempts without progress.

    `random` (0 to 1) spreads jobs that failed together over a tenth of the delay.
    """
    delay = min(JOB_FIRST * 2.0 ** min(stalls, 10), JOB_MOST)
    return now + timedelta(seconds=delay * (1 + 0.1 * random))

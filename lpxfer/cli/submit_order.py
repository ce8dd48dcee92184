"""What a command line of xfer-submit and the queue's settings ask for, as one order."""

import os
from collections.abc import Sequence
from datetime import datetime

from lpxfer.cli import setup
from lpxfer.errors import FormatError, PermanentError, UsageError
from lpxfer.formats import dates, options
from lpxfer.formats.config import Config
from lpxfer.formats.job import DEFAULT_PRIORITY, Routing
from lpxfer.formats.options import Options
from lpxfer.steps.submit import Order
from lpxfer.stores.job_dir import account


def order(
    config: Config,
    queue: str,
    pairs: Sequence[str],
    priority: int | None,
    when: str | None,
    link: bool,
    now: datetime,
) -> Order:
    """Make the order of -o, -q, -H and --link. Raises UsageError, PermanentError."""
    return of_options(config, queue, options.parse(pairs), priority, when, link, now)


def of_options(
    config: Config,
    queue: str,
    asked: Options,
    priority: int | None,
    when: str | None,
    link: bool,
    now: datetime,
) -> Order:
    """Make the order of options that are read already; else as `order`."""
    settings = config.find_queue(queue)
    if link and not settings.link:
        raise UsageError(f"--link is not allowed on queue {queue}: its `link` is not yes")
    hold, not_before = _when(when, now)
    routing = Routing(
        remhost=asked.routing.get("remhost"),
        rempath=asked.routing.get("rempath"),
        remuser=asked.routing.get("remuser"),
        rempw=_password_file(asked.routing.get("rempw")),
        priority=priority or DEFAULT_PRIORITY,
        not_before=not_before,
        reason="held at submit" if hold else None,
    )
    return Order(
        host=setup.host_name(config),
        user=account(os.geteuid()),
        inst=asked.inst or settings.inst,
        maxftp=asked.maxftp or settings.maxftp,
        dir=asked.dir,
        priority=priority,
        others=asked.others,
        routing=routing,
        hold=hold,
        link=link,
        reserve=config.reserve,
    )


def _when(when: str | None, now: datetime) -> tuple[bool, datetime | None]:
    """Read -H: whether to hold, and the time before which nothing is sent."""
    if when in (None, "immediate", "hold"):
        return when == "hold", None
    try:
        return False, dates.next_clock(str(when), now)
    except FormatError as error:
        raise UsageError(f"-H takes hold, immediate or HH:MM (UTC): {error}") from error


def _password_file(rempw: str | None) -> str | None:
    """Return rempw as the sender can use it; a file that others can read is refused."""
    if rempw is None:
        return None
    path = rempw.removeprefix("file:")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise PermanentError(f'unable to access "{path}" - {error.strerror}') from error
    if mode & 0o077:
        raise PermanentError(f'"{path}" can be read by others: chmod 600 it')
    return f"file:{os.path.abspath(path)}"

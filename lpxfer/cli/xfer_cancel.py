"""xfer-cancel: withdraw jobs, as cancel does for a printer."""

import pwd

import click

from lpxfer.cli import change, setup
from lpxfer.errors import PermanentError, UsageError
from lpxfer.formats.keyvalue import printable
from lpxfer.steps.cancel import cancel, selected


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@click.option("-a", "every", is_flag=False, flag_value="", metavar="[QUEUE]",
              help="All jobs, or all of one queue.")  # fmt: skip
@click.option("-u", "user", metavar="USER", help="The jobs of this user.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@setup.common
def main(conf: str | None, every: str | None, user: str | None, ids: tuple[str, ...]) -> None:
    """Withdraw jobs that are not sent yet, and remove their data from the spool."""
    if bool(ids) == (every is not None or user is not None):
        raise UsageError("give request ids, or -a, or -u USER")
    uid = _uid(user) if user else None
    place = change.open_place(conf)
    if not ids:
        queues = [every] if every else place.spool.names(place.config.queues)
        found = (selected(place.queue(name), uid=uid) for name in queues)
        ids = tuple(job_id for jobs in found for job_id, _ in jobs)
    reason = f"canceled by {place.caller}"
    place.each_job(ids, lambda queue, job_id: cancel(queue, job_id, reason, place.now))


def _uid(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        if user.isascii() and user.isdigit():
            return int(user)
        raise PermanentError(f'there is no user "{printable(user)}"') from None

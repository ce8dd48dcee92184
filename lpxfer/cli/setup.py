"""What every command shares: the configuration, errors as exit statuses, JSON, tables.

Commands read the configuration and the environment here, once; the floors below take
values. Only the functions that need a heavy import make it.
"""

import contextlib
import errno
import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

from lpxfer import __version__
from lpxfer.errors import ConfigError, FormatError, LpxferError
from lpxfer.formats import config, names
from lpxfer.formats.config import Config
from lpxfer.formats.keyvalue import printable

SYSTEM_SPOOL = Path("/var/spool/lpxfer")
SYSTEM_CONF = Path("/etc/lpxfer/lpxfer.conf")

#: Only --help: -h belongs to xfer-logsum, and + to lpsweeper's switches.
SETTINGS = {"help_option_names": ["--help"], "max_content_width": 88}


class Command(click.Command):
    """A command whose complaints about its command line cannot act on the terminal either."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line; in what click says of it, nothing acts on the terminal."""
        try:
            return super().make_context(*args, **kwargs)
        except click.ClickException as error:
            error.message = printable(error.message)  # type: ignore[misc]
            raise


class Group(Command, click.Group):
    """A command of commands, as above."""

    command_class = Command


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --config and --version, and turn lpxfer's errors into exit statuses."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):  # a name, or `…`, in an old locale
            sys.stdout.reconfigure(errors="backslashreplace")
        with reported():
            return function(*args, **kwargs)

    version = click.version_option(__version__, message="%(prog)s %(version)s")
    option = click.option(
        "--config",
        "conf",
        metavar="FILE",
        help="Read this configuration instead of $XFER_CONF and the usual places.",
    )
    return option(version(run))


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Report an error of a block in lp's shape, and exit with its status."""
    try:
        yield
    except LpxferError as error:
        fail(str(error), error.exit_status)
    except BrokenPipeError:
        raise  # whoever read our output has enough; click ends quietly
    except OSError as error:
        name = os.fsdecode(error.filename) if error.filename else ""
        said = error.strerror or str(error)
        fail(f'unable to access "{name}" - {said}' if name else said, status_of(error))


def status_of(error: OSError) -> int:
    """Return the exit status for what a disk refused: 75 when there may be room later."""
    return 75 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1


def complain(message: str) -> None:
    """Print an error in lp's shape, `xfer-submit: Error - ...`, and go on.

    What came from files or users cannot act on the terminal.
    """
    prog = click.get_current_context().find_root().info_name
    click.echo(f"{prog}: Error - {printable(message)}", err=True)


def fail(message: str, status: int) -> NoReturn:
    """Print an error in lp's shape and exit."""
    complain(message)
    sys.exit(status)


def load_config(argument: str | None) -> Config:
    """Find and read the configuration; without any file every setting has its default.

    The first found is the only one: the argument, $XFER_CONF,
    ~/.config/lpxfer/lpxfer.conf, /etc/lpxfer/lpxfer.conf. Raises ConfigError.
    """
    named = argument or os.environ.get("XFER_CONF")
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    candidates = [Path(home) / "lpxfer" / "lpxfer.conf", SYSTEM_CONF]
    for path in [Path(named)] if named else candidates:
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            continue  # a daemon's home may be /dev/null
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: cannot be read: it is not UTF-8") from error
        return config.override(config.parse(text, str(path)), os.environ)
    if named:
        raise ConfigError(f"{named}: no such configuration file")
    return config.override(Config(), os.environ)


def spool_path(conf: Config) -> Path:
    """Return the spool: as configured, else the system's where it exists, else the user's.

    A system spool that exists is used or it is an error; falling back in silence would
    hide jobs from the sender that serves it.
    """
    if conf.spool:
        return Path(conf.spool)
    if os.path.lexists(SYSTEM_SPOOL):
        return SYSTEM_SPOOL
    return state_path() / "spool"


def state_path() -> Path:
    """Return where this account's own state is kept."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "lpxfer"


def receipts_path(conf: Config, source: str = "") -> str:
    """Return where receipts go: as configured, else beside incoming.

    With another input directory and no word of incoming in the configuration, beside that one.
    """
    incoming = source if source and conf.incoming == Config().incoming else conf.incoming
    return conf.receipts or os.path.join(os.path.dirname(os.path.realpath(incoming)), "receipts")


def host_name(conf: Config) -> str:
    """Return the name of this host in uids and in the receipts' directory."""
    first_label = os.uname().nodename.split(".")[0][:63]
    try:
        return conf.host or names.check_host(re.sub("[^A-Za-z0-9-]", "-", first_label))
    except FormatError as error:
        raise ConfigError(f"{error}; set host in lpxfer.conf or XFER_HOST") from error


def print_json(**rows: Any) -> None:
    """Print one JSON object with `"version": 1`."""
    import json  # 2 ms that only this pays

    click.echo(json.dumps({"version": 1, **rows}, indent=2))


def print_table(rows: Sequence[Sequence[object]], headers: Sequence[str] = ()) -> None:
    """Print rows in columns, without rulers, as lpstat does."""
    from tabulate import tabulate  # 40 ms that only tables pay

    if rows:
        click.echo(tabulate(rows, headers, tablefmt="plain", disable_numparse=True))


def local_time(time: datetime, utc: bool) -> str:
    """Write a time for people: local, or UTC with --utc."""
    shown = time.astimezone(UTC if utc else None)
    return f"{shown:%Y-%m-%d %H:%M:%S %Z}"

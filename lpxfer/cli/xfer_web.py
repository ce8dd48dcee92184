"""xfer-web: the same operations over HTTP, on this machine, for who has a token."""

import socket
from functools import partial

import click

from lpxfer import secret
from lpxfer.cli import service, setup
from lpxfer.cli.web_site import Site
from lpxfer.cli.web_sweeps import Sweeps
from lpxfer.errors import ConfigError, FormatError, PermanentError
from lpxfer.formats import tokens
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.tokens import Token


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@setup.common
def main(conf: str | None) -> None:
    """Submit, list and cancel jobs, and start sweeps, for programs that speak HTTP."""
    try:
        from lpxfer.cli import web_app, web_metrics, web_server
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"{error.name} is not installed here: pip install 'lpxfer[web]'"
        ) from error
    config = setup.load_config(conf)
    known = _tokens(config.web.tokens)
    sweeps = Sweeps(config, conf, _say)
    metrics = web_metrics.Metrics(config)
    app = web_app.make(Site(config), known, sweeps.arrived, metrics.text, _say)
    with _listen(config.web.listen) as listener:
        where = "{}:{}".format(*listener.getsockname()[:2])
        ready = partial(_say, f"listening on {where}")
        service.serve([partial(web_server.serve, app, listener, ready)])


def _tokens(key: str) -> list[Token]:
    """Read the file of tokens. Raises ConfigError without one, PermanentError for a bad one."""
    if not key:
        raise ConfigError("nobody could ask: set tokens = file:PATH in [web]; see xfer-web(5)")
    path = key.removeprefix("file:")
    try:
        return tokens.parse(secret.read(path, "token"))
    except FormatError as error:
        raise ConfigError(f"{path}: {error}") from error


def _listen(address: str) -> socket.socket:
    """Take an address and port. Raises PermanentError."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, kind, proto, _, where = found[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(1024)  # what connects at once waits here for its turn
    except OSError as error:
        raise PermanentError(f"cannot listen on {address}: {error.strerror}") from error
    return listener


def _say(line: str) -> None:
    click.echo(f"xfer-web: {printable(line)}", err=True)

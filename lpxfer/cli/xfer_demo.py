"""xfer-demo: both ends of a transfer in one directory, and real files the whole way."""

import os
import shutil
import signal
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NoReturn

import click

from lpxfer.cli import by_hand, setup
from lpxfer.errors import BusyError, PermanentError, UsageError
from lpxfer.formats import options
from lpxfer.formats.keyvalue import printable
from lpxfer.steps import demo, serve
from lpxfer.stores import site as sites
from lpxfer.stores.job_dir import account
from lpxfer.stores.site import Site

SBIN = ":/usr/sbin:/usr/local/sbin:/sbin"  # where sshd is, off the PATH of most people
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LATER = 75  # xfer-send --once: jobs are left, here because their receipt is to come


@click.command(cls=setup.Command, context_settings=setup.SETTINGS)
@click.option("--serve", "serve_only", is_flag=True, help="Only start the server of DIR again.")
@click.option("-o", "pairs", metavar="K=V[,K=V]", multiple=True, help="Options for xfer-submit.")
@click.argument("directory", metavar="[DIR]", default="demo")
@click.argument("files", metavar="[FILE]...", nargs=-1)
@setup.common
def main(
    conf: str | None,
    serve_only: bool,
    pairs: tuple[str, ...],
    directory: str,
    files: tuple[str, ...],
) -> None:
    """Build both sites of a transfer in DIR (default: demo) and take FILEs the whole way.

    Without FILE it writes three FITS frames and takes those. With --serve it starts the
    server of a DIR again, in the foreground, so that every command works by hand.
    """
    if conf:
        raise UsageError("--config has no use here: xfer-demo writes DIR/lpxfer.conf itself")
    asked = options.parse(pairs)
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, lambda number, _: _end(0 if serve_only else 128 + number))
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + SBIN)
    sshd = os.path.abspath(found) if found else ""
    if serve_only:
        if files or pairs:
            raise UsageError("--serve takes one DIR, and neither options nor files")
        _serve(directory, sshd)
    pairs = pairs if asked.inst else ("inst=demo", *pairs)
    with serve.running(directory, account(os.geteuid()), sshd, _say) as site:
        _take(site, asked.inst or "demo", pairs, files)


def _end(status: int) -> NoReturn:
    """Unwind, so that all that was started is stopped; a second signal changes nothing."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def _serve(directory: str, sshd: str) -> NoReturn:
    site = sites.find(directory)
    if site is None:
        raise PermanentError(f"no site in {printable(directory)} yet: make one with xfer-demo")
    try:
        listener = serve.listen(site.port())
    except BusyError as error:
        raise BusyError(
            f"{error}, or by this site's own server; stop that, or let "
            f"`{by_hand.line(None, 'xfer-demo', str(site.root))}` choose another port"
        ) from error
    with listener, serve.served(site, listener, sshd, _say) as program:
        where = f"{sites.LOOPBACK}:{site.port()}"
        click.echo(f"serving {site.root} on {where} with {program}; Ctrl-C ends it")
        while True:
            signal.pause()


def _take(site: Site, inst: str, pairs: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Take files the whole way with the real commands, and compare what arrived."""
    start = datetime.now(UTC)
    directory = site.add_instrument(inst)
    sources = list(files) or demo.write_frames(site.root / "files", inst, start)
    asked = [word for pair in pairs for word in ("-o", pair)]
    dashes = ["--"] if any(source.startswith("-") for source in sources) else []
    _say("the telescope site: files go into the spool")
    run = partial(by_hand.run, site.conf)
    printed = run("xfer-submit", *asked, *dashes, *sources)
    run("xfer-stat")
    _say(f"they are sent; exit status {LATER} says that their receipts are still to come")
    run("xfer-send", "--once", good=(0, LATER))
    _say("the archive site: they are checked and placed, and receipts are written")
    run("xfer-sweep", "-i", inst)
    _say("the telescope site: with its receipt a job is completed and leaves the spool")
    run("xfer-send", "--once", good=(0, LATER))
    run("xfer-stat", "-W", "all")
    run("xfer-logsum", "-i", inst)
    jobs = dict(zip(demo.request_ids(printed), sources, strict=True))
    stored = demo.compare(Path(site.config().spool), directory, jobs, start)
    _say("in the archive, byte-identical, with the source's time to the nanosecond:")
    for file in stored:
        click.echo(f"  {printable(str(file.placed))}")
        click.echo(f"    = {printable(file.source)} ({file.size} bytes, {file.checksum})")
    _say("the site is yours. Start its server in another terminal:")
    click.echo(f"  {by_hand.line(None, 'xfer-demo', '--serve', str(site.root))}")
    _say("and go on by hand, for example:")
    for words in [
        ("xfer-submit", "-o", f"inst={inst},dir=by-hand", os.path.abspath(sources[0])),
        ("xfer-send", "--once"),
        ("xfer-sweep", "-i", inst),
        ("xfer-send", "--once"),
        ("xfer-stat", "-W", "all"),
    ]:
        click.echo(f"  {by_hand.line(site.conf, *words)}")
    if astray := sorted(name for name in by_hand.overrides() if name != "XFER_CONF"):
        _say(f"but first: unset {' '.join(astray)}; it goes before what lpxfer.conf says")


def _say(message: str) -> None:
    click.echo(f"# {printable(message)}")

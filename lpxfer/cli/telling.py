"""Who is told of what a sweep places, as the configuration says, and when it is done."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import click

from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.keyvalue import printable
from lpxfer.stores.instrument_dir import InstrumentDir

PATIENCE = 5.0  # seconds that a stop waits for who is just telling


@contextlib.contextmanager
def told(
    instrument: InstrumentConfig,
    opened: Callable[[], InstrumentDir],
    follow: bool,
) -> Iterator[Callable[[], object]]:
    """Tell of what is placed in a block: at its end, or meanwhile with `follow`.

    The block is given a function to call when there is something new.
    """
    if not instrument.tell:
        yield lambda: None
        return
    teller = _teller(instrument, opened)
    teller.begin()
    if not follow:
        yield lambda: None
        teller.once()
        return
    news, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=teller.serve, args=(news, ended.is_set), daemon=True)
    thread.start()
    try:
        yield news.set
    finally:
        ended.set()
        news.set()
        thread.join(PATIENCE)


def _teller(instrument: InstrumentConfig, opened: Callable[[], InstrumentDir]) -> Any:
    from lpxfer.steps.tell import Teller  # which only those pay who tell
    from lpxfer.stores.tellings import Tellings
    from lpxfer.transports.receiver import receiver

    @contextlib.contextmanager
    def log() -> Iterator[Tellings]:
        with opened() as home:
            yield Tellings(home)

    prog = click.get_current_context().find_root().info_name
    return Teller(
        log,
        receiver(instrument.tell, instrument.tell_secret),
        lambda: datetime.now(UTC),
        lambda words: click.echo(f"{prog}: Error - {printable(words)}", err=True),
    )

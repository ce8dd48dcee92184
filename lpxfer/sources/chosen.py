"""Which sources an instrument has, by its section of lpxfer.conf."""

from collections.abc import Callable

from lpxfer.formats import watching
from lpxfer.formats.config import InstrumentConfig
from lpxfer.sources.directories import Directories
from lpxfer.sources.monitor import Monitor
from lpxfer.sources.source import Source


def of(instrument: InstrumentConfig, say: Callable[[str], None]) -> list[Source]:
    """Return the sources of an instrument, not started yet; its directories always are one.

    Raises PermanentError where what a source needs is not installed.
    """
    found: list[Source] = [Directories(watching.directories(instrument.watch), say)]
    if instrument.monitor:
        found.append(Monitor(watching.words(instrument.monitor), instrument.frame, say))
    if instrument.pv:
        from lpxfer.sources.epics import ProcessVariable

        found.append(ProcessVariable(instrument.pv, instrument.frame, say))
    return found

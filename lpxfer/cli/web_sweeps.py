"""What an arrival that xfer-web is told of sets going: a sweep at once.

A following sweep is woken by a new time of incoming, which it watches anyhow: so there is
nothing that could be blocked. Or a sweep is started, as a process of its own; many calls while
it runs make one more, for it may have passed the new arrival already.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import lpxfer
from lpxfer.errors import BusyError
from lpxfer.formats.config import Config
from lpxfer.formats.keyvalue import printable
from lpxfer.stores.instrument_dir import InstrumentDir

_CODE = "from lpxfer.cli.xfer_sweep import main; main(prog_name='xfer-sweep')"

BUSY = 600.0  # seconds that another sweep is waited for; then it is left to the next
AGAIN = 0.2  # seconds between two sweeps of an instrument


class Sweeps:
    """The sweeps of this machine's instruments."""

    def __init__(self, config: Config, conf: str | None, say: Callable[[str], None]) -> None:
        """Know the configuration, and the argument of --config that it came from."""
        self._config, self._say = config, say
        self._words = ["--config", os.path.abspath(conf)] if conf else []
        self._lock = threading.Lock()
        self._asked: dict[str, bool] = {}  # of what is swept now: whether it was asked for again
        self._unwoken = ""  # why nobody was woken, as it was said

    def arrived(self, instruments: list[str]) -> list[str]:
        """Have instruments swept soon; return those that are swept from here."""
        self._wake()
        if not self._config.web.sweep:
            return []
        found = (self._config.find_instrument(name) for name in instruments)
        chosen = sorted({instrument.name for instrument in found if instrument.dir})
        for name in chosen:
            with self._lock:
                begun = name in self._asked
                self._asked[name] = begun
            if not begun:
                threading.Thread(target=self._sweep, args=[name], daemon=True).start()
        return chosen

    def _wake(self) -> None:
        """Give incoming the time of now."""
        reason = ""
        try:
            os.utime(self._config.incoming)
        except OSError as error:
            reason = f"incoming cannot be touched, so that no sweep is woken: {error.strerror}"
        if reason and reason != self._unwoken:
            self._say(reason)
        self._unwoken = reason

    def _sweep(self, name: str) -> None:
        """Sweep an instrument until nobody has asked for it meanwhile."""
        again = True
        while again:
            try:
                self._run(name)
            except OSError as error:
                self._say(f"{name} cannot be swept: {error.strerror}")
            threading.Event().wait(AGAIN)
            with self._lock:
                again = self._asked[name]
                self._asked[name] = False
                if not again:
                    del self._asked[name]

    def _run(self, name: str) -> None:
        """Sweep an instrument; not before another sweep has ended, which may have passed it."""
        with contextlib.suppress(BusyError):
            with InstrumentDir(self._config.find_instrument(name).dir) as home:
                home.wait(BUSY)
        command = [sys.executable, "-P", "-c", _CODE, "-i", name, *self._words]
        environ = os.environ | {"PYTHONPATH": str(Path(lpxfer.__file__).parents[1])}
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        for line in (done.stdout + done.stderr).splitlines():
            self._say(printable(line))

"""EPICS process variables: one that has the name of the latest frame, or its number.

By pyepics, lpxfer[epics]. Where to find the server is said by EPICS's own variables in the
environment, EPICS_CA_ADDR_LIST and the like. A server that comes back may have written frames
that nobody told of, so everything is looked at then.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

from lpxfer.errors import PermanentError
from lpxfer.formats import watching
from lpxfer.sources.source import Hint

PATIENCE = 10.0  # seconds after which a person should know that a variable does not answer

#: Channel Access has one context in a process, and its library one lock less than it needs.
_LOCK = threading.Lock()


class ProcessVariable:
    """One process variable; each of its values names a frame."""

    def __init__(self, name: str, frame: str, say: Callable[[str], None]) -> None:
        """Know the variable and how a frame's name is made. Raises PermanentError."""
        try:
            import epics  # numpy, and 200 ms
        except ImportError as error:
            raise PermanentError(
                f"pv = {name} needs pyepics: pip install 'lpxfer[epics]'"
            ) from error
        self._epics: Any = epics
        self._name, self._frame, self._say = name, frame, say
        self._pv: Any = None
        self._gone = False

    def start(self, hint: Hint) -> None:
        """Ask for the variable; that its server is not there yet does not matter."""
        self._hint = hint
        with _LOCK:
            ca = self._epics.ca
            if ca.current_context() is None:
                ca.use_initial_context()
            self._pv = self._epics.PV(
                self._name,
                callback=self._changed,
                connection_callback=self._connected,
                auto_monitor=True,
                form="native",
            )
        self._timer = threading.Timer(PATIENCE, self._missed)
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        """Ask no more."""
        if self._pv is not None:
            self._timer.cancel()
            with _LOCK:
                self._pv.disconnect()
            self._pv = None

    def _connected(self, conn: bool, **_: object) -> None:
        if conn:
            if self._gone:
                self._say(f"{self._name} is there again")
            self._hint(None)
        elif not self._gone:
            self._say(f"{self._name} has gone; files are found without it, if later")
        self._gone = not conn

    def _changed(self, value: Any = None, **_: object) -> None:
        """Take a value, in a thread of Channel Access."""
        if not isinstance(value, str | int | float):
            value = _text(value)
        if name := watching.name_of(self._frame, value):
            self._hint(name)

    def _missed(self) -> None:
        if self._pv is not None and not self._pv.connected:
            self._say(f"{self._name} does not answer; files are found without it, if later")
            self._gone = True


def _text(value: Any) -> str:
    """Return an array of characters as the string that it is: to the first NUL; else ""."""
    try:
        view = memoryview(value)
    except TypeError:  # None, before there is a value
        return ""
    return os.fsdecode(view.tobytes().partition(b"\0")[0]) if view.itemsize == 1 else ""

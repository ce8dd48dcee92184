"""What a command prints: a client of a keyword service, as Keck's, tells of each new frame.

Such a client monitors a keyword and prints a line whenever it changes: `lastfile = /data/x.fits`,
or the value alone. What it prints says where to look, no more.
"""

import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import IO

from lpxfer.formats import backoff, watching
from lpxfer.formats.shell import command as shown
from lpxfer.sources.source import Hint

LINE_LIMIT = 8192  # bytes; of what is longer the rest is another line, and no frame
PATIENCE = 2.0  # seconds that a command has for ending by itself


class Monitor:
    """Runs a command, and again when it ends; each line of it names a frame."""

    def __init__(self, command: Sequence[str], frame: str, say: Callable[[str], None]) -> None:
        """Know the command's words and how a frame's name is made; nothing runs yet."""
        self._command, self._frame, self._say = command, frame, say
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def start(self, hint: Hint) -> None:
        """Run the command from now on."""
        self._thread = threading.Thread(target=self._run, args=(hint,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the command."""
        self._stop.set()
        with self._lock:
            if self._process:
                self._process.terminate()
        if self._thread:
            self._thread.join(PATIENCE)
            if self._thread.is_alive() and self._process:
                self._process.kill()
                self._thread.join(PATIENCE)

    def _run(self, hint: Hint) -> None:
        failures, told = 0, ""
        while not self._stop.is_set():
            lines, why = self._listen(hint)
            if self._stop.is_set():
                return
            failures = 0 if lines else failures + 1
            if why != told:
                self._say(f"{shown(self._command)}: {why}; it is started again when it ends")
            told = why
            self._stop.wait(backoff.queue_delay(failures))

    def _listen(self, hint: Hint) -> tuple[int, str]:
        """Run the command to its end; return the number of its lines, and how it ended."""
        try:
            with self._lock:
                if self._stop.is_set():
                    return 0, ""
                self._process = process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
                )
        except OSError as error:
            return 0, f"it cannot be run: {error.strerror}"
        hint(None)  # for what was written while nothing ran
        with process:
            assert process.stdout
            lines = self._read(process.stdout, hint)
        return lines, f"it ended with status {process.returncode}"

    def _read(self, stream: IO[bytes], hint: Hint) -> int:
        number = 0
        while line := stream.readline(LINE_LIMIT):
            number += 1
            if name := watching.name_of(self._frame, value_of(line.decode("utf-8", "replace"))):
                hint(name)
        return number


def value_of(line: str) -> str:
    """Return the value in a line: what is behind `=`, if there is one, without quotes."""
    return line.rpartition(" = ")[2].strip().strip("'\"")

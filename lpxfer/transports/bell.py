"""Ring at the archive site when arrivals are there, so that they are swept at once.

By POST /v1/arrivals, see xfer-web(5). Nothing depends on it: a sweep that was not told comes
by itself. So it happens beside the work, one call at a time; what comes meanwhile is one more
call. A failure is said once, until it works again.
"""

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

from lpxfer import secret
from lpxfer.errors import PermanentError
from lpxfer.formats.keyvalue import printable

PATIENCE = 5.0  # seconds for an answer
PAUSE = 0.25  # seconds between two calls
REST = 30.0  # seconds until the next after one that failed

_PATH = "v1/arrivals"


class Bell:
    """One archive site's bell. Its thread ends with the process."""

    def __init__(self, url: str, token: str, say: Callable[[str], None]) -> None:
        """Know the service, and the file of its token; `say` takes a line for the operator."""
        self._url, self._token, self._say = f"{url.rstrip('/')}/{_PATH}", token, say
        self._waiting: set[str] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def ring(self, inst: str) -> None:
        """Tell, soon, of an arrival of an instrument. Takes no time and never raises."""
        with self._changed:
            self._waiting.add(inst)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        failed, pause = "", threading.Event()
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                instruments, self._waiting = sorted(self._waiting), set()
            before, failed = failed, self._call(instruments)
            if failed and failed != before:
                self._say(
                    printable(f"{self._url}: {failed}; arrivals are swept when they are seen")
                )
            elif before and not failed:
                self._say(f"{self._url}: works again")
            pause.wait(REST if failed else PAUSE)

    def _call(self, instruments: list[str]) -> str:
        """Tell of arrivals; return why not, "" when they are told."""
        for start in range(0, len(instruments), 100):  # as many as it takes at once
            try:
                self._post({"instruments": instruments[start : start + 100]})
            except urllib.error.HTTPError as error:
                with error:
                    return f"{error.code} {error.reason}"
            except urllib.error.URLError as error:
                return str(error.reason)
            except (OSError, http.client.HTTPException, PermanentError, ValueError) as error:
                return str(error) or type(error).__name__
        return ""

    def _post(self, values: object) -> None:
        token = secret.read(self._token, "token").partition(b"\n")[0].strip().decode("ascii")
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        asked = urllib.request.Request(self._url, json.dumps(values).encode(), headers)
        with _OPENER.open(asked, timeout=PATIENCE) as answer:
            answer.read(65536)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token is for this service and for no other."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        """Follow nowhere: then the redirection is the error."""


#: Without the proxies of the environment: a daemon goes where its configuration says.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

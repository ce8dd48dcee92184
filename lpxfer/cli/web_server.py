"""The server of xfer-web: waitress, with its errors in JSON and a limit for slow clients.

A request is read by one thread for all connections, and only a whole one takes a thread of its
own; so a client that never finishes blocks nobody, and after LATE seconds it is told so.
"""

import json
import socket
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask
from waitress.utilities import Error

BODY = 1 << 20  # bytes of a request's body
LATE = 20.0  # seconds that a request may take to come in
IDLE = 30  # seconds that a connection may be silent between two
CONNECTIONS = 512  # at the same time; others wait in the kernel's queue
THREADS = 8
LOOK = 1.0  # seconds from one look at slow connections to the next


class _Late(Error):
    code = 408
    reason = "Request Timeout"


class _ErrorTask(ErrorTask):
    """An error that the application has not seen, in the form of its own."""

    def execute(self) -> None:
        """Answer it, and close the connection."""
        code, reason = self.request.error.code, self.request.error.reason
        answer = {"version": 1, "status": code, "error": reason.lower()}
        body = json.dumps(answer).encode() + b"\n"
        self.status = f"{code} {reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    """A connection that gives up a request which does not come to its end."""

    error_task_class = _ErrorTask
    request: Any
    _begun = 0.0  # when the first byte of the request that is being read came

    def received(self, data: bytes) -> Any:
        """Take note of when a request began."""
        before, more = self.request, super().received(data)
        if self.request is not None and self.request is not before:
            self._begun = time.monotonic()
        return more

    def readable(self) -> Any:
        """Be asked by the server every LOOK seconds; a good time to look."""
        late = time.monotonic() - self._begun > LATE
        if self.request is not None and late and not self.requests:
            with self.requests_lock:
                request, self.request = self.request, None
                request.error, request.completed = _Late("it took too long"), True
                self.requests.append(request)
            self.server.add_task(self)
        return super().readable()


def serve(
    app: Any,
    listener: socket.socket,
    ready: Callable[[], None],
    stop: Event,
    beat: Callable[[], None],
) -> None:
    """Serve an application on a socket until told to stop."""
    sockets: dict[int, Any] = {}
    server = create_server(
        app,
        sockets,
        sockets=[listener],
        threads=THREADS,
        connection_limit=CONNECTIONS,
        channel_timeout=IDLE,
        cleanup_interval=5,
        max_request_body_size=BODY,
        max_request_header_size=1 << 16,
        inbuf_overflow=1 << 16,  # longer bodies wait in a file
        ident="xfer-web",
        clear_untrusted_proxy_headers=True,
    )
    server.channel_class = _Channel
    Thread(target=lambda: stop.wait() and server.pull_trigger(), daemon=True).start()
    ready()
    while not stop.is_set():
        beat()
        wasyncore.loop(LOOK, use_poll=True, map=sockets, count=1)
    server.task_dispatcher.shutdown()

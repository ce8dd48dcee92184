"""A service that is told of placed files, over a real socket, and answers as it is told to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Service:
    """What was heard, and what is answered: the last answer is given again and again."""

    def __init__(self) -> None:
        """Answer 200 to everything."""
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, bytes]] = [(200, b"thank you")]
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/placed?site=archive"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What was told, in order, whatever was answered."""
        return [json.loads(body) for _, body in self.heard]

    @contextmanager
    def listening(self) -> Iterator["Service"]:
        """Listen for a block, at the same port each time."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.heard.append((dict(self.headers), body))
                status, answer = service.answers[0]
                if len(service.answers) > 1:
                    service.answers.pop(0)
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", service.url)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

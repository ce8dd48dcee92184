"""Ringing at the archive site: beside the work, seldom, and never at another's door."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lpxfer.transports import bell as module
from lpxfer.transports.bell import Bell

PATIENCE = 60.0
TOKEN = "0" * 64


class Door:
    """An HTTP server that does as it is told, for what no real one does when it is asked."""

    def __init__(self) -> None:
        self.status, self.location = 202, ""
        self.opened = threading.Event()  # answers are given while it is set
        self.opened.set()
        self.heard: list[list[str]] = []
        self.tokens: list[str | None] = []
        door = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/lpxfer/v1/arrivals"
                door.tokens.append(self.headers["Authorization"])
                door.heard.append(asked["instruments"])
                door.opened.wait(PATIENCE)
                self.send_response(door.status)
                if door.location:
                    self.send_header("Location", door.location)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/lpxfer/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.opened.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def door() -> Iterator[Door]:
    opened = Door()
    yield opened
    opened.close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "REST", 0.0)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")  # which is not asked


def until(true: Callable[[], object], bell: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        bell()
        time.sleep(0.02)


def test_what_arrives_while_a_call_is_under_way_is_one_more_call(door: Door, token: Path) -> None:
    said: list[str] = []
    bell = Bell(door.url, str(token), said.append)
    door.opened.clear()
    bell.ring("first")
    until(lambda: door.heard)
    for number in range(1000):
        bell.ring(f"i{number % 3}")
    assert door.heard == [["first"]]
    door.opened.set()
    until(lambda: len(door.heard) == 2)
    assert door.heard[1] == ["i0", "i1", "i2"] and set(door.tokens) == {f"Bearer {TOKEN}"}
    assert said == []


def test_a_failure_is_said_once_until_it_works_again(door: Door, token: Path) -> None:
    said: list[str] = []
    bell = Bell(door.url, str(token), said.append)
    door.status = 503
    until(lambda: len(door.heard) >= 3, lambda: bell.ring("minicam"))
    door.status = 202
    until(lambda: len(said) == 2, lambda: bell.ring("minicam"))
    door.status = 403
    until(lambda: len(said) == 3, lambda: bell.ring("minicam"))
    url = f"{door.url}v1/arrivals"
    assert said[0].startswith(f"{url}: 503 ") and said[1] == f"{url}: works again"
    assert said[2].startswith(f"{url}: 403 ")


def test_a_silent_or_missing_service_delays_nobody(
    door: Door, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    said: list[str] = []
    bell = Bell(door.url, str(token), said.append)
    door.opened.clear()
    bell.ring("minicam")  # returns at once, though nobody answers
    until(lambda: said)
    assert "timed out" in said[0]
    nowhere = Bell("http://127.0.0.1:1", str(token), said.append)
    nowhere.ring("minicam")
    until(lambda: len(said) == 2)
    assert "Connection refused" in said[1]


def test_the_token_is_given_to_nobody_else(door: Door, token: Path) -> None:
    said: list[str] = []
    other = Door()
    door.status, door.location = 307, other.url + "v1/arrivals"
    Bell(door.url, str(token), said.append).ring("minicam")
    until(lambda: said)
    other.close()
    assert ": 307 " in said[0] and other.heard == []


def test_a_token_that_others_may_read_is_not_used(door: Door, token: Path) -> None:
    token.chmod(0o644)
    said: list[str] = []
    Bell(door.url, str(token), said.append).ring("minicam")
    until(lambda: said)
    assert "chmod 600" in said[0] and TOKEN not in said[0] and door.heard == []

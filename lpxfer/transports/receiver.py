"""Who is told of placed files: a command or an HTTP service, behind one function. See xfer-tell(5).

A receiver returns what was answered, or raises: AttemptError when it does not want this one,
LinkError when it tells nobody anything now. It returns within its limit, whatever the other
side does, or does not. What was answered is untrusted, in errors, too.
"""

import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lpxfer.errors import AttemptError, LinkError
from lpxfer.formats import telling
from lpxfer.transports import secret_file

if TYPE_CHECKING:
    from http.client import HTTPConnection

#: Told a body, its uid and the time; returns the answer.
Receiver = Callable[[bytes, str, str], str]

HTTP_LIMIT = 15.0  # seconds from the first packet to the last of the answer
COMMAND_LIMIT = 60.0  # seconds that a command may take
TEMPORARY = 75  # exit status of a command that does not want to be told anything now

_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
_ANSWER = 4096  # bytes of an answer that are read
_LOOK = 0.05  # seconds between looks whether a silent command has ended

#: What only the one who sent a body can set right; all else may be the service's own trouble.
_REFUSALS = frozenset({400, 409, 413, 422})


def receiver(target: str, secret: str = "") -> Receiver:
    """Return the one for a command or URL that was checked; `secret` is its file, if any."""
    if target.startswith("/"):
        argv = target.split()
        return lambda body, uid, time: run(argv, body)
    return lambda body, uid, time: post(target, secret, body, uid, time)


# --- a command ----------------------------------------------------------------------------


def run(argv: list[str], body: bytes, limit: float = COMMAND_LIMIT) -> str:
    """Run a command, without a shell, that finds the body on its standard input.

    When its time is up, it and all that it has started and left in its group are killed.
    """
    with tempfile.TemporaryFile() as given:
        given.write(body)
        given.seek(0)
        try:
            process = subprocess.Popen(
                argv,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise LinkError(f"cannot run {argv[0]}: {error.strerror}") from error
    try:
        said = _first_line(_output(process, limit))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()
    status = process.returncode
    if status < 0 or status == TEMPORARY:
        ended = f"was killed by signal {-status}" if status < 0 else f"exited with {status}"
        raise LinkError(f"{argv[0]} {ended}: {said}")
    if status:
        raise AttemptError(f"{argv[0]} exited with {status}: {said}")
    return f"{status} {said}".rstrip()


def _output(process: "subprocess.Popen[bytes]", limit: float) -> bytes:
    """Return the beginning of what a command says until it ends, or is ended."""
    assert process.stdout
    fd, said, end, silent = process.stdout.fileno(), b"", time.monotonic() + limit, False
    while os.waitid(os.P_PID, process.pid, _ENDED) is None:  # not reaped: its group is ours
        if time.monotonic() > end:
            raise LinkError(f"no end within {limit:.0f} seconds")
        if silent:
            time.sleep(_LOOK)
        elif select.select([fd], [], [], _LOOK)[0]:
            chunk = os.read(fd, _ANSWER)
            silent, said = not chunk, (said + chunk)[:_ANSWER]
    while len(said) < _ANSWER and select.select([fd], [], [], 0)[0]:
        if not (chunk := os.read(fd, _ANSWER)):
            break
        said += chunk
    return said


# --- a service ----------------------------------------------------------------------------


def post(url: str, secret: str, body: bytes, uid: str, time: str, limit: float = HTTP_LIMIT) -> str:
    """Post a body as JSON, signed where there is a secret. Redirections are not followed."""
    from http.client import HTTPException  # 30 ms that only those pay who are told so

    headers = {
        "Content-Type": "application/json",
        "User-Agent": "lpxfer",
        "Idempotency-Key": uid,
        "X-Lpxfer-Time": time,
        "Connection": "close",
    }
    if secret:
        key = secret_file.read(secret.removeprefix("file:"), "secret")
        headers["X-Lpxfer-Signature"] = telling.signature(key, time, body)
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.netloc, limit)
    late, opened = threading.Event(), list[Any]()
    timer = threading.Timer(limit, _cut, [opened, late])
    timer.daemon = True
    timer.start()
    try:
        connection.connect()
        opened.append(connection.sock)  # the connection forgets it once the answer has begun
        if late.is_set():  # before there was anything to cut
            raise TimeoutError("it took too long to connect")
        connection.request("POST", f"{parts.path or '/'}?{parts.query}".rstrip("?"), body, headers)
        response = connection.getresponse()
        status, said = response.status, _first_line(response.read(_ANSWER))
        if late.is_set():  # what was cut off looks like its end
            raise TimeoutError("it did not end")
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        within = f" within {limit:.0f} seconds" if late.is_set() else ""
        raise LinkError(f"no answer from {parts.netloc}{within}: {words}") from error
    finally:
        timer.cancel()
        connection.close()
    answer = f"{status} {said}".rstrip()
    if 200 <= status < 300:
        return answer
    kind = AttemptError if status in _REFUSALS else LinkError
    raise kind(f"{parts.netloc} answers {answer}")


def _connection(scheme: str, netloc: str, limit: float) -> "HTTPConnection":
    from http.client import HTTPConnection, HTTPSConnection

    kind = HTTPSConnection if scheme == "https" else HTTPConnection
    return kind(netloc, timeout=limit)


def _cut(opened: list[Any], late: threading.Event) -> None:
    """End a connection from outside: one that sends a byte now and then never times out."""
    import socket

    late.set()  # first: what is cut off looks like an end
    for sock in opened:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _first_line(said: bytes) -> str:
    line = said.strip().partition(b"\n")[0][: telling.ANSWER_MOST]
    return line.decode("utf-8", "replace").strip()

"""The routes of xfer-web: who may, what is asked, what is answered; see xfer-web(5).

Guarantees: every answer but that of /metrics is JSON; an error has its status and says in lp's
words what to do. Nothing is done for who has no token for it.
"""

import errno
import json
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException

from lpxfer.cli import web_ask
from lpxfer.cli.web_site import Answer, Refused, Site, Unknown
from lpxfer.errors import FormatError, LpxferError, TemporaryError, UsageError
from lpxfer.formats import names, tokens
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.tokens import Token
from lpxfer.stores.roots import Outside

DESCRIPTION = Path(__file__).with_name("openapi.json")

#: What GET /metrics answers, and its type.
Metrics = Callable[[], tuple[bytes, str]]

_LATER = "5"  # seconds after which it may be asked again

_BUSY = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}

_JOBS = {
    "queue": names.QUEUE.pattern,
    "after": names.REQUEST_ID.pattern,
    "limit": "[1-9][0-9]{0,3}",
}


class Denied(Exception):
    """No token, or one that is not for this."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def make(
    site: Site,
    known: Sequence[Token],
    arrived: Callable[[list[str]], list[str]],
    metrics: Metrics,
    say: Callable[[str], None],
) -> Flask:
    """Make the application.

    `arrived` takes instruments of which there are arrivals and returns those that are swept,
    `say` one line for the operator's log: who had something done, and what went wrong.
    """
    app = Flask("xfer-web", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False

    def caller(operation: str) -> str:
        token = tokens.find(known, request.headers.get("Authorization", ""))
        if token is None:
            raise Denied(401, "give a token: Authorization: Bearer TOKEN")
        if operation not in token.operations:
            raise Denied(403, f'the token of {token.name} is not for "{operation}"')
        return token.name

    @app.get("/v1/openapi.json")
    def describe() -> Response:
        return Response(DESCRIPTION.read_bytes(), content_type="application/json")

    @app.post("/v1/jobs")
    def submit() -> Response:
        who = caller("submit")
        known = {
            "queue": web_ask.is_text, "options": web_ask.is_options,
            "priority": web_ask.is_priority, "when": web_ask.is_text,
        }  # fmt: skip
        files = {"files": web_ask.is_texts(web_ask.FILES_MOST)}
        text = _json(request)
        asked = web_ask.body(text, files, known)
        key = web_ask.key(request.headers.get("Idempotency-Key"))
        answer = site.submit_keyed(f"{who} {key}", text, asked) if key else site.submit(asked)
        for first, last, count in names.runs(job["id"] for job in answer["jobs"]):
            say(f"{who} submitted {first}{f' … {last}' if count > 1 else ''}")
        return _answer(201, answer)

    @app.get("/v1/jobs")
    def jobs() -> Response:
        caller("list")
        return _answer(200, site.jobs(web_ask.parameters(request.args, _JOBS)))

    @app.get("/v1/jobs/<job_id>")
    def job(job_id: str) -> Response:
        caller("list")
        return _answer(200, site.job(_id(job_id)))

    @app.post("/v1/jobs/<job_id>/cancel")
    def cancel(job_id: str) -> Response:
        who = caller("cancel")
        answer = site.cancel(_id(job_id), who)
        say(f"{who} canceled {job_id}")
        return _answer(200, answer)

    @app.post("/v1/arrivals")
    def arrivals() -> Response:
        caller("arrivals")
        asked = web_ask.body(_json(request), {"instruments": web_ask.is_texts(100)}, {})
        named = web_ask.instruments(asked["instruments"])
        return _answer(202, {"instruments": named, "swept": arrived(named)})

    @app.get("/metrics")
    def measured() -> Response:
        caller("metrics")
        text, kind = metrics()
        return Response(text, content_type=kind)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        status = _status(error)
        if status == 500:
            say("unexpected\n" + "".join(traceback.format_exception(error)))
        return _failure(status, error)

    return app


def _json(asked: Request) -> bytes:
    """Return the body of a request that says it is JSON. Raises Denied for another type."""
    if asked.mimetype != "application/json":
        raise Denied(415, "send application/json")
    return asked.get_data(cache=False)


def _id(text: str) -> str:
    if not names.REQUEST_ID.fullmatch(text):
        raise Unknown(f'there is no job "{text}"')
    return text


def _status(error: Exception) -> int:
    """Return the status that says what to do next."""
    if isinstance(error, Refused):
        return _status(error.first)
    if isinstance(error, Denied):
        return error.status
    if isinstance(error, HTTPException):
        return error.code or 500
    if isinstance(error, OSError):
        return 503 if error.errno in _BUSY else 403 if isinstance(error, PermissionError) else 500
    if not isinstance(error, LpxferError):
        return 500
    kinds: list[tuple[type[LpxferError], int]] = [
        (Outside, 403), (Unknown, 404), (UsageError, 422), (FormatError, 422),
        (TemporaryError, 503),
    ]  # fmt: skip
    return next((status for kind, status in kinds if isinstance(error, kind)), 409)


def _failure(status: int, error: Exception) -> Response:
    message = str(error)
    if isinstance(error, HTTPException):
        message = error.name.lower()
    elif status == 500:
        message = "it failed; why is in the log of xfer-web"
    elif isinstance(error, OSError):
        message = f"the spool failed: {error.strerror}"
    answer: Answer = {"status": status, "error": printable(message)}
    if isinstance(error, Refused):
        answer["errors"] = error.errors
    response = _answer(status, answer)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="xfer-web"'
    if status == 503:
        response.headers["Retry-After"] = _LATER
    if isinstance(error, HTTPException) and status == 405:
        response.headers.extend(error.get_headers())
        response.headers["Content-Type"] = "application/json"
    return response


def _answer(status: int, values: Answer) -> Response:
    text = json.dumps({"version": 1, **values})
    return Response(text + "\n", status, content_type="application/json")

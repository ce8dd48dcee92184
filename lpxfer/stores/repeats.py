"""Requests that may be repeated: what each that has a key was answered, for a day.

One file a key, `web/HEX`: which request ids its jobs were to have, before there are any, and then
the answer. So whoever repeats a request, even one in which we died, gets its jobs.

Guarantees: what a call has returned for is synced. One request at a time has a key.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lpxfer import durable
from lpxfer.errors import PermanentError, TemporaryError, UsageError
from lpxfer.stores.claims import Claims

KEPT = 86400.0  # seconds
MOST = 200_000  # keys: two a second, all day
LOOKS = 600.0  # seconds between looks for what is too old

_LARGEST = 1 << 24  # bytes of an answer about as many files as may be asked for


@dataclass
class Request:
    """A request that has a key."""

    body: str  # its checksum
    ids: list[str] = field(default_factory=list)  # of jobs that may have been made for it
    answer: dict[str, Any] | None = None


class Repeats:
    """All of them."""

    def __init__(self, root: Path) -> None:
        """Know where they are; nothing is made before there is a key."""
        self._root = root
        self._looked, self._count = float("-inf"), 0

    @contextlib.contextmanager
    def request(self, key: str, body: bytes) -> Iterator[Request]:
        """Have the request of a key for a block, as far as it had come; see `keep`.

        Raises UsageError when it had another body, PermanentError while it is under way,
        TemporaryError when there are too many.
        """
        name = _name(key)
        with Claims(self._root, "request") as claims:
            if not claims.take(name):
                raise PermanentError("a request with this Idempotency-Key is under way")
            self._forget_old()
            request = Request(hashlib.sha256(body).hexdigest())
            if known := self._read(name):
                if known.body != request.body:
                    raise UsageError("this Idempotency-Key is that of another request")
                request = known
            elif self._count >= MOST:
                raise TemporaryError("there are too many requests with an Idempotency-Key")
            else:
                self._count += 1
            yield request

    def keep(self, key: str, request: Request) -> None:
        """Keep how far a request has come."""
        with durable.opened_dir(self._root) as root:
            durable.replace(_name(key), json.dumps(asdict(request)).encode(), root, 0o600)

    def _read(self, name: str) -> Request | None:
        with durable.opened_dir(self._root) as root, contextlib.suppress(FileNotFoundError):
            if time.time() - os.stat(name, dir_fd=root).st_mtime < KEPT:
                return Request(**json.loads(durable.read_small(name, root, _LARGEST)))
        return None

    def _forget_old(self) -> None:
        """Remove what is too old, now and then; half of a file that was written then, too."""
        if time.monotonic() - self._looked < LOOKS:
            return
        self._looked, self._count = time.monotonic(), 0
        with os.scandir(self._root) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.name.endswith(".claims"):
                        continue
                    if time.time() - entry.stat().st_mtime < KEPT:
                        self._count += 1
                    else:
                        os.unlink(entry.path)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]

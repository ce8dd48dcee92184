"""What requests with a key were answered."""

import os
import time
from pathlib import Path

import pytest

from lpxfer.errors import PermanentError, TemporaryError, UsageError
from lpxfer.stores import repeats
from lpxfer.stores.repeats import Repeats


def kept(repeats: Repeats, key: str) -> None:
    with repeats.request(key, b"body") as request:
        repeats.keep(key, request)


def test_request_is_found_as_far_as_it_had_come(tmp_path: Path) -> None:
    with Repeats(tmp_path).request("k", b"body") as request:
        assert (request.ids, request.answer) == ([], None)
        request.ids = ["archive-1"]
        Repeats(tmp_path).keep("k", request)
    with Repeats(tmp_path).request("k", b"body") as found:
        assert found == request


def test_key_is_of_one_body(tmp_path: Path) -> None:
    kept(Repeats(tmp_path), "k")
    with pytest.raises(UsageError), Repeats(tmp_path).request("k", b"other"):
        pass


def test_one_request_at_a_time_has_a_key(tmp_path: Path) -> None:
    with Repeats(tmp_path).request("k", b"body"), Repeats(tmp_path).request("l", b"body"):
        with pytest.raises(PermanentError), Repeats(tmp_path).request("k", b"body"):
            pass


def test_there_is_a_limit_to_keys_and_those_that_are_known_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "MOST", 3)
    some = Repeats(tmp_path)
    for key in "abc":
        kept(some, key)
    with pytest.raises(TemporaryError):
        kept(some, "d")
    kept(some, "a")


def test_old_keys_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "LOOKS", 0.0)
    some = Repeats(tmp_path)
    for key in "abc":
        kept(some, key)
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - repeats.KEPT - 1,) * 2)
    kept(some, "d")
    assert len([path for path in tmp_path.iterdir() if path.name[0] != "."]) == 1

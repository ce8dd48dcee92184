"""EPICS process variables, of a real IOC."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ioc import Ioc
from sources.conformance import PATIENCE, Conformance, Hints, Scene

from lpxfer.errors import PermanentError
from lpxfer.sources import epics
from lpxfer.sources.epics import ProcessVariable

#: pyepics asks in a thread of its own, and stumbles where a variable goes away at that moment.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def ioc() -> Iterator[Ioc]:
    """One IOC at one port: Channel Access reads the environment once in a process."""
    with Ioc() as ioc:
        os.environ |= ioc.client
        yield ioc


class TestName(Conformance):
    @pytest.fixture
    def scene(self, ioc: Ioc, tmp_path: Path) -> Scene:
        source = ProcessVariable("TEST:NAME", "%s", lambda line: None)
        return Scene(source, tmp_path, lambda name: ioc.put("NAME", name))


class TestCounter(Conformance):
    @pytest.fixture
    def scene(self, ioc: Ioc, tmp_path: Path) -> Scene:
        source = ProcessVariable("TEST:NUMBER", "kb%05d.fits", lambda line: None)
        return Scene(
            source,
            tmp_path,
            lambda name: ioc.put("NUMBER", int(name[2:7])),
            ("kb00001.fits", "kb00002.fits"),
        )


def test_name_may_be_longer_than_a_string_of_epics(ioc: Ioc, tmp_path: Path) -> None:
    hints = Hints(tmp_path)
    source = ProcessVariable("TEST:LONG", "%s", print)
    source.start(hints.queue.put)
    hints.wait_for(None)
    name = "night/" * 20 + "b.fits"
    ioc.put("LONG", name)
    hints.wait_for(name)
    source.close()


def test_server_that_is_killed_and_comes_back(ioc: Ioc, tmp_path: Path) -> None:
    said: list[str] = []
    hints = Hints(tmp_path)
    source = ProcessVariable("TEST:NUMBER", "kb%05d.fits", said.append)
    source.start(hints.queue.put)
    hints.wait_for(None)
    ioc.kill()
    deadline = time.monotonic() + PATIENCE
    while not said:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ioc.start()
    hints.wait_for(None)
    ioc.put("NUMBER", 9)
    hints.wait_for("kb00009.fits")
    source.close()
    assert said == [
        "TEST:NUMBER has gone; files are found without it, if later",
        "TEST:NUMBER is there again",
    ]


def test_variable_that_nobody_has_is_told(ioc: Ioc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epics, "PATIENCE", 0.1)
    said: list[str] = []
    source = ProcessVariable("TEST:MISSPELT", "%s", said.append)
    source.start(lambda hint: None)
    while not said:
        time.sleep(0.05)
    source.close()
    assert said == ["TEST:MISSPELT does not answer; files are found without it, if later"]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "epics", None)
    with pytest.raises(PermanentError, match=r"pip install 'lpxfer\[epics\]'"):
        ProcessVariable("TEST:NAME", "%s", print)

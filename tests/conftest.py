"""Fixtures that more than one part of the tests needs."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from lpxfer.formats.control import Control
from lpxfer.stores.spool import Queue, Spool

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import what they share

import jobs
from sshd import Sshd

# No limit of time for one example: the machine may be busy.
hypothesis.settings.register_profile("lpxfer", deadline=None, database=None)
hypothesis.settings.load_profile("lpxfer")

# What a shell runs in the background ignores Ctrl-C, and behind nohup a hang-up, and so would the
# commands that tests start; what is caught here is not ignored there.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_finish() -> None:
    """Let no collection of garbage look through all tests and all that they have imported."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what only root can do, and say so in the summary."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A running OpenSSH sshd that nobody else uses."""
    with Sshd(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool of one user, with no queue in it yet."""
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


@pytest.fixture
def queue(spool: Spool) -> Queue:
    """The queue `archive` of an empty spool."""
    return spool.queue("archive")


@pytest.fixture
def make_job() -> Callable[..., Control]:
    """Puts a job into a queue as a submit does, without its source file."""
    return jobs.make_job

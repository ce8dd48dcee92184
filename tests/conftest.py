"""Fixtures that more than one part of the tests needs."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import what they share

from sshd import Sshd


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what only root can do, and say so in the summary."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A running OpenSSH sshd that nobody else uses."""
    with Sshd(tmp_path / "sshd") as server:
        yield server

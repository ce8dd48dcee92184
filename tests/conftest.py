"""Fixtures that more than one part of the tests needs."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import what they share

from sshd import Sshd


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A running OpenSSH sshd that nobody else uses."""
    with Sshd(tmp_path / "sshd") as server:
        yield server

"""Files that only their owner may read."""

import os
from pathlib import Path

import pytest

from lpxfer import secret
from lpxfer.errors import PermanentError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "token"
    made.write_bytes(b"secret\n")
    made.chmod(0o600)
    return made


def test_a_file_of_its_owner_is_read(path: Path) -> None:
    assert secret.read(str(path), "token") == b"secret\n"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_one_for_others_is_not(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(PermanentError, match=f"others may read the token file .*chmod 600 {path}"):
        secret.read(str(path), "token")


def test_a_link_a_fifo_and_a_long_file_are_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    path.write_bytes(b"x" * (secret.LIMIT + 1))
    for name in ("link", "fifo", "token", "none"):
        with pytest.raises(PermanentError):
            secret.read(str(tmp_path / name), "token")

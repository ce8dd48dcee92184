"""Files for somebody far away: from beneath the roots, and from nowhere else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lpxfer.checksum import SourceError
from lpxfer.stores import roots
from lpxfer.stores.roots import Outside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a file in it, and a secret beside it."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "data/deep/a.fits").write_bytes(b"inside")
    return tmp_path / "data"


def read(root: Path, path: Path | str) -> bytes:
    fd = roots.open_beneath([str(root)], os.fsencode(path))
    with open(fd, "rb") as file:
        return file.read()


def test_what_is_beneath_is_opened_by_any_way_that_stays_inside(root: Path) -> None:
    (root / "link").symlink_to(root / "deep")
    (root.parent / "other").symlink_to(root)
    for path in (root / "deep/a.fits", root / "link/a.fits", root / "link/../deep/a.fits",
                 root.parent / "other/deep/a.fits"):  # fmt: skip
        assert read(root, path) == b"inside"
    assert read(root.parent / "other", root / "deep/a.fits") == b"inside"
    assert read(Path("/"), root / "deep/a.fits") == b"inside"


@pytest.mark.parametrize(
    "path",
    ["secret", "data", "data/../secret", "data/link", "data/up/secret", "datax", "data/./.."],
)
def test_what_is_not_is_outside(root: Path, path: str) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    (root / "up").symlink_to("..")
    with pytest.raises(Outside):
        read(root, f"{root.parent}/{path}")


def test_without_roots_everything_is_outside(root: Path) -> None:
    with pytest.raises(Outside):
        roots.check([], os.fsencode(root / "deep/a.fits"))


def test_what_is_missing_is_the_sources_fault(root: Path) -> None:
    for path in ("none", "deep/a.fits/x", "loop"):
        os.symlink("loop", root / "loop") if path == "loop" else None
        with pytest.raises((SourceError, Outside)):
            read(root, root / path)


RACE = """
import os
while True:
    os.rename("deep", "aside")
    os.rename("lure", "deep")
    os.rename("deep", "lure")
    os.rename("aside", "deep")
"""


def test_nobody_who_moves_links_about_meanwhile_has_a_secret_opened(root: Path) -> None:
    """A directory is exchanged for a link that leads out, and back, as fast as can be."""
    (root.parent / "out").mkdir()
    (root.parent / "out/a.fits").write_bytes(b"secret")
    os.symlink(root.parent / "out", root / "lure")
    outcomes: set[bytes] = set()
    with subprocess.Popen([sys.executable, "-c", RACE], cwd=root) as racer:
        try:
            for _ in range(1000):
                try:
                    outcomes.add(read(root, root / "deep/a.fits"))
                except (Outside, SourceError) as error:
                    outcomes.add(type(error).__name__.encode())
        finally:
            racer.kill()
    assert b"secret" not in outcomes and b"inside" in outcomes, outcomes

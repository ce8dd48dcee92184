"""Whether a file is finished: real writers, leases and file systems."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpxfer.formats.watching import Finished
from lpxfer.sources import judge
from lpxfer.sources.judge import SETTLE, STALE, Unfinished

CLOSE, FITS, AGE = Finished(close=True), Finished(fits=True), Finished(age=10.0)
HEADER = "".join(card.ljust(80) for card in (
    "SIMPLE  =                    T", "BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 5000", "END"
)).ljust(2880).encode()  # fmt: skip
WHOLE = HEADER + bytes(5760)


def judged(
    path: Path, rule: Finished, quiet: float = 0.0, remote: bool = False
) -> Unfinished | None:
    return judge.unfinished(str(path), path.stat(), rule, quiet, remote)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.fits"
    path.write_bytes(WHOLE)
    return path


@pytest.mark.parametrize("rule", [CLOSE, FITS, AGE, Finished(close=True, fits=True, age=1.0)])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_file_that_is_open_for_writing_is_not_finished(
    file: Path, rule: Finished, flags: int
) -> None:
    fd = os.open(file, flags)
    assert judged(file, rule, 9e9) == Unfinished("somebody has it open for writing")
    os.close(fd)
    assert judged(file, rule, 9e9) is None


def test_reader_does_not_matter(file: Path) -> None:
    with file.open("rb"):
        assert judged(file, CLOSE) is None


def test_writer_of_another_process_is_seen_and_not_disturbed(file: Path) -> None:
    script = "import sys; f = open(sys.argv[1], 'ab'); print(flush=True); input(); f.write(b'x')"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout and writer.stdin
        writer.stdout.readline()
        for _ in range(100):
            assert judged(file, CLOSE)
        writer.stdin.write(b"\n")
        writer.stdin.close()
        assert writer.wait() == 0
    assert judged(file, CLOSE) is None
    assert file.read_bytes() == WHOLE + b"x"


def test_lease_is_given_back(file: Path) -> None:
    for _ in range(100):
        assert judged(file, CLOSE) is None
        with file.open("ab"):  # would wait, or end us by a signal
            pass


def test_writer_by_memory_is_seen(file: Path) -> None:
    import mmap

    with file.open("r+b") as stream:
        memory = mmap.mmap(stream.fileno(), 0)
    assert judged(file, CLOSE)
    memory.close()
    assert judged(file, CLOSE) is None


@pytest.mark.parametrize(
    ("rule", "quiet", "wait"),
    [
        (CLOSE, 0.0, SETTLE),
        (CLOSE, SETTLE - 1, 1.0),
        (CLOSE, SETTLE, None),
        (FITS, 0.0, None),
        (Finished(close=True, fits=True), 0.0, SETTLE),
        (AGE, 4.0, 6.0),
        (AGE, 10.0, None),
        (Finished(fits=True, age=10.0), 4.0, 6.0),
        (Finished(age=0.0), 0.0, None),
    ],
)
def test_where_nobody_can_tell_time_has_to(
    file: Path, rule: Finished, quiet: float, wait: float | None
) -> None:
    expected = None if wait is None else Unfinished("it changed lately", wait)
    assert judged(file, rule, quiet, remote=True) == expected


@pytest.mark.parametrize("remote", [False, True])
def test_fits_file_that_is_cut_is_given_up_after_an_hour(file: Path, remote: bool) -> None:
    file.write_bytes(WHOLE[:-1])
    lacks = "8639 of 8640 bytes are there"
    assert judged(file, FITS, STALE - 1, remote) == Unfinished(lacks)
    assert judged(file, FITS, STALE, remote) == Unfinished(lacks, given_up=True)
    older = Finished(fits=True, age=STALE + 60)
    assert judged(file, older, STALE, remote) == Unfinished("it changed lately", 60)
    with file.open("ab"):
        if not remote:
            assert judged(file, FITS, 9e9) == Unfinished("somebody has it open for writing")


def test_what_is_no_fits_file_has_to_be_closed(file: Path) -> None:
    file.write_bytes(b"\x1f\x8b gzip")
    assert judged(file, FITS) is None
    assert judged(file, FITS, remote=True) == Unfinished("it changed lately", SETTLE)


@pytest.fixture
def somebodys(file: Path) -> Iterator[Path]:
    """A file of another account, as an instrument's is."""
    os.chown(file, 65534, 65534)
    file.chmod(0o644)
    for parent in list(file.parents)[:2]:
        parent.chmod(0o755)
    yield file


@pytest.mark.root
@pytest.mark.parametrize(("capable", "said"), [(True, "False"), (False, "None")])
def test_file_of_another_account_takes_a_capability(
    somebodys: Path, capable: bool, said: str
) -> None:
    script = (
        "import os, sys; from lpxfer.sources.judge import being_written\n"
        "print(being_written(os.open(sys.argv[1], os.O_RDONLY)))"
    )
    fd = os.open(somebodys, os.O_RDONLY)  # the way there may be closed to the account
    lease = ["--inh-caps=+lease", "--ambient-caps=+lease"] if capable else ["--inh-caps=-all"]
    words = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *lease]
    try:
        done = subprocess.run(
            [*words, sys.executable, "-c", script, f"/proc/self/fd/{fd}"],
            pass_fds=[fd], capture_output=True, text=True,
        )  # fmt: skip
    finally:
        os.close(fd)
    assert done.stdout.strip() == said, done.stderr


def test_header_of_a_file(file: Path) -> None:
    for data in (WHOLE, HEADER):
        file.write_bytes(data)
        header = judge.header(str(file))
        assert header and header.value("NAXIS1") == "5000"
    for data in (b"text", HEADER[:390]):
        file.write_bytes(data)
        assert judge.header(str(file)) is None


def test_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError):
        judge.header(str(tmp_path / "link"))

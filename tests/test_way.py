"""The whole way, with the real commands: what goes in comes out, once, whatever is killed."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from sshd import Sshd

from lpxfer.errors import FormatError
from lpxfer.formats import record
from lpxfer.formats.record import Record

PATIENCE = 120.0  # seconds until a command that does not end is an error

CONF = """\
[lpxfer]
spool = {root}/spool
queue = archive
host = telescope
incoming = {root}/incoming
receipts = {root}/receipts
reserve = 0

[queue archive]
remhost = {sshd.host}:{sshd.port}
rempath = {root}/incoming
remuser = {sshd.user}
identity = {sshd.identity}
known_hosts = {sshd.known_hosts}
stall = 10

[instrument minicam]
dir = {root}/archive/minicam
"""


class Way:
    """Both sites in one directory, driven by commands."""

    def __init__(self, root: Path, sshd: Sshd) -> None:
        self.root = root
        self.incoming, self.instdir = root / "incoming", root / "archive/minicam"
        self.incoming.mkdir()
        self.instdir.mkdir(parents=True)
        conf = root / "lpxfer.conf"
        conf.write_text(CONF.format(root=root, sshd=sshd))
        self.environ = os.environ | {"XFER_CONF": str(conf), "PYTHONWARNINGS": ""}

    def start(self, command: str, *arguments: object) -> subprocess.Popen[str]:
        run = (
            f"from lpxfer.cli.{command.replace('-', '_')} import main; main(prog_name={command!r})"
        )
        words = [sys.executable, "-c", run, *map(os.fspath, map(_path, arguments))]
        return subprocess.Popen(
            words, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, command: str, *arguments: object, status: int = 0) -> str:
        with self.start(command, *arguments) as process:
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, f"{command}: {process.returncode}\n{out}\n{err}"
        return out

    def finish(self) -> None:
        """Send and sweep until nothing is left, as cron would."""
        for _ in range(5):
            with self.start("xfer-send", "--once") as process:
                process.communicate(timeout=PATIENCE)
            if process.returncode == 0:
                return
            self.run("xfer-sweep", "-i", "minicam")
        raise AssertionError(f"not finished: {process.returncode}")

    def records(self) -> list[Record]:
        """The records of the transfer log; a torn line is one that says nothing."""
        found = []
        for log in sorted((self.instdir / "xferlogs").glob("*.log")):
            for line in log.read_bytes().splitlines():
                try:
                    found.append(record.load(line))
                except FormatError:
                    continue
        return found

    def check_archived_once(self, files: list[Path]) -> None:
        """Every file stands once in the archive, byte for byte, with one `stored` record."""
        placed = [path for path in self.instdir.rglob("*") if path.is_file()]
        hidden = {path.name for path in placed if path.name.startswith(".")}
        assert len(hidden) <= 1, "only the directory's lock stays"
        placed = [p for p in placed if "xferlogs" not in p.parts and p.name not in hidden]
        assert Counter(map(digest, placed)) == Counter(map(digest, files))
        times = {path.name: path.stat().st_mtime_ns for path in placed}
        assert times == {path.name: path.stat().st_mtime_ns for path in files}
        stored = [line.fields["uid"] for line in self.records() if line.kind == "stored"]
        assert len(stored) == len(set(stored)) == len(files)
        assert {line.kind for line in self.records()} - {"unpacked"} == {"stored"}
        assert not list(self.incoming.iterdir())
        for state in ("pending", "active", "sent", "done", "failed", "quarantine", "tmp"):
            assert not list((self.root / "spool/archive" / state).iterdir())
        finished = (self.root / "spool/archive/log").glob("*.log")
        lines = [line for log in finished for line in log.read_bytes().splitlines()]
        assert len(lines) == len(files)
        self.run("xfer-fsck", "-d", self.instdir)
        self.run("xfer-fsck")


def _path(argument: object) -> str | bytes | os.PathLike[str]:
    return argument if isinstance(argument, str | bytes | os.PathLike) else str(argument)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def way(tmp_path: Path, sshd: Sshd) -> Iterator[Way]:
    root = tmp_path / "a site"  # with a space, as people have them
    root.mkdir()
    yield Way(root, sshd)


def make_files(root: Path, count: int, size: int = 50_000) -> list[Path]:
    night = root / "2026.1120"
    night.mkdir()
    files = [night / f"{number:04d}.fits" for number in range(count)]
    for path in files:
        path.write_bytes(os.urandom(size))
        os.utime(path, ns=(0, random.randrange(10**18, 2 * 10**18)))
    return files


def test_real_frames_go_the_whole_way(way: Way) -> None:
    with resources.as_file(resources.files("astropy.io.fits.tests") / "data") as data:
        frames = sorted(data.glob("*.fits"))[:20]
    assert len(frames) == 20, "astropy's test data are needed: install lpxfer[test]"
    way.run("xfer-submit", "-s", "-o", "inst=minicam,dir=frames", *frames)
    way.finish()
    way.check_archived_once(frames)


def test_names_of_every_kind_go_the_whole_way(way: Way, tmp_path: Path) -> None:
    night = os.fsencode(tmp_path) + b"/2026.1119"
    os.mkdir(night)
    names = [b"plain.fits", b"two words.fits", "süß µ.fits".encode(), b"new\nline", b"\xff\xfe.raw",
             b"%41 percent", b"-dash", b"a=b,c", b"\x1b[31mred", b"x" * 255]  # fmt: skip
    for name in names:
        with open(night + b"/" + name, "wb") as file:
            file.write(name)
    way.run("xfer-submit", "-s", "-o", "inst=minicam", "--", *[night + b"/" + n for n in names])
    way.finish()
    placed = os.listdir(os.fsencode(way.instdir) + b"/2026.1119")
    assert sorted(placed) == sorted(names)
    for name in names:
        assert (
            Path(os.fsdecode(os.fsencode(way.instdir) + b"/2026.1119/" + name)).read_bytes() == name
        )
    way.run("xfer-fsck", "-d", way.instdir)
    assert "\x1b" not in way.run("xfer-stat", "-W", "all", "-l")


def test_empty_file_goes_the_whole_way(way: Way) -> None:
    files = make_files(way.root, 1, size=0)
    way.run("xfer-submit", "-o", "inst=minicam", *files)
    way.finish()
    way.check_archived_once(files)


def test_options_travel_untouched(way: Way) -> None:
    files = make_files(way.root, 1)
    way.run("xfer-submit", "-o", "inst=minicam,Observer=A%2C B", "-o", "maxftp=0", *files)
    way.run("xfer-send", "--once", status=75)
    control = next(way.incoming.glob("*.control")).read_text()
    assert "\nObserver=A, B\n" in control
    assert "\nmaxftp=0\n" in control
    assert "rem" not in re.sub("(?m)^(path|checksum|end)=.*$", "", control)


def test_submit_can_wait_for_the_receipt(way: Way) -> None:
    files = make_files(way.root, 2)
    waiting = way.start("xfer-submit", "--wait", "-o", "inst=minicam", *files)
    deadline = time.monotonic() + PATIENCE
    while waiting.poll() is None and time.monotonic() < deadline:
        with way.start("xfer-send", "--once") as sender:
            sender.communicate(timeout=PATIENCE)
        way.run("xfer-sweep", "-i", "minicam")
    out, err = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0, err
    assert "request ids are archive-1 … archive-2 (2 file(s))" in out


def test_files_go_the_whole_way_over_the_systems_ssh(way: Way) -> None:
    conf = Path(way.environ["XFER_CONF"])
    conf.write_text(
        conf.read_text().replace("[queue archive]", "[queue archive]\ntransport = openssh")
    )
    files = make_files(way.root, 5)
    way.run("xfer-submit", "-s", "-o", "inst=minicam", *files)
    way.finish()
    way.check_archived_once(files)
    # A job's own words reach no command line; the others go on.
    job = way.run("xfer-submit", "-o", "inst=minicam,remhost=-oProxyCommand=id", files[0]).split()[
        3
    ]
    way.run("xfer-send", "--once")
    assert "is not a host that ssh may be given" in way.run("xfer-stat", "-l", job)


def test_killed_senders_and_sweepers_archive_everything_once(way: Way) -> None:
    files = make_files(way.root, 40)
    way.run("xfer-submit", "-s", "-o", "inst=minicam", *files)
    moments = random.Random(20261120)
    for _ in range(25):
        both = [way.start("xfer-send", "--once"), way.start("xfer-sweep", "-i", "minicam")]
        time.sleep(0.15 + 0.35 * moments.random())
        for process in both:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=PATIENCE)
    way.finish()
    way.check_archived_once(files)


def test_eight_sweepers_and_two_senders_archive_everything_once(way: Way) -> None:
    files = make_files(way.root, 60)
    way.run("xfer-submit", "-s", "-o", "inst=minicam", *files)
    crowd = [way.start("xfer-send", "--once") for _ in range(2)]
    crowd += [way.start("xfer-sweep", "-i", "minicam") for _ in range(8)]
    for process in crowd:
        process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, 75)
    way.finish()
    way.check_archived_once(files)


def test_two_sweeps_into_different_directories_archive_everything_once(way: Way) -> None:
    files = make_files(way.root, 60)
    way.run("xfer-submit", "-s", "-o", "inst=minicam", *files)
    way.run("xfer-send", "--once", status=75)
    other = way.root / "other"
    other.mkdir()
    crowd = [way.start("xfer-sweep", "-i", "minicam", "-d", d) for d in (way.instdir, other) * 2]
    for process in crowd:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    way.finish()
    placed = [*way.instdir.rglob("*.fits"), *other.rglob("*.fits")]
    assert Counter(map(digest, placed)) == Counter(map(digest, files))
    assert not list(way.incoming.iterdir())


def test_stranger_is_stored_confirmed_and_placed_later(way: Way) -> None:
    files = make_files(way.root, 2)
    way.run("xfer-submit", "-s", "-o", "inst=newcam", *files)
    way.run("xfer-send", "--once", status=75)
    strangers = way.root / "strangers"
    strangers.mkdir()
    way.run("xfer-sweep", "-A", "-d", strangers)
    way.run("xfer-send", "--once")
    dated = next(path for path in strangers.iterdir() if re.fullmatch(r"\d{4}\.\d{4}", path.name))
    assert len(list(dated.iterdir())) == 4
    way.run("xfer-sweep", "-i", "newcam", "-d", way.instdir, "-f", dated)
    assert Counter(map(digest, way.instdir.rglob("*.fits"))) == Counter(map(digest, files))
    assert not list(dated.iterdir())


def test_lost_arrivals_are_sent_again(way: Way) -> None:
    """A power cut at the archive that undoes the last renames loses nothing."""
    conf = Path(way.environ["XFER_CONF"])
    conf.write_text(conf.read_text().replace("stall = 10", "stall = 10\nunconfirmed = 1s"))
    files = make_files(way.root, 3)
    way.run("xfer-submit", "-s", "-o", "inst=minicam", *files)
    way.run("xfer-send", "--once", status=75)
    for path in way.incoming.iterdir():
        path.unlink()
    time.sleep(1.1)  # the limit is a time in the file's own clock
    way.run("xfer-send", "--once", status=75)
    way.finish()
    way.check_archived_once(files)


@pytest.mark.parametrize("killed", [False, True], ids=["sender runs", "sender is killed"])
def test_cancel_at_any_moment_tells_the_truth(way: Way, killed: bool) -> None:
    """Whoever was told `canceled` finds nothing in the archive; `too late` means it is there."""
    told: dict[str, int] = {}
    night = way.root / "2026.1120"
    night.mkdir()
    for moment in range(14):
        path = night / f"{moment:04d}.fits"
        path.write_bytes(os.urandom(4_000_000))
        job = way.run("xfer-submit", "-o", "inst=minicam", path).split()[3]
        sender = way.start("xfer-send", "--once")
        time.sleep(0.05 * moment)
        if killed:
            sender.kill()
        cancel = way.start("xfer-cancel", job)
        _, said = cancel.communicate(timeout=PATIENCE)
        sender.communicate(timeout=PATIENCE)
        assert cancel.returncode in (0, 1), said
        assert cancel.returncode == 0 or "too late" in said
        told[path.name] = cancel.returncode
    way.finish()
    placed = {path.name for path in way.instdir.rglob("*.fits")}
    assert placed == {name for name, status in told.items() if status == 1}
    assert len(placed) < len(told), "some must be canceled, or nothing was tried"

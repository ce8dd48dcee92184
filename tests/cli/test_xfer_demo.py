"""xfer-demo, as a person runs it: real files, real servers, and the site that it leaves."""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sshd import descendants

from lpxfer.steps import serve
from lpxfer.stores.job_dir import account
from lpxfer.stores.site import Site

BIN = Path(sys.executable).parent
CHECKOUT = Path(__file__).parents[2]
PATIENCE = 120

#: Names and contents that are hard on somebody along the way.
ODD = {
    b"empty": b"",
    b"with a space": b"1",
    "Andromède.fits".encode(): b"2",
    b"new\nline": b"3",
    b"\xff\xfe not UTF-8": b"4",
    b"-o inst=x": b"5",
    b"100%25$HOME'\"": b"6",
}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose home is empty, and whose XFER_* lead astray."""
    (tmp_path / "home").mkdir()
    ours = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path / "home")}
    astray = {f"XFER_{name}": str(tmp_path / "astray") for name in ("CONF", "SPOOL", "INCOMING")}
    return {k: v for k, v in os.environ.items() if not k.startswith("XDG")} | ours | astray


def run(
    environ: dict[str, str], *words: str | bytes | Path, command: Path = BIN / "xfer-demo"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, *words], env=environ, capture_output=True, text=True, errors="surrogateescape",
        timeout=PATIENCE,
    )  # fmt: skip


def astropy_frames() -> list[Path]:
    spec = importlib.util.find_spec("astropy")
    assert spec and spec.origin
    found = sorted((Path(spec.origin).parent / "io/fits/tests/data").glob("*.fits"))
    assert len(found) > 5
    return found


def in_archive(archive: Path) -> dict[bytes, tuple[bytes, int]]:
    """Return name, contents and time of every file that was placed."""
    return {
        os.fsencode(path.name): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in archive.rglob("*")
        if path.is_file() and "xferlogs" not in path.parts and path.name != ".lock"
    }


def embedded(directory: Path) -> None:
    """Make a site that has the embedded server, as on a machine without OpenSSH."""
    with serve.running(str(directory), account(os.geteuid()), "", print):
        pass


@contextlib.contextmanager
def started(
    environ: dict[str, str], *words: str | Path, **popen: object
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [BIN / "xfer-demo", *words], env=environ, stdout=subprocess.PIPE, text=True, **popen
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(f"ended without {word}")


def wait_until(true) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_frames_of_its_own_go_the_whole_way_and_the_site_goes_on_by_hand(tmp_path, environ):
    directory = tmp_path / "a site"
    first = run(environ, directory)
    assert first.returncode == 0, first.stderr
    placed = in_archive(directory / "archive/demo")
    sources = {
        os.fsencode(path.name): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (directory / "files").iterdir()
    }
    assert placed == sources and len(placed) == 3
    assert "3 files       0 errors" in first.stdout
    assert os.listdir(directory / "incoming") == []
    assert not list((directory / "spool").rglob("data"))  # no job is left
    assert list((directory / "receipts").rglob("*.log"))
    port = Site(directory).port()

    commands = re.findall(r"^  (.*xfer-\w+ .*)$", first.stdout, re.MULTILINE)
    assert "--serve" in commands[0] and len(commands) == 6
    assert "unset XFER_INCOMING XFER_SPOOL" in first.stdout
    by_hand = {k: v for k, v in environ.items() if not k.startswith("XFER_")}
    with subprocess.Popen(["bash", "-c", f"exec {commands[0]}"], env=environ) as server:
        try:
            wait_until(lambda: serve._answers(Site(directory)))
            statuses = [
                subprocess.run(["bash", "-c", line], env=by_hand, timeout=PATIENCE).returncode
                for line in commands[1:]
            ]
            assert statuses == [0, 75, 0, 0, 0]
            again = run(environ, directory)  # beside the server that runs
            assert again.returncode == 0, again.stderr
            assert "running already" in again.stdout
        finally:
            server.terminate()
    assert server.returncode == 0
    assert len(in_archive(directory / "archive/demo/by-hand")) == 1
    assert len(in_archive(directory / "archive/demo")) == 6
    assert Site(directory).port() == port
    assert os.listdir(tmp_path / "home") == []
    assert not (tmp_path / "astray").exists()


@pytest.mark.parametrize("server", ["sshd", "embedded"])
def test_any_files_arrive_as_they_are(tmp_path, environ, monkeypatch, server):
    directory, origin = tmp_path / "site", tmp_path / "origin"
    if server == "embedded":
        embedded(directory)
    origin.mkdir()
    for number, (name, data) in enumerate(ODD.items()):
        path = os.fsencode(origin) + b"/" + name
        Path(os.fsdecode(path)).write_bytes(data)
        os.utime(path, ns=(0, 1_000_000_000_123_456_789 - number))
    frames = astropy_frames()
    for frame in frames:
        shutil.copy2(frame, origin)
    options = ["-o", "inst=minicam", "-o", "dir=2002.0523,observer=Annie%2C J."]
    monkeypatch.chdir(origin)
    files = [name if name.startswith(b"-") else os.path.abspath(name) for name in os.listdir(b".")]
    done = run(environ, *options, "--", directory, *files)
    assert done.returncode == 0, done.stderr
    expected = {
        os.fsencode(path.name): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in origin.iterdir()
    }
    assert len(expected) == len(ODD) + len(frames)
    assert in_archive(directory / "archive/minicam/2002.0523") == expected
    assert f"{len(expected)} files       0 errors" in done.stdout
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert (Site(directory).program() == "embedded") == (server == "embedded")


def test_printed_commands_can_be_repeated(tmp_path, environ):
    name = b"it's \xff\n$HOME"
    (tmp_path / os.fsdecode(name)).write_text("x")
    done = run(environ, tmp_path / "site", bytes(tmp_path) + b"/" + name)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^\$ (.*)$", done.stdout, re.MULTILINE)
    assert [re.findall(r"xfer-(\w+)", line)[-1] for line in commands] == (
        ["submit", "stat", "send", "sweep", "send", "stat", "logsum"]
    )
    del environ["XFER_SPOOL"]
    again = subprocess.run(["bash", "-c", commands[0]], env=environ, capture_output=True, text=True)
    assert again.stdout == "request id is archive-2 (1 file(s))\n", again.stderr


def test_commands_of_a_checkout_with_a_space_in_its_path_run_from_there(tmp_path, environ):
    top = tmp_path / "a checkout"
    for name in ("lpxfer", "bin"):
        shutil.copytree(CHECKOUT / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = run(environ, tmp_path / "site", command=top / "bin/xfer-demo")
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^\$ \S+ '(.*)/xfer-\w+'", done.stdout, re.MULTILINE)
    assert set(commands) == {str(top / "bin")} and len(commands) == 7


def test_command_that_fails_is_named_and_ends_everything(tmp_path, environ):
    done = run(environ, tmp_path / "site", tmp_path)
    assert done.returncode == 1
    assert re.search(r"^xfer-submit: Error - .*directory", done.stderr, re.MULTILINE)
    assert "exit status 1 of: xfer-submit -o inst=demo" in done.stderr
    with serve.listen(Site(tmp_path / "site").port()):
        pass  # nobody listens any more


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_run_stops_all_that_it_started(tmp_path, environ, number):
    embedded(tmp_path / "site")
    silent = tmp_path / "sshd"
    silent.write_text('#!/bin/sh\n[ "$2" = -f ] && exit 0\nexec sleep 1000\n')
    silent.chmod(0o755)
    Site(tmp_path / "site").set_program(str(silent))
    with started(environ, tmp_path / "site") as process:
        read_until(process, "xfer-send --once")
        wait_until(lambda: len(descendants(process.pid)) > 1)  # xfer-send, and a connection
        born = descendants(process.pid)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in born))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_server_ends_cleanly_when_told_to(tmp_path, environ, number):
    embedded(tmp_path / "site")
    heeding = partial(signal.signal, number, signal.SIG_DFL)  # the tests may run under nohup
    with started(environ, "--serve", tmp_path / "site", preexec_fn=heeding) as process:
        line = read_until(process, "serving")
        assert f"127.0.0.1:{Site(tmp_path / 'site').port()}" in line
        serve.log_in(Site(tmp_path / "site"))
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0


def test_server_whose_port_is_taken_says_so(tmp_path, environ):
    embedded(tmp_path / "site")
    port = Site(tmp_path / "site").port()
    with serve.listen(port):
        done = run(environ, "--serve", tmp_path / "site")
    assert done.returncode == 75
    assert f"xfer-demo: Error - port {port} of 127.0.0.1 is taken" in done.stderr
    assert "choose another port" in done.stderr


def test_server_under_nohup_stays_when_the_terminal_goes(tmp_path, environ):
    embedded(tmp_path / "site")
    ignoring = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    with started(environ, "--serve", tmp_path / "site", preexec_fn=ignoring) as process:
        read_until(process, "serving")
        process.send_signal(signal.SIGHUP)
        serve.log_in(Site(tmp_path / "site"))
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--serve", "none"], 1, "no site in"),
        (["--serve", "site", "file"], 2, "--serve takes one DIR"),
        (["--serve", "-o", "a=b", "site"], 2, "--serve takes one DIR"),
        (["--config", "x.conf", "site"], 2, "--config has no use here"),
        (["-o", "nonsense", "site"], 2, "is not keyword=value"),
        (["-o", "rempw=secret", "site"], 2, "file of mode 0600"),
        (["file"], 2, "is not a directory"),
        (["full"], 1, "not empty and not a demo site"),
        (["quo\"te"], 2, "cannot hold a site"),
    ],
)  # fmt: skip
def test_wrong_use_is_refused_and_leaves_nothing(tmp_path, environ, words, status, message):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [BIN / "xfer-demo", *words], env=environ, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == status
    assert done.stderr.startswith("xfer-demo: Error - ")
    assert message in done.stderr
    assert sorted(tmp_path.rglob("*")) == before

"""A command whose lines name frames."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sources.conformance import Conformance, Hints, Scene

from lpxfer.formats import backoff
from lpxfer.sources.monitor import Monitor, value_of


def follow(tmp_path: Path, *prefix: str) -> tuple[list[str], Callable[[str], None]]:
    """Return a command that prints what is appended to a file, and what appends to it."""
    log = tmp_path / ".log"
    log.touch()

    def tell(name: str) -> None:
        with log.open("a") as stream:
            stream.write("".join(prefix) + name + "\n")

    return ["tail", "-n0", "-s0.05", "-F", str(log)], tell


class TestMonitor(Conformance):
    @pytest.fixture
    def scene(self, tmp_path: Path) -> Scene:
        # what was there when the command started is found by the look at everything
        command, tell = follow(tmp_path)
        command[1] = "-n+1"
        return Scene(Monitor(command, "%s", lambda line: None), tmp_path, tell)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("kb0001.fits\n", "kb0001.fits"),
        ("lastfile = /data/kb0001.fits\n", "/data/kb0001.fits"),
        ('12:03:04 LASTFILE = "a b.fits"\r\n', "a b.fits"),
        ("frameno = 42\n", "42"),
        ("\n", ""),
    ],
)
def test_value_of_a_line(line: str, value: str) -> None:
    assert value_of(line) == value


def test_command_that_ends_is_started_again_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "QUEUE_FIRST", 0.01)
    said: list[str] = []
    hints = Hints(tmp_path)
    source = Monitor(["sh", "-c", "echo 7; exit 3"], "kb%03d.fits", said.append)
    source.start(hints.queue.put)
    for _ in range(3):
        hints.wait_for(None)
        hints.wait_for("kb007.fits")
    source.close()
    assert said == [
        "sh -c 'echo 7; exit 3': it ended with status 3; it is started again when it ends"
    ]


def test_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    source = Monitor(["/nowhere/show"], "%s", said.append)
    source.start(lambda hint: None)
    while not said:
        pass
    source.close()
    assert "cannot be run: No such file or directory" in said[0]


def test_line_without_end_is_no_frame(tmp_path: Path) -> None:
    hints = Hints(tmp_path)
    source = Monitor(["sh", "-c", "yes | tr -d '\\n' | head -c 100000; echo; echo a"], "%s", print)
    source.start(hints.queue.put)
    hints.wait_for("a")
    source.close()


def test_command_that_does_not_end_when_it_is_told_to_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpxfer.sources.monitor.PATIENCE", 0.2)
    hints = Hints(tmp_path)
    script = "trap '' TERM; echo a; while :; do sleep 0.1; done"
    source = Monitor(["bash", "-c", script], "%s", print)
    source.start(hints.queue.put)
    hints.wait_for("a")
    source.close()
    assert source._process and source._process.poll() is not None

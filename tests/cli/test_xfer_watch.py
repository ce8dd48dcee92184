"""The watch's command: exit statuses, instruments by configuration alone, kill -9, a real IOC."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ioc import Ioc
from watches import PATIENCE, Observatory, wait_until

from lpxfer.formats.job import State

RUN = "from lpxfer.cli.xfer_watch import main; main(prog_name='xfer-watch')"


class Command:
    """The command, run on an observatory's configuration."""

    def __init__(self, site: Observatory) -> None:
        self.site = site
        self.environ = os.environ | {"XDG_STATE_HOME": str(site.root / "state")}
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", RUN, "--config", str(self.site.conf), *arguments]
        process = subprocess.Popen(words, env=self.environ, stderr=subprocess.PIPE, text=True)
        self.running.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        _, said = process.communicate(timeout=PATIENCE)
        return process.returncode, said


@pytest.fixture
def site(tmp_path: Path) -> Observatory:
    return Observatory(tmp_path)


@pytest.fixture
def command(site: Observatory) -> Iterator[Command]:
    command = Command(site)
    yield command
    for process in command.running:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_pass_submits_what_is_finished_and_says_nothing(
    site: Observatory, command: Command
) -> None:
    (site.data / "a.fits").write_bytes(b"data")
    assert command.run("--once") == (0, "")
    assert command.run("--once") == (0, "")
    assert site.names() == ["a.fits"]


def test_pass_that_leaves_files_exits_75(site: Observatory, command: Command) -> None:
    with (site.data / "a.fits").open("wb"):
        status, said = command.run("--once")
    assert (status, said) == (75, "xfer-watch: 1 file(s) are not finished, or not submitted\n")


def test_pass_with_a_refused_file_exits_1(site: Observatory, command: Command) -> None:
    site.configure(queue="{name}", pattern="(?P<name>.*)")
    (site.data / "a b").write_bytes(b"")
    status, said = command.run("--once")
    assert status == 1
    assert 'xfer-watch: minicam: unable to submit "' in said and "a b" in said


def test_marked_files_are_not_submitted(site: Observatory, command: Command) -> None:
    (site.data / "a.fits").write_bytes(b"data")
    assert command.run("--mark") == (
        0, "xfer-watch: minicam: 1 file(s) are taken as submitted\n"
    )  # fmt: skip
    (site.data / "b.fits").write_bytes(b"data")
    assert command.run("--once") == (0, "")
    assert site.names() == ["b.fits"]
    assert command.run("--once", "--all") == (0, "")
    assert site.names() == ["a.fits", "b.fits"]


@pytest.mark.parametrize(
    ("arguments", "keys", "status", "words"),
    [
        (["--mark", "--once"], {}, 2, "use it alone"),
        (["nocam"], {}, 2, "nocam is not watched"),
        ([], {"watch": ""}, 2, "nothing is watched"),
        ([], {"watch": "data"}, 2, 'lpxfer.conf:7: [instrument minicam] watch: "data" is not an'),
        ([], {"finished": "closed"}, 2, "is not one of: close, fits"),
        ([], {"options": "night={night}"}, 2, "neither a group of `pattern`"),
        ([], {"queue": "nowhere"}, 2, 'there is no queue "nowhere"'),
        (["--once"], {"watch": "/nowhere"}, 1, 'unable to access "/nowhere" - No such file'),
    ],
)
def test_what_cannot_be_is_refused(
    site: Observatory, command: Command, arguments: list[str], keys: dict[str, str],
    status: int, words: str,
) -> None:  # fmt: skip
    site.configure(**keys)
    found, said = command.run(*arguments)
    assert found == status
    assert words in said


def test_directory_that_is_not_there_yet_keeps_no_other_instrument(
    site: Observatory, command: Command
) -> None:
    late = site.root / "late"
    with site.conf.open("a") as conf:
        conf.write(f"[instrument latecam]\nwatch = {late}\n")
    process = command.start()
    (site.data / "a.fits").write_bytes(b"data")
    wait_until(site.names)
    assert process.stderr
    said = process.stderr.readline()
    late.mkdir()
    (late / "b.fits").write_bytes(b"data")
    wait_until(lambda: site.queue.count(State.PENDING)[0] == 2)
    process.terminate()
    said += process.communicate(timeout=PATIENCE)[1]
    assert said == (
        f'xfer-watch: latecam: unable to access "{late}" - No such file or directory; '
        "it is tried again until it works\n"
    )


def test_second_watch_of_an_instrument_is_refused(site: Observatory, command: Command) -> None:
    command.start()
    (site.data / "a.fits").write_bytes(b"data")
    wait_until(site.names)
    status, said = command.run("--once")
    assert status == 75
    assert "another xfer-watch watches minicam" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_the_watch_cleanly(
    site: Observatory, command: Command, number: signal.Signals
) -> None:
    process = command.start()
    (site.data / "a.fits").write_bytes(b"data")
    wait_until(site.names)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, "")


def test_two_instruments_are_added_by_configuration_alone(
    site: Observatory, command: Command
) -> None:
    other = site.root / "spectra"
    other.mkdir()
    with site.conf.open("a") as conf:
        conf.write(f"""
[queue fast]
[instrument kcwi]
watch = {other}
match = k?????.fits
pattern = (?P<night>[0-9]{{8}})/
options = night={{night}},Observer={{fits.OBSERVER}},dir={{night}}
priority = {{fits.PRIORITY}}
queue = fast
[instrument logs]
watch = {other}
match = *.txt
finished = flag .done
""")
    cards = ["SIMPLE  =                    T", "OBSERVER= 'B. Wyatt, K. Lo'", "PRIORITY= 70", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880)
    (other / "20030402").mkdir()
    (other / "20030402/k00001.fits").write_text(header)
    (other / "20030402/other.fits").write_text(header)
    (other / "night.txt").write_text("clear")
    (other / "half.txt").write_text("clear")
    (other / "night.txt.done").write_text("")
    (site.data / "a.fits").write_bytes(b"data")
    status, said = command.run("--once")
    assert (status, said) == (75, "xfer-watch: 1 file(s) are not finished, or not submitted\n")
    jobs = {known.name: known for known, _ in site.jobs()}
    assert {name: known.inst for name, known in jobs.items()} == {
        "a.fits": "minicam", "night.txt": "logs"
    }  # fmt: skip
    from lpxfer.stores.spool import Spool

    fast = Spool(site.root / "spool").queue("fast")
    with fast.open("fast-1", State.PENDING) as job:
        known = job.control()
    assert (known.name, known.inst, known.priority, known.dir) == (
        "k00001.fits", "kcwi", 70, "20030402"
    )  # fmt: skip
    assert known.others == {"night": "20030402", "Observer": "B. Wyatt, K. Lo"}


def test_check_of_xfer_stat_tells_of_the_watch(site: Observatory, command: Command) -> None:
    def check() -> str:
        stat = [str(Path(sys.executable).parent / "xfer-stat"), "--config", str(site.conf)]
        done = subprocess.run(
            [*stat, "--check"], env=command.environ, capture_output=True, text=True
        )
        return done.stdout

    with site.queue.locked():
        assert "watch" not in check()
        with (site.data / "slow").open("wb") as slow:
            slow.write(b"data")
            process = command.start()
            wait_until(lambda: "watch of minicam: 1 waiting, compared" in check())
        wait_until(lambda: "watch of minicam: 0 waiting, compared" in check())
        process.kill()
        process.communicate()
        assert check() == "CRITICAL - watch of minicam: it is not running\n"
        assert command.run("--once")[0] == 0
        assert "OK - " in check()
        site.configure(queue="{name}", pattern="(?P<name>.*)")
        (site.data / "a b").write_bytes(b"")
        assert command.run("--once")[0] == 1
        assert "1 refused, or not finished for an hour" in check()


# --- kill -9 ----------------------------------------------------------------------------------


def test_watch_that_is_killed_anywhere_submits_each_file_once(
    site: Observatory, command: Command
) -> None:
    """Kill it again and again while files come, then let it catch up."""
    total, written = 120, 0
    for round_ in range(6):
        process = command.start()
        for _ in range(total // 6):
            (site.data / f"{written}").write_bytes(b"%d" % written)
            written += 1
        before = len(site.names())
        if round_ % 2:
            wait_until(lambda before=before: len(site.names()) > before)
        process.kill()
        process.communicate()
    assert command.run("--once") == (0, "")
    assert site.names() == sorted(str(n) for n in range(total))
    assert dict(site.submitted()) == {str(n): b"%d" % n for n in range(total)}


def test_watch_that_is_killed_between_job_and_record_submits_nothing_twice(
    site: Observatory, command: Command
) -> None:
    (site.data / "a.fits").write_bytes(b"data")
    dying = (
        "import os; from lpxfer.stores.watched import Watched\n"
        "Watched.ended = lambda *_: os.kill(os.getpid(), 9)\n" + RUN
    )
    words = [sys.executable, "-c", dying, "--config", str(site.conf), "--once"]
    assert subprocess.run(words, env=command.environ).returncode == -signal.SIGKILL
    assert site.names() == ["a.fits"]
    assert command.run("--once") == (0, "")
    assert site.names() == ["a.fits"]


# --- a real IOC -------------------------------------------------------------------------------


def test_ioc_that_is_killed_repeats_and_lies_loses_no_frame_and_doubles_none(
    site: Observatory, command: Command
) -> None:
    with Ioc() as ioc:
        command.environ |= ioc.client
        site.configure(pv="TEST:NUMBER", frame="kb%05d.fits", match="*.fits")
        process = command.start()

        def expose(number: int) -> None:
            (site.data / f"kb{number:05}.fits").write_bytes(b"%d" % number)

        expose(1)
        ioc.put("NUMBER", 1)
        ioc.put("NUMBER", 3)  # not there yet
        ioc.put("NUMBER", 2)
        expose(3)
        expose(2)
        for number in (3, 1, 2, 99, -4):
            ioc.put("NUMBER", number)
        site.wait_for("kb00001.fits", "kb00002.fits", "kb00003.fits")
        ioc.kill()
        expose(4)
        wait_until(lambda: "kb00004.fits" in site.names())
        ioc.start()
        expose(5)
        ioc.put("NUMBER", 5)
        time.sleep(1)
        site.wait_for(*(f"kb{n:05}.fits" for n in range(1, 6)))
        process.terminate()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0

"""xfer-submit, as a person types it."""

import contextlib
import errno
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from arrivals import apart, killed, refuse
from traced import trace

from lpxfer import durable
from lpxfer.cli import xfer_submit
from lpxfer.formats import dates
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.steps import submit as step
from lpxfer.stores.spool import Queue, Spool

COMMAND = [
    sys.executable,
    "-c",
    "from lpxfer.cli.xfer_submit import main; main(prog_name='xfer-submit')",
]
CONF = """\
[lpxfer]
queue = archive
host = mmto
reserve = 0
[queue archive]
[queue linked]
link = yes
inst = megacam
maxftp = 60
"""


class Said:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    def __repr__(self) -> str:
        return f"{self.status} {self.out!r} {self.err!r}"


class Site:
    """A directory with a spool and files in it, where commands are given."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys = root, capsys
        self.spool = Spool(root / "spool")

    def run(self, *words: str | bytes) -> Said:
        """Give the command in this process."""
        self.capsys.readouterr()
        arguments = [os.fsdecode(word) for word in words]
        with pytest.raises(SystemExit) as ended:
            xfer_submit.main.main(arguments, prog_name="xfer-submit")
        out, err = self.capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    def given(self, *words: str | bytes, data: bytes = b"", **environ: str) -> Said:
        """Give the command in a process of its own."""
        done = subprocess.run(
            [*COMMAND, *words], input=data, capture_output=True, env=os.environ | environ
        )
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    def file(self, name: str | bytes, data: bytes = b"x") -> bytes:
        path = os.path.join(os.fsencode(self.root), os.fsencode(name))
        with open(path, "wb") as stream:
            stream.write(data)
        return path

    @property
    def queue(self) -> Queue:
        return self.spool.queue("archive")

    def job(self, job_id: str, state: State = State.PENDING) -> tuple[Control, Routing]:
        with self.spool.queue(job_id.partition("-")[0]).open(job_id, state) as job:
            return job.check(links=True), job.routing()

    def jobs(self) -> list[str]:
        """Return the waiting jobs; nothing else may be in the spool."""
        assert os.listdir(self.queue.root / "tmp") == []
        return sorted(entry.id for entry in self.queue.entries(State.PENDING))


@pytest.fixture
def site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Site]:
    """A configured telescope site; the working directory is in it."""
    for name in [name for name in os.environ if name.startswith("XFER_")]:
        monkeypatch.delenv(name)
    (tmp_path / "lpxfer.conf").write_text(CONF)
    monkeypatch.setenv("XFER_CONF", str(tmp_path / "lpxfer.conf"))
    monkeypatch.setenv("XFER_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path, capsys)
    site.file("0123.fits")
    yield site
    site.spool.close()


# --- what is printed -------------------------------------------------------------------------


def test_request_id_is_printed(site):
    said = site.run("0123.fits")
    assert (said.status, said.out, said.err) == (0, "request id is archive-1 (1 file(s))\n", "")


def test_request_ids_of_several_files_are_printed_on_one_line(site):
    said = site.run("0123.fits", "0123.fits", "0123.fits")
    assert said.out == "request ids are archive-1 … archive-3 (3 file(s))\n"


def test_refused_files_are_named_and_the_others_are_taken(site):
    said = site.run("missing", "0123.fits", "/dev/null", ".", "0123.fits")
    assert said.status == 1
    assert said.out == "request ids are archive-1 … archive-2 (2 file(s))\n"
    assert said.err.splitlines() == [
        'xfer-submit: Error - unable to access "missing" - No such file or directory',
        'xfer-submit: Error - unable to submit "/dev/null" - it is not a regular file',
        'xfer-submit: Error - unable to submit "." - it is a directory: name its files, '
        "or use --files-from",
    ]


def test_ids_with_a_gap_are_printed_in_runs(site):
    site.run("0123.fits")
    (site.queue.root / "held/archive-3").mkdir()
    said = site.run("0123.fits", "0123.fits", "0123.fits")
    assert said.out == (
        "request id is archive-2 (1 file(s))\nrequest ids are archive-4 … archive-5 (2 file(s))\n"
    )


def test_silent_submit_prints_only_errors(site):
    said = site.run("-s", "0123.fits", "missing")
    assert (said.status, said.out) == (1, "")
    assert said.err.count("\n") == 1
    assert site.jobs() == ["archive-1"]


def test_json_is_one_object_with_flat_rows(site):
    said = site.run("--json", "0123.fits", "missing")
    assert said.status == 1
    printed = json.loads(said.out)
    known, _ = site.job("archive-1")
    assert printed == {
        "version": 1,
        "jobs": [
            {
                "id": "archive-1",
                "uid": known.uid,
                "queue": "archive",
                "name": "0123.fits",
                "path": str(site.root / "0123.fits"),
                "size": 1,
                "checksum": known.checksum,
                "submitted": dates.iso(known.submitted),
            }
        ],
    }


def test_terminal_is_not_acted_upon_by_a_name(site):
    said = site.run(b"\x1b[2J\n\xff")
    assert said.err == (
        'xfer-submit: Error - unable to access "%1B[2J%0A%FF" - No such file or directory\n'
    )


def test_ids_are_printed_in_an_old_locale_too(site):
    said = site.given("0123.fits", "0123.fits", PYTHONIOENCODING="latin-1")
    assert (said.status, said.err) == (0, "")
    assert "archive-1 \\u2026 archive-2" in said.out


def test_reader_of_the_output_that_has_gone_is_no_tragedy(site):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "0123.fits"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert b"Traceback" not in done.stderr
    assert site.jobs() == ["archive-1"]


def test_id_is_printed_after_the_last_sync_and_the_sender_is_woken(site, monkeypatch):
    site.queue.open_wake()
    calls = trace(monkeypatch, site.queue.root)
    echo = click.echo

    def printed(message: str, **where: bool) -> None:
        calls.append(message)
        echo(message, **where)

    monkeypatch.setattr(click, "echo", printed)
    site.run("0123.fits")
    assert calls[-4:] == [
        "rename tmp/archive-1 pending/archive-1",
        "fsync pending",
        "write wake",
        "request id is archive-1 (1 file(s))",
    ]


@pytest.mark.root
def test_file_that_one_may_not_read_is_refused_in_lps_words(site, monkeypatch):
    os.chmod("0123.fits", 0o600)
    for name, value in {"XFER_CONF": "lpxfer.conf", "XFER_SPOOL": "spool"}.items():
        monkeypatch.setenv(name, value)
    Path("spool").mkdir()
    os.chown("spool", 65534, 65534)
    site.root.chmod(0o755)

    def as_nobody() -> None:
        sys.stderr = open("said", "w")
        os.setgid(65534)
        os.setuid(65534)
        with pytest.raises(SystemExit, match="1"):
            xfer_submit.main.main(["0123.fits"], prog_name="xfer-submit")

    apart(as_nobody)
    assert Path("said").read_text() == (
        'xfer-submit: Error - unable to access "0123.fits" - Permission denied\n'
    )


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["-o", "inst=minicam", "-o", "maxftp=0"], ["-o", "inst=minicam,maxftp=0"]]
)
def test_saos_options_are_taken_in_both_forms(site, words):
    assert site.run(*words, "0123.fits").status == 0
    known, _ = site.job("archive-1")
    assert (known.inst, known.maxftp) == ("minicam", "0")


def test_defaults_are_saos(site):
    site.run("0123.fits")
    known, routing = site.job("archive-1")
    assert (known.inst, known.maxftp, known.dir, known.priority) == ("undef", "600", None, None)
    assert routing == Routing()


def test_defaults_of_the_queue_can_be_set(site):
    site.run("-d", "linked", "0123.fits")
    known, _ = site.job("linked-1")
    assert (known.inst, known.maxftp) == ("megacam", "60")


def test_other_keywords_travel_untouched(site):
    site.run("-o", "Observer=B. Wyatt,dir=a/b", "-o", "note=x%2Cy%20z", "0123.fits")
    known, _ = site.job("archive-1")
    assert known.others == {"Observer": "B. Wyatt", "note": "x,y%20z"}
    assert known.dir == "a/b"


def test_routing_keywords_never_enter_the_control_file(site):
    password = site.file("pw", b"secret\n")
    os.chmod(password, 0o600)
    said = site.run("-o", "remhost=h:22,rempath=/p,remuser=u,rempw=file:pw,x=1", "0123.fits")
    assert said.status == 0
    _, routing = site.job("archive-1")
    assert (routing.remhost, routing.rempath, routing.remuser) == ("h:22", "/p", "u")
    assert routing.rempw == f"file:{os.fsdecode(password)}"
    text = (site.queue.root / "pending/archive-1/control").read_bytes()
    assert b"rem" not in text
    assert b"\nx=1\n" in text
    for path in (site.queue.root / "pending/archive-1").iterdir():
        assert b"secret" not in path.read_bytes()


def test_literal_password_is_refused_with_the_reason_and_the_safe_way(site):
    said = site.run("-o", "rempw=secret", "0123.fits")
    assert (said.status, said.out) == (2, "")
    assert said.err == (
        "xfer-submit: Error - a password on a command line can be read by everybody on this "
        "machine; put it into a file of mode 0600 and use rempw=file:/path/to/it\n"
    )
    assert site.jobs() == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_password_file_that_others_can_read_is_refused(site, mode):
    os.chmod(site.file("pw"), mode)
    said = site.run("-o", "rempw=file:pw", "0123.fits")
    assert said.status == 1
    assert said.err == 'xfer-submit: Error - "pw" can be read by others: chmod 600 it\n'


def test_password_file_that_is_missing_is_refused(site):
    said = site.run("-o", "rempw=file:/nowhere/pw", "0123.fits")
    assert said.status == 1
    assert 'unable to access "/nowhere/pw" - No such file or directory' in said.err


@pytest.mark.parametrize(
    "words, reason",
    [
        (["-o", "inst"], '"-o inst" is not keyword=value; write %2C for a comma inside a value'),
        (["-o", "uid=x"], '"uid" is set by the system, not with -o'),
        (["-o", "priority=7"], '"priority" is set by the system, not with -o; use -q'),
        (["-o", "dir=../../etc"], "bad dir '../../etc'"),
        (["-o", "inst=../x"], 'bad instrument name "../x"'),
        (["-o", "maxftp=soon"], "maxftp is a number of seconds, 0 for no limit, not 'soon'"),
        (["-H", "25:00"], "-H takes hold, immediate or HH:MM (UTC)"),
        (["-H", "tomorrow"], "-H takes hold, immediate or HH:MM (UTC)"),
        (["-0"], "-0 says how the names in --files-from end; give both"),
        (["-d", "nosuch"], 'there is no queue "nosuch"; known: archive, linked'),
        (["-d", "../x"], 'there is no queue "../x"'),
        (["--link"], "--link is not allowed on queue archive: its `link` is not yes"),
    ],
)
def test_impossible_request_is_a_usage_error_and_nothing_is_queued(site, words, reason):
    said = site.run(*words, "0123.fits")
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"xfer-submit: Error - {reason}")
    assert site.jobs() == []


@pytest.mark.parametrize(
    "words", [["-q", "0"], ["-q", "101"], ["-q", "x"], ["--colour"], ["-h"], ["-o"]]
)
def test_click_refuses_the_rest_as_usage_errors(site, words):
    said = site.run(*words, "0123.fits") if words != ["-o"] else site.run("0123.fits", "-o")
    assert said.status == 2
    assert "Error: " in said.err
    assert site.jobs() == []


def test_no_files_is_a_usage_error(site):
    said = site.run()
    assert said.status == 2
    assert said.err == "xfer-submit: Error - no files: name some, or give --files-from\n"


@pytest.mark.parametrize("priority", [1, 50, 100])
def test_priority_is_kept(site, priority):
    site.run("-q", str(priority), "0123.fits")
    known, routing = site.job("archive-1")
    assert (known.priority, routing.priority) == (priority, priority)


def test_held_job_is_held_with_its_reason(site):
    site.run("-H", "hold", "0123.fits")
    _, routing = site.job("archive-1", State.HELD)
    assert (routing.reason, routing.not_before) == ("held at submit", None)


def test_job_may_have_to_wait_until_a_time_today_or_tomorrow(site):
    now = datetime.now(UTC)
    for number, minutes in enumerate((-2, 60), 1):
        clock = now + timedelta(minutes=minutes)
        site.run("-H", f"{clock:%H:%M}", "0123.fits")
        _, routing = site.job(f"archive-{number}")
        assert routing.not_before is not None
        wait = routing.not_before - now
        assert timedelta(0) < wait <= timedelta(days=1)
        assert (routing.not_before.hour, routing.not_before.minute) == (clock.hour, clock.minute)
        assert wait > timedelta(hours=23) if minutes < 0 else wait < timedelta(hours=2)


def test_immediate_job_waits_for_nothing(site):
    site.run("-H", "immediate", "0123.fits")
    assert site.job("archive-1")[1] == Routing()


def test_file_is_copied_unless_it_is_to_be_linked(site):
    site.run("-d", "linked", "-c", "0123.fits")
    site.run("-d", "linked", "--link", "0123.fits")
    pending = site.spool.queue("linked").root / "pending"
    assert not os.path.samefile("0123.fits", pending / "linked-1/data")
    assert os.path.samefile("0123.fits", pending / "linked-2/data")


def test_version_and_help(site):
    assert site.run("--version").out.startswith("xfer-submit ")
    assert "--files-from FILE" in site.run("--help").out


# --- names from a file -------------------------------------------------------------------------


def test_names_are_read_one_a_line(site):
    site.file("a b"), site.file(b"\xff")
    site.file("list", b"0123.fits\n\na b\n\xff")
    said = site.run("--files-from", "list")
    assert said.out == "request ids are archive-1 … archive-3 (3 file(s))\n"
    assert site.job("archive-3")[0].name == "\udcff"


def test_names_that_end_in_nul_may_hold_newlines(site):
    site.file("two\nlines")
    site.file("list", b"two\nlines\0" + b"0123.fits\0")
    said = site.run("--files-from", "list", "-0")
    assert (said.status, site.jobs()) == (0, ["archive-1", "archive-2"])
    assert site.job("archive-1")[0].name == "two\nlines"


def test_names_are_read_from_standard_input_after_those_on_the_command_line(site):
    site.file("a b")
    said = site.given("--files-from", "-", "-0", "0123.fits", data=b"a b\0")
    assert said.out == "request ids are archive-1 … archive-2 (2 file(s))\n"
    assert site.job("archive-1")[0].name == "0123.fits"
    assert site.job("archive-2")[0].name == "a b"


def test_forgotten_zero_is_told(site):
    said = site.given("--files-from", "-", data=b"0123.fits\0")
    assert said.status == 1
    assert "there is a NUL in its name: names that end in NUL need -0" in said.err


def test_empty_list_is_nothing_to_do(site):
    said = site.given("--files-from", "-", data=b"\n")
    assert (said.status, said.out, said.err) == (0, "", "")


@pytest.mark.parametrize(
    "source, reason", [("missing", "No such file or directory"), (".", "Is a directory")]
)
def test_list_that_cannot_be_read_is_told(site, source, reason):
    said = site.run("--files-from", source, "0123.fits")
    assert (said.status, site.jobs()) == (1, [])
    assert said.err == f'xfer-submit: Error - unable to access "{source}" - {reason}\n'


# --- queues and the spool -----------------------------------------------------------------------


def test_queue_is_named_by_d_then_the_environment_then_the_configuration(site, monkeypatch):
    assert "archive-1" in site.run("0123.fits").out
    monkeypatch.setenv("XFER_QUEUE", "linked")
    assert "linked-1" in site.run("0123.fits").out
    assert "archive-2" in site.run("-d", "archive", "0123.fits").out


def test_no_queue_is_a_usage_error_that_says_how_to_name_one(site):
    (site.root / "lpxfer.conf").write_text("[queue archive]\n")
    said = site.run("0123.fits")
    assert said.status == 2
    assert said.err == (
        "xfer-submit: Error - no queue: use -d QUEUE, $XFER_QUEUE or queue = in lpxfer.conf\n"
    )


def test_queue_that_rejects_takes_nothing_and_says_why(site):
    site.queue.switch(
        lambda on: replace(on, accepting=False, accepting_reason="disk is being moved \x1b[2J")
    )
    said = site.run("0123.fits")
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        'xfer-submit: Error - queue "archive" is not accepting jobs: disk is being moved %1B[2J\n'
    )
    assert site.jobs() == []


def test_queue_that_is_disabled_takes_jobs(site):
    site.queue.switch(lambda on: replace(on, enabled=False))
    assert site.run("0123.fits").status == 0


def test_configuration_is_named_by_the_option_before_the_environment(site):
    (site.root / "other.conf").write_text("[queue other]\n")
    assert "other-1" in site.run("--config", "other.conf", "-d", "other", "0123.fits").out


def test_wrong_configuration_is_a_usage_error_with_file_and_line(site):
    (site.root / "lpxfer.conf").write_text("[lpxfer]\nquue = archive\n")
    said = site.run("0123.fits")
    assert said.status == 2
    assert said.err.startswith(f"xfer-submit: Error - {site.root}/lpxfer.conf:2: [lpxfer] unknown")


def test_spool_that_cannot_be_used_is_an_error(site, monkeypatch):
    monkeypatch.setenv("XFER_SPOOL", "/proc/spool")
    said = site.run("0123.fits")
    assert said.status == 1
    assert "queue archive cannot be set up in /proc/spool: " in said.err


# --- exit statuses ----------------------------------------------------------------------------


def test_full_spool_is_try_again_later(site, monkeypatch):
    monkeypatch.setenv("XFER_RESERVE", "900T")
    said = site.run("0123.fits")
    assert (said.status, said.out) == (75, "")
    assert 'unable to submit "0123.fits" - no space on the spool: 1 bytes, with ' in said.err
    assert said.err.endswith("are there; try again later\n")


def test_source_that_changes_is_try_again_later(site, monkeypatch):
    monkeypatch.setattr(step, "_identity", lambda _: os.urandom(8))
    said = site.run("0123.fits")
    assert (said.status, site.jobs()) == (75, [])
    assert 'unable to submit "0123.fits" - it changed while it was read' in said.err


def test_disk_error_is_told_in_lps_words(site, monkeypatch):
    assert site.jobs() == []
    monkeypatch.setattr(durable, "sync", refuse(errno.EIO))
    monkeypatch.setattr(Queue, "reserve", lambda *_: range(1, 2))
    said = site.run("0123.fits")
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        f'xfer-submit: Error - unable to submit "0123.fits" - the spool {site.root}/spool/archive '
        "failed: Input/output error\n"
    )


def test_refusal_outweighs_try_again_later(site, monkeypatch):
    monkeypatch.setenv("XFER_RESERVE", "900T")
    assert site.run("missing", "0123.fits").status == 1
    assert site.run("0123.fits", "missing").status == 1


def test_interrupted_submit_prints_the_ids_that_stand(site, monkeypatch):
    monkeypatch.setattr(step, "BATCH_FILES", 2)
    take, taken = step._take, []

    def interrupted(*args: object) -> object:
        taken.append(args)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return take(*args)

    monkeypatch.setattr(step, "_take", interrupted)
    said = site.run(*["0123.fits"] * 5)
    assert said.status == 1
    assert "request ids are archive-1 … archive-2 (2 file(s))\n" in said.out
    assert "Aborted!" in said.err
    assert site.jobs() == ["archive-1", "archive-2"]


@pytest.mark.parametrize("count", [1, 2])
def test_command_that_is_killed_anywhere_has_printed_ids_of_whole_jobs_only(
    site, monkeypatch, count
):
    number = 0
    while True:
        number += 1
        spool = site.root / f"spool{number}"
        monkeypatch.setenv("XFER_SPOOL", str(spool))
        output = site.root / f"output{number}"

        def act(output: Path = output) -> None:
            with open(output, "w") as out, contextlib.redirect_stdout(out):
                with pytest.raises(SystemExit):
                    xfer_submit.main.main(["0123.fits"] * count, prog_name="xfer-submit")

        died = killed(act, number, "after")
        queue = Spool(spool).queue("archive")
        printed = output.exists() and output.read_text()
        found = [entry.id for entry in queue.entries(State.PENDING)]
        assert not printed or len(found) == count
        for job_id in found:
            with queue.open(job_id, State.PENDING) as job:
                job.check(links=False)
        with queue.locked():
            queue.recover(datetime.now(UTC))
        assert os.listdir(queue.root / "tmp") == []
        queue.close()
        if not died:
            break
    assert printed
    assert number > 20


# --- --wait ---------------------------------------------------------------------------------------


class Finisher(threading.Thread):
    """A sender that finishes each job it finds, until its block ends."""

    def __init__(self, site: Site, outcome: State = State.COMPLETED) -> None:
        super().__init__()
        self.site, self.outcome = site, outcome
        self.stop = threading.Event()
        self.start()

    def run(self) -> None:
        spool = Spool(self.site.root / "spool")
        queue = spool.queue("archive")
        with queue.locked():
            while not self.stop.wait(0.02):
                for entry in queue.entries(State.PENDING):
                    self.end(queue, entry.id)
        spool.close()

    def end(self, queue: Queue, job_id: str) -> None:
        if self.outcome in (State.COMPLETED, State.CANCELED):
            queue.finish(job_id, State.PENDING, self.outcome, "receipt", datetime.now(UTC))
        else:
            queue.move(job_id, State.PENDING, self.outcome)

    def __enter__(self) -> "Finisher":
        while not self.site.queue.running():
            self.stop.wait(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join()


def test_wait_ends_well_when_all_jobs_are_completed(site):
    with Finisher(site):
        said = site.run("--wait", *["0123.fits"] * 3)
    assert said.status == 0
    assert said.out == "request ids are archive-1 … archive-3 (3 file(s))\n"
    assert said.err == ""


@pytest.mark.parametrize(
    "outcome, word",
    [
        (State.CANCELED, "is canceled: see xfer-stat -l archive-1"),
        (State.FAILED, "is failed: see xfer-stat -l archive-1"),
        (State.QUARANTINED, "is quarantined: see xfer-stat -l archive-1"),
    ],
)
def test_wait_ends_badly_when_a_job_is_not_completed(site, outcome, word):
    with Finisher(site, outcome):
        said = site.run("--wait", "0123.fits")
    assert said.status == 1
    assert said.err == f"xfer-submit: Error - archive-1 {word}\n"


def test_wait_for_some_with_others_refused_ends_badly(site):
    with Finisher(site):
        assert site.run("--wait", "0123.fits", "missing").status == 1


def test_wait_follows_a_job_to_another_queue(site):
    class Mover(Finisher):
        def end(self, queue: Queue, job_id: str) -> None:
            spool = Spool(site.root / "spool")
            other = spool.queue("linked")
            queue.move_to_queue(job_id, State.PENDING, other)
            other.finish(job_id, State.PENDING, State.COMPLETED, "receipt", datetime.now(UTC))
            spool.close()

    with Mover(site):
        assert site.run("--wait", "0123.fits").status == 0


def test_wait_without_a_sender_says_so(site):
    waiting = subprocess.Popen([*COMMAND, "--wait", "-s", "0123.fits"], stderr=subprocess.PIPE)
    assert waiting.stderr is not None
    said = waiting.stderr.readline()
    assert said == b"xfer-submit: no sender serves queue archive; waiting\n"
    with Finisher(site):
        assert waiting.wait() == 0
    assert waiting.stderr.read() == b""
    waiting.stderr.close()


def test_wait_shows_a_bar_on_a_terminal(site):
    leader, follower = pty.openpty()
    with Finisher(site):
        waiting = subprocess.Popen([*COMMAND, "--wait", "-s", "0123.fits"], stderr=follower)
        assert waiting.wait() == 0
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # its end
        while more := os.read(leader, 4096):
            shown += more
    os.close(leader)
    assert b"1 file(s)" in shown and b"100%" in shown


def test_wait_that_is_interrupted_leaves_the_job_queued(site):
    waiting = subprocess.Popen(
        [*COMMAND, "--wait", "0123.fits"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert waiting.stderr is not None
    assert b"waiting" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate()
    assert waiting.returncode == 1
    assert (out, b"Traceback" in err) == (b"request id is archive-1 (1 file(s))\n", False)
    assert b"no longer waiting; the jobs stay in the queue" in err
    assert site.jobs() == ["archive-1"]

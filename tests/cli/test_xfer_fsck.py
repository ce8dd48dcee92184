"""xfer-fsck at the command line: silent when all is well, one line for each finding."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from arrivals import Site, arrive

from lpxfer.formats.control import Control
from lpxfer.stores.queue import Queue
from lpxfer.stores.spool import Spool

MAIN = "from lpxfer.cli.xfer_fsck import main; main(prog_name='xfer-fsck')"

Run = Callable[..., tuple[int, str, str]]
MakeJob = Callable[..., Control]


@pytest.fixture
def environ(tmp_path: Path, spool: Spool) -> dict[str, str]:
    conf = tmp_path / "lpxfer.conf"
    conf.write_text(f"[lpxfer]\nspool = {spool.root}\n[queue archive]\n[queue backup]\n")
    return os.environ | {"XFER_CONF": str(conf)}


@pytest.fixture
def run(environ: dict[str, str]) -> Run:
    """Runs xfer-fsck; returns exit status, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        command = [sys.executable, "-c", MAIN, *map(str, arguments)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def damage(queue: Queue, job_id: str = "archive-1") -> None:
    (queue.root / "pending" / job_id / "data").write_bytes(b"SIMPLE  +")


def test_nothing_is_printed_when_all_is_well(run: Run, queue: Queue, make_job: MakeJob) -> None:
    make_job(queue)
    assert run() == (0, "", "")
    assert run("archive", "backup") == (0, "", "")
    assert run("--repair") == (0, "", "")


def test_a_finding_is_a_line_and_exit_status_1_until_it_is_repaired(
    run: Run, queue: Queue, make_job: MakeJob
) -> None:
    known = make_job(queue)
    damage(queue)
    (queue.root / "held").chmod(0o755)
    (queue.root / "sent/a\x1b]0;title\x07").touch()
    wrong = "sha256:fb8303debad2c321f967154276a86ecec6c73f5dda1d27ada4791f4f8107d228"
    lines = [
        "archive/sent/a%1B]0;title%07: is not a job",
        f"archive-1: data has checksum {wrong} but the control file says {known.checksum}",
        f"warning: archive/held: is open to others, mode 0755: chmod 0700 {queue.root}/held",
    ]
    assert run("archive") == (1, "".join(f"{line}\n" for line in lines), "")
    assert run("backup") == (0, "", "")
    lines[0] += "; set aside as quarantine/a%1B]0;title%07.1"
    lines[1] += "; set aside as quarantine/archive-1"
    assert run("--repair") == (1, "".join(f"{line}\n" for line in lines), "")
    assert run() == (0, lines[2] + "\n", "")


def test_json_has_every_finding_and_what_was_checked(
    run: Run, queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue)
    assert json.loads(run("--json")[1]) == {
        "version": 1, "findings": [], "checked": {"jobs": 1, "bytes": 9},
    }  # fmt: skip
    (queue.root / "pending/archive-1/data").unlink()
    (queue.root / os.fsdecode(b"pending/\xff")).touch()
    status, output, _ = run("--json", "--repair")
    assert status == 1
    report = json.loads(output)
    assert report["checked"] == {"jobs": 1, "bytes": 0}
    stray, job = report["findings"]
    assert stray["where"] == "archive/pending/\udcff" and stray["id"] == ""
    assert job == {
        "where": "archive/pending/archive-1", "id": "archive-1", "invariant": "job",
        "message": "data is missing; set aside as quarantine/archive-1",
        "severity": "error", "repaired": True,
    }  # fmt: skip


def test_repair_beside_a_sender_changes_nothing_and_exits_75(
    run: Run, queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue)
    damage(queue)
    with queue.locked():
        status, output, errors = run("--repair")
    assert status == 75 and output.startswith("archive-1: data has checksum")
    assert errors == ("xfer-fsck: Error - a sender serves queue archive: stop the sender first\n")
    assert (queue.root / "pending/archive-1").exists()


def test_an_instrument_directory_is_checked_with_d(run: Run, tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    arrive(site.incoming, name="0123\n.fits")
    site.sweep()
    assert run("-d", site.home) == (0, "", "")
    assert json.loads(run("--json", "-d", site.home)[1])["checked"] == {
        "files": 1, "bytes": 9, "unrecorded": 0,
    }  # fmt: skip
    placed = site.home / "2003.0401/0123\n.fits"
    placed.chmod(0o644)
    placed.write_bytes(b"torn")
    line = "2003.0401/0123%0A.fits: has 4 bytes but the record says 9"
    assert run("-d", site.home) == (1, f"{line}\n", "")
    status, output, errors = run("--repair", "-d", site.home)
    assert (status, errors) == (1, "") and output.startswith(f"{line}; set aside as quarantine/")
    assert run("-d", site.home) == (0, "", "")


def test_an_unknown_queue_is_refused_and_the_spool_is_left_alone(run: Run, spool: Spool) -> None:
    status, output, errors = run("nowhere")
    assert (status, output) == (2, "") and 'there is no queue "nowhere"' in errors
    assert run("archive") == (0, "", "")
    assert not spool.root.exists()


def test_wrong_usage_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("-d", tmp_path, "archive")[0] == 2
    assert run("-d")[0] == 2
    assert run("-d", tmp_path) == (
        1, "", f"xfer-fsck: Error - {tmp_path} has no xferlogs: name an instrument directory "
        "whose transfer logs are in it\n",
    )  # fmt: skip
    status, _, errors = run("-d", tmp_path / "no")
    assert status == 1 and "No such file or directory" in errors


def test_a_terminal_shows_how_much_was_checked(
    environ: dict[str, str], queue: Queue, make_job: MakeJob
) -> None:
    make_job(queue)
    ours, theirs = os.openpty()
    try:
        command = [sys.executable, "-c", MAIN]
        subprocess.run(command, env=environ, stderr=theirs, stdout=subprocess.DEVNULL, check=True)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "checking" in shown and "100%" in shown
    assert shown.endswith("checked: 1 jobs, 9 bytes\r\n")

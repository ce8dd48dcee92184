"""xfer-audit at the command line: is last night complete, and what may be deleted?"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lpxfer.formats import names, record
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.formats.record import Record
from lpxfer.stores.queue import Queue
from lpxfer.stores.receipts import Receipts
from lpxfer.stores.spool import Spool

MAIN = "from lpxfer.cli.xfer_audit import main; main(prog_name='xfer-audit')"
NIGHT = ["-B2003-04-01", "-n", "-D1", "-zAmerica/Phoenix"]

Run = Callable[..., tuple[int, str, str]]
Archive = Callable[..., Control]


@pytest.fixture
def run(tmp_path: Path, spool: Spool) -> Run:
    """Runs xfer-audit; returns exit status, standard output and standard error."""
    conf = tmp_path / "lpxfer.conf"
    conf.write_text(
        f"[lpxfer]\nspool = {spool.root}\nhost = telescope\nreceipts = {tmp_path}/receipts\n"
        f"[queue archive]\n[queue backup]\n"
        f"[instrument minicam]\nalias = mc\ndir = {tmp_path}/minicam\n"
    )

    def run(*arguments: object, **environ: str) -> tuple[int, str, str]:
        command = [sys.executable, "-c", MAIN, *map(str, arguments)]
        env = os.environ | {"XFER_CONF": str(conf)} | environ
        done = subprocess.run(command, env=env, capture_output=True, check=False)
        out, err = (os.fsdecode(text) for text in (done.stdout, done.stderr))
        return done.returncode, out, err

    return run


@pytest.fixture
def archive(tmp_path: Path, queue: Queue, make_job: Callable[..., Control]) -> Archive:
    """Takes a file through both sites; `to` is where it stops."""
    (tmp_path / "files").mkdir()

    def archive(name: str = "a.fits", to: str = "completed", **fields: object) -> Control:
        path = tmp_path / "files" / name
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
        when = datetime(2003, 4, 2, 4, tzinfo=UTC)
        number = int((queue.root / "seq").read_text() or 0) + 1
        known = make_job(
            queue, path.read_bytes(), State.SENT, name=name, path=str(path), submitted=when,
            uid=names.make_uid(when, "telescope", f"archive-{number}", os.urandom(4)),
            mtime_ns=path.stat().st_mtime_ns, **fields,
        )  # fmt: skip
        if to in ("archived", "completed"):
            entry = record.of_arrival(when, "stored", known, f"2003.0401/{name}")
            with Receipts(str(tmp_path / "receipts"), "mcam") as receipts:
                receipts.make()
                receipts.append("telescope", when, entry)
            logs = tmp_path / "minicam/xferlogs"
            logs.mkdir(parents=True, exist_ok=True)
            with open(logs / "20030402.tdcin.log", "ab") as log:
                log.write(record.dump(entry))
        if to == "completed":
            end = when + timedelta(minutes=5)
            queue.finish(known.job, State.SENT, State.COMPLETED, "stored", end)
        return known

    return archive


def test_a_complete_night_is_said_to_be_complete(
    run: Run, archive: Archive, tmp_path: Path, spool: Spool
) -> None:
    archive("a.fits")
    archive("b.fits", to="archived")
    assert run(*NIGHT) == (0, f"""\
Submitted from 2003-04-01 12:00:00 MST to 2003-04-02 12:00:00 MST
  spool: {spool.root}, from 2003-04-02 on
  receipts: {tmp_path}/receipts, from 2003-04-02 on
  transfer logs: {tmp_path}/minicam/xferlogs, from 2003-04-02 on

queue    inst     submitted    archived    pending    held    sent    failed    canceled
archive  minicam  2            2           0          0       0       0         0

1 more: the sender has not read the receipt yet
Nothing is owed: 2 submitted.
""", "")  # fmt: skip
    assert run(*NIGHT, "+v") == (0, "", "")
    lines = run(*NIGHT, "-v")[1].splitlines()
    assert [line.split()[:4] for line in lines if "fits" in line] == [
        ["archive-1", "archived", "minicam", "a.fits"],
        ["archive-2", "archived", "minicam", "b.fits"],
    ]


def test_what_is_owed_is_named_and_is_exit_status_1(run: Run, archive: Archive) -> None:
    archive("a.fits")
    archive("x\x1b]0;y\x07.fits", to="sent", others={"seq": "3"})
    archive("b.fits", others={"seq": "6"})
    status, out, err = run(*NIGHT, "+v")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        "job        account    inst     name              reason",
        "archive-2  sent       minicam  x%1B]0;y%07.fits",
        "minicam: seq 4 to 5 is missing",
    ]
    assert run(*NIGHT)[1].splitlines()[-1] == (
        "1 of 3 owed, or not adding up; 1 gap(s) or doubles in numbers."
    )


def test_what_was_not_looked_at_is_said(run: Run, archive: Archive, tmp_path: Path) -> None:
    archive()
    os.rename(tmp_path / "receipts", tmp_path / "copy")
    os.rename(tmp_path / "minicam", tmp_path / "mounted")
    status, out, _ = run(*NIGHT)
    assert status == 0
    assert "  receipts: not looked at\n  transfer logs: not looked at\n" in out
    assert "1 more: archived by the finished log's word alone\n" in out
    logs = tmp_path / "mounted/xferlogs"
    for receipts in (tmp_path / "copy", tmp_path / "copy/telescope"):
        status, out, _ = run(*NIGHT, "--receipts", receipts, "-l", logs)
        assert status == 0 and "not looked at" not in out and "more:" not in out


def test_the_archive_site_needs_no_spool(run: Run, archive: Archive, tmp_path: Path) -> None:
    archive()
    nowhere = {"XFER_SPOOL": str(tmp_path / "none")}
    status, out, _ = run(*NIGHT, "-i", "mc", **nowhere)
    assert status == 0 and "  spool: not looked at\n" in out and "recorded" in out
    (tmp_path / "minicam/xferlogs/20030402.tdcin.log").write_bytes(b"")
    status, out, _ = run(*NIGHT, "-i", "mc", **nowhere)
    assert status == 1 and "archived, but there is no record in the transfer log" in out


def test_originals_are_listed_for_people_and_for_xargs(
    run: Run, archive: Archive, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    archive("a.fits")
    archive("b\n\udcff.fits")
    archive("c.fits")
    (files / "c.fits").write_bytes(b"changed")
    kept = f"xfer-audit: keep {files}/c.fits: changed since it was submitted\n"
    assert run(*NIGHT, "--safe") == (0, f"{files}/a.fits\n{files}/b%0A%FF.fits\n", kept)
    assert run(*NIGHT, "--safe", "-0") == (0, f"{files}/a.fits\0{files}/b\n\udcff.fits\0", kept)
    archive("a.fits", to="sent")
    status, out, err = run(*NIGHT, "--safe", "-0")
    assert (status, out) == (1, f"{files}/b\n\udcff.fits\0")
    assert err.endswith("something is owed: see xfer-audit without --safe\n")
    rows = json.loads(run(*NIGHT, "--safe", "--json")[1])["originals"]
    assert {os.path.basename(row["path"]): row["safe"] for row in rows} == {
        "a.fits": False, "b\n\udcff.fits": True, "c.fits": False,
    }  # fmt: skip


def test_json_has_flat_rows(run: Run, archive: Archive, tmp_path: Path) -> None:
    archive("a.fits", others={"seq": "1"})
    sent = archive("b.fits", to="sent", others={"seq": "4"})
    status, out, _ = run(*NIGHT, "--json")
    found = json.loads(out)
    assert status == 1 and found["version"] == 1 and found["owed"] is True
    assert (found["start"], found["end"]) == (
        "2003-04-01T19:00:00.000Z", "2003-04-02T19:00:00.000Z",
    )  # fmt: skip
    assert found["sources"][1] == {
        "source": "receipts", "path": f"{tmp_path}/receipts", "from": "2003-04-02",
    }  # fmt: skip
    [account] = found["accounts"]
    assert account["submitted"] == 2 and account["archived"] == account["sent"] == 1
    assert found["jobs"] == [{
        "id": "archive-2", "uid": sent.uid, "queue": "archive", "inst": "minicam",
        "account": "sent", "owed": True, "submitted": "2003-04-02T04:00:00.000Z",
        "name": "b.fits", "path": sent.path, "size": 6, "message": "",
    }]  # fmt: skip
    assert found["missing"] == [{"inst": "minicam", "first": 2, "last": 3, "count": 2}]
    assert found["lost"] == found["doubles"] == []


def test_a_vanished_job_is_named(run: Run, archive: Archive, queue: Queue, tmp_path: Path) -> None:
    for name in "abc":
        archive(name, to="sent")
    os.rename(queue.root / "sent/archive-2", tmp_path / "gone")
    status, out, _ = run(*NIGHT, "+v")
    assert status == 1
    assert "\narchive-2: no job and no record: lost, or of a submit that was killed\n" in out


@pytest.mark.parametrize(
    ("arguments", "environ", "complaint"),
    [
        (["-0"], {}, "-0 goes with --safe"),
        (["--safe", "-0", "--json"], {}, "not with --json"),
        (["--safe"], {}, "--safe needs the spool and the archive's own words"),
        (["-i", "../x"], {}, "bad instrument name"),
        (["-z", "Mars"], {}, 'unknown time zone "Mars"'),
        (["-B", "today"], {}, "not a date"),
        (["nowhere"], {}, 'no queue "nowhere"'),
        ([], {"XFER_SPOOL": "/none"}, 'no spool "/none" here: name --receipts or -l'),
    ],
)
def test_a_question_that_cannot_be_answered_is_wrong_usage(
    run: Run, queue: Queue, arguments: list[str], environ: dict[str, str], complaint: str
) -> None:
    status, out, err = run(*arguments, **environ)
    assert (status, out) == (2, "") and complaint in err


def test_a_named_source_that_cannot_be_read_is_an_error(run: Run, queue: Queue) -> None:
    for option in ("--receipts", "-l"):
        status, out, err = run(option, "/none")
        assert (status, out) == (1, "")
        assert err == 'xfer-audit: Error - unable to access "/none" - No such file or directory\n'


def test_a_line_of_somebody_elses_stops_nothing(run: Run, archive: Archive, tmp_path: Path) -> None:
    archive()
    log = next((tmp_path / "receipts/telescope").iterdir())
    strange = Record(datetime(2003, 4, 2, 5, tzinfo=UTC), "moved", {"uid": "\x1b"})
    log.write_bytes(log.read_bytes() + record.dump(strange) + b"\x1b[2J\n")
    status, out, err = run(*NIGHT)
    assert status == 0 and "\x1b" not in out + err and "1 damaged line(s) passed over" in err

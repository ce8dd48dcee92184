"""xfer-sweep at the command line: lpsweeper's options and examples, many at once, kill -9."""

import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from arrivals import arrive, kinds, records

COMMAND = [str(Path(sys.executable).parent / "xfer-sweep")]
PATIENCE = 60  # seconds for what takes one

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with incoming/, minicam/ and a configuration, which is also $HOME."""
    for name in list(os.environ):
        if name.startswith(("XFER_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XFER_CONF", str(tmp_path / "lpxfer.conf"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lpxfer.conf").write_text(f"[lpxfer]\nincoming = {tmp_path}/incoming\n")
    (tmp_path / "incoming").mkdir()
    (tmp_path / "minicam").mkdir()
    return tmp_path


@pytest.fixture
def run(site: Path) -> Run:
    """Runs xfer-sweep to its end."""

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)

    return call


def quiet(done: subprocess.CompletedProcess[str]) -> bool:
    """Tell whether a command did what it should and printed nothing."""
    return (done.returncode, done.stdout, done.stderr) == (0, "", "")


def placed(home: Path) -> list[str]:
    """Return the files in a directory, without logs and locks."""
    found = [p.relative_to(home) for p in home.rglob("*") if p.is_file()]
    return sorted(str(p) for p in found if p.parts[0] not in (".lock", "xferlogs"))


def test_names_keep_their_bytes_in_an_old_locale(
    site: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `0123-ü.fits` is not another name, or a failure, for the cron of an old account."""
    arrive(site / "incoming", name="ü\u202e.fits")
    second = arrive(site / "incoming", b"other", 2, name="ü\u202e.fits")
    old = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for name, value in old.items():
        monkeypatch.setenv(name, value)
    assert quiet(run("-i", "minicam", "-d", site / "minicam"))
    found = {os.fsdecode(n) for n in os.listdir(os.fsencode(site / "minicam/2003.0401"))}
    assert found == {"ü\u202e.fits", f"ü\u202e.{second.uid}.fits"}
    arrive(site / "incoming", name="ü\u202e.fits")  # delivered again: known, and found there
    assert quiet(run("-i", "minicam", "-d", site / "minicam"))
    assert kinds(records(site / "minicam/xferlogs")) == ["stored", "renamed"]
    fsck = [COMMAND[0].replace("xfer-sweep", "xfer-fsck"), "-d", str(site / "minicam")]
    assert quiet(subprocess.run(fsck, capture_output=True, text=True, timeout=PATIENCE))


# --- SAO's examples -----------------------------------------------------------------------------


def test_example_1_places_a_night_under_its_own_name(site: Path, run: Run) -> None:
    home = site / "data/mc4/mcam/archive/rawdata/data/ARCHMINICAM"
    home.mkdir(parents=True)
    arrive(site / "incoming", path="/h/ftphome/ARCHMINICAM/2002.0523/0123.fits")
    assert quiet(run("-i", "minicam", "-d", home))
    assert placed(home) == ["2002.0523/0123.fits"]
    assert os.listdir(site / "incoming") == []


def test_example_2_sweeps_any_and_logs_below_the_directory(site: Path, run: Run) -> None:
    (site / "lparchive").mkdir()
    known = arrive(site / "incoming", number=1, inst="undef")
    arrive(site / "incoming", number=2, inst="wyatt")
    arrive(site / "incoming", number=3, inst="hectospec")
    assert quiet(run("-A", "-n", "wyatt", "-d", site / "lparchive"))
    assert placed(site / "lparchive") == [
        f"2003.0402/{known.uid}.control", f"2003.0402/{known.uid}.data"
    ]  # fmt: skip
    assert kinds(records(site / "lparchive/xferlogs")) == ["stranger"]
    assert len(os.listdir(site / "incoming")) == 4


def test_example_3_places_without_dates_and_logs_to_a_file(site: Path, run: Run) -> None:
    (site / "lparchive").mkdir()
    arrive(site / "incoming", inst="wyatt")
    home = os.environ["HOME"]
    assert quiet(run("-i", "wyatt", "+D", "-d", f"{home}/lparchive", "-l", f"{home}/lplogs"))
    assert placed(site / "lparchive") == ["0123.fits"]
    assert not (site / "lparchive/xferlogs").exists()
    assert (site / "lplogs").read_text().split()[1] == "stored"


def test_a_stranger_is_swept_out_of_its_miscellaneous_directory(site: Path, run: Run) -> None:
    (site / "any").mkdir()
    arrive(site / "incoming", inst="new")
    assert quiet(run("-A", "-d", "any"))
    assert quiet(run("-i", "new", "-f", "any/2003.0402", "-d", "minicam"))
    assert placed(site / "minicam") == ["2003.0401/0123.fits"] and placed(site / "any") == []
    [receipts] = (site / "receipts/mmto").iterdir()
    assert [line.split()[1] for line in receipts.read_text().splitlines()] == ["stranger", "stored"]


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["-o", "dir=given"], "given/0123.fits"),
        (["-odir=given/deep", "+D"], "given/deep/0123.fits"),
        (["-o", "maxftp=0,dir=a", "-o", "whatever=x,dir=b"], "b/0123.fits"),
        (["+D", "-D"], "2003.0401/0123.fits"),
        (["-D", "+D"], "0123.fits"),
    ],
)
def test_options_say_where_files_go(site: Path, run: Run, words: list[str], where: str) -> None:
    arrive(site / "incoming")
    assert quiet(run("-iminicam", "-dminicam", *words))
    assert placed(site / "minicam") == [where]


@pytest.mark.parametrize(
    ("words", "log"),
    [
        ([], "minicam/xferlogs/DAY.tdcin.log"),
        (["-L", "logs"], "logs/DAY.tdcin.log"),
        (["-L", "{}/logs"], "logs/DAY.tdcin.log"),
        (["-l", "mine"], "minicam/xferlogs/mine"),
        (["-l", "sub/mine"], "minicam/xferlogs/sub/mine"),
        (["-l", "incoming"], "minicam/xferlogs/incoming"),
        (["-L", "logs", "-l", "mine"], "logs/mine"),
        (["-L", "logs", "-l", "sub/mine"], "logs/sub/mine"),
        (["-L", "logs", "-l", "{}/other"], "other"),
        (["-l", "{}/other", "-L", "logs"], "other"),
    ],
)
def test_options_say_where_the_log_is(site: Path, run: Run, words: list[str], log: str) -> None:
    arrive(site / "incoming")
    before = time.gmtime()
    assert quiet(run("-i", "minicam", "-d", "minicam", *(word.format(site) for word in words)))
    days = {time.strftime("%Y%m%d", day) for day in (before, time.gmtime())}
    assert any((site / log.replace("DAY", day)).exists() for day in days)
    found = [*site.rglob("*.tdcin.log"), *site.rglob("mine"), *site.glob("other")]
    assert len(found + [*site.glob("minicam/xferlogs/incoming")]) == 1


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ([], {"undef", "wyatt", "new"}),
        (["-n", "wyatt"], {"undef", "new"}),
        (["-n", "wyatt new"], {"undef"}),
        (["-n", "wyatt,new", "-n", "undef"], set()),
        (["+n", "wyatt"], {"undef", "new", "fast", "own", "short"}),
        (["+n", "wyatt, new", "-n", "fast"], {"undef", "own", "short"}),
    ],
)
def test_the_ignore_list_is_added_to_or_replaced(
    site: Path, run: Run, words: list[str], taken: set[str]
) -> None:
    conf = f"[lpxfer]\nincoming = {site}/incoming\nstrangers = {site}/minicam\n"
    (site / "lpxfer.conf").write_text(f"{conf}[instrument own]\nalias = short\n")
    for number, inst in enumerate(["undef", "wyatt", "new", "fast", "own", "short"], 1):
        arrive(site / "incoming", number=number, inst=inst)
    assert quiet(run("-A", *words))
    found = records(site / "minicam/xferlogs") if taken else []
    assert {entry.fields["inst"] for entry in found} == taken


def test_the_configuration_names_places_and_says_how(site: Path, run: Run) -> None:
    (site / "lpxfer.conf").write_text(
        f"[lpxfer]\nincoming = {site}/incoming\nreceipts = {site}/deep\n"
        f"[instrument minicam]\ndir = {site}/minicam\nalias = mini\nzone = MST\nmode = 0640\n"
    )
    arrive(site / "incoming", path="/raw/0123.fits", inst="mini")
    assert quiet(run("-i", "mini"))
    assert placed(site / "minicam") == ["2003.0401/0123.fits"]
    mode = (site / "minicam/2003.0401/0123.fits").stat().st_mode
    umask = os.umask(0)
    os.umask(umask)
    assert mode & 0o777 == 0o640 & ~umask
    assert (site / "deep/mmto").is_dir()


def test_receipts_are_beside_incoming_whatever_the_input_directory(site: Path, run: Run) -> None:
    (site / "a/b").mkdir(parents=True)
    arrive(site / "a/b")
    assert quiet(run("-i", "minicam", "-d", "minicam", "-f", "a/b"))
    assert (site / "receipts/mmto").is_dir()
    (site / "lpxfer.conf").write_text("")
    arrive(site / "a/b", number=2)
    assert quiet(run("-i", "minicam", "-d", "minicam", "-f", "a/b/"))
    assert (site / "a/receipts/mmto").is_dir()


def test_json_is_one_object_with_flat_rows(site: Path, run: Run) -> None:
    known = arrive(site / "incoming", b"x" * 13_020_000)
    arrive(site / "incoming", number=2, dir="../x")
    done = run("-i", "minicam", "-d", "minicam", "--json")
    answer = json.loads(done.stdout)
    assert answer["version"] == 1 and list(answer) == ["version", "records"]
    row = answer["records"][0]
    assert row["kind"] == "stored" and row["uid"] == known.uid and row["time"].endswith("Z")
    assert (row["size"], row["seconds"], row["rate"], row["attempts"]) == (13020000, 13.02, 1.0, 1)
    assert answer["records"][1]["kind"] == "quarantined" and done.returncode == 1
    assert json.loads(run("-i", "minicam", "-d", "minicam", "--json").stdout)["records"] == []


def test_a_dry_run_tells_and_changes_nothing(site: Path, run: Run) -> None:
    known = arrive(site / "incoming", name="new\nline\x1b")
    before = sorted(site.rglob("*"))
    done = run("-i", "minicam", "-d", "minicam", "--dry-run")
    assert done.stdout == f"would be stored: 2003.0401/new%0Aline%1B  {known.uid}  new%0Aline%1B\n"
    assert done.returncode == 0 and sorted(site.rglob("*")) == before
    done = run("-A", "+n", "x", "-d", "minicam", "--dry-run", "--json")
    assert json.loads(done.stdout)["records"][0]["kind"] == "stranger"
    assert sorted(site.rglob("*")) == before


# --- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give -i INSTRUMENT, or -A"),
        (["-i", "minicam", "-A"], "give -i INSTRUMENT, or -A"),
        (["-d", "minicam"], "give -i INSTRUMENT, or -A"),
        (["-i", "minicam"], "give -d DIR, or set dir in [instrument minicam]"),
        (["-A"], "give -d DIR, or set strangers in [lpxfer]"),
        (["-i", "../x", "-d", "minicam"], "bad instrument name"),
        (["-i", "minicam", "-d", "minicam", "-o", "dir=../x"], "bad dir"),
        (["-i", "minicam", "-d", "minicam", "-o", "dir=xferlogs"], "reserved"),
        (["-i", "minicam", "-d", "minicam", "-o", "dir"], "is not keyword=value"),
        (["-i", "minicam", "-d", "minicam", "-l", "."], "name a directory with -L"),
        (["-i", "minicam", "-d", "minicam", "-l", "../x"], "leads out of the log directory"),
        (["-i", "minicam", "-d", "minicam", "--follow", "--json"], "--follow goes with neither"),
        (["-i", "minicam", "-d", "minicam", "file"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_refused(site: Path, run: Run, words: list[str], told: str) -> None:
    arrive(site / "incoming")
    done = run(*words)
    assert done.returncode == 2 and told in done.stderr and done.stdout == ""
    assert len(os.listdir(site / "incoming")) == 2 and os.listdir(site / "minicam") == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-d", "minicam", "-f", "none"], 'input directory "none" - No such file'),
        (["-d", "minicam", "-f", "lpxfer.conf"], 'input directory "lpxfer.conf" - Not a directory'),
        (["-d", "none"], 'directory to place files in, "none" - No such file'),
    ],
)
def test_a_directory_that_is_not_there_is_an_error(
    site: Path, run: Run, words: list[str], told: str
) -> None:
    done = run("-i", "minicam", *words)
    assert done.returncode == 1 and done.stderr.startswith("xfer-sweep: Error - unable to access")
    assert told in done.stderr


def test_receipts_that_cannot_be_written_are_named_with_their_path(site: Path, run: Run) -> None:
    arrive(site / "incoming")
    (site / "receipts").mkdir(exist_ok=True)
    (site / "receipts/accepts").write_text("in the way")
    done = run("-i", "minicam", "-d", "minicam")
    assert done.returncode == 1
    assert f'"{site}/receipts"' in done.stderr
    assert "[Errno" not in done.stderr


def test_a_refused_arrival_is_told_on_standard_error(site: Path, run: Run) -> None:
    known = arrive(site / "incoming", dir="\x1b]0;x\x07")
    done = run("-i", "minicam", "-d", "minicam")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"xfer-sweep: Error - {known.uid}: quarantined: bad dir")
    assert done.stderr.strip().isprintable()


def test_a_full_instrument_directory_is_told_and_tried_again(site: Path, run: Run) -> None:
    arrive(site / "incoming", b"x" * 200_000)
    arrive(site / "incoming", number=2, name="small.fits")
    words = shlex.join([*COMMAND, "-i", "minicam", "-d", "minicam"])
    limited = f"trap '' XFSZ; ulimit -f 100; exec {words}"  # no file above 100 KiB
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert done.returncode == 75 and "File too large" in done.stderr
    assert placed(site / "minicam") == ["2003.0401/small.fits"]
    assert kinds(records(site / "minicam/xferlogs")) == ["error", "stored"]
    assert quiet(run("-i", "minicam", "-d", "minicam"))
    assert len(placed(site / "minicam")) == 2


def test_a_busy_directory_is_left_without_a_word(site: Path, run: Run) -> None:
    import fcntl

    arrive(site / "incoming")
    with open(site / "minicam/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert quiet(run("-i", "minicam", "-d", "minicam"))
    assert len(os.listdir(site / "incoming")) == 2


# --- many at once, killed, big ------------------------------------------------------------------


def stored_once(site: Path, homes: list[Path], count: int) -> None:
    """Every arrival is in one place, with one record; nothing is left over."""
    assert os.listdir(site / "incoming") == []
    logs = [entry for home in homes for entry in records(home / "xferlogs")]
    assert sorted(e.fields["uid"] for e in logs) == sorted({e.fields["uid"] for e in logs})
    assert len(logs) == count and {e.kind for e in logs} <= {"stored", "stranger"}
    files = [name for home in homes for name in placed(home) if not name.endswith(".control")]
    assert len(files) == count and not list(site.rglob(".sweep.tmp"))


def test_eight_sweeps_at_once_place_every_file_once(site: Path) -> None:
    insts = ["minicam", "megacam", "wyatt"]
    for number in range(1, 121):
        arrive(site / "incoming", number=number, name=f"{number}", inst=insts[number % 3])
    homes = [site / f"home{n}" for n in range(6)]
    for home in homes:
        home.mkdir()
    calls = [["-i", insts[n % 2], "-d", str(homes[n % 4])] for n in range(6)]  # two meet twice
    calls += [["-A", "-d", str(homes[4])], ["-i", "wyatt", "-d", str(homes[5])]]
    sweeps = [subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE) for words in calls]
    for sweep in sweeps:
        assert sweep.communicate(timeout=PATIENCE)[1] == b"" and sweep.returncode == 0
    for words in calls:
        subprocess.run([*COMMAND, *words], check=True)  # what one held when the other looked
    stored_once(site, homes, 120)


def test_sweeps_that_are_killed_again_and_again_place_every_file_once(site: Path) -> None:
    dice = random.Random(20030402)
    for number in range(1, 201):
        arrive(site / "incoming", number=number, name=f"{number}")
    homes = [site / "one", site / "two"]
    for home in homes:
        home.mkdir()
    calls = [[*COMMAND, "-i", "minicam", "-d", str(home)] for home in homes]
    for _ in range(12):
        sweeps = [subprocess.Popen(call) for call in calls]
        time.sleep(0.15 + dice.random() / 5)
        for sweep in sweeps:
            sweep.kill()
            sweep.wait()
    for call in calls * 2:
        subprocess.run(call, check=True)
    stored_once(site, homes, 200)


def test_memory_does_not_grow_with_the_file(site: Path) -> None:
    known = arrive(site / "incoming", b"")
    with open(site / "incoming" / f"{known.uid}.data", "wb") as stream:
        stream.truncate(200 << 20)
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = [*COMMAND, "-i", "minicam", "-d", "minicam"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert "mismatch" in done.stderr  # so it was copied, into quarantine
    kept = site / f"minicam/quarantine/{known.uid}.data"
    assert kept.stat().st_size == 200 << 20
    assert int(done.stdout) < 80 << 10  # KiB
    kept.unlink()  # pytest keeps what tests leave


# --- --follow -----------------------------------------------------------------------------------


@pytest.fixture
def follower(site: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = ["-i", "minicam", "-d", "minicam", "--follow"]
    with open(site / "stderr", "wb") as stderr:
        process = subprocess.Popen([*COMMAND, *words], stdout=stderr, stderr=stderr)
        yield process
        process.kill()
        process.wait()


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_follower_sweeps_as_arrivals_come_and_stops_when_told(
    site: Path, follower: subprocess.Popen[bytes], number: int
) -> None:
    for n in (1, 2):
        arrive(site / "incoming", number=n, name=f"{n}")
        wait_for(lambda n=n: (site / f"minicam/2003.0401/{n}").exists())  # type: ignore[misc]
    wait_for(lambda: os.listdir(site / "incoming") == [])
    follower.send_signal(number)
    assert follower.wait(PATIENCE) == 0
    assert (site / "stderr").read_bytes() == b""


def test_a_follower_outlives_what_goes_wrong_and_says_so_once(
    site: Path, follower: subprocess.Popen[bytes]
) -> None:
    wait_for(lambda: (site / "receipts/accepts/minicam").exists())
    os.rename(site / "incoming", site / "away")
    wait_for(lambda: b"No such file" in (site / "stderr").read_bytes())
    os.rename(site / "away", site / "incoming")
    arrive(site / "incoming")
    wait_for(lambda: os.listdir(site / "incoming") == [])
    assert (site / "stderr").read_bytes().count(b"\n") == 1
    assert follower.poll() is None


# --- who is told --------------------------------------------------------------------------------


def configure(site: Path, *lines: str) -> None:
    with (site / "lpxfer.conf").open("a") as conf:
        conf.write("\n".join(["[instrument minicam]", f"dir = {site}/minicam", *lines, ""]))


def test_a_command_is_told_of_what_was_placed_when_all_is(site: Path, run: Run) -> None:
    (site / "hear").write_text("#!/bin/sh\ncat >>heard; echo >>heard; ls incoming >>left\n")
    (site / "hear").chmod(0o755)
    configure(site, f"tell = {site}/hear")
    for number in (1, 2):
        arrive(site / "incoming", number=number, name=str(number))
    assert quiet(run("-i", "minicam")) and quiet(run("-i", "minicam"))
    rows = [json.loads(line) for line in (site / "heard").read_text().splitlines()]
    assert [row["placed"] for row in rows] == ["2003.0401/1", "2003.0401/2"]
    assert (site / "left").read_bytes() == b""
    log = next((site / "minicam/xferlogs").iterdir()).read_text()
    assert [line.split()[1] for line in log.splitlines()] == ["stored"] * 2 + ["told"] * 2


def test_one_who_cannot_be_told_changes_nothing_else(site: Path, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    configure(site, f"tell = http://127.0.0.1:{port}/")
    arrive(site / "incoming")
    done = run("-i", "minicam")
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("xfer-sweep: Error - cannot tell of placed files, and goes on")
    assert kinds(records(site / "minicam/xferlogs")) == ["stored"]
    assert quiet(run("-i", "minicam"))  # it has been said
    assert quiet(run("-i", "minicam", "--dry-run"))


def test_a_follower_tells_as_files_are_placed_and_hangs_on_nobody(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        configure(site, f"tell = http://127.0.0.1:{silent.getsockname()[1]}/")
        words = ["-i", "minicam", "--follow"]
        with subprocess.Popen([*COMMAND, *words], stderr=subprocess.DEVNULL) as process:
            try:
                arrive(site / "incoming", number=1, name="1")
                connection, _ = silent.accept()  # and nothing is answered
                arrive(site / "incoming", number=2, name="2")
                wait_for(lambda: (site / "minicam/2003.0401/2").exists())
                wait_for(lambda: os.listdir(site / "incoming") == [])
                connection.recv(100)
                connection.close()  # the next one hears it again
                again, _ = silent.accept()
                with again:
                    assert again.recv(5) == b"POST "
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()

"""xfer-logsum at the command line: lplogsum's options, examples and report."""

import gzip
import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lpxfer.cli.xfer_logsum import main
from lpxfer.formats import dates, record
from lpxfer.formats.record import Record
from lpxfer.formats.stages import STAGES

# What lplogsum's documentation shows for
#     lplogsum -i minicam -B 2003-04-01 -D 30 -n -z MST
SAMPLE = """\
        Internet Data Storage Report

Period covered: 2003-04-01 12:00:00 MST  to
                2003-05-01 12:00:00 MST  or 30 days, 0 hours

Instrument: minicam      689 files       0 errors

FTP performance for 689 files:
  Files sizes:  Min =   5497920 bytes
                Max =  41670700

  Median rate:  0.92 MB/s   Median Time:  13 seconds
     Min        0.47           Min         5
     Max        2.20           Max        75

   356  at  0.0 < rate <= 1.0 MB/sec
   320  at  1.0 < rate <= 2.0
    13  at  2.0 < rate <= 4.0
     0  at  4.0 < rate <= 8.0
     0  at  8.0 < rate
"""

SIZES = [5_497_920, *[11_000_000] * 687, 41_670_700]
SECONDS = [75.0, *[20.4] * 343, 13.02, *[7.5] * 343, 5.0]
RATES = [0.47, *[0.81] * 343, 0.92, *[1.0] * 11, *[1.39] * 320, *[2.2] * 13]
ROOT = Path(__file__).parents[2]

FIRST = datetime(2003, 4, 1, 19, tzinfo=UTC)  # noon MST


def entry(number: int, time: datetime, kind="stored", inst="minicam", **fields: object) -> bytes:
    known = {"inst": inst, "uid": f"{time:%Y%m%dT%H%M%SZ}-packrat-archive-{number + 1}-0123abcd"}
    known |= {"name": f"{number:04d}.fits", "size": 11_000_000, "seconds": "13.02", "rate": "0.92"}
    return record.dump(Record(time, kind, {k: str(v) for k, v in (known | fields).items()}))


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command line; returns exit status, standard output and standard error."""
    monkeypatch.setenv("XFER_CONF", str(tmp_path / "lpxfer.conf"))
    (tmp_path / "lpxfer.conf").touch()

    def run(line: str, *more: object):
        with pytest.raises(SystemExit) as end:
            main([*shlex.split(line), *map(str, more)], prog_name="xfer-logsum")
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def april(tmp_path):
    """The transfer logs of the sample: a month, and beside it what the report leaves out."""
    logs: dict[str, bytes] = {}
    step = timedelta(days=30) / 689
    for number, values in enumerate(zip(SIZES, SECONDS, RATES, strict=True)):
        size, seconds, rate = values
        time = FIRST + number * step
        line = entry(number, time, "renamed" if number % 100 == 7 else "stored",
                     size=size, seconds=f"{seconds:.2f}", rate=f"{rate:.2f}")  # fmt: skip
        again = entry(number, time, size=size) if number % 50 == 9 else b""
        others = entry(number, time, "duplicate", rate="99") + entry(number, time, inst="megacam")
        name = f"{dates.log_date(time)}.tdcin.log"
        logs[name] = logs.get(name, b"") + line + again + others
    before, after = FIRST - timedelta(milliseconds=1), FIRST + timedelta(days=30)
    logs["20030401.tdcin.log"] += entry(800, before, size=1, rate="99")
    logs["20030501.tdcin.log"] += entry(801, after, size=1, rate="99") + entry(802, after, "error")
    for number, (name, text) in enumerate(logs.items()):
        name, text = [
            (name, text), (name + ".1", text), (name + ".gz", gzip.compress(text))
        ][number % 3]  # fmt: skip
        (tmp_path / name).write_bytes(text)
    return tmp_path


def configure(tmp_path, **directories: object) -> None:
    """Configure instruments with these directories; `mega` is the alias of megacam."""
    text = "".join(f"[instrument {name}]\ndir = {path}\n" for name, path in directories.items())
    text = text.replace("[instrument megacam]\n", "[instrument megacam]\nalias = mega\n")
    (tmp_path / "lpxfer.conf").write_text(text)


def night(directory, time: datetime, inst: str, count: int) -> None:
    """Put a log of some files into an instrument directory."""
    logs = directory / "xferlogs"
    logs.mkdir(parents=True, exist_ok=True)
    name = logs / f"{dates.log_date(time)}.tdcin.log"
    name.write_bytes(b"".join(entry(number, time, inst=inst) for number in range(count)))


def launch(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user of the checkout does, with the Python of the tests."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return subprocess.run(
        [ROOT / "bin" / "xfer-logsum", *arguments],
        env={**os.environ, "PATH": path, **environ},
        capture_output=True,
        text=True,
    )


def period(output: str) -> list[str]:
    """Return the two times of a report."""
    first, second = output.splitlines()[2:4]
    return [first.removeprefix("Period covered: ")[:23], second[16:39]]


# --- the report ---------------------------------------------------------------------------


def test_the_sample_report_of_lplogsum_is_reproduced(run, april):
    assert run("-i minicam -B 2003-04-01 -D 30 -n -z MST -l", april) == (0, SAMPLE, "")


def test_the_launcher_of_the_checkout_prints_the_sample_too(april):
    done = launch("-iminicam", "-B2003-04-01", "-D30", "-nzMST", f"-l{april}")
    assert (done.returncode, done.stdout, done.stderr) == (0, SAMPLE, "")


def test_plus_v_shows_only_the_numbers_of_files_and_errors(run, april):
    assert run("-i minicam +v -B 2003-04-01 -D 30 -n -z MST -l", april) == (
        0, SAMPLE[: SAMPLE.index("\nFTP performance")], "")  # fmt: skip


def test_minus_v_shows_what_the_default_shows(run, april):
    assert run("-v -i minicam -B 2003-04-01 -D 30 -n -z MST -l", april) == (0, SAMPLE, "")


def test_several_logs_are_reported_as_one(run, april):
    other = april / "other"
    other.mkdir()
    for path in sorted(april.glob("*.tdcin.log*"))[::2]:
        path.rename(other / path.name)
    line = f"-i minicam -B 2003-04-01 -D 30 -n -z MST -l {april} -l {other} -l"
    assert run(line, april) == (0, SAMPLE, "")


EMPTY = """\
        Internet Data Storage Report

Period covered: 2003-06-01 00:00:00 MST  to
                2003-06-02 12:00:00 MST  or 1 days, 12 hours

Instrument: minicam        0 files       0 errors
"""


@pytest.mark.parametrize("verbosity", ["", "+v", "-v +v"])
def test_nothing_is_printed_when_nothing_was_transferred(run, april, verbosity):
    line = f"-i minicam {verbosity} -B 2003-06-01 -b 0 -h 36 -z MST -l"
    assert run(line, april) == (0, "", "")


@pytest.mark.parametrize("verbosity", ["-v", "+v -v", "-v -v"])
def test_minus_v_shows_that_nothing_was_transferred(run, april, verbosity):
    line = f"-i minicam {verbosity} -B 2003-06-01 -b 0 -h 36 -z MST -l"
    assert run(line, april) == (0, EMPTY, "")


def test_a_night_of_errors_only_is_not_passed_over_in_silence(run, tmp_path):
    (tmp_path / "log").write_bytes(entry(1, FIRST, "mismatch") + entry(2, FIRST, "quarantined"))
    status, output, _ = run("-i minicam -B 2003-04-01 -b 0 -D 1 --utc -l", tmp_path / "log")
    assert status == 0
    assert output.endswith("Instrument: minicam        0 files       2 errors\n")


def test_files_without_a_known_speed_have_no_performance(run, tmp_path):
    (tmp_path / "log").write_bytes(entry(1, FIRST, seconds="0.000"))
    _, output, _ = run("-i minicam -B 2003-04-01 -b 0 -D 1 --utc -l", tmp_path / "log")
    assert output.splitlines()[5:] == [
        "Instrument: minicam        1 files       0 errors", "", "FTP performance for 0 files"
    ]  # fmt: skip


def test_numbers_that_do_not_fit_lplogsums_columns_stay_in_line(run, tmp_path):
    (tmp_path / "log").write_bytes(
        entry(1, FIRST, size=2_147_483_648, seconds="1234.00", rate="1.74", inst="hectochelle")
        + entry(2, FIRST, size=5_497_920, seconds="0.04", rate="137.45", inst="hectochelle")
    )
    _, output, _ = run("-i hectochelle -B 2003-04-01 -b 0 -D 1 --utc -l", tmp_path / "log")
    assert output.splitlines()[5:14] == [
        "Instrument: hectochelle    2 files       0 errors",
        "",
        "FTP performance for 2 files:",
        "  Files sizes:  Min =    5497920 bytes",
        "                Max = 2147483648",
        "",
        "  Median rate:  69.59 MB/s   Median Time:  617 seconds",
        "     Min         1.74           Min          0",
        "     Max       137.45           Max       1234",
    ]


# --- the examples of lplogsum's documentation, and what they say about options ------------


def test_the_last_24_hours_by_the_short_name(run, tmp_path):
    now = datetime.now(UTC)
    configure(tmp_path, megacam=tmp_path / "mega", hectospec=tmp_path / "spec")
    night(tmp_path / "mega", now - timedelta(hours=23), "megacam", 3)
    status, output, _ = run("-i mega")
    assert status == 0
    assert "or 1 days, 0 hours\n" in output
    assert "Instrument: megacam        3 files       0 errors\n" in output


def test_the_last_48_hours(run, tmp_path):
    now = datetime.now(UTC)
    configure(tmp_path, spec=tmp_path / "spec")
    night(tmp_path / "spec", now - timedelta(hours=47), "spec", 3)
    assert run("-i spec") == (0, "", "")
    assert "or 2 days, 0 hours\n" in run("-i spec -h -48")[1]


@pytest.mark.parametrize(
    "options", ["-n -z MST", "-nz MST", "-nzMST", "-noon -z MST", "-b 12 -zMST"]
)
def test_the_24_hours_to_noon(run, tmp_path, options):
    (tmp_path / "xferlogs").mkdir()
    output = run(f"-i spec -v {options} -l", tmp_path / "xferlogs")[1]
    first, second = period(output)
    assert first.endswith(" 12:00:00 MST") and second.endswith(" 12:00:00 MST")
    today = datetime.now(UTC) - timedelta(hours=7)  # it may be midnight there meanwhile
    assert second[:10] in {f"{today:%Y-%m-%d}", f"{today - timedelta(minutes=1):%Y-%m-%d}"}


def test_a_month_from_midnight_without_blanks_behind_the_letters(run, april):
    output = run("-ichelle -B2003-10-01 -D31 -b0 -zMST -v -l", april)[1]
    assert output.splitlines()[2:6] == [
        "Period covered: 2003-10-01 00:00:00 MST  to",
        "                2003-11-01 00:00:00 MST  or 31 days, 0 hours",
        "",
        "Instrument: chelle         0 files       0 errors",
    ]


@pytest.mark.parametrize(
    "options, hours",
    [
        ("-D 3 -h 5", "0 days, 5 hours"),
        ("-h 5 -D 3", "3 days, 0 hours"),
        ("-D 3 -h 48 -D 7", "7 days, 0 hours"),
        ("-h 5 -D 3 -h 6", "0 days, 6 hours"),
        ("-D3 -h-6", "0 days, 6 hours"),
        ("-D 0", "0 days, 0 hours"),
        ("-D 1.5", "1 days, 12 hours"),
        ("-h 0.5", "0 days, 0.5 hours"),
        ("", "1 days, 0 hours"),
    ],
)
def test_the_last_of_h_and_d_is_used(run, april, options, hours):
    output = run(f"-i x -v -B 2003-04-10 -b 0 -z MST {options} -l", april)[1]
    assert output.splitlines()[3].endswith(f"or {hours}")


@pytest.mark.parametrize(
    "options, start",
    [("-n", "12:00:00"), ("-b 3", "03:00:00"), ("-n -b 3", "03:00:00"), ("-b 3 -n", "12:00:00"),
     ("-b 3 -noon -b 4", "04:00:00"), ("-b-1.5", "22:30:00"), ("-b 0", "00:00:00")],
)  # fmt: skip
def test_the_last_of_b_and_n_is_used(run, april, options, start):
    output = run(f"-i x -v -B 2003-04-10 -D 1 -z MST {options} -l", april)[1]
    assert f" {start} MST  to" in output


def test_a_negative_span_is_printed_with_the_earlier_time_first(run, april):
    output = run("-i x -v -B 2003-04-10 -b 0 -D -2 -z MST -l", april)[1]
    assert period(output) == ["2003-04-08 00:00:00 MST", "2003-04-10 00:00:00 MST"]


def test_a_base_day_alone_begins_at_the_present_time_of_day(run, april):
    before = datetime.now(UTC)
    output = run("-i x -v -B 2003-04-10 --utc -l", april)[1]
    after = datetime.now(UTC)
    assert period(output)[1] in {f"2003-04-10 {t:%H:%M:%S} UTC" for t in (before, after)}


@pytest.mark.parametrize(
    "options, end",
    [("-z EST5EDT", "2003-04-10 08:00:00 EDT"), ("--utc", "2003-04-10 12:00:00 UTC"),
     ("--utc -z MST", "2003-04-10 05:00:00 MST"), ("-z MST --utc", "2003-04-10 12:00:00 UTC")],
)  # fmt: skip
def test_times_are_shown_in_the_zone(run, april, options, end):
    hours = {"EDT": 8, "UTC": 12, "MST": 5}[end[-3:]]
    output = run(f"-i x -v -B 2003-04-10 -b {hours} {options} -l", april)[1]
    assert period(output)[1] == end
    assert "or 1 days, 0 hours" in output


def test_without_a_zone_times_are_local(april):
    done = launch("-ix", "-v", "-B2003-04-10", "-b0", f"-l{april}", TZ="EST5EDT")
    assert period(done.stdout)[1] == "2003-04-10 00:00:00 EDT"


# --- instruments --------------------------------------------------------------------------


def test_all_instruments_are_reported_one_after_another(run, tmp_path):
    configure(tmp_path, megacam=tmp_path / "mega", minicam=tmp_path / "mini", fast=tmp_path / "f")
    night(tmp_path / "mega", FIRST, "megacam", 3)
    night(tmp_path / "mini", FIRST, "minicam", 2)
    night(tmp_path / "f", FIRST - timedelta(days=9), "fast", 2)
    status, output, errors = run("-i all +v -B 2003-04-01 -b 0 -D 2 -z MST")
    assert (status, errors) == (0, "")
    assert [line for line in output.splitlines() if line.startswith("Inst")] == [
        "Instrument: megacam        3 files       0 errors",
        "Instrument: minicam        2 files       0 errors",
    ]
    assert output.count("        Internet Data Storage Report\n") == 2
    assert "errors\n\n        Internet" in output


def test_all_instruments_share_a_log_that_is_named(run, april):
    output = run("-i all +v -B 2003-04-01 -n -D 30 -z MST -l", april)[1]
    assert "Instrument: minicam      689 files       0 errors\n" in output
    assert "Instrument: megacam      689 files       0 errors\n" in output


def test_one_instrument_that_cannot_be_read_does_not_hide_the_others(run, tmp_path):
    configure(tmp_path, megacam=tmp_path / "none", fast="", minicam=tmp_path / "mini")
    night(tmp_path / "mini", FIRST, "minicam", 2)
    status, output, errors = run("-i all +v -B 2003-04-01 -b 0 -D 2 -z MST")
    assert status == 1
    assert "Instrument: minicam        2 files" in output
    first, second = errors.splitlines()
    assert first.endswith(
        f'unable to access "{tmp_path}/none/xferlogs" - No such file or directory'
    )
    assert second.startswith("xfer-logsum: Error - the transfer logs of fast are not known;")


def test_all_without_instruments_is_a_usage_error(run):
    status, output, errors = run("-i all")
    assert (status, output) == (2, "")
    assert errors.startswith("xfer-logsum: Error - no [instrument NAME] is configured;")


def test_an_instrument_without_known_logs_is_a_usage_error(run, tmp_path):
    status, _, errors = run("-i minicam")
    assert status == 2
    assert errors == (
        "xfer-logsum: Error - the transfer logs of minicam are not known; name them with -l, "
        f"or set dir in [instrument minicam] of {tmp_path}/lpxfer.conf\n"
    )


# --- JSON and xferlogs --------------------------------------------------------------------


def test_json_has_a_flat_row_for_each_instrument(run, april):
    status, output, _ = run("-i minicam --json -B 2003-04-01 -D 30 -n -z MST -l", april)
    assert status == 0
    assert json.loads(output) == {
        "version": 1,
        "reports": [
            {
                "inst": "minicam",
                "start": "2003-04-01T19:00:00.000Z",
                "end": "2003-05-01T19:00:00.000Z",
                "files": 689,
                "errors": 0,
                "timed": 689,
                "size_min": 5497920,
                "size_max": 41670700,
                "seconds_min": 5.0,
                "seconds_median": 13.02,
                "seconds_max": 75.0,
                "rate_min": 0.47,
                "rate_median": 0.92,
                "rate_max": 2.2,
                "rate_to_1": 356,
                "rate_to_2": 320,
                "rate_to_4": 13,
                "rate_to_8": 0,
                "rate_above_8": 0,
            }
        ],
    }


def test_json_has_a_row_also_when_nothing_was_transferred(run, april):
    output = run("-i fast --json -B 2003-04-01 -l", april)[1]
    (row,) = json.loads(output)["reports"]
    assert (row["files"], row["errors"], row["timed"], row["rate_to_1"]) == (0, 0, 0, 0)
    assert row["size_min"] is row["rate_median"] is row["seconds_max"] is None


def test_times_come_from_xferlogs_that_are_named(run, tmp_path):
    (tmp_path / "log").write_bytes(b"".join(entry(n, FIRST) for n in range(3)))
    for number, seconds in enumerate((2, 4)):
        path = f"/incoming/.20030401T190000Z-packrat-archive-{number + 1}-0123abcd.data.part"
        (tmp_path / f"xferlog.{number}").write_text(
            f"Tue Apr  1 12:00:00 2003 {seconds} h 11000000 {path} b _ i r u ftp 0 * c\n"
        )
    line = f"-i minicam -B 2003-04-01 -b 0 -D 1 --utc -l {tmp_path}/log"
    output = run(line, "-f", tmp_path / "xferlog.0", "-f", tmp_path / "xferlog.1")[1]
    assert "Instrument: minicam        3 files" in output
    assert "FTP performance for 2 files:" in output
    assert "  Median rate:  4.12 MB/s   Median Time:   3 seconds\n" in output


# --- wrong input --------------------------------------------------------------------------


def test_damaged_lines_are_reported_and_the_rest_is_counted(run, april):
    log = april / "20030401.tdcin.log"
    log.write_bytes(b"\xff\0junk\n" + log.read_bytes())
    status, output, errors = run("-i minicam -B 2003-04-01 -D 30 -n -z MST -l", april)
    assert (status, output) == (0, SAMPLE)
    assert errors == (
        f"xfer-logsum: Error - {log}: 1 damaged line(s) passed over, the first is line 1\n"
    )


def test_nothing_in_a_log_or_its_name_acts_on_the_terminal(run, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "20030401.tdcin.log.\x1b[2J").write_bytes(
        b"\x1b[2J\n" + entry(1, FIRST, inst="\x1b[2J")
    )
    status, output, errors = run("-i all -B 2003-04-01 -b 0 -D 1 --utc -l", logs)
    assert "Instrument: %1B[2J         1 files" in output
    assert "20030401.tdcin.log.%1B[2J: 1 damaged line(s)" in errors
    assert "\x1b" not in output + errors


@pytest.mark.parametrize(
    "options, message",
    [
        ("", "Missing option '-i'"),
        ("-i", "requires an argument"),
        ("-i ../x", 'bad instrument name "../x"'),
        ("-i x -B tomorrow", '"tomorrow" is not a date such as 2003-04-01'),
        ("-i x -b noon", "'noon' is not a valid float"),
        ("-i x -h nan", "hours and days are numbers"),
        ("-i x -D 1e9", "out of range"),
        ("-i x -z Nowhere", 'unknown time zone "Nowhere"'),
        ("-i x -z ''", "unknown time zone"),
        ("-i x extra", "unexpected extra argument"),
        ("-i x -q", "No such option"),
        ("-i x -nq", "No such option"),
        ("-i x --config /nowhere", "/nowhere: no such configuration file"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(run, april, options, message):
    status, output, errors = run(options + f" -l {april}" if options != "-i" else options)
    assert (status, output) == (2, "")
    assert message in errors


@pytest.mark.parametrize("option", ["-l", "-f"])
def test_a_log_that_is_not_there_is_named(run, april, option):
    line = f"-i minicam -l {april} {option} {april}/nothing"
    message = f'unable to access "{april}/nothing" - No such file or directory'
    assert run(line) == (1, "", f"xfer-logsum: Error - {message}\n")


def test_h_is_hours_and_only_help_is_help(run):
    status, output, _ = run("--help")
    assert status == 0
    assert "-h HOURS" in output


# --- --latency ----------------------------------------------------------------------------------


def way(seconds: float, base: datetime) -> str:
    return (
        f"{dates.iso(base)},created:-{seconds:.3f},submitted:-3.000,started:-2.900,sent:-1.000"
        ",arrived:-0.900,swept:-0.500,validated:-0.200,placed:-0.100,receipted:0.000"
    )


def test_latency_is_told_of_each_stage_with_a_histogram(run, tmp_path):
    lines = [entry(n, FIRST, stages=way(4 + n % 4, FIRST)) for n in range(100)]
    lines.append(entry(3, FIRST, "told", stages=way(7, FIRST) + ",told:30.000"))
    lines.append(entry(200, FIRST, "told", stages=way(7, FIRST) + ",told:30.000"))
    lines.append(entry(201, FIRST))  # of an earlier release
    log = tmp_path / "20030401.tdcin.log"
    log.write_bytes(b"".join(lines))
    words = ["-i", "minicam", "-l", tmp_path, "-B", "2003-04-01", "-D", "30", "-n", "-z", "MST",
             "--latency", "--within", "5s"]  # fmt: skip
    status, out, err = run(*words)
    assert (status, err) == (0, "")
    assert "Instrument: minicam   100 files; clocks taken to differ by 0.00 s at most" in out
    assert "  sent              100      1.90      1.90      1.90      1.90\n" in out
    assert "  told                1     30.00     30.00     30.00     30.00\n" in out
    assert "  total             100      5.00      7.00      7.00      7.00\n" in out
    assert f"       50  5 < t <= 10 s       {'#' * 40}\n" in out
    assert out.endswith("within 5 s: 50 of 100 files, 50.0 %\n")
    status, out, err = run(*words, "--json")
    rows = json.loads(out)["latencies"]
    assert [row["stage"] for row in rows][-2:] == ["told", "total"]
    assert (rows[-1]["p50"], rows[-1]["to_5"], rows[-1]["within"]) == (5.0, 50, 50)
    assert rows[-1]["limit"] == 5.0 and rows[0]["clock_offset"] == 0.0


def test_latency_reads_the_finished_log_of_a_queue(run, tmp_path):
    text = way(4, FIRST) + ",acknowledged:0.500"
    (tmp_path / "20030401.log").write_bytes(
        entry(1, FIRST, "completed", stages=text) + entry(2, FIRST, "canceled")
    )
    words = ["-i", "all", "-l", tmp_path, "-B", "2003-04-01", "-D", "30", "-n", "-z", "MST"]
    status, out, _ = run(*words, "--latency")
    assert status == 0 and "  acknowledged        1      0.50" in out
    (tmp_path / "20030402.log").write_bytes(b"no record\n")
    assert "1 damaged line(s)" in run(*words, "--latency")[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--within", "5s"], "--within goes with --latency"),
        (["--each"], "--each goes with --latency"),
        (["--latency", "--each", "--within", "5s"], "do not go together"),
        (["--latency", "--within", "soon"], "--within: not a duration"),
        (["--latency", "-f", "xferlog"], "knows of no stages"),
    ],
)
def test_latency_with_what_does_not_go_with_it_is_refused(run, tmp_path, words, told):
    status, _, err = run("-i", "minicam", "-l", tmp_path, *words)
    assert status == 2 and told in err


def test_each_file_is_told_of_in_one_record_from_the_logs_of_both_sites(run, tmp_path):
    ahead = FIRST + timedelta(hours=1)  # the archive's clock
    archive, finished = tmp_path / "20030401.tdcin.log", tmp_path / "20030401.log"
    here = {"created": -15, "submitted": -13, "started": -12, "sent": -1}
    there = {"arrived": 0.5, "swept": 1, "validated": 2, "placed": 3, "receipted": 4}

    def stages(**more):
        ours = {name: seconds - 3600 for name, seconds in here.items()}
        return dates.iso(ahead) + "".join(f",{k}:{v:.3f}" for k, v in (ours | there | more).items())

    archive.write_bytes(
        entry(1, FIRST, stages=stages(), name="a\x1bb.fits")
        + entry(1, FIRST, "told", stages=stages(told=9), name="a\x1bb.fits")
    )
    finished.write_bytes(
        entry(1, FIRST, "completed", stages=stages(acknowledged=4.25 - 3600), name="")
        + entry(2, FIRST, "completed", stages=stages(acknowledged=4.25 - 3600))
    )
    words = ["-i", "minicam", "-B", "2003-04-01", "-b", "0", "-D", "1", "--utc", "--latency",
             "--each", "-l", archive, "-l", finished]  # fmt: skip
    for order in (words, [*words[:-4], "-l", finished, "-l", archive]):
        status, out, err = run("", *order, "--json")
        first, second = sorted(json.loads(out)["files"], key=lambda row: row["uid"])
        assert (status, err, first["inst"], second["told"]) == (0, "", "minicam", None)
        assert first["name"] == "a\x1bb.fits"
        offset = first["clock_offset"]
        assert 3599.75 <= offset <= 3601.5  # between the way there and the way back
        for stage, seconds in (here | there | {"told": 9, "acknowledged": 4.25}).items():
            ours = stage in here or stage == "acknowledged"
            shown = dates.parse_iso(first[stage]).timestamp() - ahead.timestamp()
            assert shown == pytest.approx(seconds - (3600 if ours else offset), abs=0.002), stage
    status, out, err = run("", *words)
    rows = [line.split() for line in out.splitlines()[-3:]]
    assert rows[0] == [*STAGES, "file"]
    assert rows[1][3:6] == ["2.000", "3.000", "14.000"] and "-" in rows[2]
    assert rows[1][-2] == "a%1Bb.fits" and "\x1b" not in out


def test_latency_of_nothing_is_said(run, tmp_path):
    (tmp_path / "20030401.tdcin.log").write_bytes(b"")
    status, out, _ = run("-i", "minicam", "-l", tmp_path, "--latency")
    assert status == 0 and "Instrument: minicam   0 files" in out

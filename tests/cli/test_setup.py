"""What every command shares."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from lpxfer.cli import setup
from lpxfer.errors import (
    AttemptError,
    BusyError,
    ConfigError,
    FormatError,
    LinkError,
    LpxferError,
    PermanentError,
    TemporaryError,
    UsageError,
)
from lpxfer.formats.config import Config

NOW = datetime(2003, 4, 2, 5, 12, 33, tzinfo=UTC)


def ended(act: Callable[[], object]) -> Result:
    """Run a command that does this and return what became of it."""

    @click.command(context_settings=setup.SETTINGS)
    @setup.common
    def main(conf: str | None) -> None:
        act()

    return CliRunner().invoke(main, [], prog_name="xfer-x")


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


@pytest.mark.parametrize("arguments", [["--a\x1b]0;x\n"], ["-h\u202e"], ["x\x9b2J", "y"]])
def test_complaint_about_the_command_line_cannot_act_on_the_terminal(arguments):
    @click.command(cls=setup.Command, context_settings=setup.SETTINGS)
    def main() -> None:
        pass

    @click.group(cls=setup.Group, context_settings=setup.SETTINGS)
    def group() -> None:
        pass

    group.command("sub")(main.callback)
    for command, words in (main, arguments), (group, arguments), (group, ["sub", *arguments]):
        result = CliRunner().invoke(command, words)
        assert result.exit_code == 2
        assert result.stderr.replace("\n", "").isprintable()
        assert result.stderr.splitlines()[-1].startswith("Error: ")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and an empty system beside it."""
    for name in list(os.environ):
        if name.startswith(("XFER_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(setup, "SYSTEM_CONF", tmp_path / "etc/lpxfer.conf")
    monkeypatch.setattr(setup, "SYSTEM_SPOOL", tmp_path / "var/lpxfer")
    (tmp_path / "etc").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def conf(path: Path, queue: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[lpxfer]\nqueue = {queue}\n")
    return path


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, status",
    [
        (LpxferError, 1),
        (PermanentError, 1),
        (FormatError, 1),
        (UsageError, 2),
        (ConfigError, 2),
        (TemporaryError, 75),
        (BusyError, 75),
        (AttemptError, 75),
        (LinkError, 75),
    ],
)
def test_error_is_told_in_lps_shape_and_its_class_is_the_exit_status(kind, status):
    result = ended(raising(kind("it went wrong: do this")))
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr == "xfer-x: Error - it went wrong: do this\n"


def test_error_of_the_system_names_the_file():
    result = ended(lambda: open("/nowhere/x\n"))
    assert result.exit_code == 1
    assert result.stderr == (
        'xfer-x: Error - unable to access "/nowhere/x%0A" - No such file or directory\n'
    )


@pytest.mark.parametrize("code, status", [(28, 75), (122, 75), (5, 1), (13, 1)])
def test_full_disk_is_try_again_later(code, status):
    assert ended(raising(OSError(code, os.strerror(code), "/x"))).exit_code == status


def test_error_of_the_system_without_a_file_is_told_too():
    result = ended(raising(OSError(5, "Input/output error")))
    assert result.exit_code == 1
    assert "Input/output error" in result.stderr


def test_no_message_acts_on_the_terminal():
    result = ended(raising(PermanentError("\x1b[2Jx\n\udcff\u202e")))
    assert result.stderr == "xfer-x: Error - %1B[2Jx%0A%FF%E2%80%AE\n"


def test_bug_is_not_hidden():
    result = ended(raising(ZeroDivisionError()))
    assert isinstance(result.exception, ZeroDivisionError)


def test_reader_that_has_gone_ends_a_command_quietly():
    code = (
        "import click; from lpxfer.cli import setup\n"
        "@click.command()\n@setup.common\n"
        "def main(conf):\n    for _ in range(100000): click.echo('x' * 80)\n"
        "main(prog_name='xfer-x')"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout and command.stderr
    command.stdout.close()
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait() == 1


# --- the configuration ------------------------------------------------------------------------


def test_first_configuration_found_is_the_only_one(home, tmp_path, monkeypatch):
    assert setup.load_config(None).queue == ""
    conf(tmp_path / "etc/lpxfer.conf", "system")
    assert setup.load_config(None).queue == "system"
    conf(home / ".config/lpxfer/lpxfer.conf", "home")
    assert setup.load_config(None).queue == "home"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert setup.load_config(None).queue == "system"
    conf(tmp_path / "xdg/lpxfer/lpxfer.conf", "xdg")
    assert setup.load_config(None).queue == "xdg"
    monkeypatch.setenv("XFER_CONF", str(conf(tmp_path / "named.conf", "named")))
    assert setup.load_config(None).queue == "named"
    argument = conf(tmp_path / "argument.conf", "argument")
    assert setup.load_config(str(argument)).queue == "argument"


def test_environment_goes_before_the_file(home, tmp_path, monkeypatch):
    conf(tmp_path / "etc/lpxfer.conf", "system")
    monkeypatch.setenv("XFER_QUEUE", "mine")
    loaded = setup.load_config(None)
    assert (loaded.queue, loaded.path) == ("mine", str(tmp_path / "etc/lpxfer.conf"))


def test_named_configuration_that_is_missing_is_an_error(home, tmp_path, monkeypatch):
    conf(tmp_path / "etc/lpxfer.conf", "system")
    with pytest.raises(ConfigError, match="missing.conf: no such configuration file"):
        setup.load_config(str(tmp_path / "missing.conf"))
    monkeypatch.setenv("XFER_CONF", str(tmp_path / "missing.conf"))
    with pytest.raises(ConfigError, match="missing.conf: no such configuration file"):
        setup.load_config(None)


def test_configuration_that_cannot_be_read_is_an_error_and_not_passed_over(home, tmp_path):
    conf(tmp_path / "etc/lpxfer.conf", "system")
    (home / ".config/lpxfer/lpxfer.conf").mkdir(parents=True)
    with pytest.raises(ConfigError, match="lpxfer.conf: cannot be read: Is a directory"):
        setup.load_config(None)
    (home / ".config/lpxfer/lpxfer.conf").rmdir()
    (home / ".config/lpxfer/lpxfer.conf").write_bytes(b"[lpxfer]\nqueue = \xff\n")
    with pytest.raises(ConfigError, match="lpxfer.conf: cannot be read: it is not UTF-8"):
        setup.load_config(None)


@pytest.mark.parametrize("nowhere", ["/dev/null", "/nonexistent"])
def test_daemon_without_a_home_reads_the_systems_configuration(
    home, tmp_path, monkeypatch, nowhere
):
    conf(tmp_path / "etc/lpxfer.conf", "system")
    monkeypatch.setenv("HOME", nowhere)
    assert setup.load_config(None).queue == "system"


# --- the spool ------------------------------------------------------------------------------------


def test_spool_is_the_configured_else_the_systems_else_ones_own(home, tmp_path, monkeypatch):
    assert setup.spool_path(Config()) == home / ".local/state/lpxfer/spool"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert setup.spool_path(Config()) == tmp_path / "state/lpxfer/spool"
    (tmp_path / "var/lpxfer").mkdir()
    assert setup.spool_path(Config()) == tmp_path / "var/lpxfer"
    assert setup.spool_path(Config(spool="/s")) == Path("/s")


def test_system_spool_on_a_disk_that_is_not_there_is_no_reason_to_fall_back(home, tmp_path):
    (tmp_path / "var/lpxfer").symlink_to("/nowhere/spool")
    assert setup.spool_path(Config()) == tmp_path / "var/lpxfer"


# --- the host -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodename, host",
    [
        ("telescope1", "telescope1"),
        ("packrat.mmto.org", "packrat"),
        ("my_host", "my-host"),
        ("x" * 80, "x" * 63),
    ],
)
def test_host_is_the_first_label_of_the_hosts_name(monkeypatch, nodename, host):
    uname = os.uname_result(("Linux", nodename, "", "", ""))
    monkeypatch.setattr(os, "uname", lambda: uname)
    assert setup.host_name(Config()) == host
    assert setup.host_name(Config(host="mmto")) == "mmto"


@pytest.mark.parametrize("nodename", ["", ".local", "accepts"])
def test_host_without_a_usable_name_has_to_be_given_one(monkeypatch, nodename):
    uname = os.uname_result(("Linux", nodename, "", "", ""))
    monkeypatch.setattr(os, "uname", lambda: uname)
    with pytest.raises(ConfigError, match="bad host name .*; set host in lpxfer.conf or XFER_HOST"):
        setup.host_name(Config())


# --- printing ----------------------------------------------------------------------------------


def test_json_is_one_object_with_its_version(capsys):
    setup.print_json(jobs=[{"name": "a\udcff"}])
    assert json.loads(capsys.readouterr().out) == {"version": 1, "jobs": [{"name": "a\udcff"}]}


def test_table_leaves_numbers_and_words_as_they_are(capsys):
    setup.print_table([["archive-1", "007", "1e5"], ["archive-10", "x", ""]], ["id", "user", "n"])
    assert capsys.readouterr().out.splitlines() == [
        "id          user    n",
        "archive-1   007     1e5",
        "archive-10  x",
    ]
    setup.print_table([])
    assert capsys.readouterr().out == ""


def test_times_are_local_unless_utc_is_asked_for():
    assert setup.local_time(NOW, utc=True) == "2003-04-02 05:12:33 UTC"
    code = (
        "from datetime import *; from lpxfer.cli import setup; "
        "print(setup.local_time(datetime(2003, 4, 2, 5, 12, 33, tzinfo=UTC), False))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"TZ": "MST7"}, capture_output=True
    ).stdout
    assert shown == b"2003-04-01 22:12:33 MST\n"

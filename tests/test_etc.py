"""The example files of etc/ are right as they stand: the programs they are for read them."""

import getpass
import grp
import os
import pwd
import re
import shutil
import stat
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from sshd import SSHD, make_key

from lpxfer.formats import config
from lpxfer.stores import layout

ETC = Path(__file__).parents[1] / "etc"
CONF = (ETC / "lpxfer.conf").read_text()
DROP_IN = ETC / "ssh/sshd_config.d/lpxfer-deposit.conf"


def run(*command: str, **popen: object) -> str:
    """Run a program and return what it printed; show it when the program is not content."""
    if shutil.which(command[0]) is None and not Path(command[0]).exists():
        pytest.fail(f"{command[0]} is missing: run tests/system-packages")
    done = subprocess.run(
        command,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **popen,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


# --- lpxfer.conf ----------------------------------------------------------------------


def test_the_example_configuration_is_valid_as_it_stands() -> None:
    conf = config.parse(CONF, "lpxfer.conf")
    assert conf.queue in conf.queues


def test_the_example_configuration_shows_every_key_with_its_default() -> None:
    conf = config.parse(re.sub(r"^#(?=\w)", "", CONF, flags=re.MULTILINE), "lpxfer.conf")
    shown = [
        (conf, config.Config()),
        (conf.queues["archive"], config.QueueConfig("archive")),
        (conf.instruments["minicam"], config.InstrumentConfig("minicam")),
        (conf.web, config.WebConfig()),
    ]
    for section, defaults in shown:
        for field in fields(defaults):
            value, default = getattr(section, field.name), getattr(defaults, field.name)
            if field.name not in config.NO_KEYS:
                assert value == (default or value), field.name
                assert value is False or value, f"{field.name} is not shown"


# --- sshd ------------------------------------------------------------------------------


@pytest.fixture
def sshd_config(tmp_path: Path) -> Path:
    """An sshd_config that includes the drop-in at its beginning, as Debian's does."""
    make_key(tmp_path / "key")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    path = tmp_path / "sshd_config"
    path.write_text(
        f'Include "{DROP_IN}"\nHostKey "{tmp_path}/key"\nSubsystem sftp internal-sftp\n'
    )
    return path


def test_sshd_accepts_the_drop_in(sshd_config: Path) -> None:
    assert run(SSHD, "-t", "-f", str(sshd_config)) == ""


def test_the_drop_in_binds_the_deposit_account_alone(sshd_config: Path) -> None:
    def settings(user: str) -> str:
        match = f"user={user},host=telescope1,addr=192.0.2.1"
        return run(SSHD, "-T", "-f", str(sshd_config), "-C", match)

    deposit, other = settings("lpxfer-deposit"), settings(getpass.getuser())
    assert "forcecommand internal-sftp -u 0537 -P " in deposit
    assert "chrootdirectory /srv/lpxfer\n" in deposit
    assert "forcecommand none\n" in other
    assert "chrootdirectory none\n" in other
    assert "subsystem sftp internal-sftp\n" in other


def test_every_denied_request_is_one_that_the_server_knows() -> None:
    denied = re.search(r" -P (\S+)", DROP_IN.read_text())
    known = run("/usr/lib/openssh/sftp-server", "-Q", "requests").split()
    assert denied and set(denied[1].split(",")) <= set(known)
    assert "fsetstat" not in denied[1].split(",")  # the sender seals with it


# --- systemd -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["xfer-send", "xfer-watch", "xfer-web"])
def test_systemd_accepts_the_unit(tmp_path: Path, command: str) -> None:
    text = (ETC / f"systemd/{command}.service").read_text()
    assert f"ExecStart=/usr/local/bin/{command}\n" in text
    unit = tmp_path / f"{command}.service"
    unit.write_text(text.replace(f"/usr/local/bin/{command}", "/bin/sh"))
    assert run("systemd-analyze", "verify", "--man=no", str(unit)) == ""


def test_the_accounts_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", str(ETC / "sysusers.d/lpxfer.conf"))
    users = (tmp_path / "etc/passwd").read_text()
    assert re.search("^lpxfer:.*:/var/lib/lpxfer:/usr/sbin/nologin$", users, re.MULTILINE)
    assert re.search("^lpxfer-deposit:.*:/srv/lpxfer:/usr/sbin/nologin$", users, re.MULTILINE)
    assert "lpxfer-sweep:" in (tmp_path / "etc/group").read_text()


def test_the_directories_are_made_with_their_modes_and_lists(tmp_path: Path) -> None:
    """With this account in the place of all others; who may do what, the root tests try."""
    me = pwd.getpwuid(os.geteuid()).pw_name
    mine = grp.getgrgid(os.getegid()).gr_name
    lines = (ETC / "tmpfiles.d/lpxfer.conf").read_text()
    lines = lines.replace("/srv/lpxfer", "/SITE").replace("/var/spool/lpxfer", "/SPOOL")
    lines = re.sub(r" (\d{4}) \S+ +\S+$", rf" \1 {me} {mine}", lines, flags=re.MULTILINE)
    lines = re.sub(r"u:lpxfer[-\w]*:", f"u:{me}:", lines)
    lines = lines.replace("/SITE", f"{tmp_path}/site").replace("/SPOOL", f"{tmp_path}/spool")
    (tmp_path / "lpxfer.conf").write_text(lines)
    for _ in range(2):  # the second time, as at every boot, changes nothing
        run("systemd-tmpfiles", "--create", str(tmp_path / "lpxfer.conf"))
        queue = tmp_path / "spool/archive"
        assert mode(tmp_path / "spool") == 0o2750
        assert not list(layout.faults(tmp_path / "spool", queue))
        assert mode(queue / "seq") == mode(queue / "unused") == 0o660
        assert mode(queue / "wake") == 0o620
        assert mode(queue / "lock") == mode(queue / "owner.lock") == 0o600
        assert mode(tmp_path / "site") == 0o755
        assert mode(tmp_path / "site/incoming") == 0o2770
        assert mode(tmp_path / "site/receipts") == 0o2775
        assert f"user:{me}:-wx\n" in run("getfacl", "-c", str(tmp_path / "site/incoming"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- cron --------------------------------------------------------------------------------


def test_cron_lines_are_five_times_a_user_and_a_command() -> None:
    lines = (ETC / "cron.d/lpxfer").read_text().splitlines()
    jobs = [line for line in lines if line and not re.match(r"#|\w+=", line)]
    assert len(jobs) == 3
    for job in jobs:
        assert re.fullmatch(r"([\d*/,-]+\s+){5}[a-z]+\s+(report=\$\()?xfer-[^%]+", job), job

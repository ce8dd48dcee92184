"""A system spool of several users: a sender's account, two members of its group, a stranger.

Commands run in a forked child that has become the user, so that nobody but root needs to be
able to read the Python they run under.
"""

import _strptime
import os
import subprocess
from functools import partial
from pathlib import Path

import tabulate
from accounts import own, run_as

from lpxfer.cli import (
    xfer_cancel,
    xfer_ctl,
    xfer_fsck,
    xfer_send,
    xfer_stat,
    xfer_submit,
    xfer_sweep,
)
from lpxfer.transports import local, sftp

GROUP = f"lpxg{os.getpid()}"
SENDER, ALICE, BOB, CAROL = (f"lpx{letter}{os.getpid()}" for letter in "sabc")
COMMANDS = {
    "xfer-submit": xfer_submit,
    "xfer-stat": xfer_stat,
    "xfer-cancel": xfer_cancel,
    "xfer-ctl": xfer_ctl,
    "xfer-send": xfer_send,
    "xfer-sweep": xfer_sweep,
    "xfer-fsck": xfer_fsck,
}
# Imported late by the commands; a user cannot read root's Python then.
PRELOADED = (local, sftp, tabulate, _strptime)

ETC = Path(__file__).parents[1] / "etc"


class System:
    """The spool, and an archive site that is a directory of the sender's."""

    def __init__(self, root: Path) -> None:
        self.root, self.spool = root, root / "spool"
        self.queue = self.spool / "archive"
        root.chmod(0o755)
        self.spool.mkdir()
        own(self.spool, SENDER, 0o2750)
        for name in ("incoming", "receipts"):
            (root / name).mkdir()
            own(root / name, SENDER)
        self.conf = root / "lpxfer.conf"
        self.conf.write_text(
            f"[lpxfer]\nspool = {self.spool}\nqueue = archive\nreserve = 0\n"
            f"[queue archive]\ntransport = local\nrempath = {root}/incoming\nlink = yes\n"
        )

    def run(self, user: str, command: str, *arguments: str, seconds: float = 60) -> tuple[int, str]:
        """Run a command as a user; return its exit status and all it printed."""
        act = partial(COMMANDS[command].main.main, list(arguments), prog_name=command)
        umask = 0o007 if user == SENDER else 0o077  # as xfer-send.service has it
        return run_as(user, act, seconds, umask, XFER_CONF=str(self.conf))

    def file(self, user: str, name: str, data: bytes = b"data") -> str:
        """Make a file that only this user can read."""
        path = self.root / name
        path.write_bytes(data)
        own(path, user, 0o600)
        return str(path)

    def job(self, user: str, name: str = "frame.fits", data: bytes = b"data") -> str:
        """Submit a file as a user; return its request id."""
        status, said = self.run(user, "xfer-submit", self.file(user, name, data))
        assert status == 0, said
        return said.split()[3]


def by_tmpfiles(spool: Path) -> None:
    """Make a spool with the tmpfiles.d of etc/, for the accounts here."""
    lines = (ETC / "tmpfiles.d/lpxfer.conf").read_text().splitlines()
    ours = "\n".join(line for line in lines if "/var/spool/lpxfer" in line) + "\n"
    ours = ours.replace("/var/spool/lpxfer", "/SPOOL").replace("lpxfer lpxfer", f"{SENDER} {GROUP}")
    ours = ours.replace("d:u:lpxfer:", f"d:u:{SENDER}:").replace("/SPOOL", str(spool))
    assert "lpxfer lpxfer" not in ours
    conf = spool.with_suffix(".conf")
    conf.write_text(ours)
    subprocess.run(["systemd-tmpfiles", "--create", str(conf)], check=True)

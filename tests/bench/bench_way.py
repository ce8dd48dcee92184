"""One large file through every process: seconds and peak memory of each.

    python tests/bench/bench_way.py [MIB]

Memory must not grow with the file: the target is under 80 MiB in every process.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from sshd import Sshd

BIN = Path(sys.executable).parent
TARGET = 80  # MiB


def run(command: str, environ: dict[str, str], *statuses: int) -> None:
    """Run one command; print what it took."""
    start = time.monotonic()
    words = shlex.split(command)
    process = subprocess.Popen([BIN / words[0], *words[1:]], env=environ)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, *statuses), f"{command}: {process.returncode}"
    took, peak = time.monotonic() - start, usage.ru_maxrss / 1024
    click.echo(f"{words[0]:12} {took:7.2f} s   peak RSS {peak:5.1f} MiB (target {TARGET})")


def main(mib: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in ("incoming", "archive"):
            (root / name).mkdir()
        source = root / "large.fits"
        with source.open("wb") as file:
            block = os.urandom(1 << 20)
            for number in range(mib):
                file.write(number.to_bytes(8, "big") + block[8:])
        with Sshd(root / "sshd") as sshd:
            conf = root / "lpxfer.conf"
            conf.write_text(
                f"[lpxfer]\nspool = {root}/spool\nqueue = archive\n"
                f"incoming = {root}/incoming\nreserve = 0\n"
                f"[queue archive]\nremhost = {sshd.host}:{sshd.port}\nremuser = {sshd.user}\n"
                f"rempath = {root}/incoming\nidentity = {sshd.identity}\n"
                f"known_hosts = {sshd.known_hosts}\n"
                f"[instrument bench]\ndir = {root}/archive\n"
            )
            environ = os.environ | {"XFER_CONF": str(conf)}
            click.echo(f"one file of {mib} MiB")
            run(f"xfer-submit -s -o inst=bench {shlex.quote(str(source))}", environ)
            run("xfer-send --once", environ, 75)
            run("xfer-sweep -i bench", environ)
            run("xfer-send --once", environ)
            run(f"xfer-fsck -d {root}/archive", environ)
            run("xfer-logsum -i bench", environ)
        placed = next((root / "archive").rglob("large.fits"))
        subprocess.run(["cmp", source, placed], check=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2048)

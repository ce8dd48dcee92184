"""The rate limit of a queue, in real time: what comes in over 10 seconds beside what may.

A sender with four connections and a queue that stays full sends through OpenSSH's sshd on the
loopback, in memory; what has arrived is looked at from the other side. Run it from the
checkout, with rates as they stand in lpxfer.conf:

    python tests/bench/bench_rate.py [RATE ...]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from sshd import Sshd

from lpxfer.formats.rate import parse

BIN = Path(sys.executable).parent
MEMORY = "/dev/shm"
SECONDS, WARM = 10.0, 1.0
ALLOWED = 0.05
FILE = 8_000_000  # bytes
CONNECTIONS = 4


def main(*rates: str) -> None:
    """Measure and print."""
    kept = [measure(rate) for rate in rates or ("1M", "20M", "100M")]
    click.echo(f"kept within {ALLOWED:.0%} over {SECONDS:.0f} s: {'yes' if all(kept) else 'NO'}")


def measure(rate: str) -> bool:
    """Send at a rate for a while; print what arrived and tell whether that is right."""
    limit = parse(rate).rest
    assert limit, "give a rate that is a limit at any time"
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, Sshd(Path(name, "sshd")) as sshd:
        root = Path(name)
        (root / "incoming").mkdir()
        environ = os.environ | {"XFER_CONF": str(configure(root, sshd, rate))}
        submit(root, environ, count=2 * CONNECTIONS + int(limit * (SECONDS + WARM) * 1.2) // FILE)
        sender = subprocess.Popen([BIN / "xfer-send"], env=environ)
        try:
            arrived = watch(root / "incoming")
        finally:
            sender.terminate()
            sender.wait(60)
    # One sample a second: the whole time, then each second of it.
    whole = (arrived[-1] - arrived[0]) / SECONDS / limit
    each = [(b - a) / limit for a, b in zip(arrived, arrived[1:], strict=False)]
    click.echo(
        f"rate = {rate:5} {whole:6.1%} of it arrived in {SECONDS:.0f} s; "
        f"in one second {min(each):.1%} to {max(each):.1%}"
    )
    return abs(whole - 1) <= ALLOWED


def configure(root: Path, sshd: Sshd, rate: str) -> Path:
    """Write the configuration of a sender with a rate."""
    conf = root / "lpxfer.conf"
    conf.write_text(
        f"[lpxfer]\nspool = {root}/spool\nqueue = archive\nreserve = 0\n"
        f"[queue archive]\nremhost = {sshd.host}:{sshd.port}\nremuser = {sshd.user}\n"
        f"rempath = {root}/incoming\nidentity = {sshd.identity}\nlink = yes\n"
        f"known_hosts = {sshd.known_hosts}\nconnections = {CONNECTIONS}\nrate = {rate}\n"
    )
    return conf


def submit(root: Path, environ: dict[str, str], count: int) -> None:
    """Queue one file many times."""
    source = root / "frame.fits"
    source.write_bytes(os.urandom(FILE))
    command = [BIN / "xfer-submit", "-s", "--link", *[source] * count]
    subprocess.run(command, env=environ, check=True)


def watch(incoming: Path) -> list[int]:
    """Return the bytes in incoming each second, from a while after the first that came."""
    while not any(incoming.iterdir()):
        time.sleep(0.01)
    time.sleep(WARM)
    began, sizes = time.monotonic(), list[int]()
    for second in range(int(SECONDS) + 1):
        time.sleep(max(0.0, began + second - time.monotonic()))
        sizes.append(size(incoming))
    return sizes


def size(incoming: Path) -> int:
    """Return the bytes of the data files and of their parts; a rename meanwhile is no matter."""
    while True:
        try:
            return sum(path.stat().st_size for path in incoming.glob("*.data*"))
        except FileNotFoundError:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])

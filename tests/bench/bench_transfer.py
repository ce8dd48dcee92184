"""One file of 1 GiB over sftp, beside OpenSSH's own sftp: how much of its rate we reach.

Source, incoming and server are on one machine and in memory, so that the figure is CPU per
byte. Rounds are interleaved and the first is not counted. Run it from the checkout:

    python tests/bench/bench_transfer.py [MIB [ROUNDS]]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from sshd import Sshd

from lpxfer.transports.sftp import SftpTransport

MIB = 1 << 20
MEMORY = "/dev/shm"


def main(mib: int = 1024, rounds: int = 5) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        directory = Path(name)
        source, arrived = directory / "source", directory / "arrived"
        fill(source, mib)
        with Sshd(directory / "sshd") as sshd, source.open("rb") as file:
            transport = SftpTransport(**sshd.values(), rempath=name)  # type: ignore[arg-type]
            transport.connect()
            ways: dict[str, Callable[[], object]] = {
                "lpxfer": lambda: transport.put("arrived", file.fileno(), mib * MIB),
                "sftp": lambda: openssh(sshd, source, arrived),
            }
            taken = measure(ways, rounds, arrived)
            transport.close()
    ours, theirs = (statistics.median(seconds) for seconds in taken.values())
    for way, seconds in taken.items():
        rate = mib * MIB / 1e6 / statistics.median(seconds)
        click.echo(f"{way:8} {rate:6.0f} MB/s  {min(seconds):.2f}-{max(seconds):.2f} s")
    click.echo(f"lpxfer's rate is {theirs / ours:.2f} of sftp's (one connection, aes128-gcm)")


def measure(
    ways: dict[str, Callable[[], object]], rounds: int, arrived: Path
) -> dict[str, list[float]]:
    """Return the seconds of each way in each round but the first."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, transfer in ways.items():
            began = time.monotonic()
            transfer()
            taken[way].append(time.monotonic() - began)
            arrived.unlink()
    return {way: seconds[1:] for way, seconds in taken.items()}


def openssh(sshd: Sshd, source: Path, arrived: Path) -> None:
    """Send the file with the sftp program; its start and login count, about 0.2 s."""
    options = ["-q", "-b", "-", "-P", str(sshd.port), "-i", str(sshd.identity)]
    for option in ("Ciphers=aes128-gcm@openssh.com", f"UserKnownHostsFile={sshd.known_hosts}"):
        options += ["-o", option]
    batch = f"put {source} {arrived}\n".encode()
    subprocess.run(
        ["sftp", *options, f"{sshd.user}@{sshd.host}"],
        input=batch,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def fill(path: Path, mib: int) -> None:
    """Write a file that does not compress."""
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(block)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

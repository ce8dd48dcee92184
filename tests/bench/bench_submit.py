"""What xfer-submit costs: start-up, syncs, many files, a large file.

Run it by hand or with `make bench`. The disk is the file system of TMPDIR; beside it stands
the same on /dev/shm, which is memory and needs no syncs. Start-up is compared with that of
Python and the modules that a command like this needs; both are measured in turn, because the
machine may be busy, and what Python has compiled before is not compiled again.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

SUBMIT = [str(Path(sys.executable).parent / "xfer-submit")]
BASELINE = [sys.executable, "-c", "import click, hashlib, configparser, dataclasses"]
ROUNDS = 25
FILES = 10_000
LARGE = 2 << 30  # bytes
MIB = 1 << 20

CONF = "[lpxfer]\nqueue = bench\nreserve = 0\n[queue bench]\n"


class Spool:
    """An empty spool in a directory, and the command that submits to it."""

    def __init__(self, top: Path, compiled: Path) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="lpxfer-bench-", dir=top))
        (self.root / "lpxfer.conf").write_text(CONF)
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.environ = environ | {
            "XFER_CONF": str(self.root / "lpxfer.conf"),
            "XFER_SPOOL": str(self.root / "spool"),
            "PYTHONPYCACHEPREFIX": str(compiled),
        }

    def seconds(self, command: list[str]) -> float:
        start = time.monotonic()
        subprocess.run(command, env=self.environ, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - start

    def peak(self, command: list[str]) -> tuple[float, float]:
        """Return the seconds that a command takes and the peak of its memory in MiB."""
        start = time.monotonic()
        done = subprocess.Popen(command, env=self.environ, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(done.pid, 0)
        done.returncode = os.waitstatus_to_exitcode(status)
        assert done.returncode == 0
        return time.monotonic() - start, usage.ru_maxrss / 1024


def row(label: str, number: str) -> None:
    click.echo(f"{label:52} {number:>12}")


def start_up(disk: Spool, memory: Spool, small: Path) -> None:
    """One small file: in memory, where it costs what starting costs, and on the disk."""
    submit = [*SUBMIT, str(small)]
    rounds: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS + 1):
        rounds.append((memory.seconds(BASELINE), memory.seconds(submit), disk.seconds(submit)))
    columns = zip(*rounds[1:], strict=True)  # the first one compiles
    base, in_memory, on_disk = (statistics.median(column) * 1e3 for column in columns)
    row("Python that imports click, hashlib, configparser ...", f"{base:.1f} ms")
    row("one small file, spool in memory", f"{in_memory:.1f} ms")
    row("  ratio of the two (target 2)", f"{in_memory / base:.2f}")
    row("one small file, spool on the disk", f"{on_disk:.1f} ms")
    row("  of which the syncs", f"{on_disk - in_memory:.1f} ms")


def many(disk: Spool, memory: Spool, sources: Path) -> None:
    """Many files in one command."""
    paths = [sources / f"{number:05d}.fits" for number in range(FILES)]
    for path in paths:
        path.write_bytes(os.urandom(2880))
    names = sources / "names"
    names.write_bytes(b"".join(bytes(path) + b"\0" for path in paths))
    command = [*SUBMIT, "-s", "-0", "--files-from", str(names)]
    for label, spool in (("on the disk (target 2,000)", disk), ("in memory", memory)):
        rates = []
        for number in range(3):  # a new one each time: ext4 is slow where many files just went
            spool.environ["XFER_SPOOL"] = str(spool.root / f"spool{number}")
            rates.append(FILES / spool.seconds(command))
        row(f"{FILES:,} files, spool {label}", f"{statistics.median(rates):,.0f} /s")


def large(disk: Spool, sources: Path) -> None:
    """One large file on the disk, which must not need memory."""
    path, block = sources / "large", os.urandom(16 * MIB)
    with path.open("wb") as stream:
        for _ in range(LARGE // len(block)):
            stream.write(block)
        os.fsync(stream.fileno())
    seconds, peak = disk.peak([*SUBMIT, "-s", str(path)])
    row(f"a file of {LARGE >> 30} GiB, spool on the disk", f"{seconds:.1f} s")
    row("  its rate", f"{LARGE / 1e6 / seconds:,.0f} MB/s")
    row("  peak RSS (target 80)", f"{peak:.0f} MiB")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        sources = top / "sources"
        sources.mkdir()
        (sources / "small").write_bytes(b"SIMPLE  =")
        disk, memory = Spool(top, top / "compiled"), Spool(Path("/dev/shm"), top / "compiled")
        try:
            start_up(disk, memory, sources / "small")
            many(disk, memory, sources)
            large(disk, sources)
        finally:
            shutil.rmtree(memory.root)


if __name__ == "__main__":
    main()

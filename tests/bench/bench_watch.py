"""xfer-watch on a large tree: how soon it starts, what it takes while idle; many files at once.

    python tests/bench/bench_watch.py [FILES]

A tree of FILES files (100,000) that are submitted already; then 10,000 files at once; then one
after the other, from `close()` to the job; then a writer of 1 MB/s for 30 s that pauses 10 s.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

BIN = Path(sys.executable).parent
AT_ONCE, SINGLE, IDLE = 10_000, 200, 60.0
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int) -> float:
    """Return the resident MiB of a process, at their most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Site:
    """A watched directory, its queue, and the watch."""

    def __init__(self, root: Path) -> None:
        self.data, self.pending = root / "data", root / "spool/archive/pending"
        self.data.mkdir()
        conf = root / "lpxfer.conf"
        conf.write_text(
            f"[lpxfer]\nspool = {root}/spool\nqueue = archive\nreserve = 0\n[queue archive]\n"
            f"[instrument bench]\nwatch = {self.data}\n"
        )
        self.environ = os.environ | {"XFER_CONF": str(conf), "XDG_STATE_HOME": str(root)}

    def write(self, name: str, data: bytes = b"data") -> None:
        (self.data / name).write_bytes(data)

    def jobs(self) -> int:
        return len(os.listdir(self.pending)) if self.pending.exists() else 0

    def twice(self) -> int:
        """Count the jobs beyond one for each file."""
        controls = [(job / "control").read_text() for job in self.pending.iterdir()]
        paths = {line for text in controls for line in text.splitlines() if line[:5] == "path="}
        return len(controls) - len(paths)

    def wait(self, jobs: int) -> None:
        while self.jobs() < jobs:
            time.sleep(0.005)

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([BIN / "xfer-watch"], env=self.environ)

    def until_a_job(self, name: str) -> float:
        """Write a file; return the seconds to its job."""
        before = self.jobs()
        self.write(name)
        start = time.monotonic()
        self.wait(before + 1)
        return time.monotonic() - start


def slow(site: Site) -> str:
    """Write 30 MB in 40 s; say what was submitted."""
    before, early = site.jobs(), 0
    with (site.data / "slow").open("wb") as stream:
        for second in range(30):
            stream.write(os.urandom(1_000_000))
            stream.flush()
            time.sleep(11 if second == 15 else 1)
            early += site.jobs() - before
    site.wait(before + 1)
    time.sleep(3)
    sizes = [(entry / "data").stat().st_size for entry in site.pending.iterdir()]
    return f"{early} too early, {site.jobs() - before} job(s), {max(sizes)} bytes"


def main(files: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory))
        for number in range(files):
            night = site.data / f"{number // 1000:05}"
            if number % 1000 == 0:
                night.mkdir()
            (night / f"{number % 1000:04}.fits").write_bytes(b"")
        subprocess.run([BIN / "xfer-watch", "--mark"], env=site.environ, check=True)
        start = time.monotonic()
        with site.start() as watch:
            site.write("first")
            site.wait(1)
            took = time.monotonic() - start
            click.echo(f"{files} files: a new file is a job {took:.2f} s after the start")
            time.sleep(10)
            before = cpu(watch.pid)
            time.sleep(IDLE)
            used = cpu(watch.pid) - before
            click.echo(f"  idle for {IDLE:.0f} s: {used:.2f} s of CPU, {100 * used / IDLE:.2f} %")
            start, before = time.monotonic(), site.jobs()
            for number in range(AT_ONCE):
                site.write(f"at-once-{number}")
            written = time.monotonic() - start
            site.wait(before + AT_ONCE)
            took = time.monotonic() - start
            click.echo(
                f"{AT_ONCE} files at once, written in {written:.2f} s: jobs after {took:.2f} s"
            )
            times = [site.until_a_job(f"single-{number}") for number in range(SINGLE)]
            median, most = statistics.median(times), max(times)
            click.echo(f"one file, from close() to its job: {median:.3f} s, at most {most:.3f} s")
            click.echo(f"1 MB/s for 30 s with a pause of 10 s: {slow(site)}")
            click.echo(f"files submitted twice: {site.twice()}")
            click.echo(f"peak memory: {memory(watch.pid):.0f} MiB")
            watch.terminate()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)

"""Seconds, not minutes: frames from the camera's `close()` to the archive's receipt and back.

    python tests/bench/bench_frames.py [loopback|far] [FRAMES]

Frames of 40 MB are written into a watched directory at a steady rate. xfer-watch, xfer-send and
a following xfer-sweep take them through an sshd; each is removed when its job is completed, so
that little is on disk. `receipted` is by the archive's record, `completed` is when the line in
the finished log was seen. Targets are for `completed`, which is the later.
"""

import contextlib
import filecmp
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
import cpu
from both_sites import BIN, BothSites
from cases import LONG
from contest import MEMORY
from far_sshd import FarSshd
from frames import BLOCK, write_frame
from wan import Ends, Line, NotRun, wan

from lpxfer.formats import record, stages

SIDE = 4472  # pixels: 40 MB
AHEAD = 20  # frames that may be on their way, each in four places
POLL = 0.01  # seconds
PATIENCE = 120.0  # seconds without a completed frame
COMPARED = 10  # one in so many, byte by byte; the sweep has looked at all


@dataclass(frozen=True)
class Case:
    """How many frames, how often, over which line, and what is meant to be reached."""

    frames: int
    rate: float  # frames a second
    line: Line | None
    targets: dict[int, float]  # seconds, by percentile


#: 500 Mbit/s carry 1.5 frames a second and no two.
CASES = {
    "loopback": Case(500, 2.0, None, {50: 1.0, 99: 3.0}),
    "far": Case(200, 1.0, LONG, {50: 5.0}),
}


class Camera:
    """Writes frames into a directory, each with other bytes."""

    def __init__(self, directory: Path, model: Path) -> None:
        self._directory, self._bytes = directory, bytearray(model.read_bytes())
        self.closed: dict[str, float] = {}  # when, by name

    def expose(self) -> None:
        """Write the next frame."""
        number = len(self.closed)
        self._bytes[BLOCK : BLOCK + 8] = number.to_bytes(8, "big")
        path = self._directory / f"{number:05}.fits"
        with path.open("wb") as file:
            file.write(self._bytes)
        self.closed[path.name] = time.time()


class Observer:
    """Sees frames completed, in the finished log of the telescope site."""

    def __init__(self, sites: BothSites, data: Path) -> None:
        self._sites, self._data = sites, data
        self._read: dict[Path, int] = {}  # bytes, by log
        self.completed: dict[str, float] = {}
        self.receipted: dict[str, float] = {}

    def look(self) -> None:
        """Take what is new, and remove those frames at both sites."""
        for log in (self._sites.queue / "log").glob("*.log"):
            with log.open("rb") as file:
                file.seek(self._read.get(log, 0))
                lines = file.read()
            lines = lines[: lines.rfind(b"\n") + 1]
            self._read[log] = self._read.get(log, 0) + len(lines)
            for line in lines.splitlines(keepends=True):
                self._take(record.load(line))

    def _take(self, line: record.Record) -> None:
        name = line.fields["name"]
        if line.kind != "completed" or name in self.completed:
            raise RuntimeError(f"{name}: {line.kind}, or twice")
        self.completed[name] = time.time()
        self.receipted[name] = stages.load(line.fields[stages.FIELD])[stages.RECEIPTED]
        original, placed = self._data / name, next(self._sites.archive.glob(f"*/{name}"))
        if len(self.completed) % COMPARED == 0 and not filecmp.cmp(original, placed, False):
            raise RuntimeError(f"{name} has other bytes")
        original.unlink()
        placed.unlink()


def run(case: Case, frames: int) -> None:
    """Send the frames of a case; print how long they took."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory("-bench", "lpxfer-", MEMORY)))
        data, model = root / "data", root / "model.fits"
        data.mkdir()
        write_frame(model, SIDE, 1500, 0)
        if shutil.disk_usage(root).free < 4 * AHEAD * model.stat().st_size:
            raise NotRun(f"not enough room in {MEMORY}")
        groups = stack.enter_context(cpu.groups("sender", "sweep", "server"))
        ends = stack.enter_context(wan(case.line)) if case.line else Ends()
        far = stack.enter_context(FarSshd(root / "sshd", ends, groups["server"]))
        sites = stack.enter_context(BothSites(root / "sites", far, ends, groups, {}))
        watch = stack.enter_context(watching(sites, data))
        sites.wait((sites.queue / "wake").exists, PATIENCE)
        camera, observer = Camera(data, model), Observer(sites, data)
        play(case.rate, frames, camera, observer)
        used = {name: group.seconds() for name, group in groups.items()}
        used["watch"] = cpu.used(watch.pid)
        report(case, camera, observer)
        shares(sites)
        words = (f"{name} {seconds / frames:.2f} s" for name, seconds in used.items())
        click.echo(f"  CPU for each frame: {', '.join(words)}")


@contextlib.contextmanager
def watching(sites: BothSites, data: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have an xfer-watch at the telescope site for a block, once it looks."""
    with (sites.root / "lpxfer.conf").open("a") as conf:
        conf.write(f"watch = {data}\nmatch = *.fits\n")  # its last section is the instrument's
    environ = sites.environ | {"XDG_STATE_HOME": str(sites.root)}
    with subprocess.Popen([BIN / "xfer-watch"], env=environ) as watch:
        try:
            sites.wait((sites.root / "lpxfer/watched/bench").exists, PATIENCE)
            yield watch
        finally:
            watch.terminate()


def play(rate: float, frames: int, camera: Camera, observer: Observer) -> None:
    """Expose at a rate until all frames are completed. Raises RuntimeError when none is."""
    began = moved = time.monotonic()
    while (done := len(observer.completed)) < frames:
        now, exposed = time.monotonic(), len(camera.closed)
        if exposed < frames and now >= began + exposed / rate and exposed - done < AHEAD:
            camera.expose()
        observer.look()
        if len(observer.completed) > done:
            moved = now
        if now > moved + PATIENCE:
            raise RuntimeError(f"{done} of {frames} frames, and no more in {PATIENCE:g} s")
        time.sleep(POLL)
    spent = max(camera.closed.values()) - min(camera.closed.values())
    click.echo(f"  {frames} frames of 40 MB, {(frames - 1) / max(spent, POLL):.2f} a second")


def report(case: Case, camera: Camera, observer: Observer) -> None:
    """Print the times of all frames, and whether they are as they are meant to be."""
    for what, times in (("receipted", observer.receipted), ("completed", observer.completed)):
        took = sorted(times[name] - closed for name, closed in camera.closed.items())
        found = {percent: percentile(took, percent) for percent in (50, 95, 99)}
        shown = ", ".join(f"{percent} %: {value:.2f}" for percent, value in found.items())
        click.echo(f"  close() to {what}: {shown}, max: {took[-1]:.2f} s")
    for percent, target in case.targets.items():
        met = "met" if found[percent] < target else "NOT MET"
        click.echo(f"  target: {percent} % in less than {target:g} s: {met}")


def percentile(values: list[float], percent: int) -> float:
    """Return what so many of a hundred sorted values do not exceed."""
    return values[math.ceil(len(values) * percent / 100) - 1]


def shares(sites: BothSites) -> None:
    """Print how long the stages took, by the finished log."""
    period = ["-l", str(sites.queue / "log"), "-B", "2000-01-01", "-D", "40000"]
    said = sites.command("xfer-logsum", "-i", "bench", "--latency", "--json", *period)
    *rows, total = json.loads(said)["latencies"]
    for row in rows:
        share = row["p50"] / total["p50"]
        times = f"50 %: {row['p50']:.2f} ({share:.0%}), 99 %: {row['p99']:.2f} s"
        click.echo(f"    {row['stage']:12} {times}")


def main(only: str = "", frames: str = "") -> None:
    """Measure."""
    for name, case in CASES.items():
        if only in ("", name):
            click.echo(f"{name}: {case.line or 'no line between'}")
            try:
                run(case, int(frames or case.frames))
            except NotRun as error:
                click.echo(f"  not run: {error}")


if __name__ == "__main__":
    os.environ.pop("XFER_QUEUE", None)
    main(*sys.argv[1:])

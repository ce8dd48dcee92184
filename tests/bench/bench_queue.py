"""Queues of a thousand, a hundred thousand and a million jobs: what does not get slower with them.

Run it by hand or with `make bench`; give other numbers of jobs as arguments. The spool is on the
file system of TMPDIR. "First file there" is the time from the start of xfer-send, with an archive
site that is a directory. A million jobs take three million inodes; where those, or the space for
them, are missing, and in CI, they are not run, and the table says so.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from lpxfer.formats import control, names
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores import batch
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Queue, Spool

CASES = (1_000, 100_000, 1_000_000)
BIN = Path(sys.executable).parent
ROUNDS = 5
CLAIMS = 500

INODES, BYTES = 3, 12_000  # that a job takes, at the most
IN_CI = 200_000  # jobs; more are never made there


def fill(queue: Queue, count: int) -> None:
    """Queue `count` empty jobs, as many submits would have."""
    now = datetime.now(UTC)
    checksum = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    numbers = list(queue.reserve(count))
    for start in range(0, count, 500):
        drafts = []
        for number in numbers[start : start + 500]:
            draft = queue.draft(number)
            draft.write("data", b"")
            known = Control(
                job=draft.id,
                uid=names.make_uid(now, "bench", draft.id, os.urandom(4)),
                host="bench",
                user=account(os.geteuid()),
                queue=queue.name,
                submitted=now,
                name=f"{number:07d}.fits",
                path=f"/data/{number:07d}.fits",
                size=0,
                mtime_ns=time.time_ns(),
                checksum=checksum,
                inst="bench",
            )
            draft.write("control", control.dump(known))
            drafts.append(draft)
        queue.commit(drafts, State.PENDING)
        for draft in drafts:
            draft.close()


def median(measure: Callable[[], float]) -> str:
    """Measure some times; return the median and what lies around it, in seconds."""
    found = sorted(measure() for _ in range(ROUNDS))
    return f"{found[ROUNDS // 2]:.2f} s [{found[0]:.2f}-{found[-1]:.2f}]"


def timed(command: Sequence[str | Path], environ: dict[str, str]) -> float:
    start = time.monotonic()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def submit_and_cancel(root: Path, environ: dict[str, str]) -> tuple[str, str]:
    """Submit a file and cancel its job, again and again."""
    file = root / "0001.fits"
    file.touch()
    canceled: list[float] = []

    def submit() -> float:
        start = time.monotonic()
        command = [BIN / "xfer-submit", "-o", "inst=bench", file]
        done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True)
        took = time.monotonic() - start
        canceled.append(timed([BIN / "xfer-cancel", done.stdout.split()[3]], environ))
        return took

    submitted = median(submit)
    left = iter(canceled)
    return submitted, median(lambda: next(left))


def claims(queue: Queue) -> float:
    """Claim jobs and put them back; return the seconds that a claim took."""
    ids = [job_id for job_id, _ in zip(queue.ids(State.PENDING), range(CLAIMS), strict=False)]
    start = time.monotonic()
    claimed, _ = batch.claim(queue, ids)
    took = (time.monotonic() - start) / len(claimed)
    for job in claimed:
        job.close()
    queue.move_many(ids, State.ACTIVE, State.PENDING)
    return took


def first_file(incoming: Path, environ: dict[str, str]) -> tuple[float, float, int]:
    """Start a sender; return seconds until its first file is there, of CPU, and its peak in MiB."""
    start = time.monotonic()
    sender = subprocess.Popen([BIN / "xfer-send"], env=environ)
    while not any(path.suffix == ".control" for path in incoming.iterdir()):
        assert sender.poll() is None
        time.sleep(0.01)
    took = time.monotonic() - start
    status = Path(f"/proc/{sender.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
    words = Path(f"/proc/{sender.pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")  # see proc(5)
    sender.terminate()
    sender.wait()
    return took, cpu, peak


def missing(directory: str, count: int) -> str:
    """Say why there is no place for so many jobs; nothing when there is."""
    if count > IN_CI and os.environ.get("CI"):
        return "never in CI"
    room = os.statvfs(directory)
    if room.f_files and room.f_favail < count * INODES + 10_000:
        return f"{count * INODES} inodes are needed, {directory} has {room.f_favail}"
    space = room.f_bavail * room.f_frsize
    with contextlib.suppress(OSError, IndexError, ValueError):
        text = Path("/proc/meminfo").read_text()
        memory = int(text.split("MemAvailable:")[1].split()[0]) * 1024
        kind = subprocess.run(
            ["stat", "-f", "-c", "%T", directory], stdout=subprocess.PIPE, text=True, check=False
        ).stdout
        space = min(space, memory) if kind.strip() in ("tmpfs", "ramfs") else space
    if space < count * BYTES:
        return f"{count * BYTES >> 30} GiB are needed, {directory} has {space >> 30}"
    return ""


def measure(count: int) -> dict[str, str]:
    """Make a queue of so many jobs and measure what people and the sender do with it."""
    directory = tempfile.mkdtemp(prefix="bench-queue-")
    try:
        root = Path(directory)
        (root / "incoming").mkdir()
        conf = root / "lpxfer.conf"
        conf.write_text(
            f"[lpxfer]\nspool = {root}/spool\nqueue = archive\n"
            f"[queue archive]\ntransport = local\nrempath = {root}/incoming\n"
        )
        environ = os.environ | {"XFER_CONF": str(conf)}
        queue = Spool(root / "spool").queue("archive")
        fill(queue, count)
        found = {
            "xfer-stat -s, no sender yet": median(lambda: timed([BIN / "xfer-stat", "-s"], environ))
        }
        queue.counter().look(datetime.now(UTC))
        found["xfer-stat -s, counted by a sender"] = median(
            lambda: timed([BIN / "xfer-stat", "-s"], environ)
        )
        submitted, canceled = submit_and_cancel(root, environ)
        found["xfer-stat -s, changed since"] = median(
            lambda: timed([BIN / "xfer-stat", "-s"], environ)
        )
        found |= {"xfer-submit, a file": submitted, "xfer-cancel, a job": canceled}
        claimed = sorted(claims(queue) * 1e6 for _ in range(ROUNDS))
        low, middle, high = claimed[0], claimed[ROUNDS // 2], claimed[-1]
        found["claim, each"] = f"{middle:.0f} us [{low:.0f}-{high:.0f}]"
        took, cpu, peak = first_file(root / "incoming", environ)
        found["xfer-send, first file there"] = f"{took:.2f} s, {cpu:.2f} s of CPU"
        found["xfer-send, peak memory"] = f"{peak} MiB"
        return found
    finally:
        shutil.rmtree(directory)


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or CASES
    for count in counts:
        click.echo(f"{count} jobs queued")
        if reason := missing(tempfile.gettempdir(), count):
            click.echo(f"    not run: {reason}")
            continue
        for what, took in measure(count).items():
            click.echo(f"    {what:<36} {took}")
    click.echo(
        "targets: xfer-stat -s 1 s; first file 15 s with less than 400 MiB; others as with 1000"
    )


if __name__ == "__main__":
    main()

"""A queue of 100,000 jobs: how soon `xfer-stat -s` answers and the sender starts; its memory.

Run it by hand or with `make bench`; give another number of jobs as the argument. The spool is
on the file system of TMPDIR. "Starts" is the time from the start of xfer-send, with an archive
site that is a directory, to the first file there.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from lpxfer.formats import control, names
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Queue, Spool

BIN = Path(sys.executable).parent
DATA = b"SIMPLE  ="
ROUNDS = 5


def fill(queue: Queue, count: int) -> None:
    """Queue `count` small jobs, as many submits would have."""
    now = datetime.now(UTC)
    checksum = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    numbers = list(queue.reserve(count))
    for start in range(0, count, 500):
        drafts = []
        for number in numbers[start : start + 500]:
            draft = queue.draft(number)
            draft.write("data", DATA)
            known = Control(
                job=draft.id,
                uid=names.make_uid(now, "bench", draft.id, os.urandom(4)),
                host="bench",
                user=account(os.geteuid()),
                queue=queue.name,
                submitted=now,
                name=f"{number:06d}.fits",
                path=f"/data/{number:06d}.fits",
                size=len(DATA),
                mtime_ns=time.time_ns(),
                checksum=checksum,
                inst="bench",
            )
            draft.write("control", control.dump(known))
            drafts.append(draft)
        queue.commit(drafts, State.PENDING)
        for draft in drafts:
            draft.close()


def timed(command: list[str], environ: dict[str, str]) -> float:
    start = time.monotonic()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def first_file(incoming: Path, environ: dict[str, str]) -> tuple[float, int]:
    """Start a sender; return seconds until its first file is there, and its peak RSS in MiB."""
    start = time.monotonic()
    sender = subprocess.Popen([BIN / "xfer-send"], env=environ)
    while not any(path.suffix == ".control" for path in incoming.iterdir()):
        assert sender.poll() is None
        time.sleep(0.01)
    took = time.monotonic() - start
    status = Path(f"/proc/{sender.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
    sender.terminate()
    sender.wait()
    return took, peak


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "incoming").mkdir()
        conf = root / "lpxfer.conf"
        conf.write_text(
            f"[lpxfer]\nspool = {root}/spool\nqueue = archive\n"
            f"[queue archive]\ntransport = local\nrempath = {root}/incoming\n"
        )
        environ = os.environ | {"XFER_CONF": str(conf)}
        fill(Spool(root / "spool").queue("archive"), count)
        stat = sorted(timed([str(BIN / "xfer-stat"), "-s"], environ) for _ in range(ROUNDS))
        click.echo(f"jobs queued                  {count}")
        click.echo(f"xfer-stat -s                 {stat[ROUNDS // 2]:.2f} s "
              f"[{stat[0]:.2f}-{stat[-1]:.2f}] (target 1 s)")  # fmt: skip
        took, peak = first_file(root / "incoming", environ)
        click.echo(f"xfer-send, first file there  {took:.2f} s (target 5 s), peak RSS {peak} MiB")


if __name__ == "__main__":
    main()

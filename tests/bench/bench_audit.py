"""How long xfer-audit takes for 1,000,000 records of both sites, and how much memory."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lpxfer.stores.spool import Spool

JOBS = 1_000_000 // 3  # each with a line in the finished log, a receipt and a record
START = datetime(2003, 4, 1, 19, tzinfo=UTC)
STEP = timedelta(days=30) / JOBS
KINDS = {"completed": "spool/archive/log/{day}.log",
         "stored": "receipts/packrat/mc-{day}.log",
         "stored ": "xferlogs/{day}.tdcin.log"}  # fmt: skip


def write_logs(root: Path) -> int:
    """Write a month of all three logs; return their bytes."""
    size = 0
    for kind, name in KINDS.items():
        day, log = "", None
        for number in range(JOBS):
            moment = (START + number * STEP).isoformat(timespec="milliseconds")[:-6] + "Z"
            file = f"mc.{number:07d}.fits"
            if day != moment[:10].replace("-", ""):
                day = moment[:10].replace("-", "")
                path = root / name.format(day=day)
                path.parent.mkdir(parents=True, exist_ok=True)
                log = open(path, "w")
            uid = f"{day}T{moment[11:19].replace(':', '')}Z-packrat-archive-{number + 1}"
            job = f"job=archive-{number + 1} " if kind == "completed" else ""
            size += log.write(
                f"{moment} {kind.strip()} {job}inst=minicam uid={uid}-{number:08x} name={file} "
                f"size=5497920 checksum=sha256:{number:064x} path=/h/ARCH/2003.0401/{file} "
                f"placed=2003.0401/{file} seconds=5.000 rate=1.10 attempts=1 reason=stored\n"
            )
    return size


def main() -> None:
    """Print seconds and peak memory."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        Spool(root / "spool").queue("archive").reserve(JOBS)
        size = write_logs(root)
        (root / "lpxfer.conf").write_text(f"[lpxfer]\nspool = {root}/spool\nhost = packrat\n")
        run = "from lpxfer.cli.xfer_audit import main; main()"
        options = ["-B2003-04-01", "-nD30", "-zMST", "-l", str(root / "xferlogs"),
                   "--receipts", str(root / "receipts")]  # fmt: skip
        environ = os.environ | {"XFER_CONF": str(root / "lpxfer.conf")}
        began = time.monotonic()
        report = subprocess.run(
            [sys.executable, "-c", run, *options],
            check=False, env=environ, capture_output=True, text=True,
        ).stdout  # fmt: skip
        seconds = time.monotonic() - began
    assert f"Nothing is owed: {JOBS} submitted." in report, report
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    sys.stdout.write(
        f"{3 * JOBS} records of {JOBS} jobs, {size / 1e6:.0f} MB: {seconds:.1f} s, "
        f"{3 * JOBS / seconds:.0f} a second, peak RSS {peak:.0f} MiB\n"
    )


if __name__ == "__main__":
    main()

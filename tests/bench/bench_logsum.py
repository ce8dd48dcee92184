"""How long xfer-logsum takes for 1,000,000 records, and how much memory."""

import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

COUNT = 1_000_000
START = datetime(2003, 4, 1, 19, tzinfo=UTC)
STEP = timedelta(days=30) / COUNT


def write_logs(directory: Path) -> int:
    """Write a month of logs as a sweep does; return their bytes."""
    size = 0
    logs: dict[str, list[str]] = {}
    for number in range(COUNT):
        time = (START + number * STEP).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        day, file = time[:10].replace("-", ""), f"mc.{number:07d}.fits"
        uid = f"{day}T{time[11:19].replace(':', '')}Z-packrat-archive-{number + 1}-{number:08x}"
        bytes_, seconds = 5_497_920 + number * 36, 5 + number * 7919 % 70_000 / 1000
        logs.setdefault(day, []).append(
            f"{time} stored inst=minicam uid={uid} name={file} size={bytes_} "
            f"checksum=sha256:{number:064x} path=/h/ftphome/ARCHMINICAM/2003.0401/{file} "
            f"placed=2003.0401/{file} seconds={seconds:.3f} rate={bytes_ / seconds / 1e6:.2f} "
            "attempts=1\n"
        )
        if len(logs) > 1:
            size += _flush(directory, logs, keep=day)
    return size + _flush(directory, logs)


def _flush(directory: Path, logs: dict[str, list[str]], keep: str = "") -> int:
    size = 0
    for day in [day for day in logs if day != keep]:
        size += (directory / f"{day}.tdcin.log").write_text("".join(logs.pop(day)))
    return size


def main() -> None:
    """Print seconds and peak memory."""
    with tempfile.TemporaryDirectory() as directory:
        size = write_logs(Path(directory))
        run = "from lpxfer.cli.xfer_logsum import main; main()"
        options = ["-i", "minicam", "-B2003-04-01", "-nD30", "-zMST", "-l", directory]
        began = time.monotonic()
        report = subprocess.run(
            [sys.executable, "-c", run, *options], check=True, capture_output=True, text=True
        ).stdout
        seconds = time.monotonic() - began
    assert f"{COUNT} files" in report, report
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    sys.stdout.write(
        f"{COUNT} records, {size / 1e6:.0f} MB: {seconds:.1f} s, {COUNT / seconds:.0f} a second, "
        f"peak RSS {peak:.0f} MiB\n"
    )


if __name__ == "__main__":
    main()

"""Start-up is a feature: a data system submits thousands of files, one command each."""

import subprocess
import sys

HEAVY = [
    "paramiko", "tabulate", "dateutil", "sqlite3", "asyncio", "ctypes", "subprocess", "blosc2",
]  # fmt: skip


def test_xfer_submit_loads_nothing_heavier_than_click() -> None:
    code = f"import sys, lpxfer.cli.xfer_submit; print(*sys.modules.keys() & set({HEAVY}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not loaded

"""Fuzz every reader of what others wrote: guided by coverage (atheris), or by chance alone.

python -m torture.fuzz TARGET HEX               play one input again
python -m torture.fuzz TARGET RUNS DIRECTORY    fuzz with what is in a directory as seeds
"""

import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from torture.table import Result

SEED = 20261120
TOGETHER = 1_100_000  # inputs of a full run
MUTATIONS = 3000  # inputs for each target in the short run
LONGEST = 4096  # bytes of one input
PATIENCE = 5  # seconds of one input

#: Parts of a whole: the slower readers get less.
SHARES = {
    "control files": 3, "bundles": 2, "records": 3, "receipts": 2, "configurations": 1,
    "xferlogs": 3, "encoded files": 2, "FITS headers": 1, "traces": 1,
}  # fmt: skip


def run(short: bool) -> Iterator[Result]:
    """Fuzz each target in a process of its own; the short run mutates its seeds here."""
    from torture.fuzz_targets import TARGETS

    for name in TARGETS:
        if short:
            yield _mutated(name)
        elif importlib.util.find_spec("atheris") is None:
            yield Result(_title(name), not_run="atheris is not installed: pip install atheris")
        else:
            yield _guided(name, -(-TOGETHER * SHARES[name] // sum(SHARES.values())))


def _title(name: str) -> str:
    return f"fuzz: {name}"


def _broken(name: str, data: bytes, why: str) -> str:
    again = f"PYTHONPATH=tests python -m torture.fuzz '{name}' {data.hex()}"
    return f"{why}; {again}"


# --- guided by coverage --------------------------------------------------------------------


def _guided(name: str, runs: int) -> Result:
    from torture.fuzz_targets import TARGETS

    result = Result(_title(name))
    with tempfile.TemporaryDirectory() as directory:
        seeds, crashes = Path(directory) / "seeds", Path(directory) / "crashes"
        seeds.mkdir()
        crashes.mkdir()
        for number, seed in enumerate(TARGETS[name][1]):
            (seeds / str(number)).write_bytes(seed)
        command = [sys.executable, "-m", "torture.fuzz", name, str(runs), directory]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        found = [path.read_bytes() for path in sorted(crashes.iterdir())]
    if match := re.search(r"Done (\d+) runs", done.stderr):
        result.tries = result.survived = int(match[1])
    for covered in re.findall(r"cov: (\d+)", done.stderr)[-1:]:
        result.notes["edges covered"] = int(covered)
    for data in found:
        result.count(_broken(name, data, _why(done.stderr)))
    if not found and (done.returncode or result.tries < runs):
        result.count(f"{name}: the fuzzer ended with {done.returncode}: {done.stderr[-500:]}")
    return result


def _why(said: str) -> str:
    """Find the line of an exception, or of a time or memory that was too much."""
    raised = re.search(r"Uncaught Python exception: ===\n(.*)", said)
    refused = re.search(r"ERROR: libFuzzer: (.*)", said)
    return (raised or refused or re.search("()", said))[1].strip() or "it crashed"


def _fuzz(name: str, runs: str, directory: str) -> None:
    """Be the process that fuzzes a target."""
    import atheris

    with atheris.instrument_imports(include=["lpxfer.formats", "lpxfer.codec"]):
        from torture.fuzz_targets import TARGETS

    settings = [
        f"-runs={runs}", f"-seed={SEED}", f"-max_len={LONGEST}", f"-timeout={PATIENCE}",
        f"-artifact_prefix={directory}/crashes/", "-rss_limit_mb=1024", f"{directory}/seeds",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *settings], TARGETS[name][0])
    atheris.Fuzz()


# --- by chance alone ------------------------------------------------------------------------


def _mutated(name: str) -> Result:
    from torture.fuzz_targets import TARGETS

    target, seeds = TARGETS[name]
    result, dice = Result(_title(name)), random.Random(SEED)
    for _ in range(MUTATIONS):
        data = mutate(dice.choice(seeds), seeds, dice)
        try:
            target(data)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            result.count(_broken(name, data, f"{type(error).__name__}: {error}"))
        else:
            result.count(None)
    return result


_PIECES = rb"= %25 %00 %zz [ ] end= 99999999999999999999 -1 ../ uid= inst= Z".split() + [
    b"\n",
    b" ",
    b"\t",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\x1b",
    b"\xc2\x85",
    b"\xe2\x80\xae",
]


def mutate(data: bytes, seeds: list[bytes], dice: random.Random) -> bytes:
    """Change a text in a few places, most often in one."""
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        values = list(re.finditer(rb"(?<==)[^ \n]*", data))
        if values and dice.random() < 0.5:
            here, there = dice.choice(values).span()
        else:
            here = dice.randrange(len(data) + 1)
            there = min(len(data), here + dice.choice([0, 1, 2, 5, 20, 100]))
        old = data[here:there]
        new = dice.choice([b"", dice.randbytes(1), dice.choice(_PIECES), dice.choice(seeds)])
        data = data[:here] + dice.choice([new, new, old + new, new + old, old * 2]) + data[there:]
    return data[:LONGEST]


def _play(name: str, data: bytes) -> int:
    from torture.fuzz_targets import TARGETS

    try:
        TARGETS[name][0](data)
    except Exception:  # noqa: BLE001 - that is what is looked for
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 4:
        _fuzz(*sys.argv[1:])
    sys.exit(_play(sys.argv[1], bytes.fromhex(sys.argv[2])))

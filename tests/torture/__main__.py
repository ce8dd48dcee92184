"""Break everything, and count what survived: `make torture`.

    PYTHONPATH=tests python -m torture [--short] [--jobs N] [--json FILE] [CASE...]

Every module named in CASES has `run(short: bool) -> Iterator[Result]`; each runs in a process
of its own, several at a time. Exit status 1 when any promise was broken. The README's figures
are written from the results of all cases, which may come from several runs with one FILE.
"""

import argparse
import gc
import importlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from torture import promises
from torture.table import Result, lines

#: In the order in which they begin; the long ones first, so that none is left for the end.
CASES = [
    "simulator",
    "users",
    "powercut",
    "mutants",
    "states",
    "kills",
    "disks",
    "links",
    "hostile",
    "fuzz",
    "deposit",
    "clocks",
]


def one(case: str, short: bool) -> list[Result]:
    """Run one case in a process of its own, so that none can hurt the others."""
    command = [sys.executable, "-m", "torture", "--inside", case, *(["--short"] if short else [])]
    begun = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    rows = [Result(**json.loads(line)) for line in done.stdout.splitlines()]
    if done.returncode or not rows:
        rows.append(Result(case, violations=[f"the case itself ended with {done.returncode}"]))
    broken = [violation for row in rows for violation in row.violations]
    took = f"{time.monotonic() - begun:.0f} s"
    said = [f"{case}: {took}, {len(broken)} violations", *broken]
    print("\n  ".join(said), file=sys.stderr, flush=True)
    return rows


def inside(case: str, short: bool) -> None:
    """Run a case here; one line of JSON for each result."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a case or its children print is no result
    module = importlib.import_module(f"torture.{case}")
    gc.collect()
    gc.freeze()  # what is imported stays; looking through it again and again is slow
    for result in module.run(short):
        print(json.dumps(result.as_dict()), file=out, flush=True)
    used = sum(os.times()[:4])
    print(f"{case}: {used:.0f} s of CPU", file=sys.stderr, flush=True)


def main() -> int:
    """Run the cases named, or all of them, and print one table."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="the short cut that make test takes")
    jobs = 3 + (os.cpu_count() or 1)  # some of them mostly wait
    parser.add_argument("--jobs", type=int, default=jobs, help="cases at a time")
    parser.add_argument("--json", type=Path, help="keep the results there, beside those of others")
    parser.add_argument("--readme", type=Path, help="write the figures kept into its promises")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*", metavar="CASE", default=CASES)
    args = parser.parse_args()
    if args.short and (args.json or args.readme):
        parser.error("a short cut has no figures to keep")
    if args.inside:
        inside(args.inside, args.short)
        return 0
    found: dict[str, list[Result]] = {}
    kept: dict[str, list[Result]] = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        running = {pool.submit(one, case, args.short): case for case in args.cases}
        for done in as_completed(running):
            found[running[done]] = done.result()
            kept = keep(args.json, found) if args.json else found
    results = [result for case in args.cases for result in found[case]]
    print("\n".join(lines(results)))
    if args.readme:
        promises.write(args.readme, kept)
    return int(any(result.failed for result in results))


def keep(path: Path, found: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """Keep the results of these cases in a file, beside those of others; return all."""
    if path.exists():
        before = json.loads(path.read_text())["cases"]
        found = {case: [Result(**row) for row in rows] for case, rows in before.items()} | found
    cases = {case: [result.as_dict() for result in rows] for case, rows in found.items()}
    path.write_text(json.dumps({"version": 1, "cases": cases}, indent=1) + "\n")
    return found


if __name__ == "__main__":
    sys.exit(main())

"""What was measured, kept as JSON, and the tables made of it."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import peers
from cases import CASES, Case, Target

HERE = Path(__file__).parent
RAW, TABLE = HERE / "results.json", HERE / "RESULTS.md"
LEAST = 5  # rounds that a figure is worth publishing after


@dataclass(frozen=True)
class Run:
    """One go: seconds, the bytes that arrived in them, and the CPU seconds of both ends."""

    seconds: float
    bytes: int = 0
    client: float = 0.0
    server: float = 0.0
    finished: bool = True  # or it was stopped at the limit

    def rate(self, less: float = 0.0) -> float:
        """Return MB/s, where so many seconds do not count."""
        return self.bytes / 1e6 / max(self.seconds - less, 1e-3)


@dataclass
class Row:
    """All that one contestant did."""

    runs: list[Run] = field(default_factory=list)
    login: float = 0.0  # seconds that it needs for one file of one byte
    fault: str = ""  # why it was not run, or not all of it

    def middle(self, what: str) -> float:
        """Return the median of a value of its runs."""
        return statistics.median(float(getattr(run, what)) for run in self.runs)

    def rate(self, kept: bool) -> float:
        """Return the median of its rate, without its login where connections are kept."""
        return statistics.median(run.rate(self.login if kept else 0) for run in self.runs)

    def cpu(self) -> float:
        """Return the median of the CPU of both ends together."""
        return statistics.median(run.client + run.server for run in self.runs)


@dataclass
class Result:
    """One case on one machine."""

    when: str = ""
    machine: str = ""
    programs: dict[str, str] = field(default_factory=dict)
    line: str = ""
    link: float = 0.0  # Mbit/s
    work: str = ""
    kept: bool = False
    rows: dict[str, Row] = field(default_factory=dict)
    not_run: str = ""

    def done(self, pattern: str = "*") -> dict[str, Row]:
        """Return the rows that have figures and a name like this, the fastest first."""
        rows = {name: row for name, row in self.rows.items() if row.runs}
        fit = {name: row for name, row in rows.items() if fnmatchcase(name, pattern)}
        return dict(sorted(fit.items(), key=lambda item: -item[1].rate(self.kept)))

    def peers(self, pattern: str = "*") -> dict[str, Row]:
        """Return the same without lpxfer's."""
        return {n: row for n, row in self.done(pattern).items() if not n.startswith("lpxfer")}


def read() -> dict[str, Result]:
    """Return what earlier runs have measured, by case."""
    if not RAW.exists():
        return {}
    results = {}
    for name, values in json.loads(RAW.read_text()).items():
        values["rows"] = {
            who: Row(**(row | {"runs": [Run(**run) for run in row["runs"]]}))
            for who, row in values["rows"].items()
        }
        results[name] = Result(**values)
    return results


def write(results: dict[str, Result]) -> None:
    """Keep the figures and make the page of them."""
    kept = {name: asdict(result) for name, result in results.items()}
    RAW.write_text(json.dumps(kept, indent=1) + "\n")
    TABLE.write_text(page(results))


# --- the page -----------------------------------------------------------------------------------

HEAD = """\
# lpxfer and its peers

Made by `make bench`; `python tests/bench/compare.py CASE` measures single rows anew. Everything
is in memory, all use the same sshd in turn, and what arrived was compared byte by byte.

- Figures are medians, with minimum and maximum.
- *lpxfer, sent*: from the moment the queue is enabled until all jobs are in the archive site's
  incoming, synced. *lpxfer, completed*: until the sender has read the receipts of all. The sender
  runs and has its connections; a following sweep runs, too. Submitting is not in it.
- A peer's time is that of its command. Its *login* is its time for a file of one byte.
- A peer with `>` was stopped; its rate is that of the bytes that had arrived.
- *lpxfer is*: the rate of *lpxfer, sent* divided by this one's. Where connections are kept, a
  peer's rate is the one without its login.
- CPU is that of client and server; *completed* has that of the sweep in the server's.

## Targets

| case | work | target | found | |
|---|---|---|---|---|
"""

ROWS = """
## Figures

| case | program | seconds | MB/s | without login | of the line | CPU s | lpxfer is |
|---|---|---|---|---|---|---|---|
"""


def page(results: dict[str, Result]) -> str:
    """Return the Markdown of all results."""
    names = [case.name for case in CASES]
    results = {name: results[name] for name in [*names, *results] if name in results}
    known = [(case, results[case.name]) for case in CASES if case.name in results]
    text = HEAD + "".join(map(line, targets(known)))
    text += ROWS
    for name, result in results.items():
        text += "".join(map(line, figures(name, result)))
    text += "\n## Where, and with what\n\n"
    places: dict[str, list[str]] = {}
    for name, result in results.items():
        if result.machine:
            programs = "; ".join(f"{key} {value}" for key, value in result.programs.items())
            places.setdefault(f"{result.machine}. {programs}", []).append(f"{name} ({result.when})")
    text += "".join(f"- {', '.join(names)}: {place}.\n" for place, names in places.items())
    commands = "\n".join(f"{name}: {command}" for name, command in peers.PEERS.items())
    return text + f"\n## What peers were told\n\n```\n{commands}\n```\n"


def line(cells: Iterable[str]) -> str:
    """Return one line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def targets(cases: Iterable[tuple[Case, Result]]) -> Iterable[list[str]]:
    """Return the cells of the table of targets."""
    for case, result in cases:
        kept = "connections kept" if result.kept else ""
        work = "; ".join(filter(None, (result.work, result.line, kept)))
        for target in case.targets:
            wanted, found, met = judge(target, result)
            yield [case.name, work, wanted, found, met]


def judge(target: Target, result: Result) -> tuple[str, str, str]:
    """Return what was wanted, what was found, and whether that will do."""
    failed = result.rows.get(target.ours.partition(",")[0], Row())
    ours = result.rows.get(target.ours, failed)
    wanted = {
        "rate": f"{target.ours}: ≥ {target.bound:g} × {target.against}",
        "line": f"{target.ours}: ≥ {target.bound:g} of the line's rate",
        "cpu": f"{target.ours}: CPU ≤ {target.bound:g} × {target.against}",
        "seconds": f"{target.ours}: ≤ {target.bound:g} s",
        "idle": f"{target.ours}: ≤ {target.bound:g} s of CPU",
    }[target.kind].replace("× *", "× the best peer")
    if not ours.runs:
        return wanted, ours.fault or f"not run: {result.not_run}", ""
    others = result.peers(target.against)
    if target.kind in ("rate", "cpu") and not others:
        return wanted, "not run: no such peer", ""
    best = next(iter(others), "")
    if target.kind == "rate":
        value = ours.rate(False) / others[best].rate(result.kept)
        found, met = f"{value:.2f} × {best}", value >= target.bound
    elif target.kind == "line":
        value = ours.rate(False) * 8 / result.link
        found, met = f"{value:.2f}", value >= target.bound
    elif target.kind == "cpu":
        value = ours.cpu() / others[best].cpu()
        found, met = f"{value:.2f} × {best}", value <= target.bound
    else:
        value = ours.middle("seconds" if target.kind == "seconds" else "client")
        found, met = f"{value:.2f} s", value <= target.bound
    return wanted, found, "met" if met else "not met"


def figures(name: str, result: Result) -> Iterable[list[str]]:
    """Return the cells of the rows of one case, the fastest first."""
    if result.not_run:
        yield [f"**{name}**", f"not run: {result.not_run}", *[""] * 6]
        return
    done = result.done()
    sent = next((row for who, row in done.items() if who == "lpxfer, sent"), None)
    for who, row in done.items():
        stopped = "" if all(run.finished for run in row.runs) else "> "
        cells = [name, who, stopped + spread([run.seconds for run in row.runs])]
        cells.append(spread([run.rate() for run in row.runs]) if row.runs[0].bytes else "")
        shown = 0 < row.login < row.middle("seconds") / 2  # else it says nothing
        login = f"{row.rate(True):.3g} ({row.login:.2f} s)" if shown else ""
        share = f"{row.rate(False) * 800 / result.link:.0f} %" if result.link else ""
        cpu = f"{row.middle('client'):.2f} + {row.middle('server'):.2f}"
        cpu = cpu if any(run.client for run in row.runs) else ""
        if sent is None or who.startswith("lpxfer"):
            ratio = ""
        else:
            ratio = f"{sent.rate(False) / row.rate(result.kept):.2f} ×"
        yield [*cells, login, share, cpu, ratio]
        if row.fault:
            yield [name, f"{who}, once", row.fault, *[""] * 5]
    for who, row in result.rows.items():
        if not row.runs:
            yield [name, who, row.fault, *[""] * 5]


def spread(values: list[float]) -> str:
    """Return median, minimum and maximum."""
    numbers = (statistics.median(values), min(values), max(values))
    return "{:.3g} [{:.3g} to {:.3g}]".format(*numbers)


# --- where it was measured ----------------------------------------------------------------------


def machine() -> str:
    """Return processor, memory, kernel and Python of this machine."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    kernel = platform.release().partition("-")[0]  # whoever built it is no matter
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return (
        f"{os.cpu_count()} × {models[0] if models else platform.machine()}, "
        f"{memory:.0f} GiB, Linux {kernel}, Python {platform.python_version()}"
    )


def versions() -> dict[str, str]:
    """Return the versions of lpxfer, with its commit, and of its peers."""
    from lpxfer import __version__

    describe = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    said = subprocess.run(describe, capture_output=True, text=True, check=False, timeout=20)
    return {"lpxfer": f"{__version__} {said.stdout.strip()}".strip()} | peers.versions()

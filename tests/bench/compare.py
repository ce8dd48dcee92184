"""lpxfer and its peers at the same work on the same line, in turn; one table of all.

    python tests/bench/compare.py [CASE ...]

Each round everybody sends the same files to the same sshd, in an order that is drawn anew; the
first round is not counted. With a smaller scale or fewer rounds, or not all of the peers, it is
a trial: it is printed and not written to RESULTS.md.
"""

import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
import cpu
import results
from both_sites import BothSites
from cases import CASES, THIN, Case
from contest import OURS, Stage, check, login, ours, peer, stage
from peers import FOR_FRAMES
from results import Result, Row, Run
from wan import NotRun

SUBMITS = 16  # how often submit to archived is measured, and the first is not counted
IDLE = 20.0  # seconds
SETTLE = 3.0  # seconds after the last receipt until a sender is idle

#: Does some work once; returns what it did, by the names of rows.
Contestant = Callable[[], dict[str, Run]]


# --- kinds of cases -------------------------------------------------------------------------------


def compare(case: Case, stage: Stage, rounds: int, chosen: str) -> dict[str, Row]:
    """Play all rounds with everybody."""
    rows: dict[str, Row] = {}
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for number, (name, settings) in enumerate(case.ours.items()):
            root = stage.root / f"sites{number}"
            try:
                sites = BothSites(root, stage.far, stage.ends, stage.groups, settings)
                stack.enter_context(sites)
                sites.wait((sites.queue / "wake").exists, 30)
            except RuntimeError as error:
                rows[name] = Row(fault=f"not run: {error}")
                continue
            contestants[name] = partial(ours, name, stage, sites)
        for name in case.peers:
            if fnmatchcase(name, chosen):
                contestants[name] = partial(peer, name, stage, stage.source, case.limit)
        rows |= play(contestants, rounds)
        for name in case.peers:
            if name in rows and rows[name].runs:
                try:
                    rows[name].login = login(name, stage, case.limit)
                except RuntimeError as error:
                    rows[name].fault = f"login: {error}"
    return rows


def play(contestants: dict[str, Contestant], rounds: int) -> dict[str, Row]:
    """Let everybody work in each round; who cannot, or fails twice, is left out."""
    rows: dict[str, Row] = {}
    failed: dict[str, int] = {}
    order = random.Random(rounds)
    for number in range(rounds + 1):
        for name in order.sample(sorted(contestants), len(contestants)):
            try:
                runs = contestants[name]()
            except (NotRun, RuntimeError, OSError) as error:
                kind = "not run" if isinstance(error, NotRun) else "failed"
                fault = f"{kind}: {' '.join(str(error).split())}"
                rows.setdefault(name, Row()).fault = fault
                failed[name] = failed.get(name, 0) + 1
                click.echo(f"  {number}: {name}: {fault}", err=True)
                if kind == "not run" or failed[name] > 1:
                    del contestants[name]
                continue
            for who, run in runs.items():
                click.echo(f"  {number}: {who}: {run.seconds:.2f} s, {run.rate():.1f} MB/s")
                row = rows.setdefault(who, Row())
                row.runs += [run] if number else []  # the first one only warms up
    return rows


def archived(case: Case, stage: Stage, rounds: int, chosen: str) -> dict[str, Row]:
    """Submit a frame, and wait until the archive has written its receipt, again and again."""
    rows = {"submitted": Row(), "archived": Row(), "completed": Row()}
    settings = case.ours["lpxfer"]
    with BothSites(stage.root / "sites", stage.far, stage.ends, stage.groups, settings) as sites:
        receipts = stage.root / "sites" / "receipts"

        def written(more_than: int = -1) -> int:
            size = sum(path.stat().st_size for path in receipts.glob("bench/*.log"))
            return size if size > more_than else 0

        for number in range(max(SUBMITS, rounds + 1)):
            before, began = written(), time.monotonic()
            sites.submit(stage.files, "work")
            took = [time.monotonic() - began]
            for over in (partial(written, before), partial(sites.are_over, "active", "sent")):
                sites.wait(over, OURS)
                took.append(time.monotonic() - began)
            count = check(stage.files, sites.archive / "work")
            shutil.rmtree(sites.archive / "work")
            click.echo("  {}: {:.3f} {:.3f} {:.3f} s".format(number, *took))
            for row, seconds in zip(rows.values(), took, strict=True):
                row.runs += [Run(seconds, count)] if number else []
    return rows


def idle(case: Case, stage: Stage, rounds: int, chosen: str) -> dict[str, Row]:
    """Watch a sender and a sweep that have had work and have none."""
    rows = {"sender": Row(), "sweep": Row()}
    settings = case.ours["lpxfer"]
    with BothSites(stage.root / "sites", stage.far, stage.ends, stage.groups, settings) as sites:
        sites.submit(stage.files, "work")
        sites.wait(partial(sites.are_over, "pending", "active", "sent"), OURS)
        time.sleep(SETTLE)
        for _ in range(rounds):
            before = sites.daemons_used()
            time.sleep(IDLE)
            for row, now, then in zip(rows.values(), sites.daemons_used(), before, strict=True):
                row.runs.append(Run(IDLE, client=now - then))
                click.echo(f"  {now - then:.2f} s of CPU")
    return rows


# --- the command ----------------------------------------------------------------------------------

KINDS = {"": compare, "archived": archived, "idle": idle}


def measure(case: Case, scale: float, rounds: int, chosen: str) -> Result:
    """Measure one case, or say why not."""
    result = Result(
        when=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=f"{results.machine()}, CPU by {cpu.HOW}",
        programs=results.versions(),
        line=str(case.line or ""),
        link=case.line.rate if case.line else 0.0,
        work=case.work,
        kept=case.kept,
    )
    click.echo(f"{case.name}: {case.work}; {case.line or 'loopback'}")
    try:
        with stage(case, scale) as ready:
            result.rows = KINDS[case.alone](case, ready, rounds, chosen)
    except NotRun as error:
        result.not_run = str(error)
    return result


def own_frames(directory: Path) -> Case:
    """Return a case of somebody's own frames."""

    def make(to: Path, scale: float) -> None:
        for path in sorted(directory.iterdir()):
            shutil.copy(path, to)

    names = f"{len(list(directory.iterdir()))} frames of one's own"
    return Case("own", names, make, FOR_FRAMES, line=THIN, kept=True)


@click.command()
@click.argument("names", metavar="[CASE]...", nargs=-1)
@click.option("--rounds", default=results.LEAST, show_default=True, help="Counted ones.")
@click.option("--scale", default=1.0, show_default=True, help="Smaller work, for a trial.")
@click.option("--limit", type=float, help="Seconds until a peer is stopped.")
@click.option("--peers", "chosen", default="*", help="Only those whose name matches.")
@click.option("--frames", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="FITS frames of one's own, as one more case.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="Say what cases there are.")
def main(names: tuple[str, ...], rounds: int, scale: float, limit: float | None, chosen: str,
         frames: Path | None, listing: bool) -> None:  # fmt: skip
    """Measure the cases given, or all."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is removed
    cases = {case.name: case for case in (*CASES, *([own_frames(frames)] if frames else []))}
    if listing:
        for case in cases.values():
            click.echo(f"{case.name:12}{case.work}; {case.line or 'loopback'}")
        return
    if unknown := set(names) - set(cases):
        raise click.UsageError(f"no case {', '.join(sorted(unknown))}; see --list")
    trial = scale != 1 or rounds < results.LEAST or chosen != "*" or limit is not None
    known = {} if trial else results.read()
    for name in names or cases:
        case = replace(cases[name], limit=limit or cases[name].limit)
        known[name] = measure(case, scale, rounds, chosen)
        if not trial:
            results.write(known)
    click.echo(results.page(known))


if __name__ == "__main__":
    main()

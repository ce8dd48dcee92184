"""Every legal state after a crash: each scenario is cut at every point, in every way.

What the model allows stands in `model.py`, as the README quotes it. The states of the two sites
are independent: the power fails at one, where the process dies with it while the other keeps
all it did, or at both. Each distinct state is made on a tmpfs, judged as it is, recovered by
what the commands do next, and judged again.
"""

import contextlib
import itertools
import random
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torture import calls, invariants, model, sites
from torture.model import SITES, Recorder, Tree
from torture.scenarios import SCENARIOS, Scenario, not_minding
from torture.table import Result

COMBINATIONS = 64  # of what may be lost at one point of one site; more are sampled
FEWER = 8  # where only some of the states are judged
ALMOST_ALL = 1000  # states of a scenario: a budget of more is worth all combinations
PAIRS = 6  # states of each site that are combined where both are cut
KILLS = 4  # of each scenario; mutants.py needs more
AFTER_KILL = 12  # states for each
POINTS = 2  # at which the power is cut after a kill, beside the last one
SHORT = 6  # states of each scenario in the short cut, which kills in one of SELDOM
SELDOM = 5
SEED = 2033
RAM = Path("/dev/shm")
NOT_KILLED = "receipts"  # see explore_killed


@dataclass(frozen=True)
class Found:
    """A state: both sites as they may be found, and the last point at which they may be."""

    sites: tuple[Tree, ...]
    how: str
    said: Sequence[str]  # until then


@dataclass(frozen=True)
class Trace:
    """What one run of a scenario did."""

    recorder: Recorder
    said: list[str]
    words: list[int]  # how many had been given after each call, and before the next one


class Killed(BaseException):
    """Raised in an operation that is killed: no handler may tidy up."""


def run(short: bool) -> Iterator[Result]:
    """Explore every scenario; then kill it first, and cut the power while it is made good."""
    with sites.nothing_hangs():
        yield from _run(short)


def _run(short: bool) -> Iterator[Result]:
    twice = Result("legal states, killed before the power is cut")
    for number, scenario in enumerate(SCENARIOS):
        yield explore(scenario, RAM, budget=SHORT if short else None)
        if scenario.name.startswith(NOT_KILLED) or (short and number % SELDOM):
            continue
        also = explore_killed(scenario, RAM, budget=1 if short else KILLS)
        twice.tries += also.tries
        twice.survived += also.survived
        twice.lost += also.lost
        twice.violations += also.violations
    yield twice


def explore(
    scenario: Scenario,
    workdir: Path,
    stop_at_first: bool = False,
    budget: int | None = None,
    seed: int = SEED,
) -> Result:
    """Judge every legal state after a crash, or `budget` of them, chosen by the seed.

    `workdir` is a directory of a tmpfs. The last states come first: there the words are.
    """
    result = Result(f"legal states: {scenario.name}")
    with _workplace(workdir) as root:
        scenario.prepare(root)
        try:
            trace = record(scenario, root)
        except Exception:  # noqa: BLE001 - a mutant may break what it likes
            result.count(f"it failed without a crash: {traceback.format_exc()}")
            return result
        most = COMBINATIONS if budget is None or budget > ALMOST_ALL else FEWER
        found, sampled = legal_states(trace, random.Random(seed), most=most)
        result.notes = {"calls": trace.recorder.calls, "states": len(found), "sampled": sampled}
        if budget is not None and len(found) > budget:
            kept = random.Random(seed).sample(range(1, len(found)), budget - 1)
            found = [found[0], *(found[at] for at in sorted(kept))]
        _judge_all(scenario, root, found, result, stop_at_first)
    return result


def explore_killed(
    scenario: Scenario,
    workdir: Path,
    stop_at_first: bool = False,
    budget: int | None = None,
    seed: int = SEED,
) -> Result:
    """Kill an operation, let the next ones make it good, and cut the power on them.

    What a killed process had written is there and not durable: whoever relies on it must sync
    it; but for a seal, which keeps whoever comes after it from opening the file. `budget` bounds
    the kills, which are spread over the operation. `run` leaves receipts to the sweeps, which
    repeat them.
    """
    scenario = replace(scenario, check=not_minding(invariants.UNSEALED, scenario.check))
    result = Result(f"legal states, killed before: {scenario.name}")
    rng = random.Random(seed)
    with _workplace(workdir) as root:
        scenario.prepare(root)
        every = range(record(scenario, root).recorder.calls)
        kills = every if budget is None else sorted(rng.sample(every, min(budget, len(every))))
        for kill in kills:
            _clear(root)
            scenario.prepare(root)
            try:
                trace = record(scenario, root, kill)
            except Exception:  # noqa: BLE001 - a mutant may break what it likes
                result.count(f"killed after call {kill}: {traceback.format_exc()}")
                continue
            last = trace.recorder.calls
            points = {last, *rng.sample(range(kill, last + 1), min(POINTS, last - kill))}
            found, _ = legal_states(trace, rng, sorted(points, reverse=True), FEWER)
            found = rng.sample(found, min(len(found), AFTER_KILL))
            said = f"{scenario.name}, killed after call {kill}"
            if _judge_all(scenario, root, found, result, stop_at_first, said) and stop_at_first:
                break
    return result


def _judge_all(
    scenario: Scenario,
    root: Path,
    found: Sequence[Found],
    result: Result,
    stop_at_first: bool,
    said: str = "",
) -> bool:
    """Count what becomes of states; tell whether any was broken."""
    any_broken = False
    for state in found:
        broken = judge(scenario, root, state)
        lost = any("gone" in text or "was said" in text for text in broken)
        how = f"{said} {state.how}".strip()
        result.count(f"{how}: {'; '.join(broken)}" if broken else None, lost)
        any_broken |= bool(broken)
        if broken and stop_at_first:
            break
    return any_broken


def record(scenario: Scenario, root: Path, kill: int | None = None) -> Trace:
    """Do the operation of a scenario and take down every change.

    With `kill` it dies after so many calls, and what recovers it is taken down, too.
    """
    trace = Trace(Recorder(root), [], [])
    dying = kill is not None

    def before(verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if dying and trace.recorder.calls == kill:
            raise Killed
        trace.words[trace.recorder.calls :] = [len(trace.said)]
        trace.recorder.before(verb, args, kwargs)

    with calls.watched(before, trace.recorder.after):
        with contextlib.suppress(Killed):
            scenario.act(root, trace.said.append)
        if dying:
            dying = False
            with sites.heard(trace.said.append):
                scenario.recover(root)
    trace.words[trace.recorder.calls :] = [len(trace.said)]
    return trace


def legal_states(
    trace: Trace,
    rng: random.Random,
    points: Sequence[int] | None = None,
    most: int = COMBINATIONS,
) -> tuple[list[Found], int]:
    """Return every state that a cut may leave, the last ones first; and of how many points not all.

    `points` are the calls after which it is cut, the last one first; without them, all.

    What may be found at several points is judged by what had been said at the last of them.
    """
    disks = [trace.recorder.disks[site] for site in SITES]
    found: dict[tuple[Tree, ...], Found] = {}
    sampled = 0

    def add(pair: Sequence[Tree], how: str, call: int) -> None:
        found.setdefault(tuple(pair), Found(tuple(pair), how, trace.said[: trace.words[call]]))

    last = trace.recorder.calls
    whole = [disk.states(last, 1, rng)[0][0] for disk in disks]
    for at, disk in enumerate(disks if points is None else ()):
        for tree in disk.with_old_names():
            add([*whole[:at], tree, *whole[at + 1 :]], f"{SITES[at]}, old names, at the end", last)
    for call in range(last, -1, -1) if points is None else points:
        each = [disk.states(call, most, rng) for disk in disks]
        sampled += sum(not every for _, every in each)
        (first, *_), (second, *_) = trees = [states for states, _ in each]
        for number, tree in enumerate(trees[0]):
            add([tree, second], f"telescope cut after call {call}, state {number}", call)
        for number, tree in enumerate(trees[1]):
            add([first, tree], f"archive cut after call {call}, state {number}", call)
        some = [_some(states, rng) for states in trees]
        for number, pair in enumerate(itertools.product(*some)):
            add(pair, f"both cut after call {call}, state {number}", call)
    return list(found.values()), sampled


def _some(states: list[Tree], rng: random.Random) -> list[Tree]:
    """Choose the states that are combined with those of the other site; the last lost most."""
    if len(states) <= PAIRS:
        return states
    return [states[-1], *rng.sample(states[:-1], PAIRS - 1)]


def judge(scenario: Scenario, root: Path, state: Found) -> list[str]:
    """Make a state and return what is broken in it, before and after recovery."""
    _clear(root)
    for site, tree in zip(SITES, state.sites, strict=True):
        model.build(tree, root / site)
    try:
        broken = scenario.check(root, state.said)
        if not broken:
            scenario.recover(root)
            broken = [f"recovered: {text}" for text in scenario.settled(root, state.said)]
    except Exception:  # noqa: BLE001 - it is what was looked for
        broken = [traceback.format_exc()]
    return broken


def _clear(root: Path) -> None:
    for site in SITES:
        shutil.rmtree(root / site)


@contextmanager
def _workplace(workdir: Path) -> Iterator[Path]:
    """Make an empty directory, always of the same length, and remove it."""
    root = Path(tempfile.mkdtemp(prefix="torture-", dir=workdir))
    try:
        yield root
    finally:
        shutil.rmtree(root)

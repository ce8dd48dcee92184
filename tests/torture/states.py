"""Every legal state after a crash: each scenario is cut at every point, in every way.

What the model allows stands in `model.py`, as the README quotes it. The states of the two sites
are independent: the power fails at one, where the process dies with it while the other keeps
all it did, or at both. Each distinct state is made on a tmpfs, judged as it is, recovered by
what the commands do next, and judged again.
"""

import itertools
import random
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture import calls, model
from torture.model import SITES, Recorder, Tree
from torture.scenarios import SCENARIOS, Scenario
from torture.table import Result

COMBINATIONS = 256  # of what may be lost at one point of one site; more are sampled
PAIRS = 6  # states of each site that are combined where both are cut
SHORT = 12  # states of each scenario in the short cut
SEED = 2033
RAM = Path("/dev/shm")


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


def run(short: bool) -> Iterator[Result]:
    """Explore every scenario."""
    for scenario in SCENARIOS:
        yield explore(scenario, RAM, budget=SHORT if short else None)


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
        found, sampled = legal_states(trace, random.Random(seed))
        result.notes = {"calls": trace.recorder.calls, "states": len(found), "sampled": sampled}
        if budget is not None and len(found) > budget:
            kept = random.Random(seed).sample(range(1, len(found)), budget - 1)
            found = [found[0], *(found[at] for at in sorted(kept))]
        for state in found:
            broken = judge(scenario, root, state)
            lost = any("gone" in text or "was said" in text for text in broken)
            result.count(f"{state.how}: {'; '.join(broken)}" if broken else None, lost)
            if broken and stop_at_first:
                break
    return result


def record(scenario: Scenario, root: Path) -> Trace:
    """Do the operation of a scenario and take down every change."""
    trace = Trace(Recorder(root), [], [])

    def before(verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        trace.words[trace.recorder.calls :] = [len(trace.said)]
        trace.recorder.before(verb, args, kwargs)

    with calls.watched(before, trace.recorder.after):
        scenario.act(root, trace.said.append)
    trace.words[trace.recorder.calls :] = [len(trace.said)]
    return trace


def legal_states(trace: Trace, rng: random.Random) -> tuple[list[Found], int]:
    """Return every state that a cut may leave, the last ones first; and of how many points not all.

    What may be found at several points is judged by what had been said at the last of them.
    """
    disks = [trace.recorder.disks[site] for site in SITES]
    found: dict[tuple[Tree, ...], Found] = {}
    sampled = 0

    def add(sites: Sequence[Tree], how: str, call: int) -> None:
        found.setdefault(tuple(sites), Found(tuple(sites), how, trace.said[: trace.words[call]]))

    last = trace.recorder.calls
    whole = [disk.states(last, 1, rng)[0][0] for disk in disks]
    for at, disk in enumerate(disks):
        for tree in disk.with_old_names():
            add([*whole[:at], tree, *whole[at + 1 :]], f"{SITES[at]}, old names, at the end", last)
    for call in range(last, -1, -1):
        each = [disk.states(call, COMBINATIONS, rng) for disk in disks]
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
    for site, tree in zip(SITES, state.sites, strict=True):
        shutil.rmtree(root / site)
        model.build(tree, root / site)
    try:
        broken = scenario.check(root, state.said)
        if not broken:
            scenario.recover(root)
            broken = [f"recovered: {text}" for text in scenario.settled(root, state.said)]
    except Exception:  # noqa: BLE001 - it is what was looked for
        broken = [traceback.format_exc()]
    return broken


@contextmanager
def _workplace(workdir: Path) -> Iterator[Path]:
    """Make an empty directory, always of the same length, and remove it."""
    root = Path(tempfile.mkdtemp(prefix="torture-", dir=workdir))
    try:
        yield root
    finally:
        shutil.rmtree(root)

"""Which lines of the product change a disk, and in which scenarios: seen, not guessed."""

import ast
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torture import calls, states
from torture.scenarios import SCENARIOS, Scenario

import lpxfer

PRODUCT = str(Path(lpxfer.__file__).parent)

STEP = 3  # every so many calls a process dies, where what comes after it is looked at

TRIED = "tried"  # stands for a verb until the call has succeeded
AFTER = "after "  # begins the names of runs that follow a scenario

#: File, line, verb.
Seen = set[tuple[str, int, str]]


class Effects:
    """What was seen while each line was executed, or waited for what another thread did."""

    def __init__(self, thoroughly: bool = True) -> None:
        """Do every scenario and what comes after it; also after deaths, if thoroughly."""
        self.calls: dict[str, int] = {}  # by scenario
        self._at: dict[tuple[str, int], dict[str, set[str]]] = {}
        for scenario in SCENARIOS:
            for run, seen in _runs(scenario, thoroughly, self.calls):
                for file, line, verb in seen:
                    verbs = self._at.setdefault((file, line), {})
                    verbs.setdefault(verb, set()).add(run)

    def verbs(self, file: str, node: ast.stmt) -> set[str]:
        """Return the verbs seen in a statement; the definition of a function does nothing."""
        return set() if isinstance(node, ast.FunctionDef) else set(self._of(file, node)) - {TRIED}

    def runs(self, file: str, *nodes: ast.stmt | ast.expr) -> frozenset[str]:
        """Return the runs that change a disk in all of these parts of the source.

        The run of a scenario has its name; what comes after it, where no power is cut, has
        the name with AFTER before it.
        """
        every = [frozenset().union(*self._of(file, node).values()) for node in nodes]
        return frozenset.intersection(*every)

    def _of(self, file: str, node: ast.stmt | ast.expr) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            for verb, runs in self._at.get((file, line), {}).items():
                found.setdefault(verb, set()).update(runs)
        return found


def _runs(
    scenario: Scenario, thoroughly: bool, count: dict[str, int]
) -> Iterator[tuple[str, Seen]]:
    """Yield what is seen in a scenario, and in the next runs after it, with their names."""
    number = 0
    while True:
        with tempfile.TemporaryDirectory(dir=states.RAM) as directory:
            root = Path(directory)
            scenario.prepare(root)
            made, seen = _watched(partial(scenario.act, root, lambda _: None), number)
            yield scenario.name, seen
            yield AFTER + scenario.name, _watched(partial(scenario.recover, root))[1]
        if number == 0:
            count[scenario.name] = made
        number += STEP
        if not thoroughly or number > count[scenario.name]:
            return


def _watched(act: Callable[[], object], number: int = 0) -> tuple[int, Seen]:
    """Do something in a process that dies before its `number`th call; return calls and lines."""
    out, into = os.pipe()
    if not (pid := os.fork()):
        os.close(out)
        seen: Seen = set()
        count = 0

        def before(verb: str, *_: Any) -> None:
            nonlocal count
            if count + 1 == number:
                end()
            count += 1
            note(TRIED)

        def note(verb: str, *_: Any) -> None:
            for frame in sys._current_frames().values():
                above: Any = frame
                while above:
                    if above.f_code.co_filename.startswith(PRODUCT):
                        seen.add((above.f_code.co_filename, above.f_lineno, verb))
                    above = above.f_back

        def end() -> None:
            with open(into, "wb") as stream:
                pickle.dump((count, seen), stream)
            os._exit(0)

        try:
            with calls.watched(before, note):
                act()
        finally:
            end()
    os.close(into)
    with open(out, "rb") as stream:
        found: tuple[int, Seen] = pickle.load(stream)
    os.waitpid(pid, 0)
    return found

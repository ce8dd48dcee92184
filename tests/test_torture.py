"""The short cut through `make torture`: every case, with fewer tries."""

import importlib
from pathlib import Path

import pytest
from torture import promises
from torture.__main__ import CASES
from torture.table import Result


@pytest.mark.parametrize("case", CASES)
def test_every_promise_holds_in_the_short_cut_of(case: str) -> None:
    results = list(importlib.import_module(f"torture.{case}").run(True))
    assert results
    assert not [result for result in results if result.failed]
    if missing := [f"{r.case}: {r.not_run}" for r in results if r.not_run]:
        pytest.skip("; ".join(missing))


def test_readme_promises_what_a_torture_run_has_shown() -> None:
    readme = Path(__file__).parent.parent / "README.md"
    assert promises.pattern().search(readme.read_text())


def test_figures_of_a_case_that_was_not_run_are_not_written() -> None:
    with pytest.raises(ValueError, match="no loop devices"):
        promises.figure(
            [Result("power cut", tries=3), Result("xfs", not_run="no loop devices")], "tries"
        )

"""The short cut through `make torture`: every case, with fewer tries."""

import importlib
from pathlib import Path

import pytest
from torture.__main__ import CASES


@pytest.mark.parametrize(
    "case", [c for c in CASES if (Path(__file__).parent / "torture" / f"{c}.py").exists()]
)
def test_every_promise_holds_in_the_short_cut_of(case: str) -> None:
    results = list(importlib.import_module(f"torture.{case}").run(True))
    assert results
    assert not [result for result in results if result.failed]
    if missing := [f"{result.case}: {result.not_run}" for result in results if result.not_run]:
        pytest.skip("; ".join(missing))

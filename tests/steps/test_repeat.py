"""Repeating a sweep whenever incoming changes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpxfer.errors import BusyError, PermanentError
from lpxfer.steps import repeat as module
from lpxfer.steps.repeat import repeat
from lpxfer.stores.archive import Outcome
from lpxfer.stores.ear import Ear


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let nobody hear or wait; return how long they would have."""
    slept: list[float] = []
    monkeypatch.setattr(Ear, "_start", lambda _: -1)
    monkeypatch.setattr(module.time, "sleep", slept.append)
    return slept


class Sweeps:
    """Sweeps that do what they are told, one after the other."""

    def __init__(self, *plan: object) -> None:
        self.plan, self.made = list(plan), 0

    def __call__(self) -> Iterator[Outcome]:
        self.made += 1
        step = self.plan.pop(0)
        if isinstance(step, Exception):
            raise step
        for message in step:  # type: ignore[attr-defined]
            yield Outcome(None, message, 1)

    def over(self) -> bool:
        return not self.plan


def test_a_message_is_given_again_only_after_a_sweep_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESCAN", 0.0)
    sweeps = Sweeps(["a"], ["a", "b"], ["a"], [], ["a"], ["a"], [])
    assert [o.message for o in repeat(sweeps, str(tmp_path), sweeps.over)] == ["a", "b", "a"]


@pytest.mark.parametrize(
    "error", [PermanentError("broken"), OSError(2, "No such file", "x"), OSError(5, "I/O")], ids=str
)
def test_a_sweep_that_fails_is_told_once_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(module, "RESCAN", 0.0)
    sweeps = Sweeps(error, error, ["fine"], [])
    outcomes = list(repeat(sweeps, str(tmp_path), sweeps.over))
    assert len(outcomes) == 2 and outcomes[0].status and outcomes[1].message == "fine"


def test_a_bug_is_not_hidden(tmp_path: Path) -> None:
    sweeps = Sweeps(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        list(repeat(sweeps, str(tmp_path), lambda: False))


def test_nothing_is_swept_while_nothing_changes(tmp_path: Path, naps: list[float]) -> None:
    sweeps = Sweeps([], [], [])

    def stop() -> bool:
        if len(naps) == 5:
            (tmp_path / "arrival").touch()
            os.utime(tmp_path, (0, 0))
        return len(naps) > 10

    list(repeat(sweeps, str(tmp_path), stop))
    assert sweeps.made == 2


def test_a_busy_directory_is_asked_again_though_incoming_has_not_changed(
    tmp_path: Path, naps: list[float]
) -> None:
    sweeps = Sweeps(BusyError("busy"), BusyError("busy"), ["done"], [])
    stop = lambda: len(naps) > 5  # noqa: E731
    assert [o.message for o in repeat(sweeps, str(tmp_path), stop)] == ["done"]
    assert sweeps.made == 3


def test_it_stops_between_two_outcomes(tmp_path: Path) -> None:
    sweeps = Sweeps(["a", "b", "c"])
    seen: list[Outcome] = []
    for outcome in repeat(sweeps, str(tmp_path), lambda: len(seen) == 2):
        seen.append(outcome)
    assert [o.message for o in seen] == ["a", "b"]

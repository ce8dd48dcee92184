"""The watchdog: it cuts a call once, for the limit that is over first, and never after it."""

import threading

from lpxfer.transports.watchdog import watched


def test_stalled_call_is_cut() -> None:
    cut, reasons = threading.Event(), []
    with watched(lambda stalled: (reasons.append(stalled), cut.set()), stall=0.05):  # type: ignore[func-returns-value]
        assert cut.wait(30)
    assert reasons == [True]


def test_call_that_goes_on_is_cut_at_its_limit_only() -> None:
    cut, reasons = threading.Event(), []

    def note(stalled: bool) -> None:
        reasons.append(stalled)
        cut.set()

    with watched(note, stall=30, limit=0.1) as watch:
        while not cut.wait(0.01):
            watch.progress()
    assert reasons == [False]


def test_progress_puts_the_cut_off() -> None:
    cut = threading.Event()
    with watched(lambda stalled: cut.set(), stall=1.0) as watch:
        for _ in range(15):
            watch.progress()
            assert not cut.wait(0.1)  # 1.5 seconds in all


def test_call_that_ended_is_never_cut_and_leaves_no_thread() -> None:
    cut = threading.Event()
    with watched(lambda stalled: cut.set(), stall=0.05):
        pass
    assert threading.active_count() == 1
    assert not cut.wait(0.2)


def test_no_limits_are_none() -> None:
    cut = threading.Event()
    with watched(lambda stalled: cut.set(), stall=0, limit=0):
        assert not cut.wait(0.1)

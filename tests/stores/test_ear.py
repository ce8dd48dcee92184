"""Hearing what arrives: the kernel's word, and a following sweep that needs no look."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpxfer.steps import repeat as step
from lpxfer.stores import ear as module
from lpxfer.stores.archive import Outcome
from lpxfer.stores.ear import Ear


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    with Ear(str(tmp_path)) as listening:
        listening.listen()
        yield listening


def hears(ear: Ear) -> bool:
    """Tell whether what has happened so far is heard as an arrival."""
    return any([ear.wait(), ear.wait()])


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)


def test_a_control_file_that_gets_its_name_is_heard(ear: Ear, tmp_path: Path) -> None:
    (tmp_path / ".u.control.part").write_bytes(b"x")
    assert not hears(ear)
    (tmp_path / ".u.control.part").rename(tmp_path / "u.control")
    assert hears(ear)
    os.link(tmp_path / "u.control", tmp_path / "v.control")
    assert hears(ear)


def test_what_a_sender_or_a_sweep_does_besides_is_not(ear: Ear, tmp_path: Path) -> None:
    (tmp_path / ".u.data.part").write_bytes(b"x")
    (tmp_path / ".u.data.part").chmod(0o440)
    (tmp_path / ".u.data.part").rename(tmp_path / "u.data")
    (tmp_path / ".u.placing").symlink_to("x")
    (tmp_path / "u.data").unlink()
    (tmp_path / ".u.placing").unlink()
    assert not hears(ear)


def test_a_new_time_of_the_directory_is_heard(ear: Ear, tmp_path: Path) -> None:
    os.utime(tmp_path)
    assert hears(ear)


def test_more_than_the_kernel_keeps_is_an_arrival(ear: Ear, tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(most + 10):
        os.mkdir(tmp_path / f"{number}")
    assert any(ear.wait() for _ in range(100))


def test_a_directory_that_takes_the_place_of_another_is_listened_at(tmp_path: Path) -> None:
    path = tmp_path / "incoming"
    with Ear(str(path)) as ear:
        ear.listen()
        assert not ear.wait()  # it is not there yet
        path.mkdir()
        ear.listen()
        path.rename(tmp_path / "old")
        path.mkdir()
        ear.listen()
        (path / "u.control").touch()
        assert hears(ear)


def test_a_following_sweep_sweeps_at_once_what_it_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no time that changes, and no look: it waits for ever, and must be woken."""
    monkeypatch.setattr(module, "LOOK", 3600.0)
    monkeypatch.setattr(step, "_stamp", lambda path: (0,))
    listening, sweeps = threading.Event(), []

    def sweep() -> Iterator[Outcome]:
        sweeps.append(sorted(os.listdir(tmp_path)))
        listening.set()
        yield from ()

    following = threading.Thread(
        target=lambda: list(step.repeat(sweep, str(tmp_path), lambda: len(sweeps) > 1))
    )
    following.start()
    assert listening.wait(60)
    (tmp_path / "u.control").touch()
    following.join(60)
    assert sweeps == [[], ["u.control"]]


def test_an_idle_following_sweep_uses_no_cpu(tmp_path: Path) -> None:
    """Measured in what it uses and not in how long it takes: a busy machine changes nothing."""
    done = threading.Event()
    used: list[float] = []

    def follow() -> None:
        def sweep() -> Iterator[Outcome]:
            yield from ()

        start = time.thread_time()
        looks = iter(range(100))
        list(step.repeat(sweep, str(tmp_path), lambda: next(looks, None) is None))
        used.append(time.thread_time() - start)
        done.set()

    threading.Thread(target=follow).start()
    assert done.wait(120)
    assert used[0] < 0.1  # for a hundred looks, which are 50 s of its life

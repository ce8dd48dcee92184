"""The watch: every finished file is submitted, once, and complete."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from arrivals import killed
from watchdog.observers.inotify_c import InotifyEvent, InotifyFD
from watches import Observatory, wait_until

from lpxfer.formats import fits
from lpxfer.formats.job import State
from lpxfer.sources import finder, judge, mounts, tree
from lpxfer.steps import watch as module
from lpxfer.stores.watched import Watched


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Observatory]:
    site = Observatory(tmp_path)
    yield site
    site.stop()


def write(path: Path, data: bytes = b"data") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# --- finished means finished ------------------------------------------------------------------


def test_file_is_submitted_when_it_is_closed(site: Observatory) -> None:
    site.start()
    with (site.data / "a.fits").open("wb") as stream:
        for part in (b"one ", b"two ", b"three"):
            stream.write(part)
            stream.flush()
            write(site.data / part.decode().strip())  # comes later, and is submitted
            wait_until(lambda part=part: part.decode().strip() in site.names())
        assert "a.fits" not in site.names()
    site.wait_for("one", "two", "three", "a.fits")
    assert dict(site.submitted())["a.fits"] == b"one two three"


def test_file_that_is_open_at_the_start_is_waited_for(site: Observatory) -> None:
    with (site.data / "a.fits").open("wb") as stream:
        stream.write(b"half")
        stream.flush()
        assert site.once() == (1, 0)
        site.start()
        stream.write(b" whole")
    site.wait_for("a.fits")
    assert site.submitted() == [("a.fits", b"half whole")]


def test_file_renamed_into_place_is_submitted_once(site: Observatory) -> None:
    site.start()
    write(site.data / "a.fits.part", b"whole")
    (site.data / "a.fits.part").rename(site.data / "a.fits")
    site.wait_for("a.fits")


def test_hard_linked_file_is_submitted_once_under_one_name(
    site: Observatory, tmp_path: Path
) -> None:
    write(tmp_path / "elsewhere", b"whole")
    site.start()
    os.link(tmp_path / "elsewhere", site.data / "a.fits")
    site.wait_for("a.fits")
    os.link(site.data / "a.fits", site.data / "b.fits")
    wait_until(lambda: any('b.fits" is "' in line for line in site.said))
    assert site.names() == ["a.fits"]
    site.stop()
    assert site.once() == (0, 0)
    assert site.names() == ["a.fits"]


def test_links_that_are_found_together_are_one_file(site: Observatory) -> None:
    write(site.data / "a.fits")
    os.link(site.data / "a.fits", site.data / "b.fits")
    site.start()
    wait_until(lambda: any("not again" in line for line in site.said))
    assert len(site.names()) == 1


def test_links_that_one_pass_finds_are_one_file(site: Observatory) -> None:
    write(site.data / "a.fits")
    os.link(site.data / "a.fits", site.data / "b.fits")
    assert site.once() == (0, 0)
    assert len(site.names()) == 1


def test_directory_that_cannot_be_looked_at_is_left(site: Observatory) -> None:
    assert site.once() == (0, 0)
    site.data.rmdir()
    assert site.once() == (1, 0)
    assert "No such file" in site.said[0]


def test_hints_are_heard_during_a_long_look(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "BETWEEN", 0.0)
    looks = tree.files
    during: list[list[str]] = []

    def slow(*args: object) -> Iterator[object]:
        for found in looks(*args):
            yield found
            if len(site.names()) == 1 and not during:
                during.append(site.names())
        yield from ()

    monkeypatch.setattr(tree, "files", slow)
    for name in "abc":
        write(site.data / name)
    site.start()
    site.wait_for("a", "b", "c")
    assert during


def test_file_that_only_got_another_name_is_not_submitted_again(site: Observatory) -> None:
    site.start()
    write(site.data / "a.fits")
    site.wait_for("a.fits")
    (site.data / "a.fits").rename(site.data / "b.fits")
    wait_until(lambda: any("not again" in line for line in site.said))
    assert site.names() == ["a.fits"]


def test_night_that_only_got_another_name_is_told_in_one_line(site: Observatory) -> None:
    for n in range(20):
        write(site.data / f"night/{n}")
    assert site.once() == (0, 0)
    (site.data / "night").rename(site.data / "2003.0402")
    assert site.once() == (0, 0)
    assert len(site.names()) == 20
    assert len(site.said) == 1 and site.said[0].endswith("not again (and 19 more)")
    assert site.once() == (0, 0)
    assert len(site.said) == 1


def test_tree_that_is_moved_in_is_submitted(site: Observatory, tmp_path: Path) -> None:
    for name in ("a", "sub/b", "sub/deep/c", "sub/.hidden/d"):
        write(tmp_path / "night" / name)
    site.start()
    (tmp_path / "night").rename(site.data / "night")
    site.wait_for("night/a", "night/sub/b", "night/sub/deep/c")
    write(site.data / "night/sub/deep/later")
    (site.data / "night").rename(site.data / "renamed")
    write(site.data / "renamed/sub/last")
    wait_until(lambda: "renamed/sub/last" in site.names())
    assert len(site.names()) == 5


def test_directories_made_while_watching_are_watched(site: Observatory) -> None:
    site.start()
    for n in range(20):
        write(site.data / f"{n}/{n}/{n}", b"%d" % n)
    site.wait_for(*(f"{n}/{n}/{n}" for n in range(20)))


def test_fits_file_is_waited_for_until_all_is_there(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "is_remote", lambda path: True)  # nobody can tell who has it open
    monkeypatch.setattr("lpxfer.sources.directories.Polling", lambda: _Polling())
    site.configure(finished="fits")
    site.start()
    frame = fits.frame(1, module.datetime.now().astimezone(), "minicam", 64)
    (site.data / "a.fits").write_bytes(frame[:-1000])
    (site.data / "b.fits").write_bytes(frame)
    site.wait_for("b.fits")
    with (site.data / "a.fits").open("ab") as stream:
        stream.write(frame[-1000:])
    site.wait_for("a.fits", "b.fits")
    assert {data for _, data in site.submitted()} == {frame}


def test_fits_file_that_its_writer_has_left_in_pieces_is_submitted_as_it_is(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(finished="fits")
    frame = fits.frame(1, module.datetime.now().astimezone(), "minicam", 64)
    write(site.data / "a.fits", frame[:-1000])
    assert site.once() == (1, 0)
    monkeypatch.setattr(judge, "STALE", 0.0)
    assert site.once() == site.once() == (0, 0)
    site.wait_for("a.fits")
    [said] = site.said
    assert "submitted as it is (archive-1): the data of HDU 0 end" in said
    write(site.data / "a.fits", frame)
    assert site.once() == (0, 0)
    assert [data for _, data in site.submitted()] == [frame[:-1000], frame]


def _Polling() -> object:
    from lpxfer.sources import polling

    return polling.Polling(0.05)


def test_flag_file_says_when_a_file_is_finished(site: Observatory) -> None:
    site.configure(finished="flag .done")
    site.start()
    with (site.data / "a.fits").open("wb") as stream:
        stream.write(b"closed later")
        stream.flush()
        write(site.data / "b.fits.done", b"")  # before its file
        write(site.data / "b.fits")
        write(site.data / "c.fits")
        os.utime(site.data / "b.fits.done", (0, 0))
        write(site.data / "c.fits.done", b"")
        site.wait_for("c.fits")
        write(site.data / "a.fits.done", b"")
        write(site.data / "b.fits.done", b"")
        site.wait_for("a.fits", "b.fits", "c.fits")


def test_age_is_waited_for(site: Observatory) -> None:
    site.configure(finished="age 1h")
    write(site.data / "a.fits")
    assert site.once() == (1, 0)
    site.configure(finished="age 0")
    assert site.once() == (0, 0)
    site.wait_for("a.fits")


def test_file_that_changes_after_it_was_sent_is_sent_again(site: Observatory) -> None:
    site.start()
    write(site.data / "a.fits", b"first")
    site.wait_for("a.fits")
    write(site.data / "a.fits", b"second")
    site.wait_for("a.fits", "a.fits")
    assert [data for _, data in site.submitted()] == [b"first", b"second"]
    site.stop()
    assert site.once() == (0, 0)


def test_file_that_changes_while_it_is_submitted_is_sent_when_it_is_finished(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = threading.Event()

    def unfinished(path: str, *args: object) -> judge.Unfinished | None:
        verdict = real(path, *args)
        if verdict is None and not once.is_set():
            once.set()
            write(Path(path), b"another")  # behind the back of whoever has judged
        return verdict

    real = judge.unfinished
    monkeypatch.setattr(judge, "unfinished", unfinished)
    site.start()
    write(site.data / "a.fits", b"first")
    site.wait_for("a.fits")
    assert site.submitted() == [("a.fits", b"another")]


def test_where_nobody_can_tell_who_writes_a_file_has_to_settle(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "being_written", lambda fd: None)
    monkeypatch.setattr(judge, "SETTLE", 0.5)
    site.start()
    write(site.data / "a.fits")
    changed = time.monotonic()
    site.wait_for("a.fits")
    assert time.monotonic() - changed >= 0.5


# --- nothing missed, nothing twice ------------------------------------------------------------


def test_what_was_written_while_it_was_down_is_submitted_once(site: Observatory) -> None:
    site.start()
    write(site.data / "before")
    site.wait_for("before")
    site.stop()
    for n in range(50):
        write(site.data / f"{n}", b"%d" % n)
    site.start()
    site.wait_for("before", *map(str, range(50)))
    site.stop()
    site.start()
    write(site.data / "after")
    site.wait_for("before", "after", *map(str, range(50)))


def test_events_that_the_kernel_dropped_lose_nothing(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, overflows = threading.Event(), list[bool]()
    read = InotifyFD.read_events

    def slow(self: InotifyFD) -> list[InotifyEvent]:
        events = read(self)
        gate.wait()
        overflows.extend(event.is_queue_overflow for event in events)
        return events

    monkeypatch.setattr(InotifyFD, "read_events", slow)
    site.start()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    write(site.data / "first")
    one, two = site.data / "x.part", site.data / "y.part"
    write(one)
    for _ in range(limit // 2 + 100):  # one event each: two that are alike would be one
        os.rename(one, two)
        os.rename(two, one)
    names = [f"new/{n}" for n in range(20)]
    for name in names:
        write(site.data / name)
    gate.set()
    site.wait_for("first", *names)
    assert any(overflows)
    write(site.data / "new/later")  # in a directory that no event told of
    site.wait_for("first", "new/later", *names)


def test_very_many_files_at_once_are_submitted_once_each(site: Observatory) -> None:
    site.start()
    names = [f"{n % 7}/{n}" for n in range(1500)]
    for name in names:
        write(site.data / name)
    site.wait_for(*names)


def test_file_that_cannot_be_submitted_keeps_no_other(site: Observatory) -> None:
    write(site.data / "bad\\name", b"x")
    (site.data / ("n" * 200)).write_bytes(b"x")
    os.mkfifo(site.data / "fifo")
    (site.data / "link").symlink_to("/etc/hostname")
    write(site.data / "x.fits")
    write(site.data / "none/a.fits")
    site.configure(queue="{queue}", pattern="^(?P<queue>none)?")
    assert site.once() == (4, 4)
    assert len(site.said) == 2
    assert 'none/a.fits" - there is no queue "none"' in "".join(site.said)
    assert 'bad queue name ""' in "".join(site.said) and "(and 2 more)" in "".join(site.said)
    site.configure()
    assert site.once() == (0, 0)
    assert site.names() == sorted(["bad\\name", "n" * 200, "none/a.fits", "x.fits"])


def test_value_that_cannot_be_is_left_out_and_told_once(
    site: Observatory, capsys: pytest.CaptureFixture[str]
) -> None:
    site.configure(options="dir={fits.NIGHT},Observer={fits.OBSERVER}", priority="{fits.PRIORITY}")
    cards = ["SIMPLE  =                    T", "NIGHT   = '../../etc'", "PRIORITY= 'high'",
             "OBSERVER= 'B. Wyatt, K. Lo'", "END"]  # fmt: skip
    header = "".join(card.ljust(80) for card in cards).ljust(2880)
    for name in ("a.fits", "b.fits"):
        write(site.data / name, header.encode())
    assert site.once() == (0, 0)
    for known, _ in site.jobs():
        assert (known.dir, known.priority) == (None, None)
        assert known.others == {"Observer": "B. Wyatt, K. Lo"}
    said = capsys.readouterr().err
    assert said.count("are submitted without dir") == 1
    assert said.count("are submitted without priority") == 1


def test_queue_that_takes_no_jobs_is_told_once_and_tried_again(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpxfer.formats.backoff.QUEUE_FIRST", 0.05)
    monkeypatch.setattr("lpxfer.formats.backoff.QUEUE_MOST", 0.05)
    from dataclasses import replace

    site.queue.switch(lambda s: replace(s, accepting=False, accepting_reason="disk work"))
    site.start()
    for n in range(5):
        write(site.data / str(n))
    wait_until(lambda: site.said)
    write(site.data / "5")
    time.sleep(0.5)
    site.queue.switch(lambda s: replace(s, accepting=True))
    site.wait_for(*map(str, range(6)))
    assert [line for line in site.said if "disk work" in line] == [
        'queue "archive" is not accepting jobs: disk work; it is tried again until it works'
    ]
    wait_until(lambda: "files are submitted again" in site.said)


def test_record_that_cannot_be_written_makes_no_job_twice(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Watched.ended

    def full(self: Watched, *args: object) -> None:
        monkeypatch.setattr("lpxfer.stores.watched.durable.append", no_space)
        try:
            ended(self, *args)
        finally:
            monkeypatch.undo()
            monkeypatch.setenv("XDG_STATE_HOME", str(site.root / "state"))

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Watched, "ended", full)
    write(site.data / "a.fits")
    site.once()
    assert site.names() == ["a.fits"]
    assert site.once() == (0, 0)
    assert site.names() == ["a.fits"]


def test_killed_between_job_and_record_the_job_is_found(site: Observatory) -> None:
    """The record's last line is `about`: what a kill -9 at any point after it leaves."""
    for name in ("job", "finished", "held", "none"):
        write(site.data / name)
    assert site.once() == (0, 0)
    record = site.root / "state/lpxfer/watched/minicam"
    site.queue.move("archive-2", State.PENDING, State.HELD)
    now = module.datetime.now().astimezone()
    site.queue.finish("archive-3", State.PENDING, State.COMPLETED, "", now)
    shutil.rmtree(site.queue.root / "pending/archive-4")  # as if it had not come so far
    lines = [line for line in record.read_bytes().splitlines(True) if line.startswith(b"about")]
    record.write_bytes(b"".join(lines))
    assert site.once() == (0, 0)
    numbers = {job.job for job, _ in site.jobs()}
    assert numbers == {"archive-1", "archive-5"}
    with Watched(site.root / "state/lpxfer/watched", "minicam") as watched:
        assert not watched.open
        assert {job for _, job in watched.jobs.values()} == {
            "archive-1", "archive-2", "archive-3", "archive-5"
        }  # fmt: skip


@pytest.mark.parametrize("when", ["before", "half", "after"])
@pytest.mark.parametrize("meanwhile", ["nothing", "canceled"])
def test_watch_that_dies_at_any_call_submits_each_file_once(
    tmp_path: Path, when: str, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, died = 0, True
    while died:
        number += 1
        root = tmp_path / str(number)
        root.mkdir()
        monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
        site = Observatory(root)
        for name in "ab":
            write(site.data / name, name.encode())
        died = killed(site.once, number, when)
        ended = []
        if meanwhile == "canceled":  # its job has gone before the next watch
            ended = site.names()
            now = module.datetime.now().astimezone()
            for entry in site.queue.entries(State.PENDING):
                site.queue.finish(entry.id, State.PENDING, State.CANCELED, "", now)
        assert site.once() == (0, 0), number
        assert sorted(site.names() + ended) == ["a", "b"], number
        assert site.once() == (0, 0)
        assert sorted(site.names() + ended) == ["a", "b"], number
        site.queue.close()
    assert number > 20


def test_old_files_are_not_submitted_at_the_very_first_start(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(site.data / "old")
    monkeypatch.setattr(module, "OLD", module.timedelta(seconds=-1))  # all are older
    assert site.once() == (0, 0)
    write(site.data / "new")
    assert site.once() == (0, 0)
    assert site.names() == ["new"]
    assert site.once(everything=True) == (0, 0)
    assert site.names() == ["new", "old"]


def test_directory_that_goes_away_is_told_once_and_met_again(
    site: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "EVERY", 0.05)
    monkeypatch.setattr(finder, "SHARE", 1.0)
    write(site.data / "a")
    site.start()
    site.wait_for("a")
    site.data.rename(site.root / "away")
    wait_until(lambda: any("No such file" in line for line in site.said))
    time.sleep(0.3)
    assert len(site.said) == 1
    (site.root / "away").rename(site.data)
    write(site.data / "b")
    site.wait_for("a", "b")


# --- hostile hints ----------------------------------------------------------------------------


@pytest.mark.parametrize("hint", ["../secret", "/etc/hostname", "link/x", "", ".", "\0", "x\n"])
def test_hint_that_leads_out_of_the_directories_is_passed_over(
    site: Observatory, hint: str
) -> None:
    from contextlib import ExitStack

    from lpxfer.cli import xfer_watch

    write(site.root / "secret")
    write(site.root / "outside/x")
    (site.data / "link").symlink_to(site.root / "outside")
    with ExitStack() as stack:
        watch = xfer_watch._watch(site.config, "minicam", stack)
        watch.begin()
        watch.hints.put(hint)
        watch._hear(1.0)
        watch._work(threading.Event(), lambda: None)
    assert site.names() == []


def test_hint_from_outside_is_told_once(site: Observatory) -> None:
    from contextlib import ExitStack

    from lpxfer.cli import xfer_watch

    with ExitStack() as stack:
        watch = xfer_watch._watch(site.config, "minicam", stack)
        watch.say = site.said.append
        for hint in ("/etc/passwd", "../x", "inside", "/net/x"):
            watch.hints.put(hint)
        watch._hear(1.0)
    assert site.said == [
        '"/etc/passwd" is not in a watched directory: passed over, as all that follow'
    ]

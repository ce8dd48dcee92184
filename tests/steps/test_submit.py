"""The submit step: files into the spool, durably, or nothing at all."""

import dataclasses
import errno
import hashlib
import os
import resource
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from arrivals import apart, killed, refuse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traced import trace

from lpxfer import checksum, durable
from lpxfer.errors import ChangedError, FormatError, LpxferError, PermanentError, TemporaryError
from lpxfer.formats import keyvalue
from lpxfer.formats.job import Routing, State
from lpxfer.steps import submit as module
from lpxfer.steps.submit import Order, Result, Wanted, submit, submit_each
from lpxfer.stores import layout
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Queue, Spool

NOW = datetime(2003, 4, 2, 5, 12, 33, 120_000, tzinfo=UTC)
ORDER = Order(host="mmto", user=account(os.geteuid()), inst="minicam")
SHA_OF_NOTHING = "sha256:" + hashlib.sha256(b"").hexdigest()
WAITING = (State.PENDING, State.HELD)

MakeFile = Callable[..., bytes]


@pytest.fixture
def file(tmp_path: Path) -> MakeFile:
    """Makes a file and returns its path."""

    def make(name: str | bytes = "0123.fits", data: bytes = b"SIMPLE  =") -> bytes:
        path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
        with open(path, "wb") as stream:
            stream.write(data)
        return path

    return make


def jobs(queue: Queue) -> list[str]:
    """Return the jobs that wait; each must be whole, and nothing else may be in the spool."""
    found = []
    for state in State:
        for entry in queue.entries(state):
            assert state in WAITING
            with queue.open(entry.id, state) as job:
                known = job.check(links=True)
                with job.opened_data() as fd:
                    assert checksum.of_file(fd) == known.checksum
            found.append(entry.id)
    return sorted(found, key=lambda job_id: int(job_id.rpartition("-")[2]))


def left_over(queue: Queue) -> list[str]:
    return sorted(os.listdir(queue.root / "tmp"))


def submitted(queue: Queue, *paths: bytes, **changes: object) -> list[Result]:
    order = dataclasses.replace(ORDER, **changes)
    return list(submit(queue, list(paths), order, NOW))


def refusal(queue: Queue, path: bytes, **changes: object) -> LpxferError:
    """Submit one file that must be refused, and leave nothing behind."""
    before = jobs(queue)
    [result] = submitted(queue, path, **changes)
    assert result.control is None
    assert result.error is not None
    assert (jobs(queue), left_over(queue)) == (before, [])
    return result.error


# --- what a job holds -----------------------------------------------------------------------


def test_job_holds_the_data_and_all_that_is_known_of_it(queue, file, tmp_path):
    path = file(data=b"SIMPLE  = " * 1000)
    os.utime(path, ns=(1, 1_049_260_353_123_456_789))
    [result] = submitted(queue, path, dir="a/b", maxftp="60", others={"Observer": "B. Wyatt"})
    known = result.control
    assert known is not None
    assert known.job == "archive-1"
    assert known.uid.startswith("20030402T051233Z-mmto-archive-1-")
    assert (known.host, known.user, known.queue) == ("mmto", ORDER.user, "archive")
    assert (known.submitted, known.mtime_ns) == (NOW, 1_049_260_353_123_456_789)
    assert (known.name, known.path) == ("0123.fits", str(tmp_path / "0123.fits"))
    assert known.size == 10_000
    assert known.checksum == checksum.of_bytes(b"SIMPLE  = " * 1000)
    assert (known.inst, known.maxftp, known.dir) == ("minicam", "60", "a/b")
    assert known.others == {"Observer": "B. Wyatt"}
    with queue.open("archive-1", State.PENDING) as job:
        assert job.check(links=False) == known
        assert sorted(os.listdir(job.fd)) == ["control", "data"]


def test_priority_is_in_the_control_file_only_when_given(queue, file):
    plain, urgent = submitted(queue, file()), submitted(queue, file(), priority=70)
    assert plain[0].control.priority is None
    assert urgent[0].control.priority == 70


def test_routing_is_kept_beside_the_control_file_and_never_in_it(queue, file):
    routing = Routing(
        remhost="h", rempath="/p", remuser="u", rempw="file:/pw", priority=3, not_before=NOW
    )
    submitted(queue, file(), routing=routing)
    with queue.open("archive-1", State.PENDING) as job:
        assert job.routing() == routing
        assert b"rem" not in job.control_text()
        assert b"/pw" not in job.control_text()


def test_job_that_is_to_wait_for_a_person_is_held(queue, file):
    submitted(queue, file(), hold=True)
    assert queue.where("archive-1") is State.HELD


def test_path_is_absolute_and_the_name_its_last_component(queue, file, tmp_path, monkeypatch):
    file("a b.fits")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    [result] = submitted(queue, b"../sub/../a b.fits")
    assert result.control.path == str(tmp_path / "a b.fits")
    assert result.control.name == "a b.fits"


def test_link_is_followed_and_gives_its_own_name(queue, file, tmp_path):
    os.symlink(file(data=b"x"), tmp_path / "latest.fits")
    [result] = submitted(queue, os.fsencode(tmp_path / "latest.fits"))
    assert (result.control.name, result.control.size) == ("latest.fits", 1)


def test_empty_file_is_a_job_like_any_other(queue, file):
    [result] = submitted(queue, file(data=b""))
    assert (result.control.size, result.control.checksum) == (0, SHA_OF_NOTHING)
    assert jobs(queue) == ["archive-1"]


def test_large_file_need_not_be_hashed_again_by_the_sender(queue, file):
    for number in range(5):  # whatever the clock of files is at
        path = file(f"{number}.fits", bytes(2 << 20))
        submitted(queue, path)
    for job_id in jobs(queue):
        with queue.open(job_id, State.PENDING) as job, job.opened_data() as fd:
            assert not job.may_have_changed(fd)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.binary(min_size=1, max_size=255).filter(lambda b: b[:1] != b"." and not {0, 47} & {*b}))
def test_name_may_be_any_bytes_and_comes_back_unchanged(queue, tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb"):
        pass
    [result] = submitted(queue, path)
    os.unlink(path)
    assert result.error is None
    with queue.open(result.control.job, State.PENDING) as job:
        assert keyvalue.to_bytes(job.control().name) == name
        assert keyvalue.to_bytes(job.control().path) == path


@pytest.mark.parametrize(
    "name", [b"x" * 255, b"two\nlines", b"\xff\xfe.fits", "ü…".encode(), b"-rf"]
)
def test_odd_names_are_taken(queue, file, name):
    [result] = submitted(queue, file(name))
    assert keyvalue.to_bytes(result.control.name) == name


def test_name_does_not_depend_on_the_locale(queue, file, monkeypatch):
    path = file("ü.fits".encode())
    monkeypatch.setattr(os, "fsdecode", lambda raw: raw.decode("latin-1"))
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("latin-1"))
    [result] = submitted(queue, path)
    assert result.control.name == "ü.fits"


def test_every_uid_is_another(queue, file):
    path = file()
    results = submitted(queue, *[path] * 30)
    assert len({result.control.uid[-8:] for result in results}) == 30


def test_control_file_that_would_grow_beyond_its_limit_on_the_wire_is_refused(queue, file):
    path = file()
    fits = {"x": "y" * 64_000}
    assert submitted(queue, path, others=fits)[0].error is None
    error = refusal(queue, path, others={"x": "y" * 65_000})
    assert "too many options: the control file would exceed 64 KiB" in str(error)
    assert error.exit_status == 1


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, reason",
    [
        ("missing", 'unable to access "{}" - No such file or directory'),
        ("file/x", 'unable to access "{}" - Not a directory'),
        ("loop", 'unable to access "{}" - Too many levels of symbolic links'),
        ("dir", 'unable to submit "{}" - it is a directory: name its files, or use --files-from'),
        ("fifo", 'unable to submit "{}" - it is not a regular file'),
        ("socket", 'unable to access "{}" - No such device or address'),
        (".hidden", 'unable to submit "{}" - bad file name'),
        ("x" * 256, 'unable to access "{}" - File name too long'),
    ],
)
def test_what_is_no_file_to_archive_is_refused_in_lps_words(queue, file, tmp_path, name, reason):
    file("file")
    file(".hidden")
    (tmp_path / "dir").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        error = refusal(queue, os.fsencode(tmp_path / name))
    assert str(error).startswith(reason.format(tmp_path / name))
    assert error.exit_status == 1


@pytest.mark.parametrize("path", [b"/dev/null", b"/dev/zero", b"/proc/self/mem\0", b"", b"/", b"."])
def test_devices_and_nonsense_are_refused(queue, path):
    assert refusal(queue, path).exit_status == 1


def test_refusal_cannot_act_on_the_terminal(queue, tmp_path):
    error = refusal(queue, os.fsencode(tmp_path) + b"/\x1b[2J\n\xff")
    assert "%1B[2J%0A%FF" in str(error)
    assert str(error).isprintable()


@pytest.mark.root
def test_file_that_one_may_not_read_is_refused(file, tmp_path):
    os.chmod(file(), 0o600)
    (tmp_path / "spool").mkdir()
    os.chown(tmp_path / "spool", 65534, 65534)

    def as_nobody() -> None:
        os.chdir(tmp_path)
        os.setegid(65534)
        os.seteuid(65534)
        error = refusal(Spool(Path("spool")).queue("archive"), b"0123.fits")
        assert str(error) == 'unable to access "0123.fits" - Permission denied'

    tmp_path.chmod(0o755)
    apart(as_nobody)


def test_removed_working_directory_is_no_fault_of_the_spool(queue, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert str(refusal(queue, b"x")) == 'unable to access "x" - No such file or directory'


def test_source_that_cannot_be_read_is_no_fault_of_the_spool(queue, file, monkeypatch):
    path = file()
    monkeypatch.setattr(checksum, "_share", lambda *_: False)
    real, fail = os.pread, refuse(errno.EIO)
    large = checksum.CHUNK  # nobody else reads so much at once
    monkeypatch.setattr(os, "pread", lambda *at: (fail if at[1] >= large else real)(*at))
    error = refusal(queue, path)
    assert str(error) == f'unable to access "{os.fsdecode(path)}" - Input/output error'


# --- a source that changes -----------------------------------------------------------------


def _grow(path: bytes) -> None:
    with open(path, "ab") as stream:
        stream.write(b"more")


def _shrink(path: bytes) -> None:
    os.truncate(path, 3)


def _rewrite(path: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.write(b"other")


def _replace(path: bytes) -> None:
    with open(path + b".new", "wb") as stream:
        stream.write(b"another")
    os.rename(path + b".new", path)


@pytest.mark.parametrize("change", [_grow, _shrink, _rewrite, _replace, os.unlink])
@pytest.mark.parametrize("link", [False, True])
def test_source_that_changes_while_it_is_read_is_refused_for_now(
    queue, file, monkeypatch, change, link
):
    path = file(data=b"0123456789" * 300_000)
    os.utime(path, (0, 0))
    name = "pread"
    read, changed = getattr(os, name), []

    def meanwhile(fd: int, *args: int) -> bytes:
        data: bytes = read(fd, *args)
        if data and not changed:
            changed.append(change(path))
        return data

    monkeypatch.setattr(checksum, "_share", lambda *_: False)
    monkeypatch.setattr(os, name, meanwhile)
    error = refusal(queue, path, link=link)
    assert changed
    assert isinstance(error, TemporaryError)
    assert error.exit_status == 75
    assert str(error).endswith("it changed while it was read: submit it when it is finished")


def test_file_that_holds_more_than_it_says_is_refused(queue):
    assert os.stat("/proc/version").st_size == 0
    assert isinstance(refusal(queue, b"/proc/version"), TemporaryError)


@pytest.mark.parametrize("link", [False, True])
def test_source_is_never_modified(queue, file, link):
    path = file()
    os.chmod(path, 0o440)
    os.utime(path, ns=(1, 1_049_260_353_123_456_789))

    def identity() -> tuple[object, ...]:
        status = os.stat(path)
        with open(path, "rb") as stream:
            return (status.st_ino, status.st_mode, status.st_uid, status.st_mtime_ns, stream.read())

    before = identity()
    assert submitted(queue, path, link=link)[0].error is None
    assert identity() == before
    assert os.stat(path).st_nlink == 1 + link


# --- --link --------------------------------------------------------------------------------


def test_linked_file_is_the_same_inode_and_not_copied(queue, file):
    path = file(data=b"x" * 5000)
    [result] = submitted(queue, path, link=True)
    assert os.path.samefile(path, queue.root / "pending/archive-1/data")
    assert result.control.checksum == checksum.of_bytes(b"x" * 5000)


def test_file_of_somebody_else_is_not_linked(queue, file, monkeypatch):
    path = file()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1)
    monkeypatch.setattr(layout, "share", lambda *_: None)
    assert "--link is for your own files" in str(refusal(queue, path, link=True))


def test_full_spool_is_told_of_a_file_to_be_linked_too(queue, file, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.ENOSPC))
    [result] = submit(queue, [file()], dataclasses.replace(ORDER, link=True), NOW)
    assert isinstance(result.error, TemporaryError)
    assert "is full" in str(result.error)


def test_link_is_not_linked(queue, file, tmp_path):
    os.symlink(file(), tmp_path / "link")
    error = refusal(queue, os.fsencode(tmp_path / "link"), link=True)
    assert str(error).endswith("it is a symbolic link: name the file itself, or omit --link")


def test_file_that_is_exchanged_before_it_is_linked_is_not_linked(queue, file, monkeypatch):
    path, link = file(), os.link

    def exchanged(*args: object, **kwargs: object) -> None:
        _replace(path)
        link(*args, **kwargs)

    monkeypatch.setattr(os, "link", exchanged)
    assert isinstance(refusal(queue, path, link=True), PermanentError)


def test_file_below_a_linked_directory_can_be_linked(queue, file, tmp_path):
    (tmp_path / "real").mkdir()
    file("real/0123.fits")
    (tmp_path / "data").symlink_to("real")
    path = os.fsencode(tmp_path / "data/0123.fits")
    assert submitted(queue, path, link=True)[0].error is None


def test_file_on_another_file_system_is_not_linked(queue, file, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.EXDEV))
    message = str(refusal(queue, file(), link=True))
    assert "(Invalid cross-device link)" in message
    assert message.endswith(
        "--link needs a file on the spool's own file system; submit it without --link"
    )


@pytest.mark.root
def test_file_on_another_real_file_system_is_not_linked(queue, small):
    path = os.fsencode(small / "0123.fits")
    (small / "0123.fits").write_bytes(b"x")
    assert "Invalid cross-device link" in str(refusal(queue, path, link=True))


@pytest.mark.root
@pytest.mark.parametrize("mode, taken", [(0o600, False), (0o644, True)])
def test_file_that_the_sender_cannot_read_is_not_linked(tmp_path, file, mode, taken):
    spool = shared_spool(tmp_path)
    path = file()
    os.chmod(path, mode)
    queue = spool.queue("archive")
    [result] = submitted(queue, path, link=True)
    assert bool(result.control) is taken
    if not taken:
        assert "the sender could not read it: let everybody read it" in str(result.error)
    assert left_over(queue) == []
    spool.close()


@pytest.mark.root
def test_spool_that_lost_its_access_list_takes_nothing(tmp_path, file):
    spool = shared_spool(tmp_path)
    queue = spool.queue("archive")
    os.removexattr(queue.root / "tmp", "system.posix_acl_default")
    error = refusal(queue, file())
    assert "its tmp directory has lost its default ACL, see xfer-spool(5)" in str(error)
    spool.close()


def shared_spool(tmp_path: Path) -> Spool:
    """A spool for several users that belongs to somebody else."""
    (tmp_path / "shared").mkdir()
    os.chown(tmp_path / "shared", 65534, 65534)
    (tmp_path / "shared").chmod(0o2750)
    return Spool(tmp_path / "shared")


# --- the order of durable steps --------------------------------------------------------------


def test_one_file_is_synced_before_it_is_a_job_and_the_job_before_it_has_an_id(
    queue, file, tmp_path, monkeypatch
):
    path = file()
    wake = queue.open_wake()
    calls = trace(monkeypatch, tmp_path / "spool/archive")
    results = submit(queue, [path], ORDER, NOW)
    next(results)
    at_the_id = list(calls)
    tmp = "tmp/archive-1"
    assert at_the_id[:4] == ["fsync .", "pwrite seq", "fsync seq", f"mkdir {tmp}"]
    renamed = at_the_id.index(f"rename {tmp} pending/archive-1")
    before = at_the_id[4:renamed]
    assert before[-1] == f"fsync {tmp}"
    assert sorted(before[:-1]) == [
        f"fsync {tmp}/control",
        f"fsync {tmp}/data",
        f"write {tmp}/control",
        f"write {tmp}/data",
    ]
    for name in ("data", "control"):
        assert before.index(f"write {tmp}/{name}") < before.index(f"fsync {tmp}/{name}")
    assert before.index(f"fsync {tmp}/data") > before.index(f"write {tmp}/data")
    assert at_the_id[renamed + 1 :] == ["fsync pending", "write wake"]
    assert list(results) == []
    assert os.read(wake, 99) == b"archive-1\n"
    os.close(wake)


def test_routing_is_synced_with_its_job(queue, file, tmp_path, monkeypatch):
    path = file()
    calls = trace(monkeypatch, tmp_path / "spool/archive")
    submitted(queue, path, routing=Routing(priority=3), hold=True)
    routing = calls.index("fsync tmp/archive-1/routing")
    assert routing < calls.index("fsync tmp/archive-1")
    assert calls.index("fsync tmp/archive-1") < calls.index("rename tmp/archive-1 held/archive-1")
    assert calls[-1] == "fsync held"


def test_linked_data_are_synced_with_their_job(queue, file, tmp_path, monkeypatch):
    path = file()
    calls = trace(monkeypatch, tmp_path / "spool/archive")
    submitted(queue, path, link=True)
    renamed = calls.index("rename tmp/archive-1 pending/archive-1")
    assert calls.index("fsync tmp/archive-1/data") < renamed


def test_many_files_share_one_sync_before_the_first_is_a_job_and_one_after_the_last(
    queue, file, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "BATCH_FILES", 3)
    path = file()
    calls = trace(monkeypatch, tmp_path / "spool/archive")
    results = submit(queue, [path] * 5, ORDER, NOW)
    ids, batches, seen = [], [], 0
    for result in results:
        ids.append(result.control.job)
        steps = [c for c in calls[seen:] if not c.startswith(("write", "pwrite", "mkdir"))]
        if steps:
            batches.append(steps)
        seen = len(calls)
    assert ids == [f"archive-{number}" for number in range(1, 6)]
    renames = [f"rename tmp/{job_id} pending/{job_id}" for job_id in ids]
    assert batches == [
        ["fsync .", "fsync seq", "syncfs .", *renames[:3], "fsync pending"],
        ["syncfs .", *renames[3:], "fsync pending"],
    ]


def test_everything_is_written_before_the_shared_sync(queue, file, tmp_path, monkeypatch):
    path = file()
    calls = trace(monkeypatch, tmp_path / "spool/archive")
    submitted(queue, path, path)
    synced = calls.index("syncfs .")
    assert {call for call in calls[:synced] if call.startswith("write")} == {
        f"write tmp/archive-{number}/{name}" for number in (1, 2) for name in ("control", "data")
    }
    assert not [call for call in calls[synced:] if call.startswith("write")]


def test_large_files_do_not_wait_for_many_others_to_be_synced(queue, file, monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES", 10)
    path = file(data=b"x" * 6)
    results = submit(queue, [path] * 4, ORDER, NOW)
    next(results)
    assert jobs(queue) == ["archive-1", "archive-2"]
    assert len(list(results)) == 3


def test_new_spool_is_durable_before_the_mark_that_it_is_set_up(file, tmp_path, monkeypatch):
    calls = trace(monkeypatch, tmp_path)
    Spool(tmp_path / "a/spool").queue("archive").close()
    mark = calls.index("mkdir a/spool/archive/log")
    assert "fsync a/spool/archive" in calls[:mark]
    assert {"fsync a/spool", "fsync a", "fsync ."} <= set(calls[:mark])
    assert calls[mark + 1 :] == ["fsync a/spool/archive"]


# --- a process that is stopped ---------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "half", "after"])
@pytest.mark.parametrize("count", [1, 3])
def test_submit_that_is_killed_anywhere_has_given_ids_to_whole_jobs_only(
    file, tmp_path, monkeypatch, count, when
):
    monkeypatch.setattr(module, "BATCH_FILES", 2)
    paths = [file(f"{number}.fits", b"x" * 5000) for number in range(count)]
    number = 0
    while True:
        number += 1
        spool, given = tmp_path / f"spool{number}", tmp_path / f"ids{number}"

        def act(spool: Path = spool, given: Path = given) -> None:
            with open(given, "w") as ids:
                for result in submit(Spool(spool).queue("archive"), paths, ORDER, NOW):
                    print(result.control.job, file=ids, flush=True)

        died = killed(act, number, when)
        _assert_whole(spool, given.read_text().split())
        if not died:
            break
    assert number > 30


def _assert_whole(root: Path, given: list[str]) -> None:
    """Ids belong to whole jobs, and the next sender and submit find nothing wrong."""
    spool = Spool(root)
    queue = spool.queue("archive")
    found = jobs(queue)
    assert set(given) <= set(found)
    with queue.locked():
        queue.recover(NOW)
    assert left_over(queue) == []
    assert jobs(queue) == found
    assert f"archive-{queue.reserve(1)[0]}" not in found
    spool.close()


def test_each_file_has_its_own_order(queue, file):
    orders = [dataclasses.replace(ORDER, inst=inst, priority=n) for n, inst in enumerate("ab", 1)]
    results = list(submit_each(queue, [Wanted(file(o.inst), o) for o in orders], NOW))
    assert [(r.control.inst, r.control.priority) for r in results] == [("a", 1), ("b", 2)]


def test_another_version_than_the_one_that_is_meant_is_not_taken(queue, file):
    path = file()
    status = os.stat(path)
    seen = (status.st_ino, status.st_size, status.st_mtime_ns)
    [result] = submit_each(queue, [Wanted(path, ORDER, seen)], NOW)
    assert result.control
    for other in ((seen[0] + 1, *seen[1:]), (seen[0], 1, seen[2]), (*seen[:2], 5)):
        [result] = submit_each(queue, [Wanted(path, ORDER, other)], NOW)
        assert isinstance(result.error, ChangedError)
    assert jobs(queue) == ["archive-1"]


def test_interrupted_submit_leaves_only_what_has_an_id(queue, file, monkeypatch):
    monkeypatch.setattr(module, "BATCH_FILES", 2)
    wanted = Wanted(file(), ORDER)

    class Interrupting(list):
        def __iter__(self) -> Iterator[Wanted]:
            yield from [wanted] * 3
            raise KeyboardInterrupt

    ids = []
    with pytest.raises(KeyboardInterrupt):
        for result in submit_each(queue, Interrupting([wanted] * 9), NOW):
            ids.append(result.control.job)
    assert ids == jobs(queue) == ["archive-1", "archive-2"]
    assert left_over(queue) == []
    assert (queue.root / "unused").read_text() == "3-3\n4-9\n"


def test_results_that_nobody_wants_any_more_close_everything(queue, file):
    path = file()
    before = len(os.listdir("/proc/self/fd"))
    results = submit(queue, [path] * 3, ORDER, NOW)
    next(results)
    results.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert jobs(queue) == ["archive-1", "archive-2", "archive-3"]
    assert left_over(queue) == []


def test_numbers_that_a_submit_did_not_need_are_noted(queue, file, monkeypatch):
    missing = os.fsencode(queue.root / "no such file")
    submitted(queue, file("a"))
    assert not (queue.root / "unused").read_text()
    submitted(queue, file("a"), missing, file("b"), missing)
    submitted(queue, missing)
    monkeypatch.setattr(module, "_link", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        submitted(queue, file("a"), file("b"), link=True)
    assert (queue.root / "unused").read_text() == "4-5\n6-6\n7-8\n"
    assert jobs(queue) == ["archive-1", "archive-2", "archive-3"]


def test_numbers_of_a_submit_that_cannot_be_committed_are_noted(queue, file, monkeypatch):
    monkeypatch.setattr(Queue, "commit", refuse(errno.EIO))
    results = submitted(queue, file("a"), file("b"))
    assert all(result.error for result in results)
    assert (queue.root / "unused").read_text() == "1-2\n"


def test_a_submit_fails_as_ever_where_unused_numbers_cannot_be_noted(queue, file):
    (queue.root / "unused").unlink()
    (queue.root / "unused").mkdir()
    [result] = submitted(queue, os.fsencode(queue.root / "no such file"))
    assert "No such file" in str(result.error)


def test_live_draft_is_not_swept_away_by_a_sender_that_starts(queue, file, monkeypatch):
    path, dump = file(), module.control.dump

    def meanwhile(known: object) -> bytes:
        other = Spool(queue.root.parent)
        with other.queue("archive").locked():
            other.queue("archive").recover(NOW)
        other.close()
        return dump(known)

    monkeypatch.setattr(module.control, "dump", meanwhile)
    assert submitted(queue, path)[0].error is None
    assert jobs(queue) == ["archive-1"]


# --- a disk that is full or fails ----------------------------------------------------------------

FAULTS = ["mkdir", "open", "write", "fsync", "rename"]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("code, status", [(errno.ENOSPC, 75), (errno.EDQUOT, 75), (errno.EIO, 1)])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_failure_of_the_spools_disk_is_told_and_leaves_nothing(
    queue, file, monkeypatch, fault, code, status, count
):
    paths = [file(f"{number}.fits") for number in range(count)]
    for failing in range(1, 1000):
        with monkeypatch.context() as patch:
            calls = _failing(patch, fault, failing, code, queue.root)
            try:
                results = submitted(queue, *paths)
            except LpxferError as error:  # of the counter
                results = [Result(path, error=error) for path in paths]
        good = [result.control.job for result in results if result.control]
        errors = [result.error for result in results if result.error]
        if calls[0] < failing:
            break
        assert errors
        for error in errors:
            assert error.exit_status == status
            assert f"the spool {queue.root} " in str(error)
            assert os.strerror(code) in str(error)
        assert set(good) <= set(jobs(queue))
        assert len(jobs(queue)) == len(good)
        assert left_over(queue) == []
        for job_id in good:
            durable.remove_tree(job_id, queue._dirs["pending"])
    else:
        pytest.fail("it never came to its end")
    assert failing > 1 or (fault, count) == ("fsync", 0)
    assert not errors


def _failing(patch: pytest.MonkeyPatch, name: str, number: int, code: int, root: Path) -> list[int]:
    """Let the `number`th call that changes the spool fail; return the count of calls."""
    calls = [0]
    names = {"fsync": [(os, "fsync"), (durable, "sync_filesystem")]}.get(name, [(os, name)])
    for owner, attribute in names:
        real = getattr(owner, attribute)

        def call(*args: object, real: Callable[..., object] = real, **kwargs: object) -> object:
            making = name != "open" or int(args[1]) & os.O_CREAT
            if making:
                calls[0] += 1
                if calls[0] == number:
                    raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        patch.setattr(owner, attribute, call)
    return calls


def test_draft_that_cannot_be_opened_leaves_nothing(queue, file, monkeypatch):
    path = file()
    submitted(queue, path)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "open_dir", refuse(errno.EMFILE))
        [result] = submitted(queue, path)
    assert "Too many open files" in str(result.error)
    assert (jobs(queue), left_over(queue)) == (["archive-1"], [])


def test_batch_that_fails_takes_back_the_jobs_it_had_made(queue, file, monkeypatch):
    """None of them is sent when their submitter is told that they were refused."""
    path = file()
    monkeypatch.setattr(durable, "sync", _fail_for("pending"))
    results = submitted(queue, path, path)
    assert [result.error.exit_status for result in results] == [1, 1]
    assert jobs(queue) == left_over(queue) == []


def _fail_for(directory: str) -> Callable[[int], None]:
    def sync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(directory):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)

    return sync


def test_batch_that_failed_does_not_spoil_the_next(queue, file, monkeypatch):
    monkeypatch.setattr(module, "BATCH_FILES", 2)
    sync, calls = durable.sync_filesystem, []

    def second_fails(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    monkeypatch.setattr(durable, "sync_filesystem", second_fails)
    results = submitted(queue, *[file()] * 6)
    assert [bool(result.error) for result in results] == [False, False, True, True, False, False]
    assert jobs(queue) == ["archive-1", "archive-2", "archive-5", "archive-6"]
    assert left_over(queue) == []


def test_refused_file_among_many_keeps_its_own_reason_when_the_batch_fails(
    queue, file, tmp_path, monkeypatch
):
    missing = os.fsencode(tmp_path / "missing")
    monkeypatch.setattr(durable, "sync_filesystem", refuse(errno.ENOSPC))
    first, second, third = submitted(queue, file(), missing, file())
    assert "No such file" in str(second.error)
    assert [first.error.exit_status, third.error.exit_status] == [75, 75]


def test_space_is_asked_for_before_anything_is_copied(queue, file, monkeypatch):
    path = file(data=b"x" * 1000)
    monkeypatch.setattr(Queue, "free_bytes", lambda _: 5999)
    monkeypatch.setattr(os, "mkdir", refuse(errno.EPERM))
    error = refusal(queue, path, reserve=5000)
    assert isinstance(error, TemporaryError)
    assert "1000 bytes, with 5000 to be left free, and 5999 are there; try again later" in str(
        error
    )


def test_reserve_is_left_free_and_no_more(queue, file, monkeypatch):
    monkeypatch.setattr(Queue, "free_bytes", lambda _: 6000)
    assert submitted(queue, file(data=b"x" * 1000), reserve=5000)[0].error is None


def test_linked_file_needs_no_space(queue, file, monkeypatch):
    monkeypatch.setattr(Queue, "free_bytes", lambda _: 0)
    assert submitted(queue, file(), reserve=5000, link=True)[0].error is None


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.root
@pytest.mark.parametrize("sizes", [[3 << 20], [1 << 20, 1 << 20, 4096]])
def test_full_disk_takes_what_fits_and_leaves_nothing_of_the_rest(small, file, monkeypatch, sizes):
    monkeypatch.setattr(module, "_check_space", lambda *_: None)  # somebody else took it since
    spool = Spool(small / "spool")
    queue = spool.queue("archive")
    results = submitted(queue, *(file(f"{i}", os.urandom(size)) for i, size in enumerate(sizes)))
    refused = [result.error for result in results if result.error]
    assert len(refused) == 1
    assert refused[0].exit_status == 75
    assert "is full (No space left on device): try again later" in str(refused[0])
    assert len(jobs(queue)) == len(sizes) - 1
    assert left_over(queue) == []
    spool.close()


@pytest.mark.root
def test_full_disk_is_seen_before_the_copy(small, file):
    spool = Spool(small / "spool")
    error = refusal(spool.queue("archive"), file(data=b"x" * (3 << 20)))
    assert "no space on the spool" in str(error)
    spool.close()


def test_limit_on_the_size_of_files_is_told_and_leaves_nothing(queue, file):
    path = file(data=b"x" * 100_000)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        error = refusal(queue, path)
        assert "File too large" in str(error)
        assert error.exit_status == 1

    apart(limited)


# --- numbers ------------------------------------------------------------------------------------


def test_refused_files_leave_no_gap_in_the_numbers(queue, file, tmp_path):
    missing = os.fsencode(tmp_path / "missing")
    results = submitted(queue, missing, file(), file(".x"), missing, file(), b"/dev/null", file())
    assert [result.control.job for result in results if result.control] == [
        "archive-1", "archive-2", "archive-3",
    ]  # fmt: skip


def test_number_that_is_taken_is_passed_over(queue, file):
    submitted(queue, file())
    (queue.root / "failed/archive-3").mkdir()
    (queue.root / "tmp/archive-4").mkdir()
    results = submitted(queue, file(), file(), file())
    assert [result.control.job for result in results] == ["archive-2", "archive-5", "archive-6"]


@pytest.mark.parametrize("text", [None, b"", b"rubbish\n", b"7", b"-1\n", b"9" * 40])
def test_lost_counter_goes_on_above_every_number_in_use(queue, file, text):
    (queue.root / "sent/archive-41").mkdir()
    (queue.root / "seq").unlink()
    if text is not None:
        (queue.root / "seq").write_bytes(text)
    [result] = submitted(queue, file())
    assert result.control.job == "archive-42"


def test_lost_counter_goes_on_above_the_finished_jobs_too(queue, file):
    submitted(queue, *[file()] * 7)
    queue.finish("archive-7", State.PENDING, State.CANCELED, "", NOW)
    (queue.root / "seq").unlink()
    assert submitted(queue, file())[0].control.job == "archive-8"


def test_submits_at_once_share_no_number(queue, file, tmp_path):
    path, root = file(), tmp_path / "spool"

    def many() -> None:
        spool = Spool(root)
        results = submitted(spool.queue("archive"), *[path] * 20)
        assert all(result.control for result in results)

    apart(*[many] * 4)
    assert jobs(queue) == [f"archive-{number}" for number in range(1, 81)]


def test_nobody_else_can_read_a_job_on_ones_own_spool(queue, file):
    submitted(queue, file())
    assert stat.S_IMODE(queue.root.stat().st_mode) == 0o700


def test_error_classes_say_what_to_do_next(queue, file, tmp_path):
    assert isinstance(refusal(queue, os.fsencode(tmp_path / "missing")), PermanentError)
    assert isinstance(refusal(queue, file(".x")), FormatError)

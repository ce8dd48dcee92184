"""In which form a job's data goes."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lpxfer import codec, codec_trial
from lpxfer.codec_trial import Trial
from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats.accepts import PLAIN, Accepts
from lpxfer.formats.control import Control, Encoding
from lpxfer.formats.job import State
from lpxfer.stores.job_dir import JobDir
from lpxfer.stores.spool import Queue
from lpxfer.transports import form

MIB = 1 << 20
SLOW = 1e6  # bytes per second
UNDERSTOOD = Accepts(codecs=frozenset({codec.NAME}))


def plenty() -> int:
    return 1 << 40


@pytest.fixture
def known(queue: Queue, make_job: Callable[..., Control]) -> Control:
    dice = random.Random(1)
    return make_job(queue, bytes(dice.choices(range(30), k=MIB)))


@pytest.fixture
def job(queue: Queue, known: Control) -> Iterator[JobDir]:
    time.sleep(0.02)  # some kernels' clocks for files tick slowly
    with queue.open(known.job, State.PENDING) as job:
        os.utime("control", dir_fd=job.fd)
        yield job


def restored(job: JobDir, known: Control) -> bytes:
    with form.opened(job, known) as how:
        assert how.encoding == Encoding(codec.NAME, how.size)
        return b"".join(codec.decode(how.fd, how.size, known.size))


def test_data_that_shrinks_goes_encoded_over_a_slow_link(
    queue: Queue, job: JobDir, known: Control
) -> None:
    assert form.wire_size(job, known) == known.size
    form.choose(job, known, UNDERSTOOD, SLOW, plenty)
    assert form.wire_size(job, known) < known.size
    data = (queue.root / "pending" / job.id / "data").read_bytes()
    assert restored(job, known) == data
    assert job.check(links=False) == known


@pytest.mark.parametrize(
    ("accepts", "rate", "room"),
    [
        (PLAIN, SLOW, plenty),
        (Accepts(bundle=True, codecs=frozenset({"other"})), SLOW, plenty),
        (UNDERSTOOD, None, plenty),
        (UNDERSTOOD, 1e9, plenty),
        (UNDERSTOOD, SLOW, lambda: 1000),
    ],
)
def test_data_goes_as_it_is_otherwise(
    job: JobDir,
    known: Control,
    accepts: Accepts,
    rate: float | None,
    room: Callable[[], int],
) -> None:
    form.choose(job, known, accepts, rate, room)
    assert job.encoded_size() is None
    with form.opened(job, known) as how:
        assert (how.size, how.encoding, how.words) == (known.size, None, {})


def test_files_are_encoded_in_turn_but_one_that_takes_long_keeps_no_other(
    job: JobDir, known: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, begun, ended = codec.encode, list[float](), list[float]()

    def timed(*args: Any) -> int:
        begun.append(time.monotonic())
        size = encode(*args)
        ended.append(time.monotonic())
        return size

    monkeypatch.setattr(codec, "encode", timed)
    monkeypatch.setattr(form, "PATIENCE", 60.0)
    with form._turn():
        other = threading.Thread(target=form.choose, args=(job, known, UNDERSTOOD, SLOW, plenty))
        other.start()
        time.sleep(0.1)
        assert not begun
        left = time.monotonic()
    other.join()
    assert begun[0] >= left
    os.unlink("encoded", dir_fd=job.fd)
    monkeypatch.setattr(form, "PATIENCE", 0.05)
    with form._turn():
        form.choose(job, known, UNDERSTOOD, SLOW, plenty)
    assert len(ended) == 2


def test_without_the_extra_nothing_is_encoded(
    job: JobDir, known: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "available", lambda: None)
    form.choose(job, known, UNDERSTOOD, SLOW, plenty)
    assert job.encoded_size() is None


def test_data_that_somebody_may_have_changed_goes_as_it_is(
    queue: Queue, job: JobDir, known: Control
) -> None:
    os.utime(queue.root / "pending" / job.id / "data")
    form.choose(job, known, UNDERSTOOD, SLOW, plenty)
    assert job.encoded_size() is None
    with form.opened(job, known) as how:
        assert how.check


def test_data_of_another_size_is_not_sent(queue: Queue, job: JobDir, known: Control) -> None:
    with (queue.root / "pending" / job.id / "data").open("ab") as data:
        data.write(b"more")
    with pytest.raises(PermanentError, match="another size"), form.opened(job, known):
        pass


def test_encoding_that_fails_in_the_middle_leaves_the_data_as_it_is(
    job: JobDir, known: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: int, size: int, out: int, params: codec.Params) -> int:
        os.write(out, b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(codec, "encode", full)
    form.choose(job, known, UNDERSTOOD, SLOW, plenty)
    assert sorted(os.listdir(job.fd)) == ["control", "data"]


def test_half_of_an_encoding_that_a_killed_sender_left_is_never_sent(
    queue: Queue, job: JobDir, known: Control
) -> None:
    inside = queue.root / "pending" / job.id
    (inside / ".encoded.new").write_bytes(b"half")
    assert job.check(links=False) == known
    assert job.encoded_size() is None
    form.choose(job, known, UNDERSTOOD, SLOW, plenty)
    assert sorted(os.listdir(inside)) == ["control", "data", "encoded"]


def test_encoding_is_dropped_when_the_job_moves(job: JobDir, known: Control) -> None:
    form.choose(job, known, UNDERSTOOD, SLOW, plenty)
    job.drop_encoded()
    job.drop_encoded()
    assert form.wire_size(job, known) == known.size


def test_link_in_place_of_the_encoding_is_not_followed(
    queue: Queue, job: JobDir, known: Control, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (queue.root / "pending" / job.id / "encoded").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match="encoded"), form.opened(job, known):
        pass
    with pytest.raises(FormatError, match="not a regular file"):
        job.check(links=False)


def test_trial_decides(job: JobDir, known: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    useless = [Trial(codec.Params("zstd", "none", 1), 1.01, 1e9)]
    monkeypatch.setattr(codec_trial, "trial", lambda *_: useless)
    form.choose(job, known, UNDERSTOOD, SLOW, plenty)
    assert job.encoded_size() is None

"""Files that shrink go encoded, and arrive byte for byte."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sshd import Sshd
from steps.test_bundles import arrivals, attempts, states, sweep_all
from telescope import Telescope

from lpxfer import codec
from lpxfer.errors import TemporaryError
from lpxfer.formats import accepts, control, names, record
from lpxfer.formats.accepts import Accepts
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.transports.team import Team

DATA = b"".join(n.to_bytes(2, "big") for n in range(60_000)) * 20  # 2.4 MB that shrink


@pytest.fixture
def telescope(
    tmp_path: Path,
    sshd: Sshd,
    make_job: Callable[..., Control],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Telescope]:
    """A telescope whose link is slow enough, as it believes."""
    monkeypatch.setattr(Team, "rate", lambda _: 1e6)
    telescope = Telescope(tmp_path, sshd, make_job)
    (telescope.receipts / "accepts").mkdir(parents=True)
    understood = accepts.dump(Accepts(codecs=frozenset({codec.NAME})), datetime.now(UTC))
    (telescope.receipts / "accepts/minicam").write_bytes(understood)
    yield telescope
    telescope.halt()


def submitted(telescope: Telescope) -> Control:
    job = telescope.job(DATA)
    os.utime(telescope.queue.root / "pending" / job.job / "control")  # later than the data
    return job


def test_file_that_shrinks_is_archived_byte_for_byte(telescope: Telescope) -> None:
    job = submitted(telescope)
    telescope.sender().once()
    assert telescope.state(job) is State.SENT
    assert "codec=blosc2" in attempts(telescope, job, State.SENT)
    known = control.load((telescope.incoming / arrivals(telescope)[0]).read_bytes())
    on_the_wire = telescope.incoming / f"{job.uid}{names.DATA}"
    assert on_the_wire.stat().st_size == known.wire_size < len(DATA) / 2
    assert (known.size, known.checksum) == (job.size, job.checksum)
    assert sweep_all(telescope, "minicam") == [record.STORED]
    (stored,) = (telescope.root / "archive").rglob("0123.fits")
    assert stored.read_bytes() == DATA
    telescope.sender().once()
    assert states(telescope, [job]) == {None}


def test_encoded_file_that_came_to_harm_is_a_mismatch_and_sent_again(telescope: Telescope) -> None:
    job = submitted(telescope)
    telescope.sender().once()
    path = telescope.incoming / f"{job.uid}{names.DATA}"
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"harm")
    assert sweep_all(telescope, "minicam") == [record.MISMATCH]
    telescope.sender().once()
    telescope.sender().once()
    assert telescope.state(job) is State.SENT
    assert sweep_all(telescope, "minicam") == [record.STORED]


def test_encoded_file_that_lost_its_end_is_a_mismatch(telescope: Telescope) -> None:
    job = submitted(telescope)
    telescope.sender().once()
    path = telescope.incoming / f"{job.uid}{names.DATA}"
    path.chmod(0o600)
    os.truncate(path, 1000)
    assert sweep_all(telescope, "minicam") == [record.MISMATCH]


def test_sweep_without_the_extra_leaves_what_is_encoded(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(telescope)
    telescope.sender().once()

    def missing() -> None:
        raise TemporaryError("the codec blosc2 is missing: install lpxfer[codec]")

    with monkeypatch.context() as patch:
        patch.setattr(codec, "_blosc2", missing)
        (said,) = sweep_all(telescope, "minicam")
    assert "install lpxfer[codec]" in said
    assert arrivals(telescope) == [f"{job.uid}{names.CONTROL}"]
    assert sweep_all(telescope, "minicam") == [record.STORED]


def test_transfer_of_an_encoded_file_goes_on_where_it_was(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(telescope)
    encoded, tried = codec.encode, list[int]()

    def counted(*args: int) -> int:
        tried.append(1)
        return encoded(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(codec, "encode", counted)
    from lpxfer.transports.sftp import SftpTransport

    put = SftpTransport.put

    def dying(link: SftpTransport, *args: object) -> None:
        if len(tried) == 1:
            tried.append(2)
            assert link._connection
            link._connection.shut()
        put(link, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(SftpTransport, "put", dying)
    telescope.sender().once()
    assert telescope.state(job) is State.SENT
    assert tried == [1, 2], "it is encoded once"
    assert sweep_all(telescope, "minicam") == [record.STORED]

"""Many small files go in bundles, all the way to the archive; none is lost however it ends."""

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sshd import Sshd
from telescope import Telescope

from lpxfer.errors import AttemptError, LostError
from lpxfer.formats import accepts, names, record
from lpxfer.formats.accepts import Accepts
from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.steps.sweep import Rules, sweep
from lpxfer.stores.archive import Archive
from lpxfer.stores.incoming import Incoming
from lpxfer.stores.instrument_dir import InstrumentDir
from lpxfer.stores.receipts import Receipts
from lpxfer.transports.bundler import LEAST
from lpxfer.transports.sftp import SftpTransport
from lpxfer.transports.transport import Upload

MANY = 3 * LEAST


@pytest.fixture
def telescope(tmp_path: Path, sshd: Sshd, make_job: Callable[..., Control]) -> Iterator[Telescope]:
    telescope = Telescope(tmp_path, sshd, make_job)
    (telescope.receipts / "accepts").mkdir(parents=True)
    understood(telescope, Accepts(bundle=True))
    yield telescope
    telescope.halt()


def understood(telescope: Telescope, what: Accepts) -> None:
    for inst in ("minicam", "undef"):
        (telescope.receipts / "accepts" / inst).write_bytes(accepts.dump(what, datetime.now(UTC)))


def small(telescope: Telescope, count: int = MANY) -> list[Control]:
    return [telescope.job(f"file {n}\n".encode() * 99, name=f"{n:04}.fits") for n in range(count)]


def arrivals(telescope: Telescope) -> list[str]:
    return sorted(n for n in os.listdir(telescope.incoming) if n.endswith(names.CONTROL))


def sweep_all(telescope: Telescope, inst: str) -> list[str]:
    home = telescope.root / "archive"
    home.mkdir(exist_ok=True)
    with (
        Incoming(str(telescope.incoming)) as incoming,
        InstrumentDir(str(home)) as place,
        Receipts(str(telescope.receipts), "sweeper") as receipts,
    ):
        archive = Archive(incoming, place, receipts, lambda: datetime.now(UTC))
        found = list(sweep(archive, Rules(InstrumentConfig(inst))))
    return [outcome.record.kind if outcome.record else str(outcome.message) for outcome in found]


def states(telescope: Telescope, jobs: list[Control]) -> set[State | None]:
    return {telescope.state(job) for job in jobs}


def attempts(telescope: Telescope, job: Control, state: State) -> str:
    return (telescope.queue.root / state.directory / job.job / "attempts").read_text()


def test_small_files_go_together_and_each_is_archived_by_itself(telescope: Telescope) -> None:
    jobs = small(telescope)
    telescope.sender(connections=1).once()
    assert states(telescope, jobs) == {State.SENT}
    assert len(arrivals(telescope)) < MANY / LEAST
    assert sweep_all(telescope, jobs[0].inst) == [record.STORED] * MANY
    assert os.listdir(telescope.incoming) == []
    telescope.sender().once()
    assert states(telescope, jobs) == {None}
    stored = list((telescope.root / "archive").rglob("*.fits"))
    assert {p.name: p.read_bytes() for p in stored} == {
        f"{n:04}.fits": f"file {n}\n".encode() * 99 for n in range(MANY)
    }


def test_bundle_s_uid_is_in_every_member_s_attempts_before_its_first_byte(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, put, seen = small(telescope), SftpTransport.put, list[str]()

    def noted(link: SftpTransport, uploads: list[Upload], limit: float = 0) -> None:
        uid = uploads[0].name.removesuffix(names.DATA)
        for job in jobs:
            if f"bundle={uid}" in attempts(telescope, job, State.ACTIVE):
                seen.append(job.job)
        put(link, uploads, limit)

    monkeypatch.setattr(SftpTransport, "put", noted)
    telescope.sender(connections=1).once()
    assert sorted(seen) == sorted(job.job for job in jobs)


@pytest.mark.parametrize(
    "what", [Accepts(), Accepts(codecs=frozenset({"blosc2"})), None], ids=["plain", "codec", "old"]
)
def test_sweep_that_does_not_understand_bundles_gets_none(
    telescope: Telescope, what: Accepts | None
) -> None:
    if what:
        understood(telescope, what)
    else:
        for path in (telescope.receipts / "accepts").iterdir():
            path.write_bytes(accepts.dump(Accepts(True), datetime(2020, 1, 1, tzinfo=UTC)))
    jobs = small(telescope)
    telescope.sender().once()
    assert states(telescope, jobs) == {State.SENT}
    assert len(arrivals(telescope)) == MANY


def test_what_does_not_fit_into_a_bundle_goes_by_itself(telescope: Telescope) -> None:
    jobs = small(telescope)
    large = telescope.job(bytes(3 << 20))
    own = telescope.job(b"x", routing=Routing(rempath=str(telescope.incoming)))
    telescope.sender(connections=1).once()
    assert states(telescope, [*jobs, large, own]) == {State.SENT}
    assert f"{large.uid}.control" in arrivals(telescope)
    assert f"{own.uid}.control" in arrivals(telescope)
    assert len(arrivals(telescope)) < MANY / LEAST + 3


def test_few_files_go_one_by_one(telescope: Telescope) -> None:
    jobs = small(telescope, LEAST - 1)
    telescope.sender(connections=1).once()
    assert arrivals(telescope) == sorted(f"{job.uid}.control" for job in jobs)


@pytest.mark.parametrize("error", [AttemptError("refused"), LostError("connection lost")])
def test_members_of_a_bundle_that_failed_go_one_by_one(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    put = SftpTransport.put

    def failing(link: SftpTransport, uploads: list[Upload], limit: float = 0) -> None:
        if "memfd:bundle" in os.readlink(f"/proc/self/fd/{uploads[0].source}"):
            raise error
        put(link, uploads, limit)

    monkeypatch.setattr(SftpTransport, "put", failing)
    jobs = small(telescope)
    telescope.sender(connections=1).once()
    assert states(telescope, jobs) == {State.SENT}
    assert len(arrivals(telescope)) == MANY
    assert all(telescope.routing(job) == Routing() for job in jobs), "nobody is to blame"


@pytest.mark.parametrize("swept", [False, True])
def test_sender_that_died_after_the_commit_of_a_bundle_sends_no_member_again(
    telescope: Telescope, monkeypatch: pytest.MonkeyPatch, swept: bool
) -> None:
    """Its members are in active/; nobody but their `attempts` knows of the bundle."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    jobs = small(telescope)
    with monkeypatch.context() as patch:
        patch.setattr(type(telescope.queue), "move_many", die)
        sender = telescope.sender(connections=1)
        patch.setattr(sender._roster, "done", lambda item: None)
        thread_dies = pytest.raises(KeyboardInterrupt)
        with thread_dies, telescope.queue.locked():
            ids = tuple(job.job for job in jobs)
            links = sender._team.join()
            sender._bundler.carry(ids, links)
        links.close()
    assert states(telescope, jobs) == {State.ACTIVE}
    before = arrivals(telescope)
    if swept:
        assert sweep_all(telescope, jobs[0].inst) == [record.STORED] * MANY
    telescope.sender().once()
    if swept:
        assert states(telescope, jobs) == {None}
        assert arrivals(telescope) == []
    else:
        assert states(telescope, jobs) == {State.SENT}
        assert arrivals(telescope) == before
        assert sweep_all(telescope, jobs[0].inst) == [record.STORED] * MANY


def test_refused_member_is_sent_again_and_the_others_are_archived(telescope: Telescope) -> None:
    jobs = small(telescope)
    telescope.sender(connections=1).once()
    (control,) = arrivals(telescope)
    data = telescope.incoming / control.replace(names.CONTROL, names.DATA)
    data.chmod(0o600)
    text = data.read_bytes()
    data.write_bytes(text.replace(b"file 5\n", b"fileX5\n", 1))
    kinds = sweep_all(telescope, jobs[0].inst)
    assert sorted(kinds) == sorted([record.MISMATCH] + [record.STORED] * (MANY - 1))
    telescope.sender().once()
    assert [telescope.state(job) for job in jobs].count(None) == MANY - 1
    telescope.sender().once()
    assert telescope.state(jobs[5]) is State.SENT
    assert sweep_all(telescope, jobs[0].inst) == [record.STORED]
    telescope.sender().once()
    assert states(telescope, jobs) == {None}


def test_running_sender_bundles_what_waits_behind_a_disabled_queue(telescope: Telescope) -> None:
    jobs = small(telescope, 200)
    telescope.serve(connections=2)
    deadline = time.monotonic() + 60
    while states(telescope, jobs) != {State.SENT} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert states(telescope, jobs) == {State.SENT}
    assert len(arrivals(telescope)) < 40
    assert not telescope.said

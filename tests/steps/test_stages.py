"""When a file came where: both sites say it, of files that come alone, in bundles, encoded."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from sshd import Sshd
from steps.test_bundles import small, sweep_all
from steps.test_encoded import submitted
from telescope import Telescope

from lpxfer import codec
from lpxfer.formats import accepts, stages
from lpxfer.formats.accepts import Accepts
from lpxfer.formats.control import Control
from lpxfer.formats.record import Record
from lpxfer.formats.stages import RECEIPTED, STAGES, TOLD
from lpxfer.transports.team import Team

CODEC = Accepts(bundle=True, codecs=frozenset({codec.NAME}))


@pytest.fixture
def telescope(
    tmp_path: Path, sshd: Sshd, make_job: Callable[..., Control], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Telescope]:
    monkeypatch.setattr(Team, "rate", lambda _: 1e6)
    telescope = Telescope(tmp_path, sshd, make_job)
    (telescope.receipts / "accepts").mkdir(parents=True)
    for inst in ("minicam", "undef"):
        said = accepts.dump(CODEC, datetime.now(UTC))
        (telescope.receipts / "accepts" / inst).write_bytes(said)
    yield telescope
    telescope.halt()


def gone_through(telescope: Telescope, jobs: list[Control]) -> dict[str, Record]:
    """Take jobs the whole way; return their records in the finished log, by uid."""
    since = datetime.now(UTC)
    telescope.sender(connections=1).once()
    sweep_all(telescope, jobs[0].inst)
    telescope.sender().once()
    found = {entry.fields["uid"]: entry for entry in telescope.queue.log(since)}
    assert found.keys() == {job.uid for job in jobs}
    return found


@pytest.mark.parametrize("how", ["alone", "bundle", "encoded"])
def test_a_finished_job_tells_when_it_came_to_each_stage(telescope: Telescope, how: str) -> None:
    jobs = small(telescope) if how == "bundle" else []
    if how != "bundle":
        jobs.append(submitted(telescope) if how == "encoded" else telescope.job(b"data"))
    for entry in gone_through(telescope, jobs).values():
        found = stages.load(entry.fields["stages"])
        assert list(found) == [stage for stage in STAGES if stage != TOLD]
        times = [found[stage] for stage in STAGES[1:] if stage in found]  # mtime is made up
        tick = 0.02  # the clock of files is behind that of programs
        assert all(a <= b + tick for a, b in pairwise(times)), found
        assert ("bundle" in entry.fields) == (how == "bundle")
        assert ("codec" in entry.fields) == (how == "encoded")


def test_the_receipt_and_the_record_are_the_same_line(telescope: Telescope) -> None:
    telescope.job(b"data")
    telescope.sender().once()
    sweep_all(telescope, "minicam")
    [log] = (telescope.root / "archive/xferlogs").iterdir()
    [receipts] = telescope.receipts.glob("*/sweeper-*.log")
    assert log.read_bytes() == receipts.read_bytes()
    assert f",{RECEIPTED}:".encode() in log.read_bytes()

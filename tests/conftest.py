"""Fixtures that more than one part of the tests needs."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest

from lpxfer.formats import control, job, names
from lpxfer.formats.control import Control
from lpxfer.formats.job import Routing, State
from lpxfer.stores.job_dir import account
from lpxfer.stores.spool import Queue, Spool

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import what they share

from sshd import Sshd

# No limit of time for one example: the machine may be busy.
hypothesis.settings.register_profile("lpxfer", deadline=None, database=None)
hypothesis.settings.load_profile("lpxfer")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what only root can do, and say so in the summary."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A running OpenSSH sshd that nobody else uses."""
    with Sshd(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool of one user, with no queue in it yet."""
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


@pytest.fixture
def queue(spool: Spool) -> Queue:
    """The queue `archive` of an empty spool."""
    return spool.queue("archive")


@pytest.fixture
def make_job() -> Callable[..., Control]:
    """Puts a job into a queue as a submit does, without its source file."""

    def make(
        queue: Queue,
        data: bytes = b"SIMPLE  =",
        state: State = State.PENDING,
        routing: Routing | None = None,
        **fields: object,
    ) -> Control:
        """Make a job in any state; `fields` replace those of its control file."""
        draft = queue.draft(queue.reserve(1)[0])
        submitted = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
        known = Control(
            job=draft.id,
            uid=names.make_uid(submitted, "telescope", draft.id, hashlib.md5(data).digest()[:4]),
            host="telescope",
            user=account(os.geteuid()),
            queue=queue.name,
            submitted=submitted,
            name="0123.fits",
            path="/data/2026.1120/0123.fits",
            size=len(data),
            mtime_ns=1_795_147_200_123_456_789,
            checksum=f"sha256:{hashlib.sha256(data).hexdigest()}",
            inst="minicam",
            maxftp="600",
        )
        known = replace(known, **fields)  # type: ignore[arg-type]
        with draft:
            draft.write("data", data)
            draft.write("control", control.dump(known))
            if routing:
                draft.write("routing", job.dump_routing(routing))
            queue.commit([draft], state)
        return known

    return make

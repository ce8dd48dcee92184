"""The order of steps for one job: an attempt may die anywhere, the next one goes on."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sshd import Sshd
from transports.conformance import Stop, noise

from lpxfer.errors import AttemptError, LinkError, LpxferError, PermanentError
from lpxfer.formats import names
from lpxfer.transports import local, wire
from lpxfer.transports.deposit import Found, deposit, look
from lpxfer.transports.local import LocalTransport
from lpxfer.transports.sftp import SftpTransport
from lpxfer.transports.stripes import Stripes
from lpxfer.transports.transport import Stat, Transport

UID = "20261120T040000Z-telescope-archive-1042-0123abcd"
DATA, CONTROL = f"{UID}.data", f"{UID}.control"
SIZE = 100_017  # a few requests


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "data").write_bytes(noise(SIZE))
    with (tmp_path / "data").open("rb") as file:
        yield file.fileno()


@pytest.fixture
def transport(incoming: Path) -> Transport:
    transport = LocalTransport(str(incoming))
    transport.connect()
    return transport


class Sender:
    """Makes attempts at one job as a sender does, and keeps what it learned."""

    def __init__(self, transport: Transport, source: int, incoming: Path) -> None:
        self.transport, self.source, self.incoming = transport, source, incoming
        self.stripes, self.attempts = Stripes(SIZE), 0
        self.committing: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Forget everything: another job."""
        for name in os.listdir(self.incoming):
            (self.incoming / name).unlink()
        self.stripes, self.attempts = Stripes(SIZE), 0

    def attempt(self) -> Found:
        """Look, then deposit; return what was found."""
        self.attempts += 1
        looked = look(self.transport, UID, SIZE)
        self.stripes = Stripes(SIZE, self.stripes.done)
        deposit(
            self.transport,
            UID,
            self.source,
            self.stripes,
            self.control,
            looked=looked,
            before_commit=lambda: self.committing(),
        )
        return looked.found

    def control(self) -> bytes:
        """Make a control file; those of two attempts differ, in size too."""
        data = [path for path in self.incoming.iterdir() if ".data" in path.name]
        assert [path.read_bytes() for path in data] == [noise(SIZE)]  # the data goes first
        return b"attempts=" + b"1" * self.attempts + b"\n"

    def check(self) -> None:
        """Assert that the pair arrived, whole and once."""
        assert (self.incoming / DATA).read_bytes() == noise(SIZE)
        text = (self.incoming / CONTROL).read_bytes()
        assert text.startswith(b"attempts=1")
        assert text.endswith(b"1\n")


@pytest.fixture
def sender(transport: Transport, source: int, incoming: Path) -> Sender:
    return Sender(transport, source, incoming)


def test_deposit_brings_the_pair_and_nothing_else(sender: Sender, incoming: Path) -> None:
    assert sender.attempt() is Found.NOTHING
    sender.check()
    assert sorted(os.listdir(incoming)) == [CONTROL, DATA]
    assert sender.stripes.complete


def test_deposit_of_what_is_committed_does_nothing(sender: Sender) -> None:
    sender.attempt()
    assert sender.attempt() is Found.CONTROL
    assert (sender.incoming / CONTROL).read_bytes() == b"attempts=1\n"


def test_deposit_looks_for_itself_when_it_is_not_told(sender: Sender, transport: Transport) -> None:
    sender.attempt()
    deposit(transport, UID, -1, Stripes(SIZE), sender.control)
    with pytest.raises(PermanentError, match=f"{SIZE} bytes instead of 5"):
        (sender.incoming / CONTROL).unlink()
        deposit(transport, UID, -1, Stripes(5), sender.control)


def test_data_of_another_size_under_the_final_name_is_not_ours(
    sender: Sender, incoming: Path
) -> None:
    (incoming / DATA).write_bytes(b"abc")
    with pytest.raises(PermanentError, match=f"{DATA} .* 3 bytes instead of {SIZE}"):
        sender.attempt()
    assert os.listdir(incoming) == [DATA]


def test_data_that_is_there_is_not_sent_again(sender: Sender, incoming: Path) -> None:
    (incoming / DATA).write_bytes(noise(SIZE))
    assert sender.attempt() is Found.DATA
    sender.check()
    assert not sender.stripes.done


def test_cancel_before_the_commit_leaves_nothing_committed(sender: Sender, incoming: Path) -> None:
    def cancel() -> None:
        assert not (incoming / CONTROL).exists()
        raise Stop

    sender.committing = cancel
    with pytest.raises(Stop):
        sender.attempt()
    assert not (incoming / CONTROL).exists()
    assert look(sender.transport, UID, SIZE).found is Found.DATA


def test_control_file_of_an_attempt_that_stopped_before_its_commit_is_committed_later(
    sender: Sender, incoming: Path
) -> None:
    """It is sealed and could not be written again by who may only deposit."""

    def cancel() -> None:
        raise Stop

    sender.committing = cancel
    for _ in range(2):
        with pytest.raises(Stop):
            sender.attempt()
    sender.committing = lambda: None
    sender.attempt()
    assert (incoming / CONTROL).read_bytes() == b"attempts=1\n"
    assert sorted(os.listdir(incoming)) == [CONTROL, DATA]


def test_sealed_control_file_that_gets_its_name_meanwhile_ends_the_attempt_and_not_the_job(
    sender: Sender, incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was stuck carries out the rename of the attempt before, after all."""

    def cancel() -> None:
        raise Stop

    sender.committing = cancel
    with pytest.raises(Stop):
        sender.attempt()
    sender.committing = lambda: None
    stat = sender.transport.stat

    def look_then_rename(*looked_for: str) -> list[Stat | None]:
        found = stat(*looked_for)
        with suppress(FileNotFoundError):
            (incoming / names.part(CONTROL)).rename(incoming / CONTROL)
        return found

    with monkeypatch.context() as late:
        late.setattr(sender.transport, "stat", look_then_rename)
        with pytest.raises(AttemptError, match="meanwhile"):
            sender.attempt()
    assert sender.attempt() is Found.CONTROL


# --- dying at every step --------------------------------------------------------------------------


class Fault:
    """Fails the nth of many calls, before or after it is made; counts them."""

    def __init__(self, at: int, after: bool) -> None:
        self.at, self.after, self.calls = at, after, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            fails = self.calls == self.at
            if fails and not self.after:
                raise LinkError("died before a step")
            result = function(*args, **kwargs)
            if fails:
                raise LinkError("died after a step")
            return result

        return called


STEPS = [
    (local._Incoming, ("stat", "open_part", "rename")),
    (local._Part, ("write", "write_small", "size", "seal", "sync")),
]


def test_bytes_are_synced_before_they_are_sealed(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sealed part is never opened again: its bytes must not depend on a later sync."""
    called = []
    for verb in ("size", "seal", "sync"):
        real = getattr(local._Part, verb)

        def spy(part: Any, verb: str = verb, real: Any = real) -> Any:
            called.append(verb)
            return real(part)

        monkeypatch.setattr(local._Part, verb, spy)
    sender.attempt()
    assert called == 2 * ["size", "sync"] + 2 * ["seal", "sync"] + 2 * ["sync"]


@pytest.mark.parametrize("after", [False, True])
def test_attempt_that_dies_at_any_step_is_finished_by_the_next(
    sender: Sender, incoming: Path, after: bool
) -> None:
    died = 0
    while True:
        sender.begin()
        fault = Fault(died + 1, after)
        with pytest.MonkeyPatch.context() as patch:
            for owner, methods in STEPS:
                for method in methods:
                    patch.setattr(owner, method, fault.wrap(getattr(owner, method)))
            try:
                sender.attempt()
            except LinkError:
                patch.undo()
                sender.attempt()
            else:
                break
        sender.check()
        died += 1
    sender.check()
    assert died > 15  # two stats, and eight steps for each file


@pytest.mark.parametrize("after", [False, True])
def test_server_killed_at_any_request_is_gone_on_from(
    sshd: Sshd, incoming: Path, source: int, after: bool
) -> None:
    """Really killed: what the server did of the last request, nobody knows."""
    transport = SftpTransport(**sshd.values(), rempath=str(incoming))  # type: ignore[arg-type]
    sender = Sender(transport, source, incoming)
    send = wire.Session._send
    died = 0
    while True:
        sender.begin()
        requests = 0
        transport.connect()

        def killing(session: wire.Session, data: bytes, at: int = died + 1) -> None:
            nonlocal requests
            requests += 1
            if requests == at and not after:
                sshd.drop_connections()
            send(session, data)
            if requests == at and after:
                sshd.drop_connections()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire.Session, "_send", killing)
            try:
                sender.attempt()
            except LpxferError as error:
                assert isinstance(error, LinkError)
                patch.undo()
                transport.connect()
                sender.attempt()
            else:
                break
        sender.check()
        died += 1
    sender.check()
    transport.close()
    assert died > 15  # a look, and seven requests or more for each file

"""The deposit account of etc/ against a real sshd: every request of SFTP, and the way out.

What must be refused is refused and changes nothing; what must work works. The table below has to
name every request that this sftp-server knows, so that a new one is noticed.
"""

import _strptime  # noqa: F401 - imported late by the sweep, which cannot read root's Python
import contextlib
import itertools
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
from accounts import own, run_as
from arrivals import arrive
from deposit_site import SWEEPER, Site, archive_site
from torture.sftp_requests import (
    CREATE,
    EXCLUSIVE,
    KINDS,
    MODE_666,
    PATIENCE,
    PLACES,
    WRITE,
    Raw,
    raw_session,
    requests,
    string,
    u32,
)
from torture.table import Result
from transports.conformance import put

from lpxfer.cli import xfer_sweep
from lpxfer.errors import LpxferError
from lpxfer.transports import packets, wire
from lpxfer.transports.deposit import deposit
from lpxfer.transports.stripes import Stripes


class Room:
    """The site with the files that are tried, made anew when one of them was changed."""

    def __init__(self, site: Site) -> None:
        self.site, self.incoming = site, site.root / "incoming"
        host = site.root / "receipts/telescope1"
        host.mkdir()
        (host / "x.log").write_bytes(b"a receipt\n")
        for path in (host, host / "x.log"):
            own(path, SWEEPER)
        self.fill()

    def fill(self) -> None:
        """Make the files anew."""
        subprocess.run(["find", self.incoming, "-mindepth", "1", "-delete"], check=True)
        (self.incoming / "directory").mkdir(mode=0o700)
        (self.incoming / "foreign.data").write_bytes(b"of somebody else")
        own(self.incoming / "foreign.data", SWEEPER, 0o640)
        with self.site.sending() as sender:
            put(sender, "known.data", b"SIMPLE  =", 9)
        raw = raw_session(self.site)
        handle = raw.open(PLACES["own part"], WRITE | CREATE | EXCLUSIVE)()
        raw.ask(KINDS["write"], string(handle), bytes(8), string(b"half a file"))
        raw.close(handle)
        raw.end()
        self.before = self.seen()

    def seen(self) -> dict[str, tuple[object, ...]]:
        """Return everything beneath the chroot, and what is known about it."""
        found: dict[str, tuple[object, ...]] = {}
        for path in self.site.root.rglob("*"):
            s = path.lstat()
            known = (s.st_ino, s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns)
            found[str(path)] = (*known, s.st_nlink)
        return found


def every_request(site: Site, short: bool) -> Result:
    """Try every request; a refused one has changed nothing."""
    result = Result("deposit account: requests of SFTP, against sshd")
    room = Room(site)
    raw, tried = raw_session(site), set[str]()
    for request in requests():
        tried.add(request.name)
        if short and not request.short:
            continue
        refused = raw.refused(request.kind, *request.fields)
        after = room.seen()
        wrong = None
        if refused != request.refused:
            wrong = f"{request.words}: is {'refused' if refused else 'allowed'}"
        if after != room.before:
            if not request.may_change:
                changed = sorted(after.items() ^ room.before.items(), key=str)
                wrong = f"{request.words}: has changed {changed[:3]}"
            room.fill()
        result.count(wrong)
    raw.end()
    ask = ["/usr/lib/openssh/sftp-server", "-Q", "requests"]
    known = subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True).stdout
    for name in sorted(set(known.split()) - tried):
        result.count(f"{name}: nobody has thought of it")
    return result


def no_way_out(site: Site) -> Result:
    """Try everything of SSH that is not SFTP."""
    result = Result("deposit account: shells, forwarding, tunnels")
    ssh, here = site.ssh, ("127.0.0.1", site.server.port)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))

    def session(act: Callable[[paramiko.Channel], object]) -> Callable[[], object]:
        def tried() -> object:
            with contextlib.closing(ssh.open_session(timeout=PATIENCE)) as channel:
                channel.settimeout(PATIENCE)
                return act(channel)

        return tried

    def sftp_instead(ask: Callable[[paramiko.Channel], object]) -> Callable[[], object]:
        def look(channel: paramiko.Channel) -> None:
            ask(channel)
            with contextlib.suppress(OSError):  # the server may have closed it, as it should
                channel.sendall(u32(5) + b"\1" + u32(3))
            said = channel.recv(64)
            if said[4:9] == b"\2" + u32(3) or b"sftp connections only" in said:
                raise paramiko.SSHException("not a program: the SFTP server has answered")

        return session(look)

    tries: dict[str, Callable[[], object]] = {
        "a command": sftp_instead(lambda c: c.exec_command("touch /incoming/ran")),
        "a shell": sftp_instead(lambda c: c.invoke_shell()),
        "another subsystem": sftp_instead(lambda c: c.invoke_subsystem("shell")),
        "scp": sftp_instead(lambda c: c.exec_command("scp -t /incoming")),
        "a terminal": session(lambda c: c.get_pty()),
        "a variable": session(_asks("env", string(b"LD_PRELOAD"), string(b"x"))),
        "X11": session(lambda c: c.request_x11()),
        "the agent": session(_asks("auth-agent-req@openssh.com")),
        "a port of its own": lambda: ssh.open_channel("direct-tcpip", here, here, PATIENCE),
        "a port of ours": lambda: ssh.request_port_forward("127.0.0.1", 0),
        "a socket of its own": lambda: _open(ssh, "direct-streamlocal@openssh.com",
                                             string(b"/run/dbus/system_bus_socket") + bytes(8)),
        "a socket of ours": lambda: _global(ssh, "streamlocal-forward@openssh.com", "/x"),
        "a tunnel": lambda: _open(ssh, "tun@openssh.com", u32(1, 0x7FFFFFFF)),
    }  # fmt: skip
    before = sorted(str(path) for path in site.root.rglob("*"))
    for words, act in tries.items():
        try:
            act()
            result.count(f"{words}: is given")
        except (paramiko.SSHException, EOFError):
            result.count(None)
    if (after := sorted(str(path) for path in site.root.rglob("*"))) != before:
        result.count(f"files were made: {set(after) ^ set(before)}")
    listener.close()
    return result


def _asks(kind: str, *rest: bytes) -> Callable[[paramiko.Channel], object]:
    """Return what makes a request of a channel, and raises when it is refused."""

    def ask(channel: paramiko.Channel) -> None:
        message = paramiko.Message()
        message.add_byte(bytes([98]))
        message.add_int(channel.remote_chanid)
        message.add_string(kind)
        message.add_boolean(True)
        message.add_bytes(b"".join(rest))
        channel._event_pending()  # type: ignore[attr-defined]
        channel.transport._send_user_message(message)
        channel._wait_for_event()  # type: ignore[attr-defined]

    return ask


def _open(ssh: paramiko.Transport, kind: str, rest: bytes) -> object:
    """Open a channel of a kind that paramiko does not know."""
    real = ssh._send_user_message

    def send(message: paramiko.Message) -> None:
        message.add_bytes(rest)
        real(message)

    ssh._send_user_message = send  # type: ignore[method-assign]
    try:
        return ssh.open_channel(kind, timeout=PATIENCE)
    finally:
        ssh._send_user_message = real  # type: ignore[method-assign]


def _global(ssh: paramiko.Transport, kind: str, path: str) -> None:
    if ssh.global_request(kind, (path,), wait=True) is None:
        raise paramiko.SSHException("refused")


# --- deposit, cut anywhere, and sweep ----------------------------------------------------------


def carry(site: Site, data: Path, known: str, text: bytes, at: int, after: bool) -> bool:
    """Deposit a pair; the connection ends at its `at`th request, answered or not.

    Tell whether it came to its end before that.
    """
    count, real = 0, wire.Session._send

    def send(self: wire.Session, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == at and not after:
            raise packets.Broken("cut")
        real(self, data)
        if count == at:
            deadline = threading.Event()
            deadline.wait(0.05)  # the server has done it; its answer is not read
            raise packets.Broken("cut")

    wire.Session._send = send  # type: ignore[method-assign]
    try:
        with contextlib.closing(site.sender()) as transport, open(data, "rb") as source:
            transport.connect()
            size = os.fstat(source.fileno()).st_size
            deposit(transport, known, source.fileno(), Stripes(size), lambda: text)
        return True
    except LpxferError:
        return False
    finally:
        wire.Session._send = real  # type: ignore[method-assign]


def cuts(site: Site, short: bool) -> tuple[Result, list[bytes]]:
    """Cut a deposit at every request, before it and before its answer; then resume."""
    result, contents = Result("deposit account: cut at every request, resumed"), []
    with tempfile.TemporaryDirectory() as directory:
        for after in (False, True):
            for number in itertools.count(3, 8) if short else itertools.count(1):
                contents.append(os.urandom(100_000))
                ended = _cut_once(site, Path(directory), contents, number, after, result)
                if ended:
                    break
    return result, contents


def _cut_once(
    site: Site, directory: Path, contents: list[bytes], number: int, after: bool, result: Result
) -> bool:
    made = arrive(directory, contents[-1], len(contents), name=f"{len(contents)}.fits")
    data = directory / f"{made.uid}.data"
    text = (directory / f"{made.uid}.control").read_bytes()
    ended = carry(site, data, made.uid, text, number, after)
    whole = ended or carry(site, data, made.uid, text, 0, False)
    words = f"cut {'after' if after else 'before'} request {number}"
    result.count(None if whole else f"{words}: it does not go on")
    return ended


class Archive:
    """The sweeper's end."""

    def __init__(self, site: Site) -> None:
        self.incoming = site.root / "incoming"
        self.home = site.root.parent / "minicam"
        self.home.mkdir()
        own(self.home, SWEEPER)
        self.conf = site.root.parent / "lpxfer.conf"
        self.conf.write_text(
            f"[lpxfer]\nincoming = {self.incoming}\nreceipts = {site.root}/receipts\n"
            f"[instrument minicam]\ndir = {self.home}\n"
        )

    def sweep(self) -> tuple[int, str]:
        """Sweep as the sweeper's account."""
        arguments = ["--config", str(self.conf), "-i", "minicam"]
        return run_as(SWEEPER, lambda: xfer_sweep.main.main(arguments), umask=0o022)

    def placed(self) -> list[bytes]:
        """Return the contents of the files that were placed."""
        return [
            path.read_bytes()
            for path in self.home.glob("[0-9]*/*")
            if path.is_file() and not path.name.startswith(".")
        ]


def swept(archive: Archive, contents: list[bytes]) -> Result:
    """Sweep what the cuts left: each file is placed once."""
    result = Result("deposit account: what was resumed is placed once")
    status, said = archive.sweep()
    placed = archive.placed()
    for number, content in enumerate(contents, 1):
        copies = placed.count(content)
        lost = f"file {number} of the cuts is placed {copies} times; sweep: {status} {said[:200]}"
        result.count(None if copies == 1 else lost, lost=copies == 0)
    return result


def open_descriptors(site: Site, archive: Archive, tries: int) -> Result:
    """Write into an arrival while it is swept, through a descriptor that is still open.

    Placed are the bytes of the checksum, or a mismatch is said.
    """
    result = Result("deposit account: files changed while they are swept")
    for number in range(tries):
        data = os.urandom(4 << 20)
        with tempfile.TemporaryDirectory() as directory:
            made = arrive(Path(directory), data, 5000 + number, name=f"open{number}.fits")
            text = (Path(directory) / f"{made.uid}.control").read_bytes()
        raw, names = raw_session(site), {}
        for suffix, content in ((".data", data), (".control", text)):
            part = f"/incoming/.{made.uid}{suffix}.part".encode()
            handle = names[suffix] = raw.open(part, WRITE | CREATE | EXCLUSIVE)()
            for start in range(0, len(content), 30_000):
                piece = string(content[start : start + 30_000])
                raw.ask(KINDS["write"], string(handle), start.to_bytes(8, "big"), piece)
            raw.rename(part, f"/incoming/{made.uid}{suffix}".encode())
        stop = threading.Event()
        writer = threading.Thread(target=_scribble, args=(raw, names[".data"], stop))
        writer.start()
        status, said = archive.sweep()
        stop.set()
        writer.join(PATIENCE)
        raw.end()
        whole = data in archive.placed()
        lines = b"".join(path.read_bytes() for path in archive.home.glob("xferlogs/*.log"))
        kinds = [line.split()[1] for line in lines.splitlines() if made.uid.encode() in line]
        told = kinds == [b"stored"] if whole else kinds == [b"mismatch"]
        torn = [path for path in archive.home.glob(f"[0-9]*/open{number}.fits") if not whole]
        wrong = f"try {number}: {kinds}, whole: {whole}, {torn}: {status} {said[:200]}"
        result.count(None if told and not torn else wrong)
        result.notes["mismatches"] = result.notes.get("mismatches", 0) + (not whole)
    return result


def _scribble(raw: Raw, handle: bytes, stop: threading.Event) -> None:
    """Write at the end and back again, and change mode and size, until told to stop."""
    while not stop.is_set():
        raw.ask(KINDS["write"], string(handle), (3 << 20).to_bytes(8, "big"), string(b"changed"))
        raw.ask(KINDS["fsetstat"], string(handle), MODE_666)


def run(short: bool) -> Iterator[Result]:
    """Try everything."""
    if os.geteuid() != 0:
        yield Result("deposit account", not_run="needs root: real accounts")
        return
    with archive_site() as site:
        yield every_request(site, short)
        yield no_way_out(site)
        subprocess.run(["find", site.root / "incoming", "-mindepth", "1", "-delete"], check=True)
        archive = Archive(site)
        result, contents = cuts(site, short)
        yield result
        yield swept(archive, contents)
        yield open_descriptors(site, archive, 1 if short else 10)

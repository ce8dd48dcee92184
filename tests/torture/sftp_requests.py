"""Every request of SFTP by hand, at every place of an archive site: what may be had, what not."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import paramiko
from deposit_site import Site

from lpxfer.transports import packets, wire

PATIENCE = 20.0  # seconds
FILE, HANDLE = b"/incoming/known.data", b"no such handle"
READ, WRITE, APPEND, CREATE, EMPTY, EXCLUSIVE = 1, 2, 4, 8, 16, 32
KINDS = {name: number for number, name in enumerate(
    "init version open close read write lstat fstat setstat fsetstat opendir readdir remove "
    "mkdir rmdir realpath stat rename readlink symlink".split(), 1)}  # fmt: skip
VENDOR = {"statvfs": "@openssh.com", "fstatvfs": "@openssh.com", "posix-rename": "@openssh.com",
          "hardlink": "@openssh.com", "fsync": "@openssh.com", "lsetstat": "@openssh.com",
          "limits": "@openssh.com", "expand-path": "@openssh.com", "copy-data": "",
          "home-directory": "", "users-groups-by-id": "@openssh.com"}  # fmt: skip

PLACES = {
    "sealed": b"/incoming/known.data",
    "own part": b"/incoming/.own.data.part",
    "foreign": b"/incoming/foreign.data",
    "directory": b"/incoming/directory",
    "free": b"/incoming/free.data",
    "receipt": b"/receipts/telescope1/x.log",
    "free receipt": b"/receipts/telescope1/y.log",
    "beside": b"/free",
    "escape": b"/incoming/../../../../etc/passwd",
    "incoming": b"/incoming",
    "root": b"/",
}


class Raw(wire.Session):
    """SFTP by hand: any request, and the plain answer to it."""

    def ask(self, kind: int, *fields: bytes) -> tuple[int, packets.Fields]:
        """Return what the server answers: its kind, and its fields after the request's number."""
        number, answered = self._request(kind, *fields), -1
        while answered != number:  # what an earlier close was answered is no news
            answer, fields_ = self._packet()
            answered = fields_.number()
        return answer, fields_

    def end(self) -> None:
        """Close its channel: the account may have few of them."""
        self._stream.end()  # type: ignore[attr-defined]

    def refused(self, kind: int, *fields: bytes) -> bool:
        """Tell whether the server says no; a handle that it gives is closed again."""
        answer, fields_ = self.ask(kind, *fields)
        if answer == packets.HANDLE:
            self.ask(KINDS["close"], string(fields_.string()))
        return answer == packets.STATUS and fields_.number() != packets.OK


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def u32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


MODE_666 = u32(packets.MODE, 0o666)
SIZE_0 = u32(packets.SIZE) + bytes(8)
OWNER_0 = u32(packets.OWNER, 0, 0)
TIMES_0 = u32(packets.TIMES, 0, 0)


@dataclass(frozen=True)
class Request:
    """One try: what is asked, whether it must be refused, and what it may change."""

    name: str  # of the request, as sftp-server -Q has it
    words: str
    kind: int
    fields: tuple[bytes, ...]
    refused: bool = True
    short: bool = True
    may_change: bool = False


def extended(name: str, *fields: bytes, refused: bool = True, words: str = "") -> Request:
    parts = (string((name + VENDOR[name]).encode()), *fields)
    return Request(name, words or name, packets.EXTENDED, parts, refused)


def plain(name: str, words: str, *fields: bytes, **more: bool) -> Request:
    return Request(name, f"{name} {words}", KINDS[name], fields, **more)


def requests() -> Iterator[Request]:
    """Every request, at every place, in every way."""
    for (place, path), flags in itertools.product(PLACES.items(), range(64)):
        words = f"{place}, flags {flags}"
        fields = (string(path), u32(flags, 0))
        writes, makes = bool(flags & WRITE), flags & CREATE and flags & EXCLUSIVE
        allowed = (
            (place == "own part" and writes and not flags & READ and not makes)
            or (place == "free" and bool(flags & CREATE))
            or (place == "receipt" and not writes and not flags & EMPTY and not makes)
            # a directory opens for reading as any file does, and gives nothing away
            or (place == "root" and not writes and not flags & (EMPTY | CREATE))
        )
        yield plain("open", words, *fields, refused=not allowed, short=flags in (1, 2, 10, 26, 42),
                    may_change=allowed)  # fmt: skip
    wide = (string(PLACES["free"]), u32(WRITE | CREATE | EXCLUSIVE, packets.MODE, 0o6777))
    yield plain("open", "with mode 6777", *wide, refused=False, may_change=True)
    for place, path in PLACES.items():
        for name in ("setstat", "lsetstat"):
            for attributes in (MODE_666, SIZE_0, OWNER_0, TIMES_0):
                fields = (string(path), attributes)
                yield extended(name, *fields) if name in VENDOR else plain(name, place, *fields)
        yield plain("mkdir", place, string(path), u32(0))
        for name in ("remove", "rmdir", "readlink"):
            yield plain(name, place, string(path))
        seen = place in ("receipt", "root")
        yield plain("opendir", place, string(path), refused=place != "root")
        yield plain("symlink", place, string(b"/etc/passwd"), string(path))
        for name in ("lstat", "stat"):
            here = place not in ("free", "free receipt", "beside", "escape")
            yield plain(name, place, string(path), refused=not (seen or here))
        yield plain("realpath", place, string(path), refused=place == "escape")
        for to, new in PLACES.items():
            both, few = (string(path), string(new)), to in ("free", "foreign")
            for name in ("posix-rename", "hardlink"):
                yield replace(extended(name, *both, words=f"{name} {place} to {to}"), short=few)
            # known limit: what is in incoming can be renamed there by who knows its name
            limit = to == "free" and place in ("sealed", "own part", "foreign", "directory")
            yield plain("rename", f"{place} to {to}", *both, refused=not limit, may_change=limit,
                        short=few)  # fmt: skip
    for name, more in {
        "close": b"", "fstat": b"", "readdir": b"", "read": bytes(8) + u32(9),
        "write": bytes(8) + string(b"x"), "fsetstat": MODE_666,
    }.items():  # fmt: skip
        yield plain(name, "of no handle", string(HANDLE), more)
    yield extended("fsync", string(HANDLE))
    yield extended("fstatvfs", string(HANDLE))
    yield extended("statvfs", string(b"/incoming"), refused=False)
    yield extended("limits", refused=False)
    yield extended("expand-path", string(b"~root"))
    yield extended("home-directory", string(b"root"), refused=False)
    yield extended("users-groups-by-id", string(u32(0)), string(u32(0)), refused=False)
    two = (string(HANDLE), bytes(16), string(HANDLE), bytes(8))
    yield extended("copy-data", *two)
    yield Request(
        "unknown", "an unknown extension", packets.EXTENDED, (string(b"x@y"), string(FILE))
    )


class _Stream:
    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self.recv, self.recv_ready, self.end = channel.recv, channel.recv_ready, channel.close

    def send(self, size: int, fill: wire.Fill) -> None:
        data = bytearray(size)
        fill([memoryview(data)])
        self._channel.sendall(bytes(data))


def raw_session(site: Site) -> Raw:
    """Open a channel of its own."""
    channel = site.ssh.open_session(timeout=PATIENCE)
    channel.settimeout(PATIENCE)
    channel.invoke_subsystem("sftp")
    return Raw(_Stream(channel))

"""What the fuzzer feeds: each reader of what others wrote, and what must hold of any input.

A target raises nothing, or the input has broken a promise. Its seeds are valid texts.
"""

import contextlib
import hashlib
import os
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from lpxfer import codec
from lpxfer.errors import ConfigError, FormatError
from lpxfer.formats import (
    bundle,
    config,
    control,
    fits,
    fits_headers,
    keyvalue,
    pace_trace,
    record,
    stages,
    xferlog,
)
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.control import Control, Encoding, Transfer
from lpxfer.formats.record import Record
from lpxfer.formats.stages import Way
from lpxfer.formats.validity import Invalid
from lpxfer.steps import confirm
from lpxfer.stores import transfer_log

NOW = datetime(2003, 4, 2, 5, 12, 33, 120_000, tzinfo=UTC)
SHA = "sha256:" + hashlib.sha256(b"x").hexdigest()
UID = "20030402T051233Z-mmto-archive-1042-0a1b2c3d"

KNOWN = Control(
    job="archive-1042", uid=UID, host="mmto", user="mcam", queue="archive", submitted=NOW,
    name="0123.fits", path="/h/ARCHMINICAM/2002.0523/0123.fits",
    size=1, mtime_ns=1_049_260_353_123_456_789,
    checksum=SHA, inst="minicam", priority=70, maxftp="60", dir="a/b",
    others={"Observer": "B. Wyatt", "x": "1,2\n\udcff"},
    transfer=Transfer(NOW, NOW.replace(minute=13), 27.125, 3, Encoding(codec.NAME, 21)),
)  # fmt: skip

PACKED = Bundle("20030402T051233Z-mmto-archive-1042-ffffffff", "mmto", "minicam", 2, 1400, 1402,
                SHA, Transfer(NOW, NOW.replace(minute=13), 27.125, 1))  # fmt: skip

Target = Callable[[bytes], None]


def controls(data: bytes) -> None:
    """Read a control file; half of the inputs are given the end line that fits."""
    text = data[1:]
    if data[:1] < b"\x80":
        text += f"end=sha256:{hashlib.sha256(text).hexdigest()}\n".encode()
    with contextlib.suppress(FormatError):
        written = control.dump(control.load(text))
        assert control.dump(control.load(written)) == written


def bundles(data: bytes) -> None:
    """Read the control file of a bundle, or its index; then its checksum fits."""
    if data[:1] < b"\x80":
        text = data[1:] + f"end=sha256:{hashlib.sha256(data[1:]).hexdigest()}\n".encode()
        with contextlib.suppress(FormatError):
            pairs = keyvalue.load(text)
            if bundle.is_bundle(pairs):
                known = bundle.parse(pairs)
                written = bundle.dump(known)
                assert bundle.dump(bundle.parse(keyvalue.load(written))) == written
                assert bundle.fits(known.members, known.index, known.size - known.index)
        return
    index, sizes = data[1:], [int(n) for n in re.findall(rb" data=(\d{1,8}) ", data)]
    known = replace(PACKED, members=len(sizes), index=len(index), size=len(index) + sum(sizes))
    for uid in bundle.uids(index):
        assert re.fullmatch(r"[A-Za-z0-9._-]+", uid)
    with contextlib.suppress(FormatError):
        found = bundle.members(known, index)
        ends = [known.index, *(member.offset + member.size for member in found)]
        assert [member.offset for member in found] == ends[:-1] and ends[-1] == known.size
        assert {member.control.host for member in found} == {known.host}


def records(data: bytes) -> None:
    """Read a line of a transfer log, as a sweep does and as a report does."""
    with contextlib.suppress(FormatError):
        record.load_unless_torn(data)
    with contextlib.suppress(FormatError):
        transfer_log.load(data)
    with contextlib.suppress(FormatError):
        line = record.dump(record.load(data))
        assert record.dump(record.load(line)) == line
        assert line.count(b"\n") == 1
        stages.load(record.load(line).fields.get(stages.FIELD, ""))


def receipts(data: bytes) -> None:
    """Read a receipt; nothing finishes a job but its own uid with its own checksum."""
    with contextlib.suppress(FormatError):
        receipt = record.load(data)
        what = confirm.verdict(receipt, KNOWN, 3)
        fields = receipt.fields
        if what is confirm.Verdict.COMPLETED:
            assert (fields["uid"], fields["checksum"]) == (UID, SHA)
            assert record.is_held(receipt)
        if fields.get("uid") != UID:
            assert what is confirm.Verdict.NOTHING


def configurations(data: bytes) -> None:
    """Read a configuration file."""
    with contextlib.suppress(ConfigError):
        read = config.parse(data.decode("utf-8", "replace"), "lpxfer.conf")
        config.override(read, {"XFER_HOST": data[:20].decode("latin-1")})
        for instrument in read.instruments.values():
            assert instrument.tz


def traces(data: bytes) -> None:
    """Replay a trace of a link."""
    with contextlib.suppress(FormatError):
        for step in pace_trace.replay(data.splitlines(keepends=True)):
            assert step.decision.until >= step.seen.time
            assert step.decision.period >= 0


def xferlogs(data: bytes) -> None:
    """Read a line of an FTP server's log."""
    with contextlib.suppress(FormatError):
        line = xferlog.load(data)
        assert line.seconds >= 1 and line.size >= 0
        assert line.uid is None or line.uid in line.path


def encoded(data: bytes) -> None:
    """Decode a file of up to 2 MiB: it has the size it was asked for, or is refused."""
    said = struct.unpack_from(">Q", data.ljust(20, b"\0"), 12)[0]
    size = min(said, 1 << 21)
    wire = os.memfd_create("wire")
    try:
        os.write(wire, data)
        with contextlib.suppress(FormatError):
            assert sum(map(len, codec.decode(wire, len(data), size))) == size == said
    finally:
        os.close(wire)


def headers(data: bytes) -> None:
    """Find the first data of a FITS file, and see whether it is whole."""
    with contextlib.suppress(Invalid):
        whole = list(fits_headers.headers(lambda size, at: data[at : at + size], len(data)))
        assert whole and whole[-1].data_end <= len(data)
        assert all(value != "" for header in whole for value in [header.value("OBJECT")])
    layout = fits.layout(data)
    assert layout.element in codec.ELEMENTS
    assert layout.data % fits.BLOCK == 0
    fits_headers.unfinished(lambda size, at: data[at : at + size], len(data))


def _encoded(data: bytes, *params: codec.Params) -> list[bytes]:
    source = os.memfd_create("source")
    try:
        os.write(source, data)
        return [b"".join(codec.pieces(source, len(data), each)) for each in params]
    finally:
        os.close(source)


def _body() -> bytes:
    text = control.dump(KNOWN)
    return text[: text.rindex(b"end=")]


def _index() -> bytes:
    texts = (control.dump(replace(KNOWN, transfer=None, uid=UID[:-1] + n)) for n in "ab")
    return b"".join(bundle.entry(text, 1, 3) for text in texts)


def _bundle() -> bytes:
    text = bundle.dump(PACKED)
    return text[: text.rindex(b"end=")]


_RECORDS = [
    record.dump(record.of_arrival(NOW, kind, KNOWN, "2003.0401/0123.fits", **more))
    for kind, more in (
        ("stored", {"OBJECT": "NGC 224", "stages": Way(1049260353.0, NOW).of(KNOWN, 2.0, 1.0)}),
        ("renamed", {"instead_of": "a/b/0123.fits"}),
        ("mismatch", {"reason": "other bytes"}),
        ("quarantined", {"reason": "bad dir"}),
        ("quarantined", {"reason": "EMPTY_FILE: it has no bytes", "invalid": "EMPTY_FILE"}),
    )
]
_RECORDS.append(record.dump(Record(NOW, "quarantined", {"name": ".x", "placed": "quarantine/x"})))

_CONFIGURATION = b"""# a comment
[lpxfer]
spool = /var/spool/lpxfer
queue = archive
host = mmto
reserve = 64M
stale = 7d
[queue archive]
transport = sftp
remhost = archive.example.edu:22
rempath = /incoming
rempw = file:/etc/lpxfer/pw
maxftp = 600
stall = 60s
connections = 4
rate = 08:00-18:00 5M, 22:00-06:00 none, 20M
seal = 0440
link = yes
confirm = receipt
[instrument minicam]
dir = /data/minicam
alias = mini
zone = America/Phoenix
noon = yes
mode = 0444
validate = *.fits
scheme = mini.{FRAMENO:4}.fits
reject = */test/*
keywords = OBJECT DATE-OBS
tell = https://example.edu:8443/frames?x=1
tell_secret = file:/etc/lpxfer/secret
"""

_FRAMES = _encoded(
    bytes(range(90, 120)) * 40 + bytes(400),
    codec.Params("zstd", "shuffle", 2),
    codec.Params("lz4", "bitshuffle", 4),
    codec.Params("lz4", "none", 1),
) + _encoded(bytes(1 << 20) + bytes(range(64)), codec.Params("zstd", "none", 1))

_TRACE = b"""2026-11-20T04:00:00.000Z pace waiting=5000000 rate=0 delay=0.150
2026-11-20T04:00:01.200Z pace waiting=1 rate=5.00 delay=0.2 oldest=0.8 active=2 priority=60
2026-11-20T04:00:02.000Z pace waiting=1 rate=5.00 delay=0.2 failures=1
"""

_XFERLOG = (
    b"Fri Nov  6 16:49:55 2026 13 198.51.100.7 5497920 "
    b"/incoming/." + UID.encode() + b".data.part b _ i r u ftp 0 * c\n"
)

TARGETS: dict[str, tuple[Target, list[bytes]]] = {
    "control files": (controls, [b"\0" + _body(), b"\xff" + control.dump(KNOWN)]),
    "bundles": (bundles, [b"\0" + _bundle(), b"\xff" + _index()]),
    "records": (records, _RECORDS),
    "receipts": (receipts, _RECORDS),
    "configurations": (configurations, [_CONFIGURATION, b"[instrument x]\nzone = EST5EDT\n"]),
    "encoded files": (encoded, _FRAMES),
    "FITS headers": (headers, [fits.frame(1, NOW, "demo", width=1)[: fits.BLOCK]]),
    "traces": (traces, [_TRACE]),
    "xferlogs": (xferlogs, [_XFERLOG, _XFERLOG.replace(b"13 ", b"0 ").replace(b" c\n", b" i\n")]),
}

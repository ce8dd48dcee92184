"""Hostile arrivals: control files, names and values that somebody might deposit.

Each case plants one thing in an archive site and knows its fate, whatever sweeps come by:

    stored, renamed     placed after all: the bytes of a name are the user's own business
    stranger            taken by xfer-sweep -A
    quarantined, mismatch   set aside by xfer-sweep -i, and the sending host is told
    aside               set aside by xfer-sweep -A, when it is old enough
    left                stays in incoming, and every sweep says so
    ignored             no arrival, nobody's business
    blocked             nothing can be placed while it is there, and every sweep says so
"""

import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arrivals import Site, arrive

from lpxfer.formats import control, keyvalue
from lpxfer.formats.control import Control

#: Fates of what gets a record and a receipt; those of what the archive holds come first.
PLACED = ("stored", "renamed", "stranger")
RECEIPTED = (*PLACED, "quarantined", "mismatch")

ESC, BIDI = "\x1b]0;owned\x07\x1b[2J", "\u202egnp.exe\u2066"


@dataclass(frozen=True)
class Case:
    """One hostile thing. `plant` gets a site and a number that is this case's own."""

    name: str
    fate: str
    plant: Callable[[Site, int], object]
    alone: bool = False  # it would disturb the others of a batch
    zone: str = "UTC"
    dated: bool = True
    root: bool = False  # only root can plant it


def data_of(number: int) -> bytes:
    """Return bytes that no other case has."""
    return f"data of case {number}\n".encode()


def good(site: Site, number: int, **fields: Any) -> Control:
    """Plant an arrival with nothing wrong about it."""
    return arrive(site.incoming, data_of(number), number, **{"name": f"{number}.fits"} | fields)


def pairs(site: Site, number: int, **changes: str | None) -> dict[str, str]:
    """Plant a good arrival and return what its control file says, with changes; None removes."""
    known = good(site, number)
    said = keyvalue.load(control.dump(known)) | changes
    return {keyword: value for keyword, value in said.items() if value is not None}


def path_of(site: Site, number: int) -> Path:
    """Return where the control file of a planted arrival is."""
    [found] = site.incoming.glob(f"*-archive-{number}-*.control")
    return found


def seal(body: bytes) -> bytes:
    """Give any bytes the end line that fits."""
    return body + f"end=sha256:{hashlib.sha256(body).hexdigest()}\n".encode()


def body_of(said: dict[str, str]) -> bytes:
    """Write lines without encoding anything: what stands in them may be hostile."""
    lines = (f"{keyword}={value}\n" for keyword, value in said.items())
    return "".join(lines).encode("utf-8", "surrogateescape")


def field(keyword: str, value: str | None, raw: bool = False) -> Callable[[Site, int], object]:
    """Plant an arrival whose control file says this; `raw` leaves the value as it stands."""

    def plant(site: Site, number: int) -> None:
        said = pairs(site, number, **{keyword: value})
        text = seal(body_of(said)) if raw else keyvalue.dump(said.items())
        path_of(site, number).write_bytes(text)

    return plant


def text(make: Callable[[bytes], bytes]) -> Callable[[Site, int], object]:
    """Plant an arrival whose control file is made of a good one's bytes."""

    def plant(site: Site, number: int) -> None:
        good(site, number)
        path = path_of(site, number)
        path.write_bytes(make(path.read_bytes()))

    return plant


def cases() -> list[Case]:
    """Return every case, in an order that does not change."""
    from torture import corpus_bundles, corpus_trees

    found = [*_texts(), *_controls(), *_numbers(), *_dates(), *_identities(), *_names(), *_dirs(),
             *_paths(), *_others(), *corpus_trees.cases(), *corpus_bundles.cases()]  # fmt: skip
    assert len({case.name for case in found}) == len(found) >= 300
    return found


def _texts() -> Iterator[Case]:
    """Yield control files that are none."""

    def body(whole: bytes) -> bytes:
        return whole[: whole.rindex(b"end=")]

    many = b"".join(b"key%d=%d\n" % (i, i) for i in range(10**6))
    bomb = zlib.compress(bytes(1 << 24))
    made: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda _: b"",
        "one newline": lambda _: b"\n",
        "64 KiB and a byte of blanks": lambda _: b" " * 65537,
        "64 KiB and a byte, sealed": lambda g: seal(body(g).ljust(65537 - 77, b"x") + b"\n"),
        "a million keys": lambda g: seal(body(g) + many),
        "a million newlines": lambda g: seal(body(g) + b"\n" * 10**6),
        "one line of 60 KiB": lambda _: b"x" * 60000,
        "60 KiB of percent": lambda g: seal(body(g) + b"o=" + b"%" * 60000 + b"\n"),
        "30,000 equals signs": lambda g: seal(body(g) + b"=" * 30000 + b"\n"),
        "13,000 lines inst=": lambda _: b"inst=\n" * 13000,
        "without end": body,
        "cut in the middle": lambda g: g[: len(g) // 2],
        "without its last newline": lambda g: g[:-1],
        "something behind the end": lambda g: g + b"x=1\n",
        "a NUL behind the end": lambda g: g + b"\0",
        "end twice": lambda g: seal(g),
        "end in the middle": lambda g: body(g)[:40] + g[len(body(g)) :] + body(g)[40:],
        "end of other bytes": lambda g: body(g) + seal(b"")[len(b"") :],
        "end in capitals": lambda g: body(g) + g[len(body(g)) :].upper(),
        "end of MD5": lambda g: body(g) + b"end=md5:" + b"0" * 32 + b"\n",
        "forged end": lambda g: body(g) + b"end=sha256:" + b"0" * 64 + b"\n",
        "one byte changed": lambda g: g.replace(b"minicam", b"minicaM"),
        "only an end line": lambda _: seal(b""),
        "CRLF": lambda g: seal(body(g).replace(b"\n", b"\r\n")),
        "CR": lambda g: seal(body(g).replace(b"\n", b"\r")),
        "BOM": lambda g: seal(b"\xef\xbb\xbf" + body(g)),
        "UTF-16": lambda g: body(g).decode().encode("utf-16"),
        "UTF-32": lambda g: body(g).decode().encode("utf-32-be"),
        "a line without =": lambda g: seal(body(g) + b"remark\n"),
        "an empty keyword": lambda g: seal(body(g) + b"=x\n"),
        "a blank in a keyword": lambda g: seal(body(g) + b"a b=x\n"),
        "a keyword in Greek": lambda g: seal(body(g) + "λ=x\n".encode()),
        "a keyword that begins with 1": lambda g: seal(body(g) + b"1a=x\n"),
        "an empty line": lambda g: seal(body(g) + b"\n"),
        "gzip": lambda g: gzip.compress(g, mtime=0),
        "a zlib bomb": lambda _: bomb,
        "xz": lzma.compress,
        "JSON": lambda _: b'{"format": 1}',
        "INI": lambda _: b"[control]\nformat = 1\n",
        "XML with entities": lambda _: b'<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>',
        "a shell script": lambda _: b"#!/bin/sh\nrm -rf /\n",
        "a pickle": lambda _: b"cos\nsystem\n(S'true'\ntR.",
        "ELF": lambda _: b"\x7fELF\x02\x01\x01" + bytes(57),
        "a FITS header": lambda _: b"SIMPLE  =                    T".ljust(2880),
    }
    for what, make in made.items():
        yield Case(f"control file: {what}", "aside", text(make))
    for bad in (
        b"\x80",
        b"\xff",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xe2\x28",
    ):
        made_of = text(lambda g, bad=bad: seal(body(g) + b"o=" + bad + b"\n"))  # type: ignore[misc]
        yield Case(f"control file: bytes {bad.hex()}", "aside", made_of)


def _controls() -> Iterator[Case]:
    """Yield control characters that should be encoded, and percent signs that should not be."""
    for code in [*range(0x20), *range(0x7F, 0xA0)]:
        if code != 0x0A:
            yield Case(
                f"raw U+{code:04X} in a value", "aside", field("path", f"/x/{chr(code)}y", True)
            )
    for value in (
        "%",
        "%4",
        "%zz",
        "%%41",
        "%u0041",
        "%-1",
        "% 41",
        "%4\u0661",
        "/x/%\uff14\uff11",
    ):
        yield Case(f"percent trick {value!a}", "aside", field("path", value, True))
    for keyword in ("uid", "name", "size", "inst", "checksum", "dir"):

        def twice(whole: bytes, keyword: str = keyword) -> bytes:
            start = whole.rindex(b"end=")
            return seal(whole[:start] + f"{keyword}=x\n{keyword}=x\n".encode())

        yield Case(f"{keyword} repeated", "aside", text(twice))


def _numbers() -> Iterator[Case]:
    """Yield numbers that are none, or not this file's."""
    odd = ("-1", "+9", "1e3", "0x10", "1.0", " 9", "9 ", "", "NaN", "inf", "1_0", "9" * 19,
           "9" * 5000,
           "\u0669", "\uff11", "\u00b2", "0b1", "9\u0661", "--1", "9,0")  # fmt: skip
    for value in odd:
        yield Case(f"size={value[:20]!a} of {len(value)}", "aside", field("size", value))
    for value in ("0", "1", "999999999999999999"):
        yield Case(f"size={value}", "mismatch", field("size", value))
    for value in ("-1", "1.5", "1e3", "", "9" * 400, "\u0661", "nan"):
        yield Case(f"attempts={value[:9]!a}", "aside", field("attempts", value))
    for value in ("-1", "nan", "inf", "1e9", "9" * 16, "1.", ".5", "", "\u0661.0", "1,0"):
        yield Case(f"xfer_seconds={value!a}", "aside", field("xfer_seconds", value))
    yield Case("xfer_seconds=0", "stored", field("xfer_seconds", "0"))
    yield Case("xfer_seconds of ages", "stored", field("xfer_seconds", "9" * 15 + ".999999999"))
    for value in ("0", "101", "-1", "1 ", "", "\u0665", "1e1", "050"):
        yield Case(f"priority={value!a}", "aside", field("priority", value))
    for value in ("-1", "inf", "1e9", "", "9" * 10, "\u0665", "600s"):
        yield Case(f"maxftp={value!a}", "aside", field("maxftp", value))
    for value in ("sha256:", "sha256:" + "0" * 63, "sha256:" + "G" * 64, "md5:" + "0" * 32, "",
                  "SHA256:" + "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 65):  # fmt: skip
        yield Case(f"checksum={value[:12]!a} of {len(value)}", "aside", field("checksum", value))
    yield Case("checksum of nothing", "mismatch",
               field("checksum", "sha256:" + hashlib.sha256(b"").hexdigest()))  # fmt: skip


def _dates() -> Iterator[Case]:
    """Yield times that no calendar has, and those at its ends."""
    bad = ("", "now", "2003-04-02", "2003-04-02T05:12:33", "2003-04-02 05:12:33Z",
           "0000-01-01T00:00:00Z",
           "2003-02-30T00:00:00Z", "2003-04-02T24:00:00Z", "2003-04-02T05:12:60Z",
           "10000-01-01T00:00:00Z",
           "-001-01-01T00:00:00Z", "2003-04-02T05:12:33+00:00", "2003-04-02T05:12:33,5Z",
           "2003-04-02T05:12:33.0000000000Z", "2003-04-02T05:12:33z",
           "\uff12\uff10\uff10\uff13-04-02T05:12:33Z")  # fmt: skip
    for keyword in ("submitted", "mtime", "xfer_start"):
        for value in bad:
            yield Case(f"{keyword}={value!a}", "aside", field(keyword, value))
    first, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"
    for keyword in ("mtime", "xfer_start", "xfer_end"):
        for value in (first, last):
            yield Case(f"{keyword}={value}", "stored", field(keyword, value))

    def ends(value: str) -> Callable[[Site, int], object]:
        def plant(site: Site, number: int) -> None:
            said = pairs(site, number, submitted=value, path="/nowhere")
            path_of(site, number).write_bytes(keyvalue.dump(said.items()))

        return plant

    for value in (first, last):
        yield Case(f"submitted={value}", "stored", ends(value))
    for value, zone in ((first, "America/Phoenix"), (last, "Asia/Tokyo"), (first, "EST5EDT")):
        yield Case(f"submitted={value} in {zone}", "quarantined", ends(value), True, zone)


def _identities() -> Iterator[Case]:
    """Yield arrivals that say that they are somebody else's."""
    for keyword in ("job uid host user queue submitted name path size mtime checksum inst").split():
        yield Case(f"without {keyword}", "aside", field(keyword, None))
    for value in ("2", "0", "01", "", "1 ", "-1", "bundle", "\u0661"):
        yield Case(f"format={value!a}", "left", field("format", value))
    yield Case("without format", "aside", field("format", None))
    yield Case("kind=bundle", "stored", field("kind", "bundle"))
    yield Case("kind=bundle of format 2", "left", text(_bundle))
    hosts = ("", ".", "..", "a/../b", "accepts", "x" * 64, "mmt", "mmto-archive", "MMTO", "other",
             "mmto\n", "-", "m\u00f6", "\x1b[2J", "/etc")  # fmt: skip
    for value in hosts:
        yield Case(f"host={value!a}", "aside", field("host", value))
    other = "20030402T051220Z-mmto-archive-7-00000007"
    uids = ("", "..", "../../etc/passwd", other, other.upper(), f"{other}/..", f"../{other}",
            f"{other}\n", f"{other}.data", "x" * 4096)  # fmt: skip
    for value in uids:
        yield Case(f"uid={value[:60]!a}", "aside", field("uid", value))
    for value in (
        "",
        "archive",
        "archive-0",
        "archive-01",
        "other-1",
        "archive-" + "9" * 20,
        "../a-1",
    ):
        yield Case(f"job={value!a}", "aside", field("job", value))
    for value in ("", "..", "Archive", "x" * 33, "a/b", "archive\n"):
        yield Case(f"queue={value!a}", "aside", field("queue", value))
    insts = ("", ".", "..", "../x", "a/b", ".hidden", "x" * 65, "minicam ", "minicam\n",
             "minicam\0",
             "mini\x1bcam", "\u217finicam")  # fmt: skip
    for value in insts:
        yield Case(f"inst={value!a}", "aside", field("inst", value))
    for value in (
        "MINICAM",
        "undef",
        "xferlogs",
        "quarantine",
        "receipts",
        "-A",
        "accepts",
        "x" * 64,
    ):
        yield Case(f"inst={value!a}", "stranger", field("inst", value))
    yield Case("inst that is encoded", "stored", field("inst", "m%69nicam", True))
    for keyword in ("remhost", "rempath", "remuser", "rempw"):
        yield Case(f"{keyword} in it", "aside", field(keyword, "x"))


def _bundle(whole: bytes) -> bytes:
    start = whole.rindex(b"end=")
    return seal(whole[:start].replace(b"format=1", b"format=2") + b"kind=bundle\n")


def _names() -> Iterator[Case]:
    """Yield names of files, for a place on a disk, a terminal and a log."""
    refused = ("", ".", "..", "../x", "../../../../tmp/x", "/etc/cron.d/x", "a/b", "a/../../b",
               "x/", "//",
               ".hidden", ".lock", ".sweep.tmp", ".sweep.tmp/x", "a\0b", "\0", "x\0/../y",
               "x" * 256,
               "x" * 4096, "ü" * 128, "x" * 60000, "./x", "../" * 300 + "x", "..\n",
               ".\u202e")  # fmt: skip
    for number, value in enumerate(refused):
        yield Case(f"name {number}: {value[:30]!a}", "quarantined", field("name", value))
    for value in ("%2e%2e", "%2E%2E%2Fx", "a%2Fb", "a%00b", "%2elock", "%2F"):
        yield Case(f"name encoded as {value}", "quarantined", field("name", value, True))
    kept = ["-rf", "--help", "-", "~", "~root", "%2e%2e%2f", "a..b", "x..", "con", "nul.fits",
            "xferlogs", "quarantine", "receipts", "*", "?", "$(reboot)", "`reboot`", ";reboot",
            "|x", "&",
            " ", "  x ", "\t", "\\", "x\\..\\x", "'", '"', "\\x2e", "x" * 255, "ü" * 127, "\n",
            "a\nb",
            "x\nFORGED stored uid=1", "\r\n", ESC, "\x9b2J", "\udc9b2J", "\udcff\udcfe", "\x7f",
            BIDI,
            "e\u0301\u0301\u0301", "\u200b", "\ufeff", "\u2028", "\u2029", "\u00ad", "\U000e0041",
            "\udced\udca0",
            "archive-1.control", "x.data", "x.lock", "0123.fits ",
            "\U0001f468\u200d\U0001f680"]  # fmt: skip
    for value in kept:
        yield Case(f"name kept: {value[:30]!a}", "stored", field("name", value))
    for value in ("xferlogs", "quarantine", "receipts"):
        plant = field("name", value)
        yield Case(f"name without dates: {value}", "quarantined", plant, True, "UTC", False)


def _dirs() -> Iterator[Case]:
    """Yield values of dir=."""
    refused = ("", "/", "..", ".", "../x", "/etc", "a/..", "a/../b", "a/../../b", "a//b", "a/",
               "/a", "./a",
               "a/.", "a/.hidden", ".lock", "xferlogs", "xferlogs/x", "quarantine", "quarantine/x",
               "receipts/x",
               "~", "~/x", "a b", "a\\b", "..\\x", "C:\\x", "a;b", "$HOME", "*", "a\nb", "a\0b",
               "ü", ESC, BIDI,
               "%2e%2e", "x" * 65, "a/" * 600 + "a", "x" * 4096, "\uff12\uff10\uff10\uff13.0401",
               "\u202e",
               "a\u2215b", "a,b", "a:b", "2003.0401\n", "\udcff")  # fmt: skip
    for number, value in enumerate(refused):
        yield Case(f"dir {number}: {value[:30]!a}", "quarantined", field("dir", value))
    for value in ("%2e%2e", "%2e%2e%2Fx", "a%2F..", "%2Fetc", "a%00"):
        yield Case(f"dir encoded as {value}", "quarantined", field("dir", value, True))
    for value in ("a/b/c", "-rf", "--", "a..b", "_", "x" * 64, "a/xferlogs", "a/quarantine",
                  "2003.0401/x",
                  "/".join("a" * 500), "0", "CON"):  # fmt: skip
        yield Case(f"dir made: {value[:30]!a}", "stored", field("dir", value))


def _paths() -> Iterator[Case]:
    """Yield values of path=, of which only a date in the last directory may count."""
    values = ("", "/", "..", "../../x", "/etc/passwd", "/x/2003.0401/f", "/x/2003.0230/f",
              "/x/0000.0101/f",
              "/x/9999.1231/f", "/x/2003.0401\n/f", "/2003.0401/../f", "2003.0401/", "/x/.lock/f",
              "/x/xferlogs/f", "/x/\uff12003.0401/f", ESC, BIDI, "x" * 4096, "/" * 4096,
              "a/" * 20000, "\0",
              "\udcff\udc80", "/x/2003.0401 /f", "\u2028", "x\nFORGED stored uid=1",
              "\x9b")  # fmt: skip
    for number, value in enumerate(values):
        yield Case(f"path {number}: {value[:30]!a}", "stored", field("path", value))


def _others() -> Iterator[Case]:
    """Yield values of what only travels."""
    for keyword in ("user", "Observer"):
        for value in ("", ESC, BIDI, "a\nb", "\0", "\udcff", "root", "x" * 50000):
            yield Case(f"{keyword}={value[:20]!a}", "stored", field(keyword, value))
    for keyword in ("placed", "kind", "time", "reason", "instead_of", "rate"):
        yield Case(f"{keyword}= that a record has", "stored", field(keyword, "../../x y=z"))

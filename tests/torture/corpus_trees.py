"""Hostile trees: what may stand under a name in incoming or in an instrument directory."""

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from arrivals import SUBMITTED, Site
from torture.corpus import BIDI, ESC, Case, data_of, field, good, path_of

from lpxfer import checksum
from lpxfer.formats import control, dates

BIG = 10 << 30  # bytes of a file without any


def outside(site: Site) -> Path:
    """Return the tree beside the site that nobody may touch; `secret` is a file in it."""
    return site.root.parent / "outside"


def _link(to: str) -> Callable[[Path, Site], None]:
    return lambda path, site: path.symlink_to(to.replace("OUTSIDE", str(outside(site))))


def _socket(path: Path, _: Site) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
        server.bind("s")  # a path would be too long for its address
        os.rename("s", path.name)


def _loop(path: Path, _: Site) -> None:
    other = path.with_name(f"{path.name[:100]}.loop")
    path.symlink_to(other.name)
    other.symlink_to(path.name)


def _full_directory(path: Path, _: Site) -> None:
    path.mkdir()
    (path / "precious").write_bytes(str(path.name).encode())
    (path / "way out").symlink_to("/")


def _deep(path: Path, _: Site) -> None:
    path.mkdir()
    (path / "/".join("d" * 300)).mkdir(parents=True)


def _crowd(path: Path, _: Site) -> None:
    path.mkdir()
    for number in range(10_000):
        (path / str(number)).touch()


def _device(major: int, minor: int, kind: int = stat.S_IFCHR) -> Callable[[Path, Site], None]:
    return lambda path, _: os.mknod(path, kind | 0o666, os.makedev(major, minor))


def _sparse(path: Path, _: Site) -> None:
    path.touch()
    os.truncate(path, BIG)


#: What stands there instead of a file, by name.
THINGS: dict[str, Callable[[Path, Site], None]] = {
    "a link to a file outside": _link("OUTSIDE/secret"),
    "a link to a directory outside": _link("OUTSIDE"),
    "a link to nothing": _link("OUTSIDE/nothing"),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "links in a circle": _loop,
    "a link to /dev/zero": _link("/dev/zero"),
    "a link to /proc/self/mem": _link("/proc/self/mem"),
    "a link that acts on a terminal": _link(ESC + BIDI + "\n"),
    "a FIFO": lambda path, _: os.mkfifo(path),
    "a socket": _socket,
    "a directory": lambda path, _: path.mkdir(),
    "a directory with something in it": _full_directory,
}
TREES = {"a deep directory": _deep, "a directory of 10,000": _crowd}
DEVICES = {
    "/dev/null": _device(1, 3),
    "/dev/zero": _device(1, 5),
    "a tape": _device(9, 0),
    "a disk": _device(259, 1 << 19, stat.S_IFBLK),
}
ALL = THINGS | TREES | DEVICES


def cases() -> Iterator[Case]:
    """Yield every case of a tree."""
    for what, make in ALL.items():
        for place in ("data", "control", "data.part", "control.part", "placing", "lone"):
            if what in THINGS or place in ("data", "control", "lone"):
                fate = "quarantined" if place == "data" else "aside"
                if place == "placing":
                    fate = "stored"
                plant = partial(_instead, place, make)
                yield Case(f"{what} as {place}", fate, plant, root=what in DEVICES)
    yield from _incoming()
    yield from _instrument()
    yield from _whole()


def _instead(place: str, make: Callable[[Path, Site], None], site: Site, number: int) -> None:
    """Plant something in the place of a file of an arrival, or of a half one."""
    if place == "lone":
        make(site.incoming / f"lone-{number}.data", site)
        return
    uid = good(site, number).uid
    if place == "placing":
        make(site.incoming / f".{uid}.placing", site)
    elif place in ("data", "control"):
        (site.incoming / f"{uid}.{place}").unlink()
        make(site.incoming / f"{uid}.{place}", site)
    else:
        (site.incoming / f"{uid}.control").unlink()
        if place == "data.part":
            (site.incoming / f"{uid}.data").unlink()
        make(site.incoming / f".{uid}.{place}", site)


def _incoming() -> Iterator[Case]:
    """Yield names and sizes of what stands in incoming."""
    names = ("..x", "-rf", "~", "*", "$(reboot)", "a\nb", ESC, BIDI, "\x9b2J", "\udc9b", "\udcff",
             " ", "%2e%2e",
             "..%2f", "e\u0301\u0301", "x" * 240, "\udcff" * 240, "ü" * 120, "a.control",
             "a.reason", "quarantine",
             "archive-1", "20030402T051220Z-..-archive-1-00000000", "\u2028")  # fmt: skip
    for name in names:
        for suffix in (".control", ".data"):
            hidden = name.startswith(".")
            fate = "ignored" if hidden else "aside"
            yield Case(f"{name[:20]!a}{suffix} in incoming", fate, partial(_named, name + suffix))
        yield Case(
            f"part {name[:20]!a} in incoming", "aside", partial(_named, f".{name}.data.part")
        )
    for name in (
        ".control",
        ".hidden",
        "readme",
        "x.control.bak",
        ".placing",
        ".x.placing",
        "core",
        "lost+found",
    ):
        yield Case(f"{name} in incoming", "ignored", partial(_named, name))
    yield Case("10 GB of nothing as data", "mismatch", partial(_huge, "data", b""))
    yield Case("10 GB of nothing as control", "aside", partial(_huge, "control", b""))
    yield Case("10 GB behind a control file", "aside", partial(_huge, "control", None))
    yield Case("10 GB of nothing as part", "aside", partial(_huge, ".part", b""))
    yield Case("data that is a hard link to a file outside", "mismatch", partial(_hard, False))
    yield Case("data that is a hard link and right", "stored", partial(_hard, True))
    yield Case("control that is a hard link to a file outside", "aside", _hard_control)
    yield Case("10,000 entries beside", "ignored", lambda site, _: _beside(site), alone=True)
    yield Case("the same bytes twice", "duplicate", _twice)
    yield Case("another file of the same name", "renamed", _rival)


def _named(name: str, site: Site, number: int) -> None:
    path = site.incoming / name
    path.write_bytes(data_of(number))


def _huge(place: str, head: bytes | None, site: Site, number: int) -> None:
    uid = good(site, number).uid
    path = site.incoming / f"{uid}.{place}"
    if place == ".part":
        path = site.incoming / f".{uid}.control.part"
        path_of(site, number).unlink()
    if head is not None:
        path.write_bytes(head)
    os.truncate(path, BIG)


def _hard(right: bool, site: Site, number: int) -> None:
    secret = outside(site) / "secret"
    known = good(site, number)
    if right:
        raw = secret.read_bytes()
        known = replace(known, size=len(raw), checksum=checksum.of_bytes(raw))
        path_of(site, number).write_bytes(control.dump(known))
    (site.incoming / f"{known.uid}.data").unlink()
    os.link(secret, site.incoming / f"{known.uid}.data")


def _hard_control(site: Site, number: int) -> None:
    path = path_of_new(site, number)
    path.unlink()
    os.link(outside(site) / "secret", path)


def path_of_new(site: Site, number: int) -> Path:
    """Plant an arrival and return where its control file is."""
    good(site, number)
    return path_of(site, number)


def _beside(site: Site) -> None:
    for number in range(5_000):
        (site.incoming / f"{number}.txt").touch()
        (site.incoming / f"{number}.lnk").symlink_to(f"{number}.lnk")


def _twice(site: Site, number: int) -> None:
    good(site, number + 500_000, name=f"{number}.fits")
    uid = good(site, number, submitted=SUBMITTED).uid
    raw = data_of(number + 500_000)
    known = control.load(path_of(site, number).read_bytes())
    (site.incoming / f"{uid}.data").write_bytes(raw)
    known = replace(known, size=len(raw), checksum=checksum.of_bytes(raw))
    path_of(site, number).write_bytes(control.dump(known))


def _rival(site: Site, number: int) -> None:
    there = site.home / "2003.0401"
    there.mkdir(exist_ok=True)
    (there / f"{number}.fits").write_bytes(b"somebody else's")
    good(site, number)


def _instrument() -> Iterator[Case]:
    """Yield what stands in the way in an instrument directory, of this arrival alone."""
    for what, make in (THINGS | DEVICES).items():
        root = what in DEVICES
        if "directory" not in what or "link" in what:
            plant = partial(_in_the_way, make)
            yield Case(f"{what} as dated directory", "quarantined", plant, root=root)
            yield Case(f"{what} on the way", "quarantined", partial(_on_the_way, make), root=root)
            yield Case(
                f"{what} as .sweep.tmp", "stored", partial(_at, ".sweep.tmp", make), root=root
            )
        plant = partial(_at, "", make)
        yield Case(f"{what} under the final name", "renamed", plant, root=root)
        plant = partial(_receipts, make)
        fate = "stored" if what.startswith("a directory") else "left"
        yield Case(f"{what} as receipts of a host", fate, plant, root=root)
    yield Case("a file as dated directory", "quarantined", partial(_in_the_way, _file))
    yield Case(
        "a directory as .sweep.tmp", "left", partial(_at, ".sweep.tmp", THINGS["a directory"])
    )
    yield Case("both names taken", "quarantined", _both)


def _file(path: Path, _: Site) -> None:
    path.write_bytes(b"a file")


def _day(number: int) -> str:
    return f"{3000 + number}.0101"


def _in_the_way(make: Callable[[Path, Site], None], site: Site, number: int) -> None:
    make(site.home / _day(number), site)
    good(site, number, path=f"/x/{_day(number)}/f")


def _on_the_way(make: Callable[[Path, Site], None], site: Site, number: int) -> None:
    (site.home / f"w{number}").mkdir()
    make(site.home / f"w{number}/x", site)
    good(site, number, dir=f"w{number}/x/y")


def _at(name: str, make: Callable[[Path, Site], None], site: Site, number: int) -> None:
    (site.home / _day(number)).mkdir()
    make(site.home / _day(number) / (name or f"{number}.fits"), site)
    good(site, number, path=f"/x/{_day(number)}/f")


def _receipts(make: Callable[[Path, Site], None], site: Site, number: int) -> None:
    """Plant something where the receipts of this arrival's host belong."""
    host = f"evil{number}"
    (site.root / "receipts").mkdir(exist_ok=True)
    make(site.root / "receipts" / host, site)
    uid = good(site, number).uid
    other = uid.replace("-mmto-", f"-{host}-")
    os.rename(site.incoming / f"{uid}.data", site.incoming / f"{other}.data")
    known = control.load(path_of(site, number).read_bytes())
    path_of(site, number).unlink()
    text = control.dump(replace(known, host=host, uid=other))
    (site.incoming / f"{other}.control").write_bytes(text)


def _both(site: Site, number: int) -> None:
    uid = good(site, number).uid
    (site.home / "2003.0401").mkdir(exist_ok=True)
    for name in (f"{number}.fits", f"{number}.{uid}.fits"):
        (site.home / "2003.0401" / name).write_bytes(b"somebody else's")


def _whole() -> Iterator[Case]:
    """Yield what stands where a sweep keeps its own things: it concerns all arrivals."""
    today = f"{dates.log_date(datetime.now(UTC))}.tdcin.log"
    for what in ("a link to a directory outside", "a link to nothing", "a FIFO",
                 "a link to itself"):  # fmt: skip
        for name, fate in (("quarantine", "left"), ("xferlogs", "blocked"),
                           ("xferlogs/20030402.tdcin.log", "stored")):  # fmt: skip
            yield Case(f"{what} as {name}", fate, partial(_own, name, THINGS[what]), alone=True)
    for what in ("a link to a file outside", "a directory", "a link to a directory outside"):
        yield Case(f"{what} as .lock", "blocked", partial(_own, ".lock", THINGS[what]), alone=True)
        plant = partial(_own, f"xferlogs/{today}", THINGS[what])
        yield Case(f"{what} as the log of today", "stored", plant, alone=True)
    for lead in ("../outside", "/", "2003.0401/../..", "xferlogs", ".", "x" * 5000, "\0"):
        yield Case(f".lock says {lead[:20]!a}", "stored", partial(_lock_says, lead), alone=True)
    for what, raw in (("garbage", os.urandom(1 << 16)), ("one endless line", b"x" * (1 << 20)),
                      ("newlines", b"\n" * (1 << 17)), ("half a gzip",
                      b"\x1f\x8b\x08")):  # fmt: skip
        yield Case(f"a log of {what}", "stored", partial(_log_of, raw), alone=True)


def _own(name: str, make: Callable[[Path, Site], None], site: Site, number: int) -> None:
    """Plant something under a sweep's own name, and an arrival that has to be quarantined."""
    path = site.home / name
    path.parent.mkdir(exist_ok=True)
    make(path, site)
    if name == "quarantine":
        field("size", "0")(site, number)
    else:
        good(site, number)


def _lock_says(lead: str, site: Site, number: int) -> None:
    (site.home / ".lock").write_text(lead + "\n")
    good(site, number)


def _log_of(raw: bytes, site: Site, number: int) -> None:
    (site.home / "xferlogs").mkdir()
    (site.home / "xferlogs/20030402.tdcin.log").write_bytes(raw)
    good(site, number)

"""Hostile bundles: what somebody might put into one, or make of one."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from arrivals import SUBMITTED, Site, arrive_bundle, job
from torture.corpus import Case, data_of, seal

from lpxfer import checksum
from lpxfer.formats import bundle, control, keyvalue, names
from lpxfer.formats.bundle import Bundle
from lpxfer.formats.control import Control

Member = tuple[Control, bytes]
Plant = Callable[[Site, int], object]


def member(number: int, data: bytes | None = None, **fields: Any) -> Member:
    """Return a job with nothing wrong about it, and its bytes."""
    data = data_of(number) if data is None else data
    return job(data, number, **{"name": f"{number}.fits"} | fields), data


def beside(number: int) -> Member:
    """Return a good member beside the one of a case."""
    return member(number + 2_000_000)


def packed(site: Site, number: int, *members: Member, **fields: Any) -> Bundle:
    """Plant a bundle whose uid is the case's own."""
    uid = names.make_uid(SUBMITTED, "mmto", f"archive-{number}", b"\xff\xff\xff\xff")
    return arrive_bundle(site.incoming, *members, **{"uid": uid} | fields)


def cases() -> Iterator[Case]:
    """Yield every case of a bundle."""
    made = [*_members(), *_indices(), *_controls(), *_sizes()]
    yield from (Case(f"bundle: {what}", fate, plant) for what, fate, plant in made)


# --- its members --------------------------------------------------------------------------------


def _with(**fields: Any) -> Plant:
    """Plant a bundle in which one member says this; others are good."""

    def plant(site: Site, number: int) -> None:
        packed(site, number, beside(number), member(number, **fields))

    return plant


def _members() -> Iterator[tuple[str, str, Plant]]:
    """Yield members that are judged for themselves."""
    yield "nothing wrong", "stored", _with()
    yield "alone in it", "stored", lambda site, n: packed(site, n, member(n))
    yield "a member that calls itself a bundle", "stored", _with(others={"kind": "bundle"})
    yield (
        "a member without a byte",
        "stored",
        lambda site, n: packed(site, n, beside(n), member(n, b"")),
    )
    yield (
        "strangers",
        "stranger",
        lambda site, n: packed(site, n, member(n, inst="nobody"), inst="nobody"),
    )
    for dir_ in ("../x", "/etc", "quarantine", "a/../../b", "xferlogs/x"):
        yield f"dir={dir_}", "quarantined", _with(dir=dir_)
    for name in ("", "..", "../x", "/etc/passwd", ".lock", ".sweep.1.tmp", "x" * 256, "a\0b"):
        yield f"name={name[:20]!a}", "quarantined", _with(name=name)
    for name in ("a\nb", "\udcff", "x" * 255, "-rf", "\u202e"):
        yield f"name kept: {name[:20]!a}", "stored", _with(name=name)
    yield "other bytes", "mismatch", _with(checksum="sha256:" + "0" * 64)
    for size in (0, 1, 10**18 - 1):
        yield f"a member of size={size}", "mismatch", _with(size=size)
    yield "its last byte missing", "mismatch", partial(_cut, 1)
    yield "half of a member missing", "mismatch", partial(_cut, 8)
    yield "a hole at its end", "mismatch", partial(_cut, 8, fill=True)
    yield "all with one name", "stored", _one_name
    yield "each in its own directory", "stored", _many_directories
    yield "as many as there may be", "stored", _most


def _cut(short: int, site: Site, number: int, fill: bool = False) -> None:
    known = packed(site, number, beside(number), member(number))
    path = site.incoming / f"{known.uid}.data"
    os.truncate(path, known.size - short)
    if fill:
        os.truncate(path, known.size)


def _one_name(site: Site, number: int) -> None:
    others = (member(number * 1000 + n, name=f"{number}.fits") for n in range(1, 50))
    packed(site, number, member(number), *others)


def _many_directories(site: Site, number: int) -> None:
    others = (member(number * 1000 + n, dir=f"{number}/{n}") for n in range(1, 200))
    packed(site, number, member(number), *others)


def _most(site: Site, number: int) -> None:
    others = (member(number * 1000 + n) for n in range(1, bundle.MEMBERS_MOST))
    packed(site, number, member(number), *others)


# --- its index ----------------------------------------------------------------------------------


def _liar(make: Callable[[int], list[Member]], **fields: Any) -> Plant:
    return lambda site, number: packed(site, number, *make(number), **fields)


def _index(make: Callable[[bytes], bytes], fitting: bool = True) -> Plant:
    """Plant a bundle with another index; its checksum fits, or does not."""

    def plant(site: Site, number: int) -> None:
        known = packed(site, number, beside(number), member(number))
        path = site.incoming / f"{known.uid}.data"
        whole = path.read_bytes()
        index = make(whole[: known.index])
        path.write_bytes(index + whole[known.index :])
        if fitting:
            digest, size = checksum.of_bytes(index), known.size - known.index + len(index)
            changed = replace(known, index=len(index), size=size, checksum=digest)
            (site.incoming / f"{known.uid}.control").write_bytes(bundle.dump(changed))

    return plant


def _indices() -> Iterator[tuple[str, str, Plant]]:
    """Yield what makes it no bundle: it is set aside as a whole."""
    other = {"uid": job(number=7).uid.replace("mmto", "mmt"), "job": "archive-7"}
    lies: dict[str, Plant] = {
        "a member of another host": _liar(lambda n: [member(n, host="mmt", **other)]),
        "a member of another instrument": _liar(lambda n: [member(n, inst="megacam")]),
        "a member twice": _liar(lambda n: [member(n), beside(n), member(n)]),
        "itself as a member": lambda site, n: packed(site, n, member(n), uid=job(number=n).uid),
        "fewer members than announced": _liar(lambda n: [member(n)], members=2),
        "more members than announced": _liar(lambda n: [member(n), beside(n)], members=1),
        "more bytes than announced": _liar(lambda n: [member(n)], size=50_000),
        "a bundle in a bundle": _index(lambda index: _nested() + index),
        "a torn control file": _replaced(b"inst=minicam", b"inst=minicaM"),
        "times of its own": _index(lambda index: _again(index, xfer_start="2003-04-02T05:12:33Z")),
        "rempath": _index(lambda index: _again(index, rempath="/x")),
        "a member of another format": _index(lambda index: _again(index, format="2")),
        "attempts=-1": _replaced(b"attempts=1", b"attempts=-1"),
        "attempts of ages": _replaced(b"attempts=1", b"attempts=" + b"9" * 99),
        "data=1e3": _replaced(b"data=", b"data=1e"),
        "negative data": _replaced(b"data=", b"data=-"),
        "a control file of nothing": _index(lambda index: b"control=0 data=0 attempts=1\n" + index),
        "a control file beyond the index": _replaced(b"control=", b"control=9"),
        "a line too many": _index(lambda index: index + b"\n"),
        "half a line at its end": _index(lambda index: index + b"control=1"),
        "CRLF": _replaced(b"attempts=1\n", b"attempts=1\r\n"),
        "two megabytes of nothing": _index(lambda _: bytes(bundle.INDEX_MOST)),
        "two megabytes of lines": _index(lambda _: b"control=1 data=0 attempts=1\n\n" * 72_000),
        "a tar file": _index(lambda index: b"0001.fits".ljust(512, b"\0") + index),
    }
    yield from ((what, "quarantined", plant) for what, plant in lies.items())
    yield "an index with a byte changed", "mismatch", _index(lambda i: b"C" + i[1:], False)
    yield "an index that is cut", "mismatch", _index(lambda i: i[:99], False)
    yield "no data at all", "mismatch", _empty
    yield "10 GB of nothing for it", "mismatch", partial(_huge, keep=False)


def _replaced(before: bytes, after: bytes) -> Plant:
    return _index(lambda index: index.replace(before, after))


def _nested() -> bytes:
    return bundle.entry(seal(b"format=1\nkind=bundle\n"), 0, 1)


def _again(index: bytes, **pairs: str) -> bytes:
    """Let the control file of the last member say something else."""
    start = index.rindex(b"control=")
    line, _, text = index[start:].partition(b"\n")
    said = keyvalue.dump((keyvalue.load(text) | pairs).items())
    return index[:start] + line.replace(b"%d" % len(text), b"%d" % len(said), 1) + b"\n" + said


def _empty(site: Site, number: int) -> None:
    known = packed(site, number, member(number))
    (site.incoming / f"{known.uid}.data").write_bytes(b"")


# --- its control file ---------------------------------------------------------------------------


def _says(**pairs: str | None) -> Plant:
    """Plant a bundle whose control file says this; None removes."""

    def plant(site: Site, number: int) -> None:
        known = packed(site, number, member(number))
        said = keyvalue.load(bundle.dump(known)) | pairs
        text = keyvalue.dump((k, v) for k, v in said.items() if v is not None)
        (site.incoming / f"{known.uid}.control").write_bytes(text)

    return plant


def _controls() -> Iterator[tuple[str, str, Plant]]:
    """Yield control files that are no bundle's."""
    for keyword in "uid host inst members index size checksum xfer_start attempts kind".split():
        yield f"without {keyword}", "aside", _says(**{keyword: None})
    for members in ("0", "-1", "1001", "1000000", "9" * 19, "1e3", ""):
        yield f"members={members}", "aside", _says(members=members)
    for index in ("0", "-1", "2097153", "9" * 18, "x"):
        yield f"index={index}", "aside", _says(index=index)
    for size in ("0", "-1", "9" * 18, "9" * 19, ""):
        yield f"size={size}", "aside", _says(size=size)
    for host in ("other", "accepts", "../x", "mmt"):
        yield f"host={host}", "aside", _says(host=host)
    for word in ("name", "codec", "user", "rempath", "mtime"):
        yield f"{word} in it", "aside", _says(**{word: "x"})
    yield "job in it", "aside", _says(job="archive-1")
    yield "kind=Bundle", "aside", _says(kind="Bundle")
    yield "of another format", "left", _says(format="2")


# --- beside what it should be ---------------------------------------------------------------------


def _huge(site: Site, number: int, keep: bool = True) -> None:
    """Let terabytes of nothing follow a bundle, or stand in its place."""
    uid = {"uid": job(number=number + 3_000_000).uid} if keep else {}
    known = packed(site, number, member(number), **uid)
    path = site.incoming / f"{known.uid}.data"
    if not keep:
        path.write_bytes(b"")
    os.truncate(path, 10 << 30)


def _longer(site: Site, number: int) -> None:
    known = packed(site, number, member(number), uid=job(number=number + 3_000_000).uid)
    with open(site.incoming / f"{known.uid}.data", "ab") as stream:
        stream.write(bundle.entry(control.dump(member(number + 1)[0]), 1, 1))


def _sizes() -> Iterator[tuple[str, str, Plant]]:
    """Yield bundles that are whole, and more than that."""
    yield "10 GB of nothing behind it", "stored", _huge
    yield "a member that is not in the index", "stored", _longer

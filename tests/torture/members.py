"""Everything that a member of a spool's group, or a job made by hand, was thought to try.

Each attack is a function that the member's own account runs, with a view of the spool; what the
system refuses it (OSError) is a failed attack, and that is fine.
"""
# ruff: noqa: T201 - what an attack prints is looked through

import contextlib
import ctypes
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lpxfer import checksum
from lpxfer.formats import control, keyvalue, names
from lpxfer.formats.control import Control
from lpxfer.stores.layout import WITH_JOBS

FILES = ("control", "data", "routing", "attempts", "request", ".routing.0.new", "other")
MINE = b"the member's own bytes"
TERA = 1 << 40


@dataclass(frozen=True)
class View:
    """What the member knows: the queue, two waiting jobs, and what it is after."""

    queue: Path
    user: str
    mine: str  # request ids, both in pending/ when the attack begins
    theirs: str
    key: Path  # the sender's
    private: Path  # a file of the other member's, mode 0600
    outside: Path  # a directory of the sender's

    @property
    def job(self) -> Path:
        """The member's own job."""
        return self.queue / "pending" / self.mine

    def control(self, job: str, data: bytes = MINE, **lies: object) -> bytes:
        """Return a control file of the member's, with lies."""
        known = Control(
            job=job,
            uid=names.make_uid(datetime.now(UTC), "telescope", job, os.urandom(4)),
            host="telescope",
            user=self.user,
            queue="archive",
            submitted=datetime.now(UTC),
            name=f"{job}.fits",
            path=f"/data/{job}.fits",
            size=len(data),
            mtime_ns=1,
            checksum=checksum.of_bytes(data),
            inst="minicam",
        )
        return control.dump(replace(known, **lies))  # type: ignore[arg-type]

    def by_hand(self, state: str, job: str, data: bytes = MINE, **lies: object) -> Path:
        """Make a job by hand in a state; the sender may read it, as tmp/ has the ACL for it."""
        draft = self.queue / "tmp" / f"by-hand-{time.monotonic_ns()}"
        draft.mkdir()
        (draft / "data").write_bytes(data)
        (draft / "control").write_bytes(self.control(job, data, **lies))
        place = self.queue / state / job
        draft.rename(place)
        return place

    def rewrite(self, text: bytes) -> None:
        """Give the member's own job another control file."""
        (self.job / "control").write_bytes(text)

    def pairs(self, **changed: str) -> bytes:
        """Return the member's own control file with fields changed, whatever they are."""
        pairs = keyvalue.load((self.job / "control").read_bytes())
        return keyvalue.dump((pairs | changed).items())


Act = Callable[[View], object]


@dataclass(frozen=True)
class Attack:
    """One way, and when it is gone: while jobs are `pending`, or when they are `sent`."""

    words: str
    act: Act
    when: str = "pending"
    short: bool = False  # part of the short cut
    fsck: bool = True  # else it would read for hours, as it is asked to


def attacks(many: int) -> Iterator[Attack]:
    """Yield all of them; `many` is the number of entries where it is the number that hurts."""
    for make in (squats, in_files, lies, forged, odd_names, trees, moves, thefts, shared_files):
        yield from make()
    yield from crowds(many)
    yield from holds()
    yield from races()


# --- under the name of another's job ----------------------------------------------------------


def closed(path: Path) -> None:
    path.mkdir()
    (path / "x").touch()
    path.chmod(0o700)


def unix_socket(path: Path) -> None:
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path.name)


#: What is no job, and is made by the member under some name.
THINGS: dict[str, Callable[[View, Path], object]] = {
    "an empty directory": lambda view, path: path.mkdir(),
    "a closed directory": lambda view, path: closed(path),
    "a file": lambda view, path: path.write_bytes(MINE),
    "a link to the key": lambda view, path: path.symlink_to(view.key),
    "a link to a directory": lambda view, path: path.symlink_to(view.outside),
    "a FIFO": lambda view, path: os.mkfifo(path),
    "a socket": lambda view, path: unix_socket(path),
}


def squats() -> Iterator[Attack]:
    for state in WITH_JOBS:
        for words, make in THINGS.items():
            for when in ("pending", "sent"):
                yield Attack(
                    f"{words} as {state}/<the other's id>, {when}",
                    lambda v, s=state, m=make: m(v, v.queue / s / v.theirs),  # type: ignore[misc]
                    when,
                    short=(
                        words == "a closed directory"
                        and when == "pending"
                        and state in ("active", "done")
                    ),
                )
        for when in ("pending", "sent"):
            yield Attack(
                f"a whole job as {state}/<the other's id>, {when}",
                lambda v, s=state: v.by_hand(s, v.theirs),  # type: ignore[misc]
                when,
            )
        for words in ("a closed directory", "a file", "a FIFO"):
            yield Attack(
                f"{words} in {state} under the next 300 ids",
                lambda v, s=state, m=THINGS[words]: [  # type: ignore[misc]
                    m(v, v.queue / s / f"archive-{int(v.theirs[8:]) + n}") for n in range(1, 301)
                ],
            )
    yield Attack(
        "a whole job that says it was completed, as done/<the other's id>",
        lambda v: (v.by_hand("done", v.theirs) / "routing").write_bytes(
            keyvalue.dump([("reason", "stored"), ("outcome", "completed")])
        ),
    )


# --- in the place of a job's files ------------------------------------------------------------


def targets(view: View) -> dict[str, Callable[[Path], object]]:
    other = view.queue / "pending" / view.theirs
    return {
        "a link to the key": lambda path: path.symlink_to(view.key),
        "a link to the other's data": lambda path: path.symlink_to(other / "data"),
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to nothing": lambda path: path.symlink_to("/nonexistent"),
        "a hard link to the key": lambda path: os.link(view.key, path),
        "a hard link to the other's data": lambda path: os.link(other / "data", path),
        "a hard link to the other's file": lambda path: os.link(view.private, path),
        "a hard link to seq": lambda path: os.link(view.queue / "seq", path),
        "a hard link to lock": lambda path: os.link(view.queue / "lock", path),
        "a hard link to wake": lambda path: os.link(view.queue / "wake", path),
        "a FIFO": os.mkfifo,
        "a socket": unix_socket,
        "a device": lambda path: os.mknod(path, 0o20666, os.makedev(1, 5)),
        "a directory": closed,
        "an empty file": lambda path: path.touch(),
        "a file of 1 TB": lambda path: (path.touch(), os.truncate(path, TERA)),
        "a file nobody may read": lambda path: (path.touch(), path.chmod(0)),
    }


def in_files() -> Iterator[Attack]:
    nobody = Path("/")
    for words in targets(View(nobody, "", "", "", nobody, nobody, nobody)):
        for name in FILES:
            yield Attack(
                f"{words} as the job's {name}",
                partial(_replace, words, name),
                short=(name == "attempts" and words == "a link to the key"),
            )


def _replace(words: str, name: str, view: View) -> None:
    path = view.job / name
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    targets(view)[words](path)


# --- a control file that lies -----------------------------------------------------------------


def lies() -> Iterator[Attack]:
    changes: dict[str, dict[str, str]] = {
        "another user": {"user": "root"},
        "another job": {"job": "archive-1"},
        "another queue": {"queue": "other"},
        "a smaller size": {"size": "1"},
        "a larger size": {"size": str(TERA)},
        "a negative size": {"size": "-1"},
        "a size of 40 digits": {"size": "9" * 40},
        "another checksum": {"checksum": f"sha256:{'0' * 64}"},
        "a checksum that is none": {"checksum": "sha256:../../x"},
        "a name with directories": {"name": "../../../outside/canary"},
        "an absolute name": {"name": "/etc/passwd"},
        "a name of 300 bytes": {"name": "x" * 300},
        "a hidden name": {"name": ".ssh"},
        "a name with escapes": {"name": "a\x1b]0;x\x07\nb"},
        "a path with escapes": {"path": "/a\x1b[2J\n2026 stored"},
        "a uid that is a path": {"uid": "../../outside/canary"},
        "a uid with a newline": {"uid": "x\ny"},
        "a dir that leads out": {"dir": "../../outside"},
        "an absolute dir": {"dir": "/etc"},
        "a dir that is reserved": {"dir": "xferlogs"},
        "an instrument that is a path": {"inst": "../outside"},
        "another host": {"host": "accepts"},
        "a host that is a path": {"host": "../../outside"},
        "no limit of time": {"maxftp": "0"},
        "a negative limit": {"maxftp": "-1"},
        "an endless limit": {"maxftp": "inf"},
        "a priority of 101": {"priority": "101"},
        "a negative priority": {"priority": "-5"},
        "routing": {"remhost": "localhost"},
        "a password": {"rempw": "file:/etc/shadow"},
        "transfer keywords": {"xfer_start": "x", "attempts": "-1"},
        "many attempts": {"xfer_start": "2026-11-20T00:00:00Z", "xfer_end": "2026-11-20T00:00:00Z",
                          "xfer_seconds": "-1", "attempts": "9" * 18},
        "a time that is none": {"submitted": "yesterday"},
        "the year 9999": {"submitted": "9999-12-31T23:59:59Z"},
        "the year 1": {"submitted": "0001-01-01T00:00:00Z"},
        "an mtime that is none": {"mtime": "9" * 60},
        "another format": {"format": "2"},
    }  # fmt: skip
    for words, changed in changes.items():
        yield Attack(
            f"a control file with {words}",
            lambda v, c=changed: v.rewrite(v.pairs(**c)),  # type: ignore[misc]
        )
    yield Attack("a control file with the other's job and uid", _others_uid)
    yield Attack("a finished job that says it is another's", _anothers_record)
    yield Attack("a finished job of escapes", _escapes_in_the_log)
    texts = {
        "empty": b"",
        "without an end": b"format=1\njob=archive-1\n",
        "of bytes": os.urandom(4000),
        "of 70,000 bytes": b"x=1\n" * 17_500,
        "of one endless line": b"x=" + b"a" * 60_000,
        "with CRLF": b"format=1\r\n",
    }
    for words, text in texts.items():
        yield Attack(f"a control file {words}", lambda v, t=text: v.rewrite(t))  # type: ignore[misc]


def _others_uid(view: View) -> None:
    uid = names.make_uid(datetime.now(UTC), "telescope", view.theirs, b"\0\0\0\0")
    view.rewrite(view.pairs(job=view.theirs, uid=uid))


def _anothers_record(view: View) -> None:
    done = view.by_hand("done", "archive-999999", user="bobby", name="bobbys.fits")
    words = [("reason", "stored"), ("outcome", "completed")]
    (done / "routing").write_bytes(keyvalue.dump(words))


def _escapes_in_the_log(view: View) -> None:
    done = view.by_hand("done", "archive-999998", name="a\x1b[2Jb", path="/\n/\u202e")
    words = [("reason", "\x1b]0;owned\x07\n2026"), ("outcome", "completed")]
    (done / "routing").write_bytes(keyvalue.dump(words))


# --- forged routing, attempts, requests -------------------------------------------------------


def forged() -> Iterator[Attack]:
    routings: dict[str, dict[str, str]] = {
        "the key as a password": {"rempw": "file:{key}", "remhost": "localhost"},
        "the key as a password, of the queue's host": {"rempw": "file:{key}"},
        "the outside directory": {"rempath": "{outside}"},
        "a directory that is a file": {"rempath": "{key}"},
        "the spool itself": {"rempath": "{queue}/pending"},
        "the log": {"rempath": "{queue}/log"},
        "no such directory": {"rempath": "/nonexistent"},
        "a relative directory": {"rempath": "."},
        "a directory of escapes": {"rempath": "/\x1b[2J\n"},
        "/dev": {"rempath": "/dev"},
        "/proc": {"rempath": "/proc/self/fd"},
        "a host of escapes": {"remhost": "\x1b[2J\n"},
        "a host that is an option": {"remhost": "-oProxyCommand=id"},
        "a bad port": {"remhost": "localhost:99999"},
        "a user that is root": {"remuser": "root"},
        "an endless not_before": {"not_before": "9999-12-31T23:59:59Z"},
        "a not_before of old": {"not_before": "0001-01-01T00:00:00Z"},
        "a not_before that is none": {"not_before": "soon"},
        "negative stalls": {"stalls": "-1"},
        "nearly endless stalls": {"stalls": "999999999"},
        "many mismatches": {"mismatches": "999999999"},
        "every attempt refused": {"refused": "1"},
        "priority 1000": {"priority": "1000"},
        "an outcome": {"outcome": "completed"},
        "an outcome that is none": {"outcome": "x"},
        "a reason of escapes": {"reason": "\x1b]0;x\x07\n2026"},
        "a reason of 60 KB": {"reason": "x" * 60_000},
        "an unknown keyword": {"x": "1"},
    }
    for words, pairs in routings.items():
        yield Attack(
            f"routing with {words}",
            partial(_routing, pairs),
        )
    attempts = {
        "negative bytes": b"acked acked=-5",
        "more bytes than there are": b"acked acked=9999999999999999999",
        "one byte more": b"acked acked=%d" % (len(MINE) + 500),
        "a commit": b"commit acked=0",
        "a negative duration": b"acked seconds=-1",
        "an endless duration": b"acked seconds=inf",
        "bytes": b"\xff\x00\x1b",
    }
    for words, line in attempts.items():
        yield Attack(f"attempts with {words}", partial(_attempts, line))
    yield Attack("attempts with 200,000 starts", partial(_attempts, b"start", 200_000))
    yield Attack(
        "a data file of 16 TB that is said to be there already", _sparse, short=True, fsck=False
    )
    for word in (b"cancel\n", b"hold\n", b"x" * 16, b"x" * 17, b"\x1b[2J", b"cancel\ncancel"):
        yield Attack(
            f"the request {word!r}",
            lambda v, w=word: (v.job / "request").write_bytes(w),  # type: ignore[misc]
        )
    yield Attack(
        "receipts without an end beside a place of one's own", _endless_receipts, "pending"
    )


def _routing(pairs: dict[str, str], view: View) -> None:
    known = {"key": view.key, "outside": view.outside, "queue": view.queue}
    filled = [(k, v.format(**known) if "{" in v else v) for k, v in pairs.items()]
    (view.job / "routing").write_bytes(keyvalue.dump(filled))


def _attempts(line: bytes, view: View, count: int = 1) -> None:
    text = b"2026-11-20T00:00:00.000Z " + line + b"\n"
    (view.job / "attempts").write_bytes(text * count)


def _sparse(view: View) -> None:
    """A job that makes its sender read for hours before the first byte is carried."""
    size = 16 * TERA - 4096
    os.truncate(view.job / "data", size)
    view.rewrite(view.pairs(size=str(size), maxftp="2"))
    _attempts(b"acked acked=%d" % size, view)


def _endless_receipts(view: View) -> None:
    place = view.outside.parent / "members"
    for name in ("incoming", "receipts/telescope", "receipts/accepts"):
        (place / name).mkdir(parents=True)
    for path in (place, *place.rglob("*")):
        path.chmod(0o777)
    log = place / f"receipts/telescope/x-{datetime.now(UTC):%Y%m%d}.log"
    log.touch()
    os.truncate(log, 16 * TERA - 4096)
    log.chmod(0o644)
    os.mkfifo(log.with_name("y" + log.name[1:]))
    log.with_name("z" + log.name[1:]).symlink_to("/dev/zero")
    _routing({"rempath": f"{place}/incoming"}, view)
    view.rewrite(view.pairs(host="telescope"))


# --- names, trees, permissions ----------------------------------------------------------------


def odd_names() -> Iterator[Attack]:
    odd = [
        "\x1b[2J", "a\nb", "-rf", "archive-0", "archive-01", "archive-999999999999999",
        "archive-1000000000000000", "archive-\u0661", "other-1", "ARCHIVE-1", "x" * 255, "\udcff",
        ".hidden", "archive-77.fits", "..x", " ", "control", "lock",
    ]  # fmt: skip
    for state in WITH_JOBS:
        yield Attack(
            f"{len(odd)} odd names in {state}",
            lambda v, s=state: [  # type: ignore[misc]
                make(v, v.queue / s / f"{name}")
                for n, name in enumerate(odd)
                for make in [list(THINGS.values())[n % len(THINGS)]]
            ],
        )


def trees() -> Iterator[Attack]:
    for state in WITH_JOBS:
        for job in ("archive-900001", "not-a-job"):
            yield Attack(
                f"directories 60 deep in {state}/{job}",
                lambda v, s=state, j=job: deep(v, v.queue / s / j),  # type: ignore[misc]
            )
        for mode in (0o000, 0o300, 0o500, 0o1777):
            yield Attack(
                f"a whole job of mode {mode:04o} in {state}",
                lambda v, s=state, m=mode: v.by_hand(s, "archive-900002").chmod(m),  # type: ignore[misc]
            )
        yield Attack(
            f"a directory that cannot be emptied in {state}",
            lambda v, s=state: not_to_be_emptied(v, v.queue / s / "archive-900003"),  # type: ignore[misc]
            short=state == "done",
        )
        for name in ("system.posix_acl_access", "system.posix_acl_default"):
            yield Attack(
                f"a whole job without its ACL ({name}) in {state}",
                lambda v, s=state, n=name: os.removexattr(v.by_hand(s, "archive-900004"), n),  # type: ignore[misc]
            )
    yield Attack("directories 60 deep in a job", lambda v: deep(v, v.job / "other"))
    for name in FILES:
        yield Attack(f"a closed directory as {name}, and mode 000", partial(_mode_000, name))


def deep(view: View, path: Path) -> None:
    """Make a tree that the sender may remove, but for its depth."""
    draft = view.queue / "tmp" / f"deep-{time.monotonic_ns()}"
    draft.mkdir()
    inside = draft
    for _ in range(60):
        inside = inside / "d"
        inside.mkdir()
    draft.rename(path)


def not_to_be_emptied(view: View, path: Path) -> None:
    """Make a job whose directory the sender may open, with one inside that it may not."""
    draft = view.queue / "tmp" / f"full-{time.monotonic_ns()}"
    (draft / "d/e").mkdir(parents=True)
    (draft / "data").write_bytes(MINE)
    (draft / "control").write_bytes(view.control(path.name))
    os.removexattr(draft / "d", "system.posix_acl_access")
    (draft / "d").chmod(0o500)
    draft.rename(path)


def _mode_000(name: str, view: View) -> None:
    with contextlib.suppress(FileNotFoundError):
        (view.job / name).unlink()
    closed(view.job / name)
    (view.job / name).chmod(0)


def moves() -> Iterator[Attack]:
    for when, src in (("pending", "pending"), ("sent", "sent")):
        for dst in WITH_JOBS:
            if dst != src:
                yield Attack(
                    f"one's own job from {src} to {dst} by hand",
                    lambda v, s=src, d=dst: (v.queue / s / v.mine).rename(v.queue / d / v.mine),  # type: ignore[misc]
                    when,
                )
    yield Attack(
        "one's own job under another id", lambda v: v.job.rename(v.job.with_name("archive-900005"))
    )
    yield Attack("one's own job twice", lambda v: v.by_hand("held", v.mine))
    yield Attack(
        "one's own job in every state",
        lambda v: [v.by_hand(s, v.mine) for s in WITH_JOBS if s != "pending"],
    )


# --- straight at what is another's ------------------------------------------------------------


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, bytes(one), -100, bytes(other), 2):
        raise OSError(ctypes.get_errno(), "exchange")


def thefts() -> Iterator[Attack]:
    def job(view: View) -> Path:
        return next(p for s in WITH_JOBS if (p := view.queue / s / view.theirs).exists())

    acts: dict[str, Act] = {
        "list": lambda v: print(os.listdir(job(v))),
        "read": lambda v: print((job(v) / "data").read_bytes()),
        "read its control file": lambda v: print((job(v) / "control").read_bytes()),
        "overwrite": lambda v: (job(v) / "data").write_bytes(MINE),
        "add to": lambda v: (job(v) / "request").write_bytes(b"cancel\n"),
        "remove": lambda v: [(job(v) / name).unlink() for name in ("data", "control")],
        "remove the directory of": lambda v: job(v).rmdir(),
        "rename": lambda v: job(v).rename(job(v).with_name("archive-900006")),
        "move": lambda v: job(v).rename(v.queue / "tmp" / v.theirs),
        "replace": lambda v: (v.queue / "pending" / v.mine).rename(job(v)),
        "exchange": lambda v: exchange(v.queue / "pending" / v.mine, job(v)),
        "open to all": lambda v: job(v).chmod(0o777),
        "give away": lambda v: os.chown(job(v), os.geteuid(), -1),
        "set the ACL of": lambda v: os.setxattr(job(v), "user.x", b"x"),
        "touch": lambda v: os.utime(job(v)),
        "lock": lambda v: fcntl.flock(os.open(job(v), os.O_RDONLY), fcntl.LOCK_EX),
    }
    for words, act in acts.items():
        for when in ("pending", "sent"):
            yield Attack(
                f"{words} the other's job, {when}",
                act,
                when,
                short=(words, when) == ("read", "sent"),
            )
    yield Attack("read the sender's key", lambda v: print(v.key.read_bytes()))
    yield Attack("read the other's file", lambda v: print(v.private.read_bytes()))


def shared_files() -> Iterator[Attack]:
    """The files of the queue that are nobody's own."""
    for words, text in {
        "nothing": b"", "0": b"0\n", "-1": b"-1\n", "1": b"1\n", "text": b"x\n" * 100,
        "15 digits": b"%d\n" % 10**15, "14 digits": b"99999999999999\n",
        "a number without its newline": b"12",
    }.items():  # fmt: skip
        yield Attack(
            f"seq holds {words}",
            lambda v, t=text: (v.queue / "seq").write_bytes(t),  # type: ignore[misc]
            short=words == "14 digits",
        )
    yield Attack("seq has 16 TB", lambda v: os.truncate(v.queue / "seq", 16 * TERA - 4096))
    for name in ("seq", "lock", "owner.lock", "wake", "switches", "log", *WITH_JOBS):
        for words, act in {
            "remove": lambda p: p.unlink(),
            "rename": lambda p: p.rename(p.with_name("mine")),
            "replace": lambda p: (p.with_name("tmp") / "mine").rename(p),
            "close": lambda p: p.chmod(0),
            "write": lambda p: p.write_bytes(b"mine"),
        }.items():
            if (words, name) != ("write", "wake") and (words, name) != ("write", "seq"):
                yield Attack(
                    f"{words} {name}",
                    lambda v, n=name, a=act: a(v.queue / n),  # type: ignore[misc]
                )
    yield Attack("a file beside the states", lambda v: (v.queue / "mine").touch())
    yield Attack("write into the finished log", _write_log)
    yield Attack("an earlier day's log", lambda v: (v.queue / "log/20200101.log").touch())


def _write_log(view: View) -> None:
    for path in (view.queue / "log").iterdir():
        path.write_bytes(b"mine")


# --- numbers ----------------------------------------------------------------------------------


def crowds(many: int) -> Iterator[Attack]:
    def crowd(
        view: View, state: str, name: str, make: Callable[[Path], object], count: int = many
    ) -> None:
        for number in range(count):
            make(view.queue / state / name.format(1_000_000 + number))

    for state in WITH_JOBS:
        for words, make in {"empty directories": Path.mkdir, "files": Path.touch}.items():
            for name in ("archive-{}", "x{}"):
                yield Attack(
                    f"{many} {words} in {state}, named {name}",
                    partial(crowd, state=state, name=name, make=make),
                )
    yield Attack(
        f"{100 * many} files in tmp",
        lambda v: crowd(v, "tmp", "archive-{}", Path.touch, 100 * many),
    )
    yield Attack(
        f"{many} files in one job", lambda v: [(v.job / f"x{n}").touch() for n in range(many)]
    )


# --- locks: held until the try is over --------------------------------------------------------


def holds() -> Iterator[Attack]:
    def hold(view: View, what: Callable[[View], Path], flags: int) -> None:
        path = what(view)
        fcntl.flock(os.open(path, flags | os.O_NONBLOCK), fcntl.LOCK_EX)
        forever()

    for name in (
        "lock",
        "owner.lock",
        "seq",
        "wake",
        ".",
        "tmp",
        "pending",
        "active",
        "done",
        "log",
    ):
        for words, flags in {"reading": os.O_RDONLY, "writing": os.O_RDWR}.items():
            yield Attack(
                f"{name} is locked, opened for {words}",
                partial(hold, what=lambda v, n=name: v.queue / n, flags=flags),  # type: ignore[misc]
                short=name in ("lock", "seq") and words == "reading",
            )
    yield Attack(
        "the finished log is locked",
        partial(hold, what=lambda v: max((v.queue / "log").iterdir()), flags=os.O_RDONLY),
        short=True,
    )
    yield Attack("one's own job is locked", partial(hold, what=lambda v: v.job, flags=os.O_RDONLY))
    yield Attack(
        "one's own job is locked when it is sent",
        partial(hold, what=lambda v: v.queue / "sent" / v.mine, flags=os.O_RDONLY),
        "sent",
    )
    yield Attack("wake is full", _fill)
    yield Attack("wake is read in a loop", _steal)
    yield Attack("a file cannot be made in tmp as fast as it is removed", _refill)
    yield Attack("done is filled as fast as it is emptied", _refill_done)


def forever() -> None:
    """Tell that the attack is under way, and keep what is held until the try is over."""
    print("under way", flush=True)
    time.sleep(600)


def _fill(view: View) -> None:
    fd = os.open(view.queue / "wake", os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(fd, b"!" * 4096):
            pass
    forever()


def _steal(view: View) -> None:
    fd = os.open(view.queue / "wake", os.O_RDWR | os.O_NONBLOCK)
    print("under way", flush=True)
    while True:
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 4096)


def _refill(view: View) -> None:
    path = view.queue / "tmp/archive-900007"
    print("under way", flush=True)
    while True:
        with contextlib.suppress(OSError):
            path.mkdir()
        for number in range(20):
            with contextlib.suppress(OSError):
                (path / f"{number}").touch()


def _refill_done(view: View) -> None:
    path = view.queue / "done/archive-900008"
    print("under way", flush=True)
    while True:
        with contextlib.suppress(OSError):
            view.by_hand("done", path.name)
        for number in range(20):
            with contextlib.suppress(OSError):
                (path / f"{number}").touch()


# --- races: as fast as the member can, while the sender is at work -----------------------------


def races() -> Iterator[Attack]:
    for name in ("data", "control", "routing", "attempts", "request"):
        for words in ("a link to the key", "a FIFO", "a hard link to seq"):
            yield Attack(f"{name} is {words} now and then", partial(_swap, words, name))
    yield Attack("one's own job is now here, now there", _dance)
    yield Attack("closed directories under each id that the other gets", _follow_ids)
    yield Attack("each draft's id is taken in pending before it comes there", _forestall)


def _swap(words: str, name: str, view: View) -> None:
    print("under way", flush=True)
    draft = view.queue / "tmp" / f"swap-{time.monotonic_ns()}"
    draft.mkdir()
    with fd_of(draft) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        (draft / "good").write_bytes(
            (view.job / name).read_bytes() if name in ("data", "control") else b""
        )
        targets(view)[words](draft / "bad")
        while True:
            for state in ("pending", "active", "sent"):
                with contextlib.suppress(OSError):
                    exchange(draft / "bad", view.queue / state / view.mine / name)
                    exchange(draft / "bad", view.queue / state / view.mine / name)


@contextlib.contextmanager
def fd_of(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _dance(view: View) -> None:
    print("under way", flush=True)
    while True:
        for src in WITH_JOBS:
            for dst in ("pending", "active", "sent", "held"):
                with contextlib.suppress(OSError):
                    (view.queue / src / view.mine).rename(view.queue / dst / view.mine)


def _follow_ids(view: View) -> None:
    print("under way", flush=True)
    while True:
        seen = {name for state in ("tmp", "pending") for name in os.listdir(view.queue / state)}
        for name in seen - {view.mine}:
            for state in ("active", "sent", "done", "held", "failed"):
                with contextlib.suppress(OSError):
                    closed(view.queue / state / name)


def _forestall(view: View) -> None:
    print("under way", flush=True)
    while True:
        for name in os.listdir(view.queue / "tmp"):
            with contextlib.suppress(OSError):
                closed(view.queue / "pending" / name)

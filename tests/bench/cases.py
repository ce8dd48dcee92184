"""What is measured: the work, the line, who does it, and what lpxfer is meant to reach."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from frames import Maker, frames, many, one
from peers import FOR_FRAMES, FOR_MANY, FOR_ONE
from wan import Line

KIB = 1 << 10

LONG = Line(500, 50)
LONGER = Line(500, 100)
LOSSY = Line(500, 50, 0.1)
LOSSY_BBR = Line(500, 50, 0.1, "bbr")
THIN = Line(100, 10)

#: Seconds over a long line: enough for a rate, or all the cases would take a day.
BRIEF = 20.0

#: The queue's settings for the row in which lpxfer must not choose the congestion control itself.
CUBIC: Mapping[str, str] = {"congestion": "cubic"}


@dataclass(frozen=True)
class Target:
    """What the row `ours` is meant to reach.

    rate: at least so many times that of the fastest row whose name matches `against`;
    line: at least so much of the line's; cpu: at most so many times as much as theirs;
    seconds, idle: at most so many, idle ones of CPU.
    """

    kind: Literal["rate", "line", "cpu", "seconds", "idle"]
    bound: float
    against: str = "*"  # as a shell matches names
    ours: str = "lpxfer, sent"


@dataclass(frozen=True)
class Case:
    """One row of the table of targets."""

    name: str
    work: str
    make: Maker
    peers: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    line: Line | None = None  # None: the loopback
    kept: bool = False  # connections are kept, so peers are also given without their login
    limit: float = 120.0  # seconds; a peer that takes longer is judged by what arrived by then
    # each of lpxfer's, with the queue's settings
    ours: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: {"lpxfer": {}})
    alone: Literal["", "archived", "idle"] = ""  # not a comparison


def rate(bound: float, against: str = "*", ours: str = "lpxfer, sent") -> Target:
    """A target of throughput."""
    return Target("rate", bound, against, ours)


CASES = (
    Case(
        "one",
        "one file of 2 GiB, loopback",
        one(2048),
        FOR_ONE,
        (
            rate(1.5),
            rate(3, "paramiko*"),
            rate(3, "rclone"),
            Target("cpu", 1, "sftp tuned"),
        ),
    ),
    Case(
        "far",
        "one file of 512 MiB",
        one(512),
        FOR_ONE,
        (rate(2.8), Target("line", 0.9)),
        LONG,
        kept=True,
        limit=BRIEF,
    ),
    Case(
        "farther",
        "one file of 512 MiB",
        one(512),
        FOR_ONE,
        (rate(5),),
        LONGER,
        kept=True,
        limit=BRIEF,
    ),
    Case(
        "lossy",
        "one file of 512 MiB",
        one(512),
        FOR_ONE,
        (rate(4, ours="lpxfer cubic, sent"), rate(1)),
        LOSSY,
        kept=True,
        limit=BRIEF,
        ours={"lpxfer cubic": CUBIC, "lpxfer": {}},
    ),
    Case(
        "lossy-bbr",
        "one file of 512 MiB",
        one(512),
        FOR_ONE,
        (rate(4),),
        LOSSY_BBR,
        kept=True,
        limit=BRIEF,
    ),
    Case(
        "small",
        "20,000 files of 20 KiB, loopback",
        many(20_000, 20 * KIB),
        FOR_MANY,
        (rate(1.5, "rsync*"), rate(1.2, "tar*"), rate(5, "sftp*")),
    ),
    Case(
        "small-far",
        "2,000 files of 20 KiB",
        many(2_000, 20 * KIB),
        FOR_MANY,
        (rate(2, "rsync*"), rate(1.5, "tar*"), rate(20, "rclone*")),
        LONG,
        kept=True,
        limit=BRIEF,
    ),
    Case(
        "medium-far",
        "60 files of 8 MiB",
        many(60, 8192 * KIB),
        FOR_MANY,
        (rate(1.8), rate(2.5, "rsync*")),
        LONG,
        kept=True,
        limit=BRIEF,
    ),
    Case(
        "deep",
        "4 FITS frames of 32 MiB, deep sky",
        frames(4, 4096, 1500),
        FOR_FRAMES,
        (Target("line", 1.6), rate(1, "rsync -z*")),
        THIN,
        kept=True,
    ),
    Case(
        "bias",
        "4 FITS frames of 32 MiB, bias",
        frames(4, 4096, 0),
        FOR_FRAMES,
        (Target("line", 2.5), rate(1, "rsync -z*")),
        THIN,
        kept=True,
    ),
    Case(
        "archived",
        "submit to archived: a frame of 40 MB, loopback, sweep following",
        frames(1, 4472, 1500),
        targets=(Target("seconds", 1, ours="archived"),),
        alone="archived",
    ),
    Case(
        "idle",
        "sender idle for 20 s",
        many(8, 20 * KIB),
        targets=(Target("idle", 0.02, ours="sender"),),
        alone="idle",
    ),
)

"""The watch at work in a scenario: whatever the power cut left, each file is archived once.

A number may go to nobody, so jobs are known by their bytes here, not by their ids.
"""

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from death import Death, mortal
from torture import calls, invariants, sites
from torture.sites import NOW, Say, data, order, queue, source

from lpxfer.formats.watching import Finished, Match
from lpxfer.sources.finder import Found, Site, in_ns
from lpxfer.steps.submit import Wanted, submit_each
from lpxfer.steps.watch import Taken, Watch
from lpxfer.stores import origins
from lpxfer.stores.queue import Queue
from lpxfer.stores.watched import Watched

COUNT = 2  # files that are watched


def watch(root: Path, say: Say, begin: bool = False) -> None:
    """Make one pass of the watch, as the command does; or only its very first start."""
    site = Site([str(root / "telescope/night")], Match("*"), Finished(age=0.0))
    with Watched(root / "telescope/watched", "minicam") as record, queue(root) as opened:
        origins.note(record, [opened], in_ns(NOW))
        made = Watch(site, record, partial(submitted, opened), _said, lambda: NOW)
        made.begin()
        if not begin:
            made.once()
            say("watched")


def after_a_dead_one(root: Path, say: Say) -> None:
    """Make a pass after one that died when its jobs had their names, not synced yet."""
    renamed = dead = False

    def before(verb: str, *_: Any) -> None:
        nonlocal renamed, dead
        dead = dead or (renamed and verb == "fsync")
        renamed = renamed or verb == "rename"
        if dead:
            raise Death

    with mortal(), calls.watched(before):
        watch(root, lambda _: None)
    watch(root, say)


def _said(line: str) -> None:
    raise AssertionError(line)


def submitted(opened: Queue, batch: Sequence[Found], now: datetime) -> Iterator[Taken]:
    wanted = [Wanted(found.path.encode(), order()) for found in batch]
    for found, result in zip(batch, submit_each(opened, wanted, now), strict=True):
        known = sites.known_of(result)
        version = found.version._replace(size=known.size, mtime=known.mtime_ns)
        yield Taken(found, known.job, version)


def prepared(root: Path, known: int = 0) -> None:
    """Have the watch started once, and files written since; the first ones are submitted."""
    sites.make(root)
    watch(root, lambda _: None, begin=True)
    for number in range(1, known + 1):
        source(root, number)
    watch(root, lambda _: None)
    for number in range(1, COUNT + 1):
        source(root, number)


def again(root: Path) -> None:
    """Watch and carry, twice: nothing comes twice when all is archived, either."""
    for _ in range(2):
        watch(root, lambda _: None)
        sites.recover(root)


def broken(root: Path, said: Sequence[str]) -> list[str]:
    """Say what is wrong in the raw state: after a pass, each file is a job."""
    seen = invariants.Seen(root)
    held = [path / "data" for _, _, path in seen.jobs]
    found = [path.read_bytes() for path in held if path.exists()]
    wanted = [data(n) for n in range(1, COUNT + 1)] if "watched" in said else []
    return [f"not submitted: {text[:7]!r}" for text in wanted if text not in found]


def unsettled(root: Path, said: Sequence[str]) -> list[str]:
    """Say what is wrong when all is carried: each file is archived, once."""
    seen = invariants.Seen(root)
    placed = sorted(path.read_bytes() for path in seen.placed)
    wanted = sorted(data(n) for n in range(1, COUNT + 1))
    faults = [] if placed == wanted else [f"archived: {[text[:7] for text in placed]}"]
    kinds = [line.kind for _, line in seen.records]
    return faults + ([] if kinds == ["stored"] * COUNT else [f"records: {kinds}"])


def old(root: Path) -> None:
    """Have files that are old when the watch is started for the very first time."""
    sites.make(root)
    for number in range(1, COUNT + 1):
        os.utime(source(root, number), (0, 0))
    with queue(root):
        pass


def taken_up(root: Path, _: Sequence[str]) -> list[str]:
    """Say which files became jobs that are older than the first record of the watch."""
    seen = invariants.Seen(root)
    found = [*(str(path) for _, _, path in seen.jobs), *map(str, seen.placed)]
    return [f"submitted: {path}" for path in found]

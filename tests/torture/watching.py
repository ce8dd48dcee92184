"""The watch at work in a scenario: whatever the power cut left, each file is archived once.

A number may go to nobody, so jobs are known by their bytes here, not by their ids.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from death import Death, mortal
from torture import calls, invariants, sites
from torture.sites import HOST, NOW, Say, data, order, queue, source, spool

from lpxfer.cli import setup, web_once
from lpxfer.cli.watch_submit import Submitter
from lpxfer.formats import config
from lpxfer.formats.config import Config
from lpxfer.formats.watching import Finished, Match
from lpxfer.sources.finder import Site, in_ns
from lpxfer.steps.watch import Watch
from lpxfer.stores import origins
from lpxfer.stores.watched import Watched

COUNT = 2  # files that are watched


def watch(root: Path, say: Say, begin: bool = False) -> None:
    """Make one pass of the watch, as the command does; or only its very first start."""
    conf = configured(root)
    site = Site([str(root / "telescope/night")], Match("*"), Finished(age=0.0))
    with Watched(root / "telescope/watched", "minicam") as record, spool(root) as opened:
        origins.note(record, [opened.queue("archive")], in_ns(NOW))
        instrument = conf.instruments["minicam"]
        submitter = Submitter(conf, instrument, opened, record.others, _said)
        made = Watch(site, record, submitter.submit, _said, lambda: NOW)
        made.begin()
        if not begin:
            made.once()
            say("watched")


def configured(root: Path) -> Config:
    """Return a configuration with one queue, and one instrument that is watched."""
    return config.parse(
        f"[lpxfer]\nqueue=archive\nspool={root}/telescope/spool\nhost={HOST}\nreserve=0\n"
        f"[queue archive]\n[instrument minicam]\nwatch={root}/telescope/night\n",
        "lpxfer.conf",
    )


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
    if not dead:
        raise Death  # the power was cut before
    watch(root, say)


def ask(root: Path, say: Say) -> None:
    """Submit the first file as xfer-web does for a program."""
    path = os.fsencode(root / "telescope/night/0001.fits")
    with mock.patch.object(setup, "state_path", lambda: root / "telescope"):
        with queue(root) as opened:
            [result] = web_once.submit_once(
                configured(root), opened, [path], order(), NOW, lambda _: None
            )
    if result.error:
        raise result.error
    say("asked")


def ask_and_watch(root: Path, say: Say) -> None:
    """Let a program submit a file, then a pass of the watch find it, too."""
    ask(root, say)
    watch(root, say)


def watch_and_ask(root: Path, say: Say) -> None:
    """Let a pass of the watch submit a file, then a program ask for it."""
    watch(root, say)
    ask(root, say)


def asked_again(root: Path) -> None:
    """Let the program repeat what it asked for, as one does that got no answer; then go on."""
    ask(root, lambda _: None)
    again(root)


def _said(line: str) -> None:
    raise AssertionError(line)


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
    """Say what is wrong in the raw state: after a pass, each file is a job, or has been one.

    Of what was only asked for, the first is.
    """
    seen = invariants.Seen(root)
    held = [path / "data" for _, _, path in seen.jobs]
    found = [path.read_bytes() for path in (*held, *seen.placed) if path.exists()]
    count = COUNT if "watched" in said else int("asked" in said)
    wanted = [data(n) for n in range(1, count + 1)]
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

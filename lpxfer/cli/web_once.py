"""Submit what xfer-watch may submit as well, so that each version of a file goes once.

That is what lies in a watched directory, and goes to the queue of the watch for its instrument;
anything else is somebody's own business. Raises what submit raises, and TemporaryError while the
watch submits one of the files.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from lpxfer.cli import setup
from lpxfer.errors import TemporaryError
from lpxfer.formats import watching
from lpxfer.formats.config import Config, InstrumentConfig
from lpxfer.formats.control import Control
from lpxfer.formats.job import State
from lpxfer.formats.keyvalue import printable
from lpxfer.formats.watch_record import MARKED, Note, Version
from lpxfer.sources.finder import in_ns
from lpxfer.steps.submit import Order, Result, submit
from lpxfer.stores import origins
from lpxfer.stores.claims import Claims
from lpxfer.stores.spool import Queue

PATIENCE = 5.0  # seconds until what the watch is at has to be asked for again

About = Callable[[Sequence[str]], None]


def submit_once(
    config: Config, queue: Queue, paths: Sequence[bytes], order: Order, now: datetime, about: About
) -> list[Result]:
    """Submit files, but for those that are jobs already: of these, return the jobs.

    `about` is as in submit.
    """
    watched: dict[bytes, str] = {}
    if instrument := config.instruments.get(order.inst):
        depends = watching.PLACE.search(instrument.queue)
        if depends or queue.name == (instrument.queue or config.queue):
            watched = dict(_watched(instrument, paths))
    if not watched:
        return list(submit(queue, paths, order, now, about))
    with _claimed(order.inst, watched.values()) as claims:
        versions = {path: _version(name) for path, name in watched.items()}
        known = _known(queue, claims, watched, versions)
        rest = [path for path in paths if path not in known]
        noted = dict[bytes, str]()

        def note(jobs: dict[bytes, str]) -> None:
            noted.update(jobs)
            claims.note(in_ns(now), [
                (watched[path], version, job_id) for path, job_id in jobs.items()
                if (version := versions.get(path))
            ])  # fmt: skip

        def told(ids: Sequence[str]) -> None:
            about(ids)
            note(dict(zip(rest, ids, strict=True)))

        results = {r.path: r for r in submit(queue, rest, order, now, told)} if rest else {}
        made = {path: r.control.job for path, r in results.items() if r.control}
        if wrong := dict(made.items() - noted.items()):  # one before them was refused
            note(wrong)
    return [known[path] if path in known else results[path] for path in paths]


def watched_by(config: Config, paths: Sequence[bytes]) -> InstrumentConfig | None:
    """Return the one instrument whose watch may find all of these files."""
    found = [
        instrument for instrument in config.instruments.values()
        if len(dict(_watched(instrument, paths))) == len(paths)
    ]  # fmt: skip
    return found[0] if len(found) == 1 else None


def fixed_queue(instrument: InstrumentConfig) -> str:
    """Return where the watch submits to; "" where that depends on the file, or is the default."""
    return "" if watching.PLACE.search(instrument.queue) else instrument.queue


def _watched(instrument: InstrumentConfig, paths: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
    """Yield those that the watch may find, and by which name: it follows no links."""
    match = watching.Match(instrument.match)
    for root in watching.directories(instrument.watch):
        real = os.path.realpath(root).rstrip("/") + "/"
        for path in paths:
            found = os.path.realpath(os.fsdecode(path))
            if found.startswith(real) and match(os.path.basename(found)):
                yield path, os.path.join(root, found.removeprefix(real))


@contextmanager
def _claimed(inst: str, names: Iterable[str]) -> Iterator[Claims]:
    """Have claimed files for a block."""
    deadline = time.monotonic() + PATIENCE
    with Claims(setup.state_path() / "watched", inst) as claims:
        for name in sorted(names):
            while not claims.take(name):
                if time.monotonic() > deadline:
                    raise TemporaryError(f'"{printable(name)}" is being submitted by another')
                time.sleep(0.05)
        yield claims


def _version(name: str) -> Version | None:
    try:
        status = os.stat(name, follow_symlinks=False)
    except OSError:
        return None  # submit will say why
    return Version(status.st_size, status.st_mtime_ns, status.st_ino)


def _known(
    queue: Queue,
    claims: Claims,
    watched: dict[bytes, str],
    versions: dict[bytes, Version | None],
) -> dict[bytes, Result]:
    """Return the files whose present version is a job already, that is not canceled."""
    known = dict[bytes, Result]()
    last = claims.last(watched.values())
    for path, name in watched.items():
        version, note = versions[path], last.get(name)
        if version and note and note.version.same(version):
            job = _job(queue, note)
            if job and origins.is_of(job, name, version):
                if queue.outcome(job.job) is not State.CANCELED:
                    known[path] = Result(path, job)
    return known


def _job(queue: Queue, note: Note) -> Control | None:
    job_id = note.job
    if note.word == "about":  # its watch died: it has made a job, or none
        found = origins.jobs_of([queue], {note.path: (note.version, note.time)})
        job_id = found.get(note.path, (note.version, MARKED))[1]
    return origins.find(queue, job_id) if job_id != MARKED else None

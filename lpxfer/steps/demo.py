"""Demonstrate the way of real files: write some, and compare what the archive has of them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from lpxfer import checksum, durable
from lpxfer.errors import PermanentError
from lpxfer.formats import fits, record
from lpxfer.formats.keyvalue import printable
from lpxfer.stores.instrument_log import InstrumentLog
from lpxfer.stores.site import QUEUE
from lpxfer.stores.spool import Spool

FRAMES = 3
EXPOSURE = timedelta(seconds=30)

#: Kinds of records that say where in the instrument directory a file is.
KEPT = record.SAFE - {record.STRANGER}

_NUMBER = re.compile(r"\.(\d{4})\.fits$")
_IDS = re.compile(r"^request ids? (?:is|are) (\w+)-(\d+)(?: … \w+-(\d+))? \(", re.MULTILINE)


@dataclass(frozen=True)
class Stored:
    """A file in the archive that is its source, byte for byte."""

    source: str
    placed: Path
    size: int
    checksum: str


def write_frames(directory: Path, instrument: str, now: datetime) -> list[str]:
    """Write the next exposures of a night; return their paths."""
    numbers = [int(match[1]) for name in os.listdir(directory) if (match := _NUMBER.search(name))]
    first = max(numbers, default=0) + 1
    paths = []
    for number in range(first, first + FRAMES):
        start = now - EXPOSURE * (first + FRAMES - number)
        path = directory / f"{instrument}.{start:%Y%m%d}.{number:04d}.fits"
        path.write_bytes(fits.frame(number, start, instrument))
        paths.append(str(path))
    return paths


def request_ids(printed: str) -> list[str]:
    """Return the request ids that xfer-submit printed, in the order of its files."""
    found = []
    for queue, first, last in _IDS.findall(printed):
        found += [f"{queue}-{n}" for n in range(int(first), int(last or first) + 1)]
    return found


def compare(
    spool: Path, instrument_dir: Path, sources: Mapping[str, str], since: datetime
) -> list[Stored]:
    """Compare files with what the archive has of them, in checksum and time of change.

    `sources` has the path of each by its request id; `since` is a time before their submit.
    Raises PermanentError for the first that is not completed, or not there as it should be.
    """
    log = Spool(spool).queue(QUEUE).log(since)
    uids = {r.fields["job"]: r.fields.get("uid", "") for r in log if r.kind == "completed"}
    if missing := sources.keys() - uids.keys():
        job = min(missing)
        raise PermanentError(f"{job} is not completed: see xfer-stat -l {job}")
    with durable.opened_dir(instrument_dir) as fd:
        history = InstrumentLog(fd).history([uids[job] for job in sources], since)
    stored = []
    for job, source in sources.items():
        places = [r.fields["placed"] for r in history.get(uids[job], ()) if r.kind in KEPT]
        if not places:
            raise PermanentError(f"{job} has no record in {instrument_dir}/xferlogs")
        stored.append(_compared(source, instrument_dir / places[-1]))
    return stored


def _compared(source: str, placed: Path) -> Stored:
    there, here = _look(str(placed)), _look(source)
    if there != here:
        raise PermanentError(
            f'"{printable(str(placed))}" is not as "{printable(source)}": {there} and {here} '
            "(checksum, bytes, nanoseconds since 1970)"
        )
    return Stored(source, placed, there[1], there[0])


def _look(path: str) -> tuple[str, int, int]:
    with open(path, "rb") as stream:
        status = os.fstat(stream.fileno())
        return checksum.of_file(stream.fileno()), status.st_size, status.st_mtime_ns

"""Latency: read the stages of files in transfer logs or finished logs. See xfer-logsum(1).

A file is counted once, by its uid, in the time in which it was stored, or completed; what is
told of it later is added. Records without stages, of earlier releases, are passed over.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lpxfer.formats import dates, names, record, stages
from lpxfer.formats.job import State
from lpxfer.formats.latency import Latencies
from lpxfer.formats.window import Window
from lpxfer.stores import transfer_log

_COMPLETED = State.COMPLETED.value
_HEAD = re.compile(rb"(\S+Z) (stored|renamed|told|completed)(?= )")
_FIELDS = re.compile(rb" (inst|uid|stages)=([!-$&-~]*)(?=[ \n])")


class _Event(NamedTuple):
    """What is needed of a record."""

    time: str
    kind: str
    inst: str
    uid: str
    stages: str


def measure(
    path: str,
    insts: Mapping[str, str],
    window: Window,
    report: Callable[[str], None],
    others: bool = False,
) -> dict[str, Latencies]:
    """Read transfer logs or finished logs, a directory of them or one file.

    `insts` and `others` are as in logsum.count. Damaged lines go to `report`. Raises OSError,
    and PermanentError for a directory without logs.
    """
    found = {name: Latencies() for name in insts.values()}
    start, end = dates.iso(window.start), dates.iso(window.end)
    for event in transfer_log.read_lines(path, window, _load, report, transfer_log.ANY_DAY):
        match = names.UID.fullmatch(event.uid) if event else None
        if event is None or match is None or not start <= event.time < end:
            continue
        name = insts.get(event.inst, event.inst)
        if others and name:
            found.setdefault(name, Latencies())
        times = stages.load(event.stages)
        if times and name in found:
            found[name].add(event.uid, match[1], times, event.kind == record.TOLD)
    return found


def _load(line: bytes) -> _Event | None:
    """Read one line; None for what is of no use here. Raises FormatError for no record."""
    head = _HEAD.match(line)
    if not head or not line.endswith(b"\n"):
        record.load_unless_torn(line)
        return None
    fields = dict(_FIELDS.findall(line))
    said = [fields.get(key, b"").decode() for key in (b"inst", b"uid", b"stages")]
    return _Event(head[1].decode("ascii", "replace"), head[2].decode(), *said)

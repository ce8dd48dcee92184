"""Latency: read the stages of files in transfer logs or finished logs. See xfer-logsum(1).

A file is counted once, by its uid, in the time in which it was stored, or completed; what is
told of it later, or by the log of the other site, is added. Records without stages, of earlier
releases, are passed over.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from lpxfer.formats import dates, names, record, stages
from lpxfer.formats.job import State
from lpxfer.formats.keyvalue import unquote
from lpxfer.formats.latency import Latencies
from lpxfer.formats.window import Window
from lpxfer.stores import transfer_log

_COMPLETED = State.COMPLETED.value
_HEAD = re.compile(rb"(\S+Z) (stored|renamed|told|completed)(?= )")
_FIELDS = re.compile(rb" (inst|uid|stages|name)=([!-~]*)(?=[ \n])")


class _Event(NamedTuple):
    """What is needed of a record."""

    time: str
    kind: str
    inst: str
    uid: str
    stages: str
    name: str


def measure(
    paths: Sequence[str],
    insts: Mapping[str, str],
    window: Window,
    report: Callable[[str], None],
    others: bool = False,
    each: bool = False,
) -> dict[str, Latencies]:
    """Read transfer logs and finished logs, directories of them or single files.

    `insts` and `others` are as in logsum.count; `each` is as in Latencies. Damaged lines go to
    `report`. Raises OSError, and PermanentError for a directory without logs.
    """
    found = {name: Latencies(each) for name in insts.values()}
    start, end = dates.iso(window.start), dates.iso(window.end)
    day = transfer_log.ANY_DAY
    events = (transfer_log.read_lines(path, window, _load, report, day) for path in paths)
    for event in chain.from_iterable(events):
        match = names.UID.fullmatch(event.uid) if event else None
        if event is None or match is None or not start <= event.time < end:
            continue
        name = insts.get(event.inst, event.inst)
        if others and name:
            found.setdefault(name, Latencies(each))
        times = stages.load(event.stages)
        if times and name in found:
            found[name].add(event.uid, match[1], times, event.kind == record.TOLD, event.name)
    return found


def _load(line: bytes) -> _Event | None:
    """Read one line; None for what is of no use here. Raises FormatError for no record."""
    head = _HEAD.match(line)
    if not head or not line.endswith(b"\n"):
        record.load_unless_torn(line)
        return None
    fields = dict(_FIELDS.findall(line))
    said = [unquote(fields.get(key, b"").decode()) for key in (b"inst", b"uid", b"stages", b"name")]
    return _Event(head[1].decode("ascii", "replace"), head[2].decode(), *said)

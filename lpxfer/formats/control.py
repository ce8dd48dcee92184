"""The control file: what is known about one data file. See xfer-control(5).

Written once at submit and never changed; on the wire the sender adds what the transfer
took. It never holds a secret. What it says about places, `name` and `dir`, is for the sweep
to check with `names`, so that a bad one is quarantined with its reason.
"""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime

from lpxfer import checksum
from lpxfer.errors import FormatError
from lpxfer.formats import dates, keyvalue, names, options

FORMAT = "1"

#: Room that the four transfer keywords need on the wire beside what submit wrote.
WIRE_ROOM = 512

_MUST = "format job uid host user queue submitted name path size mtime checksum inst".split()
_WIRE = "xfer_start xfer_end xfer_seconds attempts".split()


@dataclass(frozen=True)
class Transfer:
    """What the sender adds on the wire: when, how long (seconds), which attempt."""

    start: datetime
    end: datetime
    seconds: float
    attempts: int


@dataclass(frozen=True)
class Control:
    """One job's control file, every field checked."""

    job: str
    uid: str
    host: str
    user: str
    queue: str
    submitted: datetime
    name: str
    path: str
    size: int  # bytes
    mtime_ns: int  # nanoseconds since 1970, UTC
    checksum: str
    inst: str
    priority: int | None = None
    maxftp: str | None = None
    dir: str | None = None
    others: dict[str, str] = field(default_factory=dict)
    transfer: Transfer | None = None

    def with_transfer(self, transfer: Transfer) -> "Control":
        """Return the control file as it goes on the wire."""
        return replace(self, transfer=transfer)


class UnknownFormat(FormatError):
    """A whole control file of a format this release does not know: leave it, report it."""


def dump(control: Control) -> bytes:
    """Write a control file. Raises FormatError when it would exceed 64 KiB."""
    pairs = {
        "format": FORMAT,
        "job": control.job,
        "uid": control.uid,
        "host": control.host,
        "user": control.user,
        "queue": control.queue,
        "submitted": dates.iso(control.submitted),
        "name": control.name,
        "path": control.path,
        "size": str(control.size),
        "mtime": dates.iso_ns(control.mtime_ns),
        "checksum": control.checksum,
        "inst": control.inst,
    }
    if control.priority is not None:
        pairs["priority"] = str(control.priority)
    if control.maxftp is not None:
        pairs["maxftp"] = control.maxftp
    if control.dir is not None:
        pairs["dir"] = control.dir
    pairs.update(control.others)
    if control.transfer is not None:
        pairs["xfer_start"] = dates.iso(control.transfer.start)
        pairs["xfer_end"] = dates.iso(control.transfer.end)
        pairs["xfer_seconds"] = f"{control.transfer.seconds:.3f}"
        pairs["attempts"] = str(control.transfer.attempts)
    return keyvalue.dump(pairs.items())


def load(text: bytes) -> Control:
    """Read a control file, from the spool or from the wire.

    Raises FormatError for anything that is not exactly one; UnknownFormat, a kind of it,
    when the text is whole but says another `format`.
    """
    pairs = keyvalue.load(text)
    if (said := pairs.get("format", FORMAT)) != FORMAT:
        raise UnknownFormat(f"format {said[:20]!r} is not known here")
    try:
        must = {keyword: pairs.pop(keyword) for keyword in _MUST}
    except KeyError as error:
        raise FormatError(f"keyword {error.args[0]} is missing") from error
    wire = {k: pairs.pop(k) for k in _WIRE if k in pairs}
    priority = pairs.pop("priority", None)
    maxftp, directory = pairs.pop("maxftp", None), pairs.pop("dir", None)
    for keyword in pairs.keys() & options.ROUTING:
        raise FormatError(f"routing keyword {keyword} does not belong in a control file")
    if maxftp is not None:
        options.check_maxftp(maxftp)
    control = Control(
        job=must["job"],
        uid=names.check_uid(must["uid"]),
        host=names.check_host(must["host"]),
        user=must["user"],
        queue=names.check_queue(must["queue"]),
        submitted=dates.parse_iso(must["submitted"]),
        name=must["name"],
        path=must["path"],
        size=_number(must["size"], "size"),
        mtime_ns=dates.parse_iso_ns(must["mtime"]),
        checksum=checksum.check_text(must["checksum"]),
        inst=names.check_instrument(must["inst"]),
        priority=None if priority is None else check_priority(priority),
        maxftp=maxftp,
        dir=directory,
        others=pairs,
        transfer=_transfer(wire) if wire else None,
    )
    if names.split_request_id(control.job)[0] != control.queue:
        raise FormatError(f"job {control.job} is not of queue {control.queue}")
    if control.uid[16:-8] != f"-{control.host}-{control.job}-":
        raise FormatError(f"uid {control.uid} is not of {control.host} {control.job}")
    return control


def check_priority(text: str) -> int:
    """Return a priority from 1 to 100, or raise FormatError."""
    if not re.fullmatch("[1-9][0-9]?|100", text):
        raise FormatError(f"a priority is a number from 1 to 100, not {text[:20]!r}")
    return int(text)


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise FormatError(f"{what} is not a number: {text[:20]!r}")
    return int(text)


def _transfer(wire: dict[str, str]) -> Transfer:
    try:
        start, end = dates.parse_iso(wire["xfer_start"]), dates.parse_iso(wire["xfer_end"])
        seconds, attempts = wire["xfer_seconds"], wire["attempts"]
    except KeyError as error:
        raise FormatError(f"keyword {error.args[0]} is missing") from error
    if not re.fullmatch(r"\d{1,15}(\.\d{1,9})?", seconds, re.ASCII):
        raise FormatError(f"xfer_seconds is not a number: {seconds[:20]!r}")
    return Transfer(start, end, float(seconds), _number(attempts, "attempts"))

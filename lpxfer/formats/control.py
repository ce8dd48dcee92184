"""The control file: what is known about one data file. See xfer-control(5).

Written once at submit and never changed; on the wire the sender adds what the transfer
took. It never holds a secret. What it says about places, `name` and `dir`, is for the sweep
to check with `names`, so that a bad one is quarantined with its reason.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from lpxfer import checksum
from lpxfer.errors import FormatError
from lpxfer.formats import dates, keyvalue, names, options

FORMAT = "1"

#: Room that the keywords of transfer and encoding need on the wire beside what submit wrote.
WIRE_ROOM = 512

#: Codecs that a reader of this release knows: `codec.NAME`, which is not loaded to say so.
CODECS = frozenset({"blosc2"})

_MUST = "format job uid host user queue submitted name path size mtime checksum inst".split()
_WIRE = "xfer_start xfer_end xfer_seconds attempts".split()
_ENCODING = "xfer_codec xfer_size".split()

_SECONDS = re.compile(r"\d{1,15}(\.\d{1,9})?", re.ASCII)


@dataclass(frozen=True)
class Encoding:
    """In what form the data file is on the wire, where that is not its own: see xfer-codec(5)."""

    codec: str  # one of CODECS
    size: int  # bytes on the wire; `size` and `checksum` stay those of the file


@dataclass(frozen=True)
class Transfer:
    """What the sender adds on the wire: when, how long (seconds), which attempt, what form."""

    start: datetime
    end: datetime
    seconds: float
    attempts: int
    encoding: Encoding | None = None


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

    @property
    def may_be_encoded(self) -> bool:
        """Whether an encoding can be named: an older submit let users take those keywords."""
        return not self.others.keys() & set(_ENCODING)

    @property
    def encoding(self) -> Encoding | None:
        """In what form the data file is on the wire; None when it is plain."""
        return self.transfer.encoding if self.transfer else None

    def plain(self) -> "Control":
        """Return the control file of the data as it was submitted."""
        took = self.transfer and replace(self.transfer, encoding=None)
        return replace(self, transfer=took)

    @property
    def wire_size(self) -> int:
        """The size of the data file on the wire, in bytes."""
        return self.encoding.size if self.encoding else self.size


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
        pairs |= transfer_pairs(control.transfer)
    if control.encoding is not None:
        if not control.may_be_encoded:  # a reader could not tell whose keywords they are
            raise FormatError(f"{_ENCODING} are taken by the user's options: send it plain")
        pairs |= zip(_ENCODING, (control.encoding.codec, str(control.encoding.size)), strict=True)
    return keyvalue.dump(pairs.items())


def transfer_pairs(transfer: Transfer) -> dict[str, str]:
    """Return the lines that the sender adds on the wire."""
    decimals = 3 if transfer.seconds >= 1 else 6  # a member's share of a bundle's is small
    said = (
        dates.iso(transfer.start),
        dates.iso(transfer.end),
        f"{transfer.seconds:.{decimals}f}",
        str(transfer.attempts),
    )
    return dict(zip(_WIRE, said, strict=True))


def load(text: bytes) -> Control:
    """Read a control file, from the spool or from the wire.

    Raises FormatError for anything that is not exactly one; UnknownFormat, a kind of it,
    when the text is whole but says another `format`, or a codec.
    """
    return parse(keyvalue.load(text))


def parse(pairs: dict[str, str], transfer: Transfer | None = None) -> Control:
    """Read the pairs of a control file, which are used up. Raises as `load` does.

    `transfer` is what is known of it where the control file does not say it.
    """
    check_format(pairs)
    try:
        must = {keyword: pairs.pop(keyword) for keyword in _MUST}
    except KeyError as error:
        raise FormatError(f"keyword {error.args[0]} is missing") from error
    transfer = take_transfer(pairs) or transfer
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
        size=number(must["size"], "size"),
        mtime_ns=dates.parse_iso_ns(must["mtime"]),
        checksum=checksum.check_text(must["checksum"]),
        inst=names.check_instrument(must["inst"]),
        priority=None if priority is None else check_priority(priority),
        maxftp=maxftp,
        dir=directory,
        others=pairs,
        transfer=transfer,
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


def check_format(pairs: Mapping[str, str]) -> None:
    """Raise UnknownFormat for the text of another release."""
    if (said := pairs.get("format", FORMAT)) != FORMAT:
        raise UnknownFormat(f"format {said[:20]!r} is not known here")


def number(text: str, what: str) -> int:
    """Return a number of up to 18 digits, or raise FormatError."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise FormatError(f"{what} is not a number: {text[:20]!r}")
    return int(text)


def take_transfer(pairs: dict[str, str]) -> Transfer | None:
    """Take the lines that the sender has added out of the pairs; None when there are none."""
    # Users' keywords stand before the sender's. Only where both are the last two, behind all
    # of the transfer's, are they the sender's; anywhere else an older submit let a user have
    # them, and the file is plain.
    own = _WIRE + (_ENCODING if list(pairs)[-6:] == [*_WIRE, *_ENCODING] else [])
    wire = {keyword: pairs.pop(keyword) for keyword in own if keyword in pairs}
    if not wire:
        return None
    try:
        start, end = dates.parse_iso(wire["xfer_start"]), dates.parse_iso(wire["xfer_end"])
        seconds, attempts = wire["xfer_seconds"], wire["attempts"]
    except KeyError as error:
        raise FormatError(f"keyword {error.args[0]} is missing") from error
    if not _SECONDS.fullmatch(seconds):
        raise FormatError(f"xfer_seconds is not a number: {seconds[:20]!r}")
    return Transfer(start, end, float(seconds), number(attempts, "attempts"), _encoding(wire))


def _encoding(wire: dict[str, str]) -> Encoding | None:
    if (said := wire.get("xfer_codec")) is None:
        return None
    if said not in CODECS:
        raise UnknownFormat(f"codec {said[:20]!r} is not known here")
    return Encoding(said, number(wire["xfer_size"], "xfer_size"))

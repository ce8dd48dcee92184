"""A bundle: small files of one host and instrument that travel as one arrival. See xfer-bundle(5).

Its control file says where the index ends and what checksum it has; its data file is the
index, which holds every member's own control file, then every member's bytes. So whoever
reads it knows all members before the first of their bytes, believes all of the index or
nothing, and finds each member whatever has become of the others.

Raises FormatError for anything that is not exactly one; what a member says of places is for
the sweep to check, member by member.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lpxfer import checksum
from lpxfer.errors import FormatError
from lpxfer.formats import control, keyvalue, names
from lpxfer.formats.control import Control, Transfer

FORMAT = "1"  # what a sweep accepts as `bundle=`, see xfer-receipt(5)
KIND = "bundle"

#: What one bundle may hold, so that neither end needs much memory or time for it.
MEMBERS_MOST = 1000
INDEX_MOST = 2 << 20  # bytes of the index
DATA_MOST = 64 << 20  # bytes of all members together

_KEYWORDS = ("format", "kind", "uid", "host", "inst", "members", "index", "size", "checksum")

_ENTRY = re.compile(
    rb"control=([1-9][0-9]{0,4}) data=(0|[1-9][0-9]{0,7}) attempts=(0|[1-9][0-9]{0,8})\n"
)
_UID_LINE = re.compile(rb"^uid=([A-Za-z0-9._-]{1,255})$", re.MULTILINE)


@dataclass(frozen=True)
class Bundle:
    """What the control file of a bundle says, every field checked."""

    uid: str
    host: str  # of every member
    inst: str  # of every member
    members: int
    index: int  # bytes of the index, with which the data file begins
    size: int  # bytes of the data file: the index, then the members
    checksum: str  # of the index
    transfer: Transfer  # of the whole


@dataclass(frozen=True)
class Member:
    """One file in a bundle."""

    control: Control  # with its share of the bundle's transfer
    offset: int  # of its bytes in the data file
    size: int  # of its bytes there


# --- writing ------------------------------------------------------------------------------


def entry(text: bytes, size: int, attempts: int) -> bytes:
    """Return a member's part of the index: its control file `text` as it stands in the spool.

    `size` is that of its data in bytes, and `attempts` the number of this one.
    """
    return b"control=%d data=%d attempts=%d\n%b" % (len(text), size, attempts, text)


def fits(members: int, index: int, data: int) -> bool:
    """Tell whether so many members, and so many bytes of index and of data, may be one bundle."""
    return 0 < members <= MEMBERS_MOST and 0 < index <= INDEX_MOST and 0 <= data <= DATA_MOST


def dump(known: Bundle) -> bytes:
    """Write the control file of a bundle."""
    said = (control.FORMAT, KIND, known.uid, known.host, known.inst, str(known.members),
            str(known.index), str(known.size), known.checksum)  # fmt: skip
    pairs = dict(zip(_KEYWORDS, said, strict=True)) | control.transfer_pairs(known.transfer)
    return keyvalue.dump(pairs.items())


# --- reading ------------------------------------------------------------------------------


def is_bundle(pairs: Mapping[str, str]) -> bool:
    """Tell whether the pairs of a control file are those of a bundle.

    Any user may say `-o kind=bundle` of a file; but that has a job.
    """
    return pairs.get("kind") == KIND and "job" not in pairs


def parse(pairs: dict[str, str]) -> Bundle:
    """Read the pairs of a bundle's control file, which are used up.

    Raises FormatError; UnknownFormat, a kind of it, for another `format`.
    """
    control.check_format(pairs)
    transfer = control.take_transfer(pairs)
    keyvalue.only(pairs, _KEYWORDS)
    try:
        said = {keyword: pairs[keyword] for keyword in _KEYWORDS}
    except KeyError as error:
        raise FormatError(f"keyword {error.args[0]} is missing") from error
    if transfer is None:
        raise FormatError("keyword xfer_start is missing")
    known = Bundle(
        uid=names.check_uid(said["uid"]),
        host=names.check_host(said["host"]),
        inst=names.check_instrument(said["inst"]),
        members=control.number(said["members"], "members"),
        index=control.number(said["index"], "index"),
        size=control.number(said["size"], "size"),
        checksum=checksum.check_text(said["checksum"]),
        transfer=transfer,
    )
    if not known.uid[16:].startswith(f"-{known.host}-"):
        raise FormatError(f"uid {known.uid} is not of {known.host}")
    if not fits(known.members, known.index, known.size - known.index):
        raise FormatError(
            f"{known.members} members, {known.index} bytes of index and {known.size} in all "
            "are no bundle"
        )
    return known


def members(known: Bundle, index: bytes) -> list[Member]:
    """Read the index of a bundle, whose checksum fits: its members, in their order.

    Each gets the bundle's times, and of its seconds the share that its bytes have, so that
    their rates are the bundle's. Raises FormatError unless all of it is as it must be.
    """
    found = list(_members(known, index))
    if not found or len(found) != known.members:
        raise FormatError(f"{len(found)} members are in it, {known.members} were announced")
    if (end := found[-1].offset + found[-1].size) != known.size:
        raise FormatError(f"its members end at byte {end}, not at {known.size}")
    uids = {member.control.uid for member in found}
    if len(uids) < len(found) or known.uid in uids:
        raise FormatError("a uid stands in it twice")
    return found


def _members(known: Bundle, index: bytes) -> Iterator[Member]:
    whole, total, at, offset = known.transfer, known.size - known.index, 0, known.index
    while at < len(index):
        match = _ENTRY.match(index, at)
        if not match:
            raise FormatError(f"no member begins at byte {at} of the index")
        at = match.end() + int(match[1])
        size, attempts = int(match[2]), int(match[3])
        share = size / total if total else 1 / known.members
        transfer = Transfer(whole.start, whole.end, whole.seconds * share, attempts)
        yield Member(_control(known, index[match.end() : at], transfer), offset, size)
        offset += size


def _control(known: Bundle, text: bytes, transfer: Transfer) -> Control:
    """Read a member's control file, to which what the transfer took is added."""
    own = control.parse(keyvalue.load(text), transfer)
    if (own.host, own.inst) != (known.host, known.inst):
        raise FormatError(f"{own.uid} is of another host or instrument")
    if own.transfer is not transfer:
        raise FormatError(f"{own.uid} has its own transfer times")
    return own


def uids(index: bytes) -> Iterable[str]:
    """Return what seem to be the members' uids, without checking anything else: it is cheap."""
    return (uid.decode() for uid in _UID_LINE.findall(index))

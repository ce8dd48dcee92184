"""Names that cross a border: queues, hosts, request ids, uids, wire names, path components.

No text from a user ever becomes a remote file name; the uid does. What a control file says
about directories and file names is checked here before anything is opened.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from lpxfer.errors import FormatError

QUEUE = re.compile(r"[a-z][a-z0-9_]{0,31}")
HOST = re.compile(r"[A-Za-z0-9-]{1,63}")
REQUEST_ID = re.compile(r"([a-z][a-z0-9_]{0,31})-([1-9][0-9]{0,14})")
UID = re.compile(
    r"[0-9]{8}T[0-9]{6}Z-([A-Za-z0-9-]{1,63})-([a-z][a-z0-9_]{0,31}-[1-9][0-9]{0,14})"
    r"-[0-9a-f]{8}"
)
COMPONENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
INSTRUMENT = COMPONENT

#: What ssh(1) may be given: no option, no shell's word, no user@host, no URI; IPv6 addresses, too.
SSH_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:-]{0,254}(%[A-Za-z0-9._-]{1,32})?")
SSH_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+-]{0,254}")

#: What an instrument directory keeps for itself; no arrival may be placed under these.
RESERVED = frozenset({"xferlogs", "quarantine", "receipts"})

DATA, CONTROL, PART = ".data", ".control", ".part"

NAME_LIMIT = 255  # bytes in one component of a path (NAME_MAX)
DIR_LIMIT = 1024  # bytes in a whole `dir`, well below PATH_MAX


def check_queue(name: str) -> str:
    """Return a queue name that follows the rules, else raise FormatError."""
    if not QUEUE.fullmatch(name):
        raise FormatError(f'bad queue name "{name}": use a-z, then up to 31 of a-z 0-9 and _')
    return name


def check_host(name: str) -> str:
    """Return a host name that may stand in a uid, else raise FormatError.

    `accepts` is taken: it is the receipts' own directory beside the hosts' directories.
    """
    if not HOST.fullmatch(name) or name == "accepts":
        raise FormatError(
            f'bad host name "{name}": use up to 63 of A-Z a-z 0-9 and -, not "accepts"'
        )
    return name


def check_instrument(name: str) -> str:
    """Return an instrument name that may stand in a path, else raise FormatError."""
    if not INSTRUMENT.fullmatch(name):
        raise FormatError(
            f'bad instrument name "{name}": '
            "use up to 64 of A-Z a-z 0-9 . _ and -, not beginning with ."
        )
    return name


def check_ssh_host(name: str) -> str:
    """Return a host, or an alias of one, that ssh(1) may be given, else raise FormatError."""
    if not SSH_HOST.fullmatch(name):
        raise FormatError(f'"{name[:80]}" is not a host that ssh may be given')
    return name


def check_ssh_user(name: str) -> str:
    """Return a user that ssh(1) may be given, else raise FormatError."""
    if not SSH_USER.fullmatch(name):
        raise FormatError(f'"{name[:80]}" is not a user that ssh may be given')
    return name


def split_request_id(text: str) -> tuple[str, int]:
    """Split `archive-1042` into its queue and number, or raise FormatError."""
    match = REQUEST_ID.fullmatch(text)
    if not match:
        raise FormatError(f'"{text}" is not a request id such as archive-1042')
    return match[1], int(match[2])


def runs(request_ids: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Yield first, last and number of each run of request ids without a gap."""
    first, last, count = "", "", 0
    for job_id in request_ids:
        if count and split_request_id(job_id)[1] != split_request_id(last)[1] + 1:
            yield first, last, count
            count = 0
        first, last, count = (first if count else job_id), job_id, count + 1
    if count:
        yield first, last, count


def make_uid(submitted: datetime, host: str, request_id: str, random: bytes) -> str:
    """Make the wire name of a job from its UTC time, host, request id and 4 random bytes."""
    return f"{submitted:%Y%m%dT%H%M%SZ}-{host}-{request_id}-{random.hex()}"


def check_uid(uid: str) -> str:
    """Return a well-formed uid, else raise FormatError."""
    if not UID.fullmatch(uid):
        raise FormatError(f"bad uid: {uid[:80]!r}")
    return uid


def part(name: str) -> str:
    """Return the hidden name under which a file is written before it has its final one."""
    return f".{name}{PART}"


def check_dir(path: str) -> tuple[str, ...]:
    """Split a `dir` or dated directory into components, or raise FormatError.

    Each is one of `[A-Za-z0-9._-]{1,64}` without a leading dot, and the first is not a
    directory that the instrument directory keeps for itself.
    """
    components = tuple(path.split("/"))
    if len(path) > DIR_LIMIT:
        raise FormatError(f"dir is longer than {DIR_LIMIT} bytes")
    for component in components:
        if not COMPONENT.fullmatch(component):
            raise FormatError(
                f"bad dir {path[:80]!r}: use relative names of A-Z a-z 0-9 . _ and -, "
                "up to 64 each, none beginning with ."
            )
    if components[0] in RESERVED:
        raise FormatError(f"dir must not begin with {components[0]}: it is reserved")
    return components


def check_name(name: str) -> str:
    """Return a file's own name if it may be placed, else raise FormatError.

    One component of up to 255 bytes without a leading dot; its other bytes are kept.
    """
    raw = name.encode("utf-8", "surrogateescape")
    if not raw or b"/" in raw or b"\0" in raw or raw[:1] == b".":
        raise FormatError(f"bad file name {name[:80]!r}: one name, not empty, not beginning with .")
    if len(raw) > NAME_LIMIT:
        raise FormatError(f"file name is longer than {NAME_LIMIT} bytes")
    return name


def renamed(name: str, uid: str) -> str:
    """Return `<stem>.<uid><suffixes>`: where a file goes whose plain name is taken.

    A pure function of the control file, so that a sweep that died finds what it did. A
    stem too long for a name with the uid in it is cut at its end, as bytes.
    """
    raw = name.encode("utf-8", "surrogateescape")
    stem, dot, suffixes = raw.partition(b".")
    middle = b"." + uid.encode()
    room = NAME_LIMIT - len(middle) - len(dot + suffixes)
    if room < 1:  # the suffixes alone are too long: treat them as part of the stem
        stem, dot, suffixes, room = raw, b"", b"", NAME_LIMIT - len(middle)
    cut = stem[:room] + middle + dot + suffixes
    return cut.decode("utf-8", "surrogateescape")

"""Events of inotify(7), as the kernel writes them: what to ask for, and what was told. Pure."""

import struct
from collections.abc import Iterator

ATTRIB, MOVED_TO, CREATE, OVERFLOW = 0x4, 0x80, 0x100, 0x4000  # linux/inotify.h

_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name


def events(told: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield mask and name of each event in what was read at once."""
    at = 0
    while at < len(told):
        _, mask, _, length = _EVENT.unpack_from(told, at)
        at += _EVENT.size
        yield mask, told[at : at + length].rstrip(b"\0")
        at += length

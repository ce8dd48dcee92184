"""Events of inotify(7), as the kernel writes them: what to ask for, and what was told. Pure."""

import struct
from collections.abc import Iterator

# linux/inotify.h
ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE = 0x4, 0x8, 0x40, 0x80, 0x100
UNMOUNT, OVERFLOW, IGNORED, IS_DIR = 0x2000, 0x4000, 0x8000, 0x40000000
ONLY_DIR, NO_LINK = 0x01000000, 0x02000000

_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name


def events(told: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield watch, mask and name of each event in what was read at once."""
    at = 0
    while at < len(told):
        watch, mask, _, length = _EVENT.unpack_from(told, at)
        at += _EVENT.size
        yield watch, mask, told[at : at + length].rstrip(b"\0")
        at += length

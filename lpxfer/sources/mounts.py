"""Which file system a directory is on, as Linux says it in /proc/self/mountinfo.

Files on a remote one are written by other machines, too, of which this one's kernel knows
nothing: neither inotify(7) nor a lease tells of them.
"""

import os
import re
from collections.abc import Iterable, Iterator

PATH = "/proc/self/mountinfo"

_REMOTE = frozenset(
    "nfs nfs4 cifs smb3 smbfs ncpfs afs coda 9p virtiofs vboxsf ceph glusterfs lustre gpfs beegfs "
    "orangefs pvfs2 ocfs2 gfs2 panfs wekafs acfs".split()
)
_OCTAL = re.compile(rb"\\([0-7]{3})")


def is_remote(path: str) -> bool:
    """Tell whether a path is on a file system that other machines may write to.

    What is served by a program (FUSE) is taken for such a one, unless it is a block device.
    """
    kind = _kind(path)
    return kind in _REMOTE or kind == "fuse" or kind.startswith("fuse.")


def _kind(path: str) -> str:
    """Return the type of the file system that a path is on; "" where nobody knows."""
    try:
        with open(PATH, "rb") as lines:
            return kind_in(lines.read(), os.fsencode(os.path.realpath(path)))
    except OSError:
        return ""


def kind_in(mountinfo: bytes, path: bytes) -> str:
    """Return the type of the file system that a real path is on, by the text of `PATH`."""
    longest, kind = -1, b""
    for place, line in _places(mountinfo):
        within = path == place or path.startswith(place.rstrip(b"/") + b"/")
        if within and len(place) >= longest:  # of two on one place the later is on top
            longest, kind = len(place), line.partition(b" - ")[2].split(b" ")[0]
    return kind.decode("ascii", "replace")


def below(mountinfo: bytes, roots: Iterable[bytes]) -> list[bytes]:
    """Return what `PATH` says of all that is mounted below some real paths."""
    inside = tuple(root.rstrip(b"/") + b"/" for root in roots)
    return [line for place, line in _places(mountinfo) if (place + b"/").startswith(inside)]


def _places(mountinfo: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield where something is mounted, and the line that says so."""
    for line in mountinfo.splitlines():
        fields = line.split(b" ")
        if len(fields) > 5 and b" - " in line:
            yield _OCTAL.sub(lambda m: bytes([int(m[1], 8)]), fields[4]), line

"""A watched tree as it stands on disk: its directories, and its files with what they are.

Nothing here follows a symbolic link, or enters a directory whose name begins with a dot, which
file servers keep their snapshots in.
"""

import os
import stat
from collections.abc import Callable, Iterator

Report = Callable[[OSError], None]


def directories(top: str, report: Report = lambda _: None) -> Iterator[str]:
    """Yield a directory and all below it, each before what is in it is looked at."""
    waiting = [top]
    while waiting:
        path = waiting.pop()
        yield path
        try:
            with os.scandir(path) as entries:
                waiting += [e.path for e in entries if e.name[0] != "." and _is_dir(e)]
        except OSError as error:
            report(error)


def files(
    top: str, match: Callable[[str], bool], report: Report
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files whose names match, in a directory and all below it.

    `report` is told of what could not be looked at: what is there may be missing then.
    """
    waiting = [top]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.name[0] != "." and _is_dir(entry):
                        waiting.append(entry.path)
                    elif match(entry.name) and entry.is_file(follow_symlinks=False):
                        yield entry.path, entry.stat(follow_symlinks=False)
        except FileNotFoundError as error:
            if error.filename == top:
                report(error)  # what is below may go while it is looked at
        except OSError as error:
            report(error)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def look(path: str, root: str) -> os.stat_result | None:
    """Return what a path below a directory is, if it is a regular file or a directory there.

    None for what is not there, for links, and for what only a link leads to.
    """
    try:
        status = os.lstat(path)
        real = os.path.realpath(os.path.dirname(path), strict=True)
    except (OSError, ValueError):
        return None
    inside = os.path.relpath(os.path.dirname(path), root)
    if real != os.path.normpath(os.path.join(os.path.realpath(root), inside)):
        return None
    hidden = any(part.startswith(".") for part in inside.split("/") if part != ".")
    right = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return status if right and not hidden else None

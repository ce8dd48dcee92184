"""The calls that change a disk, in their order: what a power cut may keep or lose."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lpxfer import durable


def trace(patch: pytest.MonkeyPatch, root: Path) -> list[str]:
    """Record every call from now on as `verb path...`, with paths below `root`."""
    calls: list[str] = []

    def place(name: Any = ".", dir_fd: int | None = None) -> str:
        if isinstance(name, int):
            name, dir_fd = ".", name
        directory = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        return os.path.relpath(os.path.join(directory, os.fsdecode(name)), root)

    def wrap(verb: str, real: Callable[..., Any], paths: Callable[..., list[str]]) -> None:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            said = " ".join([verb, *paths(*args, **kwargs)])
            result = real(*args, **kwargs)  # one that is refused is not recorded
            calls.append(said)
            return result

        owner = durable if verb == "syncfs" else os
        patch.setattr(owner, "sync_filesystem" if verb == "syncfs" else verb, recorded)

    def two(src: Any, dst: Any, **at: Any) -> list[str]:
        return [place(src, at.get("src_dir_fd")), place(dst, at.get("dst_dir_fd"))]

    def one(name: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> list[str]:
        return [place(name, dir_fd)]

    for verb in ("rename", "link"):
        wrap(verb, getattr(os, verb), two)
    for verb in ("mkdir", "unlink", "rmdir", "fsync", "write", "pwrite"):
        wrap(verb, getattr(os, verb), one)
    wrap("syncfs", durable.sync_filesystem, one)
    return calls

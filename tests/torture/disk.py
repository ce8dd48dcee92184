"""A real file system of one's own on a loop device, whose power can be cut.

    with Disk("ext4") as disk:      # raises Unavailable with the reason where that cannot be
        (disk.path / "file").write_bytes(b"...")
        disk.sync()
        ...
        disk.cut()                  # what was not synced is gone; every call fails from here on
        disk.remount()              # the journal is replayed, as at the next start

Needs root. Whatever happens, nothing stays mounted or attached once the block is left; the
device detaches itself when a killed process could not.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

MIB = 1 << 20
PATIENCE = 10.0  # seconds until a file system that is still in use is an error

#: Kind -> mount options, smallest size. `commit` keeps ext4 from syncing by itself meanwhile.
KINDS = {"ext4": ("commit=600", 16 * MIB), "xfs": ("", 64 * MIB)}

#: XFS looks through all of its log at every mount: with one of 64 MiB that takes half of a try.
#: mkfs.xfs makes a smaller one for its own tests alone, which it knows by these.
SMALL_XFS = dict.fromkeys(("TEST_DIR", "TEST_DEV", "QA_CHECK_FS"), "1")

_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2  # FS_IOC_SHUTDOWN, of ext4 and XFS alike
_READ_ONLY, _REMOUNT, _DETACH = 1, 32, 2  # of mount(2) and umount2(2)

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """This machine cannot make such a disk; the text says why."""


class Disk:
    """One file system, mounted at `path`."""

    def __init__(self, kind: str, size: int = 0, path: Path | None = None) -> None:
        """Make and mount it: `size` bytes, at an empty directory or one of its own.

        The image is sparse, and in memory where there is /dev/shm. Raises Unavailable.
        """
        if os.geteuid() != 0:
            raise Unavailable("only root can mount file systems")
        if not shutil.which(f"mkfs.{kind}"):
            raise Unavailable(f"mkfs.{kind} is missing")
        self.kind = kind
        self._options, least = KINDS[kind]
        self._own = None if path else tempfile.mkdtemp(prefix="lpxfer-disk-")
        self.path = path or Path(str(self._own))
        self._mounted = False
        self._device = self._fd = -1
        try:
            self._name = self._attach(max(size, least))
            self.mount()
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            why = getattr(error, "stderr", None) or str(error)
            raise Unavailable(f"no {kind} on a loop device: {why.strip()}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Disk":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _attach(self, size: int) -> str:
        """Make the image and give it a loop device, which lasts as long as we hold it open."""
        memory = Path("/dev/shm")
        with tempfile.NamedTemporaryFile(dir=memory if memory.is_dir() else None) as image:
            image.truncate(size)
            _run(f"mkfs.{self.kind}", "-q", image.name)
            name = _run("losetup", "--find", "--show", image.name).strip()
        self._device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        _run("losetup", "--detach", name)  # takes place when the last one closes it
        return name

    def mount(self, read_only: bool = False) -> None:
        """Mount it, which replays its journal."""
        _mount(self._name, self.path, self.kind, _READ_ONLY * read_only, self._options)
        self._mounted = True
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def unmount(self) -> None:
        """Unmount it."""
        self._let_go()
        unmount(self.path)
        self._mounted = False

    def remount(self) -> None:
        """Unmount it and mount it again, as a machine that starts after a power cut."""
        self.unmount()
        self.mount()

    def read_only(self, switch: bool) -> None:
        """Make it read-only, or writable again, under those who use it; raises OSError."""
        flags = _REMOUNT | _READ_ONLY * switch
        _mount(self._name, self.path, self.kind, flags, self._options)

    def sync(self) -> None:
        """Bring everything on it to stable storage."""
        if _libc.syncfs(self._fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(self.path))

    def cut(self) -> None:
        """Cut its power: nothing more reaches it, not even its journal's latest."""
        fcntl.ioctl(self._fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))

    def clear(self) -> None:
        """Remove everything in it."""
        for entry in os.scandir(self.path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    def close(self) -> None:
        """Unmount it, whoever still uses it, and let the device go."""
        self._let_go()
        if self._mounted:
            _libc.umount2(os.fsencode(self.path), _DETACH)
            self._mounted = False
        if self._device >= 0:
            os.close(self._device)
            self._device = -1
        if self._own:
            os.rmdir(self._own)
            self._own = None

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _run(*command: str) -> str:
    env = os.environ | SMALL_XFS
    done = subprocess.run(command, env=env, check=True, text=True, capture_output=True)
    return done.stdout


def unmount(path: Path) -> None:
    """Unmount what is there; whoever was killed may still be closing what it had open there."""
    deadline = time.monotonic() + PATIENCE
    while _libc.umount2(os.fsencode(path), 0):
        error = ctypes.get_errno()
        if error != errno.EBUSY or time.monotonic() > deadline:
            raise OSError(error, os.strerror(error), str(path))
        time.sleep(0.005)


def _mount(device: str, path: Path, kind: str, flags: int, options: str) -> None:
    words = (device.encode(), os.fsencode(path), kind.encode())
    if _libc.mount(*words, ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))

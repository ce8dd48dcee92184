"""Kill a process with SIGKILL at any system call of any of its threads, by ptrace(2).

The process is forked from one that has imported everything, so a try costs milliseconds; a
filter of the kernel (seccomp) lets every other call pass unseen.
It is stopped before every call that changes what others can see: files, names, bytes on a
connection; after a call that has sent bytes, too, for then the far end works on alone.
Between two of these stops nothing outside the process changes, so a kill at any other call
(of memory, clocks, locks, reading) is the kill at the next stop: those are not counted.
"""

import ctypes
import os
import platform
import signal
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass

#: x86_64's numbers of the calls that change what others can see.
CALLS = {
    1: "write", 16: "ioctl", 18: "pwrite64", 20: "writev", 40: "sendfile", 42: "connect",
    44: "sendto", 46: "sendmsg", 48: "shutdown", 62: "kill", 74: "fsync", 75: "fdatasync",
    76: "truncate", 77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat",
    86: "link", 87: "unlink", 88: "symlink", 90: "chmod", 91: "fchmod", 92: "chown",
    93: "fchown", 133: "mknod", 162: "sync", 188: "setxattr", 190: "fsetxattr",
    231: "exit_group", 235: "utimes", 257: "openat", 258: "mkdirat", 259: "mknodat",
    260: "fchownat", 263: "unlinkat", 264: "renameat", 265: "linkat", 266: "symlinkat",
    268: "fchmodat", 277: "sync_file_range", 280: "utimensat", 285: "fallocate",
    296: "pwritev", 306: "syncfs", 316: "renameat2", 326: "copy_file_range",
}  # fmt: skip
_OPEN, _IOCTL, _FICLONE = 257, 16, 0x40049409
_SENDS, _WRITES = {20, 42, 44, 46, 48}, {1, 18}

_TRACEME, _POKEUSER, _CONT, _SYSCALL, _SETOPTIONS, _INFO = 0, 6, 7, 24, 0x4200, 0x420E
_OPTIONS = 0x00000001 | 0x00000008 | 0x80 | 0x00100000  # SYSGOOD, CLONE, SECCOMP, EXITKILL
_FILTERED = 7  # the event of a stop by the filter
_WALL = 0x40000000
_EXIT = 2
_RDX = 12 * 8  # in struct user: the third argument, a write's length


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info."""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    ]


@dataclass(frozen=True)
class End:
    """How a traced process ended."""

    killed: str = ""  # the call at which it was killed: "fsync"; empty: it ran to its end
    status: int = 0  # its exit status then
    stops: int = 0  # counted until then


def why_not() -> str:
    """Return why this machine cannot do it, or nothing."""
    if platform.machine() != "x86_64" or os.uname().sysname != "Linux":
        return "the tracer knows the system calls of Linux on x86_64 only"
    try:
        run(lambda: None)
    except OSError as error:
        return f"ptrace: {error.strerror}"
    return ""


def run(act: Callable[[], int | None], number: int = 0, half: bool = False) -> End:
    """Let `act` run in a process of its own that is killed at the stop of this number.

    With `half` only writes are counted, and the one of this number writes the first half
    before it dies. The process exits with what `act` returns.
    """
    pid = os.fork()
    if pid == 0:
        _be_traced(act)
    tracer = _Tracer(pid, number, half)
    try:
        return tracer.follow()
    finally:
        tracer.reap()


def _be_traced(act: Callable[[], int | None]) -> None:
    status = 99
    try:
        os.setpgid(0, 0)
        _ptrace(_TRACEME)
        os.kill(os.getpid(), signal.SIGSTOP)
        _let_others_pass()
        status = act() or 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - a fork must not return
        traceback.print_exc()
    finally:
        os._exit(status)


def _let_others_pass() -> None:
    """Have only what is in CALLS stopped, in this thread and all that it starts; see seccomp(2)."""
    load, equal, any_bit = 0x20, 0x15, 0x45  # BPF_LD, BPF_JEQ, BPF_JSET; then how far to jump
    stop, allow = (0x06, 0, 0, 0x7FF00000), (0x06, 0, 0, 0x7FFF0000)  # BPF_RET
    program = [(load, 0, 0, 0)]  # the call's number
    for number in CALLS.keys() - {_OPEN, _IOCTL}:
        program += [(equal, 0, 1, number), stop]
    writes = (any_bit, 0, 1, os.O_CREAT | os.O_TRUNC)
    for number, argument, test in ((_OPEN, 32, writes), (_IOCTL, 24, (equal, 0, 1, _FICLONE))):
        program += [(equal, 0, 4, number), (load, 0, 0, argument), test, stop, allow]
    program += [allow]
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(text)))
    for words in ((38, 1, 0), (22, 2, ctypes.addressof(head))):  # no new privileges; the filter
        if _libc.prctl(*map(ctypes.c_ulong, words), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise OSError(ctypes.get_errno(), "seccomp")


class _Tracer:
    def __init__(self, pid: int, number: int, half: bool) -> None:
        self._pid, self._number, self._half = pid, number, half
        self._stops, self._known = 0, {pid}
        self._sending: set[int] = set()
        self._cut: set[int] = set()  # threads that die when their half of a write is done

    def follow(self) -> End:
        if not os.WIFSTOPPED(os.waitpid(self._pid, _WALL)[1]):
            raise OSError(1, "the process could not be traced")
        _ptrace(_SETOPTIONS, self._pid, 0, _OPTIONS)
        _ptrace(_CONT, self._pid)
        while True:
            tid, status = os.waitpid(-self._pid, _WALL)
            if not os.WIFSTOPPED(status):
                if tid == self._pid:
                    return End("", os.waitstatus_to_exitcode(status), self._stops)
                continue
            number = os.WSTOPSIG(status)
            if number == signal.SIGTRAP | 0x80 or status >> 16 == _FILTERED:
                if call := self._at_call(tid):
                    os.kill(self._pid, signal.SIGKILL)
                    return End(call, -9, self._stops)
                number = 0
            elif number == signal.SIGTRAP or tid not in self._known:
                number = 0  # a new thread, or its first stop
                self._known.add(tid)
            self._go_on(tid, number)

    def _at_call(self, tid: int) -> str:
        """Count a stop; return the call's name when it is the one to die at."""
        info = _Info()
        _ptrace(_INFO, tid, ctypes.sizeof(info), ctypes.addressof(info))
        if info.op == _EXIT:
            if tid in self._cut:
                return "half a write"
            if tid in self._sending:
                self._sending.discard(tid)
                return self._count("after it sent")
            return ""
        name = CALLS[info.nr]
        if self._half:
            if info.nr in _WRITES and self._count(name):
                _ptrace(_POKEUSER, tid, _RDX, info.args[2] // 2)
                self._cut.add(tid)
            return ""
        if info.nr in _SENDS:
            self._sending.add(tid)
        return self._count(name)

    def _count(self, name: str) -> str:
        self._stops += 1
        return name if self._stops == self._number else ""

    def _go_on(self, tid: int, number: int) -> None:
        to_its_end = tid in self._sending or tid in self._cut
        try:
            _ptrace(_SYSCALL if to_its_end else _CONT, tid, 0, number)
        except ProcessLookupError:
            pass  # it died meanwhile

    def reap(self) -> None:
        """Wait until every thread is gone, and with them all locks and connections."""
        while True:
            try:
                os.waitpid(-self._pid, _WALL)
            except ChildProcessError:
                return


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int = 0, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

"""Real accounts of a test, made and removed again; and being one of them for a while."""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO


@contextlib.contextmanager
def accounts(*users: str, group: str = "") -> Iterator[None]:
    """Make system accounts for a block: in a new group of that name, else each in its own."""
    with contextlib.ExitStack() as made:
        if group:
            _run("groupadd", "--system", group)
            made.callback(_run, "groupdel", group)
        for user in users:
            within = ["-g", group] if group else ["--user-group"]
            # `*` and not `!`: without PAM sshd takes the latter for a locked account
            _run("useradd", "--system", *within, "--password", "*", user)
            made.callback(_run, "userdel", user)
        yield


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def own(path: str | os.PathLike[str], user: str, mode: int | None = None) -> None:
    """Give a file or directory to an account and its group."""
    who = pwd.getpwnam(user)
    os.chown(path, who.pw_uid, who.pw_gid, follow_symlinks=False)
    if mode is not None:
        os.chmod(path, mode)


@dataclass
class Running:
    """A child process that is another account"""

    pid: int
    output: BinaryIO
    status: int | None = None

    def over(self) -> bool:
        """Tell whether it has ended by now."""
        return self._look(os.WNOHANG)

    def wait(self, seconds: float) -> tuple[int, str]:
        """Return its exit status and all it printed; -9 when it had to be killed. Call it once."""
        timer = threading.Timer(seconds, self.signal, [signal.SIGKILL])
        timer.start()
        try:
            self._look(0)
        finally:
            timer.cancel()
        assert self.status is not None
        with self.output as output:
            output.seek(0)
            return self.status, output.read().decode(errors="backslashreplace")

    def _look(self, options: int) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, options)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start(user: str, act: Callable[[], object], umask: int = 0o077, **environ: str) -> Running:
    """Do something in a forked child that has become the user, by default with the strictest umask.

    Its exit status is that of its SystemExit, 99 after another exception. What it imports
    late must be imported already: a user cannot read root's Python.
    """
    output = tempfile.TemporaryFile()
    who, groups = pwd.getpwnam(user), os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    child = os.fork()
    if child:
        return Running(child, output)
    status = 99
    try:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = open(1, "w", closefd=False)
        os.environ |= {"HOME": "/nonexistent", **environ}
        os.setgroups(groups)
        os.setgid(who.pw_gid)
        os.setuid(who.pw_uid)
        os.umask(umask)
        act()
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 98
    except BaseException:  # noqa: BLE001 - the child must end here
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def run_as(
    user: str,
    act: Callable[[], object],
    seconds: float = 60,
    umask: int = 0o077,
    **environ: str,
) -> tuple[int, str]:
    """Do something as a user; return its exit status and what it printed. See `start`."""
    return start(user, act, umask, **environ).wait(seconds)

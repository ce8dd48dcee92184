"""Every change of a disk that sweeps make over hostile arrivals, from the system call log.

    python -m torture.hostile_calls CASE-NUMBER...    plant, say where, wait for a line, sweep

The commands themselves sweep what is new, the library what has become old: a command cannot
be told another time. strace names the directory of every descriptor, so a name is judged by
where it is, not by what it says.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from torture.corpus import Case, cases
from torture.hostile_case import Ground, sweeps
from torture.table import Result

ROOT = Path(__file__).parents[2]

_OPEN = {"open", "openat", "openat2", "creat"}
_FD = set(
    "write pwrite64 writev pwritev pwritev2 ftruncate fchmod fchown fallocate fsetxattr "
    "fremovexattr sendfile copy_file_range splice ioctl".split()
)
_NAMES = set(
    "rename renameat renameat2 link linkat symlink symlinkat mkdir mkdirat mknod mknodat unlink "
    "unlinkat rmdir truncate chmod fchmodat chown lchown fchownat utime utimes utimensat "
    "futimesat setxattr lsetxattr removexattr lremovexattr".split()
)

_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (\d+)(?:<([^>]*)>)?")
_ARGUMENT = re.compile(r'(?:AT_FDCWD|\d+)<((?:\\x..)*)>|"((?:\\x..)*)"(\.\.\.)?')
_WRITES = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND")


def run(chosen: Sequence[tuple[int, Case]]) -> Iterator[Result]:
    """Sweep all cases that can stand together in one site, the others each in its own."""
    result = Result("hostile arrivals: changes outside, by system calls")
    if reason := _missing():
        result.not_run = reason
        yield result
        return
    together = [str(number) for number, case in chosen if not case.alone]
    alone = [str(number) for number, case in chosen if case.alone]
    changes = 0
    for numbers in (together, alone):
        seen, outside, told = _traced(numbers)
        changes += seen
        probe = [line for line in outside if line.endswith("/probe")]
        bad = [line for line in outside if line not in probe]
        if not probe:
            bad.append("the log does not show the file that was made outside to try it")
        bad += told
        result.tries += len(numbers)
        result.survived += 0 if bad else len(numbers)
        again = f"PYTHONPATH=tests python -m torture.hostile_calls {' '.join(numbers)}"
        result.violations += [f"{line!a}; play it again under strace: {again}" for line in bad]
    result.notes["changes of the disk judged"] = changes
    yield result


def _missing() -> str:
    if not shutil.which("strace"):
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "this account may not trace its own processes"


def _traced(numbers: Sequence[str]) -> tuple[int, list[str], list[str]]:
    """Sweep these cases under strace; return changes seen, places outside, other faults."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        trace = ",".join(sorted(_OPEN | _FD | _NAMES))
        command = [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-y",
            "-xx",
            "-s",
            "600",
            "-e",
            f"trace={trace}",
        ]
        command += [
            "-o",
            str(log),
            "--",
            sys.executable,
            "-B",
            "-m",
            "torture.hostile_calls",
            *numbers,
        ]
        environ = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
        done = subprocess.run(command, env=environ, capture_output=True, check=False)
        told = [f"the sweeps ended: {done.stderr.decode()[-400:]}"] if done.returncode else []
        roots = done.stdout.decode().splitlines()
        text = log.read_bytes()
    # what is planted and removed by the harness itself stands before `begin` and after `end`
    seen, outside = 0, []
    for (begin, end), root in zip(_spans(text), roots, strict=not told):
        allowed = [f"{root}/site/{name}" for name in ("incoming", "minicam", "any", "receipts")]
        for place in changes(text[begin:end].decode().splitlines()):
            seen += 1
            if not any(place == top or place.startswith(f"{top}/") for top in allowed):
                outside.append(place)
    return seen, outside, told


def _spans(text: bytes) -> Iterator[tuple[int, int]]:
    """Find what lies between the marks that the traced process has set."""
    start = 0
    while (begin := text.find(_mark("begin"), start)) >= 0:
        end = text.find(_mark("end"), begin)
        yield begin + len(_mark("begin")), end
        start = end


def _mark(word: str) -> bytes:
    return b'"' + "".join(f"\\x{byte:02x}" for byte in f"/lpxfer-{word}".encode()).encode() + b'"'


def changes(lines: Sequence[str]) -> Iterator[str]:
    """Yield every path that a call of a log has changed."""
    for line in lines:
        if not (match := _LINE.match(line)):
            continue
        call, arguments, _, opened = match.groups()
        if call in _OPEN:
            if any(flag in arguments for flag in _WRITES):
                yield from _files(_unhex(opened or ""))
        elif call in _FD:
            if call != "ioctl" or "FICLONE" in arguments:
                yield from _files(*(_unhex(m[1]) for m in _ARGUMENT.finditer(arguments) if m[1]))
        elif call in _NAMES:
            yield from _named(call, arguments)


def _named(call: str, arguments: str) -> Iterator[str]:
    """Resolve the names in a call, each beneath the descriptor before it.

    A name has one component wherever a sweep changes something; an open tells where it ended.
    """
    where, skip = "", call.startswith("symlink")  # the first name is what the link says
    for match in _ARGUMENT.finditer(arguments):
        directory, name, cut = match.groups()
        if name is None:
            where = _unhex(directory)
            if "NULL" in arguments:
                yield from _files(where)
            continue
        if skip:
            skip = False
            continue
        yield "a name that was cut" if cut else os.path.normpath(os.path.join(where, _unhex(name)))


def _files(*paths: str) -> Iterator[str]:
    """Leave out pipes, sockets and /dev/null."""
    return (path for path in paths if path.startswith("/") and path != "/dev/null")


def _unhex(text: str) -> str:
    return os.fsdecode(bytes.fromhex(text.replace("\\x", "")))


def _main(numbers: Sequence[str]) -> None:
    """Plant cases, those that can in one site; sweep each site between two marks."""
    every = dict(enumerate(cases(), 1))
    chosen = {int(number): every[int(number)] for number in numbers}
    together = {n: case for n, case in chosen.items() if not case.alone}
    groups = [together] if together else []
    groups += [{n: case} for n, case in chosen.items() if case.alone]
    for group in groups:
        with Ground() as ground:
            for number, case in group.items():
                case.plant(ground.site, number)
            case = next(iter(group.values()))
            conf = _configure(ground)
            _set("begin")
            (ground.outside / "probe").touch()
            if not case.alone:
                _commands(ground, conf)
            for old in (False, True):
                list(sweeps(ground.site, case, old))
            _set("end")
            print(ground.root, flush=True)  # noqa: T201


def _set(word: str) -> None:
    """Leave a mark in the log: a call that fails and changes nothing."""
    with contextlib.suppress(OSError):
        os.rmdir(f"/lpxfer-{word}")


def _configure(ground: Ground) -> Path:
    conf, site = ground.root / "lpxfer.conf", ground.site
    conf.write_text(
        f"[lpxfer]\nincoming = {site.incoming}\nreceipts = {site.root}/receipts\nstale = 1s\n"
        f"strangers = {site.any}\n[instrument minicam]\ndir = {site.home}\n"
    )
    return conf


def _commands(ground: Ground, conf: Path) -> None:
    """Let the real commands sweep."""
    for words in (["-i", "minicam"], ["-A"], ["-i", "minicam"]):
        command = [sys.executable, "-B", str(ROOT / "bin/xfer-sweep"), "--config", str(conf)]
        done = subprocess.run([*command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode not in (0, 1, 75) or b"Traceback" in done.stderr:
            raise AssertionError(f"{words} ended with {done.returncode}: {done.stderr[-500:]!r}")


if __name__ == "__main__":
    _main(sys.argv[1:])

"""What is said of hostile values: on a terminal, in JSON, in logs; one event, one line.

Every option and argument of every command gets them, and a file that is called so goes the
whole way, with everything that can be asked or told about it. The commands run in children
of this process, as their launchers would call them.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import re
import signal
import socket
import sys
import tempfile
import threading
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from torture.corpus import seal
from torture.table import Result

import lpxfer.cli
from lpxfer.formats import keyvalue

#: A line of its own that no command says by itself.
_FORGED = "\nFORGED stored uid=1\r"

VALUES = (
    f"v\x1b]0;x\x07{_FORGED}\x9b2J\udc9b\udcff\x7f\x08\u202e\u2066\u2028\u200e\x85end",
    "v\x1b]0;owned\x07\x1bc",
    f"v{_FORGED}",
    "v\u202egnp\u2066\u061c\u200f\u2029",
    "v\x9b2J\x90\x85\x84",
    "v\udc9b2J\udcff\udc85",
)

#: What is typed: V is the value, F a file that is called so, R the directory of both sites.
#: What stands behind a `?` only looks, or is refused; a line `@` is a method of the stage.
STORY = """
xfer-submit -d archive -o inst=minicam -o Observer=V F
xfer-submit --json -o inst=minicam -o Observer=V F
xfer-submit -d bad F
xfer-submit -H hold F
xfer-submit -o remhost=V F
? xfer-submit Fx
? xfer-submit R/files/dV
? xfer-submit F/x
? xfer-submit /dev/null
? xfer-submit -o V F
? xfer-submit -o V=1 F
? xfer-submit -o inst=V F
? xfer-submit -o dir=V F
? xfer-submit -o rempw=V F
? xfer-submit -o rempw=file:R/V F
? xfer-submit -o maxftp=V F
xfer-ctl hold -r V archive-1
@ask
xfer-ctl disable -r V archive
xfer-ctl reject -r V archive
? xfer-ctl hold V
? xfer-ctl move bad-1 archive
? xfer-ctl priority 7 V
? xfer-ctl V
? xfer-submit F
xfer-send --once archive
@ask
xfer-ctl enable archive
xfer-ctl accept archive
xfer-ctl release archive-1
xfer-send --once
@plant
xfer-submit -o inst=minicam F
xfer-send --once archive
@spoil
? xfer-sweep -i minicam --dry-run
? xfer-sweep -A --dry-run
xfer-sweep -i minicam --json
xfer-sweep -A --json
xfer-submit -o inst=minicam F
xfer-send --once archive
xfer-sweep -i minicam
xfer-sweep -A
xfer-logsum -i minicam
? xfer-logsum -i minicam --json
? xfer-logsum -i all
? xfer-logsum -i all -l R/home/xferlogs
? xfer-logsum -i minicam -l R/home/xferlogs/20030402.tdcin.log.V
? xfer-logsum -i minicam -f R/home/xferlogs/20030402.tdcin.log.V
? xfer-logsum -i minicam -v -B 2003-04-02
xfer-send --once archive
xfer-audit -v
xfer-audit --safe
? xfer-audit --json
? xfer-audit --safe --json
? xfer-audit -i minicam -l R/home/xferlogs --receipts R/receipts
? xfer-audit -l R/home/xferlogs/20030402.tdcin.log.V
@stray
@ask
xfer-audit -v
? xfer-fsck
? xfer-fsck --json
xfer-fsck -d R/home
? xfer-fsck -d R/V
? xfer-fsck --json -d R/home
xfer-fsck --repair
xfer-fsck --repair -d R/home
xfer-submit -d far F
@greeting
xfer-cancel V archive-3 bad-1
xfer-cancel -a
@ask
"""

ASK = """
? xfer-stat
xfer-stat -l
? xfer-stat -W all -l
? xfer-stat --json
? xfer-stat -t
? xfer-stat -s
? xfer-stat -p -a
xfer-stat --check
? xfer-stat --check 1s
? xfer-stat -o V
? xfer-stat archive-1 V
"""

SPARSE = 6  # one in so many of what only looks is typed in a sparse run

_ACTING = re.compile(
    "[\0-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COMPLAINT = re.compile(r"xfer-[a-z]+: |Usage: |Try |Error: |$")


def run(short: bool) -> Iterator[Result]:
    """Push each value through everything; all but the first, which has it all, sparsely."""
    result = Result("hostile words: on terminals, in JSON, in logs")
    for number, value in enumerate(VALUES[: 1 if short else None]):
        with tempfile.TemporaryDirectory() as directory:
            stage = _Stage(Path(directory), value, result, number, short or number > 0)
            stage.play(STORY)
            stage.logs()
            for name, command in commands():
                stage.arguments(name, command, [])
    yield result


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that there is."""
    for module in pkgutil.iter_modules(lpxfer.cli.__path__):
        if module.name.startswith("xfer_"):
            found = importlib.import_module(f"lpxfer.cli.{module.name}")
            yield module.name.replace("_", "-"), found.main


class _Stage:
    """A telescope site and an archive site in one directory, and one hostile value."""

    def __init__(self, root: Path, value: str, result: Result, number: int, sparse: bool) -> None:
        self._root, self._value, self._result, self._number = root, value, result, number
        self._looks, self._every = number, SPARSE if sparse else 1
        for name in ("incoming", "receipts", "home/xferlogs", "any", "files"):
            (root / name).mkdir(parents=True)
        self._file = root / "files" / f"{value}.fits"
        self._file.write_bytes(b"SIMPLE  =")
        (root / "files" / f"d{value}").mkdir()
        one_line = "".join(c for c in value if len(f"a{c}b".splitlines()) == 1 and c < "\ud800")
        self._conf = root / "lpxfer.conf"
        self._conf.write_text(
            f"[lpxfer]\nspool = {root}/spool\nhost = mmto\nqueue = archive\n"
            f"incoming = {root}/incoming\nreceipts = {root}/receipts\nstrangers = {root}/any\n"
            f"[queue archive]\ntransport = local\nrempath = {root}/incoming\n"
            f"[queue bad]\ntransport = local\nrempath = {root}/{one_line}\n"
            f"[queue far]\nremhost = 127.0.0.1:1\nknown_hosts = {root}/known\n"
            f"[instrument minicam]\ndir = {root}/home\n"
        )

    def play(self, story: str) -> None:
        """Type the lines of a story."""
        for line in story.split("\n"):
            if line.startswith("@"):
                getattr(self, line[1:])()
            elif line:
                look, words = line.startswith("? "), line.removeprefix("? ").split()
                self.type([self._word(word) for word in words], look)

    def _word(self, word: str) -> str:
        for letter, stands_for in (("R/", f"{self._root}/"), ("F", str(self._file))):
            if word.startswith(letter):
                word = stands_for + word[len(letter) :]
        return word.replace("V", self._value, 1) if "V" in word else word

    def type(self, words: Sequence[str], look: bool) -> None:
        """Run a command and look at what it says."""
        self._looks += look
        if not look or self._looks % self._every == 0:
            status, out, err = _run(words, self._root)
            shown = f"value {self._number}: {' '.join(words)!a}"
            self._result.count(_judged(shown, words, status, out, err))

    def ask(self) -> None:
        """Ask for everything that xfer-stat knows."""
        self.play(ASK)

    def plant(self) -> None:
        """Put hostile names where sweeps and reports look."""
        value, incoming, logs = self._value, self._root / "incoming", self._root / "home/xferlogs"
        for name in (f"{value}.control", f"{value}.data", f".{value}.data.part"):
            (incoming / name).write_bytes(b"x")
        (incoming / f"l{value}.control").symlink_to(value)
        (incoming / "lines.control").write_bytes(seal(os.fsencode(value) + b"\n"))
        (logs / f"20030402.tdcin.log.{value}").write_bytes(os.fsencode(value))
        (logs / f"20030403.tdcin.log.{value}").symlink_to(value)

    def spoil(self) -> None:
        """Make what came to be refused, each for another reason that repeats the value."""
        value = self._value
        for number, path in enumerate(sorted((self._root / "incoming").glob("2*.control"))):
            said = keyvalue.load(path.read_bytes())
            ways = {"dir": value}, {"name": f".{value}"}, {"inst": value}, {"format": value}
            path.write_bytes(keyvalue.dump((said | ways[number % len(ways)]).items()))

    def stray(self) -> None:
        """Put hostile names where an inspection looks."""
        (self._root / "spool/archive/pending" / self._value).mkdir()
        (self._root / "spool/archive/failed" / f"f{self._value}").write_bytes(b"x")
        (self._root / "home" / f"stray{self._value}").write_bytes(b"x")

    def greeting(self) -> None:
        """Send to a server whose first words are hostile."""
        for line in ("SSH-2.0-" + self._value, self._value):
            with _server(line) as port:
                text = self._conf.read_bytes()
                self._conf.write_bytes(re.sub(rb"127.0.0.1:\d+", b"127.0.0.1:%d" % port, text))
                self.play("xfer-send --once far\n? xfer-stat -l")

    def logs(self) -> None:
        """Look at every log, receipt and reason that came of it: one event, one line."""
        for top in ("home", "any", "receipts", "spool"):
            for path in (self._root / top).rglob("*"):
                ours = path.suffix in (".log", ".reason") and self._value not in path.name
                if ours and path.is_file() and not path.is_symlink():
                    text = path.read_bytes().decode("utf-8", "surrogateescape")
                    found = _ACTING.search(text) or re.search("^FORGED", text, re.M)
                    where = f"value {self._number}: {path.relative_to(self._root)!a}"
                    self._result.count(f"{where} has {found[0]!a}" if found else None)

    def arguments(self, name: str, command: click.Command, before: Sequence[str]) -> None:
        """Give the value to every option and argument of a command."""
        value = self._value
        if isinstance(command, click.Group):
            for word, sub in command.commands.items():
                self.arguments(name, sub, [*before, word])
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.is_flag:
                self.type([name, *before, parameter.opts[0], value], look=True)
        for words in ([value], [f"--{value}"], [f"-{value}"], ["--version", value], [value, value]):
            self.type([name, *before, *words], look=True)


def _run(words: Sequence[str], root: Path) -> tuple[int, bytes, bytes]:
    """Run a command in a child; return its exit status and what it said."""
    name = words[0]
    main = importlib.import_module(f"lpxfer.cli.{name.replace('-', '_')}").main
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _command(main, name, words[1:], root, out.fileno(), err.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


def _command(
    main: Callable[..., Any], name: str, words: Sequence[str], root: Path, out: int, err: int
) -> None:
    """Become a command; never returns."""
    status = 99
    try:
        os.environ |= {"HOME": str(root), "XFER_CONF": str(root / "lpxfer.conf"), "TZ": "UTC"}
        os.chdir(root)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdin = open(0, closefd=False)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        signal.alarm(60)
        main(args=list(words), prog_name=name)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001 - shown as a violation
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _judged(shown: str, words: Sequence[str], status: int, out: bytes, err: bytes) -> str | None:
    """Say what is wrong with what a command said."""
    if status not in (0, 1, 2, 75):
        return f"{shown}: exit status {status}: {err[-600:]!a}"
    if words[0] == "xfer-send" and "--once" in words and status not in (0, 75):
        return f"{shown}: a job ended the sender: {err[-600:]!a}"
    for stream in (out, err):
        text = stream.decode("utf-8", "surrogateescape")
        for line in text.split("\n"):
            acting = [c for c in line.removeprefix("\t") if _acts(c)]
            if acting or line.startswith("FORGED"):
                return f"{shown}: says {line[:300]!a}"
    if words[0] != "xfer-demo":
        for line in err.decode("utf-8", "surrogateescape").split("\n"):
            if not _COMPLAINT.match(line):
                return f"{shown}: a line of its own: {line[:300]!a}"
    if "--json" in words and status in (0, 1) and out:
        try:
            json.loads(out)
        except ValueError as error:
            return f"{shown}: not JSON: {error}: {out[:200]!a}"
    return None


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


@contextlib.contextmanager
def _server(line: str) -> Iterator[int]:
    """Be a server on the loopback that says one line to everybody and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = server.accept()
                    with link:
                        link.sendall(os.fsencode(line) + b"\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()

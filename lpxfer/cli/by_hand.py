"""Commands as a person types them: shown, and run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

import lpxfer
from lpxfer.errors import PermanentError
from lpxfer.formats import shell


def run(conf: Path, *words: str, good: tuple[int, ...] = (0,)) -> str:
    """Show a command and run it with this configuration; return what it printed.

    Raises PermanentError for an exit status that is not in `good`.
    """
    click.echo(f"$ {line(conf, *words)}")
    environ = {k: v for k, v in os.environ.items() if k not in overrides()}
    environ["XFER_CONF"] = str(conf)
    done = subprocess.run([_launcher(words[0]), *words[1:]], env=environ, stdout=subprocess.PIPE)
    click.echo(done.stdout, nl=False)
    if done.returncode not in good:
        command = shell.command(words)
        raise PermanentError(f"exit status {done.returncode} of: {command}")
    return done.stdout.decode("utf-8", "replace")


def overrides() -> set[str]:
    """Return the variables in the environment that commands would obey."""
    return {name for name in os.environ if name.startswith("XFER_")}


def line(conf: Path | None, *words: str) -> str:
    """Write a command of lpxfer so that it can be copied into a shell."""
    environ = {"XFER_CONF": str(conf)} if conf else {}
    return shell.command([_launcher(words[0]), *words[1:]], **environ)


def _launcher(name: str) -> str:
    """Return the command beside this one: by its name alone where the shell finds that one."""
    beside = [Path(sys.argv[0]).parent] if os.sep in sys.argv[0] else []
    checkout, python = Path(lpxfer.__file__).parents[1] / "bin", Path(sys.executable).parent
    for directory in [*beside, checkout, python]:
        if (directory / name).exists():
            found = shutil.which(name)
            same = found is not None and os.path.samefile(found, directory / name)
            return name if same else os.path.abspath(directory / name)
    raise PermanentError(f"cannot find {name} beside xfer-demo: install all of lpxfer")

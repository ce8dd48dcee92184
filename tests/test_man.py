"""A manual page for every command and format, which says what the program does and no more."""

import configparser
import importlib
import re
import shutil
import subprocess
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import click
import pytest

from lpxfer import codec
from lpxfer.formats import accepts, bundle, config, control, dates, keyvalue
from lpxfer.formats.accepts import Accepts

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "man").iterdir())
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
COMMANDS = dict(
    line.split(" = ")
    for line in SETUP["options.entry_points"]["console_scripts"].strip().splitlines()
)
SECTIONS = {
    "lpxfer": config.Config,
    "queue NAME": config.QueueConfig,
    "instrument NAME": config.InstrumentConfig,
    "web": config.WebConfig,
}

each_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
each_command = pytest.mark.parametrize("command", COMMANDS)


def page_of(command: str) -> str:
    path = ROOT / f"man/{command}.1"
    assert path.exists(), f"{command} has no manual page"
    return path.read_text()


# --- commands ----------------------------------------------------------------------------


def options(command: click.Command) -> set[str]:
    """Return every form of every option of a command, and of its subcommands."""
    context = click.Context(command, **command.context_settings)
    found: set[str] = set()
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            found.update(parameter.opts, parameter.secondary_opts)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand
            found |= options(subcommand)
    return found


def documented(page: str) -> set[str]:
    """Return the options that head an entry of a list in a page; tables are no lists."""
    found, lists = set(), []
    for line in page.splitlines():
        macro, *words = line.split() or [""]
        if macro == ".Bl":
            lists.append(words[0])
        elif macro == ".El":
            lists.pop()
        elif macro == ".It" and lists[-1] != "-column":
            found |= {f"-{option}" for fl, option in pairwise(words) if fl == "Fl"}
            found |= {word for word in words if re.fullmatch(r"\+[A-Za-z]+", word)}
    return found


@each_command
def test_a_page_has_every_option_of_its_command_and_no_other(command: str) -> None:
    module, _, function = COMMANDS[command].partition(":")
    asked = options(getattr(importlib.import_module(module), function))
    told = documented(page_of(command))
    assert told == asked, f"missing: {asked - told or 'none'}; no such: {told - asked or 'none'}"


@each_command
def test_a_page_of_a_command_has_examples_and_exit_statuses(command: str) -> None:
    page = page_of(command)
    assert ".Sh EXAMPLES\n" in page and ".Sh EXIT STATUS\n" in page
    assert f".Nm {command}\n" in page


# --- configuration ------------------------------------------------------------------------


def keys(section: type) -> set[str]:
    return {f.name for f in fields(section)} - config.NO_KEYS


def test_the_page_of_the_configuration_has_every_key_and_no_other() -> None:
    page = (ROOT / "man/lpxfer.conf.5").read_text()
    parts = re.findall(r"^\.Ss Sections? (.+)\n(?s:(.*?))(?=^\.S[sh] )", page, re.MULTILINE)
    told = {name: set(re.findall(r"^\.It Cm (\w+)$", text, re.MULTILINE)) for name, text in parts}
    assert told == {name: keys(section) for name, section in SECTIONS.items()}


def test_the_example_configuration_has_every_key_and_no_other() -> None:
    text = (ROOT / "etc/lpxfer.conf").read_text()
    for (_, section), part in zip(SECTIONS.items(), text.split("\n[")[1:], strict=True):
        assert set(re.findall(r"^#?(\w+) =", part, re.MULTILINE)) == keys(section)


def test_the_example_of_a_control_file_is_one() -> None:
    page = (ROOT / "man/xfer-control.5").read_text()
    example = page[page.index("format=1\n") :].partition(".Ed\n")[0].encode()
    assert control.dump(control.load(example)) == example


def test_the_example_of_a_bundle_is_one() -> None:
    page = (ROOT / "man/xfer-bundle.5").read_text()
    example = page[page.index("format=1\n") :].partition(".Ed\n")[0].encode()
    pairs = keyvalue.load(example)
    assert bundle.is_bundle(pairs) and bundle.dump(bundle.parse(dict(pairs))) == example
    told = re.findall(r"^\.It Cm (.+)$", page, re.MULTILINE)
    assert {word for words in told for word in words.split(" , ")} == pairs.keys()
    for limit in (f"{bundle.MEMBERS_MOST}.", f"{bundle.INDEX_MOST >> 20} MiB",
                  f"{bundle.DATA_MOST >> 20} MiB"):  # fmt: skip
        assert limit in page


def test_the_example_of_what_is_accepted_is_what_a_sweep_says() -> None:
    page = (ROOT / "man/xfer-receipt.5").read_text()
    example = page[page.index("format=1\n") :].partition(".Ed\n")[0].encode()
    then = dates.parse_iso(keyvalue.load(example)["swept"])
    assert accepts.dump(Accepts(True, frozenset({codec.NAME})), then) == example


# --- every page ---------------------------------------------------------------------------


@each_page
def test_mandoc_finds_nothing_to_correct(page: Path) -> None:
    if not shutil.which("mandoc"):
        pytest.fail("mandoc is missing: run tests/system-packages")
    command = ["mandoc", "-T", "lint", "-W", "style", str(page)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    # what is installed beside lpxfer is not the page's fault
    assert not [x for x in output.splitlines() if "referenced manual not found" not in x]


@each_page
def test_a_page_points_to_pages_that_exist(page: Path) -> None:
    for name, section in re.findall(r"^\.(?:It )?Xr (\S+) (\d)", page.read_text(), re.MULTILINE):
        if name.startswith(("xfer-", "lpxfer")):
            assert (ROOT / f"man/{name}.{section}").exists(), f"{page.name}: {name}({section})"


@each_page
def test_no_word_stands_twice(page: Path) -> None:
    prose = re.sub(r"^\.(Bd(?s:.*?)^\.Ed|.*)", ".", page.read_text(), flags=re.MULTILINE)
    assert not re.findall(r"\b([A-Za-z]{2,})\s+\1\b", prose)


def test_every_page_is_installed() -> None:
    patterns = SETUP["options.data_files"]
    for page in PAGES:
        assert patterns[f"share/man/man{page.suffix[1:]}"] == f"man/*{page.suffix}"

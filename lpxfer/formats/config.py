"""lpxfer.conf: every setting with its name, its unit and its default. See lpxfer.conf(5).

An unknown key is an error with file and line: a misspelt limit that is silently ignored is
found at 4 a.m. Finding and reading the file is the commands' business (cli/setup.py).
"""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, tzinfo
from typing import Any, TypeVar

from lpxfer.errors import ConfigError, FormatError
from lpxfer.formats import config_values, dates, names, watching
from lpxfer.formats.rate import UNLIMITED, Rate
from lpxfer.formats.validation import Validation


@dataclass(frozen=True)
class QueueConfig:
    """One [queue NAME]: where its jobs go and how long each thing may take (seconds)."""

    name: str
    transport: str = "sftp"  # or openssh: the same by ssh(1); or local: a mounted file system
    remhost: str = "localhost"  # HOST or HOST:PORT
    rempath: str = "/incoming"  # directory for arrivals
    remuser: str = ""  # account at the archive site; default: the sender's own name
    rempw: str = ""  # file:PATH of a file of mode 0600; default: keys
    identity: str = ""  # private key file; default: the agent and ~/.ssh/id_*
    known_hosts: str = ""  # default: ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts
    receipts: str = ""  # directory of receipts; default: `receipts` beside rempath
    confirm: str = "receipt"  # or sent: for archives that do not run xfer-sweep
    unconfirmed: float = 3600.0  # a receipt later than this is missed
    inst: str = "undef"  # instrument of a job that names none
    maxftp: str = "600"  # bound of one attempt at one file; 0 for none
    stall: float = 60.0  # longest wait for the next acknowledged byte
    connections: int = 8  # at the same time, at most
    congestion: str = ""  # TCP congestion control; default: bbr if the system lets us; or system
    rate: Rate = UNLIMITED  # bytes a second of all connections, by the time of day; no limit
    arrivals: str = ""  # URL of the archive site's xfer-web, told of what has arrived
    arrivals_token: str = ""  # file:PATH of a file of mode 0600 with the token for that
    seal: int = 0o440  # mode of a file in incoming
    link: bool = False  # xfer-submit --link is allowed

    @property
    def receipts_path(self) -> str:
        """The directory that holds receipts at the archive site."""
        return self.receipts or os.path.join(os.path.dirname(self.rempath.rstrip("/")), "receipts")


@dataclass(frozen=True)
class InstrumentConfig:
    """One [instrument NAME]: where its files are placed and how its nights are named."""

    name: str
    dir: str = ""  # the instrument directory, for xfer-sweep without -d
    alias: str = ""  # a short name for xfer-logsum, as SAO's `mega`
    zone: str = "UTC"  # zone of dated directories made from the queuing time
    noon: bool = False  # its day begins at noon
    mode: int = 0o444  # mode of placed files, less the umask
    validate: tuple[str, ...] = ()  # patterns: such files are whole FITS files; `fits`: all are
    scheme: tuple[str, ...] = ()  # patterns: how files may be called; default: in any way
    reject: tuple[str, ...] = ()  # patterns: paths at the telescope site from which none is wanted
    keywords: tuple[str, ...] = ()  # cards of FITS headers that are copied into the record
    tell: str = ""  # a command or an http(s) URL that is told of each placed file; default: none
    tell_secret: str = ""  # file:PATH of a file of mode 0600 with which a URL's calls are signed
    watch: str = ""  # directories whose finished files xfer-watch submits
    match: str = "* !*~ !*.part !*.tmp"  # names of those files
    finished: str = "close"  # when a file is finished
    queue: str = ""  # the queue they go to; default: the queue of [lpxfer]
    priority: str = ""  # as xfer-submit -q
    options: str = ""  # as xfer-submit -o, with values of the path and the FITS header
    pattern: str = ""  # a regular expression whose named groups are such values
    pv: str = ""  # an EPICS process variable that tells of new frames
    monitor: str = ""  # a command that prints the names of new frames
    frame: str = "%s"  # the name of a frame, from what `pv` or `monitor` say

    @property
    def recipe(self) -> watching.Recipe:
        """How the files that are found are submitted. Raises FormatError."""
        return watching.recipe(self.queue, self.priority, self.options, self.pattern)

    @property
    def names(self) -> list[str]:
        """What arrivals and records of this instrument may call it."""
        return list(dict.fromkeys(name for name in (self.name, self.alias) if name))

    @property
    def validation(self) -> Validation:
        """What is asked of its files."""
        return Validation(self.validate, self.scheme, self.reject, self.keywords)

    @property
    def tz(self) -> tzinfo:
        """The zone as an object; raises FormatError for an unknown one."""
        return UTC if self.zone == "UTC" else dates.find_zone(self.zone)


@dataclass(frozen=True)
class WebConfig:
    """The [web] section: where xfer-web listens, whom it knows, what it may take."""

    listen: str = "127.0.0.1:8631"  # ADDRESS:PORT
    tokens: str = ""  # file:PATH of a file of mode 0600; see xfer-web(5)
    roots: str = ""  # DIR:DIR, only beneath which files are submitted; default: none
    sweep: bool = False  # POST /v1/arrivals starts sweeps; else it wakes those that follow


@dataclass(frozen=True)
class Config:
    """The [lpxfer] section, and all others."""

    spool: str = ""  # default: /var/spool/lpxfer where it exists, else the user's own
    queue: str = ""  # queue of a submit without -d
    host: str = ""  # this host's name in uids; default: the host name's first label
    reserve: int = 64 << 20  # bytes that a submit leaves free on the spool
    incoming: str = "/srv/lpxfer/incoming"  # xfer-sweep's input directory
    receipts: str = ""  # default: `receipts` beside incoming
    strangers: str = ""  # xfer-sweep -A's directory when -d is not given
    stale: float = 7 * 86400.0  # half arrivals older than this are set aside (seconds)
    path: str = ""  # the file this was read from
    queues: Mapping[str, QueueConfig] = field(default_factory=dict)
    instruments: Mapping[str, InstrumentConfig] = field(default_factory=dict)
    web: WebConfig = WebConfig()

    def find_queue(self, name: str) -> QueueConfig:
        """Return the settings of a queue. Raises ConfigError when there is none."""
        if name not in self.queues:
            where = self.path or "lpxfer.conf (there is no configuration file yet)"
            known = ", ".join(sorted(self.queues)) or "none"
            raise ConfigError(
                f'there is no queue "{name}"; known: {known}; '
                f"add a section [queue {name}] to {where}"
            )
        return self.queues[name]

    def find_instrument(self, name: str) -> InstrumentConfig:
        """Return an instrument's settings by name or alias; defaults for an unknown one."""
        aliases = {known.alias: known for known in self.instruments.values() if known.alias}
        return self.instruments.get(name) or aliases.get(name) or InstrumentConfig(name)


def parse(text: str, path: str) -> Config:
    """Read the text of a configuration file; `path` is for messages."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), default_section="\0")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text, path)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or getattr(error, "errors", [(0, "")])[0][0]
        raise ConfigError(f"{path}:{line}: {_reason(error)}") from error
    queues: dict[str, QueueConfig] = {}
    instruments: dict[str, InstrumentConfig] = {}
    config, web = Config(path=path), WebConfig()
    for section in parser.sections():
        fail = _Fail(path, text, section)
        kind, _, name = section.partition(" ")
        values = parser[section]
        if section == "lpxfer":
            config = _fill(config, values, fail)
        elif section == "web":
            web = _fill(web, values, fail)
        elif kind == "queue" and names.QUEUE.fullmatch(name):
            queues[name] = queue = _fill(QueueConfig(name), values, fail)
            if queue.transport == "openssh" and queue.rempw:
                raise fail("rempw", "ssh reads no password from a file; use transport = sftp")
            if queue.transport == "openssh" and queue.congestion:
                raise fail("congestion", "ssh lets nobody choose; use transport = sftp")
            if bool(queue.arrivals) != bool(queue.arrivals_token):
                given = "arrivals" if queue.arrivals else "arrivals_token"
                raise fail(given, "give both, arrivals and arrivals_token, or neither")
        elif kind == "instrument" and names.INSTRUMENT.fullmatch(name):
            instruments[name] = instrument = _fill(InstrumentConfig(name), values, fail)
            try:
                _ = instrument.recipe
            except FormatError as error:
                raise fail("options", str(error)) from error
        else:
            raise fail(None, "use [lpxfer], [queue NAME], [instrument NAME] or [web]")
    taken = set(instruments)
    for name, instrument in instruments.items():
        if instrument.alias in taken - {name}:
            fail = _Fail(path, text, f"instrument {name}")
            raise fail("alias", f'another instrument is called "{instrument.alias}"')
        taken |= set(instrument.names)
    return replace(config, queues=queues, instruments=instruments, web=web)


Section = TypeVar("Section", Config, QueueConfig, InstrumentConfig, WebConfig)

#: What is no key: the name of a section, and what other sections hold.
NO_KEYS = frozenset({"name", "path", "queues", "instruments", "web"})


def _fill(section: Section, values: Mapping[str, str], fail: "_Fail") -> Section:
    known = {f.name for f in fields(section)} - NO_KEYS
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise fail(key, f'unknown key "{key}"; known: {", ".join(sorted(known))}')
        if "\n" in value:
            raise fail(key, f"the line after {key} is indented, so it would continue its value")
        try:
            changes[key] = config_values.read(key, value, getattr(section, key))
        except FormatError as error:
            raise fail(key, f"{key}: {error}") from error
    return replace(section, **changes)


def override(config: Config, environ: Mapping[str, str]) -> Config:
    """Apply XFER_SPOOL and its like, which go before the keys of [lpxfer].

    Raises ConfigError for a value that the key would not take.
    """
    changes: dict[str, Any] = {}
    for name in ("spool", "queue", "host", "reserve", "incoming", "receipts",
                 "strangers", "stale"):  # fmt: skip
        if value := environ.get(f"XFER_{name.upper()}"):
            try:
                changes[name] = config_values.read(name, value, getattr(config, name))
            except FormatError as error:
                raise ConfigError(f"XFER_{name.upper()}: {error}") from error
    return replace(config, **changes)


@dataclass(frozen=True)
class _Fail:
    """Makes errors that name file and line."""

    path: str
    text: str
    section: str

    def __call__(self, key: str | None, message: str) -> ConfigError:
        line, inside = 0, False
        for number, row in enumerate(self.text.splitlines(), 1):
            if row.startswith("["):
                inside = row.strip() == f"[{self.section}]"
                line = number if inside else line
            elif inside and key is not None and row.partition("=")[0].strip() == key:
                line = number
                break
        return ConfigError(f"{self.path}:{line}: [{self.section}] {message}")


def _reason(error: configparser.Error) -> str:
    if isinstance(error, configparser.MissingSectionHeaderError):
        return "a setting before the first [section]"
    if isinstance(error, configparser.DuplicateOptionError):
        return f'[{error.section}] "{error.option}" is set twice'
    if isinstance(error, configparser.DuplicateSectionError):
        return f"there are two sections [{error.section}]"
    return "neither a [section] nor a key = value"

"""What ssh's messages mean: one line that says what to do. Pure: text in, text out.

The messages are OpenSSH's since 7.6. They are looked for in the order of the table, since one
failure makes several: a jump host that refuses us also leaves us without a server. What no rule
knows is passed on, its last lines, made printable.
"""

import re
import shlex
from collections.abc import Callable

from lpxfer.formats.keyvalue import printable
from lpxfer.transports.account import Account

LINES, LENGTH = 2, 300  # what is passed on at most of a message that no rule knows

FAILED = 255  # the status of an ssh that failed itself; any other is that of the far end's program


def explain(account: Account, text: str, status: int | None, by_hand: str) -> str:
    """Say in one line why ssh has ended before the server spoke SFTP.

    `by_hand` is the command with which a person logs in, and sees a host's key.
    """
    text = "\n".join(text.splitlines())
    for pattern, meaning in _MEANINGS:
        if found := re.search(pattern, text, re.MULTILINE):
            words = meaning(_Said(account, text, found, by_hand))
            break
    else:
        if status not in (FAILED, None):
            words = f"no SFTP after the login: it ended there with status {status}"
        else:
            words = last(text) or f"ssh ended without a word; see what it does: {by_hand}"
    return f"{account.label}: {words}"


def last(text: str) -> str:
    """Return the last lines of what was said, in one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable("; ".join(lines[-LINES:]))[:LENGTH]


class _Said:
    """One failure: the match of the rule that knows it, and what is needed to explain it."""

    def __init__(self, account: Account, text: str, found: re.Match[str], by_hand: str) -> None:
        self.account, self._text, self._found, self.by_hand = account, text, found, by_hand

    def __getitem__(self, group: int) -> str:
        """Return a group of the match, fit for a terminal."""
        return printable(self._found[group].strip())[:LENGTH]

    def find(self, pattern: str, default: str) -> str:
        """Return the first group of another pattern, fit for a terminal."""
        found = re.search(pattern, self._text, re.MULTILINE)
        return printable(found[1].strip())[:LENGTH] if found else default


def _changed(said: _Said) -> str:
    name = said.find(r"^Host key for (\S+) has changed", said.account.known_name)
    path = said.find(r"^Offending \S+ key in (.+):\d+", "~/.ssh/known_hosts")
    key = said.find(r"^(SHA256:\S+?)\.?$", "another one")
    return (
        f"THE HOST KEY of {name} HAS CHANGED, it is {key}; somebody may be in the middle, nothing "
        "was sent. Ask the archive site; if the new key is theirs: "
        f"ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(path)}, then log in by hand: "
        f"{said.by_hand}"
    )


def _unknown(said: _Said) -> str:
    name = said.find(r"^No \S+ host key is known for (\S+)", "a host on the way")
    return (
        f"unknown host key of {name}; nothing was sent. Log in by hand, as the account that sends, "
        f"and compare the key with what the archive site says: {said.by_hand}"
    )


def _refused(said: _Said) -> str:
    trouble = said.find(r'^(Load key ".*)', "")
    user = f" as {said.account.user}" if said.account.user else ""
    return (
        f"login{user} refused ({said[1]}: {said[2]}){'; ' if trouble else ''}{trouble}; "
        "set identity, load the key into the agent, or get a ticket"
    )


def _no_way(said: _Said) -> str:
    here = said[1] == said.account.host
    return said[3] if here else f"{said[1]} port {said[2]}: {said[3]}"


_MEANINGS: list[tuple[str, Callable[[_Said], str]]] = [
    (r"^@ +WARNING: REVOKED HOST KEY",
     lambda said: "the host's key is revoked in known_hosts; nothing was sent. "
     "Ask the archive site"),
    (r"^@ +WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED", _changed),
    (r"^Host key verification failed", _unknown),
    (r"^Permissions \d+ for '(.*)' are too open",
     lambda said: f"others may read the private key {said[1]}; chmod 600 {shlex.quote(said[1])}"),
    (r"^no such identity: (.*): (.*)",
     lambda said: f"cannot read the private key {said[1]}: {said[2]}"),
    (r"^(\S+): Permission denied \((.*)\)", _refused),
    (r"^Received disconnect from .*: Too many authentication failures",
     lambda said: "the server has refused too many keys; set identity to the one that it takes"),
    (r"^ssh: Could not resolve hostname (.*?): (.*)",
     lambda said: f"cannot find the address of {said[1]}: {said[2]}"),
    (r"^ssh: connect to host (\S+) port (\d+): (.*)", _no_way),
    (r"^channel \d+: open failed: (.*)",
     lambda said: f"the jump host cannot reach it: {said[1]}"),
    (r"^Unable to negotiate with [^:]*: (.*)",
     lambda said: f"{said[1]}; ssh_config(5) can allow what the server offers"),
    (r"^subsystem request failed", lambda said: "the server offers no SFTP"),
    (r"^(kex_exchange_identification|banner exchange): ",
     lambda said: "no SSH server answers there"),
]  # fmt: skip

"""Host keys: whom known_hosts vouches for, and what to say of a key that nobody vouches for."""

import os
import shlex

import paramiko
from paramiko.hostkeys import HostKeyEntry, HostKeys, InvalidHostKey

from lpxfer.errors import LinkError
from lpxfer.transports.account import Account

USUAL_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


def known_keys(account: Account) -> list[paramiko.PKey]:
    """Find the host's keys in known_hosts, hashed names included, less the revoked ones.

    Lines that cannot be used are passed over, as ssh does. So are patterns of names and
    certificate authorities: whom only these vouch for is unknown here.
    """
    known, revoked = [], []
    for path in _known_hosts(account):
        try:
            with open(path, encoding="utf-8", errors="replace") as lines:
                for marker, entry in map(_known_entry, lines):
                    if marker == "@revoked":
                        revoked.append(entry.key)
                    elif not marker and _names(entry, account.known_name):
                        known.append(entry.key)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise LinkError(f"cannot read {path}: {error.strerror}") from error
    return [key for key in known if key is not None and key not in revoked]


def check(account: Account, key: paramiko.PKey, known: list[paramiko.PKey]) -> None:
    """Raise LinkError unless the server's key is one that somebody vouched for."""
    if key in known:
        return
    path = shlex.quote(_known_hosts(account)[0])
    host, name = shlex.quote(account.host), shlex.quote(account.known_name)
    kind = key.get_name().removeprefix("ssh-").partition("-")[0]
    add = f"ssh-keyscan -t {kind} -p {account.port} {host} >> {path}"
    if not known:
        raise LinkError(
            f"{account.label}: unknown host key {key.fingerprint} ({key.get_name()}); nothing "
            f"was sent. Compare it with what the archive site says, then: {add}"
        )
    raise LinkError(
        f"{account.label}: THE HOST KEY HAS CHANGED, it is {key.fingerprint} "
        f"({key.get_name()}), which {path} does not have; somebody may be in the middle, "
        f"nothing was sent. Ask the archive site; if the new key is theirs: "
        f"ssh-keygen -R {name} -f {path}, then: {add}"
    )


def _known_hosts(account: Account) -> list[str]:
    paths = [account.known_hosts] if account.known_hosts else USUAL_KNOWN_HOSTS
    return [os.path.expanduser(path) for path in paths]


def _known_entry(line: str) -> tuple[str, HostKeyEntry]:
    """Read a line of known_hosts: its marker, and its names and key, none if it has none."""
    words = line.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    try:
        return marker, HostKeyEntry.from_line(" ".join(words)) or HostKeyEntry()
    except (paramiko.SSHException, InvalidHostKey, ValueError):
        return marker, HostKeyEntry()


def _names(entry: HostKeyEntry, host: str) -> bool:
    return any(
        name == (HostKeys.hash_host(host, name) if name.startswith("|1|") else host)
        for name in entry.hostnames or []
    )

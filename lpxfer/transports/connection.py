"""What carries SFTP's packets to a host and back: paramiko (ssh.py) or ssh(1) (openssh.py)."""

from collections.abc import Callable
from typing import Protocol

from lpxfer.transports import wire


class Connection(Protocol):
    """One connection and its login. Not for use by two threads, except `shut`."""

    @property
    def alive(self) -> bool:
        """False once the connection is known to be gone."""

    def greets(self) -> bool:
        """Tell, within seconds and without logging in, whether the far end answers.

        True where that cannot be told.
        """

    def open(self, timeout: float, progress: Callable[[], None]) -> wire.Stream:
        """Connect, check the host's key, log in, open the SFTP channel.

        `timeout` bounds the TCP connection to each address, in seconds; `progress` is
        called after each step that can be seen. Raises LinkError, and so may the stream
        until the first byte has come.
        """

    def shut(self) -> None:
        """Break the connection; every call under way in another thread ends with an error."""

    def close(self) -> None:
        """Close the connection and wait for what it has started; closing twice is fine."""

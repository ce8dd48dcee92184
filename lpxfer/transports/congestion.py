"""TCP congestion control of one connection: the queue's own, or what long lossy lines need.

Linux's usual cubic takes every lost packet for a full queue: with 0.1 % of loss and a round trip
of 100 ms it carries a tenth of what bbr does. A process without privileges may choose from
net.ipv4.tcp_allowed_congestion_control only; see tcp(7).
"""

import socket
from contextlib import suppress

from lpxfer.errors import LinkError

SYSTEM = "system"  # leave the connection as the system made it

CHOICE = "bbr"  # what an empty setting means, where the system lets us have it


def choose(sock: socket.socket, setting: str) -> None:
    """Give a connected socket the congestion control of a queue's setting.

    `setting` is a name that the kernel knows, SYSTEM, or nothing for CHOICE if it can be had.
    Raises LinkError for a name that cannot be had.
    """
    if setting == SYSTEM:
        return
    if not setting:
        with suppress(OSError):
            _set(sock, CHOICE)
        return
    try:
        _set(sock, setting)
    except OSError as error:
        raise LinkError(
            f'this system does not give "congestion = {setting}" ({error.strerror}); '
            "see what net.ipv4.tcp_allowed_congestion_control lists, and tcp(7)"
        ) from error


def _set(sock: socket.socket, name: str) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())

"""A queue's file `switches`: whether it accepts and sends."""

from lpxfer import durable
from lpxfer.errors import FormatError
from lpxfer.formats import switches
from lpxfer.formats.switches import Switches


def read(queue_fd: int) -> Switches:
    """Read the switches; both are on when there is no such file.

    Both are off when it is damaged: xfer-stat shows it, and setting them mends it.
    """
    try:
        return switches.load(durable.read_small("switches", queue_fd))
    except FileNotFoundError:
        return Switches()
    except FormatError as error:
        reason = f"the switches file is damaged: {error}"
        return Switches(False, reason, None, False, reason, None)


def write(queue_fd: int, new: Switches) -> None:
    """Replace the switches, durably. The caller excludes others who do."""
    durable.forget_replacements("switches", queue_fd)  # of a command that was killed
    durable.replace("switches", switches.dump(new), queue_fd, 0o644)

"""How a watch stands: what it says of itself for whoever looks. Pure."""

from dataclasses import dataclass
from datetime import datetime

from lpxfer.errors import FormatError
from lpxfer.formats import dates, keyvalue


@dataclass(frozen=True)
class WatchState:
    """How a watch stands."""

    stays: bool = False  # or it is one of the passes that cron makes
    compared: datetime | None = None  # when the tree was compared with the record last
    waiting: int = 0  # files that are not finished, or not submitted
    late: int = 0  # those of them of which a person should know
    trouble: str = ""  # why none can be submitted


def dump(state: WatchState) -> bytes:
    """Write it."""
    return keyvalue.dump({
        "stays": "yes" if state.stays else "no",
        "compared": dates.iso(state.compared) if state.compared else "",
        "waiting": str(state.waiting),
        "late": str(state.late),
        "trouble": state.trouble,
    }.items())  # fmt: skip


def load(text: bytes) -> WatchState:
    """Read it. Raises FormatError."""
    said = keyvalue.load(text)
    try:
        return WatchState(
            said["stays"] == "yes",
            dates.parse_iso(said["compared"]) if said["compared"] else None,
            int(said["waiting"]),
            int(said["late"]),
            said["trouble"],
        )
    except (KeyError, ValueError) as error:
        raise FormatError(f"no state of a watch: {error}") from error

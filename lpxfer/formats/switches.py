"""A queue's two switches: does it take new jobs, and does it send? See xfer-spool(5)."""

from dataclasses import dataclass, replace
from datetime import datetime

from lpxfer.formats import dates, keyvalue


@dataclass(frozen=True)
class Switches:
    """A queue's two switches, each with its reason and since when it is off."""

    accepting: bool = True
    accepting_reason: str = ""
    accepting_since: datetime | None = None
    enabled: bool = True
    enabled_reason: str = ""
    enabled_since: datetime | None = None

    def accept(self) -> "Switches":
        """Take new jobs."""
        return replace(self, accepting=True, accepting_reason="", accepting_since=None)

    def reject(self, reason: str, now: datetime) -> "Switches":
        """Take no new jobs; a queue that did not before keeps its time."""
        since = now if self.accepting else self.accepting_since
        return replace(self, accepting=False, accepting_reason=reason, accepting_since=since)

    def enable(self) -> "Switches":
        """Send jobs."""
        return replace(self, enabled=True, enabled_reason="", enabled_since=None)

    def disable(self, reason: str, now: datetime) -> "Switches":
        """Start no job; a queue that did not before keeps its time."""
        since = now if self.enabled else self.enabled_since
        return replace(self, enabled=False, enabled_reason=reason, enabled_since=since)


def dump(switches: Switches) -> bytes:
    """Write a switches file; a switch that is on is left out."""
    pairs = []
    for word in ("accepting", "enabled"):
        if not getattr(switches, word):
            pairs.append((word, "no"))
            pairs.append((f"{word}_reason", getattr(switches, f"{word}_reason")))
            if since := getattr(switches, f"{word}_since"):
                pairs.append((f"{word}_since", dates.iso(since)))
    return keyvalue.dump(pairs)


def load(text: bytes) -> Switches:
    """Read a switches file. Raises FormatError for anything else."""
    pairs = keyvalue.load(text)
    times = {k: dates.parse_iso(v) for k, v in pairs.items() if k.endswith("_since")}
    return Switches(
        accepting=pairs.get("accepting") != "no",
        accepting_reason=pairs.get("accepting_reason", ""),
        accepting_since=times.get("accepting_since"),
        enabled=pairs.get("enabled") != "no",
        enabled_reason=pairs.get("enabled_reason", ""),
        enabled_since=times.get("enabled_since"),
    )

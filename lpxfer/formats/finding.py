"""Findings: what an inspection of a spool or an instrument directory names. See xfer-fsck(1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lpxfer.formats import names

#: What may be broken on a spool.
STATE = "state"  # a job is in exactly one state directory, or in the finished log
FINISHED = "finished"  # a job in the finished log is in no state directory but done/
JOB = "job"  # a job is complete, and its data has the checksum of its control file
STRAY = "stray"  # nothing but jobs stands in a state directory
DRAFT = "draft"  # what a submit that died has left is removed
SEQ = "seq"  # no number is given out twice

#: What may be broken in an instrument directory.
PLACED = "placed"  # a placed file is there, with the size and the checksum of its record
ONCE = "once"  # one file for each uid, one checksum for each path
TEMPORARY = "temporary"  # a copy that was never finished is removed
REASON = "reason"  # what is in quarantine has a reason beside it

#: On both.
LAYOUT = "layout"  # the directories are there, and open to nobody else than they should be
LOG = "log"  # a line of a log is a record, or the torn beginning of one


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    where: str  # a path beneath the spool, or beneath the instrument directory
    id: str  # request id or uid; empty when it is about neither
    invariant: str  # one of the words above
    message: str
    warning: bool = False  # nothing is broken, but somebody should know
    mendable: bool = False  # --repair can put it right without losing a byte
    repaired: bool = False

    @property
    def subject(self) -> str:
        """What the message is about: a job by its id, anything else by its place."""
        return self.id if names.REQUEST_ID.fullmatch(self.id) else self.where


@dataclass(frozen=True)
class Report:
    """What an inspection found, and how much it looked at."""

    findings: Sequence[Finding]
    checked: Mapping[str, int] = field(default_factory=dict)  # numbers, by what was counted
    busy: str = ""  # why nothing was repaired that could have been

    @property
    def broken(self) -> bool:
        """Tell whether there is more than warnings."""
        return any(not finding.warning for finding in self.findings)

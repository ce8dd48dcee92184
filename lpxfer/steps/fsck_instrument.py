"""Check an instrument directory: is everything there that its transfer logs say was placed?

Safe beside a running sweep, which writes a record when its file is durable. Looking changes
nothing; repairing needs the sweep's lock, and sets aside. What the logs say is kept in a
temporary database without a name, so that memory stays flat.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from lpxfer import checksum
from lpxfer.errors import BusyError, FormatError, LpxferError, PermanentError
from lpxfer.formats import finding, keyvalue, names, record
from lpxfer.formats.finding import Finding, Report
from lpxfer.formats.record import Record
from lpxfer.stores.archive_survey import ArchiveSurvey
from lpxfer.stores.instrument_dir import QUARANTINE
from lpxfer.stores.instrument_log import DIRECTORY
from lpxfer.stores.placing import TEMPORARY

STALE = timedelta(days=1)  # no copy under way takes so long
UNEXPLAINED = timedelta(hours=1)  # nor is anything without its reason for so long

#: Kinds that say that a path holds the bytes of a uid; a duplicate is another's file.
CLAIMS = (record.STORED, record.RENAMED, record.DUPLICATE)

#: Told the bytes that were read, and of how many in all.
Watch = Callable[[int, int], object]


def fsck(path: str, repair: bool, now: datetime, watch: Watch) -> Report:
    """Check an instrument directory against the transfer logs in its `xferlogs`.

    With `repair` what is altered or was left over is set aside; while a sweep works there
    nothing is changed, and the report is `busy` if something should have been. Raises
    PermanentError where there are no logs, and OSError.
    """
    with ArchiveSurvey(path) as home, contextlib.closing(sqlite3.connect("")) as claims:
        check = _Check(home, claims, now, watch)
        findings, busy = list(check.run()), ""
        if repair and any(fault.mendable for fault in findings):
            try:
                with home.locked():
                    findings = [check.mend(fault) for fault in findings]
            except BusyError:
                busy = f"a sweep works in {path}: try again when it has ended"
        return Report(findings, check.checked, busy)


class _Check:
    """One inspection."""

    def __init__(
        self, home: ArchiveSurvey, claims: sqlite3.Connection, now: datetime, watch: Watch
    ) -> None:
        self._home, self._claims, self._now, self._watch = home, claims, now, watch
        self.checked = {"files": 0, "bytes": 0, "unrecorded": 0}

    def run(self) -> Iterator[Finding]:
        """Yield what is wrong."""
        yield from self._read_logs()
        yield from self._contradictions()
        yield from self._placed()
        yield from self._twice()
        yield from self._walk()
        yield from self._quarantine()

    def _read_logs(self) -> Iterator[Finding]:
        """Remember what the logs say was placed, and was not taken away again by a repair."""
        self._claims.execute(
            "CREATE TABLE claim (placed BLOB, uid TEXT, size INTEGER, checksum TEXT, own INTEGER)"
        )
        self._claims.execute("CREATE INDEX by_placed ON claim (placed)")
        damaged: list[str] = []
        try:
            for entry in self._home.log.inspect(damaged.append):
                self._remember(entry)
        except FileNotFoundError:
            raise PermanentError(
                f"{self._home.path} has no {DIRECTORY}: name an instrument directory whose "
                "transfer logs are in it"
            ) from None
        self._claims.execute("CREATE INDEX by_uid ON claim (uid)")
        for message in damaged:
            yield Finding(DIRECTORY, "", finding.LOG, message)

    def _remember(self, entry: Record) -> None:
        fields = entry.fields
        uid, size = fields.get("uid", ""), fields.get("size", "")
        if entry.kind == record.QUARANTINED and "instead_of" in fields:
            taken = keyvalue.to_bytes(fields["instead_of"])
            self._claims.execute("DELETE FROM claim WHERE placed = ?", (taken,))
        if entry.kind not in CLAIMS or "placed" not in fields or not names.UID.fullmatch(uid):
            return
        with contextlib.suppress(FormatError, ValueError, KeyError):  # torn
            row = (
                keyvalue.to_bytes(fields["placed"]),
                uid,
                int(size[:18]),
                checksum.check_text(fields["checksum"]),
                entry.kind != record.DUPLICATE,
            )
            self._claims.execute("INSERT INTO claim VALUES (?, ?, ?, ?, ?)", row)

    def _contradictions(self) -> Iterator[Finding]:
        """Yield paths that were given to other bytes a second time."""
        for placed, first, last in self._claims.execute(
            "SELECT placed, min(uid), max(uid) FROM claim GROUP BY placed"
            " HAVING count(DISTINCT checksum) > 1"
        ):
            where = keyvalue.from_bytes(placed)
            message = f"was placed with different contents, of {first} and of {last}"
            yield Finding(where, last, finding.ONCE, message)

    def _placed(self) -> Iterator[Finding]:
        """Read every placed file; of several records of one path the last one counts."""
        (total,) = self._claims.execute(
            "SELECT coalesce(sum(size), 0) FROM (SELECT max(size) AS size FROM claim"
            " GROUP BY placed)"
        ).fetchone()
        for raw, uid, size, expected, _ in self._claims.execute(
            "SELECT placed, uid, size, checksum, max(rowid) FROM claim GROUP BY placed"
        ):
            placed, message, mendable = keyvalue.from_bytes(raw), "", False
            try:
                found = self._home.read(placed, size)
                if found != expected:
                    message = f"has checksum {found} but the record of {uid} says {expected}"
                    mendable = True
            except FileNotFoundError:
                message = f"of {uid} is missing"
            except FormatError as error:
                message, mendable = str(error), self._home.stands(placed)
            except PermanentError as error:
                message = str(error)
            except OSError as error:  # the disk's fault, which may pass
                message = f"cannot be read: {error.strerror}"
            if message and not self._is_torn(raw, uid):
                yield Finding(placed, uid, finding.PLACED, message, mendable=mendable)
            self.checked["files"] += 1
            self.checked["bytes"] += size
            self._watch(size, total)

    def _is_torn(self, placed: bytes, uid: str) -> bool:
        """Tell whether a path is the beginning of another one of the same uid: a torn record."""
        return any(
            other != placed and other.startswith(placed)
            for (other,) in self._claims.execute("SELECT placed FROM claim WHERE uid = ?", (uid,))
        )

    def _twice(self) -> Iterator[Finding]:
        """Yield the second file of a uid; it may be set aside if it is nobody else's."""
        for (uid,) in self._claims.execute(
            "SELECT uid FROM claim WHERE own GROUP BY uid HAVING count(DISTINCT placed) > 1"
        ):
            rows = self._claims.execute(
                "SELECT placed FROM claim WHERE own AND uid = ? GROUP BY placed"
                " ORDER BY min(rowid)",
                (uid,),
            )
            places = [keyvalue.from_bytes(raw) for (raw,) in rows if not self._is_torn(raw, uid)]
            for place in [place for place in places if self._home.stands(place)][1:]:
                message = f"is a second file of {uid}, beside {places[0]}"
                mendable = self._count_uids(place) == 1
                yield Finding(place, uid, finding.ONCE, message, mendable=mendable)

    def _count_uids(self, placed: str) -> int:
        query = "SELECT count(DISTINCT uid) FROM claim WHERE placed = ?"
        (count,) = self._claims.execute(query, (keyvalue.to_bytes(placed),)).fetchone()
        return int(count)

    def _walk(self) -> Iterator[Finding]:
        """Count the files no record speaks of, and yield what a dead sweep has left."""
        for path, status in self._home.walk():
            name = os.path.basename(path)
            if TEMPORARY.fullmatch(name) and self._is_old(status, STALE):
                message = "was left by a sweep that died"
                yield Finding(path, "", finding.TEMPORARY, message, warning=True, mendable=True)
            elif not name.startswith("."):
                self.checked["unrecorded"] += self._count_uids(path) == 0

    def _quarantine(self) -> Iterator[Finding]:
        try:
            unexplained = self._home.without_reason()
        except PermanentError:
            message = "is a link, or not a directory: no sweep can put anything there"
            yield Finding(QUARANTINE, "", finding.LAYOUT, message)
            return
        for name, status in unexplained:
            if self._is_old(status, UNEXPLAINED):
                where = f"{QUARANTINE}/{name}"
                message = "is in quarantine without a reason"
                yield Finding(where, "", finding.REASON, message, warning=True, mendable=True)

    def _is_old(self, status: os.stat_result, age: timedelta) -> bool:
        """Tell by the time of the last change of name: a copy has its source's own times."""
        return self._now - datetime.fromtimestamp(status.st_ctime, UTC) > age

    def mend(self, fault: Finding) -> Finding:
        """Put one thing right, under the lock, and say how."""
        if not fault.mendable:
            return fault
        try:
            if fault.invariant == finding.REASON:
                self._home.give_reason(os.path.basename(fault.where), "found without a reason")
                return replace(fault, message=f"{fault.message}; given one", repaired=True)
            stem = f"{fault.id}.placed" if fault.id else "sweep.tmp"
            reason = keyvalue.printable(f"{fault.where} {fault.message}")
            aside = self._home.set_aside(fault.where, stem, reason)
            if fault.id:
                self._record(fault, aside)
        except (OSError, LpxferError) as error:
            words = error.strerror if isinstance(error, OSError) else error
            return replace(fault, message=f"{fault.message}; not repaired: {words}")
        return replace(fault, message=f"{fault.message}; set aside as {aside}", repaired=True)

    def _record(self, fault: Finding, aside: str) -> None:
        """Let the transfer log say that the path holds nothing any more."""
        past = self._home.log.history([fault.id], self._now).get(fault.id, [])
        claims = (old.fields for old in past if old.fields.get("placed") == fault.where)
        fields = dict(next(claims, {"uid": fault.id}))
        fields |= {"placed": aside, "instead_of": fault.where, "reason": fault.message}
        self._home.log.append(Record(self._now, record.QUARANTINED, fields))

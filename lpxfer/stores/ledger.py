"""What the logs and directories of both sites say of each job, put in the order of the uids.

Kept in a temporary database without a name, so that memory stays flat; it goes with the
process. What was said is not judged here.
"""

import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

from lpxfer.formats import keyvalue, names
from lpxfer.formats.testimony import Said

CACHE = 32 << 10  # KiB of the database kept in memory


class Original(NamedTuple):
    """A file that a job was made of, as the job knew it."""

    path: str
    size: str
    mtime: str
    job: str
    archived: int


class Ledger:
    """A collection of what was said."""

    def __init__(self) -> None:
        """Start an empty one."""
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            f"PRAGMA cache_size = -{CACHE}; PRAGMA journal_mode = OFF;"
            f"CREATE TABLE said ({', '.join(Said._fields)});"
            f"CREATE TABLE original ({', '.join(Original._fields)});"
            "CREATE TABLE number (queue, number INTEGER, uid, time);"
            "CREATE TABLE frame (inst, night INTEGER, seq INTEGER, checksum, job, counts INTEGER);"
            "BEGIN;"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add(self, entries: Iterable[Said]) -> None:
        """Take what was said."""
        marks = ", ".join("?" * len(Said._fields))
        rows = (row if "".join(row[2:]).isascii() else _stored(row) for row in entries)
        self._db.executemany(f"INSERT INTO said VALUES ({marks})", rows)

    def by_uid(self) -> Iterator[list[Said]]:
        """Yield all that was said of each job, in the order of the uids.

        What was said of a job without a uid stands alone.
        """
        rows = self._db.cursor().execute("SELECT * FROM said ORDER BY uid, source")
        for uid, group in itertools.groupby(rows, lambda row: row[0]):
            found = [Said._make(row if bytes not in map(type, row) else map(_loaded, row))
                     for row in group]  # fmt: skip
            yield from ([one] for one in found) if not uid else [found]

    def add_number(self, job_id: str, uid: str, time: str) -> None:
        """Remember that a request id was given out, to the job of a uid, at a time."""
        if match := names.REQUEST_ID.fullmatch(job_id):
            row = (match[1], int(match[2]), uid, time)
            self._db.execute("INSERT INTO number VALUES (?, ?, ?, ?)", row)

    def numbers(self, queue: str) -> Iterator[tuple[int, str]]:
        """Yield the numbers of a queue's request ids that are known, and their times."""
        yield from self._db.cursor().execute(
            "SELECT number, min(time) FROM number WHERE queue = ? GROUP BY number", (queue,)
        )

    def holder(self, job_id: str) -> str | None:
        """Return the uid to which a request id was given; None for one that is not known."""
        self._db.execute("CREATE INDEX IF NOT EXISTS by_number ON number (queue, number)")
        query = "SELECT uid FROM number WHERE queue = ? AND number = ?"
        row = self._db.execute(query, names.split_request_id(job_id)).fetchone()
        return str(row[0]) if row else None

    def add_original(self, original: Original) -> None:
        """Remember the file that a job was made of."""
        self._db.execute("INSERT INTO original VALUES (?, ?, ?, ?, ?)", _stored(original))

    def originals(self) -> Iterator[list[Original]]:
        """Yield what is known of each file, in the order of their paths."""
        rows = self._db.cursor().execute("SELECT DISTINCT * FROM original ORDER BY path, job")
        for _, group in itertools.groupby(rows, lambda row: row[0]):
            yield [Original._make(map(_loaded, row)) for row in group]

    def add_frame(
        self, inst: str, night: int, seq: int, checksum: str, job: str, counts: bool
    ) -> None:
        """Remember a number that an instrument gave to a file; a canceled one counts less."""
        row = _stored((inst, night, seq, checksum, job, counts))
        self._db.execute("INSERT INTO frame VALUES (?, ?, ?, ?, ?, ?)", row)

    def frames(self) -> Iterator[tuple[str, int, int, list[str]]]:
        """Yield instrument, night and number of each file, and the jobs if their bytes differ.

        All is one night for an instrument that does not begin its numbers again.
        """
        self._db.execute(
            "UPDATE frame SET night = 0 WHERE inst NOT IN (SELECT inst FROM frame WHERE counts"
            " GROUP BY inst, seq HAVING count(DISTINCT night) > 1 AND count(DISTINCT checksum) > 1)"
        )
        rows = self._db.cursor().execute(
            "SELECT inst, night, seq, count(DISTINCT CASE counts WHEN 1 THEN checksum END),"
            " group_concat(DISTINCT CASE counts WHEN 1 THEN job END)"
            " FROM frame GROUP BY inst, night, seq ORDER BY inst, night, seq"
        )
        for inst, night, seq, contents, jobs in rows:
            yield str(_loaded(inst)), night, seq, jobs.split(",") if contents > 1 else []


def _stored(row: Iterable[object]) -> tuple[object, ...]:
    """Make values fit for the database: text may hold bytes that are not UTF-8."""
    return tuple(keyvalue.to_bytes(value) if isinstance(value, str) and not value.isascii()
                 else value for value in row)  # fmt: skip


def _loaded(value: object) -> object:
    return keyvalue.from_bytes(value) if isinstance(value, bytes) else value

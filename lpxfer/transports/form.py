"""In which form a job's data goes: as it is, or encoded. This is the one place that decides it.

What is encoded is written into the job's directory first, so that it can be resumed and carried
by several connections like any file. It is decided at the first attempt, by a trial on the file
and the rate of the link, and stays.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from lpxfer import codec, codec_trial
from lpxfer.errors import LpxferError, PermanentError
from lpxfer.formats import fits
from lpxfer.formats.accepts import Accepts
from lpxfer.formats.control import Control, Encoding
from lpxfer.stores.job_dir import JobDir

PATIENCE = 1.0  # seconds that a file waits for its turn: one of 10 GB keeps none that is urgent

#: Files are encoded one after the other, so that the first is soon on its way, and the others are
#: encoded meanwhile.
_encoding = threading.Lock()


@dataclass(frozen=True)
class Form:
    """What goes over the wire for a job's data."""

    fd: int  # an open file
    size: int  # bytes of it
    encoding: Encoding | None  # None: it is the data file itself
    check: bool  # somebody may have changed it since submit: compute its checksum again

    @property
    def words(self) -> dict[str, str]:
        """What a person may want to know of it."""
        return {"codec": self.encoding.codec, "wire": str(self.size)} if self.encoding else {}


def wire_size(job: JobDir, known: Control) -> int:
    """Return the size of what goes over the wire, in bytes, as far as it is decided."""
    return known.size if (encoded := job.encoded_size()) is None else encoded


@contextmanager
def opened(job: JobDir, known: Control) -> Iterator[Form]:
    """Hold what goes over the wire open, for a block. Raises PermanentError for changed data."""
    if (size := job.encoded_size()) is not None:
        with job.opened_encoded() as fd:
            yield Form(fd, size, Encoding(codec.NAME, size), check=False)
        return
    with job.opened_data() as fd:
        if os.fstat(fd).st_size != known.size:
            raise PermanentError("source changed after submit: the data file has another size")
        # Bytes that nobody can have changed since submit are checked by the archive site alone.
        yield Form(fd, known.size, None, check=job.may_have_changed(fd))


def choose(
    job: JobDir,
    known: Control,
    accepts: Accepts,
    rate: float | None,
    room: Callable[[], int],
) -> None:
    """Encode a job's data if that makes it arrive earlier; else leave it as it is.

    `rate` is that of the link in bytes per second, None when it is not known; `room` tells the
    bytes that may still be written to the spool. What goes wrong here harms nobody: then the data
    goes as it is.
    """
    if codec.NAME not in accepts.codecs or codec.available() is None:
        return
    if not codec_trial.worth_a_trial(known.size, rate) or not known.may_be_encoded:
        return
    with _turn(), suppress(LpxferError, OSError), job.opened_data() as fd:
        if job.may_have_changed(fd) or room() < known.size:
            return
        layout = fits.layout(os.pread(fd, fits.HEADERS, 0))
        trials = codec_trial.trial(fd, known.size, layout.element)
        params = codec_trial.choose(trials, known.size, rate, overlapped=False)
        if params:
            job.write_encoded(lambda out: codec.encode(fd, known.size, out, params))


@contextmanager
def _turn() -> Iterator[None]:
    """Have one's turn to encode for a block; or do without, when it has not come by then."""
    mine = _encoding.acquire(timeout=PATIENCE)
    try:
        yield
    finally:
        if mine:
            _encoding.release()

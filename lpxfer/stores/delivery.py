"""What an arrival delivers: the file of one job, or those of a bundle's members.

Whether it is what was submitted only its bytes tell: see `verify`.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lpxfer import checksum, codec
from lpxfer.checksum import Slice, Source, SourceError, Text
from lpxfer.errors import FormatError, PermanentError
from lpxfer.formats import bundle, control, names
from lpxfer.formats.bundle import Bundle, Member
from lpxfer.formats.control import Control
from lpxfer.stores.incoming import Arrival


class Mismatch(PermanentError):
    """Other bytes arrived than were submitted; the sender may send again."""


@dataclass(frozen=True)
class Delivery:
    """The file of one job, in an open arrival."""

    control: Control
    data: Source  # its bytes, as they were submitted
    raw: Slice  # its bytes, as they arrived
    file: Slice | None = None  # its control file, as it arrived; a bundle's member has none

    def text(self) -> Slice | Text:
        """Return its control file for the data as it was submitted, and what the transfer took."""
        if self.file and not self.control.encoding:
            return self.file
        return Text(control.dump(self.control.plain()))

    def pieces(self) -> Mapping[str, Slice | Text]:
        """Return what arrived, by the suffix of its wire name."""
        return {names.DATA: self.raw, names.CONTROL: self.file or self.text()}


@dataclass(frozen=True)
class Encoded:
    """The bytes of a file that arrived encoded, as they were submitted."""

    raw: Slice
    wire_size: int  # bytes that must have arrived
    size: int  # bytes that were submitted

    def chunks(self) -> Iterator[bytes | bytearray]:
        """Yield the bytes. Raises Mismatch for what nobody encoded, TemporaryError, SourceError."""
        if (there := self.raw.length()) != self.wire_size:
            raise Mismatch(f"{there} bytes arrived, {self.wire_size} were sent")
        try:
            yield from codec.decode(self.raw.fd, self.wire_size, self.size, self.raw.offset)
        except FormatError as error:
            raise Mismatch(f"what arrived cannot be decoded: {error}") from error
        except OSError as error:
            raise SourceError(error.errno, error.strerror) from error

    def length(self) -> None:
        """Return None: only decoding tells."""


def verify(control: Control, size: int | None, checksum: str | None = None) -> None:
    """Raise Mismatch when a file has another size or checksum than its control file says.

    What is None is not known yet.
    """
    if size is not None and size != control.size:
        raise Mismatch(f"{size} bytes arrived, {control.size} were submitted")
    if checksum is not None and checksum != control.checksum:
        raise Mismatch(f"the bytes that arrived have the checksum {checksum}")


def is_whole(control: Control, fd: int) -> bool:
    """Tell whether an open data file, in the form in which it arrived, has the file's bytes."""
    data: Source = Slice(fd)
    if control.encoding:
        data = Encoded(Slice(fd), control.encoding.size, control.size)
    try:
        verify(control, *checksum.of(data, control.size))
    except Mismatch:
        return False
    return True


def deliveries(arrival: Arrival, known: Control | Bundle, data: int) -> list[Delivery]:
    """Return what an arrival delivers, whose control file says `known`; `data` is its open data.

    Of a bundle the index is read, and nothing else. Raises Mismatch, FormatError and OSError.
    """
    if isinstance(known, Bundle):
        return [_member(member, data) for member in bundle.members(known, _index(known, data))]
    whole, file = Slice(data), Slice(arrival.fd)
    if known.encoding:
        source = Encoded(whole, known.encoding.size, known.size)
        return [Delivery(known, source, whole, file)]
    return [Delivery(known, whole, whole, file)]


def surplus(known: Bundle, data: int) -> None:
    """Raise Mismatch for a bundle with bytes in it that are no member's."""
    if (size := os.fstat(data).st_size) > known.size:
        raise Mismatch(f"{size} bytes arrived, {known.size} were sent")


def _index(known: Bundle, data: int) -> bytes:
    index = b"".join(Slice(data, size=known.index).chunks())
    if len(index) < known.index:
        raise Mismatch(f"{len(index)} bytes arrived, {known.size} were sent")
    if (found := checksum.of_bytes(index)) != known.checksum:
        raise Mismatch(f"the index that arrived has the checksum {found}")
    return index


def _member(member: Member, data: int) -> Delivery:
    part = Slice(data, member.offset, member.size)
    return Delivery(member.control, part, part)

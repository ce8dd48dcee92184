"""The wire codec: a file in fewer bytes, and back again to the last bit. See xfer-codec(5).

A file is cut into frames of 1 MiB. The bytes of a frame's elements (pixels) are shuffled, so that
equal ones stand together, and compressed; what does not shrink stays as it is.
The same file and parameters give the same bytes with the same release of blosc2, which does
the work (the extra lpxfer[codec]) and is loaded by the first call that needs it.

What is decoded is hostile. blosc2 never sees a header or a length from the wire: of its
chunk only the compressed bytes travel, the reader makes the rest itself. So nothing on the wire
can ask for more memory than a few frames, name a file or a plug-in, or write beyond its frame.

Raises FormatError for a stream that is not exactly one, PermanentError for a source that
ends too early, TemporaryError where blosc2 is missing, and OSError.
"""

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

from lpxfer.durable import write_all
from lpxfer.errors import FormatError, PermanentError, TemporaryError

NAME = "blosc2"  # in control files and in receipts/accepts

FRAME = 1 << 20  # bytes of the file in one frame; another number is another version

HANDS = min(4, os.cpu_count() or 1)  # frames that are encoded at once: faster than any link

COMPRESSORS = ("zstd", "lz4")
FILTERS = ("none", "shuffle", "bitshuffle")
ELEMENTS = (1, 2, 4, 8)  # bytes

_HEAD = struct.Struct(">8sBBBxQ")  # magic, compressor, filter, element, size
_MAGIC = b"XFCODEC1"  # the digit is the version
_LENGTH = struct.Struct(">I")

# What begins a chunk of one block that is not split: version, version of the compressor,
# flags, element; size, size of the block, size of the chunk; filters, compressor; where the
# block begins, how long its one stream is. It follows from parameters and sizes alone.
_CHUNK = struct.Struct("<BBBBiiiB5xB9xii")
_COMPRESSOR_CODES = {"zstd": (5, 4), "lz4": (1, 1)}  # for cparams, and in the flags
_EXTENDED, _NOT_SPLIT = 0x05, 0x10


@dataclass(frozen=True)
class Params:
    """How a file is encoded."""

    compressor: str  # one of COMPRESSORS
    filter: str  # one of FILTERS
    element: int  # bytes, one of ELEMENTS

    def text(self) -> str:
        """Write them as one word: `zstd-shuffle-2`."""
        return f"{self.compressor}-{self.filter}-{self.element}"


def parse(text: str) -> Params:
    """Read what `Params.text` wrote, or raise FormatError."""
    compressor, _, rest = text.partition("-")
    name, _, element = rest.partition("-")
    if compressor in COMPRESSORS and name in FILTERS and element in map(str, ELEMENTS):
        return Params(compressor, name, int(element))
    raise FormatError(f"not the parameters of a codec: {text[:40]!r}")


@cache
def available() -> str | None:
    """Return the codec's name if this machine can encode and decode, without loading it."""
    import importlib.util

    return NAME if importlib.util.find_spec("blosc2") else None


def library() -> str:
    """Say what encodes, `blosc2-4.14.1`: the same makes the same bytes from the same file."""
    return f"blosc2-{_blosc2().__version__}"


def encode(source_fd: int, size: int, out_fd: int, params: Params) -> int:
    """Write the encoded first `size` bytes of an open file; return how many bytes they became."""
    wire_size = 0
    for piece in pieces(source_fd, size, params):
        write_all(out_fd, piece)
        wire_size += len(piece)
    return wire_size


def pieces(
    source_fd: int, size: int, params: Params, seen: Callable[[bytes], object] = len
) -> Iterator[bytes]:
    """Yield the encoded first `size` bytes of an open file, frame by frame.

    `seen` is called with each frame as it was read: a checksum is had on the way.
    """
    blosc2 = _blosc2()
    yield _HEAD.pack(
        _MAGIC,
        COMPRESSORS.index(params.compressor),
        FILTERS.index(params.filter),
        params.element,
        size,
    )
    with ThreadPoolExecutor(HANDS) as pool:
        begun = deque[Future[bytes]]()
        for at in range(0, size, FRAME):
            held = _read(source_fd, min(FRAME, size - at), at)
            if len(held) < min(FRAME, size - at):
                raise PermanentError(f"the file ends after {at + len(held)} of {size} bytes")
            seen(held)
            begun.append(pool.submit(_pack, blosc2, held, params))
            if len(begun) > HANDS:
                yield _framed(begun.popleft().result())
        yield from (_framed(one.result()) for one in begun)


def decode(fd: int, wire_size: int, size: int, offset: int = 0) -> Iterator[bytes | bytearray]:
    """Yield the `size` bytes of a file, in order, from `wire_size` bytes of an open one.

    Never more than `size`. Whatever is odd raises FormatError, at the latest after the last
    piece: what was yielded before is then worth nothing.
    """
    blosc2 = _blosc2()
    wire = _Wire(fd, offset, offset + wire_size)
    params = _load_head(wire.take(_HEAD.size), size)
    for at in range(0, size, FRAME):
        held = min(FRAME, size - at)
        (length,) = _LENGTH.unpack(wire.take(_LENGTH.size))
        if not 1 <= length <= held:
            raise FormatError(f"a frame of {length} bytes stands for {held}")
        yield _unpack(blosc2, wire.take(length), held, params)
    if wire.at != wire.end:
        raise FormatError(f"{wire.end - wire.at} bytes after the last frame")


def sample(held: bytes, params: Params) -> int:
    """Encode one frame or less; return how many bytes it would become."""
    return len(_pack(_blosc2(), held, params))


@dataclass
class _Wire:
    """The bytes of an open file from `at` to `end`, taken one after another."""

    fd: int
    at: int
    end: int

    def take(self, count: int) -> bytes:
        if count > self.end - self.at:
            raise FormatError(f"torn: {count} bytes wanted, {self.end - self.at} left")
        data = _read(self.fd, count, self.at)
        if len(data) < count:
            raise FormatError(f"torn: the file ends after {self.at + len(data)} bytes")
        self.at += count
        return data


def _load_head(head: bytes, size: int) -> Params:
    magic, compressor, name, element, said = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise FormatError(f"not an encoded file of version 1: it begins with {magic!r}")
    if said != size:
        raise FormatError(f"encoded were {said} bytes, not {size}")
    if not (compressor < len(COMPRESSORS) and name < len(FILTERS) and element in ELEMENTS):
        raise FormatError(f"unknown parameters {compressor}, {name}, {element}")
    params = Params(COMPRESSORS[compressor], FILTERS[name], element)
    if _HEAD.pack(magic, compressor, name, element, said) != head:
        raise FormatError("a byte of the header that has to be zero is not")
    return params


def _pack(blosc2: Any, held: bytes, params: Params) -> bytes:
    """Encode a frame: one byte if all are the same, its own bytes if it does not shrink."""
    chunk: bytes = blosc2.compress2(
        held,
        codec=blosc2.Codec[params.compressor.upper()],
        clevel=1,
        typesize=params.element,
        filters=[blosc2.Filter(FILTERS.index(params.filter))],
        filters_meta=[0],
        blocksize=FRAME,  # one block: the library's own choice would depend on the processor
        splitmode=blosc2.SplitMode.NEVER_SPLIT,
        nthreads=1,  # with more, blocks would be stored in the order they are ready
    )
    begin = _begin(params, len(held), len(chunk))
    if chunk.startswith(begin) and len(chunk) - len(begin) < len(held):
        return chunk[len(begin) :]
    return held[:1] if held == held[:1] * len(held) else held


def _unpack(blosc2: Any, packed: bytes, held: int, params: Params) -> bytes | bytearray:
    """Decode a frame of `held` bytes; raises FormatError if it is not exactly one."""
    if len(packed) == 1:
        return packed * held
    if len(packed) == held:
        return packed
    frame = bytearray(held)
    try:
        blosc2.decompress2(
            _begin(params, held, _CHUNK.size + len(packed)) + packed, dst=frame, nthreads=1
        )
    except (ValueError, RuntimeError) as error:
        raise FormatError("a frame cannot be decoded") from error
    return frame


def _framed(packed: bytes) -> bytes:
    return _LENGTH.pack(len(packed)) + packed


def _begin(params: Params, held: int, length: int) -> bytes:
    """Make what blosc2 puts before the compressed bytes, in a chunk of `length` bytes."""
    code, in_flags = _COMPRESSOR_CODES[params.compressor]
    flags = _EXTENDED | _NOT_SPLIT | in_flags << 5
    where = _CHUNK.size - 4  # the block: the length of its stream, then the stream
    name = FILTERS.index(params.filter)
    return _CHUNK.pack(
        5, 1, flags, params.element, held, held, length, name, code, where, length - _CHUNK.size
    )


def _read(fd: int, count: int, at: int) -> bytes:
    """Read `count` bytes at an offset, fewer only where the file ends."""
    data = os.pread(fd, count, at)
    while len(data) < count and (more := os.pread(fd, count - len(data), at + len(data))):
        data += more
    return data


def _blosc2() -> Any:
    """Load the library. It lets other threads run meanwhile, and starts none of its own."""
    try:
        import blosc2
    except ImportError as error:
        raise TemporaryError(f"the codec {NAME} is missing: install lpxfer[codec]") from error
    blosc2.set_releasegil(True)
    return blosc2

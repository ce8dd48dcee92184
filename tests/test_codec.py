"""The wire codec: every bit comes back, and what is hostile gives nothing but FormatError."""

import contextlib
import os
import random
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lpxfer import codec
from lpxfer.codec import COMPRESSORS, ELEMENTS, FILTERS, FRAME, Params
from lpxfer.errors import FormatError, PermanentError, TemporaryError
from lpxfer.formats import control

ZSTD = Params("zstd", "shuffle", 2)
ALL = [Params(c, f, e) for c in COMPRESSORS for f in FILTERS for e in ELEMENTS]
HEAD = 20  # bytes

each_way = pytest.mark.parametrize("params", ALL, ids=[params.text() for params in ALL])


opened: list[int] = []


@pytest.fixture(autouse=True)
def close_files() -> Iterator[None]:
    yield
    while opened:
        os.close(opened.pop())


def memory(data: bytes = b"") -> int:
    """Open a file in memory that holds these bytes."""
    opened.append(fd := os.memfd_create("test"))
    os.write(fd, data)
    return fd


def encoded(data: bytes, params: Params = ZSTD) -> bytes:
    return b"".join(codec.pieces(memory(data), len(data), params))


def decoded(wire: bytes, size: int) -> bytes:
    try:
        return b"".join(codec.decode(memory(wire), len(wire), size))
    finally:
        os.close(opened.pop())


def noise(size: int, element: int = 2, seed: int = 0) -> bytes:
    """Make pixels above a bias, big-endian: what shrinks when it is shuffled."""
    dice = random.Random(seed)
    pixels = (int(dice.gauss(1000, 9)) % 256**element for _ in range(size // element + 1))
    return b"".join(pixel.to_bytes(element, "big") for pixel in pixels)[:size]


#: A frame of each kind: compressed, as it is, all bytes equal; with a short one after them.
PIECES = {"noise": noise(FRAME), "random": random.Random(1).randbytes(FRAME), "zeros": bytes(FRAME)}
KINDS = list(PIECES)


# --- every bit comes back --------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(KINDS), max_size=2),
    st.sampled_from(KINDS),
    st.integers(-9, 9) | st.integers(0, 300) | st.integers(0, FRAME),
    st.sampled_from(ALL),
)
@example([], "noise", 0, ZSTD)
@example([], "noise", 1, ZSTD)
@example(["noise"], "noise", 0, ZSTD)
@example(["zeros"], "random", 1, ZSTD)
@settings(max_examples=60, deadline=None)
def test_every_byte_comes_back_around_the_borders_of_frames(frames, last, more, params):
    data = b"".join(PIECES[kind] for kind in frames)
    data = data[:more] if more < 0 else data + PIECES[last][:more]
    assert decoded(encoded(data, params), len(data)) == data


@given(st.binary(max_size=4000), st.sampled_from(ALL))
@settings(max_examples=200, deadline=None)
def test_any_bytes_come_back(data, params):
    wire = encoded(data, params)
    assert decoded(wire, len(data)) == data
    assert len(wire) <= HEAD + 4 + len(data)  # what does not shrink grows by its length only


@each_way
def test_each_way_shrinks_what_it_is_for(params):
    data = b"some line of a log, 24!\n" * 9999
    if params.filter != "none" and params.element > 1:
        data = noise(300_000, params.element)
    assert len(encoded(data, params)) < len(data) * 0.9
    assert decoded(encoded(data, params), len(data)) == data


@pytest.mark.parametrize(
    "kind, values",
    [
        ("B", [200, 201, 203] * 3000),
        ("h", [-32768, 32767, -1, 0, 1000] * 3000),
        ("i", [70000, -70000, 70001] * 3000),
        ("q", [1 << 40, -(1 << 40)] * 3000),
        ("f", [1.5, 1.25, float("nan"), float("-inf"), 0.0, -0.0, 1e-40] * 3000),
        ("d", [1.5, 1.25, float("nan"), float("inf"), -0.0, 5e-324] * 3000),
    ],
)
def test_numbers_of_every_kind_come_back_as_they_were(kind, values):
    pixels = array(kind, values)
    pixels.byteswap()
    data = pixels.tobytes()
    for compressor in COMPRESSORS:
        for name in FILTERS:
            wire = encoded(data, Params(compressor, name, pixels.itemsize))
            assert len(wire) < len(data) / 10
            assert decoded(wire, len(data)) == data


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"a"])
@pytest.mark.parametrize("size", [1, 2, 33, FRAME - 1, FRAME, 2 * FRAME + 1])
def test_equal_bytes_take_five_bytes_a_frame(byte, size):
    wire = encoded(byte * size, Params("lz4", "none", 1))
    assert len(wire) <= HEAD + 5 * -(-size // FRAME)
    assert decoded(wire, size) == byte * size


def test_same_file_and_parameters_give_the_same_bytes_also_in_two_threads():
    data, wires = 3 * PIECES["noise"], []
    threads = [threading.Thread(target=lambda: wires.append(encoded(data))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wires == [encoded(data)] * 2


def test_only_the_first_bytes_asked_for_are_encoded_and_their_checksum_is_had_on_the_way():
    data, seen = 2 * PIECES["noise"], []
    wire = b"".join(codec.pieces(memory(data), FRAME + 7, ZSTD, seen.append))
    assert b"".join(seen) == decoded(wire, FRAME + 7) == data[: FRAME + 7]


def test_encode_writes_what_pieces_yields_and_counts_it():
    data, target = noise(FRAME + 9), memory()
    size = codec.encode(memory(data), len(data), target, ZSTD)
    assert size == os.fstat(target).st_size
    assert os.pread(target, size, 0) == encoded(data)


def test_part_of_a_file_is_decoded_and_nothing_beside_it():
    data = noise(FRAME + 9)
    wire = encoded(data)
    source = memory(b"before" + wire + b"after")
    assert b"".join(codec.decode(source, len(wire), len(data), 6)) == data


def test_source_that_ends_too_early_is_an_error():
    with pytest.raises(PermanentError, match=f"ends after {FRAME + 5} of {2 * FRAME} bytes"):
        b"".join(codec.pieces(memory(bytes(FRAME + 5)), 2 * FRAME, ZSTD))


def test_memory_is_that_of_a_few_frames():
    data = noise(FRAME)
    source, target = memory(data * 24), memory()
    wire_size = codec.encode(source, 24 * FRAME, target, ZSTD)
    tracemalloc.start()
    try:
        codec.encode(source, 24 * FRAME, memory(), ZSTD)
        for piece in codec.decode(target, wire_size, 24 * FRAME):
            assert len(piece) == FRAME
        assert tracemalloc.get_traced_memory()[1] < (5 + 2 * codec.HANDS) * FRAME
    finally:
        tracemalloc.stop()


# --- the format ------------------------------------------------------------------------------


def test_stream_is_as_its_page_says():
    pixels = b"\x01\x00\x01\x01" * 50
    head = struct.pack(">8sBBBBQ", b"XFCODEC1", 0, 1, 2, 0, FRAME + 204)
    wire = encoded(bytes(FRAME) + pixels + b"ends")
    assert wire.startswith(head + b"\0\0\0\1\0")
    (length,) = struct.unpack_from(">I", wire, HEAD + 5)
    assert length == len(wire) - HEAD - 5 - 4 < 204
    assert wire[HEAD + 9 :].startswith(b"\x28\xb5\x2f\xfd")  # a zstd frame begins so


def test_example_of_the_page_begins_as_a_file_is_encoded():
    page = (Path(__file__).parents[1] / "man/xfer-codec.5").read_text()
    dump = re.findall(r"^((?:[0-9a-f]{2} +){12,16})", page, re.MULTILINE)
    example = bytes.fromhex("".join(dump))
    wire = encoded(noise(8640))
    assert example[:HEAD] == wire[:HEAD]
    assert int.from_bytes(example[HEAD : HEAD + 4], "big") == 3921
    assert example[HEAD + 4 :] == wire[HEAD + 4 : HEAD + 8]


def test_frame_is_what_any_zstd_makes_of_the_shuffled_bytes():
    # by hand, RFC 8878: one segment of 80 bytes, no checksum; two runs, of 40 bytes each
    zstd = b"\x28\xb5\x2f\xfd\x20\x50" + struct.pack("<I", 40 << 3 | 1 << 1)[:3] + b"\7"
    zstd += struct.pack("<I", 40 << 3 | 1 << 1 | 1)[:3] + b"\x08"
    head = struct.pack(">8sBBBBQ", b"XFCODEC1", 0, 1, 2, 0, 80)
    assert decoded(head + struct.pack(">I", len(zstd)) + zstd, 80) == b"\x07\x08" * 40


def test_last_frame_that_is_no_whole_number_of_elements_stays_as_it_is():
    data = noise(1001)
    assert encoded(data)[HEAD + 4 :] == data


def test_parameters_are_one_word_and_come_back():
    assert ZSTD.text() == "zstd-shuffle-2"
    assert [codec.parse(params.text()) for params in ALL] == ALL


@pytest.mark.parametrize("text", ["", "zstd", "zstd-shuffle-3", "zstd-shuffle-02", "gzip-none-1",
                                  "zstd-shuffle-2-", " zstd-none-1", "zstd-none-²"])  # fmt: skip
def test_other_words_are_no_parameters(text):
    with pytest.raises(FormatError, match="not the parameters of a codec"):
        codec.parse(text)


# --- hostile streams -------------------------------------------------------------------------

SMALL = noise(260) + bytes(40)
WIRE = encoded(SMALL)


def test_small_stream_is_compressed():
    assert len(WIRE) < len(SMALL) * 0.9


def test_stream_cut_anywhere_is_refused():
    for length in range(len(WIRE)):
        with pytest.raises(FormatError, match="torn"):
            decoded(WIRE[:length], len(SMALL))
    source = memory(WIRE[:-1])
    with pytest.raises(FormatError, match="torn: the file ends"):
        list(codec.decode(source, len(WIRE), len(SMALL)))


@pytest.mark.parametrize("params", [ZSTD, Params("lz4", "bitshuffle", 2)], ids=Params.text)
def test_any_flipped_bit_is_refused_or_gives_as_many_bytes(params):
    wire, same = encoded(SMALL, params), 0
    for bit in range(8 * len(wire)):
        flipped = bytearray(wire)
        flipped[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(FormatError):
            data = decoded(bytes(flipped), len(SMALL))
            assert len(data) == len(SMALL)  # the checksum tells that they are others
            same += data == SMALL
    assert same < 16  # of a zstd frame's header a few bits do not count


@pytest.mark.parametrize("more", [b"\0", WIRE[HEAD:], WIRE])
def test_bytes_after_the_last_frame_are_refused(more):
    with pytest.raises(FormatError, match=f"{len(more)} bytes after the last frame"):
        decoded(WIRE + more, len(SMALL))


@pytest.mark.parametrize("size", [0, 1, len(SMALL) - 1, len(SMALL) + 1, FRAME, 10**18, 1 << 63])
def test_stream_of_another_size_than_the_control_file_says_is_refused_at_once(size):
    with pytest.raises(FormatError, match="encoded were"):
        next(codec.decode(memory(WIRE), len(WIRE), size))


def test_claim_of_a_huge_size_yields_no_more_than_the_frames_that_are_there():
    head = struct.pack(">8sBBBBQ", b"XFCODEC1", 0, 1, 2, 0, 10**18)
    wire = head + b"\0\0\0\1\0" * 2
    pieces = codec.decode(memory(wire), len(wire), 10**18)
    assert next(pieces) == next(pieces) == bytes(FRAME)
    with pytest.raises(FormatError, match="torn"):
        next(pieces)


@pytest.mark.parametrize("length", [0, 301, FRAME, FRAME + 1, 1 << 31, (1 << 32) - 1])
def test_length_of_a_frame_that_cannot_be_is_refused_before_it_is_read(length):
    wire = WIRE[:HEAD] + struct.pack(">I", length) + bytes(400)
    with pytest.raises(FormatError, match=f"a frame of {length} bytes stands for 300"):
        decoded(wire, len(SMALL))


@pytest.mark.parametrize(
    "at, byte", [(0, 0), (7, ord("2")), (8, 2), (9, 3), (10, 0), (10, 3), (10, 16), (11, 1)]
)
def test_header_that_no_encoder_writes_is_refused(at, byte):
    with pytest.raises(FormatError):
        decoded(WIRE[:at] + bytes([byte]) + WIRE[at + 1 :], len(SMALL))


def bombs() -> Iterator[tuple[Params, bytes]]:
    """Yield compressed bytes that unpack to far more than the frame they stand in."""
    for held in (FRAME, FRAME - 1, 4096):
        data = b"ab" * (held // 2)
        for params in (Params("zstd", "none", 1), Params("lz4", "none", 1)):
            yield params, encoded(data, params)[HEAD + 4 :]


@pytest.mark.parametrize("held", [100, 1000, 3000])
def test_frame_that_unpacks_to_more_or_less_than_it_stands_for_is_refused(held):
    refused = 0
    for params, packed in bombs():
        if len(packed) < held:
            head = encoded(bytes(held), params)[:HEAD]
            with pytest.raises(FormatError, match="cannot be decoded"):
                decoded(head + struct.pack(">I", len(packed)) + packed, held)
            refused += 1
    assert refused


def test_thousands_of_damaged_frames_give_format_errors_and_no_crash():
    # in a process of its own: a crash of the C library is then a failure, not the end
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tried, refused = map(int, done.stdout.split())
    assert tried == 5000 and 1000 < refused < 4000


DAMAGE = """
import os, random
from lpxfer import codec
from lpxfer.errors import FormatError

dice, refused = random.Random(7), 0
wires = []
for c in codec.COMPRESSORS:
    for f in codec.FILTERS:
        for e in codec.ELEMENTS:
            data = b"".join(dice.randrange(40).to_bytes(e, "big") for _ in range(900 // e))
            fd = os.memfd_create("x")
            os.write(fd, data)
            params = codec.Params(c, f, e)
            wires.append((len(data), b"".join(codec.pieces(fd, len(data), params))))
            os.close(fd)
for n in range(5000):
    size, wire = dice.choice(wires)
    wire = bytearray(wire)
    for _ in range(dice.choice((1, 1, 2, 9))):
        at = dice.randrange(24, len(wire))
        wire[at] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
    if n % 5 == 0:
        wire[8:11] = dice.choice(wires)[1][8:11]
    fd = os.memfd_create("x")
    os.write(fd, wire)
    try:
        assert sum(map(len, codec.decode(fd, len(wire), size))) == size
    except FormatError:
        refused += 1
    os.close(fd)
print(n + 1, refused)
"""


# --- the library -----------------------------------------------------------------------------


def test_codec_is_available_here_and_has_the_name_that_control_files_know():
    assert codec.available() == codec.NAME
    assert control.CODECS == {codec.NAME}
    assert codec.library().startswith("blosc2-")


def test_nothing_is_loaded_before_it_is_needed():
    code = (
        "import sys; from lpxfer import codec, codec_trial; from lpxfer.formats import control;"
        "codec.available(); codec.parse('lz4-none-1'); codec_trial.choose([], 9**9, 1e6);"
        "print('blosc2' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_without_the_library_nothing_is_available_and_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "blosc2", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert codec.available.__wrapped__() is None  # what is known already would be told
    for call in (lambda: encoded(b"x"), lambda: decoded(WIRE, len(SMALL)), codec.library):
        with pytest.raises(TemporaryError, match=r"install lpxfer\[codec\]"):
            call()

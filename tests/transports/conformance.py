"""What every transport must do, whatever carries the bytes. Subclass and give `make`."""

import os
import random
import re
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from lpxfer.errors import AttemptError, LinkError, PermanentError
from lpxfer.formats.ranges import Ranges
from lpxfer.formats.rate import parse
from lpxfer.transports.limiter import Limiter
from lpxfer.transports.stripes import Stripes, Yielded
from lpxfer.transports.transport import Stat, Transport, Upload

MIB = 1 << 20
BIG = 8 * MIB  # more than any transport has in flight

Make = Callable[..., Transport]


@lru_cache
def noise(size: int, seed: int = 1) -> bytes:
    """Return bytes that are like no others."""
    return random.Random(seed).randbytes(size)


def threads_ended(earlier: Collection[threading.Thread]) -> bool:
    """Tell whether every thread but earlier ones ends; one that was told to may need a moment."""
    later = [thread for thread in threading.enumerate() if thread not in earlier]
    for thread in later:
        thread.join(10)
    return not any(thread.is_alive() for thread in later)


def put(
    transport: Transport,
    name: str,
    source: int | bytes,
    size: int,
    *,
    start: int = 0,
    limit: float = 0,
    acked: Callable[[int], None] = lambda offset: None,
    before_rename: Callable[[], None] = lambda: None,
) -> None:
    """Put one file, told of each acknowledged offset once."""
    stripes, last = Stripes(size, Ranges((0, start))), -1

    def moved() -> None:
        nonlocal last
        if stripes.acked > last:
            last = stripes.acked
            acked(last)

    with open(os.memfd_create(name), "w+b") as file:
        if isinstance(source, bytes):
            file.write(source)
            file.flush()
            source = file.fileno()
        upload = Upload(name, source, stripes, moved, before_rename)
        transport.put([upload], limit)


class Stop(Exception):
    """What a caller raises to end a put."""


class Conformance:
    """One test for each promise of Transport."""

    @pytest.fixture
    def incoming(self, tmp_path: Path) -> Path:
        """The directory that `rempath` names."""
        path = tmp_path / "incoming"
        path.mkdir()
        return path

    @pytest.fixture
    def make(self) -> Make:
        """Make an unconnected transport; arguments are rempath, stall, seal and limiter."""
        raise NotImplementedError

    @pytest.fixture
    def transport(self, make: Make, incoming: Path) -> Iterator[Transport]:
        """A connected transport."""
        transport = make(rempath=str(incoming))
        transport.connect()
        yield transport
        transport.close()

    @pytest.fixture
    def big(self, tmp_path: Path) -> Iterator[tuple[int, bytes]]:
        """An open file that takes several requests, and its bytes."""
        data = noise(BIG)
        path = tmp_path / "big"
        path.write_bytes(data)
        with path.open("rb") as file:
            yield file.fileno(), data

    # --- a whole put ------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 32767, 32768, 32769, 261120, 3 * MIB + 1])
    def test_put_brings_every_byte_and_leaves_no_part(
        self, transport: Transport, incoming: Path, tmp_path: Path, size: int
    ) -> None:
        data = noise(size)
        (tmp_path / "source").write_bytes(data)
        with (tmp_path / "source").open("rb") as source:
            put(transport, "a", source.fileno(), size)
        put(transport, "b", data, size)
        assert (incoming / "a").read_bytes() == (incoming / "b").read_bytes() == data
        assert sorted(os.listdir(incoming)) == ["a", "b"]

    def test_put_does_not_move_the_offset_of_its_source(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        (tmp_path / "source").write_bytes(b"abc")
        with (tmp_path / "source").open("rb") as source:
            put(transport, "a", source.fileno(), 3)
            assert os.lseek(source.fileno(), 0, os.SEEK_CUR) == 0

    @pytest.mark.parametrize("seal", [0o440, 0o040])
    def test_mode_of_a_file_in_incoming_is_the_seal(
        self, make: Make, incoming: Path, seal: int
    ) -> None:
        transport = make(rempath=str(incoming), seal=seal)
        transport.connect()
        put(transport, "a", b"abc", 3)
        assert transport.stat("a") == [Stat(3, seal)]
        assert stat.S_IMODE((incoming / "a").stat().st_mode) == seal
        transport.close()

    def test_acknowledged_offsets_grow_and_end_at_the_size(
        self, transport: Transport, big: tuple[int, bytes]
    ) -> None:
        offsets: list[int] = []
        put(transport, "a", big[0], BIG, acked=offsets.append)
        assert len(offsets) >= 8
        assert offsets == sorted(set(offsets))
        assert offsets[-1] == BIG

    def test_empty_file_is_acknowledged(self, transport: Transport) -> None:
        offsets: list[int] = []
        put(transport, "a", b"", 0, acked=offsets.append)
        assert offsets == [0]

    def test_final_name_appears_after_before_rename(
        self, transport: Transport, incoming: Path
    ) -> None:
        seen: list[list[str]] = []
        put(transport, "a", b"abc", 3, before_rename=lambda: seen.append(os.listdir(incoming)))
        assert seen == [[".a.part"]]
        assert os.listdir(incoming) == ["a"]

    def test_callbacks_run_in_the_callers_thread(self, transport: Transport) -> None:
        threads: set[int] = set()

        def note(*_: int) -> None:
            threads.add(threading.get_ident())

        put(transport, "a", b"abc", 3, acked=note, before_rename=note)
        assert threads == {threading.get_ident()}

    def test_existing_final_name_is_not_overwritten(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / "a").write_bytes(b"first")
        with pytest.raises(PermanentError, match="a exists already"):
            put(transport, "a", b"second", 6)
        assert (incoming / "a").read_bytes() == b"first"
        put(transport, "b", b"third", 5)

    def test_source_shorter_than_its_size_is_not_published(
        self, transport: Transport, incoming: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "source").write_bytes(b"abc")
        with (tmp_path / "source").open("rb") as source:
            with pytest.raises(PermanentError, match="ends at 3 bytes"):
                put(transport, "a", source.fileno(), 4)
        transport.connect()
        with pytest.raises(PermanentError, match="ends at 3 bytes"):
            put(transport, "b", b"abc", 4)
        assert not {"a", "b"} & set(os.listdir(incoming))

    # --- several files, several connections --------------------------------------------------

    def test_files_get_their_names_in_order_when_all_are_complete(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        seen: dict[str, set[str]] = {}

        def note(what: str) -> Callable[[], None]:
            return lambda: seen.setdefault(what, set(os.listdir(incoming))) and None

        def made() -> bytes:
            assert stripes.complete
            note("made")()
            return b"last"

        stripes = Stripes(BIG)
        first = Upload("a", big[0], stripes, before_rename=note("a"))
        transport.put([first, Upload("b", made, before_rename=note("b"))])
        assert (incoming / "a").read_bytes() == big[1]
        assert (incoming / "b").read_bytes() == b"last"
        parts = {".a.part", ".b.part"}
        assert seen == {"made": parts, "a": parts, "b": {"a", ".b.part"}}
        assert transport.stat("a", "b", "c") == [Stat(BIG, 0o440), Stat(4, 0o440), None]

    def test_second_file_that_is_sealed_is_not_made_again(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        (incoming / ".b.part").write_bytes(b"of an earlier attempt")
        (incoming / ".b.part").chmod(0o440)
        transport.put([Upload("a", big[0], Stripes(BIG)), Upload("b", lambda: b"new")])
        assert (incoming / "b").read_bytes() == b"of an earlier attempt"

    def test_gaps_between_what_was_acknowledged_are_filled(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        (incoming / ".a.part").write_bytes(b"x" * BIG)
        there = Ranges((0, MIB), (2 * MIB, 3 * MIB), (BIG - 5, BIG))
        transport.put([Upload("a", big[0], Stripes(BIG, there))])
        expected = bytearray(big[1])
        for start, end in there:
            expected[start:end] = b"x" * (end - start)
        assert (incoming / "a").read_bytes() == expected

    def test_helpers_carry_a_file_together(
        self, transport: Transport, make: Make, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        stripes = Stripes(BIG)
        errors: list[Exception] = []

        def help_out() -> None:
            other = make(rempath=str(incoming))
            try:
                other.connect()
                started.wait(30)
                other.help("a", big[0], stripes)
            except Exception as error:  # noqa: BLE001 - it is the finding
                errors.append(error)
            finally:
                other.close()

        started = threading.Event()
        threads = [threading.Thread(target=help_out) for _ in range(2)]
        for thread in threads:
            thread.start()

        def moved() -> None:
            started.set()
            time.sleep(0.005)

        transport.put([Upload("a", big[0], stripes, moved)])
        for thread in threads:
            thread.join(30)
        assert not errors
        assert (incoming / "a").read_bytes() == big[1]

    def test_help_that_comes_too_late_does_nothing(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        stripes = Stripes(BIG)
        transport.put([Upload("a", big[0], stripes)])
        transport.help("a", big[0], stripes)
        transport.put([Upload("b", big[0], Stripes(BIG))])
        assert (incoming / "b").read_bytes() == big[1]

    def test_file_that_gives_way_keeps_what_was_acknowledged(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        stripes = Stripes(BIG)

        def moved() -> None:
            if stripes.bytes > MIB:
                stripes.end()

        with pytest.raises(Yielded):
            transport.put([Upload("a", big[0], stripes, moved)])
        assert MIB < stripes.bytes < BIG
        assert os.listdir(incoming) == [".a.part"]
        transport.put([Upload("b", big[0], Stripes(BIG))])  # over the same connection
        transport.put([Upload("a", big[0], Stripes(BIG, stripes.done))])
        assert (incoming / "a").read_bytes() == (incoming / "b").read_bytes() == big[1]

    # --- what an earlier attempt left -------------------------------------------------------

    def test_put_goes_on_from_the_acknowledged_offset(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        # The part differs from the source, so that what was not sent again can be told; and
        # it is longer than what was acknowledged, with a hole as a full disk leaves it.
        (incoming / ".a.part").write_bytes(b"x" * MIB + bytes(MIB))
        offsets: list[int] = []
        put(transport, "a", big[0], BIG, start=MIB, acked=offsets.append)
        assert (incoming / "a").read_bytes() == b"x" * MIB + big[1][MIB:]
        assert offsets[0] > MIB

    def test_part_shorter_than_the_acknowledged_offset_starts_again(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"xx")
        put(transport, "a", b"abcdef", 6, start=3)
        assert (incoming / "a").read_bytes() == b"abcdef"

    def test_part_that_is_gone_starts_again(self, transport: Transport, incoming: Path) -> None:
        put(transport, "a", b"abcdef", 6, start=3)
        assert (incoming / "a").read_bytes() == b"abcdef"

    def test_part_longer_than_the_file_starts_again(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"x" * 7)
        put(transport, "a", b"abcdef", 6, start=3)
        assert (incoming / "a").read_bytes() == b"abcdef"

    def test_part_of_full_size_without_a_seal_is_not_trusted(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"x" * 6)
        put(transport, "a", b"abcdef", 6)
        assert (incoming / "a").read_bytes() == b"abcdef"

    def test_everything_acknowledged_already_is_sealed_and_renamed(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"x" * 6)
        offsets: list[int] = []
        put(transport, "a", b"abcdef", 6, start=6, acked=offsets.append)
        assert transport.stat("a") == [Stat(6, 0o440)]
        assert (incoming / "a").read_bytes() == b"x" * 6
        assert offsets == [6]

    def test_sealed_part_of_full_size_is_renamed_and_not_opened(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"x" * 6)
        (incoming / ".a.part").chmod(0o440)
        calls: list[object] = []
        put(
            transport,
            "a",
            b"abcdef",
            6,
            acked=calls.append,
            before_rename=lambda: calls.append("!"),
        )
        assert (incoming / "a").read_bytes() == b"x" * 6
        assert os.listdir(incoming) == ["a"]
        assert calls == [6, "!"]

    @pytest.mark.parametrize("left", [b"", b"xxx", b"x" * 9])
    def test_sealed_part_of_another_size_is_put_aside_and_the_file_sent_anew(
        self, transport: Transport, incoming: Path, left: bytes
    ) -> None:
        """A power cut at the archive site kept the mode and lost the bytes."""
        part = incoming / ".u.data.part"
        part.write_bytes(left)
        part.chmod(0o440)
        put(transport, "u.data", b"abcdef", 6, start=3)
        assert (incoming / "u.data").read_bytes() == b"abcdef"
        (aside,) = set(os.listdir(incoming)) - {"u.data"}
        assert re.fullmatch(r"\.u\.[0-9a-f]{8}\.data\.part", aside)
        assert (incoming / aside).read_bytes() == left

    def test_link_in_place_of_the_part_is_not_followed(
        self, transport: Transport, incoming: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "victim").write_bytes(b"precious")
        (incoming / ".a.part").symlink_to(tmp_path / "victim")
        with pytest.raises(PermanentError, match="not a regular file"):
            put(transport, "a", b"abc", 3)
        assert (tmp_path / "victim").read_bytes() == b"precious"

    # --- stopped by the caller ----------------------------------------------------------------

    def test_what_acked_raises_ends_the_put_and_leaves_the_part(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        offsets: list[int] = []

        def acked(offset: int) -> None:
            offsets.append(offset)
            if offset > MIB:
                raise Stop

        with pytest.raises(Stop):
            put(transport, "a", big[0], BIG, acked=acked)
        assert os.listdir(incoming) == [".a.part"]
        assert (incoming / ".a.part").read_bytes()[: offsets[-1]] == big[1][: offsets[-1]]
        transport.connect()
        put(transport, "a", big[0], BIG, start=offsets[-1])
        assert (incoming / "a").read_bytes() == big[1]

    def test_what_before_rename_raises_leaves_no_final_name(
        self, transport: Transport, incoming: Path
    ) -> None:
        def stop() -> None:
            raise Stop

        with pytest.raises(Stop):
            put(transport, "a", b"abc", 3, before_rename=stop)
        assert os.listdir(incoming) == [".a.part"]
        put(transport, "a", b"abc", 3)  # over the same connection
        assert os.listdir(incoming) == ["a"]

    def test_limit_ends_a_put_that_takes_longer(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        with pytest.raises(AttemptError, match=r"maxftp: not done within 0.2 s"):
            put(transport, "a", big[0], BIG, limit=0.2, acked=lambda offset: time.sleep(0.1))
        assert os.listdir(incoming) == [".a.part"]

    def test_cut_ends_the_call_of_another_thread(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        def cut(offset: int) -> None:
            thread = threading.Thread(target=transport.cut, args=["canceled by alice"])
            thread.start()
            thread.join()

        with pytest.raises(AttemptError, match="canceled by alice"):
            put(transport, "a", big[0], BIG, acked=cut)
        with pytest.raises(AttemptError, match="canceled by alice"):
            transport.stat("a")
        assert os.listdir(incoming) == [".a.part"]

    # --- a rate limit -----------------------------------------------------------------------

    def test_bytes_go_as_the_limiter_lets_them(
        self, make: Make, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        slept: list[float] = []
        limiter = Limiter(parse("1M"), clock=lambda: sum(slept), sleep=slept.append)
        transport = make(rempath=str(incoming), limiter=limiter)
        transport.connect()
        put(transport, "a", big[0], BIG)
        transport.put([Upload("b", lambda: big[1][:MIB])])
        transport.close()
        assert sum(slept) == pytest.approx((BIG + MIB) / 1e6, rel=0.02)
        assert (incoming / "a").read_bytes() == big[1]
        assert (incoming / "b").read_bytes() == big[1][:MIB]

    def test_waiting_for_the_limiter_is_no_stall(self, make: Make, incoming: Path) -> None:
        transport = make(rempath=str(incoming), limiter=Limiter(parse("1k")))
        transport.connect()
        transport.stall = 0.7  # type: ignore[attr-defined]
        put(transport, "a", b"x" * 1500, 1500)
        transport.close()

    def test_cut_ends_the_wait_for_the_limiter(
        self, make: Make, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        transport = make(rempath=str(incoming), limiter=Limiter(parse("1k")))
        transport.connect()
        timer = threading.Timer(0.5, transport.cut, ["canceled by alice"])
        timer.start()
        began = time.monotonic()
        with pytest.raises(AttemptError, match="canceled by alice"):
            put(transport, "a", big[0], BIG)
        assert time.monotonic() - began < 30
        timer.join()
        transport.close()

    def test_connect_after_a_cut_works_again(self, transport: Transport, incoming: Path) -> None:
        transport.cut("canceled")
        with pytest.raises(AttemptError, match="canceled"):
            put(transport, "a", b"abc", 3)
        assert os.listdir(incoming) == []
        transport.connect()
        put(transport, "a", b"abc", 3)
        assert os.listdir(incoming) == ["a"]

    def test_close_twice_is_fine_and_a_call_without_connection_says_so(
        self, make: Make, incoming: Path
    ) -> None:
        transport = make(rempath=str(incoming))
        transport.close()
        with pytest.raises(LinkError, match="not connected"):
            transport.stat("a")
        transport.connect()
        transport.connect()
        transport.close()
        transport.close()
        with pytest.raises(LinkError, match="not connected"):
            put(transport, "a", b"", 0)

    def test_far_end_that_works_greets(self, make: Make, incoming: Path) -> None:
        assert make(rempath=str(incoming)).greets()

    # --- looking ------------------------------------------------------------------------------

    def test_stat_of_a_name_that_is_not_there_is_none(self, transport: Transport) -> None:
        assert transport.stat("a") == [None]

    def test_stat_of_something_that_is_no_file_says_so(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / "a").mkdir()
        (incoming / "b").symlink_to(incoming)
        for name in "ab":
            with pytest.raises(PermanentError, match="not a regular file"):
                transport.stat(name)

    def test_receipts_are_listed_and_read_from_an_offset(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        receipts = tmp_path / "receipts"
        receipts.mkdir()
        data = noise(MIB)
        (receipts / "b.log").write_bytes(data)
        (receipts / "a.log").write_bytes(b"")
        assert transport.names(str(receipts)) == ["a.log", "b.log"]
        path = str(receipts / "b.log")
        assert transport.read(path, 0, 2 * MIB) == data
        assert transport.read(path, 1000, 500_000) == data[1000:501_000]
        assert transport.read(path, MIB, 100) == b""
        assert transport.read(str(receipts / "a.log"), 0, 100) == b""

    def test_receipts_that_are_not_there_are_empty(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        assert transport.names(str(tmp_path / "none")) == []
        assert transport.read(str(tmp_path / "none" / "a.log"), 0, 100) == b""

    def test_file_of_receipts_that_cannot_be_read_is_not_the_links_trouble(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        with pytest.raises(PermanentError, match="cannot read"):
            transport.read(str(tmp_path), 0, 100)

    # --- incoming that does not work ------------------------------------------------------------

    def test_missing_incoming_is_the_links_trouble(self, make: Make, tmp_path: Path) -> None:
        transport = make(rempath=str(tmp_path / "none"))
        with pytest.raises(LinkError, match="none: there is no such directory"):
            transport.connect()
            put(transport, "a", b"abc", 3)
        (tmp_path / "none").mkdir()
        transport.connect()
        put(transport, "a", b"abc", 3)
        transport.close()

    def test_incoming_that_vanishes_and_returns_is_used_again(
        self, transport: Transport, incoming: Path
    ) -> None:
        incoming.rmdir()
        with pytest.raises(LinkError, match="incoming: there is no such directory"):
            put(transport, "a", b"abc", 3)
        incoming.mkdir()
        transport.connect()
        put(transport, "a", b"abc", 3)
        assert os.listdir(incoming) == ["a"]

    @pytest.fixture
    def small(self, incoming: Path) -> Iterator[Path]:
        """Incoming on a file system of 2 MiB of its own."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", incoming], check=True)
        yield incoming
        subprocess.run(["umount", "--lazy", incoming], check=True)

    @pytest.mark.root
    def test_full_incoming_is_the_links_trouble_and_is_sent_after_the_repair(
        self, small: Path, make: Make, big: tuple[int, bytes]
    ) -> None:
        transport = make(rempath=str(small))
        transport.connect()
        offsets = [0]
        with pytest.raises(LinkError, match=r"incoming is full: \d+ bytes free"):
            put(transport, "a", big[0], BIG, acked=offsets.append)
        assert offsets[-1] <= 2 * MIB
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        transport.connect()
        put(transport, "a", big[0], BIG, start=offsets[-1])
        assert (small / "a").read_bytes() == big[1]
        transport.close()

    @pytest.mark.root
    def test_read_only_incoming_is_the_links_trouble(self, small: Path, make: Make) -> None:
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        transport = make(rempath=str(small))
        transport.connect()
        with pytest.raises(LinkError, match=r"(?i)read-only"):
            put(transport, "a", b"abc", 3)
        transport.close()

"""What every transport must do, whatever carries the bytes. Subclass and give `make`."""

import os
import random
import re
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from lpxfer.errors import AttemptError, LinkError, PermanentError
from lpxfer.transports.transport import Stat, Transport

MIB = 1 << 20
BIG = 8 * MIB  # more than any transport has in flight

Make = Callable[..., Transport]


@lru_cache
def noise(size: int, seed: int = 1) -> bytes:
    """Return bytes that are like no others."""
    return random.Random(seed).randbytes(size)


def threads_ended() -> bool:
    """Tell whether every thread but ours ends; one that was told to may need a moment."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(10)
    return threading.active_count() == 1


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
        """Make an unconnected transport; arguments are rempath, stall and seal."""
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
            transport.put("a", source.fileno(), size)
        transport.put("b", data, size)
        assert (incoming / "a").read_bytes() == (incoming / "b").read_bytes() == data
        assert sorted(os.listdir(incoming)) == ["a", "b"]

    def test_put_does_not_move_the_offset_of_its_source(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        (tmp_path / "source").write_bytes(b"abc")
        with (tmp_path / "source").open("rb") as source:
            transport.put("a", source.fileno(), 3)
            assert os.lseek(source.fileno(), 0, os.SEEK_CUR) == 0

    @pytest.mark.parametrize("seal", [0o440, 0o040])
    def test_mode_of_a_file_in_incoming_is_the_seal(
        self, make: Make, incoming: Path, seal: int
    ) -> None:
        transport = make(rempath=str(incoming), seal=seal)
        transport.connect()
        transport.put("a", b"abc", 3)
        assert transport.stat("a") == Stat(3, seal)
        assert stat.S_IMODE((incoming / "a").stat().st_mode) == seal
        transport.close()

    def test_acknowledged_offsets_grow_and_end_at_the_size(
        self, transport: Transport, big: tuple[int, bytes]
    ) -> None:
        offsets: list[int] = []
        transport.put("a", big[0], BIG, acked=offsets.append)
        assert len(offsets) >= 8
        assert offsets == sorted(set(offsets))
        assert offsets[-1] == BIG

    def test_empty_file_is_acknowledged(self, transport: Transport) -> None:
        offsets: list[int] = []
        transport.put("a", b"", 0, acked=offsets.append)
        assert offsets == [0]

    def test_final_name_appears_after_before_rename(
        self, transport: Transport, incoming: Path
    ) -> None:
        seen: list[list[str]] = []
        transport.put("a", b"abc", 3, before_rename=lambda: seen.append(os.listdir(incoming)))
        assert seen == [[".a.part"]]
        assert os.listdir(incoming) == ["a"]

    def test_callbacks_run_in_the_callers_thread(self, transport: Transport) -> None:
        threads: set[int] = set()

        def note(*_: int) -> None:
            threads.add(threading.get_ident())

        transport.put("a", b"abc", 3, acked=note, before_rename=note)
        assert threads == {threading.get_ident()}

    def test_existing_final_name_is_not_overwritten(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / "a").write_bytes(b"first")
        with pytest.raises(PermanentError, match="a exists already"):
            transport.put("a", b"second", 6)
        assert (incoming / "a").read_bytes() == b"first"
        transport.put("b", b"third", 5)

    def test_source_shorter_than_its_size_is_not_published(
        self, transport: Transport, incoming: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "source").write_bytes(b"abc")
        with (tmp_path / "source").open("rb") as source:
            with pytest.raises(PermanentError, match="ends at 3 bytes"):
                transport.put("a", source.fileno(), 4)
        transport.connect()
        with pytest.raises(PermanentError, match="ends at 3 bytes"):
            transport.put("b", b"abc", 4)
        assert not {"a", "b"} & set(os.listdir(incoming))

    # --- what an earlier attempt left -------------------------------------------------------

    def test_put_goes_on_from_the_acknowledged_offset(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        # The part differs from the source, so that what was not sent again can be told; and
        # it is longer than what was acknowledged, with a hole as a full disk leaves it.
        (incoming / ".a.part").write_bytes(b"x" * MIB + bytes(MIB))
        offsets: list[int] = []
        transport.put("a", big[0], BIG, start=MIB, acked=offsets.append)
        assert (incoming / "a").read_bytes() == b"x" * MIB + big[1][MIB:]
        assert offsets[0] > MIB

    def test_part_shorter_than_the_acknowledged_offset_starts_again(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"xx")
        transport.put("a", b"abcdef", 6, start=3)
        assert (incoming / "a").read_bytes() == b"abcdef"

    def test_part_that_is_gone_starts_again(self, transport: Transport, incoming: Path) -> None:
        transport.put("a", b"abcdef", 6, start=3)
        assert (incoming / "a").read_bytes() == b"abcdef"

    def test_part_longer_than_the_file_starts_again(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"x" * 7)
        transport.put("a", b"abcdef", 6, start=3)
        assert (incoming / "a").read_bytes() == b"abcdef"

    def test_part_of_full_size_without_a_seal_is_not_trusted(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"x" * 6)
        transport.put("a", b"abcdef", 6)
        assert (incoming / "a").read_bytes() == b"abcdef"

    def test_everything_acknowledged_already_is_sealed_and_renamed(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"x" * 6)
        offsets: list[int] = []
        transport.put("a", b"abcdef", 6, start=6, acked=offsets.append)
        assert transport.stat("a") == Stat(6, 0o440)
        assert (incoming / "a").read_bytes() == b"x" * 6
        assert offsets == [6]

    def test_sealed_part_of_full_size_is_renamed_and_not_opened(
        self, transport: Transport, incoming: Path
    ) -> None:
        (incoming / ".a.part").write_bytes(b"x" * 6)
        (incoming / ".a.part").chmod(0o440)
        calls: list[object] = []
        transport.put(
            "a", b"abcdef", 6, acked=calls.append, before_rename=lambda: calls.append("!")
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
        transport.put("u.data", b"abcdef", 6, start=3)
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
            transport.put("a", b"abc", 3)
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
            transport.put("a", big[0], BIG, acked=acked)
        assert os.listdir(incoming) == [".a.part"]
        assert (incoming / ".a.part").read_bytes()[: offsets[-1]] == big[1][: offsets[-1]]
        transport.connect()
        transport.put("a", big[0], BIG, start=offsets[-1])
        assert (incoming / "a").read_bytes() == big[1]

    def test_what_before_rename_raises_leaves_no_final_name(
        self, transport: Transport, incoming: Path
    ) -> None:
        def stop() -> None:
            raise Stop

        with pytest.raises(Stop):
            transport.put("a", b"abc", 3, before_rename=stop)
        assert os.listdir(incoming) == [".a.part"]
        transport.put("a", b"abc", 3)  # over the same connection
        assert os.listdir(incoming) == ["a"]

    def test_limit_ends_a_put_that_takes_longer(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        with pytest.raises(AttemptError, match=r"maxftp: not done within 0.2 s"):
            transport.put("a", big[0], BIG, limit=0.2, acked=lambda offset: time.sleep(0.1))
        assert os.listdir(incoming) == [".a.part"]

    def test_cut_ends_the_call_of_another_thread(
        self, transport: Transport, incoming: Path, big: tuple[int, bytes]
    ) -> None:
        def cut(offset: int) -> None:
            thread = threading.Thread(target=transport.cut, args=["canceled by alice"])
            thread.start()
            thread.join()

        with pytest.raises(AttemptError, match="canceled by alice"):
            transport.put("a", big[0], BIG, acked=cut)
        with pytest.raises(AttemptError, match="canceled by alice"):
            transport.stat("a")
        assert os.listdir(incoming) == [".a.part"]

    def test_connect_after_a_cut_works_again(self, transport: Transport, incoming: Path) -> None:
        transport.cut("canceled")
        with pytest.raises(AttemptError, match="canceled"):
            transport.put("a", b"abc", 3)
        assert os.listdir(incoming) == []
        transport.connect()
        transport.put("a", b"abc", 3)
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
            transport.put("a", b"", 0)

    def test_far_end_that_works_greets(self, make: Make, incoming: Path) -> None:
        assert make(rempath=str(incoming)).greets()

    # --- looking ------------------------------------------------------------------------------

    def test_stat_of_a_name_that_is_not_there_is_none(self, transport: Transport) -> None:
        assert transport.stat("a") is None

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
            transport.put("a", b"abc", 3)
        (tmp_path / "none").mkdir()
        transport.connect()
        transport.put("a", b"abc", 3)
        transport.close()

    def test_incoming_that_vanishes_and_returns_is_used_again(
        self, transport: Transport, incoming: Path
    ) -> None:
        incoming.rmdir()
        with pytest.raises(LinkError, match="incoming: there is no such directory"):
            transport.put("a", b"abc", 3)
        incoming.mkdir()
        transport.connect()
        transport.put("a", b"abc", 3)
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
            transport.put("a", big[0], BIG, acked=offsets.append)
        assert offsets[-1] <= 2 * MIB
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        transport.connect()
        transport.put("a", big[0], BIG, start=offsets[-1])
        assert (small / "a").read_bytes() == big[1]
        transport.close()

    @pytest.mark.root
    def test_read_only_incoming_is_the_links_trouble(self, small: Path, make: Make) -> None:
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        transport = make(rempath=str(small))
        transport.connect()
        with pytest.raises(LinkError, match=r"(?i)read-only"):
            transport.put("a", b"abc", 3)
        transport.close()

"""Bulk data over an SSH channel of paramiko: many packets in one call, no copy that can be avoided.

paramiko makes, encrypts and sends one packet of 32 KiB at a time, each byte copied several
times over. Here a batch of packets is laid out in one buffer, the file is read straight into
it, AES-GCM encrypts it into another, and one call of the system sends that. `Packetizer` is
paramiko's own extension point for this; key exchange and rekeying, strict key exchange
included, stay paramiko's. With another cipher than AES-GCM the packets go paramiko's way.

A packet is, by RFC 4253 (6), RFC 4254 (5.2) and RFC 5647 (7.3):

    length, padding length, [94, channel, data length, data], padding, tag
    clear   encrypted ------------------------------------------------> 16 bytes
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_DATA
from paramiko.packet import Packetizer

from lpxfer.transports.wire import Fill

BATCH = 8  # packets sent at once: 256 KiB, a write's worth
PACKET = 32768  # bytes of data in one at most, as OpenSSH takes

_CLEAR = 4  # length
_HEAD = 10  # padding length, type, channel, data length
_TAG = 16
_BLOCK = 16
_SLOT = _CLEAR + _HEAD + PACKET + 2 * _BLOCK + _TAG


class Batch:
    """Data for a channel, as long as several packets; taken for a message by the packetizer."""

    def __init__(self, channel: int, sizes: Sequence[int], fill: Fill) -> None:
        """Name the far end's number of the channel, the bytes of each packet, and their source."""
        self.channel, self.sizes, self.fill = channel, sizes, fill

    def messages(self) -> "list[paramiko.Message]":
        """Return the packets one by one, for ciphers that are not ours."""
        data = [memoryview(bytearray(size)) for size in self.sizes]
        self.fill(data)
        found = []
        for piece in data:
            message = paramiko.Message()
            message.add_byte(bytes([MSG_CHANNEL_DATA]))
            message.add_int(self.channel)
            message.add_string(bytes(piece))
            found.append(message)
        return found


class BulkPacketizer(Packetizer):
    """Sends what paramiko sends, and batches of channel data at once."""

    # OpenSSH's limit for a cipher with blocks of 16 bytes, RFC 4344 (3.2): 2^32 blocks. Far
    # sooner, as paramiko has it, a long link would stand still for some round trips each time.
    REKEY_BYTES = 1 << 36
    REKEY_PACKETS = 1 << 31

    def __init__(self, socket: Any) -> None:
        """Take over the connected socket."""
        super().__init__(socket)
        self._writing = threading.RLock()
        self._encrypt: Callable[[bytes, memoryview, bytes, memoryview], object] | None = None
        self._salt, self._counter = b"", 0  # the two parts of the nonce
        self._bytes = self._packets = 0  # since the keys were new
        self._plain = memoryview(bytearray(BATCH * _SLOT))
        self._wire = memoryview(bytearray(BATCH * _SLOT))

    def set_outbound_cipher(self, *args: Any, **named: Any) -> None:
        """Take new keys from paramiko's key exchange."""
        with self._writing:
            super().set_outbound_cipher(*args, **named)
            engine = named.get("block_engine", args[0] if args else None)
            gcm = bool(named.get("aead")) and hasattr(engine, "encrypt_into")
            self._encrypt = engine.encrypt_into if engine is not None and gcm else None
            nonce = named.get("iv_out") or b""
            self._salt, self._counter = nonce[:4], int.from_bytes(nonce[4:], "big")
            self._bytes = self._packets = 0

    def send_message(self, data: Any) -> None:
        """Send one message, or a Batch."""
        with self._writing:
            if self._encrypt is not None:
                if isinstance(data, Batch):
                    self._send_batch(data)
                else:
                    self._send(data.asbytes())
                return
        for message in data.messages() if isinstance(data, Batch) else [data]:
            super().send_message(message)

    def _send(self, payload: bytes) -> None:
        """Send a message of paramiko's; some are larger than a slot, so it has its own buffers."""
        size = _CLEAR + _HEAD + len(payload) + 2 * _BLOCK + _TAG
        plain, wire = memoryview(bytearray(size)), memoryview(bytearray(size))
        plain[_CLEAR + 1 : _CLEAR + 1 + len(payload)] = payload
        self._flush(wire[: self._seal(plain, 1 + len(payload), wire)], 1)

    def _send_batch(self, batch: Batch) -> None:
        views, start = [], _CLEAR + _HEAD
        for slot, size in enumerate(batch.sizes):
            views.append(self._plain[slot * _SLOT + start : slot * _SLOT + start + size])
        batch.fill(views)
        end, channel = 0, batch.channel.to_bytes(4, "big")
        for slot, size in enumerate(batch.sizes):
            plain = self._plain[slot * _SLOT : (slot + 1) * _SLOT]
            plain[_CLEAR + 1 : start] = (
                bytes([MSG_CHANNEL_DATA]) + channel + size.to_bytes(4, "big")
            )
            end += self._seal(plain, _HEAD + size, self._wire[end:])
        self._flush(self._wire[:end], len(batch.sizes))

    def _seal(self, plain: memoryview, size: int, wire: memoryview) -> int:
        """Encrypt a packet whose `size` bytes stand behind the room for its length.

        Returns the bytes that it takes in `wire`.
        """
        assert self._encrypt
        padding = _BLOCK - size % _BLOCK
        padding += _BLOCK if padding < 4 else 0
        # The padding is what was there before: the peer's own data, which is encrypted anyhow.
        plain[_CLEAR] = padding
        length = (size + padding).to_bytes(_CLEAR, "big")
        wire[:_CLEAR] = length
        end = _CLEAR + size + padding
        nonce = self._salt + self._counter.to_bytes(8, "big")
        self._encrypt(nonce, plain[_CLEAR:end], length, wire[_CLEAR : end + _TAG])
        self._counter = (self._counter + 1) & (1 << 64) - 1
        return end + _TAG

    def _flush(self, wire: memoryview, packets: int) -> None:
        self.write_all(wire)
        self._bytes += len(wire)
        self._packets += packets
        if self._bytes >= self.REKEY_BYTES or self._packets >= self.REKEY_PACKETS:
            self._bytes = self._packets = 0
            self._trigger_rekey()  # type: ignore[attr-defined]  # a verb for classes like this one

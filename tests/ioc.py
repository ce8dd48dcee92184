"""A real EPICS IOC on the loopback, with the variables that tests of xfer-watch listen to."""

import contextlib
import os
import random
import socket
import subprocess
import sys
from types import TracebackType

_SCRIPT = """
import sys
from softioc import softioc, builder, asyncio_dispatcher
builder.SetDeviceName("TEST")
records = {
    "NAME": builder.stringOut("NAME", initial_value=""),
    "LONG": builder.longStringOut("LONG", length=512, initial_value=""),
    "NUMBER": builder.longOut("NUMBER", initial_value=0),
}
builder.LoadDatabase()
softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher())
print("ready", flush=True)
for line in sys.stdin:
    record, _, value = line.rstrip("\\n").partition(" ")
    records[record].set(int(value) if record == "NUMBER" else value)
    print("set", flush=True)
"""


def free_port() -> int:
    """Return a port of the loopback that is free for TCP and for UDP.

    None that the kernel gives to whoever asks for any: an IOC whose port is in use takes another
    and does not say so.
    """
    while True:
        port = random.randint(10_000, 30_000)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            with contextlib.suppress(OSError):
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
                return port


class Ioc:
    """One IOC; it can be killed, and started again at the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.client = {
            "EPICS_CA_ADDR_LIST": f"127.0.0.1:{self.port}",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_CONN_TMO": "2",
        }

    def start(self) -> None:
        environ = os.environ | {
            "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_SERVER_PORT": str(self.port),
            "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_PVAS_SERVER_PORT": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._await("ready")

    def _await(self, word: str) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.strip() == word:
                return
        raise AssertionError("the IOC has ended")

    def put(self, record: str, value: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{record} {value}\n")
        self._process.stdin.flush()
        self._await("set")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> "Ioc":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.kill()

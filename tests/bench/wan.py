"""A long line for a benchmark: two network namespaces and the relay between them, wan.c.

Nothing of it has a name in the system: namespaces, devices and addresses live as long as the
relay, and the relay no longer than this process. Needs root, a C compiler and /dev/net/tun.

    python tests/bench/wan.py [MBIT [ONE_WAY_MS [LOSS_PERCENT [CONTROL]]]]

measures the line itself, with one plain TCP stream and with eight.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

NEAR, FAR = "10.77.0.1", "10.77.0.2"
MTU = 1500
SEED = 4  # of the losses
IPV4 = Path("/proc/sys/net/ipv4")

# The line's own queue must be the only one that overflows, so the devices' are longer.
# A connection must not start with what the kernel remembers of the one before.
SETTINGS = """set -e
ip link set lo up
ip address add {address}/30 dev wan
ip link set wan mtu {mtu} txqueuelen 20000 up
echo {control} >/proc/sys/net/ipv4/tcp_congestion_control
echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save
"""


class NotRun(Exception):
    """This machine cannot do it; the text says why."""


@dataclass(frozen=True)
class Line:
    """What a line is like; its queue holds what is under way in one round trip."""

    rate: float  # Mbit/s of IP packets
    one_way: float  # ms
    loss: float = 0.0  # percent of packets
    control: str = "cubic"  # TCP congestion control of both ends

    @property
    def queue(self) -> int:
        """Bytes that may wait in front of it."""
        return int(self.rate * 1e6 / 8 * 2 * self.one_way / 1e3)

    def __str__(self) -> str:
        lost = f", {self.loss:g} % loss" if self.loss else ""
        return f"{self.rate:g} Mbit/s, round trip {2 * self.one_way:g} ms{lost}, {self.control}"


@dataclass(frozen=True)
class Ends:
    """How programs get to the two ends: what goes in front of their command lines."""

    host: str = "127.0.0.1"  # the far end, as the near end sees it
    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()
    relay: int = 0  # its process id


@contextlib.contextmanager
def wan(line: Line) -> Iterator[Ends]:
    """Hold a line for a block. Raises NotRun where this machine cannot make one."""
    check(line)
    with contextlib.ExitStack() as stack:
        stack.enter_context(allowed(line.control))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="lpxfer-wan-"))
        binary = Path(directory) / "wan"
        source = Path(__file__).with_name("wan.c")
        subprocess.run(["cc", "-O2", "-o", binary, source], check=True, timeout=60)
        numbers = (line.rate, line.one_way, line.loss, line.queue, SEED)
        relay = stack.enter_context(
            subprocess.Popen(
                [binary, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(stop, relay)
        assert relay.stdout and relay.stderr
        ready = relay.stdout.readline().split()
        if len(ready) != 2:
            raise NotRun(f"the relay does not start: {relay.stderr.read().strip()}")
        near, far = (("nsenter", f"--net=/proc/{relay.pid}/fd/{number}", "--") for number in ready)
        for end, address in ((near, NEAR), (far, FAR)):
            script = SETTINGS.format(address=address, mtu=MTU, control=line.control)
            subprocess.run([*end, "sh", "-c", script], check=True, timeout=20)
        yield Ends(FAR, near, far, relay.pid)


def stop(relay: subprocess.Popen[str]) -> None:
    """Stop the relay, and show what it says of its packets."""
    relay.terminate()
    click.echo(relay.communicate(timeout=20)[1], nl=False, err=True)


@contextlib.contextmanager
def allowed(control: str) -> Iterator[None]:
    """Let namespaces have a congestion control; that is a setting of the whole machine."""
    setting = IPV4 / "tcp_allowed_congestion_control"
    before = setting.read_text()
    if control in before.split():
        yield
        return
    setting.write_text(f"{before.strip()} {control}")
    try:
        yield
    finally:
        setting.write_text(before)


def check(line: Line) -> None:
    """Raise NotRun with the first reason why this machine cannot make a line."""
    for program in ("cc", "ip", "nsenter"):
        if not shutil.which(program):
            raise NotRun(f"no {program} here")
    if os.geteuid() != 0:
        raise NotRun("network namespaces need root")
    if not os.path.exists("/dev/net/tun"):
        raise NotRun("no /dev/net/tun here")
    if line.control not in (IPV4 / "tcp_available_congestion_control").read_text().split():
        raise NotRun(f"this kernel has no {line.control}")


# --- measuring the line itself ------------------------------------------------------------------

DRAIN = """
import socket, threading
def drain(connection):
    while connection.recv(1 << 20): pass
with socket.create_server(("", 5001)) as server:
    print(flush=True)
    while True:
        threading.Thread(target=drain, args=server.accept()[:1], daemon=True).start()
"""

# How many bytes went out in the seconds after the first three, which are for slow start.
POUR = """
import socket, sys, threading, time
host, streams, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
begin = time.monotonic() + 3
sent = [0] * streams
def pour(number):
    with socket.create_connection((host, 5001)) as connection:
        block = bytes(1 << 16)
        while (now := time.monotonic()) < begin + seconds:
            sent[number] += connection.send(block) * (now >= begin)
threads = [threading.Thread(target=pour, args=(n,)) for n in range(streams)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(sent) * 8e-6 / seconds)
"""


def measure(ends: Ends, streams: int, seconds: float) -> tuple[float, float]:
    """Return the Mbit/s that TCP streams carry, and the CPU of the relay, 1 for a whole one."""
    command = [*ends.far, sys.executable, "-c", DRAIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as drain:
        assert drain.stdout
        drain.stdout.readline()
        command = [*ends.near, sys.executable, "-c", POUR, ends.host, str(streams), str(seconds)]
        before, began = cpu(ends.relay), time.monotonic()
        out = subprocess.run(command, check=True, capture_output=True, timeout=60 + 2 * seconds)
        share = (cpu(ends.relay) - before) / (time.monotonic() - began)
        drain.kill()
    return float(out.stdout), share


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(rate: str = "500", one_way: str = "50", loss: str = "0", control: str = "cubic") -> None:
    """Print the round trip, and what one stream and eight carry."""
    line = Line(float(rate), float(one_way), float(loss), control)
    click.echo(line)
    with wan(line) as ends:
        ping = [*ends.near, "ping", "-c5", "-i.2", ends.host]
        if shutil.which("ping"):
            out = subprocess.run(ping, check=True, capture_output=True, text=True, timeout=30)
            click.echo(out.stdout.splitlines()[-1])
        for streams in (1, 8):
            mbit, share = measure(ends, streams, 8)
            click.echo(f"{streams} streams: {mbit:.0f} Mbit/s, relay {100 * share:.0f} % of a CPU")


if __name__ == "__main__":
    main(*sys.argv[1:])

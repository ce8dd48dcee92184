"""A link and a sender that paces itself, played second by second: no bytes, no clock.

Files come, connections carry them in bundles, the link fails and comes back; each time that a
connection is free the pacing is asked. What it was told can be written as a trace.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lpxfer.formats import pace, pace_trace
from lpxfer.formats.pace import Decision, Observation, State
from lpxfer.formats.rate_history import History

START = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
TICK = 0.05  # seconds


@dataclass
class Transfer:
    """Files that travel together."""

    files: list[tuple[float, int]]
    left: float  # bytes
    until: float  # not done before its round trips are over


@dataclass
class Play:
    """What happens on a link, and what the pacing makes of it."""

    delay: Callable[[float], float]  # seconds of a round trip, by the time
    up: Callable[[float], bool] = lambda time: True
    rate: float = 5e6  # bytes a second of the whole link
    connections: int = 4
    files: list[tuple[float, int]] = field(default_factory=list)  # when they come, and bytes
    alone: bool = False  # one file a transfer, for an archive that takes no bundles

    starts: list[tuple[float, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # from coming to the first start
    periods: list[float] = field(default_factory=list)
    trace: list[bytes] = field(default_factory=list)
    crowd: int = 0  # most transfers under way at once
    finished: float = 0.0

    def run(self, seconds: float) -> "Play":
        """Play it to its end."""
        self._state, self._history = State(), History()
        self._active: list[Transfer] = []
        self._failures, self._moved, self._told_at, self._reason = 0, 0.0, 0.0, ""
        coming, waiting = sorted(self.files), list[tuple[float, int]]()
        for tick in range(int(seconds / TICK)):
            time = tick * TICK
            while coming and coming[0][0] <= time:
                waiting.append(coming.pop(0))
            self._move(time, waiting)
            while waiting and len(self._active) < self.connections:
                if not self._ask(time, waiting).send:
                    break
                taken = waiting[:1] if self.alone else waiting[:]
                del waiting[: len(taken)]
                self.waits += [time - came for came, _ in taken]
                size = sum(size for _, size in taken)
                done_at = time + pace.ROUNDS * self.delay(time)
                self._active.append(Transfer(taken, size, done_at))
                self.crowd = max(self.crowd, len(self._active))
        self.left = len(waiting) + sum(len(transfer.files) for transfer in self._active)
        return self

    def _move(self, time: float, waiting: list[tuple[float, int]]) -> None:
        """Let a tick pass on the link."""
        if not self._active:
            return
        if not self.up(time):  # every connection breaks by itself
            self._failures += len(self._active)
            for transfer in self._active:
                waiting[:0] = transfer.files
            self._active.clear()
            return
        moving = [transfer for transfer in self._active if transfer.left > 0]
        for transfer in moving:
            transfer.left -= self.rate * TICK / len(moving)
        moved = self.rate * TICK if moving else 0.0
        self._history.add(time, moved, TICK)
        self._moved += moved
        self._active = [t for t in self._active if t.left > 0 or t.until > time]
        self.finished = time

    def _ask(self, time: float, waiting: list[tuple[float, int]]) -> Decision:
        rates = self._history.rates(time)
        seen = Observation(
            time=time,
            waiting=sum(size for _, size in waiting),
            oldest=time - min(came for came, _ in waiting),
            active=len(self._active),
            mean=rates.mean,
            deviation=rates.deviation,
            delay=self.delay(time),
            failures=self._failures,
        )
        self._state, decision = pace.decide(self._state, seen)
        since = time - self._told_at
        if decision.send or decision.reason != self._reason or since >= 0.5:
            rate = self._moved / since if since else 0.0
            self.trace.append(pace_trace.dump(START + timedelta(seconds=time), seen, rate))
            self._told_at, self._moved, self._reason = time, 0.0, decision.reason
        self.periods.append(decision.period)
        if decision.send:
            self.starts.append((time, decision.reason))
        return decision


def far_link() -> Play:
    """A large file on a far link, a small one every 0.4 s, and a second large one."""
    small = [(0.3 + number * 0.4, 20 * 1024) for number in range(20)]
    files = [(0.0, 40_000_000), *small, (5.0, 25_000_000)]
    return Play(lambda time: 0.15, files=files).run(9)


def outage() -> Play:
    """A link that fails at 10 seconds and again at 14, while a file comes every half second."""
    return Play(
        lambda time: 0.15,
        up=lambda time: not (10 < time < 12.5 or 14 < time < 14.5),
        connections=8,
        alone=True,
        files=[(0.5 * number, 1_000_000) for number in range(50)],
    ).run(30)

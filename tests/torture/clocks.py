"""Clocks that are wrong, jump, or meet a night with 23 or 25 hours.

The dates that are made are compared with zoneinfo, on every night on which a zone changes its
clocks. What waits for a time is played under a virtual clock that is stepped while it waits.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

from torture.judge import Judge
from torture.stage import HOST, STALE, STRANGER, Sites
from torture.table import Result
from torture.virtual import ARCHIVE, START, TELESCOPE, World

from lpxfer.formats import backoff, dates
from lpxfer.formats.config import InstrumentConfig
from lpxfer.formats.job import Routing, State
from lpxfer.formats.window import NOON, window
from lpxfer.steps import check, status
from lpxfer.steps.sweep import Rules, destination
from lpxfer.stores.archive import HALF_AGE
from lpxfer.stores.incoming import MARK_AGE, Incoming
from lpxfer.stores.queue import Queue

DAY, HOUR = 86400.0, 3600.0

ZONES = """UTC MST EST5EDT America/New_York America/Phoenix America/Santiago America/St_Johns
    Europe/London Europe/Berlin Africa/Casablanca Atlantic/Canary Pacific/Honolulu Asia/Kolkata
    Asia/Kathmandu Pacific/Chatham Australia/Sydney Australia/Lord_Howe Antarctica/Troll
    Pacific/Apia Pacific/Kiritimati""".split()
YEARS, YEARS_SHORT = range(1970, 2050, 3), (1970, 2011, 2026, 2038)

#: By how much a clock is stepped while something waits (seconds).
STEPS = (-60.0, -HOUR, -5 * HOUR, -3 * DAY, -40 * DAY, HOUR, 6 * DAY, 40 * DAY, 1.0, -1.0)


def run(short: bool) -> Iterator[Result]:
    """Try every date and every step."""
    steps = STEPS[2:7] if short else STEPS
    yield _count("clocks: dates, by zoneinfo", _dates(YEARS_SHORT if short else YEARS))
    yield _count("clocks: what waits, while its clock is stepped", _waits(steps))
    yield _count("clocks: sites that disagree", _skews(short))


def _count(case: str, tried: Iterator[str | None]) -> Result:
    result = Result(case)
    for violation in tried:
        result.count(violation)
    return result


# --- dates ----------------------------------------------------------------------------------------


def _dates(years: Iterable[int]) -> Iterator[str | None]:
    for name, year in product(ZONES, years):
        zone, known = dates.find_zone(name), ZoneInfo(name)
        for instant in _instants(known, year):
            for noon in (False, True):
                yield _night(name, instant, noon)
            yield _unequal(f"-H at {instant}", _next_clock(instant), _expected_clock(instant))
        for day in _changes(known, year):
            for begin in (0.0, NOON):
                got = window(day, zone, f"{day.astimezone(known):%Y-%m-%d}", begin, 24.0)
                midnight = datetime.combine(day.astimezone(known).date(), time())
                local = midnight + timedelta(hours=begin)
                start = local.replace(tzinfo=known).astimezone(UTC)
                if start.astimezone(known).replace(tzinfo=None) == local:  # it is no skipped time
                    yield _unequal(f"window of {name} at {local}", got.start, start)
                yield _unequal(f"span of {name} at {local}", got.end - got.start, timedelta(days=1))


def _changes(zone: ZoneInfo, year: int) -> list[datetime]:
    """Return the noons of the days in a year on which a zone's clocks were changed."""
    noons = [datetime(year, 1, 1, 12, tzinfo=UTC) + timedelta(days=n) for n in range(365)]
    return [
        noon
        for noon in noons
        if noon.astimezone(zone).utcoffset()
        != (noon + timedelta(days=1)).astimezone(zone).utcoffset()
    ]


def _instants(zone: ZoneInfo, year: int) -> Iterator[datetime]:
    """Yield times around the changes of a year, and around its beginning."""
    for noon in [datetime(year, 1, 1, tzinfo=UTC), *_changes(zone, year)]:
        for minutes in range(-780, 2200, 47):
            yield noon + timedelta(minutes=minutes, seconds=minutes % 2 * 59.999)


def _night(name: str, instant: datetime, noon: bool) -> str | None:
    """Compare the dated directory of a file submitted at an instant."""
    local = instant.astimezone(ZoneInfo(name)).replace(tzinfo=None)
    expected = (local - timedelta(hours=12 * noon)).date()
    control = SimpleNamespace(name="a.fits", dir=None, path="/data/a.fits", submitted=instant)
    rules = Rules(InstrumentConfig("x", zone=name, noon=noon))
    got = destination(control, rules)[0]  # type: ignore[arg-type]
    return _unequal(f"{name} at {instant}, noon={noon}", got, (f"{expected:%Y.%m%d}",))


def _next_clock(now: datetime) -> datetime:
    return dates.next_clock("00:30", now)


def _expected_clock(now: datetime) -> datetime:
    days = (now.date() + timedelta(days=n) for n in range(2))
    return next(t for t in (_half_past(day) for day in days) if t > now)


def _half_past(day: date) -> datetime:
    return datetime.combine(day, time(0, 30), UTC)


def _unequal(what: str, got: object, expected: object) -> str | None:
    return None if got == expected else f"{what}: {got} instead of {expected}"


# --- what waits -----------------------------------------------------------------------------------


class Scene:
    """Both sites, and one file or another on its way."""

    def __init__(self, root: Path) -> None:
        self.root, self.world = root, World(1)
        self.sites = Sites(root, self.world, lambda line: None)
        self.queue: Queue = self.sites.queues["archive"]
        self.sender = self.sites.senders["archive"]
        self.far = self.sites.far
        self.far.delay = 0.0

    def submit(self, wish: Routing | None = None, inst: str = "minicam") -> str:
        path = self.root / "data" / "0123.fits"
        path.write_bytes(b"SIMPLE  =")
        return self.sites.submit(self.queue, path, inst, False, wish or Routing(), None)

    def work(self, seconds: float = 0.0) -> None:
        """Let the sender do all it has to do, for a while."""
        end = self.world.time + seconds
        while True:
            if not self.sender.lives:
                self.sender.start()
            while self.sender.step() != "nothing":
                pass
            if self.world.time >= end:
                return
            self.world.time = min(end, self.world.time + 60)

    def sweep(self, inst: str = "minicam") -> str:
        return self.sites.sweep(inst)

    def step(self, site: str, seconds: float) -> None:
        self.world.offset[site] += seconds

    def now(self, site: str = TELESCOPE) -> datetime:
        return self.world.now(site)


@contextmanager
def _scene() -> Iterator[Scene]:
    root = Path(tempfile.mkdtemp(prefix="lpxfer-clocks-"))
    try:
        made = Scene(root)
        with made.sites.entered():
            yield made
    finally:
        shutil.rmtree(root)


def _waits(steps: tuple[float, ...]) -> Iterator[str | None]:
    acts: list[Callable[[Scene, float], str | None]] = [
        _deferred, _deferred_and_restarted, _wished, _unconfirmed, _swept_late, _half, _stale,
        _marked, _aged, _delivered_twice,
    ]  # fmt: skip
    for act, step in product(acts, steps):
        with _scene() as scene:
            said = act(scene, step)
            yield said and f"{act.__name__[1:]}, the clock is stepped by {step:g} s: {said}"


def _defer(scene: Scene) -> str:
    """Let a job fail until its back-off is the longest."""
    job = scene.submit()
    with scene.queue.open(job, State.PENDING) as opened:
        until = backoff.job_not_before(scene.now(), 9, 1.0)
        opened.set_routing(Routing(stalls=10, not_before=until, reason="no byte acknowledged"))
    return job


def _deferred(scene: Scene, step: float, restarted: bool = False) -> str | None:
    job = _defer(scene)
    scene.work(60)
    if scene.queue.where(job) is not State.PENDING:
        return "a deferred job has not waited"
    if restarted:
        scene.sender.kill()
    scene.step(TELESCOPE, step)
    # In the worst case the clock is set back by as much as the job had waited for.
    scene.work(2 * backoff.JOB_MOST * (1 + backoff.SPREAD) + 120)
    return None if scene.queue.where(job) is State.SENT else "a deferred job sleeps"


def _deferred_and_restarted(scene: Scene, step: float) -> str | None:
    return _deferred(scene, step, restarted=True)


def _wished(scene: Scene, step: float) -> str | None:
    job = scene.submit(Routing(not_before=dates.next_clock("23:00", scene.now())))
    scene.work(60)
    if scene.queue.where(job) is not State.PENDING:
        return "it went before its time"
    scene.step(TELESCOPE, step)
    scene.work(2 * DAY)
    return None if scene.queue.where(job) is State.SENT else "it sleeps"


def _unconfirmed(scene: Scene, step: float) -> str | None:
    """The archive has lost an arrival in a power cut."""
    job = scene.submit()
    scene.work(5)
    for path in scene.sites.incoming.iterdir():
        path.unlink()
    scene.step(TELESCOPE, step)
    scene.work(2 * HOUR + 120)
    sent_again = list(scene.sites.incoming.glob("*.control"))
    return None if sent_again else f"it is not sent again: {scene.queue.where(job)}"


def _swept_late(scene: Scene, step: float) -> str | None:
    """An arrival that is still in incoming is not sent again, however late the hour."""
    job = scene.submit()
    scene.work(5)
    scene.step(TELESCOPE, step)
    scene.work(2 * HOUR)
    if scene.queue.where(job) is not State.SENT:
        return f"it is {scene.queue.where(job)}"
    (name,) = [path.name for path in scene.sites.incoming.glob("*.control")]
    if b"\nattempts=1\n" not in (scene.sites.incoming / name).read_bytes():
        return "it was sent twice"
    scene.sweep()
    scene.work(2 * HOUR)
    return None if scene.queue.finished(job) else f"it is {scene.queue.where(job)}"


def _half(scene: Scene, step: float) -> str | None:
    """A control file that cannot be read is no news before an hour."""
    with scene.far.serving():
        _write(scene.sites.incoming / "torn.control", b"format=1\n")
    return _set_aside(scene, "torn.control", HALF_AGE, step)


def _stale(scene: Scene, step: float) -> str | None:
    with scene.far.serving():
        _write(scene.sites.incoming / ".x.data.part", b"half")
    return _set_aside(scene, ".x.data.part", STALE, step)


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, data)
    os.close(fd)


def _set_aside(scene: Scene, name: str, age: float, step: float) -> str | None:
    """See that a file is set aside when it is as old as that by the archive's clock, not before."""
    path = scene.sites.incoming / name
    scene.step(ARCHIVE, step)
    for seconds in (0.0, age / 2, age, age, abs(step) + age):
        scene.world.time += seconds
        real = scene.world.time + step
        scene.sweep(STRANGER)
        if path.exists() and real > age + 1:
            return f"it stays, {real:g} s old"
        if not path.exists() and real < age:
            return f"it was set aside, {real:g} s old"
        if not path.exists():
            return None
    return "it stays for ever"


def _marked(scene: Scene, step: float) -> str | None:
    """A mark of a sweep that died keeps others off for a day, and from the future too."""
    with Incoming(str(scene.sites.incoming)) as incoming, scene.far.serving():
        incoming.mark("x", str(scene.root / "data"))
        scene.step(ARCHIVE, step)
        for later in (0.0, DAY / 2, 2 * DAY):
            scene.world.time += later
            age = abs(scene.world.time + step)
            kept = incoming.placed_elsewhere("x", "/elsewhere", scene.now(ARCHIVE))
            if kept != (age < MARK_AGE):
                return f"a mark of {age:g} s keeps others off: {kept}"
    return None


def _aged(scene: Scene, step: float) -> str | None:
    """Ages that people read are not negative."""
    scene.submit()
    scene.work(5)
    scene.submit()
    scene.step(TELESCOPE, step)
    look = check.look(scene.queue, 3600.0, scene.now(), waiting=True)
    if look.unconfirmed_age < 0 or (look.waiting or 0.0) < 0:
        return f"{look.unconfirmed_age} s unconfirmed, {look.waiting} s waiting"
    words = check.verdict([look], 60.0)[1]
    rows = status.not_completed(scene.queue, 3600.0, scene.now())
    return None if len(rows) == 2 and "-" not in words.split(" - ")[1] else words


def _delivered_twice(scene: Scene, step: float) -> str | None:
    """What comes again after the archive's clock was stepped is known by the log."""
    scene.submit()
    scene.work(5)
    kept = {path: path.read_bytes() for path in scene.sites.incoming.iterdir()}
    scene.sweep()
    scene.step(ARCHIVE, step)
    for path, data in kept.items():
        path.write_bytes(data)
    scene.sweep()
    home = scene.sites.homes["minicam"]
    placed = list(home.rglob("*.fits"))
    records = b"".join(p.read_bytes() for p in (home / "xferlogs").iterdir()).count(b" stored ")
    if len(placed) != 1 or list(scene.sites.incoming.iterdir()):
        return f"{len(placed)} files"
    return None if records == 1 else f"{records} records"


# --- sites that disagree --------------------------------------------------------------------------


def _skews(short: bool) -> Iterator[str | None]:
    """Send a file between sites whose clocks are apart, and see when it is completed."""
    to_1970 = (datetime(1970, 1, 2, tzinfo=UTC) - START).total_seconds()
    to_2038 = (datetime(2038, 1, 19, 3, 13, tzinfo=UTC) - START).total_seconds()
    skews = [0.0, 5 * DAY, -5 * DAY, to_1970, to_2038]
    skews += [] if short else [30 * DAY, -30 * DAY, HOUR, -HOUR, 0.5 * DAY, -0.5 * DAY, 400 * DAY]
    pairs = [(a, b) for a, b in product(skews, skews) if not short or a == b or not a or not b]
    for telescope, archive in pairs:
        with _scene() as scene:
            scene.step(TELESCOPE, telescope)
            scene.step(ARCHIVE, archive)
            judge = Judge(scene.sites)
            judge.complete = abs(telescope - archive) < 6 * DAY  # for xfer-audit
            judge.add(b"SIMPLE  =")
            said = _way(scene, judge, abs(telescope - archive) < 6 * DAY)
            yield said and f"telescope {telescope:g} s, archive {archive:g} s: {said}"


def _way(scene: Scene, judge: Judge, soon: bool) -> str | None:
    job = scene.submit()
    judge.acknowledge(job)
    scene.work(5)
    submitted = scene.now()
    said = scene.sweep()
    named = f"{scene.now(ARCHIVE):%Y%m%d}"
    logs = {p.name for p in (scene.sites.receipts / HOST).glob("*.log")}
    if logs != {f"sweeper-{named}.log"}:
        return f"the receipts are in {logs}: {said}"
    dated = scene.sites.homes["minicam"] / f"{submitted:%Y.%m%d}" / "0123.fits"
    origin = scene.sites.homes["minicam"] / "data" / "0123.fits"
    if not dated.exists() and not origin.exists():
        return f"it is not in {dated}"
    scene.work(120 if soon else HOUR + 300)
    if not scene.queue.finished(job):
        return f"it is {scene.queue.where(job)} still"
    return next(judge.check(), None) or next(judge.settle(), None)

"""Each protection of the product is switched off in turn: the power cuts must notice it.

What can be switched off is found in the source by mutation.py. A mutant must break a promise
in a legal state after a crash (states.py); one that does not must break it on a real disk
(powercut.py). One that survives both is a check that is missing, or a protection that nobody
needs. What is neither stands in EQUIVALENT, with the reason.
"""

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from torture import powercut, states
from torture.disk import KINDS, Unavailable
from torture.effects import Effects
from torture.mutation import Mutant, mutants
from torture.scenarios import SCENARIOS, Scenario
from torture.table import Result

#: Seconds, of its own and by the clock, after which a mutant hangs, which is noticed, too.
BUSY, PATIENCE = 30, 300
SHORT, SOON = 4, 16  # mutants in the short form, of those in a scenario of fewer calls
SEED = 20261120  # chooses them

#: Name of a mutant -> why no power cut can notice it.
COMES_BACK = "what comes back is removed again; only the sync between two removals counts"
APART = "they are about different jobs, and each is done again by the next start"
EARLY = "a commit that is noted early only lets a cancel be refused early"
EQUIVALENT = {
    "transports.order put: 'before_rename()' before 'file.seal()'": EARLY,
    "transports.order put: 'before_rename()' before 'file.sync()'": EARLY,
    "durable remove: 'sync(dir_fd)' before "
    "'with contextlib.suppress(FileNotFoundError):'": COMES_BACK,
    "stores.queue Queue.recover: 'self.finish_done(now)' before "
    "'for entry in self.entries(State.ACTIVE):'": APART,
    "stores.queue Queue.recover: \"aside.remove_dead(self._dirs['tmp'], "
    'partial(numbers.forgo_drafts, self._fd))" before '
    "'for entry in self.entries(State.ACTIVE):'": APART,
    "stores.queue Queue.recover: \"aside.remove_dead(self._dirs['tmp'], "
    "partial(numbers.forgo_drafts, self._fd))\" before 'self.finish_done(now)'": APART,
    "stores.job_dir JobDir.link_data: durable.link(path, 'data', None, self.fd) "
    "as weaker_link_unsynced": "`seal` syncs the draft again before it becomes a job",
    "stores.job_dir JobDir.link_data: durable.link(path, 'data', None, self.fd) "
    "as weaker_link_over": "the draft is new: nobody has taken the name",
    "stores.job_dir JobDir.set_request: durable.replace('request', word.encode() + b'\\n', "
    "self.fd) as weaker_rewrite": "half a request is none, and who asked has died with the power",
    "stores.finished_log append: 'durable.append(name, record.dump(_finished(job, now)), log_fd, "
    "416, True)' before 'durable.cut_torn_line(name, log_fd)'": "append gives half a line its end",
    "stores.instrument_dir InstrumentDir.directory: 'for depth, component in enumerate(way, 1):' "
    "before 'if make:'": "the note is about the copy, which is made after both",
}


def run(short: bool) -> Iterator[Result]:
    """Try every mutant, or some of them."""
    result = Result("mutants: each removal is noticed")
    effects = Effects(thoroughly=not short)
    every = list(mutants(effects))
    tried = [mutant for mutant in every if mutant.name not in EQUIVALENT]
    if short:
        soon = [m for m in tried if any(effects.calls.get(run, SOON) < SOON for run in m.scenarios)]
        tried = random.Random(SEED).sample(soon, SHORT)
    else:
        gone = EQUIVALENT.keys() - {mutant.name for mutant in every}
        result.violations += [f"EQUIVALENT names what is no mutant: {name}" for name in gone]
    killed = {killer.__name__: 0 for killer in (by_states, by_disks)}
    for mutant in tried:
        near = [scenario for scenario in SCENARIOS if scenario.name in mutant.scenarios]
        near.sort(key=lambda scenario: effects.calls[scenario.name])
        killer = next((k for k in (by_states, by_disks) if killed_by(k, mutant, near)), None)
        if killer:
            killed[killer.__name__] += 1
        result.count(None if killer else f"{mutant}: nothing notices it")
    result.notes = {"mutants": result.tries, "equivalent": len(EQUIVALENT)}
    result.notes |= {f"killed_{killer}": count for killer, count in killed.items()}
    yield result


def by_states(mutant: Mutant, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """Yield what a mutant breaks in the legal states after a crash."""
    for scenario in scenarios:
        _be_patient()
        yield from states.explore(scenario, states.RAM, stop_at_first=True).violations


def by_disks(mutant: Mutant, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """Yield what a mutant breaks on real disks."""
    for kind in KINDS:
        with powercut.Sites(kind) as sites:
            for scenario in scenarios:
                _be_patient()
                yield from powercut.of_scenario(sites, kind, scenario, None, True).violations
            if mutant.module.startswith("lpxfer.transports."):
                disk = sites.disks[powercut.ARCHIVE]
                yield from powercut.of_deposit(disk, kind, None, True).violations


def killed_by(
    killer: Callable[[Mutant, Sequence[Scenario]], Iterator[str]],
    mutant: Mutant,
    scenarios: Sequence[Scenario],
) -> str:
    """Return the first thing that a mutant breaks, or nothing; it lives in a process of its own."""
    out, into = os.pipe()
    if not (pid := os.fork()):
        os.close(out)
        _child(killer, mutant, scenarios, into)
    os.close(into)
    with open(out) as stream:
        found = stream.read()
    if os.waitpid(pid, 0)[1]:
        found = found or "it ended its process"
    return found


def _child(killer: Any, mutant: Mutant, scenarios: Sequence[Scenario], into: int) -> NoReturn:
    signal.signal(signal.SIGALRM, _hangs)
    signal.signal(signal.SIGPROF, _hangs)
    status = 1
    try:
        with mutant.applied():
            if found := next(killer(mutant, scenarios), ""):
                os.write(into, found.encode()[:4000])
        status = 0
    except Unavailable:  # what this machine cannot do has noticed nothing
        status = 0
    except Exception as error:  # noqa: BLE001 - a mutant may break anything
        os.write(into, repr(error).encode()[:4000])
        status = 0
    finally:
        os._exit(status)


def _be_patient() -> None:
    signal.alarm(PATIENCE)
    signal.setitimer(signal.ITIMER_PROF, BUSY)


def _hangs(*_: Any) -> NoReturn:
    raise TimeoutError("it hangs")

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
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from torture import powercut, sftp_cuts, states
from torture.disk import KINDS, Unavailable
from torture.effects import Effects
from torture.mutation import Mutant, mutants
from torture.scenarios import SCENARIOS, Scenario
from torture.sites import nothing_hangs
from torture.table import Result

#: Seconds, of its own and by the clock, after which one try hangs, which is noticed, too.
BUSY, PATIENCE = 15, 120
FEW, SOME, MANY = 20, 100, 2000  # states of each scenario, at first and for those that live still
FEW_KILLS, KILLS = 2, 12  # of each scenario
SHORT, SOON = 3, 16  # mutants in the short form, of those in a scenario of fewer calls
SEED = 20261120  # chooses them

NO_PROGRAM = ("TypeError", "NameError", "UnboundLocalError")  # nobody would write that

#: Name of a mutant -> why no power cut can notice it.
COMES_BACK = "what comes back is removed again; only the sync between two removals counts"
APART = "they are about different jobs, and each is done again by the next start"
WHOLE = "what a bundle's own record says counts only once its data is gone"
MADE_AGAIN = "the next sweep copies the same files there again, and removes what came back"
HINT = "the mark is not synced: it helps where two sweeps meet and one is killed"
KNOWN = "what comes back is dealt with again by its record, or set aside as the same bytes"
TOLD = "how the watch stands is told anew by the next one, and nothing depends on it"
ALONE = "the lock is against a second process, which no power cut brings; see test_finishing.py"
RULES = "the next sweep has the same rules; other ones are a matter of test_sweep.py"
SAID = "what is said for senders to come is of no arrival that is there"
EQUIVALENT = {
    "steps.sweep _Placing.publish: 'if not batch.publish(copy.temporary, disk_name):' before "
    "'if not batch.given:'": RULES,
    "stores.finishing finish_done: 'known = finished_log.durable_records(places.log, "
    "{job.id for job in jobs}, since)' before "
    "'stack.enter_context(owner_locked(places.queue))'": ALONE,
    "stores.finishing finish_done: \"_log(places, [(job, routing, '') for job, routing in found "
    'if not finished_log.is_whole(known.get(job.id), job, routing)], now)" before '
    "'stack.enter_context(owner_locked(places.queue))'": ALONE,
    "stores.instrument_dir InstrumentDir.holds: without durable.sync(where)": "the copy beside it "
    "is discarded durably; it is for files that somebody puts back by hand while it runs",
    "stores.receipts _open: 'durable.sync(dir_fd)' before "
    "'if os.fstat(fd).st_mode & 511 == _UNSHARED:'": "name and mode are apart; nothing is in it",
    "stores.settling _Settling._finish: 'self._repeat_receipts()' before "
    "'self._quarantine_refused()'": "they are about different files of one arrival",
    "stores.settling _Settling._finish: 'self._repeat_receipts()' before "
    "'self.fail(self._failed)'": "a receipt may be repeated as often as one likes",
    "stores.settling _Settling._finish: 'if isinstance(self._known, Bundle) and (not self._left):' "
    "before 'self.fail(self._failed)'": WHOLE,
    "stores.settling _Settling._finish: 'if isinstance(self._known, Bundle) and (not self._left):' "
    "before 'self._repeat_receipts()'": WHOLE,
    "stores.placing Batch.undo: without durable.sync(self.where)": MADE_AGAIN,
    "stores.placing Batch.undo: 'with contextlib.suppress(OSError):' before "
    "'for name in (*self.given, *self._temporary):'": MADE_AGAIN,
    "stores.settling _Settling._finish_half: 'self._incoming.remove(uid)' before "
    "'self._repeat_receipts()'": "its receipt was written before its data was removed",
    "stores.settling _Settling._place_all: 'self._say_placed(begun)' before "
    "'for one in found:'": HINT,
    "stores.settling _Settling._place_all: 'for way, group in groups.items():' before "
    "'self._say_placed(begun)'": HINT,
    "stores.instrument_dir InstrumentDir.take: durable.move(name, src_fd, where, new_name) "
    "as weaker_move": KNOWN,
    "stores.instrument_dir InstrumentDir.quarantine: "
    "\"self.explain(f'{name}.reason', reason, batch)\" before "
    "'for suffix, piece in pieces.items():'": "the arrival stays in incoming until all is there",
    "stores.receipts Receipts.accept: "
    "'with contextlib.suppress(FileExistsError, FileNotFoundError):' before "
    "'durable.forget_replacements(names.check_instrument(inst), fd)'": "it removes what is dead",
    "stores.incoming Incoming.remove: durable.remove(uid + names.CONTROL, self.fd) "
    "as weaker_remove": KNOWN,
    "stores.archive Archive.set_aside: durable.remove(name, self.incoming.fd) "
    "as weaker_remove": KNOWN,
    "stores.incoming Incoming.remove: 'self._unmark(uid)' before "
    "'with contextlib.suppress(IsADirectoryError):'": HINT,
    "stores.incoming Incoming.remove: 'durable.remove(uid + names.CONTROL, self.fd)' before "
    "'self._unmark(uid)'": HINT,
    "stores.incoming Incoming.mark: \"durable.rename_unsynced(f'{mark}.new', self.fd, self.fd, "
    "mark)\" before 'with contextlib.suppress(FileNotFoundError):'": HINT,
    "stores.incoming Incoming.mark: \"durable.rename_unsynced(f'{mark}.new', self.fd, self.fd, "
    'mark)" before "os.symlink(path, f\'{mark}.new\', dir_fd=self.fd)"': HINT,
    "steps.sweep sweep: 'if uids and (not dry_run):' before 'if not dry_run:'": SAID,
    "steps.sweep_any sweep_any: 'if view.strangers and (not dry_run):' before "
    "'if not dry_run:'": SAID,
    "steps.sweep sweep: 'archive.recall(uids)' before 'if not dry_run:'": SAID,
    "transports.attempt attempt: 'with form.opened(job, known) as how:' before "
    "'job.note(START, start)'": "a start that is noted late only counts one attempt less",
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
    "stores.finished_log append: 'durable.append(name, lines, log_fd, 416, True)' before "
    "'durable.cut_torn_line(name, log_fd)'": "append gives half a line its end",
    "stores.instrument_dir InstrumentDir.directory: 'for depth, component in enumerate(way, 1):' "
    "before 'if make:'": "the note is about the copy, which is made after both",
    "transports.local _Part.write: 'moved()' before 'self._write(chunk, start)'": "it saves the "
    "ranges acknowledged before it, and the chunk before this one is written",
    "stores.watched Watched.tell: durable.replace(_state(self._name), watch_state.dump(state), "
    "self._fd, 384) as weaker_rewrite": TOLD,
    "steps.watch Watch.once: 'self._tell(stays=False)' before "
    "'self._work(Event(), lambda: None)'": TOLD,
}


class Hangs(BaseException):
    """Raised where nothing comes of it any more; no OSError, which the product would handle."""


def run(short: bool) -> Iterator[Result]:
    """Try every mutant, or some of them."""
    with nothing_hangs():
        yield _run(short)


def _run(short: bool) -> Result:
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
    killed, hung = {killer.__name__: 0 for killer in KILLERS}, 0
    last: list[str] = []  # scenarios that killed, the last one first: it may kill the next, too
    for mutant in tried:
        near = [_patiently(one) for one in SCENARIOS if one.name in mutant.scenarios]
        near.sort(key=lambda scenario: effects.calls[scenario.name])
        near.sort(key=lambda s: last.index(s.name) if s.name in last else len(last))
        found = ""
        for killer in KILLERS:
            if found := killed_by(killer, mutant, near):
                killed[killer.__name__] += 1
                break
        hung += Hangs.__name__ in found
        last.insert(0, found.partition("|")[0])
        problem = "" if found else "nothing notices it"
        if any(f"{error}:" in found for error in NO_PROGRAM):
            problem = f"it is no program: {found}"
        result.count(f"{mutant}: {problem}" if problem else None)
    result.notes = {"mutants": result.tries, "equivalent": len(EQUIVALENT)}
    result.notes |= {f"killed_{killer}": count for killer, count in killed.items()} | {"hung": hung}
    return result


def by_few_states(mutant: Mutant, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """Yield what a mutant breaks in the last states of each scenario and a few others."""
    yield from by_states(mutant, scenarios, FEW)


def by_some_states(mutant: Mutant, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """Yield what a mutant breaks in some of the legal states after a crash."""
    yield from by_states(mutant, scenarios, SOME)


def by_states(_: Mutant, scenarios: Sequence[Scenario], budget: int | None = MANY) -> Iterator[str]:
    """Yield what a mutant breaks in the legal states after a crash."""
    for scenario in scenarios:
        found = states.explore(scenario, states.RAM, stop_at_first=True, budget=budget)
        yield from (f"{scenario.name}|{text}" for text in found.violations)


def by_deposit(mutant: Mutant, _: Sequence[Scenario]) -> Iterator[str]:
    """Yield what a mutant of the transports breaks in a deposit over SFTP, on real disks."""
    if mutant.module.startswith("lpxfer.transports.") and not sftp_cuts.missing:
        for kind in KINDS:
            with powercut.Sites(kind) as sites:
                for _, problems in sftp_cuts.tries(sites.disks[powercut.ARCHIVE], None):
                    _be_patient()
                    yield from problems


def by_few_kills(mutant: Mutant, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """Yield what a mutant breaks in a few states after a kill, then a crash."""
    yield from by_kills(mutant, scenarios, FEW_KILLS)


def by_kills(_: Mutant, scenarios: Sequence[Scenario], kills: int = KILLS) -> Iterator[str]:
    """Yield what a mutant breaks in states after a kill, then a crash."""
    for scenario in scenarios:
        if not scenario.name.startswith(states.NOT_KILLED):
            found = states.explore_killed(scenario, states.RAM, True, kills)
            yield from (f"{scenario.name}|{text}" for text in found.violations)


def by_disks(_: Mutant, scenarios: Sequence[Scenario]) -> Iterator[str]:
    """Yield what a mutant breaks on real disks."""
    for kind in KINDS:
        with powercut.Sites(kind) as sites:
            for scenario in scenarios:
                yield from powercut.of_scenario(sites, kind, scenario, None, True).violations


#: What notices a mutant, the quickest first; the next ones meet what the ones before let live.
KILLERS = [
    by_few_states, by_few_kills, by_some_states, by_deposit, by_kills, by_states, by_disks,
]  # fmt: skip


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
    except (Hangs, Exception) as error:  # noqa: BLE001 - a mutant may break anything
        os.write(into, repr(error).encode()[:4000])
        status = 0
    finally:
        os._exit(status)


def _patiently(scenario: Scenario) -> Scenario:
    """Let every try with a scenario have all the patience there is."""

    def prepare(root: Path) -> None:
        _be_patient()
        scenario.prepare(root)

    def check(root: Path, said: Sequence[str]) -> list[str]:
        _be_patient()
        return scenario.check(root, said)

    return replace(scenario, prepare=prepare, check=check)


def _be_patient() -> None:
    signal.alarm(PATIENCE)
    signal.setitimer(signal.ITIMER_PROF, BUSY)


def _hangs(*_: Any) -> NoReturn:
    _be_patient()  # somebody may keep this one back
    raise Hangs

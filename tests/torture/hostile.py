"""Hostile arrivals: whatever is put into incoming, or found where a sweep works.

python -m torture.hostile NAME...     play the cases again whose names hold these words
"""

import os
import sys
from collections.abc import Iterator, Sequence

from torture import hostile_calls, hostile_race, hostile_words
from torture.corpus import Case, cases
from torture.hostile_case import play
from torture.table import Result

SEED = 20261120


def run(short: bool) -> Iterator[Result]:
    """Play every case by itself, then all under strace, then race, then look at what is said."""
    chosen = list(enumerate(cases(), 1))[:: 16 if short else 1]
    yield from _each([(number, case) for number, case in chosen if not case.root], "files")
    yield from _each([(number, case) for number, case in chosen if case.root], "devices")
    yield from hostile_calls.run([(n, case) for n, case in chosen if _possible(case)])
    yield from hostile_race.run(2 if short else 60, SEED)
    yield from hostile_words.run(short)


def _possible(case: Case) -> bool:
    return not case.root or os.geteuid() == 0


def _each(chosen: Sequence[tuple[int, Case]], what: str) -> Iterator[Result]:
    """Play each case on a ground of its own."""
    result = Result(f"hostile arrivals: {what} beside good ones")
    if not all(_possible(case) for _, case in chosen):
        result.not_run, chosen = "only root can make devices", ()
    for number, case in chosen:
        broken = play(case, number)
        again = f"PYTHONPATH=tests python -m torture.hostile {case.name!r}"
        result.count(f"{broken}; {again}" if broken else None, lost="LOST" in (broken or ""))
    yield result


def _again(words: Sequence[str]) -> int:
    broken = [
        play(case, n) for n, case in enumerate(cases(), 1) if any(w in case.name for w in words)
    ]
    sys.stdout.writelines(f"{line or 'held'}\n" for line in broken)
    return int(any(broken))


if __name__ == "__main__":
    sys.exit(_again(sys.argv[1:]))

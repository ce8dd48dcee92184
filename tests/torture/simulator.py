"""Both sites under a virtual clock, with everything going wrong, as one seed decides.

    PYTHONPATH=tests python -m torture.simulator SEED...

plays a seed again and prints what happened. The product runs as it is; its sender is taken
step by step, so that nothing depends on threads or real time. While one process makes its
calls others may act. After every step the judge looks at both sites; when the faults stop,
all that was not canceled and has not failed must be archived, once, in bounded time.
"""

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from torture.play import Play
from torture.table import Result

SEEDS, SEEDS_SHORT = 10_000, 200


def play(seed: int) -> tuple[str | None, Play]:
    """Play one seed; return what broke, and the play."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="lpxfer-simulator-", dir=memory))
    try:
        made = Play(seed, root)
        broken = made.run()
        return broken and broken.replace(str(root), ""), made
    finally:
        shutil.rmtree(root)


def run(short: bool) -> Iterator[Result]:
    """Play many seeds."""
    result = Result("both sites simulated, a seed decides everything")
    longest, done, ends = 0.0, Counter[str](), Counter[str]()
    for seed in range(SEEDS_SHORT if short else SEEDS):
        broken, made = play(seed)
        again = f"PYTHONPATH=tests python -m torture.simulator {seed}: {broken}"
        result.count(again if broken else None, lost=bool(broken and "LOST" in broken))
        longest = max(longest, made.took)
        done += made.done
        ends += made.judge.ends
    result.notes = {
        "events": done.total(),
        "of each": dict(done),
        "jobs": ends.total(),
        "ends": dict(ends),
        "hours of virtual time until all is settled, at most": round(longest / 3600, 1),
    }
    yield result


def main() -> int:
    """Play the seeds named and print what happened."""
    status = 0
    for seed in map(int, sys.argv[1:]):
        broken, made = play(seed)
        print("\n".join(made.lines))
        print(f"seed {seed}: {broken or 'everything held'}")
        status = status or int(bool(broken))
    return status


if __name__ == "__main__":
    sys.exit(main())

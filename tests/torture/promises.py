"""The README's section of promises, with the figures of a run in it."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torture.table import Result

TEXT = Path(__file__).with_suffix(".md").read_text()
PLACE = re.compile(r"\{(\w+)\.(\w+)\}")  # {case.figure}


def figure(results: Iterable[Result], name: str) -> str:
    """Return the sum of one figure over the results of a case.

    Raises ValueError when a part of it was not run: the README says nothing it did not see.
    """
    total = 0
    for result in results:
        if result.not_run:
            raise ValueError(f"{result.case} was not run: {result.not_run}")
        row = result.as_dict()
        total += row.get(name, 0) + result.notes.get(name, 0)
    return f"{total:,}"


def section(found: Mapping[str, Iterable[Result]]) -> str:
    """Return the section for the results of every case."""
    return PLACE.sub(lambda place: figure(found[place[1]], place[2]), TEXT)


def pattern() -> re.Pattern[str]:
    """Match a section that some run has written."""
    words = [re.escape(words) for words in re.split(PLACE.pattern.replace("(", "(?:"), TEXT)]
    return re.compile("[0-9,]+".join(words))


def write(readme: Path, found: Mapping[str, Iterable[Result]]) -> None:
    """Replace the section in the README."""
    heading, text = TEXT.splitlines()[0], readme.read_text()
    before, _, rest = text.partition(f"{heading}\n")
    after = rest[rest.index("\n## ") + 1 :]
    readme.write_text(f"{before}{section(found)}\n{after}")

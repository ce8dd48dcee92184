"""What a torture case reports, and the table that is made of it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Result:
    """One line of the table. What a machine cannot do is `not_run`, never passed."""

    case: str  # "power cut, real ext4: submit"
    tries: int = 0
    survived: int = 0  # of these, every promise held
    lost: int = 0  # of these, an acknowledged file or a given word was gone: the worst violation
    violations: list[str] = field(default_factory=list)  # each says how to play it again
    not_run: str = ""  # why
    notes: dict[str, Any] = field(default_factory=dict)  # further figures, for the README

    @property
    def failed(self) -> bool:
        """Tell whether a promise was broken, or nothing was tried at all."""
        return bool(self.violations or self.lost or not (self.tries or self.not_run))

    def count(self, violation: str | None, lost: bool = False) -> None:
        """Count one try: `violation` says what broke, None when everything held."""
        self.tries += 1
        if violation is None:
            self.survived += 1
        else:
            self.lost += lost
            self.violations.append(violation)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a row for JSON."""
        return asdict(self)


def lines(results: Iterable[Result]) -> Iterator[str]:
    """Lay the results out: one line each, and beneath it the first violations."""
    yield f"{'case':<52} {'tries':>8} {'survived':>9} {'lost':>5} {'violations':>10}"
    for result in results:
        if result.not_run:
            yield f"{result.case:<52} not run: {result.not_run}"
            continue
        yield (
            f"{result.case:<52} {result.tries:>8} {result.survived:>9} {result.lost:>5} "
            f"{len(result.violations):>10}"
        )
        yield from (f"    {' '.join(violation.split())}" for violation in result.violations[:5])

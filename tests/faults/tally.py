"""How many faults of each kind were injected, and what became of them?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass


@dataclass
class Count:
    """Faults of one kind: those after which everything held, and those after which something did not."""

    survived: int = 0
    lost: int = 0

    @property
    def injected(self) -> int:
        """All of them."""
        return self.survived + self.lost


class Tally:
    """The counts of a test run, by kind."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.counts: dict[str, Count] = {}

    @contextmanager
    def fault(self, kind: str) -> Iterator[None]:
        """Count one fault, injected and checked inside: lost if the check fails."""
        count = self.counts.setdefault(kind, Count())
        try:
            yield
        except BaseException:
            count.lost += 1
            raise
        count.survived += 1

    def facts(self) -> list[dict[str, object]]:
        """Give a row per kind, and their sum."""
        rows = [
            {"kind": kind, "injected": count.injected, **asdict(count)}
            for kind, count in sorted(self.counts.items())
        ]
        names = ("injected", "survived", "lost")
        return [*rows, {"kind": "all", **{name: sum(row[name] for row in rows) for name in names}}]

    def lines(self) -> list[str]:
        """Give the table as text."""
        rows = [("fault", "injected", "survived", "lost"), *(tuple(row.values()) for row in self.facts())]
        width = max(len(str(row[0])) for row in rows)
        return [f"{row[0]:<{width}}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]

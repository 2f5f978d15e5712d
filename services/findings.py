"""What is on the screen of ``make status``, and what of it needs a person?"""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

WIDTH = 120
LONGEST = 3 * WIDTH
FAILURES = (ValueError, LookupError, OSError)

T = TypeVar("T")


@dataclass
class Findings:
    """Lines of a screen; what could not be read, a line each; and in a few words what needs a person."""

    lines: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    to_mend: list[str] = field(default_factory=list)

    def tell(self, name: str, text: str, to_mend: str = "") -> None:
        """Add a line; ``to_mend`` says what of it needs a person, empty for nothing."""
        self.lines.append(_line(name, text))
        if to_mend:
            self.to_mend.append(to_mend)

    def attempt(self, name: str, read: Callable[[], T]) -> T | None:
        """Read something; what fails is a line and needs a person, and gives None."""
        try:
            return read()
        except FAILURES as error:
            if (line := _line(name, str(error))) not in self.unreadable:
                self.unreadable.append(line)
                self.to_mend.append(f"{name} cannot be read")
            return None


def wrap(line: str) -> str:
    """Break a line of the screen where it is too long."""
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * 11, break_on_hyphens=False)


def _line(name: str, text: str) -> str:
    return f"{name:<10} {textwrap.shorten(text, LONGEST, placeholder=' ...')}"

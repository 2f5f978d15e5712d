"""What does a reviewer's page show? Plain facts; an undefined figure is None."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.records import DayRecord


@dataclass(frozen=True)
class Difference:
    """Challenger against champion on the same users: (challenger - champion) / champion with its interval."""

    cohort: str
    n_users: int
    challenger: float | None
    champion: float | None
    value: float | None
    low: float | None
    high: float | None
    is_small: bool


@dataclass(frozen=True)
class Item:
    """An item with the features that are known of it."""

    item_id: int
    features: Mapping[str, str]


@dataclass(frozen=True)
class Recommended:
    """One place of a merged list: its item, the channel that placed it, whether the user turned to it."""

    place: int
    item: Item
    channel: str
    is_hit: bool


@dataclass(frozen=True)
class Example:
    """One user; ``targets`` are what they turned to on the day, with the place in the list, 0 if outside."""

    user_id: int
    kind: str
    n_history: int
    history: tuple[Item, ...]
    recommended: tuple[Recommended, ...]
    targets: tuple[tuple[Item, int], ...]


@dataclass(frozen=True)
class Moved:
    """A figure now and before."""

    name: str
    now: float | None
    before: float | None

    @property
    def ratio(self) -> float | None:
        """Now over before; None where undefined."""
        return self.now / self.before if self.now is not None and self.before else None


@dataclass(frozen=True)
class Feature:
    """Drift of one input feature, with the shares of the values that moved most."""

    name: str
    psi: float | None
    shares: tuple[Moved, ...]


@dataclass(frozen=True)
class Embeddings:
    """A tower's items against the champion's: share of equal nearest neighbours, mean lengths."""

    tower: str
    n_common: int
    n_items: int
    overlap: float | None
    k: int
    norm: Moved


@dataclass(frozen=True)
class Drift:
    """What has moved; ``no_embeddings`` tells why embeddings are not compared, else it is empty."""

    days_before: tuple[str, ...]
    rows: tuple[Moved, ...]
    click_rates: tuple[Moved, ...]
    features: tuple[Feature, ...]
    embeddings: tuple[Embeddings, ...]
    no_embeddings: str


@dataclass(frozen=True)
class Change:
    """One setting or gate that differs from the champion's; None where one of the two does not have it."""

    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Changes:
    """
    What differs from how the champion was made.

    ``settings`` and ``gates`` are None where the champion's run does not hold its own; ``changed_samples``
    names the days that both learned from and whose samples are not the same any more.
    """

    version: str
    day: str
    code: Change
    config: Change
    settings: tuple[Change, ...] | None
    gates: tuple[Change, ...] | None
    window: Change
    n_common_days: int
    changed_samples: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """
    Everything on the page.

    ``list_overlap`` maps each method to (K, share of equal items in its list and the champion's).
    ``no_changes`` tells why nothing can be said of what changed, else it is empty. ``new_users`` holds
    Hit@K of the merged list and of popularity on users without a history.
    """

    record: DayRecord
    quotas: Mapping[str, int]
    release: Mapping[str, float | None]
    differences: tuple[Difference, ...] = ()
    examples: tuple[Example, ...] = ()
    drift: Drift | None = None
    list_overlap: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    changes: Changes | None = None
    no_changes: str = ""
    new_users: tuple[float, float] | None = None

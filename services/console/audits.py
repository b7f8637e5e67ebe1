"""What the audit page shows: the state of the documents before any training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Group:
    """The documents with one value of a field; the value is empty where they have none."""

    value: str
    documents: int
    characters: int
    findings: int

    @property
    def density(self) -> float:
        """Personal values per 1,000 characters."""
        return 1000 * self.findings / self.characters if self.characters else 0.0


@dataclass(frozen=True)
class Dimension:
    """The documents by one field, most frequent values first; `more_values` are not listed."""

    name: str
    groups: tuple[Group, ...]
    more_values: int = 0


@dataclass(frozen=True)
class Bin:
    """The documents of one interval of lengths; no end where `below_chars` is 0."""

    from_chars: int
    below_chars: int
    documents: int


@dataclass(frozen=True)
class Found:
    """Personal data of one type; density in values per 1,000 characters of all documents."""

    entity_type: str
    values: int
    documents: int
    density: float


@dataclass(frozen=True)
class Rejected:
    """Rejected submissions of one reason, format and service."""

    reason: str
    format: str
    stage: str
    submissions: int


@dataclass(frozen=True)
class Estimate:
    """What one pass over all documents takes; an assumption where no run is named."""

    tokens: int = 0
    tokens_per_second: float = 0.0
    run_id: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Audit:
    """Everything counted at one moment."""

    documents: int = 0
    characters: int = 0
    findings: int = 0
    dimensions: tuple[Dimension, ...] = ()
    min_chars: int = 0
    max_chars: int = 0
    mean_chars: float = 0.0
    percentiles: Mapping[int, float] = field(default_factory=dict)
    histogram: tuple[Bin, ...] = ()
    types: tuple[Found, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    duplicates: int = 0
    estimate: Estimate = Estimate()
    create_time: datetime | None = None

    @property
    def density(self) -> float:
        """Personal values per 1,000 characters."""
        return 1000 * self.findings / self.characters if self.characters else 0.0

    @property
    def rejected_total(self) -> int:
        """Rejected submissions."""
        return sum(one.submissions for one in self.rejected)


@dataclass(frozen=True)
class NearDuplicates:
    """Documents that are nearly the same as an earlier one, among those that are compared so far."""

    documents: int = 0
    compared: int = 0
    near_duplicates: int = 0
    groups: int = 0
    threshold: float = 0.0

"""Words that several services share, as values without behaviour of any one service. Standard library only."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Labels:
    """Slugs that say where a document belongs; each may be empty. They never hold personal data."""

    source: str = ""
    department: str = ""
    confidentiality: str = ""


class SpanKind(StrEnum):
    """The part of a file that a span was."""

    PAGE = "page"
    SECTION = "section"
    SHEET = "sheet"
    SLIDE = "slide"
    ATTACHMENT = "attachment"


@dataclass(frozen=True)
class Span:
    """The stretch [start, end) of a document's text, in Unicode code points, that was one part of its file.

    `number` counts the parts of one kind from 1, starting again in each attachment. `level` is the section heading's, 1 to 6; otherwise 0.
    """

    kind: SpanKind
    number: int
    start: int
    end: int
    level: int = 0


@dataclass(frozen=True)
class Selection:
    """Which documents a specialist learns from, by label; an empty tuple admits every value."""

    sources: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    confidentialities: tuple[str, ...] = ()

    def admits(self, labels: Labels) -> bool:
        """True if every label is admitted."""
        pairs = (
            (self.sources, labels.source),
            (self.departments, labels.department),
            (self.confidentialities, labels.confidentiality),
        )
        return all(not admitted or value in admitted for admitted, value in pairs)

    @property
    def common_labels(self) -> Labels:
        """The labels that all selected documents share; empty where they may differ."""
        admitted = (self.sources, self.departments, self.confidentialities)
        return Labels(*(values[0] if len(values) == 1 else "" for values in admitted))


@dataclass(frozen=True)
class Filters:
    """Which selected documents make rows, and how much of one source. 0 and an empty tuple admit everything."""

    languages: tuple[str, ...] = ()
    min_chars: int = 0
    max_chars: int = 0
    boilerplate_documents: int = 0
    max_source_documents: int = 0
    max_source_percent: int = 0
    max_pairs_per_judgement: int = 0

"""Adds up what the manifest of a dataset of documents says."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.synthetic.building.closed_book import add_closed_bookzes
from services.synthetic.building.grams import Counts, add_counts, unpack_counts
from services.synthetic.building.segments import WrittenRows
from services.synthetic.corpus import ExtraCount, SegmentResult
from services.synthetic.domain import Grounding
from services.synthetic.rows.document_rows import TEMPLATE
from tailor.datasets import ClosedBookFiles, SkippedCount


@dataclass
class RowTally:
    """Counts over all files of a dataset. `shares` are of train, `makers` of files that belong to no segment."""

    tokens: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    grounding: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    makers: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, SkippedCount] = field(default_factory=dict)
    letters: int = 0
    closed_book: ClosedBookFiles = field(default_factory=ClosedBookFiles)
    extra: ExtraCount = field(default_factory=ExtraCount)
    shares: Counts = field(default_factory=dict)

    def add_unfit(self) -> None:
        """Count a row that the base's chat template cannot hold."""
        self.add_skipped({TEMPLATE: SkippedCount(rows=1)})

    def add_segment(self, segment: SegmentResult) -> None:
        """Add a segment of train."""
        self.rows["train"] += segment.train.rows if segment.train else 0
        self.tokens["train"] += segment.tokens
        self.letters += segment.letters
        self.closed_book = add_closed_bookzes((self.closed_book, segment.closed_book))
        documents, rows = self.extra.documents + segment.extra.documents, self.extra.rows + segment.extra.rows
        self.extra = ExtraCount(documents, rows)
        self._add(segment)
        self.add_skipped(segment.skipped)
        add_counts(self.shares, unpack_counts(segment.shares))

    def add_file(self, split: str, rows: WrittenRows) -> None:
        """Add a file of a split."""
        self.rows[split] += rows.rows
        self.tokens[split] += rows.tokens
        self.makers.update(rows.makers)
        self._add(rows)
        add_counts(self.shares, rows.shares)

    def add_skipped(self, counts: Mapping[str, SkippedCount]) -> None:
        """Add what was left out; entries without any count are ignored."""
        for reason, count in counts.items():
            total = self.skipped.get(reason, SkippedCount()) + count
            if total != SkippedCount():
                self.skipped[reason] = total

    def _add(self, part: SegmentResult | WrittenRows) -> None:
        self.tasks.update(part.tasks)
        self.grounding.update(part.grounding)
        self.languages.update(part.languages)
        self.documents.update(part.documents)

    @property
    def grounded(self) -> float:
        """The share of the rows to which it applies whose prompts support their answers; 1 if it applies to none."""
        supported, unsupported = self.grounding[Grounding.YES.value], self.grounding[Grounding.NO.value]
        return supported / (supported + unsupported) if supported + unsupported else 1.0

"""Adds up what the manifest of a dataset of documents says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.synthetic.building.grams import Counts, add_counts, unpack_counts
from services.synthetic.building.segments import WrittenRows
from services.synthetic.corpus import RowCounts, SegmentResult
from services.synthetic.domain import Grounding
from services.synthetic.rows.document_rows import TEMPLATE
from tailor.datasets import HELD_OUT, TRAIN, SkippedCount


@dataclass
class RowTally:
    """Counts over all files of a dataset, by split. `shares` are of train."""

    splits: dict[str, RowCounts] = field(default_factory=lambda: {TRAIN: RowCounts(), HELD_OUT: RowCounts()})
    skipped: dict[str, SkippedCount] = field(default_factory=dict)
    letters: int = 0
    shares: Counts = field(default_factory=dict)

    @property
    def all(self) -> RowCounts:
        """The counts of both splits."""
        return self.splits[TRAIN] + self.splits[HELD_OUT]

    def add_unfit(self) -> None:
        """Count a row that the base's chat template cannot hold."""
        self.add_skipped({TEMPLATE: SkippedCount(rows=1)})

    def add_segment(self, segment: SegmentResult) -> None:
        """Add a segment of train."""
        self.splits[TRAIN] += segment.counts
        self.letters += segment.letters
        self.add_skipped(segment.skipped)
        add_counts(self.shares, unpack_counts(segment.shares))

    def add_file(self, split: str, written: WrittenRows) -> None:
        """Add a file of a split."""
        self.splits[split] += written.counts
        add_counts(self.shares, written.shares)

    def add_skipped(self, counts: Mapping[str, SkippedCount]) -> None:
        """Add what was left out; entries without any count are ignored."""
        for reason, count in counts.items():
            total = self.skipped.get(reason, SkippedCount()) + count
            if total != SkippedCount():
                self.skipped[reason] = total

    @property
    def grounded(self) -> float:
        """The share of the rows to which it applies whose prompts support their answers; 1 if it applies to none."""
        supported, unsupported = (self.all.grounding.get(answer, 0) for answer in (Grounding.YES, Grounding.NO))
        return supported / (supported + unsupported) if supported + unsupported else 1.0

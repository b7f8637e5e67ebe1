"""Stored rows as people look at them: the rows, the filter, and the place in a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tailor.datasets import HELD_OUT, TRAIN
from tailor.storage.ref import Ref
from tailor.values import DatasetKind, Span

SPLITS = (TRAIN, HELD_OUT)


@dataclass(frozen=True)
class StoredDataset:
    """A dataset that exists."""

    digest: str
    specialist: str
    kind: DatasetKind
    manifest: Ref


@dataclass(frozen=True)
class StoredRow:
    """A row as its file has it. `messages` are (role, content) and end with the answer; a preference row has a `rejected` one too."""

    row_id: str
    task: str
    document_ids: tuple[str, ...]
    messages: tuple[tuple[str, str], ...]
    made_by: str = ""
    language: str = ""
    tokens: int = 0
    grounding: str = ""
    places: tuple[tuple[int, int], ...] = ()
    spans: tuple[Span, ...] = ()
    lineage: Mapping[str, str] = field(default_factory=dict)
    rejected: str = ""
    judgement_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowFilter:
    """The rows that a reader wants. An empty value admits every row; `text` is literal and ignores case."""

    split: str = ""
    task: str = ""
    document_id: str = ""
    text: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        """The sides to read, in order."""
        return (self.split,) if self.split else SPLITS

    def admits(self, task: str, document_ids: tuple[str, ...]) -> bool:
        """True if the task and the documents are wanted."""
        return self.task in ("", task) and (not self.document_id or self.document_id in document_ids)

    def finds(self, row: StoredRow) -> bool:
        """True if a message or the rejected answer contains the text."""
        wanted = self.text.casefold()
        return any(wanted in content.casefold() for _, content in (*row.messages, ("", row.rejected)))


@dataclass(frozen=True)
class RowPosition:
    """Where to go on reading: indexes of the split in the filter's splits, of its file, of the file's row group, and of the row in it."""

    split: int = 0
    file: int = 0
    group: int = 0
    row: int = 0


@dataclass(frozen=True)
class RowsPage:
    """Rows with their splits, where the next page begins (None after the last row), and the number of rows that were read."""

    rows: tuple[tuple[str, StoredRow], ...]
    next_position: RowPosition | None
    scanned: int

"""Finds a dataset, and reads pages of its rows: a limited number of rows per call, one row group in memory."""

import tempfile
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from services.synthetic.adapters.datasets import SqlDatasets
from services.synthetic.domain import Dataset
from services.synthetic.views import DatasetQuery, RowFilter, RowPosition, RowsPage, StoredRow
from tailor.datasets import DatasetFile, DatasetManifest
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.storage.protocol import ObjectStore
from tailor.values import Span, SpanKind

MAX_SCANNED_ROWS = 50_000
MAX_PAGE_CHARS = 4_000_000
SCAN_SECONDS = 3.0
BATCH_ROWS = 128
KEYS = ["task", "document_ids"]

MayUse = Callable[[str], bool]


class RowFile:
    """An open file of rows. Reads a row group at a time, and whole rows only of those that are wanted."""

    def __init__(self, file: pyarrow.parquet.ParquetFile) -> None:
        self._file = file

    @property
    def group_rows(self) -> Sequence[int]:
        """The number of rows of each row group."""
        metadata = self._file.metadata
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]

    def rows(self, group: int, start: int, wanted: RowFilter) -> Iterator[tuple[int, StoredRow]]:
        """Stream a group's rows from number `start` on that have the wanted task and document, each with its number in the group."""
        numbers = self._numbers(group, start, wanted)
        if not numbers:
            return
        table = self._file.read_row_group(group)
        for first in range(0, len(numbers), BATCH_ROWS):
            batch = numbers[first : first + BATCH_ROWS]
            yield from zip(batch, map(to_stored_row, table.take(batch).to_pylist()), strict=True)

    def _numbers(self, group: int, start: int, wanted: RowFilter) -> list[int]:
        keys = self._file.read_row_group(group, columns=KEYS).slice(start)
        pairs = zip(keys["task"].to_pylist(), keys["document_ids"].to_pylist(), strict=True)
        return [start + at for at, (task, ids) in enumerate(pairs) if wanted.admits(task, tuple(ids))]


@dataclass(frozen=True)
class RowBrowser:
    """Reads datasets for people. Thread-safe."""

    datasets: SqlDatasets
    store: ObjectStore
    erased: Container[str] = frozenset()
    clock: Callable[[], float] = time.monotonic
    max_scanned_rows: int = MAX_SCANNED_ROWS

    def find(self, query: DatasetQuery, may_use: MayUse) -> Dataset:
        """The dataset. Raises NotFound if there is none that the caller may see; one digest may belong to several specialists."""
        if query.digest:
            candidates = self.datasets.all(digest=query.digest, order=self.datasets.c.specialist)
        else:
            newest = self.datasets.last_build(query.specialist, query.kind)
            candidates = [newest] if newest else []
        matches = [dataset for dataset in candidates if query.specialist in ("", dataset.specialist)]
        dataset = next((dataset for dataset in matches if may_use(dataset.specialist)), None)
        if dataset is None:
            raise NotFound(
                Reason.UNKNOWN_DATASET,
                "There is no such dataset, or your key may not see it. `tailor dataset list` lists them.",
            )
        return dataset

    def manifest(self, dataset: Dataset) -> DatasetManifest:
        """The dataset's manifest. Raises NotFound if an erasure deleted it."""
        try:
            return DatasetManifest.parse(self.store.get(dataset.manifest))
        except NotFound:
            raise _erased() from None

    @contextmanager
    def open(self, file: DatasetFile) -> Iterator[RowFile]:
        """Open a file of a dataset. It lies in a temporary folder while it is open, because row groups are read in place. Blocks.

        Raises NotFound if it no longer exists, FailedPrecondition (CORRUPT_OBJECT, INVALID_DATASET) if it cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="tailor-rows-") as folder:
            path = Path(folder) / "rows.parquet"
            self.store.get_file(file.ref, path)
            try:
                with pyarrow.parquet.ParquetFile(path) as parquet:
                    yield RowFile(parquet)
            except (pyarrow.ArrowException, KeyError):
                raise FailedPrecondition(
                    Reason.INVALID_DATASET, "A file of the dataset is not Parquet with rows. Build the dataset again."
                ) from None

    def read(self, dataset: Dataset, wanted: RowFilter, position: RowPosition, size: int) -> RowsPage:
        """The next rows from a position on. Blocks for about SCAN_SECONDS at most. Raises NotFound if an erasure deleted the dataset."""
        document_id = wanted.document_id
        files = self.datasets.files_of(dataset, document_id) if document_id else None
        scan = _Scan(self, self.manifest(dataset), wanted, size, files)
        try:
            return scan.run(position)
        except NotFound:
            raise _erased() from None


@dataclass
class _Scan:
    """One call's reading. With `files`, only these are opened."""

    browser: RowBrowser
    manifest: DatasetManifest
    wanted: RowFilter
    size: int
    files: frozenset[str] | None
    rows: list[tuple[str, StoredRow]] = field(default_factory=list)
    scanned: int = 0
    chars: int = 0

    def run(self, position: RowPosition) -> RowsPage:
        deadline = self.browser.clock() + SCAN_SECONDS
        following: RowPosition | None = position
        while following is not None and not self._is_full(deadline):
            following = self._read_file(following, deadline)
        return RowsPage(tuple(self.rows), following, self.scanned)

    def _is_full(self, deadline: float) -> bool:
        has_read_enough = self.scanned >= self.browser.max_scanned_rows or self.browser.clock() > deadline
        # Every call reads something, or a slow store would keep the reader at the same place.
        return len(self.rows) >= self.size or self.chars >= MAX_PAGE_CHARS or (self.scanned > 0 and has_read_enough)

    def _read_file(self, position: RowPosition, deadline: float) -> RowPosition | None:
        """Read row groups of one file until the page is full; where to go on, None at the end of the dataset."""
        splits = self.wanted.splits
        if position.split >= len(splits):
            return None
        files = self.manifest.split(splits[position.split]).files
        if position.file >= len(files):
            return RowPosition(position.split + 1) if position.split + 1 < len(splits) else None
        if self.files is not None and files[position.file].ref.key not in self.files:
            return RowPosition(position.split, position.file + 1)
        with self.browser.open(files[position.file]) as file:
            while position.group < len(file.group_rows) and not self._is_full(deadline):
                position = self._read_group(file, position)
            is_done = position.group >= len(file.group_rows)
        return RowPosition(position.split, position.file + 1) if is_done else position

    def _read_group(self, file: RowFile, position: RowPosition) -> RowPosition:
        split, count = self.wanted.splits[position.split], file.group_rows[position.group]
        for number, row in self._find_rows(file, position):
            self.rows.append((split, row))
            self.chars += sum(len(content) for _, content in row.messages)
            if len(self.rows) >= self.size or self.chars >= MAX_PAGE_CHARS:
                self.scanned += number + 1 - position.row
                if number + 1 < count:
                    return RowPosition(position.split, position.file, position.group, number + 1)
                return RowPosition(position.split, position.file, position.group + 1)
        self.scanned += max(0, count - position.row)
        return RowPosition(position.split, position.file, position.group + 1)

    def _find_rows(self, file: RowFile, position: RowPosition) -> Iterator[tuple[int, StoredRow]]:
        for number, row in file.rows(position.group, position.row, self.wanted):
            if not any(document_id in self.browser.erased for document_id in row.document_ids) and self.wanted.finds(
                row
            ):
                yield number, row


def _erased() -> NotFound:
    return NotFound(Reason.UNKNOWN_DATASET, "This dataset no longer exists, because a document in it was erased.")


def to_stored_row(record: Mapping[str, Any]) -> StoredRow:
    """A row from its columns; columns of the other kind of datasets may be missing."""
    messages = [(message["role"], message["content"]) for message in record["messages"]]
    if "chosen" in record:
        messages.append(("assistant", record["chosen"]))
    return StoredRow(
        row_id=record["row_id"],
        task=record["task"],
        document_ids=tuple(record["document_ids"]),
        messages=tuple(messages),
        made_by=record["made_by"],
        language=record.get("language") or "",
        tokens=record.get("tokens") or 0,
        grounding=record.get("grounding") or "",
        places=tuple((place["start"], place["end"]) for place in record.get("places") or ()),
        spans=tuple(map(_span, record.get("spans") or ())),
        lineage=dict(record.get("lineage") or {}),
        rejected=record.get("rejected") or "",
        judgement_ids=tuple(record.get("judgement_ids") or ()),
    )


def _span(value: Mapping[str, Any]) -> Span:
    return Span(SpanKind(value["kind"]), value["number"], value["start"], value["end"], value["level"])

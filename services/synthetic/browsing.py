"""Finds a dataset, and reads pages of its rows: a limited number of rows per call, one row group in memory."""

import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from services.synthetic.ports import DatasetFinder, RowFile, RowReader
from services.synthetic.views import RowFilter, RowPosition, RowsPage, StoredDataset, StoredRow
from tailor.datasets import DatasetManifest
from tailor.errors import NotFound, Reason
from tailor.storage.protocol import ObjectStore
from tailor.words import DatasetKind

MAX_SCANNED_ROWS = 50_000
MAX_PAGE_CHARS = 4_000_000
SCAN_SECONDS = 3.0

MayUse = Callable[[str], bool]


@dataclass(frozen=True)
class DatasetQuery:
    """A dataset by its digest, or the newest one of a specialist and kind."""

    specialist: str = ""
    digest: str = ""
    kind: DatasetKind = DatasetKind.SFT


@dataclass(frozen=True)
class RowBrowser:
    """Reads datasets for people. Thread-safe."""

    datasets: DatasetFinder
    store: ObjectStore
    reader: RowReader
    erased: Container[str] = frozenset()
    clock: Callable[[], float] = time.monotonic
    max_scanned_rows: int = MAX_SCANNED_ROWS

    def find(self, query: DatasetQuery, may_use: MayUse) -> StoredDataset:
        """The dataset. Raises NotFound if there is none that the caller may see; one digest may belong to several specialists."""
        if query.digest:
            candidates = self.datasets.find(query.digest)
        else:
            newest = self.datasets.newest(query.specialist, query.kind)
            candidates = [newest] if newest else []
        matches = [dataset for dataset in candidates if query.specialist in ("", dataset.specialist)]
        dataset = next((dataset for dataset in matches if may_use(dataset.specialist)), None)
        if dataset is None:
            raise NotFound(
                Reason.UNKNOWN_DATASET,
                "There is no such dataset, or your key may not see it. `tailor dataset list` lists them.",
            )
        return dataset

    def manifest(self, dataset: StoredDataset) -> DatasetManifest:
        """The dataset's manifest. Raises NotFound if an erasure deleted it."""
        try:
            return DatasetManifest.parse(self.store.get(dataset.manifest))
        except NotFound:
            raise _erased() from None

    def read(self, dataset: StoredDataset, wanted: RowFilter, position: RowPosition, size: int) -> RowsPage:
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
        with self.browser.reader.open(files[position.file]) as file:
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

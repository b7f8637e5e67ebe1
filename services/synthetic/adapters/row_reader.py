"""Reads rows of Parquet files: a row group at a time, and whole rows only of those that are wanted."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from services.synthetic.ports import RowFile, RowReader
from services.synthetic.views import RowFilter, StoredRow
from tailor.datasets import DatasetFile
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.protocol import ObjectStore
from tailor.words import Span, SpanKind

BATCH_ROWS = 128
KEYS = ["task", "document_ids"]


class ParquetRowFile(RowFile):
    """One file on disk."""

    def __init__(self, file: pyarrow.parquet.ParquetFile) -> None:
        self._file = file

    @property
    def group_rows(self) -> Sequence[int]:
        metadata = self._file.metadata
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]

    def rows(self, group: int, start: int, wanted: RowFilter) -> Iterator[tuple[int, StoredRow]]:
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


class ParquetRowReader(RowReader):
    """Copies a file to a temporary folder while it is open, because row groups are read in place."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @contextmanager
    def open(self, file: DatasetFile) -> Iterator[ParquetRowFile]:
        with tempfile.TemporaryDirectory(prefix="tailor-rows-") as folder:
            path = Path(folder) / "rows.parquet"
            self._store.get_file(file.ref, path)
            try:
                with pyarrow.parquet.ParquetFile(path) as parquet:
                    yield ParquetRowFile(parquet)
            except (pyarrow.ArrowException, KeyError):
                raise FailedPrecondition(
                    Reason.INVALID_DATASET, "A file of the dataset is not Parquet with rows. Build the dataset again."
                ) from None


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

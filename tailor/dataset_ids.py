"""Streams columns of the Parquet files that a dataset's manifest lists: ids of its documents or judgements."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tailor.datasets import DatasetFile, IdFiles
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.protocol import ObjectStore

BATCH = 10_000


def read_ids(store: ObjectStore, ids: IdFiles, column: str, batch: int = BATCH) -> Iterator[list[str]]:
    """Yield batches of ids from the column, one file at a time on disk and one batch in memory. Blocks.

    Raises what the store raises, and FailedPrecondition (INVALID_DATASET) if a file does not have such a column.
    """
    for (values,) in read_columns(store, ids.files, [column], batch):
        yield values


def read_columns(
    store: ObjectStore, files: Iterable[DatasetFile], columns: Sequence[str], batch: int = BATCH
) -> Iterator[list[list[Any]]]:
    """Yield batches of the columns' values, one file at a time on disk and one batch in memory. Blocks.

    Raises what the store raises, and FailedPrecondition (INVALID_DATASET) if a file does not have such a column.
    """
    with tempfile.TemporaryDirectory(prefix="tailor-ids-") as folder:
        for file in files:
            path = Path(folder) / "ids.parquet"
            store.get_file(file.ref, path)
            yield from _read_columns(path, columns, batch)


def _read_columns(path: Path, columns: Sequence[str], batch: int) -> Iterator[list[list[Any]]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            for column in columns:
                if column not in file.schema_arrow.names:
                    raise _invalid(column)
            for records in file.iter_batches(batch, columns=list(columns)):
                yield [records.column(column).to_pylist() for column in columns]
    except (ArrowException, UnicodeDecodeError):
        raise _invalid(columns[0]) from None


def _invalid(column: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.INVALID_DATASET, f"A file of the dataset does not list `{column}`. Build the dataset again."
    )

"""Streams the ids that a dataset's manifest lists in Parquet files: of its documents, or of its judgements."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tailor.datasets import IdFiles
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.protocol import ObjectStore

BATCH = 10_000


def read_ids(store: ObjectStore, ids: IdFiles, column: str, batch: int = BATCH) -> Iterator[list[str]]:
    """Yield batches of ids from the column, one file at a time on disk and one batch in memory. Blocks.

    Raises what the store raises, and FailedPrecondition (INVALID_DATASET) if a file does not have such a column.
    """
    with tempfile.TemporaryDirectory(prefix="tailor-ids-") as folder:
        for file in ids.files:
            path = Path(folder) / "ids.parquet"
            store.get_file(file.ref, path)
            yield from _read_column(path, column, batch)


def _read_column(path: Path, column: str, batch: int) -> Iterator[list[str]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise _invalid(column)
            for records in file.iter_batches(batch, columns=[column]):
                yield records.column(0).to_pylist()
    except (ArrowException, UnicodeDecodeError):
        raise _invalid(column) from None


def _invalid(column: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.INVALID_DATASET, f"A file of the dataset does not list `{column}`. Build the dataset again."
    )

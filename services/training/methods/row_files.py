"""Streams the columns that a method needs from a dataset's Parquet files. Invalid rows are rejected here, before a model is loaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Reason

CHATS = ("row_id", "messages")
PAIRS = (*CHATS, "chosen", "rejected")
BATCH_ROWS = 256


@contextmanager
def open_rows(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Open a Parquet file.

    Raises InvalidArgument (INVALID_DATASET) if it is damaged, also while it is read; (WRONG_DATASET_KIND) if a column is missing.
    """
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            missing = set(columns) - set(file.schema_arrow.names)
            if missing:
                raise InvalidArgument(
                    Reason.WRONG_DATASET_KIND,
                    f"The method learns from rows with {', '.join(columns)}, but the dataset has no {', '.join(sorted(missing))}.",
                )
            yield file
    except (ArrowException, UnicodeDecodeError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            # An error of the disk, not of the file.
            raise
        raise InvalidArgument(
            Reason.INVALID_DATASET, "The dataset's Parquet file is damaged. Build the dataset again."
        ) from None


def read(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Stream all rows, file by file, with one batch in memory.

    Raises InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND, INVALID_ROW) as soon as it reads what is wrong.
    """
    for path in paths:
        with open_rows(path, columns) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                yield from (check_row(row, columns) for row in batch.to_pylist())


def count_rows(paths: Sequence[Path], columns: Sequence[str]) -> int:
    """The number of rows, from the files' metadata. Raises InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND)."""
    rows = 0
    for path in paths:
        with open_rows(path, columns) as file:
            rows += file.metadata.num_rows
    return rows


def check_row(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The row, with only role and content of its messages. Raises InvalidArgument (INVALID_ROW) if one is missing or not text."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _invalid_row(row)
    cleaned = [{"role": message.get("role"), "content": message.get("content")} for message in messages]
    texts = [row[name] for name in columns if name != "messages"]
    texts += [text for message in cleaned for text in message.values()]
    if not all(isinstance(text, str) for text in texts):
        raise _invalid_row(row)
    return {**row, "messages": cleaned}


def _invalid_row(row: dict[str, Any]) -> InvalidArgument:
    return InvalidArgument(
        Reason.INVALID_ROW,
        f"Row {row['row_id']} lacks text. It needs a row_id, and messages that each have a role and a content.",
    )


def find_longest(paths: Sequence[Path]) -> int:
    """Tokens of the longest row by the files' column `tokens`, from their statistics; 0 if they have none."""
    return max((longest for path in paths for longest in _list_longest(path)), default=0)


def _list_longest(path: Path) -> Iterator[int]:
    with open_rows(path, ()) as file:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema == "tokens" and column.statistics is not None:
                    yield int(column.statistics.max or 0)

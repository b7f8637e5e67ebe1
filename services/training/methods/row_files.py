"""The rows of a dataset's Parquet file, as far as a method needs them. What is no row is refused here, before a model is loaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Reason

CHATS = ("row_id", "messages")
PAIRS = (*CHATS, "chosen", "rejected")
BATCH_ROWS = 256


@contextmanager
def opened(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """The Parquet file. InvalidArgument (INVALID_DATASET) where it is none, also while it is read; (WRONG_DATASET_KIND) without a column."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            missing = set(columns) - set(file.schema_arrow.names)
            if missing:
                raise InvalidArgument(
                    Reason.WRONG_DATASET_KIND,
                    f"The method learns from rows with {', '.join(columns)}, and the dataset has no {', '.join(sorted(missing))}.",
                )
            yield file
    except (ArrowException, UnicodeDecodeError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            # The disk's fault, not the file's.
            raise
        raise InvalidArgument(
            Reason.INVALID_DATASET, "The dataset's file is no whole Parquet file; build it again."
        ) from None


def read(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """All rows, in the file's order. InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND, INVALID_ROW)."""
    with opened(path, columns) as file:
        return [
            checked(row, columns)
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns))
            for row in batch.to_pylist()
        ]


def checked(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The row, of whose messages only role and content are kept. InvalidArgument (INVALID_ROW) where something is missing or no text."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _bad(row)
    kept = [{"role": message.get("role"), "content": message.get("content")} for message in messages]
    texts = [row[name] for name in columns if name != "messages"] + [text for one in kept for text in one.values()]
    if not all(isinstance(text, str) for text in texts):
        raise _bad(row)
    return {**row, "messages": kept}


def _bad(row: dict[str, Any]) -> InvalidArgument:
    return InvalidArgument(
        Reason.INVALID_ROW,
        f"Row {row['row_id']} lacks text: it needs a row_id, and messages that each have a role and a content.",
    )

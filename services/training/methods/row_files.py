"""Streams the columns that a method needs from a dataset's Parquet files. Invalid rows are left out or rejected here, before a model is
loaded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

CHATS = ("row_id", "messages")
PAIRS = (*CHATS, "chosen", "rejected")
BATCH_ROWS = 256
DOCUMENTS = "document_ids"  # read for messages if the file has it
# A dataset's rows are checked when they are made, so more than this share of bad ones has a cause that concerns them all.
MAX_SKIPPED_SHARE = 0.01
NAMED_ROWS = 3


@dataclass
class RowEncoder(Generic[T]):
    """Encodes rows and leaves out those that cannot be learned (INVALID_ROW).

    These are any that `encode` rejects, such as chats that the base's template cannot hold, if others are left. Of rows without text,
    which have a cause that concerns them all, it leaves out at most a hundredth, but always a single one.
    """

    columns: Sequence[str]
    encode: Callable[[dict[str, Any]], T]
    rows: int = 0
    skipped: int = 0
    textless: int = 0
    named: list[str] = field(default_factory=list)
    cause: str = ""

    def encode_all(self, rows: Iterable[dict[str, Any]]) -> Iterator[T]:
        """The encoded rows. After the last one, raises InvalidArgument (INVALID_ROW) if too many were left out."""
        for row in rows:
            self.rows += 1
            try:
                checked = check_row(row, self.columns)
            except InvalidArgument as error:
                self.textless += 1
                self._skip(row, error)
                continue
            try:
                encoded = self.encode(checked)
            except InvalidArgument as error:
                self._skip(row, error)
                continue
            yield encoded
        self._check()

    def _skip(self, row: dict[str, Any], error: InvalidArgument) -> None:
        if error.reason is not Reason.INVALID_ROW:
            raise error
        self.skipped += 1
        self.cause = self.cause or error.message
        if len(self.named) < NAMED_ROWS:
            documents = row.get(DOCUMENTS)
            origin = f" of {', '.join(map(str, documents))}" if documents else ""
            self.named.append(f"{row.get('row_id')}{origin}")

    def _check(self) -> None:
        if not self.skipped:
            return
        if self.textless > max(1, MAX_SKIPPED_SHARE * self.rows) or self.skipped == self.rows:
            raise InvalidArgument(
                Reason.INVALID_ROW,
                f"{self.skipped} of {self.rows} rows cannot be learned, among them {'; '.join(self.named)}. {self.cause} Build the "
                "dataset again with `tailor build SPECIALIST`, which leaves out what the chat template of its base cannot hold; "
                "if too little is left, give the specialist another base.",
            )
        log.warning("rows left out: invalid", rows=self.skipped, named=self.named, cause=self.cause)


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
    """Stream all rows, file by file, with one batch in memory; unchecked, and with the ids of their documents if the files have them.

    Raises InvalidArgument (INVALID_DATASET, WRONG_DATASET_KIND) as soon as it reads what is wrong.
    """
    for path in paths:
        with open_rows(path, columns) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=add_documents(file, columns)):
                yield from batch.to_pylist()


def add_documents(file: Any, columns: Sequence[str]) -> list[str]:
    """The columns, with the documents' ids if the file has them."""
    return [*columns, *{DOCUMENTS}.intersection(file.schema_arrow.names)]


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

"""Streams the questions of a dataset's closed-book set."""

from collections.abc import Iterator, Mapping
from typing import Any

from tailor.dataset_ids import read_columns
from tailor.datasets import ClosedBookFiles, ClosedBookKind, ClosedBookQuestion
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.protocol import ObjectStore

COLUMNS = ("row_id", "document_id", "kind", "question", "reference", "messages", "values", "language", "places")
BATCH = 1000


def read_closed_book(
    store: ObjectStore, closed_book: ClosedBookFiles, batch: int = BATCH
) -> Iterator[list[ClosedBookQuestion]]:
    """Yield batches of questions in the order of the files; those of one document follow each other. Blocks.

    One file at a time is on disk, and one batch in memory. Raises what the store raises, and FailedPrecondition (INVALID_DATASET) if a
    file is not one of a closed-book set.
    """
    for columns in read_columns(store, closed_book.files, COLUMNS, batch):
        yield [_question(dict(zip(COLUMNS, values, strict=True))) for values in zip(*columns, strict=True)]


def _question(record: Mapping[str, Any]) -> ClosedBookQuestion:
    try:
        return ClosedBookQuestion(
            row_id=record["row_id"],
            document_id=record["document_id"],
            kind=ClosedBookKind(record["kind"]),
            question=record["question"],
            reference=record["reference"],
            # The last message is the reference.
            messages=tuple((message["role"], message["content"]) for message in record["messages"][:-1]),
            values=tuple(record["values"]),
            language=record["language"],
            places=tuple((place["start"], place["end"]) for place in record["places"]),
        )
    except (ValueError, KeyError, TypeError):
        raise FailedPrecondition(
            Reason.INVALID_DATASET, "A file of the dataset's closed-book set cannot be read. Build the dataset again."
        ) from None

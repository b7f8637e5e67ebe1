"""Questions of a dataset's closed-book set are streamed from its files."""

from typing import Any

import pytest

from tailor.closed_book import read_closed_book
from tailor.datasets import ClosedBookFiles, ClosedBookKind, ClosedBookQuestion
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.memory import MemoryStore
from tests.datasets import store_closed_book

RECORD: dict[str, Any] = {
    "row_id": "row_1",
    "document_id": "doc_1",
    "kind": "learnable",
    "question": "How long are files kept?",
    "reference": "Files are kept for six years.",
    "messages": [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "How long are files kept?"},
        {"role": "assistant", "content": "Files are kept for six years."},
    ],
    "values": ["six years"],
    "language": "en",
    "places": [{"start": 10, "end": 39}],
}


def test_reads_questions_in_batches_and_without_their_answers() -> None:
    store = MemoryStore()
    records = [{**RECORD, "row_id": f"row_{number}"} for number in range(5)]
    batches = list(read_closed_book(store, store_closed_book(store, records, rows_per_file=3), batch=2))
    assert [[question.row_id for question in batch] for batch in batches] == [
        ["row_0", "row_1"],
        ["row_2"],
        ["row_3", "row_4"],
    ]
    assert batches[0][1] == ClosedBookQuestion(
        row_id="row_1",
        document_id="doc_1",
        kind=ClosedBookKind.LEARNABLE,
        question="How long are files kept?",
        reference="Files are kept for six years.",
        messages=(("system", "Answer."), ("user", "How long are files kept?")),
        values=("six years",),
        language="en",
        places=((10, 39),),
    )


def test_a_dataset_without_a_closed_book_has_no_questions() -> None:
    assert list(read_closed_book(MemoryStore(), ClosedBookFiles())) == []


@pytest.mark.parametrize("change", [{"kind": "hard"}, {"messages": [{"role": "user"}, {"role": "user"}]}])
def test_refuses_questions_that_it_cannot_read(change: dict[str, Any]) -> None:
    store = MemoryStore()
    closed_book = store_closed_book(store, [{**RECORD, **change}])
    with pytest.raises(FailedPrecondition) as refused:
        list(read_closed_book(store, closed_book))
    assert refused.value.reason == Reason.INVALID_DATASET


def test_refuses_a_file_without_a_column() -> None:
    store = MemoryStore()
    closed_book = store_closed_book(store, [{name: value for name, value in RECORD.items() if name != "reference"}])
    with pytest.raises(FailedPrecondition, match="reference"):
        list(read_closed_book(store, closed_book))

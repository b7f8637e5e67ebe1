"""Questions of a dataset's quiz are streamed from its files."""

from typing import Any

import pytest

from tailor.dataset_quiz import read_quiz
from tailor.datasets import QuizFiles, QuizKind, QuizQuestion
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.memory import MemoryStore
from tests.datasets import store_quiz

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
    batches = list(read_quiz(store, store_quiz(store, records, rows_per_file=3), batch=2))
    assert [[question.row_id for question in batch] for batch in batches] == [
        ["row_0", "row_1"],
        ["row_2"],
        ["row_3", "row_4"],
    ]
    assert batches[0][1] == QuizQuestion(
        row_id="row_1",
        document_id="doc_1",
        kind=QuizKind.LEARNABLE,
        question="How long are files kept?",
        reference="Files are kept for six years.",
        messages=(("system", "Answer."), ("user", "How long are files kept?")),
        values=("six years",),
        language="en",
        places=((10, 39),),
    )


def test_a_dataset_without_a_quiz_has_no_questions() -> None:
    assert list(read_quiz(MemoryStore(), QuizFiles())) == []


@pytest.mark.parametrize("change", [{"kind": "hard"}, {"messages": [{"role": "user"}, {"role": "user"}]}])
def test_refuses_questions_that_it_cannot_read(change: dict[str, Any]) -> None:
    store = MemoryStore()
    quiz = store_quiz(store, [{**RECORD, **change}])
    with pytest.raises(FailedPrecondition) as refused:
        list(read_quiz(store, quiz))
    assert refused.value.reason == Reason.INVALID_DATASET


def test_refuses_a_file_without_a_column() -> None:
    store = MemoryStore()
    quiz = store_quiz(store, [{name: value for name, value in RECORD.items() if name != "reference"}])
    with pytest.raises(FailedPrecondition, match="reference"):
        list(read_quiz(store, quiz))

"""Scores per document: what evaluation writes is what the registry reads, and anything else is refused."""

import json

import pytest

from tailor.document_scores import DocumentScore, read_scores, write_scores
from tailor.errors import FailedPrecondition, Reason

SCORES = [DocumentScore(f"doc_{number}", 3, 1, 1, 1) for number in range(5)]
LINE = {"document_id": "doc_1", "asked": 3, "learned": 1, "missed": 1, "contradicted": 1}


def test_reads_scores_in_batches_sorted_by_document() -> None:
    batches = list(read_scores(write_scores(reversed(SCORES)), batch=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [score for batch in batches for score in batch] == SCORES


def test_equal_scores_give_equal_bytes() -> None:
    assert write_scores(SCORES) == write_scores(SCORES[::-1])
    assert json.loads(write_scores(SCORES).splitlines()[1]) == LINE


def test_refuses_counts_that_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="add up"):
        DocumentScore("doc_1", 3, 1, 1, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        *(json.dumps({**LINE, **change}).encode() for change in ({"asked": 4}, {"document_id": ""})),
    ],
)
def test_refuses_a_line_that_is_not_a_score_and_names_it(line: bytes) -> None:
    with pytest.raises(FailedPrecondition, match="Line 2") as refused:
        list(read_scores(json.dumps(LINE).encode() + b"\n" + line))
    assert refused.value.reason == Reason.INVALID_DOCUMENT_SCORES

"""The parts of a segment."""

from collections.abc import Sequence
from dataclasses import replace

import numpy

from services.synthetic.building.grams import make_gram_set
from services.synthetic.building.parts import ARRAYS, PART_DOCUMENTS, join_parts, read_raw, split_members, write_raw
from services.synthetic.building.segments import (
    Context,
    RawSegment,
    SegmentTask,
    make_segment,
    write_segment,
)
from services.synthetic.corpus import Member
from tests.synthetic import SPECIALIST, WordCounter
from tests.unit.synthetic import row_texts
from tests.unit.synthetic.row_texts import make_document, plain

TEXTS = [text for _, text in row_texts.ALL.values()]
ALL_DRAWS = 1 << 32


def context() -> Context:
    return Context(SPECIALIST, WordCounter())


def make_raw(numbers: Sequence[int]) -> RawSegment:
    documents = [replace(make_document(TEXTS[number]), document_id=f"doc_{number:032d}") for number in numbers]
    texts = {document.document_id: plain(TEXTS[number]) for number, document in zip(numbers, documents, strict=True)}
    members = tuple(Member(document, 1000) for document in documents)
    return make_segment(context(), SegmentTask(members, texts, {}, ALL_DRAWS))


def test_rows_that_are_made_in_parts_are_those_that_are_made_at_once() -> None:
    numbers = range(len(TEXTS))
    whole = make_raw(numbers)
    parts = join_parts([make_raw(numbers[:3]), make_raw(numbers[3:4]), make_raw(numbers[4:])])
    assert parts.ids == whole.ids and parts.skipped == whole.skipped
    assert list(parts.skipped) == list(whole.skipped)
    for name in ARRAYS:
        assert numpy.array_equal(getattr(parts, name), getattr(whole, name)), name
    answers = ["No document has these words: the harbour bell rang twice before any of the ferries left the quay."]
    held_out = make_gram_set(answers)
    kept = [number % 3 > 0 for number in range(whole.rows)]
    first, second = (write_segment(context(), raw, kept, held_out, ALL_DRAWS) for raw in (whole, parts))
    assert first == second and first.closed_book.counts.rows > 0


def test_a_stored_part_is_what_was_made() -> None:
    raw = make_raw(range(4))
    data = write_raw(raw)
    again = read_raw(data)
    assert (again.ids, again.skipped, again.tables, again.closed_book) == (
        raw.ids,
        raw.skipped,
        raw.tables,
        raw.closed_book,
    )
    for name in ARRAYS:
        assert numpy.array_equal(getattr(again, name), getattr(raw, name)), name
    assert write_raw(again) == data == write_raw(make_raw(range(4)))


def test_documents_that_are_added_change_only_the_last_part() -> None:
    members = [Member(replace(make_document(TEXTS[0]), document_id=f"doc_{number}"), 1) for number in range(40)]
    before, after = split_members(members[:34]), split_members(members)
    assert before[:2] == after[:2] and [len(part) for part in after] == [PART_DOCUMENTS, PART_DOCUMENTS, 8]
    assert split_members([]) == [[]]

"""The parts of a segment."""

from collections.abc import Sequence
from dataclasses import replace

import numpy

from services.synthetic.building.grams import make_gram_set
from services.synthetic.building.segment_parts import (
    PART_DOCUMENTS,
    decode_rows,
    encode_rows,
    join_parts,
    split_members,
)
from services.synthetic.building.segments import (
    Context,
    MadeRows,
    MemberText,
    make_segment,
    write_rows,
)
from services.synthetic.corpus import Member
from tests.synthetic import SPECIALIST, WordCounter
from tests.unit.synthetic import row_texts
from tests.unit.synthetic.row_texts import make_document, plain

TEXTS = [text for _, text in row_texts.ALL.values()]


def context() -> Context:
    return Context(SPECIALIST, WordCounter())


def make(numbers: Sequence[int]) -> MadeRows:
    documents = [replace(make_document(TEXTS[number]), document_id=f"doc_{number:032d}") for number in numbers]
    texts = [
        MemberText(Member(document, 1000), plain(TEXTS[number]))
        for number, document in zip(numbers, documents, strict=True)
    ]
    return make_segment(context(), texts)


def test_rows_that_are_made_in_parts_are_those_that_are_made_at_once() -> None:
    numbers = range(len(TEXTS))
    whole = make(numbers)
    parts = join_parts([make(numbers[:3]), make(numbers[3:4]), make(numbers[4:])])
    assert parts.ids == whole.ids and parts.skipped == whole.skipped
    assert list(parts.skipped) == list(whole.skipped)
    assert numpy.array_equal(parts.index, whole.index) and numpy.array_equal(parts.places, whole.places)
    answers = ["No document has these words: the harbour bell rang twice before any of the ferries left the quay."]
    held_out = make_gram_set(answers)
    kept = [number % 3 > 0 for number in range(len(whole.index))]
    first, second = (write_rows(context(), raw.tables, kept, held_out) for raw in (whole, parts))
    assert first == second and first.counts.rows > 0


def test_a_stored_part_is_what_was_made() -> None:
    made = make(range(4))
    data = encode_rows(made)
    again = decode_rows(data)
    assert numpy.array_equal(again.index, made.index) and numpy.array_equal(again.places, made.places)
    assert replace(again, index=made.index, places=made.places) == made
    assert encode_rows(again) == data == encode_rows(make(range(4)))


def test_documents_that_are_added_change_only_the_last_part() -> None:
    members = [Member(replace(make_document(TEXTS[0]), document_id=f"doc_{number}"), 1) for number in range(40)]
    before, after = split_members(members[:34]), split_members(members)
    assert before[:2] == after[:2] and [len(part) for part in after] == [PART_DOCUMENTS, PART_DOCUMENTS, 8]
    assert split_members([]) == [[]]

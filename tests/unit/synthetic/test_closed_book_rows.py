"""Closed-book questions about documents, and the documents that have some."""

from dataclasses import replace

import pytest

from services.synthetic.building.closed_book import (
    ALL_DRAWS,
    closed_book_draw,
    find_closed_book_limit,
    write_closed_book,
)
from services.synthetic.domain import ClosedBookRow, DocumentRows, Kind
from services.synthetic.parquet import make_closed_book_table
from services.synthetic.rows.closed_book import GAP
from services.synthetic.rows.document_rows import make_rows
from tailor.datasets import ClosedBookFiles, ClosedBookKind
from tailor.values import RowPolicy
from tests.unit.synthetic import row_texts
from tests.unit.synthetic.row_texts import WordCounter, make_document, plain, specialist

TEMPLATED = [name for name, (language, _) in row_texts.ALL.items() if language in {"en", "de", "fr", "es"}]
WITH_QUESTIONS = [name for name in TEMPLATED if name not in {"without ends of sentences", "sheet"}]


def made(name: str, questions: int, policy: RowPolicy | None = None) -> DocumentRows:
    language, text = row_texts.ALL[name]
    settings = replace(specialist(), rows=policy or RowPolicy())
    return make_rows(
        make_document(text, language), plain(text), settings, WordCounter(), closed_book_questions=questions
    )


def learnable(rows: DocumentRows) -> list[ClosedBookRow]:
    return [question for question in rows.closed_book if question.kind is ClosedBookKind.LEARNABLE]


@pytest.mark.parametrize("name", WITH_QUESTIONS)
def test_an_ordinary_document_answers_questions_and_leaves_one_open(name: str) -> None:
    rows = made(name, 3)
    assert 1 <= len(learnable(rows)) <= 3
    (absent,) = [question for question in rows.closed_book if question.kind is ClosedBookKind.ABSENT]
    assert absent.values == () and absent.row.places == ()


@pytest.mark.parametrize("name", row_texts.ALL)
def test_no_question_is_the_prompt_of_a_row_and_rows_stay_the_same(name: str) -> None:
    rows = made(name, 20)
    prompts = {row.prompt for row in rows.rows}
    questions = [question.row.prompt for question in rows.closed_book]
    assert prompts.isdisjoint(questions) and len(set(questions)) == len(questions)
    assert rows.rows == made(name, 0).rows and made(name, 0).closed_book == ()


@pytest.mark.parametrize("name", WITH_QUESTIONS)
def test_the_answer_stands_at_its_place_and_the_question_shows_none_of_its_values(name: str) -> None:
    text = row_texts.ALL[name][1]
    for question in learnable(made(name, 5)):
        taught = " ".join(" ".join(text[start:end] for start, end in question.row.places).replace("-\n", "-").split())
        answer = " ".join(question.row.completion.split())
        assert answer in taught or taught in answer
        assert question.values or GAP not in question.row.prompt
        assert not [value for value in question.values if value in question.row.prompt]
        assert all(value in answer for value in question.values)


def test_subjects_that_rows_ask_about_come_last() -> None:
    rows = made("hard line breaks", 1)
    closed = [row for row in rows.rows if row.grounding == "closed"]
    places = {place for row in closed for place in row.places}
    (question,) = learnable(rows)
    topic_is_new = not any(question.values and value in row.prompt for row in closed for value in question.values)
    assert topic_is_new or places.isdisjoint(question.row.places)


def test_a_sentence_that_stands_twice_apart_from_the_gap_is_not_asked_about() -> None:
    text = "# Vans\n\n" + "\n\n".join(
        f"## Part {number}\n\nThe northern depot has exactly {number}7 vans that carry parcels to the harbour."
        for number in range(1, 4)
    )
    rows = make_rows(make_document(text), plain(text), specialist(), WordCounter(), closed_book_questions=9)
    assert not [question for question in learnable(rows) if f"exactly {GAP}" in question.row.prompt]


def test_documents_that_teach_no_knowledge_have_no_closed_book() -> None:
    for policy in (RowPolicy(knowledge=False), RowPolicy(tasks=("report",))):
        rows = made("mail", 3, policy)
        assert rows.rows and rows == made("mail", 0, policy)
    example = make_document(row_texts.MAIL, kind=Kind.EXAMPLE)
    text = replace(plain(row_texts.MAIL), prompt="Write a mail.")
    assert make_rows(example, text, specialist(), WordCounter(), closed_book_questions=3).closed_book == ()


def test_the_limit_admits_no_more_documents_and_changes_only_when_their_number_doubles() -> None:
    ids = [f"doc_{number:032d}" for number in range(1000)]
    draws = sorted(map(closed_book_draw, ids))
    assert find_closed_book_limit(None) == ALL_DRAWS and find_closed_book_limit(0) == 0
    limits = [find_closed_book_limit(draws[limit]) for limit in range(1, 1000)]
    assert all(sum(draw < below for draw in draws) <= limit for limit, below in enumerate(limits, 1))
    assert len(set(limits)) < 14 and sum(draw < limits[-1] for draw in draws) >= 400


def test_a_closed_book_has_the_documents_with_rows_and_counts_the_others() -> None:
    rows = [question for name in ("mail", "note") for question in made(name, 3).closed_book]
    named = [replace(q, row=replace(q.row, document_ids=(f"doc_{n % 2}",))) for n, q in enumerate(rows)]
    data = make_closed_book_table(named).encode()
    _, counts = write_closed_book((data,), ("doc_1", "doc_7"), ALL_DRAWS)
    asked = [question for question in named if question.row.document_ids == ("doc_1",)]
    assert (counts.documents, counts.rows, counts.without_questions) == (1, len(asked), 1)
    assert sum(counts.kinds.values()) == len(asked) and counts.beyond_limit == 0
    below = min(closed_book_draw("doc_1"), closed_book_draw("doc_7"))
    assert write_closed_book((), ("doc_1", "doc_7"), below) == (b"", ClosedBookFiles(beyond_limit=2))
    assert write_closed_book((), ("doc_1", "doc_7"), 0) == (b"", ClosedBookFiles())

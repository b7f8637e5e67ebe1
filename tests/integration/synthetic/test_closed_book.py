"""The closed-book set of a dataset, over PostgreSQL."""

import pytest

from tailor.closed_book import read_closed_book
from tailor.datasets import ClosedBookFiles, ClosedBookQuestion
from tailor.events.erased import Erased
from tailor.values import RowPolicy, Selection
from tests.synthetic import World, guide, key_of

pytestmark = pytest.mark.integration


def fill_guides(world: World, count: int) -> None:
    for number in range(count):
        world.put(number, text=guide(number), language="en")


def questions_of(world: World, digest: str) -> list[ClosedBookQuestion]:
    return [
        question for batch in read_closed_book(world.store, world.manifest(digest).closed_book, 7) for question in batch
    ]


def test_questions_are_about_train_documents_within_the_specialists_limits_and_no_row_asks_them(world: World) -> None:
    fill_guides(world, 40)
    digest = world.build().digest
    closed_book, questions = world.manifest(digest).closed_book, questions_of(world, digest)
    train = world.taught(digest, "train")
    assert len(questions) == closed_book.rows == sum(closed_book.kinds.values()) and closed_book.beyond_limit == 0
    assert {question.document_id for question in questions} <= train
    assert (
        closed_book.documents + closed_book.without_questions == len(train) and closed_book.documents > len(train) / 2
    )
    rows = [row for split in ("train", "held_out") for row in world.rows(digest, split)]
    assert {row["messages"][-2]["content"] for row in rows}.isdisjoint(question.question for question in questions)
    assert all(question.messages[-1] == ("user", question.question) for question in questions)

    world.define(rows=RowPolicy(max_closed_book_documents=10))
    limited = world.manifest(world.build().digest).closed_book
    assert 0 < limited.documents + limited.without_questions <= 10 and limited.beyond_limit > 10

    # A budget for rows keeps the closed-book set of documents with rows.
    world.define(rows=RowPolicy(max_train_tokens=2000))
    digest = world.build().digest
    asked = {question.document_id for question in questions_of(world, digest)}
    assert asked and asked <= world.taught(digest, "train") < {key_of(number) for number in range(40)}

    world.define(rows=RowPolicy(closed_book_questions=1))
    fewer = world.build().digest
    assert 0 < world.manifest(fewer).closed_book.rows < closed_book.rows
    for policy in (RowPolicy(knowledge=False), RowPolicy(closed_book_questions=0)):
        world.define(rows=policy)
        assert world.manifest(world.build().digest).closed_book == ClosedBookFiles()


def test_an_unchanged_segment_keeps_its_closed_book(world: World) -> None:
    fill_guides(world, 40)
    world.preparer.prepare(Selection())
    world.run_sql("UPDATE sketches SET arrival = arrival + 236 WHERE arrival >= 20")
    before = world.manifest(world.build().digest).closed_book.files
    world.fill(300, 6)
    after = world.manifest(world.build().digest).closed_book.files
    assert len(before) == len(after) == 2 and before[0] == after[0] and before[1] != after[1]


def test_an_erasure_deletes_the_questions_about_the_document(world: World) -> None:
    fill_guides(world, 20)
    old = world.manifest(world.build().digest).closed_book
    asked = next(iter(read_closed_book(world.store, old)))[0].document_id
    world.eraser().forget(Erased(asked, "ers_1"))
    assert not any(world.store.exists("datasets", file.ref.key) for file in old.files)
    (newest,) = world.datasets.all(specialist="reports")
    questions = [
        question
        for batch in read_closed_book(world.store, world.manifest(newest.digest).closed_book)
        for question in batch
    ]
    assert questions and asked not in {question.document_id for question in questions}

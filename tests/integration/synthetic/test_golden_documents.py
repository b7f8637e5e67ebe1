"""Golden documents from the publisher's event to the rows that evaluation reads, over PostgreSQL, with the real rules of every service on the way."""

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from services.anonymization.domain import DocumentText
from services.evaluation.adapters.rows import StoredHeldOutRows
from services.ingestion.domain import DocumentKind, ParsedText, encode_text
from services.ingestion.schema import TESTS
from services.ingestion.wire import to_submission
from services.synthetic import handlers
from services.synthetic.adapters.seed_documents import SqlSeedDocuments
from services.synthetic.domain import Document, Kind, OriginKind, Specialist
from tailor.events.envelope import Event
from tailor.values import Filters, Labels, RowPolicy
from tests.synthetic import World, distinct, key_of

pytestmark = pytest.mark.integration

INSIGHTS = {"figures": ["3 of 4 crews"], "owners": ["Ms Okafor signs the roster"]}
# Narrow, so that it would leave golden documents out if its limits applied to them.
SPECIALIST = Specialist(
    "reports",
    1,
    "smollm2-135m-instruct",
    "lora",
    filters=Filters(min_chars=200, max_source_documents=40),
    rows=RowPolicy(tasks=("report",), min_answer_tokens=20),
)


class House(World):
    """Synthetic with forty documents."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, specialists={"reports": SPECIALIST})
        self.seeds = SqlSeedDocuments(engine, self.store)
        self.fill()

    def publish(self, number: int, event: dict[str, Any], sequence: int = 1) -> str:
        """What ingestion and the barrier make of an event, in the corpus. The barrier knows the name Okafor."""
        submission = to_submission(Event(TESTS, "", json.dumps({"document_id": "t", **event}).encode()))
        assert submission.kind is DocumentKind.TEST
        assert isinstance(submission.content, ParsedText)
        text = DocumentText.decode(encode_text(submission.content))
        clean = text.with_parts([part.replace("Okafor", "Ward") for part in text.parts])
        key = key_of(number)
        ref = self.store.put("corpus", f"documents/{key}/{sequence}", clean.encode())
        labels = Labels("wiki", "risk", "internal")
        handlers.on_document(self.app, Document(key, sequence, f"digest{number}.{sequence}", Kind.TEST, labels, ref))
        return key

    def read(self) -> tuple[list[dict[str, Any]], Any]:
        """The train rows, and the held-out rows as evaluation reads them."""
        self.app.origins.admit(SPECIALIST, OriginKind.TESTS, "", "key_1")
        dataset = self.build()
        held_out = StoredHeldOutRows(self.store).held_out(dataset.manifest, 3, 0)
        return self.rows(dataset.digest, "train"), held_out


def golden(**changes: Any) -> dict[str, Any]:
    event = {"kind": "test", "prompt": "Write one line on rest.", "reference": "3 of 4 crews rest; Ms Okafor signs."}
    return event | {"key_insights": INSIGHTS} | changes


@pytest.fixture
def house(engine: Engine) -> House:
    return House(engine)


def test_a_golden_document_reaches_evaluation_first_and_never_train(house: House) -> None:
    key = house.publish(100, golden())
    train, held_out = house.read()
    (row,) = [row for row in held_out.rows if row.task == "test"]
    assert (row.document_ids, row.messages[-1]) == ((key,), ("user", "Write one line on rest."))
    assert row.reference == "3 of 4 crews rest; Ms Ward signs."
    assert json.loads(row.key_insights) == {"figures": ["3 of 4 crews"], "owners": ["Ms Ward signs the roster"]}
    assert train
    assert all(key not in entry["document_ids"] and entry["task"] != "test" for entry in train)


def test_an_earlier_copy_of_a_golden_document_leaves_train(house: House) -> None:
    train, _ = house.read()
    taught = sorted({key for entry in train for key in entry["document_ids"]})[0]
    number = int(taught.removeprefix("doc_"))
    key = house.publish(100, golden(reference=distinct(number)))
    train, held_out = house.read()
    assert all(taught not in entry["document_ids"] for entry in train)
    assert [row.document_ids for row in held_out.rows if row.task == "test"] == [(key,)]


def test_a_later_copy_of_a_golden_document_is_not_trained_on(house: House) -> None:
    house.publish(100, golden(prompt=f"Write it from these notes: {distinct(77)}", reference=distinct(60)))
    house.put(101, text=distinct(60))
    train, held_out = house.read()
    assert all(key_of(101) not in entry["document_ids"] for entry in train)
    assert len([row for row in held_out.rows if row.task == "test"]) == 1


def test_a_document_that_becomes_golden_leaves_train(house: House) -> None:
    train, _ = house.read()
    taught = sorted({key for entry in train for key in entry["document_ids"]})[0]
    house.publish(int(taught.removeprefix("doc_")), golden(), sequence=2)
    train, held_out = house.read()
    assert all(taught not in entry["document_ids"] for entry in train)
    assert [row.document_ids for row in held_out.rows if row.task == "test"] == [(taught,)]


def test_no_limit_leaves_golden_documents_out_and_equal_references_are_all_measured(house: House) -> None:
    house.define(rows=RowPolicy(max_held_out_rows=1), filters=Filters(max_source_documents=10))
    for number in range(100, 110):
        house.publish(number, golden(prompt=f"Question {number}?"))
    house.read()
    digest = house.build().digest
    rows = {split: house.rows(digest, split) for split in ("train", "held_out")}
    assert len([row for row in rows["held_out"] if row["task"] == "test"]) == 10
    assert not [row for row in rows["train"] if row["task"] == "test"]
    insights = {row["key_insights"] for split in rows.values() for row in split if row["task"] != "test"}
    assert insights == {""}


def test_a_golden_document_is_no_seed_of_a_synthesis(house: House) -> None:
    key = house.publish(100, golden())
    specialist = replace(SPECIALIST, filters=Filters())
    assert key not in house.seeds.draw(specialist, 1000, "k")
    assert house.seeds.held_out(specialist, [key]) == {key}

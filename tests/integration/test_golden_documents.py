"""Golden documents from the publisher's event to the rows that evaluation reads, over PostgreSQL, with the real rules of every service on the way."""

import json
from collections.abc import Iterator
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
from services.synthetic.adapters import tables
from services.synthetic.adapters.admitted_origins import SqlOrigins
from services.synthetic.adapters.corpus import SqlCorpora
from services.synthetic.adapters.seed_documents import SqlSeedDocuments
from services.synthetic.adapters.sketches import SqlSketches
from services.synthetic.adapters.sql import SqlRepository
from services.synthetic.bootstrap import MIGRATIONS
from services.synthetic.domain import Document, Kind, OriginKind, Specialist
from services.synthetic.handlers import Synthetic
from services.synthetic.near_duplicates.minhash import MinHashSketcher, similarity
from services.synthetic.near_duplicates.preparer import DocumentPreparer
from services.synthetic.parquet import read_table
from services.synthetic.rows.passages import passages
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.storage.memory import MemoryStore
from tailor.values import Filters, Labels, RowPolicy
from tests.conftest import migrated
from tests.unit.synthetic.fakes import OneTokenizer, inline_workers, put_document

pytestmark = pytest.mark.integration

WORDS = "ledger valve orchard tariff harbour kiln turbine archive ferry cellar quarry loom depot clinic granary mast".split()
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


def distinct(number: int) -> str:
    words = [f"{WORDS[(number * 7 + step) % len(WORDS)]}{number * 31 + step}" for step in range(60)]
    return f"# Report: {words[0]}\n\n## Position\n\nThe {' '.join(words[:30])} stood.\n\n## Remedy\n\nLook for {' '.join(words[30:])} now."


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


class House:
    """Synthetic with forty documents."""

    def __init__(self, engine: Engine) -> None:
        self.store = MemoryStore()
        self.repository = SqlRepository(engine, Outbox(engine, tables.outbox, MemoryProducer("synthetic")))
        self.seeds = SqlSeedDocuments(engine, self.store, self.repository.sides)
        self.app = Synthetic(
            repository=self.repository,
            origins=SqlOrigins(engine),
            corpora=SqlCorpora(engine),
            store=self.store,
            tokenizers=OneTokenizer(),
            preparer=DocumentPreparer(SqlSketches(engine, similarity), MinHashSketcher(0.8, passages), self.store),
            list_documents=lambda name, changed_since: [],
            start_workers=inline_workers,
            specialists={"reports": SPECIALIST},
        )
        for number in range(40):
            handlers.on_document(self.app, put_document(self.store, number, text=distinct(number)))

    def publish(self, number: int, event: dict[str, Any], sequence: int = 1) -> str:
        """What ingestion and the barrier make of an event, in the corpus. The barrier knows the name Okafor."""
        submission = to_submission(Event(TESTS, "", json.dumps({"document_id": "t", **event}).encode()))
        assert submission.kind is DocumentKind.TEST
        assert isinstance(submission.content, ParsedText)
        text = DocumentText.decode(encode_text(submission.content))
        clean = text.with_parts([part.replace("Okafor", "Ward") for part in text.parts])
        key = f"doc_{number:032d}"
        ref = self.store.put("corpus", f"documents/{key}/{sequence}", clean.encode())
        labels = Labels("wiki", "risk", "internal")
        handlers.on_document(self.app, Document(key, sequence, f"digest{number}.{sequence}", Kind.TEST, labels, ref))
        return key

    def build(self) -> tuple[list[dict[str, Any]], Any]:
        """The train rows, and the held-out rows as evaluation reads them."""
        self.app.origins.admit(SPECIALIST, OriginKind.TESTS, "", "key_1")
        dataset = handlers.build_dataset(self.app, "reports", "").dataset
        manifest = json.loads(self.store.get(dataset.manifest))
        train = []
        for file in manifest["splits"]["train"]["files"]:
            table = read_table(self.store.read("datasets", file["key"]))
            names = ("task", "document_ids", "messages")
            train += [dict(zip(names, row, strict=True)) for row in zip(*map(table.column, names), strict=True)]
        return train, StoredHeldOutRows(self.store).held_out(dataset.manifest, 3, 0)


def golden(**changes: Any) -> dict[str, Any]:
    event = {"kind": "test", "prompt": "Write one line on rest.", "reference": "3 of 4 crews rest; Ms Okafor signs."}
    return event | {"key_insights": INSIGHTS} | changes


def test_a_golden_document_reaches_evaluation_first_and_never_train(engine: Engine) -> None:
    house = House(engine)
    key = house.publish(100, golden())
    train, held_out = house.build()
    (row,) = [row for row in held_out.rows if row.task == "test"]
    assert (row.document_ids, row.messages[-1]) == ((key,), ("user", "Write one line on rest."))
    assert row.reference == "3 of 4 crews rest; Ms Ward signs."
    assert json.loads(row.key_insights) == {"figures": ["3 of 4 crews"], "owners": ["Ms Ward signs the roster"]}
    assert train
    assert all(key not in entry["document_ids"] and entry["task"] != "test" for entry in train)


def test_an_earlier_copy_of_a_golden_document_leaves_train(engine: Engine) -> None:
    house = House(engine)
    train, _ = house.build()
    taught = sorted({key for entry in train for key in entry["document_ids"]})[0]
    number = int(taught.removeprefix("doc_"))
    key = house.publish(100, golden(reference=distinct(number)))
    train, held_out = house.build()
    assert all(taught not in entry["document_ids"] for entry in train)
    assert [row.document_ids for row in held_out.rows if row.task == "test"] == [(key,)]


def test_a_later_copy_of_a_golden_document_is_not_trained_on(engine: Engine) -> None:
    house = House(engine)
    house.publish(100, golden(prompt=f"Write it from these notes: {distinct(77)}", reference=distinct(60)))
    copy = put_document(house.store, 101, text=distinct(60))
    handlers.on_document(house.app, copy)
    train, held_out = house.build()
    assert all(copy.document_id not in entry["document_ids"] for entry in train)
    assert len([row for row in held_out.rows if row.task == "test"]) == 1


def test_a_document_that_becomes_golden_leaves_train(engine: Engine) -> None:
    house = House(engine)
    train, _ = house.build()
    taught = sorted({key for entry in train for key in entry["document_ids"]})[0]
    house.publish(int(taught.removeprefix("doc_")), golden(), sequence=2)
    train, held_out = house.build()
    assert all(taught not in entry["document_ids"] for entry in train)
    assert [row.document_ids for row in held_out.rows if row.task == "test"] == [(taught,)]


def test_a_golden_document_is_no_seed_of_a_synthesis(engine: Engine) -> None:
    house = House(engine)
    key = house.publish(100, golden())
    specialist = replace(SPECIALIST, filters=Filters())
    assert key not in house.seeds.draw(specialist, 1000, "k")
    assert house.seeds.held_out(specialist, [key]) == {key}

"""Scores of documents in the registry: from an evaluation's file to the audit and erasures."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from services.registry.adapters import tables
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.scores import COUNTS
from services.registry.bootstrap import MIGRATIONS
from services.registry.domain import ScoredAdapter
from services.registry.handlers import facts, specialists
from tailor.api.events.v1 import models_pb2
from tailor.datasets import ClosedBookFiles, Figures, SkippedCount
from tailor.document_scores import DocumentScore, write_scores
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.storage.buckets import REPORTS
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import Selection
from tailor.wire import from_datetime, from_ref
from tests.conftest import migrated
from tests.datasets import built
from tests.integration.test_registry_erasures import DOCUMENTS, NAME, SPECIALIST, World

pytestmark = pytest.mark.integration

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine)
        specialists.create_specialist(world.begin, SPECIALIST)
        yield world


def score(document_id: str, learned: int, missed: int, contradicted: int = 0) -> DocumentScore:
    return DocumentScore(document_id, learned + missed + contradicted, learned, missed, contradicted)


def store_scores(world: World, scores: Sequence[DocumentScore]) -> Ref:
    return world.store.put(REPORTS, "evl_1/document_scores.jsonl", write_scores(scores))


def evaluated(digest: str, scores: Ref, time: datetime = NOON) -> models_pb2.AdapterEvaluated:
    return models_pb2.AdapterEvaluated(
        evaluation_id=f"evl_{digest}_{time:%H}",
        adapter_digest=digest,
        specialist=NAME,
        rows=8,
        document_scores=from_ref(scores),
        create_time=from_datetime(time),
    )


def listed(world: World) -> dict[str, tuple[int, ...]]:
    with world.engine.begin() as connection:
        rows = connection.execute(select(tables.document_scores)).all()
    return {row.document_id: tuple(getattr(row, name) for name in COUNTS) for row in rows}


def test_scores_are_read_by_reference(world: World) -> None:
    world.train("aa11", "cd34", DOCUMENTS[:1])
    scores = [
        score("doc_1", 3, 0),
        score("doc_2", 1, 2),
        score("doc_3", 2, 0, 1),
        score("doc_4", 1, 0),
        score("doc_5", 0, 4),
    ]
    for _ in range(2):
        world.receive("adapter.evaluated.v1", evaluated("aa11", store_scores(world, scores)))
    assert listed(world) == {
        "doc_1": (3, 3, 0, 0),
        "doc_2": (3, 1, 2, 0),
        "doc_3": (3, 2, 0, 1),
        "doc_4": (1, 1, 0, 0),
        "doc_5": (4, 0, 4, 0),
    }


def test_the_newest_evaluation_of_a_document_counts(world: World) -> None:
    datasets = StoredDatasetDocuments(world.store)

    def record(digest: str, hours: int, *scores: DocumentScore) -> None:
        adapter = ScoredAdapter(NAME, digest, NOON + timedelta(hours=hours))
        facts.record_scores(world.begin, datasets, adapter, store_scores(world, scores))

    record("aa11", 0, score("doc_1", 0, 2), score("doc_2", 0, 2))
    record("bb22", 1, score("doc_1", 2, 0))
    record("aa11", 0, score("doc_1", 0, 2), score("doc_2", 1, 1))
    assert listed(world) == {"doc_1": (2, 2, 0, 0), "doc_2": (2, 1, 1, 0)}


def test_more_scores_than_a_statement_has_parameters_are_recorded(world: World) -> None:
    scores = [score(f"doc_{number:06}", 1, number % 2) for number in range(20_000)]
    adapter = ScoredAdapter(NAME, "aa11", NOON)
    with world.begin() as tx:
        tx.document_scores.save(adapter, scores)
    facts.record_scores(world.begin, StoredDatasetDocuments(world.store), adapter, store_scores(world, scores))
    assert len(listed(world)) == 20_000


def test_an_erasure_deletes_scores_and_late_ones_are_not_stored(world: World) -> None:
    world.train("aa11", "cd34", DOCUMENTS[:2])
    file = store_scores(world, [score(DOCUMENTS[0], 0, 2), score(DOCUMENTS[1], 1, 1)])
    world.receive("adapter.evaluated.v1", evaluated("aa11", file))
    world.erase(DOCUMENTS[0])
    assert list(listed(world)) == [DOCUMENTS[1]]
    world.receive("adapter.evaluated.v1", evaluated("aa11", file, NOON + timedelta(hours=1)))
    assert list(listed(world)) == [DOCUMENTS[1]]


class LostStore(MemoryStore):
    """A store that does not answer."""

    def get(self, ref: Ref) -> bytes:
        raise Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The object store does not answer.")


def test_a_file_that_was_deleted_counts_as_empty_and_a_lost_store_is_retried(world: World) -> None:
    file, adapter = store_scores(world, [score("doc_1", 1, 0)]), ScoredAdapter(NAME, "aa11", NOON)
    with pytest.raises(Unavailable):
        facts.record_scores(world.begin, StoredDatasetDocuments(LostStore()), adapter, file)
    world.store.objects.clear()
    facts.record_scores(world.begin, StoredDatasetDocuments(world.store), adapter, file)
    assert listed(world) == {}


def test_a_damaged_file_is_refused_after_the_gate_decided(world: World) -> None:
    world.train("aa11", "cd34", DOCUMENTS[:1])
    file = world.store.put(REPORTS, "evl_1/document_scores.jsonl", b"{}\n")
    with pytest.raises(FailedPrecondition) as refused:
        world.receive("adapter.evaluated.v1", evaluated("aa11", file))
    assert refused.value.reason == Reason.INVALID_DOCUMENT_SCORES
    with world.begin() as tx:
        assert tx.evaluations.find_decision(f"evl_aa11_{NOON:%H}") is not None


def test_the_audit_has_the_dataset_behind_each_serving_adapter(world: World) -> None:
    counts = {"no_words": SkippedCount(documents=2, characters=70), "overlap": SkippedCount(rows=9, characters=700)}
    closed_book = ClosedBookFiles(documents=2, beyond_limit=5)
    dataset = built(
        world.store,
        "cd34",
        NAME,
        ["doc_1"],
        skipped=counts,
        figures=Figures(0.9, 1.0, 0.0, 700),
        closed_book=closed_book,
    )
    world.receive("dataset.built.v1", dataset)
    # Training publishes a dataset of the same digest; its manifest is read once.
    world.train("aa11", "cd34", DOCUMENTS[:1])
    world.receive("dataset.built.v1", dataset)
    assert [item.dataset_digest for item in world.queries.audit("", Selection()).datasets] == ["cd34"]
    # Preferences are learned on top of the adapter that learned the documents.
    pairs = models_pb2.DatasetBuilt(digest="ee55", specialist=NAME, manifest=dataset.manifest)
    world.train("bb22", "ee55", [], parent="aa11")
    world.receive("dataset.built.v1", pairs)
    file = store_scores(world, [score("doc_1", 1, 2)])
    facts.record_scores(world.begin, StoredDatasetDocuments(world.store), ScoredAdapter(NAME, "bb22", NOON), file)
    (item,) = world.queries.audit(NAME, Selection()).datasets
    assert (item.specialist, item.adapter_digest, item.dataset_digest) == (NAME, "bb22", "cd34")
    assert (item.figures.coverage, item.documents, item.closed_book_documents) == (0.9, 1, 2)
    assert [(reason.reason, reason.rows) for reason in item.skipped] == [("overlap", 9), ("no_words", 0)]
    assert (item.knowledge.documents, item.knowledge.asked, item.knowledge.learned) == (1, 3, 1)
    assert list(world.queries.audit("other", Selection()).datasets) == []


def test_the_audit_has_the_newest_dataset_too_before_an_adapter_of_it_serves(world: World) -> None:
    def receive(digest: str, reason: str) -> None:
        counts = {reason: SkippedCount(rows=9, characters=700)}
        figures = Figures(0.9, 1.0, 0.0, 700)
        world.receive("dataset.built.v1", built(world.store, digest, NAME, ["doc_1"], skipped=counts, figures=figures))

    def shown() -> list[tuple[str, str, str]]:
        items = world.queries.audit("", Selection()).datasets
        return [(item.adapter_digest, item.dataset_digest, item.skipped[0].reason) for item in items]

    receive("cd34", "overlap")
    assert shown() == [("", "cd34", "overlap")]
    world.train("aa11", "cd34", DOCUMENTS[:1])
    assert shown() == [("aa11", "cd34", "overlap")]
    file = store_scores(world, [score("doc_1", 1, 2)])
    facts.record_scores(world.begin, StoredDatasetDocuments(world.store), ScoredAdapter(NAME, "aa11", NOON), file)
    receive("ee55", "no_words")
    pairs = built(world.store, "ff66", NAME, [])
    pairs.ClearField("figures")
    world.receive("dataset.built.v1", pairs)
    assert shown() == [("aa11", "cd34", "overlap"), ("", "ee55", "no_words")]
    assert [item.knowledge.asked for item in world.queries.audit("", Selection()).datasets] == [3, 0]

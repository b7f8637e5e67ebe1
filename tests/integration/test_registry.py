"""The registry's handlers over PostgreSQL."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text

from services.registry import wire
from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import Begin, transactions
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import MIGRATIONS, signer
from services.registry.consumers import Consumers
from services.registry.domain import (
    APPROVAL,
    DraftMark,
    FactKind,
    Gate,
    GivenJudgement,
    Justification,
    KeyTerms,
    PrimaryMetric,
    Specialist,
)
from services.registry.handlers import deletions, judgements, keys, promotions, specialists
from services.registry.queries import Queries
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import people_pb2, registry_pb2
from tailor.columns import list_names
from tailor.datasets import Figures, ImportCount, LanguageCount, SkippedCount
from tailor.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    TailorError,
    Unavailable,
)
from tailor.events.envelope import Event, derive_id
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.identity import Identity
from tailor.sql import migrate
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import Labels, Selection
from tailor.wire import from_ref
from tests.conftest import migrated
from tests.datasets import built, store_dataset, store_ids
from tests.evaluations import make_evaluated, make_figures
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

NAME = "engagement-reports"
SPECIALIST = Specialist(
    NAME, "smollm2-135m-instruct", "lora", gate=Gate(PrimaryMetric("rougeL", 0.02), beat=("base",), min_rows=8)
)


class FakeEvaluator:
    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []

    def __call__(self, adapter_digest: str, request_id: str) -> None:
        self.requests.append((adapter_digest, request_id))


class FakeAnonymizer:
    def __init__(self) -> None:
        self.labels: list[Labels] = []

    def __call__(self, text: str, labels: Labels) -> str:
        self.labels.append(labels)
        return text.replace("Sarah Jenkins", "Helen Ward")


class World:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.producer = MemoryProducer("registry")
        self.outbox = Outbox(engine, outbox_rows, self.producer)
        self.begin: Begin = transactions(engine, self.outbox)
        self.queries = Queries(engine)
        self.evaluator = FakeEvaluator()
        self.store = MemoryStore()
        self.identity = Identity("registry", Ed25519PrivateKey.generate())
        self.consumers = Consumers(
            self.begin,
            StoredDatasetDocuments(self.store),
            StoredComparedTexts(self.store),
            self.evaluator,
            signer(self.identity),
        )

    def published(self, topic: str) -> list[object]:
        while self.outbox.relay():
            pass
        return list(self.producer.messages(topic))

    def receive(
        self, topic: str, message: models_pb2.AdapterTrained | models_pb2.AdapterEvaluated | drafts_pb2.DraftCreated
    ) -> None:
        self.consumers.topics()[topic](Event(topic, "key", message.SerializeToString(), {}))

    def adapter(self, digest: str) -> None:
        self.receive(
            "adapter.trained.v1",
            models_pb2.AdapterTrained(
                digest=digest, kind=models_pb2.ADAPTER_KIND_POLICY, specialist=NAME, dataset_digest="cd34", base="b"
            ),
        )

    def evaluate(self, digest: str, rouge: float, *, generation: int = 0, evaluation_id: str = "") -> None:
        message = make_evaluated(
            digest,
            NAME,
            make_figures("rougeL", base=0.1, candidate=rouge),
            evaluation_id=evaluation_id or f"evl_{digest}",
            incumbent_generation=generation,
        )
        self.receive("adapter.evaluated.v1", message)

    def entry(self, digest: str) -> registry_pb2.CatalogueAdapter:
        payload = self.queries.fact(FactKind.ADAPTER, digest)
        return self.queries.catalogue_adapter(models_pb2.AdapterTrained.FromString(payload or b""))

    def serving(self) -> str:
        with self.begin() as tx:
            return tx.servings.current(NAME).adapter_digest


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def test_a_migrated_database_can_be_migrated_again(world: World) -> None:
    migrate(world.engine, MIGRATIONS)
    specialists.create_specialist(world.begin, SPECIALIST)


def test_a_specialist_is_created_and_published_once(world: World) -> None:
    first, created = specialists.create_specialist(world.begin, SPECIALIST)
    again, created_again = specialists.create_specialist(world.begin, SPECIALIST)
    assert (created, created_again) == (True, False)
    assert first == again
    with pytest.raises(AlreadyExists):
        specialists.create_specialist(world.begin, replace(SPECIALIST, recipe="full"))
    assert len(world.published("specialist.changed.v1")) == 1


def test_training_is_asked_about_a_base_and_recipes_that_are_new_and_nothing_else(world: World) -> None:
    asked: list[tuple[str, list[str]]] = []
    create = replace(SPECIALIST, stages=("sft", "dpo"))
    for specialist in (
        create,
        replace(create, description="new"),
        replace(create, recipe="full"),
        replace(create, base="other"),
        replace(create, recipes={"dpo": "gentle"}),
    ):
        specialists.check_pipeline(world.begin, specialist, lambda base, recipes: asked.append((base, [*recipes])))
        specialists.create_specialist(world.begin, create)
    base, recipe = SPECIALIST.base, SPECIALIST.recipe
    assert asked == [
        (base, [recipe, "dpo"]),
        (base, ["full", "dpo"]),
        ("other", [recipe, "dpo"]),
        (base, [recipe, "gentle"]),
    ]


def test_an_update_of_an_old_revision_is_refused(world: World) -> None:
    created, _ = specialists.create_specialist(world.begin, SPECIALIST)
    updated, changes = specialists.update_specialist(world.begin, replace(created, description="new"))
    assert updated.revision == 2
    assert [(change.field, change.before, change.after) for change in changes] == [("description", '""', '"new"')]
    with pytest.raises(Aborted):
        specialists.update_specialist(world.begin, replace(created, description="other"))


def newest(world: World, topic: str) -> Any:
    """The last message of a topic."""
    return world.published(topic)[-1]


def test_what_was_published_last_is_listed_for_deleted_specialists_too(world: World) -> None:
    created, _ = specialists.create_specialist(world.begin, SPECIALIST)
    specialists.update_specialist(world.begin, replace(created, description="new"))
    world.adapter("good")
    world.evaluate("good", 0.2)
    (listed,) = world.queries.list_revisions(registry_pb2.ListRevisionsRequest()).items
    served = newest(world, "specialist.serving.v1").generation
    changed = newest(world, "specialist.changed.v1").revision
    assert (
        (listed.name, listed.revision, listed.generation)
        == (SPECIALIST.name, changed, served)
        == (SPECIALIST.name, 2, 1)
    )
    deletions.delete_specialist(world.begin, SPECIALIST.name, JUSTIFICATION)
    (listed,) = world.queries.list_revisions(registry_pb2.ListRevisionsRequest()).items
    assert listed.revision == newest(world, "specialist.changed.v1").revision == 3
    assert listed.generation == newest(world, "specialist.serving.v1").generation == 2


def test_an_evaluation_that_passes_the_gate_promotes_once(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("good")
    world.evaluate("good", 0.2)
    world.evaluate("good", 0.2)
    assert world.serving() == "good"
    servings = world.published("specialist.serving.v1")
    assert [serving.generation for serving in servings] == [1]  # type: ignore[attr-defined]


def test_a_refused_evaluation_promotes_nothing_and_names_the_reason(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("poor")
    world.evaluate("poor", 0.101)
    assert world.serving() == ""
    entry = world.entry("poor")
    assert entry.decision == registry_pb2.DECISION_REFUSED
    assert "rougeL gains +0.001" in entry.reasons[0]
    with pytest.raises(FailedPrecondition, match="refused"):
        promotions.promote(world.begin, NAME, "poor", 0)


def test_an_undecided_evaluation_promotes_nothing_and_says_how_many_rows_would_decide(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("close")
    world.evaluate("close", 0.122)
    assert world.serving() == ""
    entry = world.entry("close")
    assert entry.decision == registry_pb2.DECISION_UNDECIDED
    assert "about 102 rows would decide" in entry.reasons[0]
    with pytest.raises(FailedPrecondition, match="undecided"):
        promotions.promote(world.begin, NAME, "close", 0)
    world.receive(
        "draft.created.v1", drafts_pb2.DraftCreated(draft_id="drf_close", specialist=NAME, adapter_digest="close")
    )
    trace = world.queries.trace("drf_close")
    assert (trace.decision, list(trace.reasons)) == (entry.decision, list(entry.reasons))


def test_the_newest_evaluation_of_a_specialist_plans_the_next(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    before = specialists.plan_evaluation(world.begin, NAME, [64], [])
    assert (before.metric, before.rows, before.spread_rows) == ("rougeL", 64, 0)
    assert before.visible_difference == pytest.approx(0.245, abs=1e-4)
    world.adapter("first")
    world.evaluate("first", 0.2)
    after = specialists.plan_evaluation(world.begin, NAME, [64], [])
    assert after.visible_difference == pytest.approx(0.0025, abs=1e-4) and after.spread_rows == 16
    assert "with 64 of 64 held-out rows, rougeL cannot show a difference below 0.003" in after.sentence
    with pytest.raises(NotFound):
        specialists.plan_evaluation(world.begin, "nobody", [64], [])


def test_a_candidate_whose_incumbent_changed_is_evaluated_again(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("first")
    world.adapter("second")
    world.evaluate("first", 0.2)
    world.evaluate("second", 0.3, generation=0)
    assert world.serving() == "first"
    assert [digest for digest, _ in world.evaluator.requests] == ["second"]
    world.evaluate("second", 0.3, generation=1, evaluation_id="evl_again")
    assert world.serving() == "second"


def test_an_evaluation_that_arrives_before_its_adapter_is_retried(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    with pytest.raises(Aborted):
        world.evaluate("unknown", 0.2)


def test_concurrent_promotions_and_rollbacks_have_one_winner(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    for digest, generation in (("one", 0), ("two", 1), ("three", 2)):
        world.adapter(digest)
        world.evaluate(digest, 0.2 + generation / 10, generation=generation)
    gate = threading.Barrier(3)

    def attempt(command: Callable[[], object]) -> str:
        gate.wait()
        try:
            command()
        except TailorError as error:
            return error.reason
        return "won"

    commands: list[Callable[[], object]] = [
        lambda: promotions.promote(world.begin, NAME, "one", 3),
        lambda: promotions.promote(world.begin, NAME, "two", 3),
        lambda: promotions.roll_back(world.begin, NAME, 3),
    ]
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(attempt, commands))
    assert sorted(outcomes) == ["GENERATION_MOVED", "GENERATION_MOVED", "won"]
    generations = [serving.generation for serving in world.published("specialist.serving.v1")]  # type: ignore[attr-defined]
    assert generations == [1, 2, 3, 4]


def test_a_rollback_returns_to_the_previous_adapter_or_the_base(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    with pytest.raises(FailedPrecondition):
        promotions.roll_back(world.begin, NAME, 0)
    world.adapter("first")
    world.evaluate("first", 0.2)
    assert promotions.roll_back(world.begin, NAME, 1).adapter_digest == ""
    world.adapter("second")
    world.evaluate("second", 0.3, generation=2)
    assert world.serving() == "second"


def _document(number: int, sequence: int, digest: str, source: str = "wiki") -> documents_pb2.DocumentAnonymized:
    return documents_pb2.DocumentAnonymized(
        document_id=f"doc_{number:032x}",
        submission_id=derive_id("sub", number, sequence),
        version=common_pb2.Version(sequence=sequence, digest=digest),
        labels=common_pb2.Labels(source=source),
        findings={"PERSON": 2},
    )


def list_documents(
    world: World, selector: Specialist | None = None, **request: Any
) -> list[documents_pb2.DocumentAnonymized]:
    page = world.queries.list_documents(registry_pb2.ListDocumentsRequest(**request), selector)
    return [item.anonymized for item in page.items]


def test_lists_are_searched_ordered_and_filtered(world: World) -> None:
    def adapters(**query: Any) -> list[str]:
        request = registry_pb2.ListAdaptersRequest(query=common_pb2.ListQuery(**query), page_size=1)
        return [item.adapter.digest for item in world.queries.list_adapters(request).items]

    def documents(*, rejected: bool = False, **query: Any) -> list[str]:
        request = registry_pb2.ListDocumentsRequest(query=common_pb2.ListQuery(**query))
        lists = world.queries.list_rejected if rejected else world.queries.list_documents
        return [item.anonymized.document_id or item.rejected.document_id for item in lists(request).items]

    specialists.create_specialist(world.begin, SPECIALIST)
    for digest, rouge in (("poor", 0.1), ("good", 0.2), ("new", 0)):
        world.adapter(digest)
        if rouge:
            world.evaluate(digest, rouge)
    assert (adapters(), adapters(order_by="digest")) == (["new"], ["good"])
    assert [adapters(filters={"state": state}) for state in ("SERVING", "refused", "RETIRED")] == [
        ["good"],
        ["poor"],
        [],
    ]
    assert adapters(search="rougel POOR") == ["poor"]
    for number, source in ((1, "wiki"), (2, "mail")):
        receive_document(world, _document(number, number, "a", source))
    first, second = f"doc_{1:032x}", f"doc_{2:032x}"
    assert documents(order_by="sequence desc") == documents(order_by="labels") == [second, first]
    assert (documents(search="WIKI person"), documents(filters={"kind": "test"})) == ([first], [])
    rejected = documents_pb2.DocumentRejected(
        document_id="doc_x", submission_id="sub_x", reason=documents_pb2.REJECTION_REASON_CORRUPT, hint="Send it whole."
    )
    world.consumers.document_rejected(Event("document.rejected.v1", "k", rejected.SerializeToString(), {}))
    assert documents(rejected=True, search="whole", filters={"reason": "CORRUPT"}) == ["doc_x"]
    assert documents(rejected=True, filters={"reason": "DUPLICATE"}) == []
    (entry,) = world.queries.list_specialists(
        registry_pb2.ListSpecialistsRequest(
            query=common_pb2.ListQuery(filters={"serves": "adapter", "promotion": "automatic"})
        )
    ).items
    assert entry.serving.decision.adapter_digest == "good"


def test_every_name_of_a_contract_is_known(world: World) -> None:
    lists = world.queries
    with world.begin() as tx:
        methods: dict[Any, Any] = {
            registry_pb2.ListSpecialistsRequest: lists.list_specialists,
            registry_pb2.ListDocumentsRequest: lists.list_documents,
            registry_pb2.ListDatasetsRequest: lists.list_datasets,
            registry_pb2.ListAdaptersRequest: lists.list_adapters,
            registry_pb2.ListApprovalsRequest: lists.list_waiting,
            registry_pb2.ListDecisionsRequest: lists.list_decisions,
            registry_pb2.ListKeysRequest: lists.list_keys,
            people_pb2.ListPeopleRequest: lists.list_people,
            registry_pb2.ListErasuresRequest: tx.erasures.list_page,
        }
        for request, method in methods.items():
            names = list_names(request)
            filters = dict.fromkeys(names.filters.split(), "x")
            for order in names.order_by.split():
                query = common_pb2.ListQuery(search="a b", order_by=f"{order} desc", filters=filters)
                assert method(request(query=query)).items == []


def list_waiting(world: World) -> list[str]:
    page = world.queries.list_waiting(registry_pb2.ListApprovalsRequest())
    return [item.adapter.digest for item in page.items]


def list_decisions(world: World) -> list[registry_pb2.OperatorDecision]:
    page = world.queries.list_decisions(registry_pb2.ListDecisionsRequest())
    return [wire.from_decision(item) for item in page.items]


def receive_document(world: World, document: documents_pb2.DocumentAnonymized) -> None:
    world.consumers.document_anonymized(Event("document.anonymized.v1", "k", document.SerializeToString(), {}))


def test_the_newest_submission_of_a_document_is_the_current_one_in_any_order_of_arrival(world: World) -> None:
    for sequence, digest in ((1, "a"), (3, "a"), (2, "b")):
        receive_document(world, _document(1, sequence, digest))
    current = list_documents(world)
    assert [(document.version.sequence, document.version.digest) for document in current] == [(3, "a")]


def test_the_flow_accounts_for_every_submission(world: World) -> None:
    receive_document(world, _document(1, 1, "a"))
    late = documents_pb2.DocumentIngested(document_id=f"doc_{1:032x}", submission_id=derive_id("sub", 1, 1))
    world.consumers.document_ingested(Event("document.ingested.v1", "k", late.SerializeToString(), {}))
    rejected = documents_pb2.DocumentRejected(
        document_id="doc_x", submission_id="sub_x", reason=documents_pb2.REJECTION_REASON_CORRUPT
    )
    for _ in range(2):
        world.consumers.document_rejected(Event("document.rejected.v1", "k", rejected.SerializeToString(), {}))
    flow = world.queries.flow(None)
    assert (flow.ingested, flow.anonymized, dict(flow.rejected), dict(flow.findings)) == (
        1,
        1,
        {"CORRUPT": 1},
        {"PERSON": 2},
    )


def test_a_specialist_sees_only_documents_with_its_labels(world: World) -> None:
    receive_document(world, _document(1, 1, "a", "wiki"))
    receive_document(world, _document(2, 1, "b", "mail"))
    selector = wire.to_specialist(models_pb2.SpecialistChanged(selection=models_pb2.Selection(sources=["mail"])))
    assert [document.labels.source for document in list_documents(world, selector)] == ["mail"]


def test_documents_are_found_by_the_digest_of_their_text(world: World) -> None:
    for number, digest in ((1, "ab"), (2, "cd"), (3, "ab")):
        document = _document(number, 1, "x")
        document.text.CopyFrom(from_ref(Ref(f"s3://corpus/documents/{digest * 32}", digest * 32, 4)))
        receive_document(world, document)
    assert world.queries.documents_with_text("ab" * 32) == [f"doc_{number:032d}" for number in (1, 3)]
    assert world.queries.documents_with_text("ef" * 32) == []


def test_a_draft_is_traced_to_its_adapter_and_dataset(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("good")
    dataset = built(world.store, "cd34", NAME, ["doc_1"])
    world.consumers.dataset_built(Event("dataset.built.v1", NAME, dataset.SerializeToString(), {}))
    world.receive(
        "draft.created.v1",
        drafts_pb2.DraftCreated(draft_id="drf_1", specialist=NAME, adapter_digest="good", key_id="key_1"),
    )
    trace = world.queries.trace("drf_1")
    assert (trace.adapter.digest, trace.dataset.digest, trace.dataset.documents) == ("good", "cd34", 1)


class LostStore(MemoryStore):
    """A store that does not answer."""

    def get(self, ref: Ref) -> bytes:
        raise Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The object store does not answer.")


def test_a_dataset_is_shown_with_what_it_leaves_out_and_its_documents_in_pages(world: World) -> None:
    for number in range(5):
        receive_document(world, _document(number, 1, "a", "wiki"))
    ids = [f"doc_{number:032x}" for number in range(1, 4)]
    skipped = {"no_words": SkippedCount(documents=2, characters=70)}
    figures = Figures(coverage=0.9, grounded=1.0, characters=700)
    origin = {"imports": (ImportCount("chat", "MIT", 20, "chat.jsonl", 7),), "teacher_tokens": 90}
    languages = {"is": LanguageCount(3, 1, has_templates=False)}
    dataset = built(world.store, "cd34", NAME, ids, skipped=skipped, figures=figures, languages=languages, **origin)
    dataset.kind = models_pb2.DATASET_KIND_SFT
    for _ in range(2):
        world.consumers.dataset_built(Event("dataset.built.v1", NAME, dataset.SerializeToString(), {}))
    shown = world.queries.dataset(dataset.SerializeToString())
    assert (shown.dataset.documents, shown.dataset.figures.coverage) == (3, 0.9)
    assert {reason: (count.documents, count.characters) for reason, count in shown.skipped.items()} == {
        "no_words": (2, 70)
    }
    (entry,) = shown.imports
    assert (entry.name, entry.licence, entry.share_percent, entry.source, entry.rows) == (
        "chat",
        "MIT",
        20,
        "chat.jsonl",
        7,
    )
    assert (shown.languages["is"].rows, shown.languages["is"].documents, shown.teacher_tokens) == (3, 1, 90)
    for specialist in ("", NAME):
        (audited,) = world.queries.audit(specialist, Selection()).imports
        assert (audited.specialist, audited.dataset_digest, audited.licence, audited.rows) == (NAME, "cd34", "MIT", 7)
    assert list(world.queries.audit("other", Selection()).imports) == []
    first = world.queries.list_documents(registry_pb2.ListDocumentsRequest(page_size=2), dataset="cd34")
    request = registry_pb2.ListDocumentsRequest(page_token=first.next_token)
    rest = world.queries.list_documents(request, dataset="cd34")
    assert [item.anonymized.document_id for item in (*first.items, *rest.items)] == ids


def test_lists_what_changed_since_a_cursor_even_from_a_transaction_that_was_running(world: World) -> None:
    def changed(cursor: int) -> list[str]:
        return [document.document_id for document in list_documents(world, changed_since=cursor)]

    def settled_cursor() -> int | None:
        """A cursor after all changes: it waits for the transactions of other databases on the server, which other tests use."""
        cursor = world.queries.cursor()
        return None if changed(cursor) else cursor

    receive_document(world, _document(1, 1, "a", "wiki"))
    assert wait_until(settled_cursor)
    with world.engine.begin() as connection:
        running = connection.execute(text("SELECT pg_current_xact_id()::text::bigint")).scalar_one()
        receive_document(world, _document(2, 1, "a", "wiki"))
        second = world.queries.cursor()
        assert second <= running
        row = {"id": f"doc_{3:032x}", "changed": running}
        connection.execute(
            text(
                "INSERT INTO documents SELECT :id, sequence, source, department, confidentiality, payload, format, "
                "language, char_count, findings, :changed FROM documents WHERE document_id = :other"
            ),
            row | {"other": f"doc_{2:032x}"},
        )
    assert len(changed(second)) == 2
    third = wait_until(settled_cursor)
    assert third is not None
    receive_document(world, _document(1, 2, "b", "wiki"))
    assert changed(third) == [f"doc_{1:032x}"]
    # As after a restore elsewhere.
    assert len(changed(10**15)) == 3


def test_a_dataset_whose_store_is_lost_is_retried_and_one_that_was_deleted_is_kept(world: World) -> None:
    dataset = built(world.store, "cd34", NAME, ["doc_1"])
    event = Event("dataset.built.v1", NAME, dataset.SerializeToString(), {})
    lost = Consumers(
        world.begin,
        StoredDatasetDocuments(LostStore()),
        StoredComparedTexts(LostStore()),
        world.evaluator,
        signer(world.identity),
    )
    with pytest.raises(Unavailable):
        lost.dataset_built(event)
    assert world.queries.facts(FactKind.DATASET, NAME, 10) == []
    world.store.objects.clear()
    world.consumers.dataset_built(event)
    assert len(world.queries.facts(FactKind.DATASET, NAME, 10)) == 1


def test_a_dataset_of_more_documents_than_a_statement_has_parameters_is_recorded(world: World) -> None:
    ids = [f"doc_{number:06}" for number in range(70_000)]
    ref, manifest = store_dataset(
        world.store, {}, sources=store_ids(world.store, "document_id", ids, 50_000), specialist=NAME
    )
    dataset = models_pb2.DatasetBuilt(digest="cd34", specialist=NAME, manifest=from_ref(ref), documents=70_000)
    assert manifest.sources.count == 70_000 and dataset.ByteSize() < 4096
    world.consumers.dataset_built(Event("dataset.built.v1", NAME, dataset.SerializeToString(), {}))
    with world.begin() as tx:
        assert set(tx.lineage.find_datasets(ids).values()) == {("cd34",)}


def test_a_caller_sees_only_its_own_drafts_of_its_own_specialists(world: World) -> None:
    world.receive("draft.created.v1", drafts_pb2.DraftCreated(draft_id="drf_1", specialist=NAME, key_id="key_1"))

    def find(key_id: str, *, admitted: bool) -> str:
        return judgements.get_draft(
            world.begin, "drf_1", role="ROLE_CALLER", key_id=key_id, may_use=lambda _: admitted
        ).draft_id

    assert find("key_1", admitted=True) == "drf_1"
    for key_id, admitted in (("key_2", True), ("key_1", False)):
        with pytest.raises(NotFound):
            find(key_id, admitted=admitted)


MARKS = (DraftMark("", "accuracy", 4), DraftMark("", "style", 5))


def test_a_judgement_has_an_anonymised_comment_and_is_published_once(world: World) -> None:
    for number in (1, 2):
        world.receive("draft.created.v1", drafts_pb2.DraftCreated(draft_id=f"drf_{number}", specialist=NAME))
    for _ in range(2):
        judgement = judgements.record_judgement(
            world.begin,
            FakeAnonymizer(),
            GivenJudgement(("drf_2", "drf_1"), marks=MARKS, comment="Better than Sarah Jenkins's"),
            judgement_id="jdg_1",
            may_use=lambda _: True,
        )
    assert judgement.comment == "Better than Helen Ward's"
    assert judgement.marks == (DraftMark("drf_2", "accuracy", 4), DraftMark("drf_2", "style", 5))
    assert len(world.published("judgement.recorded.v1")) == 1


def receive_draft(world: World, prompt: int, answer: str) -> str:
    draft = drafts_pb2.DraftCreated(
        draft_id=f"drf_{prompt}_{answer}", specialist=NAME, prompt_digest=f"p{prompt}", answer_digest=answer
    )
    draft.text.uri = f"s3://drafts/texts/{draft.draft_id}.json"
    world.receive("draft.created.v1", draft)
    return draft.draft_id


def test_a_judgement_and_the_specialist_say_what_the_next_round_lacks(world: World) -> None:
    specialists.create_specialist(world.begin, replace(SPECIALIST, stages=("sft", "dpo")))
    for number in range(3):
        judgement = judgements.record_judgement(
            world.begin,
            FakeAnonymizer(),
            GivenJudgement((receive_draft(world, number, "a"), receive_draft(world, number, "b"))),
            judgement_id=f"jdg_{number}",
            may_use=lambda _: True,
        )
    sentence = "3 ranked prompts; a round needs 42: 39 to go."
    assert judgement.round is not None and judgement.round.sentence == sentence
    published = world.published("judgement.recorded.v1")[-1]
    assert isinstance(published, drafts_pb2.JudgementRecorded)
    assert (published.round.sentence, published.round.missing_prompts) == (sentence, 39)
    (entry,) = world.queries.list_specialists(registry_pb2.ListSpecialistsRequest()).items
    assert entry.round.sentence == sentence
    assert world.queries.specialist(entry.specialist).round.prompts == 3


def test_a_draft_is_traced_to_both_datasets_the_reward_adapter_and_the_round(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    for digest in ("d1", "p1"):
        dataset = built(world.store, digest, NAME, ["doc_1"])
        world.consumers.dataset_built(Event("dataset.built.v1", NAME, dataset.SerializeToString(), {}))
    adapter = models_pb2.AdapterTrained(
        digest="good",
        kind=models_pb2.ADAPTER_KIND_POLICY,
        specialist=NAME,
        dataset_digest="p1",
        sft_dataset_digest="d1",
        preference_dataset_digest="p1",
        reward_adapter_digest="r1",
        round=2,
    )
    world.receive("adapter.trained.v1", adapter)
    part = models_pb2.AdapterTrained(
        digest="part", kind=models_pb2.ADAPTER_KIND_POLICY, specialist=NAME, dataset_digest="d1", intermediate=True
    )
    world.receive("adapter.trained.v1", part)
    world.receive("draft.created.v1", drafts_pb2.DraftCreated(draft_id="drf_1", specialist=NAME, adapter_digest="good"))
    trace = world.queries.trace("drf_1")
    assert (trace.dataset.digest, trace.preference_dataset.digest) == ("d1", "p1")
    assert (trace.adapter.reward_adapter_digest, trace.adapter.round) == ("r1", 2)
    assert world.entry("part").state == registry_pb2.ADAPTER_STATE_INTERMEDIATE
    assert "tailor adapter evaluate part" in world.entry("part").advice


def test_a_comment_is_anonymised_by_the_policy_for_the_specialists_documents(world: World) -> None:
    anonymize = FakeAnonymizer()
    selections = (Selection(departments=("people",)), Selection(("wiki", "mail"), ("people",), ("restricted",)))
    for number, selection in enumerate(selections):
        name = f"{NAME}-{number}"
        specialists.create_specialist(world.begin, replace(SPECIALIST, name=name, selection=selection))
        world.receive("draft.created.v1", drafts_pb2.DraftCreated(draft_id=f"drf_{number}", specialist=name))
        judgements.record_judgement(
            world.begin,
            anonymize,
            GivenJudgement((f"drf_{number}",), marks=MARKS, comment="Good."),
            judgement_id=f"jdg_{number}",
            may_use=lambda _: True,
        )
    assert anonymize.labels == [Labels(department="people"), Labels("", "people", "restricted")]


def test_a_key_works_until_it_is_revoked_or_expires_and_is_stored_as_a_hash(world: World) -> None:
    terms = KeyTerms("erp", "ROLE_CALLER", methods=("a.B/C",), calls_per_minute=60)
    key, secret = keys.create_key(world.begin, terms, lambda _: True, "key_1")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert keys.verify_key(world.begin, digest) == key
    assert (key.methods, key.calls_per_minute) == (("a.B/C",), 60)
    keys.revoke_key(world.begin, key.key_id, lambda _: True, "key_1")
    with pytest.raises(NotFound):
        keys.verify_key(world.begin, digest)
    expired = replace(terms, expire_time=datetime.now(UTC) - timedelta(seconds=1))
    _, short = keys.create_key(world.begin, expired, lambda _: True, "key_1")
    with pytest.raises(NotFound):
        keys.verify_key(world.begin, hashlib.sha256(short.encode()).hexdigest())
    with pytest.raises(NotFound):
        keys.create_key(world.begin, replace(terms, specialists=("nobody",)), lambda _: True, "key_1")
    for invalid in (replace(terms, name=" "), replace(terms, calls_per_minute=-1)):
        with pytest.raises(InvalidArgument):
            keys.create_key(world.begin, invalid, lambda _: True, "key_1")


def test_an_unavailable_broker_delays_the_outbox_and_loses_nothing(world: World) -> None:
    world.producer.down = True
    specialists.create_specialist(world.begin, SPECIALIST)
    with pytest.raises(TailorError):
        world.outbox.relay()
    world.producer.down = False
    assert len(world.published("specialist.changed.v1")) == 1


JUSTIFICATION = Justification("key_1", "The board wants it today.")


def test_a_deleted_specialist_ends_what_serves_and_can_be_created_again(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("good")
    world.evaluate("good", 0.2)
    _, deleted = deletions.delete_specialist(world.begin, NAME, JUSTIFICATION)
    _, again = deletions.delete_specialist(world.begin, NAME, JUSTIFICATION)
    assert (deleted, again) == (True, False)
    assert [message.deleted for message in world.published("specialist.changed.v1")] == [False, True]  # type: ignore[attr-defined]
    ended = world.published("specialist.serving.v1")[-1]
    assert (ended.generation, ended.ended, ended.adapter_digest) == (2, True, "")  # type: ignore[attr-defined]
    assert world.queries.list_specialists(registry_pb2.ListSpecialistsRequest()).items == []
    with pytest.raises(NotFound):
        specialists.get_specialist(world.begin, NAME)
    with pytest.raises(NotFound):
        promotions.promote(world.begin, NAME, "good", 2)
    created, is_new = specialists.create_specialist(world.begin, replace(SPECIALIST, description="again"))
    assert (is_new, created.revision) == (True, 3)
    assert promotions.promote(world.begin, NAME, "good", 2).generation == 3


def test_an_evaluation_of_a_deleted_specialist_promotes_nothing(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("late")
    deletions.delete_specialist(world.begin, NAME, JUSTIFICATION)
    world.evaluate("late", 0.2)
    assert world.serving() == ""
    assert list(world.entry("late").reasons) == ["the specialist was deleted"]


def test_a_name_that_never_existed_cannot_be_deleted(world: World) -> None:
    with pytest.raises(NotFound):
        deletions.delete_specialist(world.begin, "nobody", JUSTIFICATION)


def test_a_preview_of_an_update_changes_nothing(world: World) -> None:
    created, _ = specialists.create_specialist(world.begin, SPECIALIST)
    current, changes = specialists.update_specialist(
        world.begin, replace(created, description="new"), validate_only=True
    )
    assert (current, [change.field for change in changes]) == (created, ["description"])
    assert specialists.get_specialist(world.begin, NAME) == created


def test_an_override_serves_a_refused_adapter_and_stays_on_record(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("poor")
    world.evaluate("poor", 0.101)
    assert world.entry("poor").state == registry_pb2.ADAPTER_STATE_REFUSED
    serving = promotions.promote(world.begin, NAME, "poor", 0, JUSTIFICATION)
    assert (serving.adapter_digest, serving.overridden) == ("poor", True)
    entry = world.entry("poor")
    assert entry.state == registry_pb2.ADAPTER_STATE_OVERRIDDEN
    decision = entry.operator_decision
    assert (decision.kind, decision.key_id, decision.reason, decision.generation) == (
        registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE,
        "key_1",
        "The board wants it today.",
        1,
    )
    assert decision.verdict == registry_pb2.DECISION_REFUSED
    assert "rougeL gains +0.001" in decision.verdict_reasons[0]
    assert list_decisions(world) == [decision]
    draft = drafts_pb2.DraftCreated(draft_id="drf_poor", specialist=NAME, generation=1, adapter_digest="poor")
    world.receive("draft.created.v1", draft)
    trace = world.queries.trace("drf_poor")
    assert (trace.state, trace.operator_decision) == (entry.state, decision)


def test_an_override_of_an_adapter_that_passes_is_a_promotion(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("good")
    world.evaluate("good", 0.2)
    promotions.roll_back(world.begin, NAME, 1)
    assert world.entry("good").state == registry_pb2.ADAPTER_STATE_REPLACED
    assert not promotions.promote(world.begin, NAME, "good", 2, JUSTIFICATION).overridden
    assert list_decisions(world) == []


def test_a_rollback_to_an_overridden_adapter_is_still_an_override(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("poor")
    world.adapter("good")
    world.evaluate("poor", 0.101)
    promotions.promote(world.begin, NAME, "poor", 0, JUSTIFICATION)
    world.evaluate("good", 0.2, generation=1)
    assert world.serving() == "good"
    assert promotions.roll_back(world.begin, NAME, 2).overridden


def test_an_adapter_without_an_evaluation_cannot_be_overridden(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.adapter("unseen")
    with pytest.raises(FailedPrecondition, match="tailor adapter evaluate unseen"):
        promotions.promote(world.begin, NAME, "unseen", 0, JUSTIFICATION)


def test_with_approval_a_passed_adapter_waits_and_serves_when_approved(world: World) -> None:
    specialists.create_specialist(world.begin, replace(SPECIALIST, promotion=APPROVAL))
    world.adapter("good")
    world.evaluate("good", 0.2)
    assert world.serving() == ""
    waiting = list_waiting(world)
    assert (waiting, world.entry("good").state) == (["good"], registry_pb2.ADAPTER_STATE_WAITING_FOR_APPROVAL)
    serving = promotions.approve(world.begin, "good", JUSTIFICATION)
    assert (serving.adapter_digest, serving.generation) == ("good", 1)
    assert list_waiting(world) == []
    assert world.entry("good").operator_decision.kind == registry_pb2.OPERATOR_DECISION_KIND_APPROVAL
    with pytest.raises(FailedPrecondition):
        promotions.approve(world.begin, "good", JUSTIFICATION)


def test_a_declined_adapter_waits_no_longer_not_even_after_another_evaluation(world: World) -> None:
    specialists.create_specialist(world.begin, replace(SPECIALIST, promotion=APPROVAL))
    world.adapter("good")
    world.evaluate("good", 0.2)
    promotions.decline(world.begin, "good", JUSTIFICATION)
    world.evaluate("good", 0.2, evaluation_id="evl_again")
    assert world.serving() == ""
    assert world.entry("good").state == registry_pb2.ADAPTER_STATE_DECLINED
    assert promotions.promote(world.begin, NAME, "good", 0).adapter_digest == "good"
    assert world.entry("good").state == registry_pb2.ADAPTER_STATE_SERVING


def test_an_approval_of_an_adapter_measured_against_another_incumbent_is_refused(world: World) -> None:
    specialists.create_specialist(world.begin, replace(SPECIALIST, promotion=APPROVAL))
    for digest in ("first", "second"):
        world.adapter(digest)
        world.evaluate(digest, 0.2)
    promotions.approve(world.begin, "first", JUSTIFICATION)
    with pytest.raises(FailedPrecondition, match="tailor adapter evaluate second") as raised:
        promotions.approve(world.begin, "second", JUSTIFICATION)
    assert raised.value.reason == Reason.INCUMBENT_MOVED


def test_the_leaderboard_ranks_adapters_with_the_base_and_keeps_pins_at_the_top(world: World) -> None:
    created, _ = specialists.create_specialist(world.begin, SPECIALIST)
    for digest, rouge in (("poor", 0.05), ("good", 0.3)):
        world.adapter(digest)
        world.evaluate(digest, rouge)
    world.adapter("new")

    def ranked() -> list[tuple[int, str]]:
        board = world.queries.leaderboard(created, "")
        assert (board.metric, board.not_evaluated, board.skipped) == ("rougeL", 1, 0)
        return [(entry.rank, entry.adapter_digest or entry.model) for entry in board.entries]

    assert ranked() == [(1, "good"), (2, "base"), (3, "poor")]
    for entry in ("poor", "base", "poor"):
        specialists.pin_entry(world.begin, NAME, entry, pinned=True)
    assert ranked() == [(2, "base"), (3, "poor"), (1, "good")]
    specialists.pin_entry(world.begin, NAME, "base", pinned=False)
    assert ranked() == [(3, "poor"), (1, "good"), (2, "base")]
    with pytest.raises(NotFound) as raised:
        specialists.pin_entry(world.begin, NAME, "f" * 64, pinned=True)
    assert raised.value.reason == Reason.UNKNOWN_ENTRY

"""What drafts were worth, over PostgreSQL: reports, shares kept, and what an erasure deletes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, Table, select

from services.registry.adapters import tables
from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import transactions
from services.registry.bootstrap import MIGRATIONS
from services.registry.consumers import Consumers
from services.registry.domain import (
    ErasureReceipt,
    ErasureRequest,
    Feedback,
    FeedbackVerdict,
    Gate,
    PrimaryMetric,
    Specialist,
)
from services.registry.handlers import erasures, specialists
from services.registry.handlers.feedback import store_feedback
from services.registry.outcome_rpc import OutcomeServicer
from services.registry.queries import Queries
from services.registry.rules.ledger import bill_runs, parse_month
from services.registry.rules.outcomes import week_of
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import outcomes_pb2, outcomes_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, PermissionDenied
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import Labels, Selection
from tailor.wire import from_ref
from tests.conftest import migrated

pytestmark = pytest.mark.integration

ADAPTER = "ad" * 32
MAY = datetime(2026, 5, 4, tzinfo=UTC)
DOCUMENT = "doc_" + "1" * 32


def keep_text(text: str, labels: Labels) -> str:
    return text


class World:
    """A specialist that keeps its drafts, with two drafts of generation 2 and one of the base."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.store = engine, MemoryStore()
        self.begin = transactions(engine, Outbox(engine, tables.outbox, MemoryProducer("registry")))
        self.texts = StoredComparedTexts(self.store)
        self.queries = Queries(engine)
        self.servicer = OutcomeServicer(self.begin, self.queries)
        self.topics = Consumers(
            self.begin,
            StoredDatasetDocuments(self.store),
            self.texts,
            lambda *_: None,
            lambda body: ErasureReceipt(body, b"", b""),
        ).topics()
        gate = Gate(PrimaryMetric("rougeL"), min_rows=1)
        specialists.create_specialist(self.begin, Specialist("memos", "tiny", "lora", gate=gate, keep_drafts=True))
        for draft_id, answer in (("drf_1", "one two three four"), ("drf_2", "")):
            text = from_ref(self.put("drafts", {"messages": [], "answer": answer})) if answer else None
            self.receive(
                "draft.created.v1",
                drafts_pb2.DraftCreated(
                    draft_id=draft_id, specialist="memos", generation=2, adapter_digest=ADAPTER, text=text
                ),
            )
        self.receive("draft.created.v1", drafts_pb2.DraftCreated(draft_id="drf_base"))

    def put(self, bucket: str, value: object) -> Ref:
        return self.store.put(bucket, f"texts/{len(self.store.objects)}.json", json.dumps(value).encode())

    def receive(self, topic: str, message: object) -> None:
        self.topics[topic](Event(topic, "key", message.SerializeToString(), {}))  # type: ignore[attr-defined]

    def publish_deliverable(self, text: str, draft_id: str = "drf_1", moment: datetime = MAY) -> None:
        message = documents_pb2.DocumentAnonymized(
            document_id=DOCUMENT,
            submission_id="sub_1",
            kind=common_pb2.KIND_DELIVERABLE,
            draft_id=draft_id,
            text=from_ref(self.put("corpus", {"prompt": None, "text": text})),
        )
        message.create_time.FromDatetime(moment)
        self.receive("document.anonymized.v1", message)

    def give_feedback(self, verdict: FeedbackVerdict, text: str = "", draft_id: str = "drf_1") -> None:
        said = Feedback("fbk_1", draft_id, "", "", verdict, text, 0, "", datetime.now(UTC))
        store_feedback(self.begin, keep_text, self.texts, said)

    def report(self, draft_id: str = "", key: str = "key_1", **fields: object) -> outcomes_pb2.DraftOutcome:
        request = outcomes_pb2.StoreOutcomeRequest(draft_id=draft_id, caller_id=key, **fields)  # type: ignore[arg-type]
        return self.servicer.StoreOutcome(request, None).outcome  # type: ignore[arg-type]

    def rows(self, table: Table) -> list[dict[str, object]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def shares(self) -> dict[object, object]:
        return {row["draft_id"]: row["share"] for row in self.rows(tables.final_texts)}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def test_a_report_counts_once_for_each_draft_and_caller(world: World) -> None:
    world.report("drf_1", minutes=30)
    last = world.report("drf_1", minutes=25, satisfaction=4)
    world.report("drf_1", key="key_2", satisfaction=2)
    assert (last.specialist, last.generation, last.adapter_digest) == ("memos", 2, ADAPTER)
    rows = world.rows(tables.outcomes)
    assert sorted((row["minutes"], row["satisfaction"]) for row in rows) == [(0, 2), (25, 4)]


def test_work_without_a_draft_is_the_baseline_and_counts_once_for_each_request(world: World) -> None:
    for request_id in ("a", "a", "b"):
        stored = world.report(specialist="memos", request_id=request_id, minutes=90)
        assert (stored.generation, stored.adapter_digest) == (0, "")
    assert world.report("drf_base", specialist="memos", minutes=60).generation == 0
    assert len(world.rows(tables.outcomes)) == 3


def test_reports_of_unknown_drafts_and_specialists_are_refused(world: World) -> None:
    with pytest.raises(NotFound) as unknown:
        world.report("drf_never", minutes=1)
    assert unknown.value.reason == "UNKNOWN_DRAFT"
    with pytest.raises(NotFound) as unknown:
        world.report(specialist="never-created", request_id="a", minutes=1)
    assert unknown.value.reason == "UNKNOWN_SPECIALIST"
    with pytest.raises(InvalidArgument):
        world.report("drf_1", specialist="others", minutes=1)
    assert world.rows(tables.outcomes) == []


def test_the_share_kept_follows_the_deliverable_or_else_the_feedback(world: World) -> None:
    world.give_feedback(FeedbackVerdict.EDITED, "one two, and four")
    assert world.shares() == {"drf_1": 0.75}
    world.give_feedback(FeedbackVerdict.ACCEPTED)
    assert world.shares() == {"drf_1": 1.0}
    world.publish_deliverable("# Memo\n\nOne, five.")
    assert world.shares() == {"drf_1": 0.25}
    world.give_feedback(FeedbackVerdict.REJECTED)
    assert world.shares() == {"drf_1": 0.25}


def test_a_deliverable_of_a_draft_whose_text_is_not_stored_has_no_share(world: World) -> None:
    world.publish_deliverable("One.", "drf_2")
    assert world.shares() == {"drf_2": None}
    world.give_feedback(FeedbackVerdict.EDITED, "One.", "drf_2")
    assert world.shares() == {"drf_2": None}


def test_a_deliverable_of_the_base_does_not_count(world: World) -> None:
    world.publish_deliverable("One.", "drf_base")
    assert world.shares() == {}


def test_a_deliverable_that_comes_before_its_draft_or_the_drafts_text_is_measured_later(world: World) -> None:
    world.publish_deliverable("One.", "drf_late")
    assert world.queries.outcomes("memos") == ([], [])
    draft = drafts_pb2.DraftCreated(draft_id="drf_late", specialist="memos", generation=2, adapter_digest=ADAPTER)
    world.receive("draft.created.v1", draft)
    (final,) = world.queries.outcomes("memos")[1]
    assert (final.generation, final.document_id, final.share) == (2, DOCUMENT, None)
    draft.text.CopyFrom(from_ref(world.put("drafts", {"messages": [], "answer": "one two"})))
    world.receive("draft.created.v1", draft)
    (final,) = world.queries.outcomes("memos")[1]
    assert (final.share, final.create_time) == (0.5, MAY)


def test_a_deliverable_that_a_replay_publishes_again_stays_in_its_week(world: World) -> None:
    world.publish_deliverable("One.")
    world.publish_deliverable("One two.", moment=MAY + timedelta(days=21))
    (row,) = world.rows(tables.final_texts)
    assert (row["share"], row["create_time"]) == (0.5, MAY)


def test_erasing_a_deliverable_deletes_what_is_stored_about_its_draft(world: World) -> None:
    world.publish_deliverable("One.")
    world.report("drf_1", minutes=25)
    world.report("drf_2", minutes=40)
    erasures.erase(world.begin, (), ErasureRequest("ers_1", [DOCUMENT], "subject-request"))
    assert [row["draft_id"] for row in world.rows(tables.outcomes)] == ["drf_2"]
    world.publish_deliverable("One.")
    assert world.rows(tables.final_texts) == []


@contextmanager
def serve(world: World, specialist: str) -> Iterator[outcomes_pb2_grpc.OutcomeServiceStub]:
    """The methods, for an expert whose key is limited to one specialist."""
    caller = Caller("key", "team", "ROLE_EXPERT", frozenset({specialist}), "key_1")
    add = outcomes_pb2_grpc.add_OutcomeServiceServicer_to_server
    server = RpcServer(
        ServiceSettings(rpc_port=0),
        "registry",
        servicers=[(add, world.servicer)],
        authenticator=Authenticator("registry", Trust({}), lambda _: caller),
    )
    server.start()
    yield outcomes_pb2_grpc.OutcomeServiceStub(open_channel(f"127.0.0.1:{server.port}", lambda: "tlr_test"))
    server.stop(0)


def test_figures_are_listed_by_generation_and_week_for_those_who_may_use_the_specialist(world: World) -> None:
    world.report(specialist="memos", request_id="a", minutes=90)
    world.report("drf_1", minutes=30, satisfaction=4)
    world.report("drf_1", key="key_2", minutes=20)
    today = datetime.now(UTC)
    world.publish_deliverable("One two.", moment=today)
    request = outcomes_pb2.GetOutcomesRequest(specialist="memos")
    with serve(world, "memos") as stub:
        answer = stub.GetOutcomes(request, timeout=60)
        for weeks in (-1, 105):
            with pytest.raises(InvalidArgument), wire_errors("registry"):
                stub.GetOutcomes(outcomes_pb2.GetOutcomesRequest(specialist="memos", weeks=weeks), timeout=60)
        with pytest.raises(PermissionDenied), wire_errors("registry"):
            stub.StoreOutcome(outcomes_pb2.StoreOutcomeRequest(draft_id="drf_1", minutes=1), timeout=60)
    generation, baseline = answer.generations
    assert (generation.generation, generation.minutes.median, generation.edit_retention.median) == (2, 25, 0.5)
    assert (baseline.generation, baseline.minutes.median, baseline.minutes.HasField("low")) == (0, 90, False)
    monday = week_of(today)
    assert [(item.week.ToDatetime(UTC), item.generation) for item in answer.weeks] == [(monday, 2), (monday, 0)]
    (week,) = answer.documents
    assert (week.week.ToDatetime(UTC), week.documents, week.deliverables) == (monday, 1, 1)
    with serve(world, "memos") as stub:
        (before,) = stub.GetOutcomes(
            outcomes_pb2.GetOutcomesRequest(specialist="memos", month="2020-01"), timeout=60
        ).generations
    assert before == baseline
    with serve(world, "reports") as stub, pytest.raises(NotFound), wire_errors("registry"):
        stub.GetOutcomes(request, timeout=60)


def test_knowledge_articles_are_counted_by_the_sources_that_the_specialist_names(world: World) -> None:
    gate = Gate(PrimaryMetric("rougeL"), min_rows=1)
    selection, articles = Selection(sources=("reports",)), ("knowledge-base", "wiki")
    specialist = Specialist("guides", "tiny", "lora", gate=gate, selection=selection, knowledge_sources=articles)
    specialists.create_specialist(world.begin, specialist)
    sources = ["reports", "knowledge-base", "wiki", "wiki", "mails"]
    for number, source in enumerate([*sources, *sources]):
        # The second half are later versions of the same documents.
        document = documents_pb2.DocumentAnonymized(
            document_id=f"doc_{number % len(sources)}",
            submission_id=f"sub_{number}",
            labels=common_pb2.Labels(source=source),
        )
        world.receive("document.anonymized.v1", document)
    with serve(world, "guides") as stub:
        (week,) = stub.GetOutcomes(outcomes_pb2.GetOutcomesRequest(specialist="guides"), timeout=60).documents
    assert (week.documents, week.knowledge_articles, week.deliverables) == (1, 3, 0)
    with serve(world, "memos") as stub:
        (week,) = stub.GetOutcomes(outcomes_pb2.GetOutcomesRequest(specialist="memos"), timeout=60).documents
    assert (week.documents, week.knowledge_articles) == (5, 0)


def test_the_ledger_has_what_the_facts_of_a_month_say_each_run_once(world: World) -> None:
    def cost(hours: float) -> models_pb2.RunCost:
        return models_pb2.RunCost(device_seconds=hours * 3600, device="2 CPU cores", amount=hours * 3, currency="EUR")

    reports: list[tuple[str, models_pb2.RunProgressed | models_pb2.RunFailed | models_pb2.AdapterTrained]] = [
        ("run.progressed.v1", models_pb2.RunProgressed(run_id="run_1", specialist="memos", cost=cost(1))),
        ("run.progressed.v1", models_pb2.RunProgressed(run_id="run_1", specialist="memos", cost=cost(2))),
        (
            "adapter.trained.v1",
            models_pb2.AdapterTrained(digest=ADAPTER, run_id="run_1", specialist="memos", cost=cost(3)),
        ),
        ("run.failed.v1", models_pb2.RunFailed(run_id="run_2", specialist="memos", cost=cost(0.5))),
        ("run.progressed.v1", models_pb2.RunProgressed(run_id="run_3", specialist="others", cost=cost(9))),
        ("run.progressed.v1", models_pb2.RunProgressed(run_id="run_4", specialist="memos")),
    ]
    for topic, message in [*reports, *reports]:
        message.create_time.FromDatetime(MAY)
        world.receive(topic, message)
    (line,) = bill_runs(Queries(world.engine).run_uses("memos"), parse_month("2026-05", MAY))
    assert (line.quantity, line.runs, line.amount, line.device) == (3.5, 2, 10.5, "2 CPU cores")
    assert Queries(world.engine).judgement_uses("memos") == []
    assert Queries(world.engine).teacher_uses("memos") == []

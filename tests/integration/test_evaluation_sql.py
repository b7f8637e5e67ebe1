"""Evaluation over PostgreSQL."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from services.evaluation.adapters import tables
from services.evaluation.adapters.sql import (
    SqlAgreements,
    SqlArtifacts,
    SqlDefinitions,
    SqlEvaluations,
    SqlModelResults,
)
from services.evaluation.bootstrap import MIGRATIONS
from services.evaluation.consumers import Consumers
from services.evaluation.domain import (
    Agreement,
    Answer,
    Evaluation,
    EvaluationState,
    ModelResult,
    Score,
    Specialists,
    SpecialistTerms,
)
from services.evaluation.rpc import EvaluationServicer
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import AlreadyExists, NotFound
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Caller, set_caller
from tailor.storage.ref import Ref
from tests.conftest import migrated
from tests.unit.evaluation.fakes import MANIFEST, make_adapter, make_worker

pytestmark = pytest.mark.integration

RUNNING = threading.Event()
CONTEXT = cast(Any, None)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


class World:
    def __init__(self, engine: Engine) -> None:
        self.producer = MemoryProducer("evaluation")
        self.outbox = Outbox(engine, tables.outbox, self.producer)
        self.artifacts, self.evaluations = SqlArtifacts(engine), SqlEvaluations(engine, self.outbox)
        self.results, specialists = SqlModelResults(engine), Specialists()
        self.worker = make_worker(
            artifacts=self.artifacts,
            evaluations=self.evaluations,
            results=self.results,
            specialists=specialists,
        )
        self.consumers = Consumers(self.artifacts, self.evaluations, specialists)
        self.servicer = EvaluationServicer(self.artifacts, self.evaluations, self.worker.reports)

    def handle(self, topic: str, message: models_pb2.AdapterTrained | models_pb2.DatasetBuilt) -> None:
        self.consumers.topics()[topic](Event(topic, "key", message.SerializeToString()))

    def announce_adapter(
        self, digest: str, kind: "models_pb2.AdapterKind.ValueType" = models_pb2.ADAPTER_KIND_POLICY
    ) -> None:
        reference = common_pb2.ObjectRef(
            uri=f"s3://models/adapters/{digest}/manifest.json", sha256=digest, size_bytes=9
        )
        message = models_pb2.AdapterTrained(
            digest=digest, kind=kind, specialist="reports", dataset_digest="data1", base="b", manifest=reference
        )
        self.handle("adapter.trained.v1", message)

    def prepare(self) -> None:
        manifest = common_pb2.ObjectRef(uri=MANIFEST.uri, sha256=MANIFEST.sha256, size_bytes=MANIFEST.size_bytes)
        self.handle("dataset.built.v1", models_pb2.DatasetBuilt(digest="data1", manifest=manifest))
        changed = models_pb2.SpecialistChanged(name="reports", revision=1, house_terms=["line of sight"])
        self.consumers.on_specialist(Event("specialist.changed.v1", "reports", changed.SerializeToString()))

    def published(self) -> list[Any]:
        while self.outbox.relay():
            pass
        return list(self.producer.messages("adapter.evaluated.v1"))


def test_an_adapter_is_evaluated_stored_and_published_once(engine: Engine) -> None:
    world = World(engine)
    world.prepare()
    for _ in range(2):
        world.announce_adapter("ad1")
    world.announce_adapter("rw1", models_pb2.ADAPTER_KIND_REWARD)
    assert world.worker.evaluate_next(RUNNING)
    assert not world.worker.evaluate_next(RUNNING)
    (message,) = world.published()
    assert (message.adapter_digest, message.rows, message.incumbent_generation) == ("ad1", 4, 0)
    figures = {item.metric: item for item in message.metrics}
    assert figures["rougeL"].models["candidate"].value == 1.0 > figures["rougeL"].models["base"].value
    assert figures["rougeL"].gains["base"].low > 0.5
    assert {"log_likelihood", "rougeL", "bleu", "terms", "repetition", "perplexity"} <= set(figures)
    assert set(figures["rougeL"].models) == {"base", "candidate"}
    assert (message.held_out_rows, message.specialist_revision) == (4, 1)
    set_caller(Caller("service", "console"))
    response = world.servicer.GetEvaluation(evaluation_pb2.GetEvaluationRequest(adapter_digest="ad1"), CONTEXT)
    assert (
        response.state == evaluation_pb2.EVALUATION_STATE_SUCCEEDED and response.rows_done == response.rows_total == 8
    )
    assert response.result == message and response.plot_png.startswith(b"\x89PNG")
    assert "| rougeL |" in response.report_markdown


def test_an_adapter_is_evaluated_again_on_command_with_the_incumbent(engine: Engine) -> None:
    world = World(engine)
    world.prepare()
    for digest in ("ad0", "ad1"):
        world.announce_adapter(digest)
        assert world.worker.evaluate_next(RUNNING)
    serving = models_pb2.SpecialistServing(
        specialist="reports", generation=4, adapter_digest="ad0", manifest=common_pb2.ObjectRef(uri="s3://models/x")
    )
    world.consumers.on_serving(Event("specialist.serving.v1", "reports", serving.SerializeToString()))
    set_caller(Caller("service", "registry"))
    request = evaluation_pb2.EvaluateRequest(adapter_digest="ad1", request_id="again")
    evaluation_id = world.servicer.Evaluate(request, CONTEXT).evaluation_id
    assert world.servicer.Evaluate(request, CONTEXT).evaluation_id == evaluation_id
    assert world.worker.evaluate_next(RUNNING)
    *_, message = world.published()
    assert (message.evaluation_id, message.incumbent_digest, message.incumbent_generation) == (evaluation_id, "ad0", 4)
    rouge = next(item for item in message.metrics if item.metric == "rougeL")
    assert (rouge.models["incumbent"].value, rouge.gains["incumbent"].value) == (1.0, 0.0)
    assert world.worker.models.calls.count("adapter:ad0") == 4
    with pytest.raises(AlreadyExists):
        world.servicer.Evaluate(evaluation_pb2.EvaluateRequest(adapter_digest="ad0", request_id="again"), CONTEXT)
    # The registry derives its request ids from public facts: another caller must not be able to take them first.
    set_caller(Caller("key", "anna", "ROLE_ENGINEER", key_id="key_1"))
    request = evaluation_pb2.EvaluateRequest(adapter_digest="ad0", request_id="again")
    assert world.servicer.Evaluate(request, CONTEXT).evaluation_id != evaluation_id


def test_evaluations_of_other_specialists_do_not_exist_for_a_caller(engine: Engine) -> None:
    world = World(engine)
    world.prepare()
    world.announce_adapter("ad1")
    set_caller(Caller("key", "somebody", "ROLE_ENGINEER", frozenset({"others"})))
    with pytest.raises(NotFound):
        world.servicer.GetEvaluation(evaluation_pb2.GetEvaluationRequest(adapter_digest="ad1"), CONTEXT)
    with pytest.raises(NotFound):
        world.servicer.Evaluate(evaluation_pb2.EvaluateRequest(adapter_digest="ad1"), CONTEXT)


def test_an_evaluation_is_claimed_once_and_released_with_the_transaction(engine: Engine) -> None:
    world = World(engine)
    evaluations = world.evaluations
    for number in (1, 2):
        world.artifacts.add_adapter(make_adapter(f"ad{number}"))
        evaluations.queue(f"evl_{number}", make_adapter(f"ad{number}"))

    def is_due(evaluation: Evaluation) -> bool:
        return evaluation.evaluation_id not in waiting

    waiting = set[str]()
    with evaluations.claim(is_due) as first, evaluations.claim(is_due) as second, evaluations.claim(is_due) as third:
        assert first is not None and second is not None and third is None
        assert (first.evaluation_id, second.evaluation_id, first.attempts) == ("evl_1", "evl_2", 1)
        evaluations.start("evl_1", 8)
    with evaluations.claim(is_due) as again:
        assert again is not None
        assert (again.evaluation_id, again.state, again.attempts) == ("evl_1", EvaluationState.RUNNING, 2)
    waiting.add("evl_1")
    with evaluations.claim(is_due) as later, evaluations.claim(is_due) as none:
        assert later is not None and (later.evaluation_id, none) == ("evl_2", None)
        # A replica for which the first one is due can have it meanwhile.
        with evaluations.claim(lambda _: True) as first:
            assert first is not None and first.evaluation_id == "evl_1"
    for reason in ("WRONG_BASE", "ROWS_ERASED"):
        evaluations.fail("evl_1", reason)
        assert evaluations.find("evl_1") == replace(first, state=EvaluationState.FAILED, reason="WRONG_BASE")
    with evaluations.claim(is_due) as other:
        assert other is not None and other.evaluation_id == "evl_2"


def test_results_survive_and_serve_later_evaluations_on_the_same_rows(engine: Engine) -> None:
    results = World(engine).results
    answers, notes = (Answer("an answer", False, 0.5, 7, 3), None), {"document_ids": ["doc_1"], "refused prompts": 2}
    result = ModelResult(answers, (Score(-1.25, 3), None), (None, Score(-2.0, 1)), notes)
    results.add("evl_1", "adapter:ad1", "k", result)
    results.add("evl_1", "adapter:ad1", "k", ModelResult((), ()))
    assert results.find("adapter:ad1", "k", "evl_1") == result == results.find("adapter:ad1", "k")
    assert results.find("adapter:ad1", "k", "evl_2") is None
    assert results.find("base:smollm2", "k") is None and results.find("adapter:ad1", "other") is None


def test_the_newest_ranked_dataset_belongs_to_its_specialist(engine: Engine) -> None:
    world = World(engine)
    world.prepare()
    assert world.artifacts.newest_ranked("reports") is None
    for digest in ("pairs1", "pairs2"):
        manifest = common_pb2.ObjectRef(uri=f"s3://datasets/{digest}/manifest.json", sha256="0" * 64, size_bytes=9)
        kind = models_pb2.DATASET_KIND_PREFERENCE
        built = models_pb2.DatasetBuilt(digest=digest, specialist="reports", kind=kind, manifest=manifest)
        world.handle("dataset.built.v1", built)
    newest = world.artifacts.newest_ranked("reports")
    assert newest is not None
    assert newest[0] == "pairs2"
    assert world.artifacts.newest_ranked("memos") is None


def test_an_erased_dataset_of_either_kind_finds_its_evaluations(engine: Engine) -> None:
    world = World(engine)
    world.artifacts.add_dataset("pairs", Ref("s3://datasets/pairs/manifest.json", "p", 1), "reports")
    tuned = replace(make_adapter("ad1"), dataset_digest="p1", sft_dataset_digest="d1", preference_dataset_digest="p1")
    world.artifacts.add_adapter(tuned)
    assert world.artifacts.adapter("ad1") == tuned
    world.evaluations.queue("evl_1", tuned)
    for digest in ("d1", "p1", "pairs"):
        assert world.evaluations.trained_on([digest]) == ["evl_1"]
    assert world.evaluations.trained_on(["d2"]) == []


def test_agreements_are_kept_by_their_key(engine: Engine) -> None:
    agreements = SqlAgreements(engine)
    assert agreements.find("k") is None
    for agreement in (Agreement(0.55, 40, 2), Agreement(0.9, 40)):
        agreements.add("k", agreement)
    agreements.add("few", Agreement(None, 3))
    assert agreements.find("k") == Agreement(0.55, 40, 2)
    assert agreements.find("few") == Agreement(None, 3)


def test_a_definition_is_frozen_once_and_a_change_is_another_record(engine: Engine) -> None:
    definitions = SqlDefinitions(engine)
    first = SpecialistTerms("reports", 3, (), definition_digest="a" * 64)
    (record,) = definitions.freeze(first)
    # A later revision with the same metrics and gate has no effect.
    assert definitions.freeze(replace(first, revision=4)) == [record]
    assert (record.revision, record.digest) == (3, "a" * 64)
    changed = definitions.freeze(replace(first, revision=5, definition_digest="b" * 64))
    assert [entry.revision for entry in changed] == [3, 5]
    assert changed[1].freeze_time > changed[0].freeze_time
    back = definitions.freeze(replace(first, revision=6))
    assert [entry.digest[0] for entry in back] == ["a", "b", "a"]
    assert definitions.freeze(replace(first, name="memos"))[0].revision == 3

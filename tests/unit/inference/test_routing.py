"""Two deployments of different bases: each takes every call, and passes on what the other one serves."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.inference import routing, serving_table
from services.inference.adapters.events import Presence
from services.inference.consumers import SEEN, SERVING, ReplicaConsumer, ServingConsumer
from services.inference.deployments import Deployments, ReadyReplica
from services.inference.domain import ServedModel
from services.inference.generation import ReadinessGate
from services.inference.rpc import InferenceServicer
from services.inference.serving_table import ServingTable
from services.inference.web.http import create_app
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.errors import FailedPrecondition, NotFound, Reason, TailorError, Unavailable
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tests.unit.inference.fakes import FakeEngine, forwarder, make_world
from tests.unit.inference.test_rpc import KnownServices
from tests.waiting import wait_until


def verify(digest: str) -> Caller:
    del digest
    return Caller("key", "team", "ROLE_CALLER", frozenset({"memos", "board"}), "key_1")


class Deployment:
    """One replica with a real gRPC server and a fake engine, which answers with the name of its base."""

    def __init__(self, base: str) -> None:
        self.base, self.gate, self.deployments = base, ReadinessGate(), Deployments(base)
        self.forwarder, self.keys = forwarder(self.deployments), Authenticator("inference", KnownServices(), verify)
        add = inference_pb2_grpc.add_InferenceServiceServicer_to_server
        servicers = [(add, InferenceServicer(self.gate, self.forwarder))]
        settings = ServiceSettings(rpc_port=0)
        self.server = RpcServer(settings, "inference", servicers=servicers, authenticator=self.keys)
        self.world = make_world(table=ServingTable(self.server.set_known))
        self.world.engine.say = f"{base} says"
        self.models = replace(self.world.models, base=base)
        self.inference = replace(self.world.inference, models=self.models, deployments=self.deployments)
        self.replicas = ReplicaConsumer(self.deployments)
        self.replicas.models = self.models
        self.serving = ServingConsumer(
            self.models, self.deployments, self.world.published.report, lambda _, work: work()
        )
        self.gate.open(self.inference)
        self.server.start()
        self.server.set_serving(True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def stub(self, token: str = "tlr_secret") -> inference_pb2_grpc.InferenceServiceStub:
        return inference_pb2_grpc.InferenceServiceStub(open_channel(self.address, lambda: token))

    def seen(self, address: str | None = None, *, leaving: bool = False) -> Event:
        """What the replica publishes of itself now."""
        producer, address = MemoryProducer(), self.address if address is None else address
        Presence(producer, lambda: routing.describe_replica(self.models, self.base, address)).publish(leaving=leaving)
        return producer.events(SEEN)[0]

    def ask(self, model: str, token: str = "tlr_secret") -> inference_pb2.GenerateResponse:
        request = inference_pb2.GenerateRequest(model=model, prompt="Write it.")
        with wire_errors("inference"):
            return self.stub(token).Generate(request, timeout=60)

    def post(self, model: str, *, stream: bool = False) -> str:
        app = create_app(self.gate, self.keys, self.forwarder, 4)
        body = {"model": model, "messages": [{"role": "user", "content": "Write it."}], "stream": stream}
        reply = TestClient(app).post("/v1/chat/completions", json=body, headers={"authorization": "Bearer tlr_secret"})
        return reply.text


@pytest.fixture
def pair() -> Iterator[tuple[Deployment, Deployment]]:
    first, second = Deployment("smol"), Deployment("gemma")
    for deployment in (first, second):
        for other in (first, second):
            deployment.replicas.apply(other.seen())
    yield first, second
    first.server.stop(0)
    second.server.stop(0)


def decision(specialist: str, generation: int, adapter: str, base: str) -> Event:
    message = models_pb2.SpecialistServing(
        specialist=specialist, generation=generation, adapter_digest=adapter, base=base
    )
    message.manifest.sha256 = adapter
    return Event(SERVING, specialist, message.SerializeToString())


def publish(event: Event, *deployments: Deployment) -> None:
    for deployment in deployments:
        deployment.serving.apply(event)


def test_both_deployments_answer_for_the_specialists_of_both_bases(pair: tuple[Deployment, Deployment]) -> None:
    publish(decision("memos", 1, "a", "smol"), *pair)
    publish(decision("board", 4, "b", "gemma"), *pair)
    for deployment in pair:
        for model, base, generation in (("memos", "smol", 1), ("board", "gemma", 4)):
            reply = deployment.ask(model)
            assert (reply.text, reply.finish_reason) == (f"{base} says", "stop")
            assert (reply.provenance.base, reply.provenance.generation) == (base, generation)
            replies = list(
                deployment.stub().StreamGenerate(
                    inference_pb2.StreamGenerateRequest(
                        request=inference_pb2.GenerateRequest(model=model, prompt="Write it.")
                    ),
                    timeout=60,
                )
            )
            assert "".join(reply.text for reply in replies) == f"{base} says"
            assert replies[-1].usage.completion_tokens == 2
            assert f'"content":"{base} says"' in deployment.post(model)
            assert f'"content": "{base} says"' in deployment.post(model, stream=True)
    # Each draft is published once, where it was answered.
    assert [len(deployment.world.published.drafts) for deployment in pair] == [8, 8]


def test_lists_the_specialists_of_all_bases_and_their_bases(pair: tuple[Deployment, Deployment]) -> None:
    publish(decision("memos", 1, "a", "smol"), *pair)
    publish(decision("board", 1, "b", "gemma"), *pair)
    publish(decision("hidden", 1, "c", "gemma"), *pair)
    listed = pair[0].stub().ListSpecialists(inference_pb2.ListSpecialistsRequest(), timeout=60).specialists
    assert [(item.name, item.provenance.base) for item in listed] == [
        ("base", "smol"),
        ("base@gemma", "gemma"),
        ("board", "gemma"),
        ("memos", "smol"),
    ]
    client = TestClient(create_app(pair[1].gate, pair[1].keys, pair[1].forwarder, 4))
    client.headers["authorization"] = "Bearer tlr_secret"
    assert [entry["id"] for entry in client.get("/v1/models").json()["data"]] == [
        "base",
        "board",
        "base@smol",
        "memos",
    ]
    assert client.get("/v1/models/memos").status_code == 200
    assert client.get("/v1/models/base@unknown").status_code == 400


def test_a_call_can_name_the_base_of_another_deployment(pair: tuple[Deployment, Deployment]) -> None:
    assert pair[0].ask("base").text == pair[1].ask("base@smol").text == pair[0].ask("base@smol").text == "smol says"
    assert pair[0].ask("base@gemma").text == "gemma says"
    with pytest.raises(FailedPrecondition, match="TAILOR_BASE=qwen"):
        pair[0].ask("base@qwen")


def test_evaluation_loads_and_scores_a_candidate_of_another_base(pair: tuple[Deployment, Deployment]) -> None:
    stub, row = pair[0].stub("evaluation"), inference_pb2.ScoreRow(completion="Fine.")
    row.messages.add(role="user", content="Write it.")
    manifest = common_pb2.ObjectRef(uri="s3://models/adapters/c/manifest.json", sha256="c", size_bytes=9)
    request = inference_pb2.LoadCandidateRequest(adapter_digest="c", manifest=manifest, base="gemma")
    assert stub.LoadCandidate(request, timeout=60).model == "adapter:c"
    scores = stub.Score(inference_pb2.ScoreRequest(model="adapter:c@gemma", rows=[row]), timeout=60).scores
    assert len(scores) == 1
    assert pair[0].ask("adapter:c@gemma", "evaluation").text == "gemma says"
    assert (list(pair[0].world.engine.loaded), list(pair[1].world.engine.loaded)) == ([], ["c"])


def test_the_other_replicas_errors_and_rights_reach_the_caller(pair: tuple[Deployment, Deployment]) -> None:
    publish(decision("hidden", 1, "c", "gemma"), *pair)
    with pytest.raises(NotFound) as unknown:
        pair[0].ask("hidden")
    assert unknown.value.reason == Reason.UNKNOWN_SPECIALIST
    publish(decision("board", 1, "b", "gemma"), *pair)
    pair[1].world.engine.fails = Unavailable(Reason.ENGINE_DEAD, "The engine died.")
    pair[1].world.engine.say = ""
    with pytest.raises(Unavailable) as died:
        pair[0].ask("board")
    assert died.value.reason == Reason.ENGINE_DEAD
    assert "ENGINE_DEAD" in pair[0].post("board")
    pair[0].replicas.apply(pair[1].seen(leaving=True))
    with pytest.raises(Unavailable, match="base gemma"):
        pair[0].ask("board")


def test_a_cancel_reaches_the_engine_of_the_other_base(pair: tuple[Deployment, Deployment]) -> None:
    publish(decision("board", 1, "b", "gemma"), *pair)
    engine: FakeEngine = pair[1].world.engine
    engine.say, engine.ungated = "", 1
    engine.gate.clear()
    request = inference_pb2.GenerateRequest(model="board", prompt="Write it.")
    call: Any = pair[0].stub().StreamGenerate(inference_pb2.StreamGenerateRequest(request=request), timeout=60)
    assert next(iter(call)).text == "word "
    call.cancel()
    wait_until(engine.streams[0].cancelled.is_set)
    with pytest.raises(TailorError), wire_errors("inference"):
        pair[0].stub().Generate(request, timeout=0.5)
    wait_until(engine.streams[-1].cancelled.is_set)


def test_a_call_is_passed_on_once_only(pair: tuple[Deployment, Deployment]) -> None:
    first, second = pair
    publish(decision("memos", 1, "a", "gemma"), first)
    publish(decision("memos", 1, "a", "smol"), second)
    first.models.table.switch(ServedModel("other"))
    second.models.table.remove("memos")
    publish(decision("memos", 2, "a", "smol"), second)
    first.models.table.remove("memos")
    publish(decision("memos", 2, "a", "gemma"), first)
    with pytest.raises(FailedPrecondition) as caught:
        first.ask("memos")
    assert caught.value.reason == Reason.NOT_SERVING


def test_a_name_that_moves_is_answered_by_its_old_base_until_every_new_replica_serves_it(
    pair: tuple[Deployment, Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair
    publish(decision("memos", 1, "a", "smol"), *pair)
    moved = decision("memos", 2, "b", "gemma")
    publish(moved, old)
    # The new base has not read the decision yet: both answer by the old one.
    assert old.ask("memos").provenance.generation == new.ask("memos").provenance.generation == 1
    publish(moved, new)
    # The new one serves already; the old one learns of it when all replicas there have reported.
    assert (old.ask("memos").provenance.base, new.ask("memos").provenance.base) == ("smol", "gemma")
    late = replace(ReadyReplica("gemma-1", "gemma", time.time(), new.address), generations={"memos": 1})
    old.deployments.see(late)
    old.replicas.apply(new.seen())
    assert old.ask("memos").provenance.base == "smol"
    old.deployments.see(late, leaving=True)
    old.replicas.apply(new.seen())
    assert old.ask("memos").provenance.base == "gemma"
    # What is held is let go of a minute later.
    assert [it.specialist for it in old.models.table.all()] == ["memos"]
    monkeypatch.setattr(serving_table, "HELD_SECONDS", -1.0)
    old.replicas.apply(new.seen())
    assert old.models.table.all() == []


def test_no_call_fails_while_a_specialist_moves_there_and_back(pair: tuple[Deployment, Deployment]) -> None:
    publish(decision("memos", 1, "a", "smol"), *pair)
    stop, failures, answers = threading.Event(), list[TailorError](), list[str]()

    def ask(deployment: Deployment) -> None:
        while not stop.is_set():
            try:
                answers.append(deployment.ask("memos").provenance.base)
            except TailorError as error:
                failures.append(error)

    callers = [threading.Thread(target=ask, args=(deployment,)) for deployment in pair for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        for generation, base in ((2, "gemma"), (3, "smol"), (4, "gemma")):
            # Each replica reads the decision at its own time.
            for deployment in pair if generation % 2 else reversed(pair):
                wait_for_answers(answers, 10)
                publish(decision("memos", generation, f"a{generation}", base), deployment)
            for deployment in pair:
                for other in pair:
                    deployment.replicas.apply(other.seen())
            wait_until(lambda base=base: answers[-1] == base)  # type: ignore[misc]
    finally:
        stop.set()
        for caller in callers:
            caller.join(60)
    assert failures == []
    assert {"smol", "gemma"} == set(answers)


def wait_for_answers(answers: list[str], number: int) -> None:
    enough = len(answers) + number
    wait_until(lambda: len(answers) >= enough)


def test_health_knows_the_names_of_other_bases(pair: tuple[Deployment, Deployment]) -> None:
    publish(decision("board", 1, "b", "gemma"), *pair)
    health = health_pb2_grpc.HealthStub(open_channel(pair[0].address, lambda: "tlr_secret"))
    answer = health.Check(health_pb2.HealthCheckRequest(service="board"), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_base_that_contains_an_adapter_answers_for_it(pair: tuple[Deployment, Deployment]) -> None:
    merged = replace(pair[1].models, merged="full")
    pair[1].deployments.see(ReadyReplica("gemma", "gemma", time.time(), pair[1].address, {}, "full"))
    pair[0].deployments.see(ReadyReplica("gemma", "gemma", time.time(), pair[1].address, {"memos": 1}, "full"))
    pair[1].gate.open(replace(pair[1].inference, models=merged))
    pair[1].models.cache._merged = "full"
    publish(decision("memos", 1, "full", "smol"), *pair)
    reply = pair[0].ask("memos")
    assert (reply.text, reply.provenance.adapter_digest, reply.provenance.base) == ("gemma says", "full", "gemma")
    assert pair[0].world.published.reports == []
    manifest = common_pb2.ObjectRef(uri="s3://models/adapters/full/manifest.json", sha256="full", size_bytes=9)
    request = inference_pb2.LoadCandidateRequest(adapter_digest="full", manifest=manifest, base="smol")
    stub = pair[0].stub("evaluation")
    assert stub.LoadCandidate(request, timeout=60).model == "adapter:full"
    assert pair[0].ask("adapter:full@smol", "evaluation").text == "gemma says"
    assert pair[1].world.engine.loaded == {}


def test_a_deployment_that_comes_after_the_decision_takes_the_refused_name_over(
    pair: tuple[Deployment, Deployment],
) -> None:
    own, merged = pair
    own.world.library.bad = {"full"}
    publish(decision("memos", 1, "a", "smol"), own)
    publish(decision("memos", 2, "full", "smol"), own)
    assert own.world.published.reports[-1].refusal == "WRONG_BASE"
    # Another replica of the same base proves nothing: it may hold what this one refused.
    own.replicas.apply(report_generation(own, 2))
    assert own.ask("memos").provenance.generation == 1
    merged.models = replace(merged.models, merged="full")
    merged.models.cache._merged = "full"
    merged.gate.open(replace(merged.inference, models=merged.models))
    merged.serving = ServingConsumer(
        merged.models, merged.deployments, merged.world.published.report, lambda _, work: work()
    )
    publish(decision("memos", 2, "full", "smol"), merged)
    own.replicas.apply(merged.seen())
    assert own.ask("memos").provenance.base == "gemma"
    # While no replica of it is ready, a call may be tried again.
    own.replicas.apply(merged.seen(leaving=True))
    with pytest.raises(Unavailable):
        own.ask("memos")


def report_generation(deployment: Deployment, generation: int) -> Event:
    """A report of another replica of the base, which serves this generation of `memos`."""
    told = ReadyReplica("smol-1", deployment.base, time.time(), deployment.address, {"memos": generation})
    producer = MemoryProducer()
    Presence(producer, lambda: told).publish(leaving=False)
    return producer.events(SEEN)[0]

"""Inference over a real gRPC server, with a fake engine behind it."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.inference.domain import (
    ChatMessage,
    Draft,
    DraftFeedback,
    DraftRecord,
    OutcomeReport,
    PromptRecord,
    Transcript,
)
from services.inference.generation import ReadinessGate
from services.inference.ports import InferenceEngine
from services.inference.rpc import InferenceServicer
from services.inference.serving_table import ServingTable
from tailor.api.common.v1 import common_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from tailor.rpc.auth import CACHE_SECONDS, Authenticator, Caller
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tests.unit.inference.fakes import World, apply_serving, forwarder, make_world, served
from tests.waiting import wait_until

REQUEST = inference_pb2.GenerateRequest(model="base", prompt="Write it.", sampling=inference_pb2.Sampling(max_tokens=3))


class KnownServices(Trust):
    """Treats the token as the service's name."""

    def __init__(self) -> None:
        super().__init__({})

    def verify(self, token: str, audience: str) -> str:
        del audience
        return token


class RunningServer:
    """A running server; `stub` calls it as a key or as a service."""

    def __init__(self, engine: InferenceEngine | None = None) -> None:
        self.gate = ReadinessGate()
        self.revoked = False
        self.seconds_later = 0.0
        authenticator = Authenticator(
            "inference", KnownServices(), self._verify, now=lambda: time.monotonic() + self.seconds_later
        )
        add = inference_pb2_grpc.add_InferenceServiceServicer_to_server
        self.server = RpcServer(
            ServiceSettings(rpc_port=0),
            "inference",
            servicers=[(add, InferenceServicer(self.gate, forwarder()))],
            authenticator=authenticator,
        )
        self.world: World = make_world(
            max_concurrent=2, max_queued=0, table=ServingTable(self.server.set_known), engine=engine
        )
        self.server.start()

    def _verify(self, _: str) -> Caller:
        if self.revoked:
            raise NotFound(Reason.UNKNOWN_KEY, "revoked")
        return Caller("key", "team", "ROLE_CALLER", frozenset({"memos"}), "key_1")

    def stub(self, token: str = "tlr_secret") -> inference_pb2_grpc.InferenceServiceStub:
        return inference_pb2_grpc.InferenceServiceStub(open_channel(f"127.0.0.1:{self.server.port}", lambda: token))


@pytest.fixture
def running() -> Iterator[RunningServer]:
    served = RunningServer()
    yield served
    served.server.stop(0)


@pytest.fixture
def opened(running: RunningServer) -> RunningServer:
    running.gate.open(running.world.inference)
    return running


def wait_for_drafts(world: World, number: int) -> None:
    wait_until(lambda: len(world.published.drafts) >= number)


def test_is_unavailable_until_a_model_is_ready(running: RunningServer) -> None:
    with pytest.raises(Unavailable) as caught, wire_errors("inference"):
        running.stub().Generate(REQUEST, timeout=60)
    assert caught.value.reason == "NO_MODEL_READY"
    assert caught.value.retry_after_seconds == 2.0


def test_answers_once_with_provenance(opened: RunningServer) -> None:
    apply_serving(opened.world, served("memos", 3, "a"))
    request = inference_pb2.GenerateRequest()
    request.CopyFrom(REQUEST)
    request.model = "memos"
    reply = opened.stub().Generate(request, timeout=60)
    assert (reply.text, reply.finish_reason, reply.usage.completion_tokens) == ("word word word ", "length", 3)
    assert reply.draft_id == opened.world.published.drafts[0].draft_id
    provenance = reply.provenance
    assert (provenance.specialist, provenance.generation, provenance.adapter_digest, provenance.base) == (
        "memos",
        3,
        "a",
        "tiny",
    )


def test_streams_pieces_and_ends_with_usage(opened: RunningServer) -> None:
    replies = list(opened.stub().StreamGenerate(inference_pb2.StreamGenerateRequest(request=REQUEST), timeout=60))
    assert [reply.text for reply in replies] == ["word ", "word ", "word ", ""]
    assert len({reply.draft_id for reply in replies}) == 1
    assert replies[-1].finish_reason == "length"
    assert replies[-1].usage.completion_tokens == 3


def test_a_repeated_request_id_gets_the_first_answer_whole_and_streamed(opened: RunningServer) -> None:
    request = inference_pb2.GenerateRequest()
    request.CopyFrom(REQUEST)
    request.request_id = "memo-7"
    first = opened.stub().Generate(request, timeout=60)
    assert opened.stub().Generate(request, timeout=60) == first
    replies = list(opened.stub().StreamGenerate(inference_pb2.StreamGenerateRequest(request=request), timeout=60))
    assert [(reply.draft_id, reply.text) for reply in replies] == [(first.draft_id, first.text), (first.draft_id, "")]
    assert (replies[-1].usage, replies[-1].provenance) == (first.usage, first.provenance)
    assert len(opened.world.published.drafts) == 1
    request.prompt = "Write another."
    with pytest.raises(FailedPrecondition) as reused, wire_errors("inference"):
        opened.stub().Generate(request, timeout=60)
    assert reused.value.reason == "REQUEST_ID_REUSED"


def test_gives_log_probabilities_on_request_whole_and_streamed(opened: RunningServer) -> None:
    request = inference_pb2.GenerateRequest()
    request.CopyFrom(REQUEST)
    request.log_probabilities, request.top_log_probabilities = True, 2
    whole = opened.stub().Generate(request, timeout=60).log_probabilities
    assert [(token.token.token, token.token.log_probability) for token in whole] == [("word ", -0.5)] * 3
    assert [top.token for top in whole[0].top] == ["word ", "verb "]
    streamed = opened.stub().StreamGenerate(inference_pb2.StreamGenerateRequest(request=request), timeout=60)
    assert [token for reply in streamed for token in reply.log_probabilities] == list(whole)
    assert not opened.stub().Generate(REQUEST, timeout=60).log_probabilities
    request.log_probabilities = False
    with pytest.raises(InvalidArgument) as caught, wire_errors("inference"):
        opened.stub().Generate(request, timeout=60)
    assert list(caught.value.field_violations) == ["top_log_probabilities"]


def test_a_schema_reaches_the_engine_and_one_given_up_is_an_error(opened: RunningServer) -> None:
    request = inference_pb2.GenerateRequest(model="base", prompt="Write it.", json_schema='{"type": "object"}')
    opened.stub().Generate(request, timeout=60)
    assert opened.world.engine.streams[0].sampling.schema == '{"type": "object"}'
    opened.world.engine.fails = FailedPrecondition(Reason.SCHEMA_GIVEN_UP, "The engine could not follow the schema.")
    with pytest.raises(FailedPrecondition), wire_errors("inference"):
        opened.stub().Generate(request, timeout=60)
    with pytest.raises(FailedPrecondition), wire_errors("inference"):
        list(opened.stub().StreamGenerate(inference_pb2.StreamGenerateRequest(request=request), timeout=60))


def test_a_cancel_stops_the_generation_and_is_published(opened: RunningServer) -> None:
    request = inference_pb2.StreamGenerateRequest(request=REQUEST)
    request.request.sampling.max_tokens = 60
    opened.world.engine.gate.clear()
    opened.world.engine.ungated = 1
    call: Any = opened.stub().StreamGenerate(request, timeout=60)
    next(call)
    call.cancel()
    wait_for_drafts(opened.world, 1)
    assert opened.world.engine.streams[0].cancelled.is_set()
    (draft,) = opened.world.published.drafts
    assert (draft.finish_reason, draft.completion_tokens) == ("cancelled", 1)


def test_revoking_a_key_ends_its_streams_and_their_generation(opened: RunningServer) -> None:
    request = inference_pb2.StreamGenerateRequest(request=REQUEST)
    opened.world.engine.gate.clear()
    opened.world.engine.ungated = 1
    call: Any = opened.stub().StreamGenerate(request, timeout=60)
    next(call)
    opened.revoked = True
    opened.seconds_later = CACHE_SECONDS
    opened.world.engine.gate.set()
    with pytest.raises(Unauthenticated), wire_errors("inference"):
        list(call)
    wait_for_drafts(opened.world, 1)
    assert opened.world.engine.streams[0].cancelled.is_set()


def test_a_specialist_of_other_keys_looks_like_one_that_does_not_exist(opened: RunningServer) -> None:
    apply_serving(opened.world, served("reports", 1, "a"))
    said = set()
    for model in ("reports", "nothing", "adapter:a"):
        with pytest.raises(NotFound) as refused, wire_errors("inference"):
            opened.stub().Generate(inference_pb2.GenerateRequest(model=model, prompt="a"), timeout=60)
        said.add((refused.value.reason, refused.value.message, repr(refused.value.metadata)))
    assert len(said) == 1


def test_a_deadline_stops_the_generation(opened: RunningServer) -> None:
    opened.world.engine.gate.clear()
    stub = opened.stub()
    # To connect may take longer than the deadline, with another reason to fail.
    stub.ListSpecialists(inference_pb2.ListSpecialistsRequest(), timeout=60)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Generate(REQUEST, timeout=1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for_drafts(opened.world, 1)
    assert opened.world.engine.streams[0].cancelled.is_set()


def test_errors_are_canonical_and_name_the_field(opened: RunningServer) -> None:
    with pytest.raises(NotFound) as missing, wire_errors("inference"):
        opened.stub().Generate(inference_pb2.GenerateRequest(model="reports", prompt="a"), timeout=60)
    assert missing.value.reason == "UNKNOWN_SPECIALIST"
    with pytest.raises(InvalidArgument) as empty, wire_errors("inference"):
        opened.stub().Generate(inference_pb2.GenerateRequest(model="base"), timeout=60)
    assert "messages" in empty.value.field_violations


def test_a_full_queue_is_exhausted_with_a_retry_time(opened: RunningServer) -> None:
    opened.world.engine.gate.clear()
    calls = [opened.stub(token).Generate.future(REQUEST, timeout=60) for token in ("tlr_secret", "evaluation")]
    wait_until(lambda: len(opened.world.engine.streams) >= 2)
    with pytest.raises(ResourceExhausted) as caught, wire_errors("inference"):
        opened.stub("console").Generate(REQUEST, timeout=60)
    assert caught.value.reason == "QUEUE_FULL" and (caught.value.retry_after_seconds or 0) >= 1
    opened.world.engine.gate.set()
    assert [call.result().finish_reason for call in calls] == ["length", "length"]


def test_a_key_leaves_a_place_to_others(opened: RunningServer) -> None:
    opened.world.engine.gate.clear()
    first = opened.stub().Generate.future(REQUEST, timeout=60)
    wait_until(lambda: len(opened.world.engine.streams) >= 1)
    with pytest.raises(ResourceExhausted), wire_errors("inference"):
        opened.stub().Generate(REQUEST, timeout=60)
    second = opened.stub("evaluation").Generate.future(REQUEST, timeout=60)
    wait_until(lambda: len(opened.world.engine.streams) >= 2)
    opened.world.engine.gate.set()
    assert [call.result().finish_reason for call in (first, second)] == ["length", "length"]


def test_a_key_lists_only_its_own(opened: RunningServer) -> None:
    for name in ("memos", "reports"):
        apply_serving(opened.world, served(name, 1, name))
    reply = opened.stub().ListSpecialists(inference_pb2.ListSpecialistsRequest(), timeout=60)
    assert [entry.name for entry in reply.specialists] == ["base", "memos"]
    assert {entry.context_length for entry in reply.specialists} == {64}


def test_only_evaluation_may_load_candidates_and_score(opened: RunningServer) -> None:
    digest = "c" * 64
    request = inference_pb2.LoadCandidateRequest(adapter_digest=digest)
    request.manifest.uri, request.manifest.sha256 = f"s3://models/adapters/{digest}/manifest.json", digest
    for token in ("tlr_secret", "console"):
        with pytest.raises(PermissionDenied), wire_errors("inference"):
            opened.stub(token).LoadCandidate(request, timeout=60)
    model = opened.stub("evaluation").LoadCandidate(request, timeout=60).model
    rows = [inference_pb2.ScoreRow(messages=[inference_pb2.Message(role="user", content="a")], completion="b c")]
    reply = opened.stub("evaluation").Score(inference_pb2.ScoreRequest(model=model, rows=rows), timeout=60)
    assert [(score.log_probability, score.tokens) for score in reply.scores] == [(-3.0, 3)]


def test_a_candidate_that_does_not_verify_is_a_failed_precondition(opened: RunningServer) -> None:
    opened.world.library.bad = {"d"}
    request = inference_pb2.LoadCandidateRequest(adapter_digest="d")
    with pytest.raises(FailedPrecondition) as caught, wire_errors("inference"):
        opened.stub("evaluation").LoadCandidate(request, timeout=60)
    assert caught.value.reason == "WRONG_BASE"


def test_gives_a_draft_with_its_text_until_that_expires(opened: RunningServer) -> None:
    ref = opened.world.archive.texts.put(Transcript((ChatMessage("user", "Question."),), "Clean."))
    draft = Draft(
        "drf_1", served("memos", 3, "a"), "key_1", PromptRecord("p"), "q", 4, 3, "stop", 0.1, 0.5, ref, 1_700_000_000.5
    )
    opened.world.archive.records["drf_1"] = DraftRecord(draft, "tiny")
    request = inference_pb2.GetDraftRequest(draft_id="drf_1")
    response = opened.stub().GetDraft(request)
    assert (response.text_state, response.answer) == (inference_pb2.TEXT_STATE_KEPT, "Clean.")
    assert [(message.role, message.content) for message in response.messages] == [("user", "Question.")]
    assert (response.provenance.generation, response.provenance.adapter_digest, response.provenance.base) == (
        3,
        "a",
        "tiny",
    )
    assert (response.usage.completion_tokens, response.create_time.ToMilliseconds()) == (3, 1_700_000_000_500)
    opened.world.archive.objects.clear()
    gone = opened.stub().GetDraft(request)
    assert (gone.text_state, gone.answer, len(gone.messages)) == (inference_pb2.TEXT_STATE_EXPIRED, "", 0)
    opened.world.archive.records["drf_1"] = DraftRecord(replace(draft, text=None), "tiny")
    assert opened.stub().GetDraft(request).text_state == inference_pb2.TEXT_STATE_NOT_KEPT
    opened.world.archive.records["drf_1"] = DraftRecord(replace(draft, key_id="key_2"), "tiny")
    with pytest.raises(NotFound), wire_errors("inference"):
        opened.stub().GetDraft(request)
    assert opened.stub("console").GetDraft(request).draft_id == "drf_1"


def test_records_feedback_and_refuses_what_the_registry_refuses(opened: RunningServer) -> None:
    draft = Draft("drf_1", served("memos", 3, "a"), "key_1", PromptRecord("p"), "q", 4, 3, "stop", 0.1, 0.5)
    opened.world.archive.records["drf_1"] = DraftRecord(draft, "tiny")
    edited = common_pb2.FEEDBACK_VERDICT_EDITED
    request = inference_pb2.RecordFeedbackRequest(draft_id="drf_1", verdict=edited, edited_text="Clean.", stars=5)
    response = opened.stub().RecordFeedback(request)
    assert (response.feedback_id, response.edited_text_stored) == ("fbk_1", True)
    assert response.create_time.ToMilliseconds() == 1_700_000_000_500
    assert opened.world.archive.feedback == [(DraftFeedback("drf_1", "edited", "Clean.", 5), "key_1")]
    with pytest.raises(InvalidArgument) as refused, wire_errors("inference"):
        opened.stub().RecordFeedback(inference_pb2.RecordFeedbackRequest(draft_id="drf_1"))
    assert (refused.value.reason, set(refused.value.field_violations)) == ("INVALID_FEEDBACK", {"verdict"})


def test_reports_what_a_draft_was_worth(opened: RunningServer) -> None:
    draft = Draft("drf_1", served("memos", 3, "a"), "key_1", PromptRecord("p"), "q", 4, 3, "stop", 0.1, 0.5)
    opened.world.archive.records["drf_1"] = DraftRecord(draft, "tiny")
    response = opened.stub().ReportOutcome(inference_pb2.ReportOutcomeRequest(draft_id="drf_1", minutes=12.5))
    assert (response.outcome_id, response.specialist, response.generation) == ("out_1", "memos", 3)
    assert response.create_time.ToMilliseconds() == 1_700_000_000_500
    assert opened.world.archive.outcomes == [(OutcomeReport("drf_1", minutes=12.5), "key_1")]


STATES = health_pb2.HealthCheckResponse


def health(running: RunningServer, name: str, token: str = "tlr_secret") -> int | grpc.StatusCode:
    """The state that Check returns, or the code of its error."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"127.0.0.1:{running.server.port}") as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        try:
            return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=60, metadata=metadata).status)
        except grpc.RpcError as error:
            return error.code()


def test_a_specialists_health_depends_on_its_model_and_on_the_service(opened: RunningServer) -> None:
    assert health(opened, "memos") is grpc.StatusCode.NOT_FOUND
    apply_serving(opened.world, served("memos", 1, "a"))
    assert health(opened, "memos") == STATES.NOT_SERVING
    opened.server.set_serving(True)
    assert health(opened, "memos") == health(opened, "") == STATES.SERVING
    opened.world.models.table.remove("memos")
    assert health(opened, "memos") is grpc.StatusCode.NOT_FOUND


def test_a_specialists_health_is_unknown_to_keys_that_may_not_use_it(opened: RunningServer) -> None:
    opened.server.set_serving(True)
    for name in ("memos", "reports"):
        apply_serving(opened.world, served(name, 1, name))
    assert health(opened, "reports") is grpc.StatusCode.NOT_FOUND
    assert health(opened, "memos", token="") is grpc.StatusCode.NOT_FOUND
    assert health(opened, "memos", token="console") == STATES.SERVING
    assert health(opened, "", token="") == STATES.SERVING


def test_a_watched_specialist_is_unknown_until_it_is_loaded(opened: RunningServer) -> None:
    opened.server.set_serving(True)
    with grpc.insecure_channel(f"127.0.0.1:{opened.server.port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        metadata = [("authorization", "Bearer tlr_secret")]
        allowed = watch(health_pb2.HealthCheckRequest(service="memos"), timeout=60, metadata=metadata)
        assert next(allowed).status == STATES.SERVICE_UNKNOWN
        hidden = watch(health_pb2.HealthCheckRequest(service="memos"), timeout=60)
        assert next(hidden).status == STATES.SERVICE_UNKNOWN
        apply_serving(opened.world, served("memos", 1, "a"))
        assert next(allowed).status == STATES.SERVING
        allowed.cancel()
        threading.Timer(0.5, hidden.cancel).start()
        with pytest.raises(grpc.RpcError) as ended:
            next(hidden)
        assert ended.value.code() is grpc.StatusCode.CANCELLED


def reflects(port: int) -> bool:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        replies = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=60)
        try:
            listed = next(replies).list_services_response.service
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            return False
    return "tailor.api.inference.v1.InferenceService" in [service.name for service in listed]


def test_reflection_works_only_if_it_is_switched_on(running: RunningServer) -> None:
    assert not reflects(running.server.port)
    add = inference_pb2_grpc.add_InferenceServiceServicer_to_server
    server = RpcServer(
        ServiceSettings(rpc_port=0, rpc_reflection=True),
        "inference",
        servicers=[(add, InferenceServicer(running.gate, forwarder()))],
        authenticator=Authenticator("inference", KnownServices(), lambda _: Caller("key", "team", "ROLE_CALLER")),
    )
    server.start()
    assert reflects(server.port)
    server.stop(0)

"""The console against real gRPC servers, and as a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.console.adapters.clients import connect
from services.console.domain import Judgement, KeyTerms, Question, Role, Services
from services.console.settings import Settings
from services.console.views import Document, KeptText, Rejection
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import audit_pb2, registry_pb2, registry_pb2_grpc
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.errors import Aborted, InvalidArgument, NotFound, PermissionDenied, Reason, Unavailable
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer

pytestmark = pytest.mark.integration

# Keys by the hash that the registry knows them by, with the limits of each.
LIMITS = {
    "known": registry_pb2.Key(),
    "limited": registry_pb2.Key(methods=["tailor.api.inference.v1.InferenceService/Generate"]),
    "hurried": registry_pb2.Key(calls_per_minute=60),
}


class Registry(registry_pb2_grpc.RegistryServiceServicer):
    def GetFlow(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.GetFlowResponse:
        return registry_pb2.GetFlowResponse(ingested=5, anonymized=4, rejected={"EMPTY": 1}, findings={"PERSON": 9})

    def ListDocuments(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.ListDocumentsResponse:
        assert request.include_rejected
        version = common_pb2.Version(sequence=3)
        kind = common_pb2.KIND_EXAMPLE
        anonymized = documents_pb2.DocumentAnonymized(
            document_id="doc_1", version=version, kind=kind, findings={"A": 1}
        )
        rejected = documents_pb2.DocumentRejected(
            document_id="doc_2",
            stage=documents_pb2.STAGE_INGESTION,
            reason=documents_pb2.REJECTION_REASON_CORRUPT,
        )
        documents = [
            registry_pb2.CatalogueDocument(anonymized=anonymized),
            registry_pb2.CatalogueDocument(rejected=rejected),
        ]
        return registry_pb2.ListDocumentsResponse(documents=documents, next_page_token="more")

    def GetAudit(self, request: Any, context: grpc.ServicerContext) -> audit_pb2.GetAuditResponse:
        group = audit_pb2.AuditGroup(value="wiki", documents=2, characters=500, findings=1)
        source = audit_pb2.AuditDimension(field=audit_pb2.AUDIT_FIELD_SOURCE, groups=[group])
        lengths = audit_pb2.AuditLengths(max_chars=400, percentiles={50: 250.0, 5: 100.0})
        return audit_pb2.GetAuditResponse(
            totals=audit_pb2.AuditTotals(documents=2, characters=500, findings=1),
            dimensions=[source],
            lengths=lengths,
            rejections=[audit_pb2.AuditRejection(reason="CORRUPT", stage="ingestion", submissions=4)],
            estimate=audit_pb2.AuditEstimate(tokens=125, tokens_per_second=100, seconds=1.25),
        )

    def ListAdapters(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.ListAdaptersResponse:
        scores = models_pb2.Scores(values={"bleu": 3.0})
        adapter = registry_pb2.CatalogueAdapter(
            adapter=models_pb2.AdapterTrained(digest="a", kind=models_pb2.ADAPTER_KIND_POLICY, specialist="s"),
            evaluation=models_pb2.AdapterEvaluated(base=scores, candidate=scores),
            decision=registry_pb2.DECISION_REFUSED,
            refusals=["no gain"],
        )
        bare = registry_pb2.CatalogueAdapter(adapter=models_pb2.AdapterTrained(digest="b", specialist="s"))
        return registry_pb2.ListAdaptersResponse(adapters=[adapter, bare])

    def ListSpecialists(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.ListSpecialistsResponse:
        decision = models_pb2.SpecialistServing(specialist="s", generation=2, adapter_digest="a")
        state = registry_pb2.ReplicaState(replica="r", serving=True)
        answer = registry_pb2.GetSpecialistResponse(
            specialist=models_pb2.SpecialistChanged(name="s", gate=models_pb2.Gate(min_rows=3)),
            serving=registry_pb2.Serving(decision=decision, finished=True, rollout=[state]),
        )
        return registry_pb2.ListSpecialistsResponse(specialists=[answer])

    def Promote(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.PromoteResponse:
        if request.expected_generation != 2:
            raise Aborted(Reason.GENERATION_MOVED, "Look again.")
        serving = models_pb2.SpecialistServing(generation=3, adapter_digest=request.adapter_digest)
        return registry_pb2.PromoteResponse(serving=serving)

    def StartCanary(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.StartCanaryResponse:
        assert (request.specialist, request.adapter_digest, request.HasField("policy")) == ("s", "a", False)
        serving = models_pb2.SpecialistServing(generation=request.expected_generation + 1)
        return registry_pb2.StartCanaryResponse(serving=serving)

    def StopCanary(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.StopCanaryResponse:
        assert request.specialist == "s"
        serving = models_pb2.SpecialistServing(generation=request.expected_generation + 1)
        return registry_pb2.StopCanaryResponse(serving=serving)

    def Trace(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.TraceResponse:
        return registry_pb2.TraceResponse(draft=drafts_pb2.DraftCreated(draft_id=request.draft_id))

    def RecordJudgement(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.RecordJudgementResponse:
        said = drafts_pb2.JudgementRecorded(judgement_id=f"jdg_{'_'.join(request.ranking)}_{request.rubric.style}")
        return registry_pb2.RecordJudgementResponse(judgement=said)

    def CreateKey(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.CreateKeyResponse:
        if "Nothing" in request.methods:
            raise InvalidArgument(Reason.INVALID_KEY, "No.", field_violations={"methods": "There is no such method."})
        key = registry_pb2.Key(key_id="key_2", name=request.name, role=request.role, specialists=request.specialists)
        if request.HasField("expire_time"):
            key.expire_time.CopyFrom(request.expire_time)
        return registry_pb2.CreateKeyResponse(key=key, secret="tlr_secret")

    def RevokeKey(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.RevokeKeyResponse:
        if request.key_id != "key_2":
            raise NotFound(Reason.UNKNOWN_KEY, "There is no such key.")
        return registry_pb2.RevokeKeyResponse(key=registry_pb2.Key(key_id="key_2", revoked=True))

    def VerifyKey(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.VerifyKeyResponse:
        if request.secret_sha256 not in LIMITS:
            raise NotFound(Reason.UNKNOWN_KEY, "There is no such key.")
        key = registry_pb2.Key(key_id="key_1", name="n", role=common_pb2.ROLE_DATA_PROTECTION, specialists=["s"])
        key.MergeFrom(LIMITS[request.secret_sha256])
        return registry_pb2.VerifyKeyResponse(key=key)


class Synthetic(synthetic_pb2_grpc.SyntheticServiceServicer):
    def CountNearDuplicates(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.specialist:
            raise NotFound(Reason.UNKNOWN_SPECIALIST, "There is no specialist of this name.")
        return synthetic_pb2.CountNearDuplicatesResponse(documents=2, compared=2, near_duplicates=1, groups=1)


class Training(training_pb2_grpc.TrainingServiceServicer):
    def WatchRun(self, request: Any, context: grpc.ServicerContext) -> Iterator[training_pb2.WatchRunResponse]:
        for step in (1, 2):
            progress = models_pb2.RunProgressed(step=step, total_steps=2, loss=3.0 / step, reward=0.0)
            state = training_pb2.RUN_STATE_RUNNING if step == 1 else training_pb2.RUN_STATE_SUCCEEDED
            line = training_pb2.LogLine(level="info", message=f"step={step}", epoch=1)
            run = training_pb2.Run(run_id="r", state=state, progress=progress)
            yield training_pb2.WatchRunResponse(run=run, log_lines=[line])

    def GetRun(self, request: Any, context: grpc.ServicerContext) -> training_pb2.GetRunResponse:
        made = models_pb2.ADAPTER_KIND_REWARD
        stages = [
            training_pb2.RunStage(recipe="reward", method="reward", adapter_digest="a", kind=made),
            training_pb2.RunStage(recipe="rloo", method="rloo", dataset_digest="d", parent_digest="p"),
        ]
        price = training_pb2.Price(currency="EUR", total=3.0, annotation=1.0)
        plan = training_pb2.RunPlan(tokens=9, memory_bytes=2**40, seconds_from="measured", price=price)
        report = training_pb2.RunReport(tokens=10, price=price, tokens_error=-0.1)
        run = training_pb2.Run(run_id="r", priority=-3, stages=stages, stage=1, plan=plan, report=report)
        return training_pb2.GetRunResponse(run=run)


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    def GetDraft(self, request: Any, context: grpc.ServicerContext) -> inference_pb2.GetDraftResponse:
        turns = [inference_pb2.Message(role="user", content=request.draft_id)]
        state = inference_pb2.TEXT_STATE_KEPT
        return inference_pb2.GetDraftResponse(text_state=state, messages=turns, answer="Clean.")

    def StreamGenerate(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if request.request.model == "unknown":
            raise InvalidArgument(Reason("EMPTY_PROMPT"), "Say something.")
        yield inference_pb2.StreamGenerateResponse(draft_id="drf_1", text=request.request.prompt)
        while context.is_active():
            time.sleep(0.02)


def key_files(directory: Path) -> tuple[Path, Path]:
    """The console's private key, and what the others know of it."""
    key = Ed25519PrivateKey.generate()
    private, trust = directory / "identity.pem", directory / "trust.json"
    pem = serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    trust.write_text(json.dumps({"console": public.decode()}), encoding="utf-8")
    return private, trust


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Clients of real servers; evaluation does not answer."""
    private, trust = key_files(tmp_path)
    servers, addresses = [], {"evaluation_address": f"127.0.0.1:{free_port()}"}
    known: dict[str, tuple[Any, Any]] = {
        "registry": (registry_pb2_grpc.add_RegistryServiceServicer_to_server, Registry()),
        "training": (training_pb2_grpc.add_TrainingServiceServicer_to_server, Training()),
        "synthetic": (synthetic_pb2_grpc.add_SyntheticServiceServicer_to_server, Synthetic()),
        "inference": (inference_pb2_grpc.add_InferenceServiceServicer_to_server, Inference()),
    }
    for name, servicer in known.items():
        own = Settings(rpc_port=0, session_secret="s" * 40)
        guard = Authenticator(name, Trust.load(trust), lambda _: Caller("key", "nobody"))
        server = RpcServer(own, name, servicers=[servicer], authenticator=guard, max_workers=4)
        server.start()
        server.set_serving(True)
        servers.append(server)
        addresses[f"{name}_address"] = f"127.0.0.1:{server.port}"
    settings = Settings(identity_key_file=private, trust_file=trust, session_secret="s" * 40, **addresses)  # type: ignore[arg-type]
    clients, channels = connect(settings)
    yield clients
    for channel in channels:
        channel.close()
    for server in servers:
        server.stop(0)


def test_clients_read_what_the_services_say(services: Services) -> None:
    flow = services.registry.flow()
    assert (flow.submitted, flow.anonymized, flow.rejected, flow.findings) == (6, 4, {"EMPTY": 1}, {"PERSON": 9})
    page = services.registry.documents("", "", 10)
    document, rejection = page.items
    assert isinstance(document, Document)
    assert (document.kind, document.sequence, document.create_time) == ("example", 3, None)
    assert isinstance(rejection, Rejection)
    assert (rejection.stage, rejection.reason, page.next_token) == ("ingestion", "CORRUPT", "more")
    adapter, bare = services.registry.adapters("").items
    assert (adapter.kind, adapter.decision, adapter.refusals) == ("policy", "refused", ("no gain",))
    assert adapter.evaluation is not None
    assert adapter.evaluation.candidate == {"bleu": 3.0}
    assert (bare.decision, bare.evaluation) == ("waiting", None)
    specialist = services.registry.specialists("").items[0]
    assert (specialist.serving.generation, specialist.serving.replicas[0].serving, specialist.min_rows) == (2, True, 3)
    assert specialist.serving.finished
    assert services.registry.trace("drf_9").draft.draft_id == "drf_9"
    assert services.inference.draft("drf_9") == KeptText("kept", (("user", "drf_9"),), "Clean.")


def test_the_audit_is_read_from_registry_and_synthetic(services: Services) -> None:
    audit = services.auditing.audit("")
    assert (audit.documents, audit.density, audit.rejected_total) == (2, 2.0, 4)
    assert (audit.dimensions[0].name, audit.dimensions[0].groups[0].value) == ("source", "wiki")
    assert list(audit.percentiles.items()) == [(5, 100.0), (50, 250.0)]
    assert (audit.estimate.tokens, audit.estimate.run_id, audit.create_time) == (125, "", None)
    assert services.auditing.near_duplicates("").near_duplicates == 1
    with pytest.raises(NotFound):
        services.auditing.near_duplicates("nobody")


def test_clients_command_and_carry_refusals(services: Services) -> None:
    assert services.registry.promote("s", "a", 2).generation == 3
    with pytest.raises(Aborted) as caught:
        services.registry.promote("s", "a", 1)
    assert (caught.value.reason, caught.value.message) == ("GENERATION_MOVED", "Look again.")
    assert services.registry.start_canary("s", "a", 3).generation == 4
    assert services.registry.stop_canary("s", 4).generation == 5
    assert services.registry.record_judgement(Judgement(("a", "b"), style=5), "id") == "jdg_a_b_5"
    visitor = services.registry.verify_key("known")
    assert (visitor.role, visitor.specialists, visitor.key_sha256) == (Role.DATA_PROTECTION, {"s"}, "known")
    with pytest.raises(NotFound):
        services.registry.verify_key("unknown")


def test_a_run_is_read_with_stages_plan_and_report(services: Services) -> None:
    run = services.training.run("r")
    assert [(stage.method, stage.kind, stage.adapter_digest) for stage in run.stages] == [
        ("reward", "reward", "a"),
        ("rloo", "", ""),
    ]
    assert (run.priority, run.stage, run.stages[1].parent_digest) == (-3, 1, "p")
    assert run.plan is not None and run.report is not None
    assert (run.plan.memory_bytes, run.plan.price.annotation, run.plan.create_time) == (2**40, 1.0, None)
    assert (run.report.tokens, run.report.tokens_error, run.report.price.currency) == (10, -0.1, "EUR")


def test_keys_are_made_and_revoked_in_the_consoles_name(services: Services) -> None:
    made = services.registry.create_key(KeyTerms("batch", Role.DATA_PROTECTION, ("s",), days=2))
    assert (made.key.role, made.key.specialists, made.secret) == ("data protection", ("s",), "tlr_secret")
    assert made.key.expire_time is not None
    assert 47 < (made.key.expire_time - datetime.now(UTC)).total_seconds() / 3600 < 49
    assert services.registry.create_key(KeyTerms("for good", Role.CALLER)).key.expire_time is None
    with pytest.raises(InvalidArgument) as caught:
        services.registry.create_key(KeyTerms("n", Role.CALLER, methods=("Nothing",)))
    assert caught.value.field_violations == {"methods": "There is no such method."}
    services.registry.revoke_key("key_2")
    with pytest.raises(NotFound):
        services.registry.revoke_key("key_none")


@pytest.mark.parametrize("secret", ["limited", "hurried"])
def test_a_key_whose_limits_would_not_hold_here_does_not_sign_in(services: Services, secret: str) -> None:
    with pytest.raises(PermissionDenied, match="KEY_IS_LIMITED"):
        services.registry.verify_key(secret)


def test_clients_stream_and_stop(services: Services) -> None:
    said = list(services.training.watch("r"))
    assert [(one.run.state, one.run.progress.step) for one in said if one.run.progress] == [
        ("running", 1),
        ("succeeded", 2),
    ]
    assert [line.message for one in said for line in one.lines] == ["step=1", "step=2"]
    last = said[-1].run.progress
    assert last is not None
    # A reward of 0 is one; what was not measured is none.
    assert (last.reward, last.kl) == (0.0, None)
    stream = services.inference.ask(Question("base", "Hello"))
    assert next(iter(stream)).text == "Hello"
    stream.close()
    with pytest.raises(InvalidArgument, match="EMPTY_PROMPT"):
        list(services.inference.ask(Question("unknown", "x")))


def test_health_and_silence(services: Services) -> None:
    assert [services.health.check(name) for name in ("registry", "training", "inference", "evaluation")] == [
        True,
        True,
        True,
        False,
    ]
    with pytest.raises(Unavailable):
        services.evaluation.evaluation("a")


def fetch(url: str) -> tuple[int, str]:
    """Status and body; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_process_is_ready_without_any_other_service_and_stops_when_told(tmp_path: Path) -> None:
    private, trust = key_files(tmp_path)
    http, status = free_port(), free_port()
    environment = os.environ | {
        "TAILOR_HTTP_PORT": str(http),
        "TAILOR_STATUS_PORT": str(status),
        "TAILOR_SESSION_SECRET": "s" * 40,
        "TAILOR_PASSWORD": "correct horse battery",
        "TAILOR_IDENTITY_KEY_FILE": str(private),
        "TAILOR_TRUST_FILE": str(trust),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.console"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while fetch(f"http://127.0.0.1:{status}/readyz")[0] != 200 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.1)
        code, text = fetch(f"http://127.0.0.1:{http}/")
        assert (code, "Password or API key" in text) == (200, True)
    finally:
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert '"event": "stopped"' in log
    assert "correct horse" not in log

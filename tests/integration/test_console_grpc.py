"""The console's clients against real gRPC servers, and the console as a process."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.console import browsing, commands, handlers, operations, reads
from services.console.clients import Services, connect, open_channels
from services.console.domain import GivenMark, Judgement, KeyTerms, Question, Role, RowQuery, RunTerms, Visitor
from services.console.lists.documents import list_documents, list_rejections
from services.console.overview import load_overview
from services.console.rules import count_submitted, decision, word
from services.console.run_curves import read_reports
from services.console.settings import Settings
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import audit_pb2, registry_pb2, registry_pb2_grpc
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.errors import Aborted, InvalidArgument, NotFound, Reason
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tests.evaluations import make_evaluated, make_figures
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

OPERATOR = Visitor("operator", Role.OPERATOR)


class Registry(registry_pb2_grpc.RegistryServiceServicer):
    def GetFlow(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.GetFlowResponse:
        return registry_pb2.GetFlowResponse(ingested=5, anonymized=4, rejected={"EMPTY": 1}, findings={"PERSON": 9})

    def ListDocuments(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.ListDocumentsResponse:
        assert not request.include_rejected
        version = common_pb2.Version(sequence=3)
        kind = common_pb2.KIND_EXAMPLE
        anonymized = documents_pb2.DocumentAnonymized(
            document_id="doc_1", version=version, kind=kind, findings={"A": 1}
        )
        rejected = documents_pb2.DocumentRejected(
            document_id="doc_2", stage=documents_pb2.STAGE_INGESTION, reason=documents_pb2.REJECTION_REASON_CORRUPT
        )
        item = registry_pb2.CatalogueDocument(anonymized=anonymized)
        if request.only_rejected:
            item = registry_pb2.CatalogueDocument(rejected=rejected)
        token = f"{request.specialist} {request.dataset} {request.page_size}"
        return registry_pb2.ListDocumentsResponse(documents=[item], next_page_token=token)

    def CreateSpecialist(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.CreateSpecialistResponse:
        assert request.request_id == "attempt"
        return registry_pb2.CreateSpecialistResponse(specialist=request.specialist, created=True)

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

    def GetAdapter(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.GetAdapterResponse:
        weights = models_pb2.AdapterTrained(digest=request.digest)
        return registry_pb2.GetAdapterResponse(adapter=registry_pb2.CatalogueAdapter(adapter=weights))

    def GetDataset(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.GetDatasetResponse:
        return registry_pb2.GetDatasetResponse(dataset=models_pb2.DatasetBuilt(digest=request.digest))

    def ListAdapters(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.ListAdaptersResponse:
        adapter = registry_pb2.CatalogueAdapter(
            adapter=models_pb2.AdapterTrained(digest="a", kind=models_pb2.ADAPTER_KIND_POLICY, specialist="s"),
            evaluation=make_evaluated("a", "s", make_figures("bleu", base=3.0, candidate=3.0)),
            decision=registry_pb2.DECISION_REFUSED,
            reasons=["no gain"],
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
            raise Aborted(Reason.GENERATION_MOVED, "Reload and retry.")
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
        parts = (*request.ranking, str(request.marks[0].mark), request.judged_by)
        judgement = drafts_pb2.JudgementRecorded(judgement_id=f"jdg_{'_'.join(parts)}")
        return registry_pb2.RecordJudgementResponse(judgement=judgement)

    def CreateKey(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.CreateKeyResponse:
        if "Nothing" in request.methods:
            raise InvalidArgument(Reason.INVALID_KEY, "No.", field_violations={"methods": "unknown method"})
        key = registry_pb2.Key(key_id="key_2", name=request.name, role=request.role, specialists=request.specialists)
        if request.HasField("expire_time"):
            key.expire_time.CopyFrom(request.expire_time)
        return registry_pb2.CreateKeyResponse(key=key, secret="tlr_secret")

    def RevokeKey(self, request: Any, context: grpc.ServicerContext) -> registry_pb2.RevokeKeyResponse:
        if request.key_id != "key_2":
            raise NotFound(Reason.UNKNOWN_KEY, "This key does not exist.")
        return registry_pb2.RevokeKeyResponse(key=registry_pb2.Key(key_id="key_2", revoked=True))


class Synthetic(synthetic_pb2_grpc.SyntheticServiceServicer):
    def BuildDataset(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.specialist == "busy":
            raise Aborted(Reason.BUILD_RUNNING, "A build runs.")
        if request.specialist == "slow":
            time.sleep(1.0)
        built = models_pb2.DatasetBuilt(digest=request.request_id, kind=request.kind)
        return synthetic_pb2.BuildDatasetResponse(dataset=built, created=True)

    def GetBuildState(self, request: Any, context: grpc.ServicerContext) -> Any:
        return synthetic_pb2.GetBuildStateResponse(states=[synthetic_pb2.BuildState(sentence=request.specialist)])

    def ListOrigins(self, request: Any, context: grpc.ServicerContext) -> Any:
        return synthetic_pb2.ListOriginsResponse(origins=[synthetic_pb2.Origin(name=request.specialist)])

    def AdmitOrigin(self, request: Any, context: grpc.ServicerContext) -> Any:
        expected = ("s", synthetic_pb2.ORIGIN_KIND_TESTS, "p", "key_1")
        assert (request.specialist, request.kind, request.name, request.admitted_by) == expected
        return synthetic_pb2.AdmitOriginResponse()

    def CountNearDuplicates(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.specialist:
            raise NotFound(Reason.UNKNOWN_SPECIALIST, "This specialist does not exist.")
        return synthetic_pb2.CountNearDuplicatesResponse(documents=2, compared=2, near_duplicates=1, groups=1)

    def ListRows(self, request: Any, context: grpc.ServicerContext) -> Any:
        row = synthetic_pb2.Row(row_id=request.page_token, task=request.task, split=request.split)
        row.document_ids.extend([request.document_id, request.text])
        digest = request.dataset_digest or f"newest of {request.specialist}"
        return synthetic_pb2.ListRowsResponse(rows=[row], dataset_digest=digest)


class Training(training_pb2_grpc.TrainingServiceServicer):
    def CreateRun(self, request: Any, context: grpc.ServicerContext) -> training_pb2.CreateRunResponse:
        run = training_pb2.Run(run_id=request.request_id, dataset_digest=request.dataset_digest)
        run.recipe, run.parent_digest, run.priority = request.recipe, request.parent_digest, request.priority
        return training_pb2.CreateRunResponse(run=run)

    def PlanRun(self, request: Any, context: grpc.ServicerContext) -> training_pb2.PlanRunResponse:
        return training_pb2.PlanRunResponse(plan=training_pb2.RunPlan(device=request.preference_dataset_digest))

    def CancelRun(self, request: Any, context: grpc.ServicerContext) -> training_pb2.CancelRunResponse:
        return training_pb2.CancelRunResponse(run=training_pb2.Run(run_id=request.run_id))

    def ApproveRun(self, request: Any, context: grpc.ServicerContext) -> training_pb2.ApproveRunResponse:
        run = training_pb2.Run(run_id=request.run_id, approved_by=request.approved_by)
        return training_pb2.ApproveRunResponse(run=run)

    def WatchRun(self, request: Any, context: grpc.ServicerContext) -> Iterator[training_pb2.WatchRunResponse]:
        if request.run_id in ("lasting", "silent", "new"):
            yield from self._last(request.run_id, context)
            return
        for step in (1, 2):
            progress = models_pb2.RunProgressed(step=step, total_steps=2, loss=3.0 / step, reward=0.0)
            state = training_pb2.RUN_STATE_RUNNING if step == 1 else training_pb2.RUN_STATE_SUCCEEDED
            line = training_pb2.LogLine(level="info", message=f"step={step}", epoch=1)
            run = training_pb2.Run(run_id="r", state=state, progress=progress)
            yield training_pb2.WatchRunResponse(run=run, log_lines=[line])

    def _last(self, run_id: str, context: grpc.ServicerContext) -> Iterator[training_pb2.WatchRunResponse]:
        """A run that has two reports and does not end: all of them come, only one, or there is none."""
        reports = [models_pb2.RunProgressed(phase="training", step=step, loss=3.0 / step) for step in (1, 2)]
        run = training_pb2.Run(run_id=run_id, progress=reports[-1] if run_id != "new" else None)
        yield training_pb2.WatchRunResponse(run=run)
        yield training_pb2.WatchRunResponse(run=run, log_lines=[training_pb2.LogLine(message="a line")])
        for report in reports[: {"lasting": 2, "silent": 1, "new": 0}[run_id]]:
            yield training_pb2.WatchRunResponse(run=training_pb2.Run(run_id=run_id, progress=report))
        while context.is_active():
            time.sleep(0.02)

    def GetRun(self, request: Any, context: grpc.ServicerContext) -> training_pb2.GetRunResponse:
        kind = models_pb2.ADAPTER_KIND_REWARD
        stages = [
            training_pb2.RunStage(recipe="reward", method="reward", adapter_digest="a", kind=kind),
            training_pb2.RunStage(recipe="rloo", method="rloo", dataset_digest="d", parent_digest="p"),
        ]
        price = training_pb2.Price(currency="EUR", total=3.0, annotation=1.0)
        plan = training_pb2.RunPlan(tokens=9, memory_bytes=2**40, seconds_from="measured", price=price)
        report = training_pb2.RunReport(tokens=10, price=price, tokens_error=-0.1)
        run = training_pb2.Run(run_id="r", priority=-3, stages=stages, stage=1, plan=plan, report=report)
        return training_pb2.GetRunResponse(run=run)


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    def GetDraft(self, request: Any, context: grpc.ServicerContext) -> inference_pb2.GetDraftResponse:
        messages = [inference_pb2.Message(role="user", content=request.draft_id)]
        state = inference_pb2.TEXT_STATE_KEPT
        return inference_pb2.GetDraftResponse(text_state=state, messages=messages, answer="Clean.")

    def StreamGenerate(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if request.request.model == "unknown":
            raise InvalidArgument(Reason("EMPTY_PROMPT"), "Say something.")
        yield inference_pb2.StreamGenerateResponse(draft_id="drf_1", text=request.request.prompt)
        while context.is_active():
            time.sleep(0.02)


def key_files(directory: Path) -> tuple[Path, Path]:
    """The console's private key, and a trust file with its public key."""
    key = Ed25519PrivateKey.generate()
    private, trust = directory / "identity.pem", directory / "trust.json"
    pem = serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    trust.write_text(json.dumps({"console": public.decode()}), encoding="utf-8")
    return private, trust


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Clients of real servers; evaluation does not answer."""
    private, trust = key_files(tmp_path)
    servers, addresses = [], {"evaluation_address": f"127.0.0.1:{free_port()}"}
    known: dict[str, tuple[Any, Any]] = {
        "registry": (registry_pb2_grpc.add_RegistryServiceServicer_to_server, Registry()),  # type: ignore[abstract]  # only what the tests call
        "training": (training_pb2_grpc.add_TrainingServiceServicer_to_server, Training()),  # type: ignore[abstract]
        "synthetic": (synthetic_pb2_grpc.add_SyntheticServiceServicer_to_server, Synthetic()),  # type: ignore[abstract]
        "inference": (inference_pb2_grpc.add_InferenceServiceServicer_to_server, Inference()),  # type: ignore[abstract]
    }
    for name, servicer in known.items():
        server_settings = Settings(rpc_port=0, session_secret="s" * 40)
        guard = Authenticator(name, Trust.load(trust), lambda _: Caller("key", "nobody"))
        server = RpcServer(server_settings, name, servicers=[servicer], authenticator=guard, max_workers=4)
        server.start()
        server.set_serving(True)
        servers.append(server)
        addresses[f"{name}_address"] = f"127.0.0.1:{server.port}"
    settings = Settings(identity_key_file=private, trust_file=trust, session_secret="s" * 40, **addresses)  # type: ignore[arg-type]
    channels = open_channels(settings)
    yield connect(channels)
    for channel in channels.values():
        channel.close()
    for server in servers:
        server.stop(0)


def test_the_services_are_read(services: Services) -> None:
    flow = services.registry.GetFlow(registry_pb2.GetFlowRequest())
    assert (count_submitted(flow), dict(flow.rejected), dict(flow.findings)) == (6, {"EMPTY": 1}, {"PERSON": 9})
    page = list_documents(services, OPERATOR, {"specialist": "s"}).value
    assert (word(page.items[0].anonymized, "kind"), page.next_token) == ("example", "s  100")
    assert word(list_rejections(services, OPERATOR, {}).value.items[0].rejected, "reason") == "corrupt"
    adapter, bare = reads.read_page(services.registry.ListAdapters, registry_pb2.ListAdaptersRequest()).items
    assert [decision(item) for item in (adapter, bare)] == ["refused", "waiting"]
    assert handlers.require_adapter(services, OPERATOR, "abcdef").adapter.digest == "abcdef"
    (specialist,) = handlers.list_specialists(services, OPERATOR).value
    assert (specialist.serving.decision.generation, specialist.serving.finished) == (2, True)
    assert handlers.trace_draft(services, OPERATOR, "drf_9").draft.draft_id == "drf_9"
    draft = handlers.read_draft(services, "drf_9").value
    assert draft and draft.messages[0].content == "drf_9"


def test_the_reports_of_a_run_that_lasts_are_read_up_to_the_newest(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting = read_reports(services, "lasting")
    assert ([report.step for report in lasting.reports], lasting.complete) == ([1, 2], True)
    assert read_reports(services, "new").complete
    monkeypatch.setattr("services.console.run_curves.REPORTS_SECONDS", 1)
    silent = read_reports(services, "silent")
    assert ([report.step for report in silent.reports], silent.complete) == ([1], False)


def test_builds_that_last_continue_without_the_console(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    built = commands.build_dataset(services, OPERATOR, "s", "preference", "attempt")
    assert built and (built.dataset.digest, word(built.dataset, "kind")) == ("attempt", "preference")
    assert commands.build_dataset(services, OPERATOR, "busy", "sft", "attempt") is None
    monkeypatch.setattr("services.console.commands.BUILD_SECONDS", 0.3)
    assert commands.build_dataset(services, OPERATOR, "slow", "sft", "attempt") is None
    assert commands.list_origins(services, OPERATOR, "s").value[0].name == "s"
    commands.admit_origin(services, replace(OPERATOR, key_id="key_1"), "s", "tests", "p")


def test_what_engineers_start_reaches_the_services(services: Services) -> None:
    terms = RunTerms("s", "d" * 64, "b", "lora", preferences="e" * 64, parent="a" * 64, priority=-4)
    run = commands.start_run(services, OPERATOR, terms, "attempt")
    assert (run.run_id, run.dataset_digest, run.recipe, run.parent_digest, run.priority) == (
        "attempt",
        "d" * 64,
        "lora",
        "a" * 64,
        -4,
    )
    assert commands.plan_run(services, OPERATOR, terms).device == "e" * 64
    assert commands.cancel_run(services, OPERATOR, "run_1").run_id == "run_1"
    assert commands.approve_run(services, replace(OPERATOR, key_id="key_7"), "run_1").approved_by == "key_7"
    assert operations.create_specialist(services, OPERATOR, models_pb2.SpecialistChanged(name="s"), "attempt")


def test_the_audit_is_read_from_registry_and_synthetic(services: Services) -> None:
    audit, near = handlers.audit_documents(services, OPERATOR, "")
    assert audit.value and near.value
    assert (audit.value.totals.documents, word(audit.value.dimensions[0], "field")) == (2, "source")
    assert near.value.near_duplicates == 1
    with pytest.raises(NotFound):
        handlers.audit_documents(services, OPERATOR, "nobody")


def test_rows_are_read_from_synthetic_with_every_filter(services: Services) -> None:
    query = RowQuery("d", "held_out", "answer", "doc_1", "kiln")
    (row,) = browsing.read_rows(services, query, "token").value.page.items
    assert (row.row_id, row.task, list(row.document_ids)) == ("token", "answer", ["doc_1", "kiln"])
    assert row.split == synthetic_pb2.SPLIT_HELD_OUT
    assert browsing.find_newest_dataset(services, OPERATOR, "s") == "newest of s"


def test_commands_are_sent_and_refusals_raised(services: Services) -> None:
    assert handlers.promote(services, OPERATOR, "s", "a", 2).generation == 3
    with pytest.raises(Aborted) as caught:
        handlers.promote(services, OPERATOR, "s", "a", 1)
    assert (caught.value.reason, caught.value.message) == ("GENERATION_MOVED", "Reload and retry.")
    assert handlers.start_canary(services, OPERATOR, "s", "a", 3).generation == 4
    assert handlers.stop_canary(services, OPERATOR, "s", 4).generation == 5
    judgement = Judgement(("a", "b"), (GivenMark("a", "style", 5),))
    judged = handlers.record_judgement(services, replace(OPERATOR, key_id="key_1"), judgement)
    assert judged.judgement_id == "jdg_a_b_5_key_1"


def test_a_run_is_read_with_stages_plan_and_report(services: Services) -> None:
    run = reads.find_run(services, "r")
    assert [stage.method for stage in run.stages] == ["reward", "rloo"]
    assert word(run.stages[0], "kind") == "reward"
    assert (run.plan.memory_bytes, run.report.tokens_error) == (2**40, -0.1)


def test_keys_are_created_and_revoked_in_the_consoles_name(services: Services) -> None:
    visitor = replace(OPERATOR, key_id="key_1")
    created = handlers.create_key(services, visitor, KeyTerms("batch", Role.ENGINEER, ("s",), days=2))
    assert (word(created.key, "role"), list(created.key.specialists), created.secret) == (
        "engineer",
        ["s"],
        "tlr_secret",
    )
    assert 47 < (created.key.expire_time.seconds - time.time()) / 3600 < 49
    lasting = handlers.create_key(services, OPERATOR, KeyTerms("forever", Role.CALLER))
    assert not lasting.key.HasField("expire_time")
    with pytest.raises(InvalidArgument) as caught:
        handlers.create_key(services, OPERATOR, KeyTerms("n", Role.CALLER, methods=("Nothing",)))
    assert caught.value.field_violations == {"methods": "unknown method"}
    handlers.revoke_key(services, visitor, "key_2")
    with pytest.raises(NotFound):
        handlers.revoke_key(services, visitor, "key_none")


def test_streams_are_read_and_stopped(services: Services) -> None:
    updates = list(handlers.watch_run(services, OPERATOR, "r"))
    assert [(word(update.run, "state"), update.run.progress.step) for update in updates] == [
        ("running", 1),
        ("succeeded", 2),
    ]
    assert [line.message for update in updates for line in update.log_lines] == ["step=1", "step=2"]
    progress = updates[-1].run.progress
    # A reward of 0 is a value; an unset one was not measured.
    assert (progress.HasField("reward"), progress.HasField("kl")) == (True, False)
    stream = handlers.ask(services, OPERATOR, Question("base", "Hello"))
    assert next(iter(stream)).text == "Hello"
    stream.cancel()
    with pytest.raises(InvalidArgument, match="EMPTY_PROMPT"):
        list(handlers.ask(services, OPERATOR, Question("unknown", "x")))


def test_health_and_unavailable_services(services: Services) -> None:
    names = ("registry", "training", "inference", "evaluation")
    healthy = load_overview(services, OPERATOR).healthy
    assert [healthy[name] for name in names] == [True, True, True, False]
    failure = handlers.get_evaluation(services, "a").failure
    assert failure and (failure.service, failure.reason) == ("evaluation", Reason.UNAVAILABLE)


def fetch(url: str) -> tuple[int, str]:
    """Status and body; status 0 without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_process_is_ready_without_other_services_and_stops_on_sigterm(tmp_path: Path) -> None:
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
        wait_until(lambda: process.poll() is not None or fetch(f"http://127.0.0.1:{status}/readyz")[0] == 200, 60)
        assert process.poll() is None
        code, text = fetch(f"http://127.0.0.1:{http}/")
        assert (code, "Password, secret or API key" in text) == (200, True)
    finally:
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert '"event": "stopped"' in log
    assert "correct horse" not in log

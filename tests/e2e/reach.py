"""Every call that can name a specialist or its runs, adapters, evaluations and drafts, made with one key."""

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import grpc

from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import (
    audit_pb2,
    feedback_pb2,
    feedback_pb2_grpc,
    judging_pb2,
    judging_pb2_grpc,
    outcomes_pb2,
    outcomes_pb2_grpc,
    panel_pb2,
    panel_pb2_grpc,
    people_pb2,
    people_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    reports_pb2,
    reports_pb2_grpc,
)
from tailor.api.synthetic.v1 import (
    imports_pb2,
    imports_pb2_grpc,
    synthesis_pb2,
    synthesis_pb2_grpc,
    synthetic_pb2,
    synthetic_pb2_grpc,
)
from tailor.api.training.v1 import training_pb2, training_pb2_grpc

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation

Call = tuple[str, Callable[..., Any], Any]


@dataclass(frozen=True)
class Names:
    """The ids of one specialist's objects. The defaults do not exist, but have the form of real ids."""

    specialist: str = "never-created"
    adapter: str = "0" * 64
    dataset: str = "1" * 64
    run: str = "run_" + "2" * 32
    evaluation: str = "evl_" + "3" * 32
    draft: str = "drf_" + "4" * 32
    imported: str = "never-imported"
    synthesis: str = "syn_" + "5" * 32


def answers(installation: "Installation", secret: str, names: Names) -> dict[str, str]:
    """The outcome of every call: `answered`, or the error's code and message with each name replaced by NAME."""
    outcomes = {}
    for service, calls in CALLS:
        for label, method, request in calls(installation.channel(service, secret), names):
            outcomes[f"{service} {label}"] = _outcome(method, request, names)
    return outcomes


def _outcome(method: Callable[..., Any], request: Any, names: Names) -> str:
    try:
        reply = method(request, timeout=60)
        if isinstance(reply, grpc.Call):
            list(reply)  # type: ignore[call-overload]
    except grpc.RpcError as error:
        text = f"{error.code().name} {error.details()}"
        for name in astuple(names):
            text = text.replace(name, "NAME")
        return text
    return "answered"


def _registry(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = registry_pb2, registry_pb2_grpc.RegistryServiceStub(channel)
    gate = models_pb2.Gate(primary=models_pb2.PrimaryMetric(metric="rougeL"))
    definition = models_pb2.SpecialistChanged(name=n.specialist, revision=99, base="tiny", recipe="tiny", gate=gate)
    rubric = drafts_pb2.Rubric(accuracy=3, style=3, usefulness=3)
    yield "GetSpecialist", stub.GetSpecialist, pb.GetSpecialistRequest(name=n.specialist)
    yield "UpdateSpecialist", stub.UpdateSpecialist, pb.UpdateSpecialistRequest(specialist=definition)
    yield "CreateSpecialist", stub.CreateSpecialist, pb.CreateSpecialistRequest(specialist=definition)
    yield "ListDocuments", stub.ListDocuments, pb.ListDocumentsRequest(specialist=n.specialist)
    yield "DeleteSpecialist", stub.DeleteSpecialist, pb.DeleteSpecialistRequest(name=n.specialist, reason="A try.")
    yield "ListApprovals", stub.ListApprovals, pb.ListApprovalsRequest(specialist=n.specialist)
    yield "ListDecisions", stub.ListDecisions, pb.ListDecisionsRequest(specialist=n.specialist)
    yield "GetLeaderboard", stub.GetLeaderboard, pb.GetLeaderboardRequest(specialist=n.specialist)
    yield "PinEntry", stub.PinEntry, pb.PinEntryRequest(specialist=n.specialist, entry=n.adapter, pinned=True)
    decline = pb.DeclineAdapterRequest(adapter_digest=n.adapter, reason="A try.")
    yield "DeclineAdapter", stub.DeclineAdapter, decline
    approve = pb.ApproveAdapterRequest(adapter_digest=n.adapter, reason="A try.")
    yield "ApproveAdapter", stub.ApproveAdapter, approve
    yield "GetAudit", stub.GetAudit, audit_pb2.GetAuditRequest(specialist=n.specialist)
    yield "ListDatasets", stub.ListDatasets, pb.ListDatasetsRequest(specialist=n.specialist)
    yield "PlanEvaluation", stub.PlanEvaluation, pb.PlanEvaluationRequest(specialist=n.specialist)
    yield "ListAdapters", stub.ListAdapters, pb.ListAdaptersRequest(specialist=n.specialist)
    yield "GetDataset", stub.GetDataset, pb.GetDatasetRequest(digest=n.dataset)
    yield "GetAdapter", stub.GetAdapter, pb.GetAdapterRequest(digest=n.adapter)
    canary = pb.StartCanaryRequest(specialist=n.specialist, adapter_digest=n.adapter)
    yield "StartCanary", stub.StartCanary, canary
    yield "StopCanary", stub.StopCanary, pb.StopCanaryRequest(specialist=n.specialist)
    yield "Promote", stub.Promote, pb.PromoteRequest(specialist=n.specialist, adapter_digest=n.adapter)
    yield "Rollback", stub.Rollback, pb.RollbackRequest(specialist=n.specialist)
    yield "Trace", stub.Trace, pb.TraceRequest(draft_id=n.draft)
    yield "RecordJudgement", stub.RecordJudgement, pb.RecordJudgementRequest(ranking=[n.draft], rubric=rubric)
    wider = pb.CreateKeyRequest(name="wider", role=common_pb2.ROLE_CALLER, specialists=[n.specialist])
    yield "CreateKey", stub.CreateKey, wider


def _people(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    stub = people_pb2_grpc.PeopleServiceStub(channel)
    wider = people_pb2.InvitePersonRequest(name="wider", role=common_pb2.ROLE_CALLER, specialists=[n.specialist])
    yield "InvitePerson", stub.InvitePerson, wider


def _inference(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = inference_pb2, inference_pb2_grpc.InferenceServiceStub(channel)
    yield "GetDraft", stub.GetDraft, pb.GetDraftRequest(draft_id=n.draft)
    for label, model in (("specialist", n.specialist), ("candidate", f"adapter:{n.adapter}")):
        request = pb.GenerateRequest(model=model, prompt="Write.", sampling=pb.Sampling(max_tokens=2))
        yield f"Generate {label}", stub.Generate, request
        yield f"StreamGenerate {label}", stub.StreamGenerate, pb.StreamGenerateRequest(request=request)
    yield "GetDraft", stub.GetDraft, pb.GetDraftRequest(draft_id=n.draft)
    rejected = common_pb2.FEEDBACK_VERDICT_REJECTED
    said = pb.RecordFeedbackRequest(draft_id=n.draft, verdict=rejected)
    yield "RecordFeedback", stub.RecordFeedback, said
    worth = pb.ReportOutcomeRequest(draft_id=n.draft, minutes=5)
    yield "ReportOutcome", stub.ReportOutcome, worth
    baseline = pb.ReportOutcomeRequest(specialist=n.specialist, request_id="baseline", minutes=5)
    yield "ReportOutcome without a draft", stub.ReportOutcome, baseline
    yield "RegenerateDraft", stub.RegenerateDraft, pb.RegenerateDraftRequest(draft_id=n.draft)
    yield "EditDraft", stub.EditDraft, pb.EditDraftRequest(draft_id=n.draft, text="Written by a person.")


def _feedback(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = feedback_pb2, feedback_pb2_grpc.FeedbackServiceStub(channel)
    yield "ListFeedback", stub.ListFeedback, pb.ListFeedbackRequest(specialist=n.specialist)


def _outcomes(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = outcomes_pb2, outcomes_pb2_grpc.OutcomeServiceStub(channel)
    yield "GetOutcomes", stub.GetOutcomes, pb.GetOutcomesRequest(specialist=n.specialist)


def _reports(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = reports_pb2, reports_pb2_grpc.ReportServiceStub(channel)
    yield "GetLedger", stub.GetLedger, pb.GetLedgerRequest(specialist=n.specialist)
    yield "ListGenerations", stub.ListGenerations, pb.ListGenerationsRequest(specialist=n.specialist)


def _panel(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = panel_pb2, panel_pb2_grpc.PanelServiceStub(channel)
    yield "GetAgreement", stub.GetAgreement, pb.GetAgreementRequest(specialist=n.specialist)
    yield "GetPanelReport", stub.GetPanelReport, pb.GetPanelReportRequest(specialist=n.specialist)
    yield "ProposeGuidelines", stub.ProposeGuidelines, pb.ProposeGuidelinesRequest(specialist=n.specialist)


def _evaluation(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = evaluation_pb2, evaluation_pb2_grpc.EvaluationServiceStub(channel)
    yield "Evaluate", stub.Evaluate, pb.EvaluateRequest(adapter_digest=n.adapter)
    yield "GetEvaluation", stub.GetEvaluation, pb.GetEvaluationRequest(evaluation_id=n.evaluation)
    compared = pb.ComparedModel(adapter_digest=n.adapter, model="candidate")
    compare = pb.CompareEvaluationsRequest(first=compared, second=compared)
    yield "CompareEvaluations", stub.CompareEvaluations, compare
    yield "GetEvaluation of adapter", stub.GetEvaluation, pb.GetEvaluationRequest(adapter_digest=n.adapter)


def _synthetic(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = synthetic_pb2, synthetic_pb2_grpc.SyntheticServiceStub(channel)
    yield "BuildDataset", stub.BuildDataset, pb.BuildDatasetRequest(specialist=n.specialist)
    yield "GetBuildState", stub.GetBuildState, pb.GetBuildStateRequest(specialist=n.specialist)
    yield "ListOrigins", stub.ListOrigins, pb.ListOriginsRequest(specialist=n.specialist)
    unknown = pb.AdmitOriginRequest(specialist=n.specialist, kind=pb.ORIGIN_KIND_TESTS, name="walk")
    yield "AdmitOrigin", stub.AdmitOrigin, unknown
    yield "PreviewRows", stub.PreviewRows, pb.PreviewRowsRequest(specialist=n.specialist)
    near = pb.CountNearDuplicatesRequest(specialist=n.specialist)
    yield "CountNearDuplicates", stub.CountNearDuplicates, near
    yield "DrawPrompt", stub.DrawPrompt, pb.DrawPromptRequest(specialist=n.specialist)
    yield "ListRows", stub.ListRows, pb.ListRowsRequest(specialist=n.specialist)
    yield "ListRows by digest", stub.ListRows, pb.ListRowsRequest(dataset_digest=n.dataset)


def _imports(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = imports_pb2, imports_pb2_grpc.ImportServiceStub(channel)
    header = pb.ImportHeader(name="walk", licence="MIT", share_percent=1, specialists=[n.specialist], request_id="walk")
    yield "ImportDataset", stub.ImportDataset, iter([pb.ImportDatasetRequest(header=header)])
    yield "ForgetImport", stub.ForgetImport, pb.ForgetImportRequest(name=n.imported)


def _syntheses(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = synthesis_pb2, synthesis_pb2_grpc.SynthesisServiceStub(channel)
    spec = pb.SynthesisSpec(specialist=n.specialist, task="answer", target=1)
    decision = pb.SampleDecision(row_id="row_1", accept=True)
    yield "CreateSynthesis", stub.CreateSynthesis, pb.CreateSynthesisRequest(spec=spec)
    yield "ListSyntheses", stub.ListSyntheses, pb.ListSynthesesRequest(specialist=n.specialist)
    yield "CountComments", stub.CountComments, pb.CountCommentsRequest(specialist=n.specialist)
    yield "GetSynthesis", stub.GetSynthesis, pb.GetSynthesisRequest(synthesis_id=n.synthesis)
    yield "WatchSynthesis", stub.WatchSynthesis, pb.WatchSynthesisRequest(synthesis_id=n.synthesis)
    yield "CancelSynthesis", stub.CancelSynthesis, pb.CancelSynthesisRequest(synthesis_id=n.synthesis)
    yield "ResumeSynthesis", stub.ResumeSynthesis, pb.ResumeSynthesisRequest(synthesis_id=n.synthesis)
    yield "ListSamples", stub.ListSamples, pb.ListSamplesRequest(synthesis_id=n.synthesis)
    review = pb.ReviewSamplesRequest(synthesis_id=n.synthesis, decisions=[decision])
    yield "ReviewSamples", stub.ReviewSamples, review


def _training(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = training_pb2, training_pb2_grpc.TrainingServiceStub(channel)
    run: dict[str, Any] = {
        "specialist": n.specialist,
        "dataset_digest": n.dataset,
        "base": "tiny",
        "recipe": "tiny",
    }
    yield "CreateRun", stub.CreateRun, pb.CreateRunRequest(**run)
    yield "PlanRun", stub.PlanRun, pb.PlanRunRequest(**run)
    yield "ListRuns", stub.ListRuns, pb.ListRunsRequest(specialist=n.specialist)
    yield "GetRun", stub.GetRun, pb.GetRunRequest(run_id=n.run)
    yield "WatchRun", stub.WatchRun, pb.WatchRunRequest(run_id=n.run)
    yield "CancelRun", stub.CancelRun, pb.CancelRunRequest(run_id=n.run)
    yield "ExportAdapter", stub.ExportAdapter, pb.ExportAdapterRequest(adapter_digest=n.adapter)
    yield "ApproveRun", stub.ApproveRun, pb.ApproveRunRequest(run_id=n.run)


def _judging(channel: grpc.Channel, n: Names) -> Iterator[Call]:
    pb, stub = judging_pb2, judging_pb2_grpc.JudgingServiceStub(channel)
    yield "NextPair", stub.NextPair, pb.NextPairRequest(specialist=n.specialist)
    yield "SkipPair", stub.SkipPair, pb.SkipPairRequest(specialist=n.specialist, draft_id=n.draft)
    yield "UndoJudgement", stub.UndoJudgement, pb.UndoJudgementRequest(specialist=n.specialist, decision="1")
    yield "ListOwnJudgements", stub.ListOwnJudgements, pb.ListOwnJudgementsRequest(specialist=n.specialist)


CALLS: tuple[tuple[str, Callable[[grpc.Channel, Names], Iterator[Call]]], ...] = (
    ("registry", _registry),
    ("registry", _feedback),
    ("registry", _outcomes),
    ("registry", _panel),
    ("registry", _reports),
    ("registry", _judging),
    ("inference", _inference),
    ("evaluation", _evaluation),
    ("synthetic", _synthetic),
    ("synthetic", _imports),
    ("registry", _people),
    ("synthetic", _syntheses),
    ("training", _training),
)

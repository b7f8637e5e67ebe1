"""Training, evaluation and inference in memory."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.console.domain import Question
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.api.events.v1 import models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.errors import DeadlineExceeded, InvalidArgument, NotFound, Reason, TailorError, Unavailable
from tests.evaluations import make_estimate
from tests.unit.console.judging_fakes import EDITED
from tests.unit.console.messages import (
    ADAPTER,
    BASE_DRAFT,
    DRAFT,
    NAME,
    T,
    edit,
    evaluated,
    plan,
    run,
    update,
)


@dataclass
class FakeTraining(training_pb2_grpc.TrainingServiceServicer):
    """Runs, and what engineers do with them. Requests are kept as they came."""

    runs: list[training_pb2.Run] = field(default_factory=lambda: [run()])
    updates: list[training_pb2.WatchRunResponse] = field(
        default_factory=lambda: [update(run(step=step)) for step in range(1, 4)]
    )
    # Of single runs; others have `updates`.
    reports: dict[str, list[models_pb2.RunProgressed]] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    down: bool = False
    planned: list[training_pb2.PlanRunRequest] = field(default_factory=list)
    created: list[training_pb2.CreateRunRequest] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    approved: list[tuple[str, str]] = field(default_factory=list)
    error: TailorError | None = None

    def ListRuns(self, request: Any, context: Any) -> Any:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "training does not answer.")
        runs = [item for item in self.runs if request.specialist in ("", item.specialist)]
        return training_pb2.ListRunsResponse(runs=runs)

    def ListBases(self, request: Any, context: Any) -> Any:
        chat = training_pb2.ChatCapabilities(thought_end="</think>")
        found = training_pb2.BaseCapabilities(attention="sdpa", targets=["q_proj", "v_proj"], max_rank=256, chat=chat)
        return training_pb2.ListBasesResponse(bases=[training_pb2.Base(name="qwen3", capabilities=found)])

    def GetRun(self, request: Any, context: Any) -> Any:
        return training_pb2.GetRunResponse(run=self._find(request.run_id))

    def _find(self, run_id: str) -> training_pb2.Run:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "training does not answer.")
        for item in self.runs:
            if item.run_id == run_id:
                return item
        raise NotFound(Reason.UNKNOWN_RUN, "This run does not exist.")

    def WatchRun(self, request: Any, context: Any) -> Any:
        known = self._find(request.run_id)
        if request.run_id not in self.reports:
            yield from self.updates
            return
        reports = self.reports[request.run_id]
        newest = edit(reports[-1], step=10_000) if request.run_id in self.slow else reports[-1]
        yield update(edit(known, progress=newest))
        yield from (update(edit(known, progress=report)) for report in reports)
        if request.run_id in self.slow:
            raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "Reading took too long.")

    def PlanRun(self, request: Any, context: Any) -> Any:
        if self.error:
            raise self.error
        self.planned.append(request)
        return training_pb2.PlanRunResponse(plan=plan())

    def CreateRun(self, request: Any, context: Any) -> Any:
        if self.error:
            raise self.error
        self.created.append(request)
        queued = run("queued", run_id="run_" + "9" * 32, specialist=request.specialist)
        return training_pb2.CreateRunResponse(run=queued)

    def CancelRun(self, request: Any, context: Any) -> Any:
        self.cancelled.append(request.run_id)
        return training_pb2.CancelRunResponse(run=self._find(request.run_id))

    def ApproveRun(self, request: Any, context: Any) -> Any:
        self.approved.append((request.run_id, request.approved_by))
        return training_pb2.ApproveRunResponse(run=self._find(request.run_id))


@dataclass
class FakeEvaluation(evaluation_pb2_grpc.EvaluationServiceServicer):
    answers: dict[str, evaluation_pb2.GetEvaluationResponse] = field(
        default_factory=lambda: {
            ADAPTER: evaluation_pb2.GetEvaluationResponse(
                evaluation_id="evl_1",
                state=evaluation_pb2.EVALUATION_STATE_SUCCEEDED,
                rows_done=96,
                rows_total=96,
                result=evaluated(),
                report_markdown="# Report\n\nAll well.",
                plot_png=b"\x89PNG fake",
            )
        }
    )
    queued: list[tuple[str, str]] = field(default_factory=list)
    compared: list[evaluation_pb2.CompareEvaluationsRequest] = field(default_factory=list)
    down: bool = False

    def CompareEvaluations(self, request: Any, context: Any) -> Any:
        self.compared.append(request)
        row = evaluation_pb2.RowComparison(
            row_id="row_7",
            task="report",
            language="en",
            prompt="Write it.",
            first_answer="The old <b>answer</b>.",
            second_answer="The new <b>answer</b>.",
            first_value=0.2,
            second_value=0.5,
            gain=0.3,
        )
        whole = evaluation_pb2.GroupComparison(
            rows=48, first=make_estimate(0.2), second=make_estimate(0.4), gain=make_estimate(0.2)
        )
        return evaluation_pb2.CompareEvaluationsResponse(
            metric="rougeL", metrics=["rougeL", "bleu"], groups=[whole], rows=[row], only_first=3
        )

    def Evaluate(self, request: Any, context: Any) -> Any:
        self.queued.append((request.adapter_digest, request.request_id))
        return evaluation_pb2.EvaluateResponse(evaluation_id="evl_2")

    def GetEvaluation(self, request: Any, context: Any) -> Any:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "evaluation does not answer.")
        if request.adapter_digest not in self.answers:
            raise NotFound(Reason.UNKNOWN_EVALUATION, "This evaluation does not exist.")
        return self.answers[request.adapter_digest]


@dataclass
class FakeInference(inference_pb2_grpc.InferenceServiceServicer):
    """What serves, answers and the texts of drafts."""

    names: tuple[str, ...] = ("base", NAME)
    error: TailorError | None = None
    down: bool = False
    asked: list[Question] = field(default_factory=list)
    # Answer with a stream that does not end by itself.
    endless: bool = False
    # One per answer, which is set once its stream has ended.
    ended: list[threading.Event] = field(default_factory=list)
    texts: dict[str, inference_pb2.GetDraftResponse] = field(default_factory=dict)
    regenerated: list[str] = field(default_factory=list)
    edits: list[tuple[str, str]] = field(default_factory=list)
    write: Callable[[str], str] = lambda draft_id: BASE_DRAFT

    def _answer(self, value: T) -> T:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "inference does not answer.")
        return value

    def ListSpecialists(self, request: Any, context: Any) -> Any:
        provenance = inference_pb2.Provenance(generation=1, adapter_digest=ADAPTER, base="smollm2")
        served = [inference_pb2.ServedSpecialist(name=name, provenance=provenance) for name in self._answer(self.names)]
        return inference_pb2.ListSpecialistsResponse(specialists=served)

    def GetDraft(self, request: Any, context: Any) -> Any:
        return self._answer(self.texts).get(request.draft_id, text("NOT_KEPT"))

    def EditDraft(self, request: Any, context: Any) -> Any:
        if not request.text.strip():
            field = {"text": "must not be empty"}
            raise InvalidArgument(Reason.INVALID_EDIT, "The edited text is invalid.", field_violations=field)
        self._answer(self.edits).append((request.draft_id, request.text))
        return inference_pb2.EditDraftResponse(draft_id=EDITED)

    def RegenerateDraft(self, request: Any, context: Any) -> Any:
        self._answer(self.regenerated).append(request.draft_id)
        return inference_pb2.RegenerateDraftResponse(draft_id=self.write(request.draft_id))

    def StreamGenerate(self, request: Any, context: Any) -> Any:
        asked, ended = request.request, threading.Event()
        temperature = asked.sampling.temperature if asked.sampling.HasField("temperature") else None
        self.asked.append(Question(asked.model, asked.prompt, asked.sampling.max_tokens or None, temperature))
        self.ended.append(ended)
        context.add_callback(ended.set)
        draft_id = BASE_DRAFT if asked.model == "base" else DRAFT
        while self.endless and not ended.wait(0.05):
            yield inference_pb2.StreamGenerateResponse(draft_id=draft_id, text="and ")
        usage = inference_pb2.Usage(prompt_tokens=12, completion_tokens=4)
        yield inference_pb2.StreamGenerateResponse(draft_id=draft_id, thought="They ask.", text="The findings ")
        yield inference_pb2.StreamGenerateResponse(draft_id=draft_id, text="follow.", finish_reason="stop", usage=usage)
        if self.error:
            raise self.error


def text(state: str, *messages: tuple[str, str], answer: str = "") -> inference_pb2.GetDraftResponse:
    """A draft's stored text; messages are (role, content)."""
    return inference_pb2.GetDraftResponse(
        text_state=inference_pb2.TextState.Value(f"TEXT_STATE_{state}"),
        messages=[inference_pb2.Message(role=role, content=content) for role, content in messages],
        answer=answer,
    )

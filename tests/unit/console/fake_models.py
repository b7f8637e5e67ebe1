"""Training, evaluation and inference in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field

from services.console.domain import Page, Question, RunTerms
from services.console.ports import AnswerSource, CloseableStream, RunCommands, RunReader, RunReports
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.api.training.v1 import training_pb2
from tailor.errors import InvalidArgument, NotFound, Reason, TailorError, Unavailable
from tests.evaluations import make_estimate
from tests.unit.console.judging_fakes import EDITED
from tests.unit.console.messages import (
    ADAPTER,
    BASE_DRAFT,
    DRAFT,
    NAME,
    EndlessStream,
    ListStream,
    T,
    evaluated,
    plan,
    run,
    update,
)


@dataclass
class FakeTraining(RunReader):
    runs: list[training_pb2.Run] = field(default_factory=lambda: [run()])
    updates: list[training_pb2.WatchRunResponse] = field(
        default_factory=lambda: [update(run(step=step)) for step in range(1, 4)]
    )
    # Of single runs; others have those of `updates`.
    reports: dict[str, list[models_pb2.RunProgressed]] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    down: bool = False

    def list_runs(self, token: str, specialist: str = "") -> Page[training_pb2.Run]:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "training does not answer.")
        return Page(tuple(item for item in self.runs if specialist in ("", item.specialist)))

    def get_run(self, run_id: str) -> training_pb2.Run:
        for item in self.list_runs("").items:
            if item.run_id == run_id:
                return item
        raise NotFound(Reason.UNKNOWN_RUN, "This run does not exist.")

    def watch_run(self, run_id: str) -> ListStream[training_pb2.WatchRunResponse]:
        return ListStream(self.updates)

    def read_reports(self, run_id: str) -> RunReports:
        reports = self.reports.get(run_id, [item.run.progress for item in self.updates])
        return RunReports(self.get_run(run_id), tuple(reports), complete=run_id not in self.slow)


@dataclass
class FakeRunCommands(RunCommands):
    """Commands about the runs of `training`."""

    training: FakeTraining
    planned: list[RunTerms] = field(default_factory=list)
    created: list[tuple[RunTerms, str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    approved: list[tuple[str, str]] = field(default_factory=list)
    error: TailorError | None = None

    def plan(self, terms: RunTerms) -> training_pb2.RunPlan:
        if self.error:
            raise self.error
        self.planned.append(terms)
        return plan()

    def create(self, terms: RunTerms, request_id: str) -> training_pb2.Run:
        if self.error:
            raise self.error
        self.created.append((terms, request_id))
        return run("queued", run_id="run_" + "9" * 32, specialist=terms.specialist)

    def cancel(self, run_id: str) -> training_pb2.Run:
        self.cancelled.append(run_id)
        return self.training.get_run(run_id)

    def approve(self, run_id: str, approved_by: str) -> training_pb2.Run:
        self.approved.append((run_id, approved_by))
        return self.training.get_run(run_id)


@dataclass
class FakeEvaluation:
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

    def compare(self, request: evaluation_pb2.CompareEvaluationsRequest) -> evaluation_pb2.CompareEvaluationsResponse:
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

    def evaluate(self, adapter_digest: str, request_id: str) -> str:
        self.queued.append((adapter_digest, request_id))
        return "evl_2"

    def get(self, adapter_digest: str) -> evaluation_pb2.GetEvaluationResponse:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "evaluation does not answer.")
        if adapter_digest not in self.answers:
            raise NotFound(Reason.UNKNOWN_EVALUATION, "This evaluation does not exist.")
        return self.answers[adapter_digest]


@dataclass
class FakeInference(AnswerSource):
    names: tuple[str, ...] = ("base", NAME)
    error: TailorError | None = None
    down: bool = False
    asked: list[Question] = field(default_factory=list)
    # Ask for one that does not end by itself.
    endless: bool = False
    streams: list[ListStream[inference_pb2.StreamGenerateResponse]] = field(default_factory=list)
    texts: dict[str, inference_pb2.GetDraftResponse] = field(default_factory=dict)
    regenerated: list[str] = field(default_factory=list)
    edits: list[tuple[str, str]] = field(default_factory=list)
    write: Callable[[str], str] = lambda draft_id: BASE_DRAFT

    def _answer(self, value: T) -> T:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "inference does not answer.")
        return value

    def list_served(self) -> tuple[inference_pb2.ServedSpecialist, ...]:
        provenance = inference_pb2.Provenance(generation=1, adapter_digest=ADAPTER, base="smollm2")
        return self._answer(
            tuple(inference_pb2.ServedSpecialist(name=name, provenance=provenance) for name in self.names)
        )

    def get_draft(self, draft_id: str) -> inference_pb2.GetDraftResponse:
        return self._answer(self.texts).get(draft_id, text("NOT_KEPT"))

    def edit_draft(self, draft_id: str, text: str) -> str:
        if not text.strip():
            field = {"text": "must not be empty"}
            raise InvalidArgument(Reason.INVALID_EDIT, "The edited text is invalid.", field_violations=field)
        self._answer(self.edits).append((draft_id, text))
        return EDITED

    def regenerate(self, draft_id: str) -> str:
        self._answer(self.regenerated).append(draft_id)
        return self.write(draft_id)

    def ask(self, question: Question) -> CloseableStream[inference_pb2.StreamGenerateResponse]:
        self.asked.append(question)
        if self.endless:
            return EndlessStream(inference_pb2.StreamGenerateResponse(draft_id=DRAFT, text="and "))
        draft_id = BASE_DRAFT if question.model == "base" else DRAFT
        usage = inference_pb2.Usage(prompt_tokens=12, completion_tokens=4)
        pieces = [
            inference_pb2.StreamGenerateResponse(draft_id=draft_id, text="The findings "),
            inference_pb2.StreamGenerateResponse(draft_id=draft_id, text="follow.", finish_reason="stop", usage=usage),
        ]
        stream = ListStream(pieces, self.error)
        self.streams.append(stream)
        return stream


def text(state: str, *messages: tuple[str, str], answer: str = "") -> inference_pb2.GetDraftResponse:
    """A draft's stored text; messages are (role, content)."""
    return inference_pb2.GetDraftResponse(
        text_state=inference_pb2.TextState.Value(f"TEXT_STATE_{state}"),
        messages=[inference_pb2.Message(role=role, content=content) for role, content in messages],
        answer=answer,
    )

"""The inference service in this process, with answers that tests set."""

from typing import Any

import grpc

from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, Reason, Unavailable
from tests.fakes.serving import ADAPTER, refuse


class FakeInference(inference_pb2_grpc.InferenceServiceServicer):
    """Answers with the model's name and the prompt. `cancelled` is True after a caller went away.

    Fails the first `failures` calls, and cancels the first `stops` calls, as a server does that begins to stop.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.stops = 0
        self.calls = 0
        self.cancelled = False
        self.endless = False
        self.thought = ""
        self.max_messages = 100
        self.asked: list[inference_pb2.GenerateRequest] = []
        self.feedback: list[inference_pb2.RecordFeedbackRequest] = []
        self.outcomes: list[inference_pb2.ReportOutcomeRequest] = []

    def _check(self, request: Any, context: Any) -> inference_pb2.Provenance:
        self.calls += 1
        self.asked.append(request)
        if self.stops:
            self.stops -= 1
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        if self.failures:
            self.failures -= 1
            refuse(context, Unavailable(Reason("NO_MODEL"), "No model is ready."))
        if len(getattr(request, "messages", ())) > self.max_messages:
            refuse(context, InvalidArgument(Reason.PROMPT_TOO_LONG, "The prompt leaves no room for an answer."))
        if request.model not in ("base", "engagement-reports"):
            refuse(context, NotFound(Reason.UNKNOWN_SPECIALIST, f"There is no specialist {request.model}."))
        if request.model == "base":
            return inference_pb2.Provenance(base="tiny")
        return inference_pb2.Provenance(specialist=request.model, generation=3, adapter_digest=ADAPTER, base="tiny")

    def Generate(self, request: Any, context: Any) -> Any:
        provenance = self._check(request, context)
        prompt = request.prompt or request.messages[-1].content
        return inference_pb2.GenerateResponse(
            draft_id="drf_1",
            text=f"{request.model}: {prompt}",
            finish_reason="stop",
            usage=inference_pb2.Usage(prompt_tokens=2, completion_tokens=3),
            provenance=provenance,
        )

    def StreamGenerate(self, request: Any, context: Any) -> Any:
        provenance = self._check(request.request, context)
        context.add_callback(self._gone)
        if self.thought:
            yield inference_pb2.StreamGenerateResponse(draft_id="drf_1", thought=self.thought)
        for word in (request.request.model, " says ", request.request.prompt):
            yield inference_pb2.StreamGenerateResponse(draft_id="drf_1", text=word)
        while self.endless and context.is_active():
            yield inference_pb2.StreamGenerateResponse(draft_id="drf_1", text=".")
        yield inference_pb2.StreamGenerateResponse(
            draft_id="drf_1",
            finish_reason="stop",
            usage=inference_pb2.Usage(prompt_tokens=2, completion_tokens=3),
            provenance=provenance,
        )

    def _gone(self) -> None:
        self.cancelled = True

    def GetDraft(self, request: Any, context: Any) -> Any:
        if request.draft_id != "drf_1":
            refuse(context, NotFound(Reason.UNKNOWN_DRAFT, "There is no such draft."))
        response = inference_pb2.GetDraftResponse(
            draft_id="drf_1",
            finish_reason="stop",
            usage=inference_pb2.Usage(prompt_tokens=2, completion_tokens=3),
            provenance=inference_pb2.Provenance(base="tiny"),
            text_state=inference_pb2.TEXT_STATE_KEPT,
            messages=[inference_pb2.Message(role="user", content="hello")],
            answer="base: hello",
        )
        response.create_time.FromSeconds(1_700_000_000)
        return response

    def RecordFeedback(self, request: Any, context: Any) -> Any:
        if request.draft_id != "drf_1":
            refuse(context, NotFound(Reason.UNKNOWN_DRAFT, "There is no such draft."))
        self.feedback.append(request)
        response = inference_pb2.RecordFeedbackResponse(
            feedback_id="fbk_1", edited_text_stored=bool(request.edited_text)
        )
        response.create_time.FromSeconds(1_700_000_000)
        return response

    def ReportOutcome(self, request: Any, context: Any) -> Any:
        if request.draft_id not in ("", "drf_1"):
            refuse(context, NotFound(Reason.UNKNOWN_DRAFT, "There is no such draft."))
        self.outcomes.append(request)
        response = inference_pb2.ReportOutcomeResponse(
            outcome_id="out_1", specialist="engagement-reports", generation=3 if request.draft_id else 0
        )
        response.create_time.FromSeconds(1_700_000_000)
        return response

    def ListSpecialists(self, request: Any, context: Any) -> Any:
        served = inference_pb2.ServedSpecialist(
            name="engagement-reports",
            provenance=inference_pb2.Provenance(
                specialist="engagement-reports", generation=3, adapter_digest=ADAPTER, base="tiny"
            ),
            context_length=2048,
        )
        return inference_pb2.ListSpecialistsResponse(specialists=[served])

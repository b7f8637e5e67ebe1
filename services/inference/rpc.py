"""The gRPC methods of inference: each translates its request, calls a handler, and translates the answer."""

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

import grpc

from services.inference import handlers, routing, wire
from services.inference.adapters.forwarding import Forwarder, PassedCall, handing_back
from services.inference.domain import Caller, Draft, OutcomeReport, RowPrompt, RowToScore, TokenLogProbability
from services.inference.generation import Answer, Cancellation, Inference, ReadinessGate
from services.inference.handlers import answer_drawn_prompt, edit_draft
from services.inference.settings import Settings
from services.inference.slow_readers import SlowReaders
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.codec import decode, encode
from tailor.errors import DeadlineExceeded, Reason
from tailor.rpc import auth
from tailor.rpc.keys import authenticator
from tailor.rpc.server import RpcServer
from tailor.runtime import Runtime

Method = Callable[["InferenceServicer", Any, grpc.ServicerContext], Any]


def passed_on_by(find_model: Callable[["InferenceServicer", Any], str]) -> Callable[[Method], Method]:
    """Let replicas of another base answer the calls of a method for a model that they serve."""

    def decorate(method: Method) -> Method:
        @wraps(method)
        def answer(servicer: "InferenceServicer", request: Any, context: grpc.ServicerContext) -> Any:
            base, passed = servicer.find_base(find_model(servicer, request), context)
            if not base:
                return method(servicer, request, context)
            call = servicer.forwarder.ask(base, method.__name__, request, passed)
            with handing_back(context, call):
                return call.result()

        return answer

    return decorate


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Translates calls for the handlers. Calls for models of other bases go to `forwarder`."""

    def __init__(self, gate: ReadinessGate, forwarder: Forwarder) -> None:
        self.forwarder = forwarder
        self._gate = gate
        self._readers = SlowReaders()

    def find_base(self, model: str, context: grpc.ServicerContext) -> tuple[str, PassedCall]:
        """The other base that answers for a model, empty if this replica does, and what goes with the request."""
        caller = current_caller()
        passed = PassedCall.of(context, is_service=caller.kind == "service")
        base = routing.find_base(self._gate.inference(), caller, model, is_forwarded=passed.is_forwarded)
        return base, passed

    def find_specialist(self, request: Any) -> str:
        """The specialist of the draft that a request names."""
        record, _ = handlers.get_draft(self._gate.inference().archive, current_caller(), request.draft_id)
        return record.draft.served.specialist

    @passed_on_by(lambda _, request: request.model)
    def Generate(
        self, request: inference_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> inference_pb2.GenerateResponse:
        inference = self._gate.inference()
        answer = _begin(inference, request, context)
        for _ in answer:
            pass
        _raise_if_ended(context)
        provenance = wire.from_served(answer.served, inference.models.base)
        return encode(inference_pb2.GenerateResponse, answer, usage=_usage(answer), provenance=provenance)

    def StreamGenerate(
        self, request: inference_pb2.StreamGenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[inference_pb2.StreamGenerateResponse]:
        base, passed = self.find_base(request.request.model, context)
        if base:
            yield from self._stream_from(base, request, passed, context)
            return
        inference = self._gate.inference()
        answer = _begin(inference, request.request, context)
        try:
            for piece in answer:
                if not (piece.text or piece.thought or piece.log_probabilities):
                    continue
                with self._readers.reading(context.cancel):
                    yield inference_pb2.StreamGenerateResponse(
                        draft_id=answer.draft_id,
                        text=piece.text,
                        thought=piece.thought,
                        log_probabilities=_from_tokens(piece.log_probabilities),
                    )
        finally:
            answer.close()
        yield inference_pb2.StreamGenerateResponse(
            draft_id=answer.draft_id,
            finish_reason=answer.finish_reason,
            usage=_usage(answer),
            provenance=wire.from_served(answer.served, inference.models.base),
        )

    def _stream_from(
        self, base: str, request: inference_pb2.StreamGenerateRequest, passed: PassedCall, context: grpc.ServicerContext
    ) -> Iterator[inference_pb2.StreamGenerateResponse]:
        call = self.forwarder.stream(base, request, passed)
        try:
            with handing_back(context, call):
                for reply in call:
                    with self._readers.reading(context.cancel):
                        yield reply
        finally:
            call.cancel()

    def ListSpecialists(
        self, request: inference_pb2.ListSpecialistsRequest, context: grpc.ServicerContext
    ) -> inference_pb2.ListSpecialistsResponse:
        del request
        models, caller = self._gate.inference().models, current_caller()
        specialists = [
            inference_pb2.ServedSpecialist(
                name=name,
                provenance=wire.from_served(served, models.base),
                context_length=models.engine.context_length,
            )
            for name, served in handlers.list_specialists(models.table, caller)
        ]
        others = self.forwarder.list_specialists(PassedCall.of(context, is_service=caller.kind == "service"))
        return inference_pb2.ListSpecialistsResponse(specialists=merge_by_name(specialists, others))

    def GetDraft(
        self, request: inference_pb2.GetDraftRequest, context: grpc.ServicerContext
    ) -> inference_pb2.GetDraftResponse:
        del context
        archive = self._gate.inference().archive
        record, transcript = handlers.get_draft(archive, current_caller(), request.draft_id)
        draft = record.draft
        response = encode(
            inference_pb2.GetDraftResponse,
            draft,
            provenance=wire.from_served(draft.served, record.base),
            dataset_digest=draft.served.dataset_digest,
            usage=_usage(draft),
            text_state=_text_state(draft, is_readable=transcript is not None),
        )
        response.create_time.FromMilliseconds(round(draft.moment * 1000))
        if transcript is not None:
            response.answer = transcript.answer
            response.messages.extend(encode(inference_pb2.Message, message) for message in transcript.messages)
        return response

    @passed_on_by(find_specialist)
    def RegenerateDraft(
        self, request: inference_pb2.RegenerateDraftRequest, context: grpc.ServicerContext
    ) -> inference_pb2.RegenerateDraftResponse:
        cancellation = _cancellation(context)
        answer = handlers.regenerate_draft(self._gate.inference(), current_caller(), request.draft_id, cancellation)
        for _ in answer:
            pass
        _raise_if_ended(context)
        return inference_pb2.RegenerateDraftResponse(draft_id=answer.draft_id)

    @passed_on_by(lambda _, request: request.specialist)
    def AnswerDrawnPrompt(
        self, request: inference_pb2.AnswerDrawnPromptRequest, context: grpc.ServicerContext
    ) -> inference_pb2.AnswerDrawnPromptResponse:
        drawn = decode(RowPrompt, request)
        draft_id = answer_drawn_prompt(self._gate.inference(), current_caller(), drawn, _cancellation(context))
        _raise_if_ended(context)
        return inference_pb2.AnswerDrawnPromptResponse(draft_id=draft_id)

    @passed_on_by(find_specialist)
    def EditDraft(
        self, request: inference_pb2.EditDraftRequest, context: grpc.ServicerContext
    ) -> inference_pb2.EditDraftResponse:
        del context
        draft_id = edit_draft(self._gate.inference(), current_caller(), request.draft_id, request.text)
        return inference_pb2.EditDraftResponse(draft_id=draft_id)

    def RecordFeedback(
        self, request: inference_pb2.RecordFeedbackRequest, context: grpc.ServicerContext
    ) -> inference_pb2.RecordFeedbackResponse:
        del context
        archive = self._gate.inference().archive
        receipt = handlers.record_feedback(archive, current_caller(), wire.to_feedback(request))
        response = inference_pb2.RecordFeedbackResponse(
            feedback_id=receipt.feedback_id, edited_text_stored=receipt.has_edited_text
        )
        response.create_time.FromMilliseconds(round(receipt.moment * 1000))
        return response

    def ReportOutcome(
        self, request: inference_pb2.ReportOutcomeRequest, context: grpc.ServicerContext
    ) -> inference_pb2.ReportOutcomeResponse:
        del context
        archive = self._gate.inference().archive
        stored = handlers.report_outcome(archive, current_caller(), decode(OutcomeReport, request))
        response = inference_pb2.ReportOutcomeResponse(
            outcome_id=stored.outcome_id, specialist=stored.specialist, generation=stored.generation
        )
        response.create_time.FromMilliseconds(round(stored.moment * 1000))
        return response

    @passed_on_by(lambda _, request: wire.name_candidate(request))
    def LoadCandidate(
        self, request: inference_pb2.LoadCandidateRequest, context: grpc.ServicerContext
    ) -> inference_pb2.LoadCandidateResponse:
        del context
        candidate = handlers.load_candidate(self._gate.inference().models, wire.to_adapter(request))
        return inference_pb2.LoadCandidateResponse(model=candidate.model, parity=candidate.parity)

    @passed_on_by(lambda _, request: request.model)
    def Score(self, request: inference_pb2.ScoreRequest, context: grpc.ServicerContext) -> inference_pb2.ScoreResponse:
        inference, rows = self._gate.inference(), [decode(RowToScore, row) for row in request.rows]
        scores = handlers.score(inference, current_caller(), request.model, rows, lambda: not context.is_active())
        return inference_pb2.ScoreResponse(scores=[encode(inference_pb2.RowScore, score) for score in scores])


def merge_by_name(
    first: Iterable[inference_pb2.ServedSpecialist], others: Iterable[inference_pb2.ServedSpecialist]
) -> list[inference_pb2.ServedSpecialist]:
    """Each name once, sorted, bases first. A name that moves may be in both lists; the first counts."""
    by_name = {specialist.name: specialist for specialist in (*others, *first)}
    return sorted(by_name.values(), key=lambda item: (bool(item.provenance.specialist), item.name))


def _from_tokens(tokens: Iterable[TokenLogProbability]) -> list[inference_pb2.TokenLogProbability]:
    return [encode(inference_pb2.TokenLogProbability, token) for token in tokens]


def open_servers(runtime: Runtime, settings: Settings, gate: ReadinessGate, forwarder: Forwarder) -> RpcServer:
    """Accept calls over gRPC, and over HTTP if it has a port."""
    keys = authenticator(settings, runtime.name)
    servicers = [(inference_pb2_grpc.add_InferenceServiceServicer_to_server, InferenceServicer(gate, forwarder))]
    server = runtime.rpc(settings, servicers, keys, max_workers=settings.call_threads)
    if settings.http_port:
        from services.inference.web.http import Address, UvicornServer, create_app

        http = UvicornServer(create_app(gate, keys, forwarder, settings.call_threads), Address.from_settings(settings))
        runtime.serve(http)
        runtime.spawn("http", http.run)
    return server


def current_caller() -> Caller:
    """The caller of the call that is being served."""
    return to_caller(auth.current_caller())


def to_caller(caller: auth.Caller) -> Caller:
    return Caller(caller.kind, caller.name, caller.specialists, caller.key_id, caller.role)


def _begin(inference: Inference, request: inference_pb2.GenerateRequest, context: grpc.ServicerContext) -> Answer:
    return handlers.generate(inference, current_caller(), wire.to_request(request), _cancellation(context))


def _cancellation(context: grpc.ServicerContext) -> Cancellation:
    cancellation = Cancellation()
    # Runs when the caller cancels, goes away or its deadline passes; returns False if that has happened already.
    if not context.add_callback(cancellation.cancel):
        cancellation.cancel()
    return cancellation


def _raise_if_ended(context: grpc.ServicerContext) -> None:
    if not context.is_active():
        raise DeadlineExceeded(Reason.CALL_ENDED, "The caller went away, or its deadline passed.")


def _usage(answer: Answer | Draft) -> inference_pb2.Usage:
    return encode(inference_pb2.Usage, answer)


def _text_state(draft: Draft, *, is_readable: bool) -> inference_pb2.TextState.ValueType:
    if draft.text is None:
        return inference_pb2.TEXT_STATE_NOT_KEPT
    return inference_pb2.TEXT_STATE_KEPT if is_readable else inference_pb2.TEXT_STATE_EXPIRED

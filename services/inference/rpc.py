"""The gRPC face of inference."""

from collections.abc import Iterable, Iterator

import grpc

from services.inference import handlers
from services.inference.answering import Answer, Cancellation, Inference
from services.inference.checks import refuse_if
from services.inference.domain import (
    DEFAULT_MAX_TOKENS,
    AdapterName,
    Ask,
    Caller,
    Draft,
    LikelyToken,
    RowToScore,
    Sampling,
    Served,
    TokenLogProbability,
    Turn,
)
from services.inference.handlers import Door
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.errors import DeadlineExceeded, Reason
from tailor.rpc import auth
from tailor.storage.ref import Ref

NAME = "inference"


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Translates calls to handlers."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def Generate(
        self, request: inference_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> inference_pb2.GenerateResponse:
        """Answer once."""
        inference = self._door.inference()
        answer = self._begin(inference, request, context)
        for _ in answer:
            pass
        if not context.is_active():
            raise DeadlineExceeded(Reason.CALL_ENDED, "The caller went away or its deadline passed.")
        return inference_pb2.GenerateResponse(
            draft_id=answer.draft_id,
            text=answer.text,
            finish_reason=answer.finish_reason,
            usage=_usage(answer),
            provenance=_provenance(inference, answer.served),
            log_probabilities=map(_told, answer.log_probabilities),
        )

    def StreamGenerate(
        self, request: inference_pb2.StreamGenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[inference_pb2.StreamGenerateResponse]:
        """Answer as the words come."""
        inference = self._door.inference()
        answer = self._begin(inference, request.request, context)
        try:
            for piece in answer:
                if piece.text or piece.log_probabilities:
                    told = map(_told, piece.log_probabilities)
                    yield inference_pb2.StreamGenerateResponse(
                        draft_id=answer.draft_id, text=piece.text, log_probabilities=told
                    )
        finally:
            answer.close()
        yield inference_pb2.StreamGenerateResponse(
            draft_id=answer.draft_id,
            finish_reason=answer.finish_reason,
            usage=_usage(answer),
            provenance=_provenance(inference, answer.served),
        )

    def ListSpecialists(
        self, request: inference_pb2.ListSpecialistsRequest, context: grpc.ServicerContext
    ) -> inference_pb2.ListSpecialistsResponse:
        """List what the caller may use."""
        del request, context
        inference = self._door.inference()
        specialists = [
            inference_pb2.ServedSpecialist(
                name=name,
                provenance=_provenance(inference, served),
                context_length=inference.engine.context_length,
            )
            for name, served in handlers.list_specialists(inference, caller())
        ]
        return inference_pb2.ListSpecialistsResponse(specialists=specialists)

    def GetDraft(
        self, request: inference_pb2.GetDraftRequest, context: grpc.ServicerContext
    ) -> inference_pb2.GetDraftResponse:
        """Tell what is known of a draft."""
        del context
        record, said = handlers.get_draft(self._door.inference(), caller(), request.draft_id)
        draft = record.draft
        response = inference_pb2.GetDraftResponse(
            draft_id=draft.draft_id,
            provenance=_what_answered(draft.served, record.base),
            dataset_digest=draft.served.dataset_digest,
            usage=inference_pb2.Usage(prompt_tokens=draft.prompt_tokens, completion_tokens=draft.completion_tokens),
            finish_reason=draft.finish_reason,
            first_token_seconds=draft.first_token_seconds,
            seconds=draft.seconds,
            text_state=_text_state(draft, here=said is not None),
        )
        response.create_time.FromMilliseconds(round(draft.moment * 1000))
        if said is not None:
            response.answer = said.answer
            response.messages.extend(inference_pb2.Message(role=t.role, content=t.content) for t in said.turns)
        return response

    def LoadCandidate(
        self, request: inference_pb2.LoadCandidateRequest, context: grpc.ServicerContext
    ) -> inference_pb2.LoadCandidateResponse:
        """Load an adapter for evaluation."""
        del context
        manifest = Ref(request.manifest.uri, request.manifest.sha256, request.manifest.size_bytes)
        adapter = AdapterName(request.adapter_digest, manifest)
        candidate = handlers.load_candidate(self._door.inference(), adapter)
        return inference_pb2.LoadCandidateResponse(model=candidate.model, parity=candidate.parity)

    def Score(self, request: inference_pb2.ScoreRequest, context: grpc.ServicerContext) -> inference_pb2.ScoreResponse:
        """Score given answers."""
        rows = [RowToScore(_turns(row.messages), row.completion) for row in request.rows]
        scores = handlers.score(self._door.inference(), caller(), request.model, rows, lambda: not context.is_active())
        return inference_pb2.ScoreResponse(
            scores=[inference_pb2.RowScore(log_probability=s.log_probability, tokens=s.tokens) for s in scores]
        )

    def _begin(
        self, inference: Inference, request: inference_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Answer:
        cancellation = Cancellation()
        # Runs when the caller cancels, goes away or its deadline passes; at once False where that has happened already.
        if not context.add_callback(cancellation.cancel):
            cancellation.cancel()
        return handlers.generate(inference, caller(), to_ask(request), cancellation)


def caller() -> Caller:
    """The caller of the call being served, in our own terms."""
    found = auth.current_caller()
    return Caller(found.kind, found.name, found.specialists, found.key_id, found.role)


def to_ask(request: inference_pb2.GenerateRequest) -> Ask:
    """A question in our own terms: messages, then the prompt as a last user turn."""
    turns = _turns(request.messages)
    if request.prompt:
        turns = (*turns, Turn("user", request.prompt))
    sampling = request.sampling
    return Ask(
        request.model,
        turns,
        Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p or 1.0,
            seed=sampling.seed or None,
            max_tokens=sampling.max_tokens or DEFAULT_MAX_TOKENS,
            stop=tuple(sampling.stop),
            repetition_penalty=sampling.repetition_penalty or 1.0,
            schema=request.json_schema,
            top_log_probabilities=_top(request),
        ),
    )


def _top(request: inference_pb2.GenerateRequest) -> int | None:
    if request.log_probabilities:
        return request.top_log_probabilities
    wrong = {"top_log_probabilities": "Only with log_probabilities."} if request.top_log_probabilities else {}
    refuse_if(wrong, Reason.INVALID_REQUEST)
    return None


def _turns(messages: Iterable[inference_pb2.Message]) -> tuple[Turn, ...]:
    return tuple(Turn(message.role, message.content) for message in messages)


def _told(written: TokenLogProbability) -> inference_pb2.TokenLogProbability:
    return inference_pb2.TokenLogProbability(token=_likely(written.token), top=map(_likely, written.top))


def _likely(token: LikelyToken) -> inference_pb2.LikelyToken:
    return inference_pb2.LikelyToken(token=token.token, log_probability=token.log_probability)


def _usage(answer: Answer) -> inference_pb2.Usage:
    return inference_pb2.Usage(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)


def _text_state(draft: Draft, *, here: bool) -> inference_pb2.TextState.ValueType:
    if draft.text is None:
        return inference_pb2.TEXT_STATE_NOT_KEPT
    return inference_pb2.TEXT_STATE_KEPT if here else inference_pb2.TEXT_STATE_EXPIRED


def _provenance(inference: Inference, served: Served) -> inference_pb2.Provenance:
    return _what_answered(served, inference.base)


def _what_answered(served: Served, base: str) -> inference_pb2.Provenance:
    return inference_pb2.Provenance(
        specialist=served.specialist,
        generation=served.generation,
        adapter_digest=served.adapter_digest,
        base=base,
        canary=served.is_canary,
    )

"""Translates inference's messages to its domain and back, so that rules know no protobuf. A new field of a message is added here."""

from collections.abc import Iterable

from services.inference.domain import (
    AdapterRef,
    Canary,
    ChatMessage,
    Draft,
    DraftFeedback,
    DraftRecord,
    GenerationRequest,
    LikelyToken,
    OutcomeReport,
    RowToScore,
    Sampling,
    ServedModel,
    StoredFeedback,
    StoredOutcome,
    TokenLogProbability,
)
from services.inference.validation import raise_if_invalid
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.api.registry.v1 import feedback_pb2, outcomes_pb2
from tailor.storage.ref import Ref
from tailor.wire import from_ref

VERDICTS = {
    "accepted": common_pb2.FEEDBACK_VERDICT_ACCEPTED,
    "edited": common_pb2.FEEDBACK_VERDICT_EDITED,
    "rejected": common_pb2.FEEDBACK_VERDICT_REJECTED,
}
VERDICT_WORDS = {number: word for word, number in VERDICTS.items()}


def to_request(message: inference_pb2.GenerateRequest) -> GenerationRequest:
    """The messages, then the prompt as the user's last message. Raises InvalidArgument for contradicting fields."""
    messages = to_messages(message.messages)
    if message.prompt:
        messages = (*messages, ChatMessage("user", message.prompt))
    sampling = message.sampling
    return GenerationRequest(
        message.model,
        messages,
        Sampling(
            temperature=_decimal(sampling.temperature),
            top_p=_decimal(sampling.top_p) or 1.0,
            seed=sampling.seed or None,
            max_tokens=sampling.max_tokens,
            stop=tuple(sampling.stop),
            repetition_penalty=_decimal(sampling.repetition_penalty) or 1.0,
            schema=message.json_schema,
            top_log_probabilities=_to_top(message),
        ),
        _unset(sampling),
        message.request_id,
    )


def _decimal(value: float) -> float:
    """The number that the caller wrote: a 32-bit float holds about seven of its digits, such as 1.0499999 of 1.05."""
    return round(value, 6)


def _unset(sampling: inference_pb2.Sampling) -> frozenset[str]:
    names = [name for name in ("top_p", "repetition_penalty", "max_tokens") if not getattr(sampling, name)]
    return frozenset(names if sampling.HasField("temperature") else [*names, "temperature"])


def _to_top(message: inference_pb2.GenerateRequest) -> int | None:
    if message.log_probabilities:
        return message.top_log_probabilities
    raise_if_invalid({"top_log_probabilities": "needs log_probabilities"} if message.top_log_probabilities else {})
    return None


def to_messages(messages: Iterable[inference_pb2.Message]) -> tuple[ChatMessage, ...]:
    return tuple(ChatMessage(message.role, message.content) for message in messages)


def from_messages(messages: Iterable[ChatMessage]) -> list[inference_pb2.Message]:
    return [inference_pb2.Message(role=message.role, content=message.content) for message in messages]


def to_rows(rows: Iterable[inference_pb2.ScoreRow]) -> list[RowToScore]:
    return [RowToScore(to_messages(row.messages), row.completion) for row in rows]


def from_log_probability(token: TokenLogProbability) -> inference_pb2.TokenLogProbability:
    return inference_pb2.TokenLogProbability(token=_from_likely(token.token), top=map(_from_likely, token.top))


def _from_likely(token: LikelyToken) -> inference_pb2.LikelyToken:
    return inference_pb2.LikelyToken(token=token.token, log_probability=token.log_probability)


def from_served(served: ServedModel, base: str) -> inference_pb2.Provenance:
    return inference_pb2.Provenance(
        specialist=served.specialist,
        generation=served.generation,
        adapter_digest=served.adapter_digest,
        base=base,
        canary=served.is_canary,
    )


def to_served(message: models_pb2.SpecialistServing) -> ServedModel:
    return ServedModel(
        specialist=message.specialist,
        generation=message.generation,
        adapter=to_adapter(message) if message.adapter_digest else None,
        dataset_digest=message.dataset_digest,
        system_prompt=message.system_prompt,
        private_prompts=message.private_prompts,
        canary=_to_canary(message.canary) if message.HasField("canary") else None,
    )


def _to_canary(message: models_pb2.ServingCanary) -> Canary:
    return Canary(to_adapter(message), message.dataset_digest, message.system_prompt, message.percent)


def to_adapter(
    message: models_pb2.SpecialistServing | models_pb2.ServingCanary | inference_pb2.LoadCandidateRequest,
) -> AdapterRef:
    manifest = message.manifest
    return AdapterRef(message.adapter_digest, Ref(manifest.uri, manifest.sha256, manifest.size_bytes))


def from_draft(draft: Draft, base: str) -> drafts_pb2.DraftCreated:
    message = drafts_pb2.DraftCreated(
        draft_id=draft.draft_id,
        specialist=draft.served.specialist,
        generation=draft.served.generation,
        adapter_digest=draft.served.adapter_digest,
        dataset_digest=draft.served.dataset_digest,
        base=base,
        prompt_digest=draft.prompt_digest,
        answer_digest=draft.answer_digest,
        prompt_tokens=draft.prompt_tokens,
        completion_tokens=draft.completion_tokens,
        finish_reason=draft.finish_reason,
        first_token_seconds=draft.first_token_seconds,
        seconds=draft.seconds,
        key_id=draft.key_id,
        canary=draft.served.is_canary,
        text=None if draft.text is None else from_ref(draft.text),
        edit_of=draft.edit_of,
        compute_seconds=draft.compute_seconds,
        compute_device=draft.compute_device,
        drawn_from=draft.drawn_from,
    )
    message.create_time.FromMilliseconds(round(draft.moment * 1000))
    return message


def to_record(message: drafts_pb2.DraftCreated) -> DraftRecord:
    # Readers of a draft do not need its adapter's manifest.
    adapter = AdapterRef(message.adapter_digest, Ref("", "", 0)) if message.adapter_digest else None
    text = message.text
    served = ServedModel(
        message.specialist, message.generation, adapter, message.dataset_digest, is_canary=message.canary
    )
    draft = Draft(
        draft_id=message.draft_id,
        served=served,
        key_id=message.key_id,
        prompt_digest=message.prompt_digest,
        answer_digest=message.answer_digest,
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        finish_reason=message.finish_reason,
        first_token_seconds=message.first_token_seconds,
        seconds=message.seconds,
        text=Ref(text.uri, text.sha256, text.size_bytes) if message.HasField("text") else None,
        moment=message.create_time.ToMilliseconds() / 1000,
        edit_of=message.edit_of,
        compute_seconds=message.compute_seconds,
        compute_device=message.compute_device,
        drawn_from=tuple(message.drawn_from),
    )
    return DraftRecord(draft, message.base)


def to_feedback(message: inference_pb2.RecordFeedbackRequest) -> DraftFeedback:
    """An unknown verdict becomes an empty one, which the registry refuses."""
    verdict = VERDICT_WORDS.get(message.verdict, "")
    return DraftFeedback(message.draft_id, verdict, message.edited_text, message.stars, message.comment)


def to_store_feedback(feedback: DraftFeedback, key_id: str) -> feedback_pb2.StoreFeedbackRequest:
    return feedback_pb2.StoreFeedbackRequest(
        draft_id=feedback.draft_id,
        caller_id=key_id,
        verdict=VERDICTS.get(feedback.verdict, common_pb2.FEEDBACK_VERDICT_UNSPECIFIED),
        edited_text=feedback.edited_text,
        stars=feedback.stars,
        comment=feedback.comment,
    )


def to_stored_feedback(message: feedback_pb2.Feedback) -> StoredFeedback:
    return StoredFeedback(message.feedback_id, bool(message.edited_text), message.create_time.ToMilliseconds() / 1000)


def to_outcome_report(message: inference_pb2.ReportOutcomeRequest) -> OutcomeReport:
    return OutcomeReport(
        message.draft_id, message.specialist, message.request_id, message.minutes, message.satisfaction
    )


def to_store_outcome(report: OutcomeReport, key_id: str) -> outcomes_pb2.StoreOutcomeRequest:
    return outcomes_pb2.StoreOutcomeRequest(
        draft_id=report.draft_id,
        specialist=report.specialist,
        caller_id=key_id,
        request_id=report.request_id,
        minutes=report.minutes,
        satisfaction=report.satisfaction,
    )


def to_stored_outcome(message: outcomes_pb2.DraftOutcome) -> StoredOutcome:
    return StoredOutcome(
        message.outcome_id, message.specialist, message.generation, message.create_time.ToMilliseconds() / 1000
    )

"""Translates inference's messages to its domain and back where their fields differ; `tailor.codec` does the rest."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.inference.deployments import MovedName, ReadyReplica
from services.inference.domain import (
    AT_BASE,
    BASE,
    CANDIDATE_PREFIX,
    AdapterRef,
    Canary,
    ChatMessage,
    Draft,
    DraftFeedback,
    DraftRecord,
    GenerationRequest,
    PromptRecord,
    Sampling,
    ServedModel,
    StoredFeedback,
    StoredOutcome,
)
from services.inference.validation import raise_if_invalid
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.api.registry.v1 import feedback_pb2, outcomes_pb2
from tailor.codec import decode, dump, encode
from tailor.storage.ref import Ref

VERDICTS = {
    "accepted": common_pb2.FEEDBACK_VERDICT_ACCEPTED,
    "edited": common_pb2.FEEDBACK_VERDICT_EDITED,
    "rejected": common_pb2.FEEDBACK_VERDICT_REJECTED,
}
VERDICT_WORDS = {number: word for word, number in VERDICTS.items()}


def to_request(message: inference_pb2.GenerateRequest) -> GenerationRequest:
    """The messages, then the prompt as the user's last message. Raises InvalidArgument for contradicting fields."""
    messages = tuple(decode(ChatMessage, item) for item in message.messages)
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
            thinking=decode(Sampling, sampling).thinking,
        ),
        _unset(sampling),
        message.request_id,
    )


def from_request(request: GenerationRequest) -> inference_pb2.GenerateRequest:
    """The message of which `to_request` makes this request again."""
    sampling = request.sampling
    message = encode(inference_pb2.GenerateRequest, request, json_schema=sampling.schema, sampling=None)
    for name in ("temperature", "top_p", "repetition_penalty", "max_tokens"):
        if name not in request.unset:
            setattr(message.sampling, name, getattr(sampling, name))
    message.sampling.seed = sampling.seed or 0
    message.sampling.stop.extend(sampling.stop)
    if sampling.top_log_probabilities is not None:
        message.log_probabilities, message.top_log_probabilities = True, sampling.top_log_probabilities
    return message


def name_base(base: str) -> str:
    """The name by which a call means the base of another deployment."""
    return f"{BASE}{AT_BASE}{base}"


def name_candidate(request: inference_pb2.LoadCandidateRequest) -> str:
    return f"{CANDIDATE_PREFIX}{request.adapter_digest}{AT_BASE}{request.base}"


def _decimal(value: float) -> float:
    """The number that the caller wrote: a 32-bit float holds about seven of its digits, such as 1.0499999 of 1.05."""
    return round(value, 6)


def _unset(sampling: inference_pb2.Sampling) -> frozenset[str]:
    names = [name for name in ("top_p", "repetition_penalty", "max_tokens", "thinking") if not getattr(sampling, name)]
    return frozenset(names if sampling.HasField("temperature") else [*names, "temperature"])


def _to_top(message: inference_pb2.GenerateRequest) -> int | None:
    if message.log_probabilities:
        return message.top_log_probabilities
    raise_if_invalid({"top_log_probabilities": "needs log_probabilities"} if message.top_log_probabilities else {})
    return None


def from_served(served: ServedModel, base: str) -> inference_pb2.Provenance:
    return encode(inference_pb2.Provenance, served, base=base, canary=served.is_canary)


def to_served(message: models_pb2.SpecialistServing) -> ServedModel:
    adapter = to_adapter(message) if message.adapter_digest else None
    canary = decode(Canary, message.canary, adapter=to_adapter(message.canary)) if message.HasField("canary") else None
    return decode(ServedModel, message, adapter=adapter, canary=canary)


def to_moved(message: models_pb2.SpecialistServing) -> MovedName:
    return decode(MovedName, message)


def to_replica(message: models_pb2.ReplicaSeen) -> ReadyReplica:
    seen = message.create_time.ToMilliseconds() / 1000
    generations = dict(message.generations)
    return decode(
        ReadyReplica, message, name=message.replica, seen=seen, generations=generations, merged=message.adapter_digest
    )


def from_replica(replica: ReadyReplica, *, leaving: bool) -> models_pb2.ReplicaSeen:
    moment = Timestamp()
    moment.FromMilliseconds(round(replica.seen * 1000))
    return models_pb2.ReplicaSeen(
        replica=replica.name,
        base=replica.base,
        leaving=leaving,
        create_time=moment,
        address=replica.address,
        generations=replica.generations,
        adapter_digest=replica.merged,
    )


def to_adapter(
    message: models_pb2.SpecialistServing | models_pb2.ServingCanary | inference_pb2.LoadCandidateRequest,
) -> AdapterRef:
    return AdapterRef(message.adapter_digest, decode(Ref, message.manifest))


def from_draft(draft: Draft, base: str) -> drafts_pb2.DraftCreated:
    served, moment = draft.served, Timestamp()
    moment.FromMilliseconds(round(draft.moment * 1000))
    return encode(
        drafts_pb2.DraftCreated,
        draft,
        **dump(draft.prompt),
        specialist=served.specialist,
        generation=served.generation,
        adapter_digest=served.adapter_digest,
        dataset_digest=served.dataset_digest,
        canary=served.is_canary,
        base=base,
        create_time=moment,
    )


def to_record(message: drafts_pb2.DraftCreated) -> DraftRecord:
    # Readers of a draft do not need its adapter's manifest.
    adapter = AdapterRef(message.adapter_digest, Ref("", "", 0)) if message.adapter_digest else None
    served = ServedModel(
        message.specialist, message.generation, adapter, message.dataset_digest, is_canary=message.canary
    )
    moment = message.create_time.ToMilliseconds() / 1000
    prompt = decode(PromptRecord, message)
    return DraftRecord(decode(Draft, message, served=served, prompt=prompt, moment=moment), message.base)


def to_feedback(message: inference_pb2.RecordFeedbackRequest) -> DraftFeedback:
    """An unknown verdict becomes an empty one, which the registry refuses."""
    return decode(DraftFeedback, message, verdict=VERDICT_WORDS.get(message.verdict, ""))


def to_store_feedback(feedback: DraftFeedback, key_id: str) -> feedback_pb2.StoreFeedbackRequest:
    verdict = VERDICTS.get(feedback.verdict, common_pb2.FEEDBACK_VERDICT_UNSPECIFIED)
    return encode(feedback_pb2.StoreFeedbackRequest, feedback, caller_id=key_id, verdict=verdict)


def to_stored_feedback(message: feedback_pb2.Feedback) -> StoredFeedback:
    return StoredFeedback(message.feedback_id, bool(message.edited_text), message.create_time.ToMilliseconds() / 1000)


def to_stored_outcome(message: outcomes_pb2.DraftOutcome) -> StoredOutcome:
    return decode(StoredOutcome, message, moment=message.create_time.ToMilliseconds() / 1000)

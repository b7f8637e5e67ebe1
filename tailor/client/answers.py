"""Messages and answers of the clients, as frozen values."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from tailor.api.inference.v1 import inference_pb2

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    role: Role
    content: str


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens of the prompt and the answer."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Provenance:
    """The model that answered. The base has no specialist, no adapter and generation 0.

    `canary` is True if the adapter is being tried on a share of the callers.
    """

    specialist: str
    generation: int
    adapter_digest: str
    base: str
    canary: bool = False


@dataclass(frozen=True)
class LikelyToken:
    """A token's characters and its natural log-probability before temperature, penalty and schema are applied."""

    token: str
    log_probability: float


@dataclass(frozen=True)
class TokenLogProbability:
    """A token of the answer, including its end of turn, and the likeliest tokens at its position, likeliest first."""

    token: LikelyToken
    top: tuple[LikelyToken, ...]


@dataclass(frozen=True)
class Answer:
    """A whole answer. `finish_reason` is `stop` or `length`; `tailor trace` takes the `draft_id`.

    `log_probabilities` has one entry per token if they were requested.
    """

    text: str
    draft_id: str
    finish_reason: str
    usage: Usage
    provenance: Provenance
    log_probabilities: tuple[TokenLogProbability, ...] = ()


@dataclass(frozen=True)
class Piece:
    """The next characters of a streamed answer. Only the last piece has a finish reason, usage and provenance.

    A token's log-probability may arrive before its characters, in a piece without text.
    """

    text: str
    draft_id: str
    finish_reason: str = ""
    usage: Usage | None = None
    provenance: Provenance | None = None
    log_probabilities: tuple[TokenLogProbability, ...] = ()


@dataclass(frozen=True)
class ServedSpecialist:
    """A specialist and the model behind its name now. `context_length` limits the tokens of prompt and answer together."""

    name: str
    provenance: Provenance
    context_length: int


@dataclass(frozen=True)
class Draft:
    """The record of an answer that was served.

    `messages` and `answer` are anonymised. They are empty unless `text` is `kept`: specialists store texts only if configured to,
    and only for a time.
    """

    draft_id: str
    text: Literal["kept", "not kept", "expired"]
    messages: tuple[Message, ...]
    answer: str
    finish_reason: str
    usage: Usage
    provenance: Provenance
    dataset_digest: str
    first_token_seconds: float
    seconds: float
    create_time: datetime


@dataclass(frozen=True)
class FeedbackReceipt:
    """What was stored. There is one feedback for each draft and key; a later one replaces it.

    `edited_text_stored` is False if no edited text was given, or the specialist does not keep its drafts' texts.
    """

    feedback_id: str
    edited_text_stored: bool
    create_time: datetime


@dataclass(frozen=True)
class OutcomeReceipt:
    """What was stored, and for which specialist and generation it counts; generation 0 is the baseline."""

    outcome_id: str
    specialist: str
    generation: int
    create_time: datetime


TEXT_STATES: dict[int, Literal["kept", "not kept", "expired"]] = {
    inference_pb2.TEXT_STATE_KEPT: "kept",
    inference_pb2.TEXT_STATE_EXPIRED: "expired",
}


def to_answer(response: inference_pb2.GenerateResponse) -> Answer:
    return Answer(
        text=response.text,
        draft_id=response.draft_id,
        finish_reason=response.finish_reason,
        usage=_usage(response.usage),
        provenance=_provenance(response.provenance),
        log_probabilities=tuple(map(_to_token, response.log_probabilities)),
    )


def to_piece(response: inference_pb2.StreamGenerateResponse) -> Piece:
    return Piece(
        text=response.text,
        draft_id=response.draft_id,
        finish_reason=response.finish_reason,
        usage=_usage(response.usage) if response.HasField("usage") else None,
        provenance=_provenance(response.provenance) if response.HasField("provenance") else None,
        log_probabilities=tuple(map(_to_token, response.log_probabilities)),
    )


def to_specialist(served: inference_pb2.ServedSpecialist) -> ServedSpecialist:
    return ServedSpecialist(served.name, _provenance(served.provenance), served.context_length)


def to_draft(response: inference_pb2.GetDraftResponse) -> Draft:
    return Draft(
        draft_id=response.draft_id,
        text=TEXT_STATES.get(response.text_state, "not kept"),
        messages=tuple(Message(cast(Role, message.role), message.content) for message in response.messages),
        answer=response.answer,
        finish_reason=response.finish_reason,
        usage=_usage(response.usage),
        provenance=_provenance(response.provenance),
        dataset_digest=response.dataset_digest,
        first_token_seconds=response.first_token_seconds,
        seconds=response.seconds,
        create_time=response.create_time.ToDatetime(UTC),
    )


def to_receipt(response: inference_pb2.RecordFeedbackResponse) -> FeedbackReceipt:
    return FeedbackReceipt(response.feedback_id, response.edited_text_stored, response.create_time.ToDatetime(UTC))


def to_outcome_receipt(response: inference_pb2.ReportOutcomeResponse) -> OutcomeReceipt:
    return OutcomeReceipt(
        response.outcome_id, response.specialist, response.generation, response.create_time.ToDatetime(UTC)
    )


def _to_token(token: inference_pb2.TokenLogProbability) -> TokenLogProbability:
    return TokenLogProbability(_likely(token.token), tuple(map(_likely, token.top)))


def _likely(token: inference_pb2.LikelyToken) -> LikelyToken:
    return LikelyToken(token.token, token.log_probability)


def _usage(usage: inference_pb2.Usage) -> Usage:
    return Usage(usage.prompt_tokens, usage.completion_tokens)


def _provenance(provenance: inference_pb2.Provenance) -> Provenance:
    return Provenance(
        provenance.specialist,
        provenance.generation,
        provenance.adapter_digest,
        provenance.base,
        provenance.canary,
    )

"""What a caller says and gets, as plain frozen values."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from tailor.api.inference.v1 import inference_pb2

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True)
class Usage:
    """Tokens of the prompt and of the answer."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Provenance:
    """What answered; the base has no specialist, generation 0 and no adapter. `canary` is True where the adapter is tried on a share of the
    callers."""

    specialist: str
    generation: int
    adapter_digest: str
    base: str
    canary: bool = False


@dataclass(frozen=True)
class LikelyToken:
    """A token's characters and its natural log-probability, as the model has it before temperature, penalty and schema."""

    token: str
    log_probability: float


@dataclass(frozen=True)
class TokenLogProbability:
    """A token of the answer, the end of turn included, and the likeliest in its place, likeliest first."""

    token: LikelyToken
    top: tuple[LikelyToken, ...]


@dataclass(frozen=True)
class Answer:
    """One whole answer. `finish_reason` is `stop` or `length`; `draft_id` is what `tailor trace` takes.

    `log_probabilities` has one per token where they were asked for.
    """

    text: str
    draft_id: str
    finish_reason: str
    usage: Usage
    provenance: Provenance
    log_probabilities: tuple[TokenLogProbability, ...] = ()


@dataclass(frozen=True)
class Piece:
    """The next characters of a streamed answer. The last piece alone has a finish reason, usage and provenance.

    A token's log-probability may come before its characters, in a piece without text.
    """

    text: str
    draft_id: str
    finish_reason: str = ""
    usage: Usage | None = None
    provenance: Provenance | None = None
    log_probabilities: tuple[TokenLogProbability, ...] = ()


@dataclass(frozen=True)
class ServedSpecialist:
    """What a name means now. `context_length` counts the tokens of prompt and answer together."""

    name: str
    provenance: Provenance
    context_length: int


@dataclass(frozen=True)
class Draft:
    """What is known of an answer that was served.

    `messages` and `answer` are anonymised, and empty unless `text` is `kept`: a specialist keeps texts only if it is told to, for a while.
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


TEXT_STATES: dict[int, Literal["kept", "not kept", "expired"]] = {
    inference_pb2.TEXT_STATE_KEPT: "kept",
    inference_pb2.TEXT_STATE_EXPIRED: "expired",
}


def to_answer(response: inference_pb2.GenerateResponse) -> Answer:
    """The wire's answer."""
    return Answer(
        text=response.text,
        draft_id=response.draft_id,
        finish_reason=response.finish_reason,
        usage=_usage(response.usage),
        provenance=_provenance(response.provenance),
        log_probabilities=tuple(map(_told, response.log_probabilities)),
    )


def to_piece(response: inference_pb2.StreamGenerateResponse) -> Piece:
    """The wire's piece."""
    return Piece(
        text=response.text,
        draft_id=response.draft_id,
        finish_reason=response.finish_reason,
        usage=_usage(response.usage) if response.HasField("usage") else None,
        provenance=_provenance(response.provenance) if response.HasField("provenance") else None,
        log_probabilities=tuple(map(_told, response.log_probabilities)),
    )


def to_specialist(served: inference_pb2.ServedSpecialist) -> ServedSpecialist:
    """The wire's entry."""
    return ServedSpecialist(served.name, _provenance(served.provenance), served.context_length)


def to_draft(found: inference_pb2.GetDraftResponse) -> Draft:
    """The wire's draft."""
    return Draft(
        draft_id=found.draft_id,
        text=TEXT_STATES.get(found.text_state, "not kept"),
        messages=tuple(Message(cast(Role, message.role), message.content) for message in found.messages),
        answer=found.answer,
        finish_reason=found.finish_reason,
        usage=_usage(found.usage),
        provenance=_provenance(found.provenance),
        dataset_digest=found.dataset_digest,
        first_token_seconds=found.first_token_seconds,
        seconds=found.seconds,
        create_time=found.create_time.ToDatetime(UTC),
    )


def _told(written: inference_pb2.TokenLogProbability) -> TokenLogProbability:
    return TokenLogProbability(_likely(written.token), tuple(map(_likely, written.top)))


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

"""Messages and answers of the clients, as frozen values."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tailor.api.inference.v1 import inference_pb2
from tailor.codec import decode

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

    `log_probabilities` has one entry per token if they were requested. `thought` is what the base thought before it answered, if the
    specialist shows that.
    """

    text: str
    draft_id: str
    finish_reason: str
    usage: Usage
    provenance: Provenance
    log_probabilities: tuple[TokenLogProbability, ...] = ()
    thought: str = ""


@dataclass(frozen=True)
class Piece:
    """The next characters of a streamed answer, or of the thought before it. Only the last piece has a finish reason, usage and provenance.

    A token's log-probability may arrive before its characters, in a piece without text.
    """

    text: str
    draft_id: str
    finish_reason: str = ""
    usage: Usage | None = None
    provenance: Provenance | None = None
    log_probabilities: tuple[TokenLogProbability, ...] = ()
    thought: str = ""


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


def to_draft(response: inference_pb2.GetDraftResponse) -> Draft:
    return decode(Draft, response, text=TEXT_STATES.get(response.text_state, "not kept"))

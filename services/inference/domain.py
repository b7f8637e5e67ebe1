"""Inference's values and rules: requests, answers, drafts, and the models that names stand for. Imports no library."""

import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from tailor import values
from tailor.storage.ref import Ref

BASE = "base"
CANDIDATE_PREFIX = "adapter:"
# Between the name of a model and the base that it means: `base@BASE`, `adapter:DIGEST@BASE`.
AT_BASE = "@"
ROLES = ("system", "user", "assistant")
MAX_ROWS = 64
MAX_PROBES = 16
CALLER_ROLE = "ROLE_CALLER"

# Finish reasons.
STOPPED = "stop"
LENGTH = "length"
CANCELLED = "cancelled"
FAILED = "error"
# A person wrote it.
EDITED = "edited"

# `is_in_share` compares 64 bits of a hash.
HASHES = 2**64


@dataclass(frozen=True)
class Caller:
    """A service or the holder of an API key. An empty set of specialists admits all of them."""

    kind: str
    name: str
    specialists: frozenset[str] = frozenset()
    key_id: str = ""
    role: str = ""

    @property
    def is_evaluation(self) -> bool:
        """True for the evaluation service, the only caller that may use candidates."""
        return self.kind == "service" and self.name == "evaluation"

    @property
    def leaves_drafts(self) -> bool:
        """True if answers to this caller are published as drafts, which experts may judge."""
        return self.kind == "key" or self.name == "console"

    def may_use(self, specialist: str) -> bool:
        return not self.specialists or specialist in self.specialists

    def may_see(self, specialist: str, key_id: str) -> bool:
        """True if the caller may see a draft of this specialist (empty for the base) that was requested with this key."""
        is_own = self.role != CALLER_ROLE or key_id == self.key_id
        return is_own and (not specialist or self.may_use(specialist))


@dataclass(frozen=True)
class ChatMessage:
    """One message of a chat; the role is one of ROLES."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Temperature 0 always takes the likeliest token. Without a seed the draw is not repeatable. `max_tokens` 0 means what the context leaves.
    The answer follows the JSON schema `schema`. `top_log_probabilities` is None for no log-probabilities; a number n asks for those of each
    written token and of the n likeliest. With `with_control_tokens` the text has the model's control tokens.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = 0
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0
    schema: str = ""
    top_log_probabilities: int | None = None
    thinking: values.Thinking = values.Thinking.OFF
    with_control_tokens: bool = False


@dataclass(frozen=True)
class GenerationRequest:
    """A chat to answer by a model name.

    `unset` names the fields of `sampling` that the caller left to the specialist. A repeated call has the same `request_id`, if it has one.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    unset: frozenset[str] = frozenset()
    request_id: str = ""

    def with_defaults(self, defaults: values.SamplingDefaults) -> "GenerationRequest":
        """The same request with the specialist's values in the fields that are unset."""
        values = {name: getattr(defaults, name) for name in self.unset}
        return replace(self, sampling=replace(self.sampling, **values), unset=frozenset())


@dataclass(frozen=True)
class AdapterRef:
    """An adapter and its manifest; the digest is the manifest's SHA-256."""

    digest: str
    manifest: Ref


@dataclass(frozen=True)
class Canary:
    """A candidate that answers a share of the callers, in percent."""

    adapter: AdapterRef
    dataset_digest: str
    system_prompt: str
    percent: int


@dataclass(frozen=True)
class ServedModel:
    """The model that a name stands for. `adapter` is None for the base, and for a specialist before its first adapter.

    `private_prompts` counts until the specialist's definition arrives. `is_canary` is set in the result of `for_caller` only.
    """

    specialist: str = ""
    generation: int = 0
    adapter: AdapterRef | None = None
    dataset_digest: str = ""
    system_prompt: str = ""
    private_prompts: bool = False
    canary: Canary | None = None
    is_canary: bool = False

    @property
    def adapter_digest(self) -> str:
        """Digest of the adapter; empty for the base."""
        return self.adapter.digest if self.adapter else ""

    @property
    def adapters(self) -> tuple[AdapterRef, ...]:
        """Every adapter that may answer some caller."""
        canary = self.canary.adapter if self.canary else None
        return tuple(adapter for adapter in (canary, self.adapter) if adapter)

    def for_caller(self, caller: Caller) -> "ServedModel":
        """The arm of the canary that answers this caller. One key always gets the same arm; services never get the canary."""
        canary = self.canary
        if canary is None or not caller.key_id:
            return self
        if not is_in_share(canary.percent, caller.key_id, self.specialist, canary.adapter.digest):
            return self
        return replace(
            self,
            adapter=canary.adapter,
            dataset_digest=canary.dataset_digest,
            system_prompt=canary.system_prompt,
            canary=None,
            is_canary=True,
        )


@dataclass(frozen=True)
class LikelyToken:
    """A token's characters and its natural log-probability, before temperature, penalty and schema are applied."""

    token: str
    log_probability: float


@dataclass(frozen=True)
class TokenLogProbability:
    """A token that was written, and the likeliest tokens at its position, likeliest first."""

    token: LikelyToken
    top: tuple[LikelyToken, ...] = ()


@dataclass(frozen=True)
class AnswerPiece:
    """The next characters of an answer. `tokens` counts those written so far; `finish` is set in the last piece only.

    `model_text` is what the model wrote, if the caller gets a different text. `thought` has the next characters of the thought before
    the answer, and may come with the first ones of the answer.
    """

    text: str
    tokens: int
    finish: str = ""
    log_probabilities: tuple[TokenLogProbability, ...] = ()
    model_text: str | None = None
    thought: str = ""


@dataclass(frozen=True)
class Score:
    """Sum of the natural log-probabilities of an answer's tokens, end of turn included, and the number of these tokens."""

    log_probability: float
    tokens: int


@dataclass(frozen=True)
class Probe:
    """A row that the trainer measured: its tokens, the position of the answer, and the answer's mean log-probability (nats per token)."""

    tokens: tuple[int, ...]
    prompt_length: int
    log_probability: float


@dataclass(frozen=True)
class CandidateModel:
    """A loaded candidate: its model name, and its largest difference from the trainer in nats per token; None if it has no probes."""

    model: str
    parity: float | None


@dataclass(frozen=True)
class RowToScore:
    """A chat and the answer to score."""

    messages: tuple[ChatMessage, ...]
    completion: str


@dataclass(frozen=True)
class PromptRecord:
    """What is published of a prompt: its keyed digest, and the documents of its row if it was drawn from a dataset for experts."""

    prompt_digest: str
    drawn_from: tuple[str, ...] = ()

    @property
    def is_drawn(self) -> bool:
        return bool(self.drawn_from)


@dataclass(frozen=True)
class Draft:
    """One answer that was served, without its text. `text` is where the text is stored; `moment` is in seconds since 1970.

    `edit_of` is the draft that an expert edited into this one; empty for an answer of a model. `compute_seconds` is its share of the
    device's time.
    """

    draft_id: str
    served: ServedModel
    key_id: str
    prompt: PromptRecord
    answer_digest: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    first_token_seconds: float
    seconds: float
    text: Ref | None = None
    moment: float = field(default_factory=time.time)
    edit_of: str = ""
    compute_seconds: float = 0.0
    compute_device: str = ""


@dataclass(frozen=True)
class RowPrompt:
    """The prompt of a dataset's row, without the specialist's own system prompt, and the documents of the row."""

    specialist: str
    messages: tuple[ChatMessage, ...]
    document_ids: tuple[str, ...]


@dataclass(frozen=True)
class Transcript:
    """The chat, without the specialist's own system prompt, and its answer.

    `anonymized` is True once both have passed the barrier, `is_drawn` if the prompt is that of a dataset's row.
    """

    messages: tuple[ChatMessage, ...] = field(repr=False)
    answer: str = field(repr=False)
    anonymized: bool = False
    is_drawn: bool = False

    @property
    def characters(self) -> int:
        """Characters of all texts together."""
        return len(self.answer) + sum(len(message.content) for message in self.messages)


@dataclass(frozen=True)
class DraftRecord:
    """A draft as the catalogue holds it, and the base that answered."""

    draft: Draft
    base: str


@dataclass(frozen=True)
class DraftFeedback:
    """Feedback of a caller on a draft. `verdict` is `accepted`, `edited` or `rejected`; `stars` are 1 to 5, 0 for none."""

    draft_id: str
    verdict: str
    edited_text: str = ""
    stars: int = 0
    comment: str = ""


@dataclass(frozen=True)
class StoredFeedback:
    """What was stored. `moment` is in seconds since the epoch."""

    feedback_id: str
    has_edited_text: bool
    moment: float


@dataclass(frozen=True)
class OutcomeReport:
    """A report of how long a text took, with a draft or without one, and how good it was.

    `minutes` and `satisfaction` (1 to 5) are 0 for none.
    """

    draft_id: str = ""
    specialist: str = ""
    request_id: str = ""
    minutes: float = 0.0
    satisfaction: int = 0


@dataclass(frozen=True)
class StoredOutcome:
    """What was stored, and for which specialist and generation it counts. `moment` is in seconds since the epoch."""

    outcome_id: str
    specialist: str
    generation: int
    moment: float


@dataclass(frozen=True)
class ServingReport:
    """Whether this replica serves a generation; `refusal` is the reason if it does not."""

    served: ServedModel
    refusal: str = ""


def is_in_share(percent: int, *names: str) -> bool:
    """True for `percent` % of all names; the same names always give the same result."""
    digest = hashlib.sha256("\n".join(names).encode()).digest()
    return int.from_bytes(digest[:8], "big") * 100 < percent * HASHES


def add_system_prompt(messages: tuple[ChatMessage, ...], system_prompt: str) -> tuple[ChatMessage, ...]:
    """The chat with the specialist's system prompt first, unless it already begins with a system message."""
    if not system_prompt or messages[0].role == "system":
        return messages
    return (ChatMessage("system", system_prompt), *messages)


def strip_system_prompt(messages: tuple[ChatMessage, ...], system_prompt: str) -> tuple[ChatMessage, ...]:
    """The chat without the specialist's own system prompt."""
    return messages[1:] if system_prompt and messages[0] == ChatMessage("system", system_prompt) else messages


def digest_prompt(key: bytes, messages: Sequence[ChatMessage]) -> str:
    """Keyed digest of a chat, hexadecimal."""
    return digest_text(key, json.dumps([[message.role, message.content] for message in messages], ensure_ascii=False))


def digest_request(key: bytes, request: GenerationRequest) -> str:
    """Keyed digest of all that decides the answer, hexadecimal."""
    return digest_text(key, json.dumps(asdict(replace(request, request_id="")), default=sorted))


def digest_text(key: bytes, text: str) -> str:
    """HMAC-SHA256 of a text, hexadecimal; it cannot be guessed without the key."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

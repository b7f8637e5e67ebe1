"""What is asked and answered, what serves, and what the handlers need of the world."""

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tailor.errors import InvalidArgument
from tailor.storage.ref import Ref

BASE = "base"
CANDIDATE_PREFIX = "adapter:"
ROLES = ("system", "user", "assistant")
MAX_TURNS = 64
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 64
MAX_ROWS = 64
MAX_PROBES = 16
DEFAULT_MAX_TOKENS = 256

# Finish reasons.
STOPPED = "stop"
LENGTH = "length"
CANCELLED = "cancelled"


@dataclass(frozen=True)
class Caller:
    """Who asks: a service or an API key. No specialists means all of them."""

    kind: str
    name: str
    specialists: frozenset[str] = frozenset()
    key_id: str = ""

    @property
    def evaluates(self) -> bool:
        """True for the one caller that may use candidates."""
        return self.kind == "service" and self.name == "evaluation"

    @property
    def leaves_drafts(self) -> bool:
        """True where answers are drafts that people may judge."""
        return self.kind == "key" or self.name == "console"

    def may_use(self, specialist: str) -> bool:
        """True if the caller was given this specialist."""
        return not self.specialists or specialist in self.specialists


@dataclass(frozen=True)
class Turn:
    """One message of a chat; the role is one of ROLES."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 draws the likeliest always; seed None is not repeatable."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Ask:
    """A question to a model name."""

    model: str
    turns: tuple[Turn, ...]
    sampling: Sampling


@dataclass(frozen=True)
class AdapterName:
    """An adapter and where its manifest is; the digest is the manifest's SHA-256."""

    digest: str
    manifest: Ref


@dataclass(frozen=True)
class Served:
    """What a name means. The base, and a specialist before its first adapter, have none."""

    specialist: str = ""
    generation: int = 0
    adapter: AdapterName | None = None
    dataset_digest: str = ""
    system_prompt: str = ""

    @property
    def adapter_digest(self) -> str:
        """Digest of the adapter; empty for the base."""
        return self.adapter.digest if self.adapter else ""


@dataclass(frozen=True)
class Piece:
    """The next characters of an answer. `tokens` counts those written so far; `finish` is set in the last piece."""

    text: str
    tokens: int
    finish: str = ""


@dataclass(frozen=True)
class Score:
    """Sum of the natural log-probabilities of an answer's tokens, its end of turn included, and how many they are."""

    log_probability: float
    tokens: int


@dataclass(frozen=True)
class Probe:
    """A probe row of the trainer: its tokens, where the answer begins, and the mean log-probability (nats) that it found of the answer."""

    tokens: tuple[int, ...]
    prompt_length: int
    log_probability: float


@dataclass(frozen=True)
class Candidate:
    """A loaded candidate: its model name, and by how many nats a token it differs from the trainer at most; None where it has no probes."""

    model: str
    parity: float | None


@dataclass(frozen=True)
class RowToScore:
    """A chat and the answer to score."""

    turns: tuple[Turn, ...]
    completion: str


@dataclass(frozen=True)
class Draft:
    """What is stated about one answer; no text."""

    draft_id: str
    served: Served
    key_id: str
    prompt_digest: str
    answer_digest: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    first_token_seconds: float
    seconds: float


@dataclass(frozen=True)
class ServedReport:
    """Whether this replica serves a generation, and why not."""

    served: Served
    refusal: str = ""


class Stream(Protocol):
    """An answer on its way."""

    def __iter__(self) -> Iterator[Piece]:
        """The pieces; the last one has a finish reason. Unavailable if the engine dies."""
        ...

    def cancel(self) -> None:
        """End the generation itself; the last piece then says `cancelled`. From any thread, any number of times."""
        ...


class Engine(Protocol):
    """A base model with slots for adapters. Thread-safe."""

    context_length: int

    def encode(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """The prompt's tokens by the base's own chat template; InvalidArgument where it refuses the turns."""
        ...

    def load(self, digest: str, folder: Path) -> None:
        """Load a verified adapter; it may block for seconds, running streams go on. FailedPrecondition where it does not load."""
        ...

    def unload(self, digest: str) -> None:
        """Free the slot of an adapter that no stream uses."""
        ...

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> Stream:
        """Begin to answer with a loaded adapter, or the base for an empty digest."""
        ...

    def score(self, turns: Sequence[Turn], completion: str, adapter: str) -> Score:
        """Score a given answer; InvalidArgument where it does not fit the context."""
        ...

    def score_tokens(self, tokens: tuple[int, ...], prompt_length: int, adapter: str) -> Score:
        """Score the tokens from `prompt_length` on; InvalidArgument where they do not fit the context or are none of the base's."""
        ...

    def close(self) -> None:
        """End the engine and what it started."""
        ...


class Drafts(Protocol):
    """Where drafts are stated."""

    def add(self, draft: Draft) -> None:
        """State a draft; it blocks for a moment at most and loses nothing while the broker is away."""
        ...


class Reports(Protocol):
    """Where replicas say what they serve."""

    def add(self, report: ServedReport) -> None:
        """State a report; Unavailable while the broker is away."""
        ...


class Library(Protocol):
    """Where verified adapters come from."""

    def fetch(self, adapter: AdapterName) -> Path:
        """A folder with the adapter's verified files; FailedPrecondition where one does not verify, Unavailable without store."""
        ...

    def probes(self, adapter: AdapterName) -> Sequence[Probe]:
        """The adapter's probe rows; errors as in fetch."""
        ...

    def drop(self, digest: str) -> bool:
        """Remove an adapter's files from this machine; True where there were some."""
        ...


class Turns(Protocol):
    """Training and generation take turns on a machine that they share."""

    def take(self) -> AbstractContextManager[None]:
        """Hold the machine for generation, beside other generations; it blocks while training has it."""
        ...


def check_turns(turns: Sequence[Turn]) -> dict[str, str]:
    """What is wrong with a chat, by field; nothing if it can be answered."""
    if not turns:
        return {"messages": "Give a prompt or at least one message."}
    if len(turns) > MAX_TURNS:
        return {"messages": f"At most {MAX_TURNS} messages; these are {len(turns)}."}
    wrong = {}
    for number, turn in enumerate(turns):
        if turn.role not in ROLES:
            wrong[f"messages[{number}].role"] = f"One of {', '.join(ROLES)}."
        if turn.role == "system" and number > 0:
            wrong[f"messages[{number}].role"] = "Only the first message may be the system's."
        if not turn.content.strip():
            wrong[f"messages[{number}].content"] = "It is empty."
    if turns[-1].role != "user":
        wrong[f"messages[{len(turns) - 1}].role"] = "The last message is the user's."
    return wrong


def check_sampling(sampling: Sampling) -> dict[str, str]:
    """What is wrong with the sampling, by field."""
    wrong = {}
    if not 0 <= sampling.temperature <= 2:
        wrong["sampling.temperature"] = "From 0 to 2."
    if not 0 < sampling.top_p <= 1:
        wrong["sampling.top_p"] = "Above 0, at most 1."
    if not 1 <= sampling.repetition_penalty <= 2:
        wrong["sampling.repetition_penalty"] = "From 1 to 2."
    if sampling.max_tokens < 1:
        wrong["sampling.max_tokens"] = "At least 1."
    if sampling.seed is not None and not 0 < sampling.seed < 2**63:
        wrong["sampling.seed"] = "A positive number."
    if len(sampling.stop) > MAX_STOPS:
        wrong["sampling.stop"] = f"At most {MAX_STOPS} texts."
    elif any(not stop or len(stop) > MAX_STOP_CHARACTERS for stop in sampling.stop):
        wrong["sampling.stop"] = f"Each from 1 to {MAX_STOP_CHARACTERS} characters."
    return wrong


def refuse_if(wrong: dict[str, str], reason: str) -> None:
    """InvalidArgument if any field is wrong."""
    if wrong:
        raise InvalidArgument(
            reason, "; ".join(f"{name}: {what}" for name, what in wrong.items()), field_violations=wrong
        )


def fit(prompt_tokens: int, sampling: Sampling, context_length: int) -> int:
    """Tokens that may be written; InvalidArgument where the prompt leaves no room for one."""
    room = context_length - prompt_tokens
    if room < 1:
        message = f"The prompt has {prompt_tokens} tokens; prompt and answer together may have {context_length}."
        raise InvalidArgument(
            "PROMPT_TOO_LONG",
            message,
            field_violations={"messages": message},
            prompt_tokens=str(prompt_tokens),
            context_length=str(context_length),
        )
    return min(sampling.max_tokens, room)


def with_system(turns: tuple[Turn, ...], system_prompt: str) -> tuple[Turn, ...]:
    """The specialist's system prompt before a chat that has none."""
    if not system_prompt or turns[0].role == "system":
        return turns
    return (Turn("system", system_prompt), *turns)


def prompt_digest(key: bytes, turns: Sequence[Turn]) -> str:
    """Keyed digest of a chat, hexadecimal."""
    return keyed_digest(key, json.dumps([[turn.role, turn.content] for turn in turns], ensure_ascii=False))


def keyed_digest(key: bytes, text: str) -> str:
    """HMAC-SHA256 of a text, hexadecimal; without the key it cannot be guessed."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

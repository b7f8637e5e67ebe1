"""What is asked and answered, what serves, and what the handlers need of the world."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from tailor.storage.ref import Ref

BASE = "base"
CANDIDATE_PREFIX = "adapter:"
ROLES = ("system", "user", "assistant")
MAX_ROWS = 64
MAX_PROBES = 16
DEFAULT_MAX_TOKENS = 256
CALLER_ROLE = "ROLE_CALLER"

# Finish reasons.
STOPPED = "stop"
LENGTH = "length"
CANCELLED = "cancelled"
FAILED = "error"

# The share of callers that a hash falls into is exact to this part.
HASHED = 2**64


@dataclass(frozen=True)
class Caller:
    """Who asks: a service or an API key. No specialists means all of them."""

    kind: str
    name: str
    specialists: frozenset[str] = frozenset()
    key_id: str = ""
    role: str = ""

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

    def may_see(self, specialist: str, key_id: str) -> bool:
        """True if the caller may see a draft of this specialist (empty for the base) that this key asked for."""
        mine = self.role != CALLER_ROLE or key_id == self.key_id
        return mine and (not specialist or self.may_use(specialist))


@dataclass(frozen=True)
class Turn:
    """One message of a chat; the role is one of ROLES."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 draws the likeliest always; seed None is not repeatable.

    `schema` is a JSON schema that the answer keeps to. `top_log_probabilities` None tells no log-probabilities; a number tells those of
    the tokens, and of so many of the likeliest.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0
    schema: str = ""
    top_log_probabilities: int | None = None


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
class Canary:
    """A candidate that a share of the callers, in percent, gets instead."""

    adapter: AdapterName
    dataset_digest: str
    system_prompt: str
    percent: int


@dataclass(frozen=True)
class Served:
    """What a name means. The base, and a specialist before its first adapter, have none. `private_prompts` holds before a definition;
    `is_canary` is set in what a caller gets of a canary."""

    specialist: str = ""
    generation: int = 0
    adapter: AdapterName | None = None
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
    def adapters(self) -> tuple[AdapterName, ...]:
        """Every adapter that some caller may get."""
        canary = self.canary.adapter if self.canary else None
        return tuple(adapter for adapter in (canary, self.adapter) if adapter)

    def for_caller(self, caller: Caller) -> "Served":
        """What this caller gets. A key always gets the same of both; services get what serves."""
        canary = self.canary
        if canary is None or not caller.key_id:
            return self
        if not in_share(canary.percent, caller.key_id, self.specialist, canary.adapter.digest):
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
    """A token's characters and its natural log-probability, as the model has it before temperature, penalty and schema."""

    token: str
    log_probability: float


@dataclass(frozen=True)
class TokenLogProbability:
    """A token that was written, and the likeliest in its place, likeliest first."""

    token: LikelyToken
    top: tuple[LikelyToken, ...] = ()


@dataclass(frozen=True)
class Piece:
    """The next characters of an answer. `tokens` counts those written so far; `finish` is set in the last piece.

    `seen` is what the model wrote, where the caller gets something else.
    """

    text: str
    tokens: int
    finish: str = ""
    log_probabilities: tuple[TokenLogProbability, ...] = ()
    seen: str | None = None


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
    """What is stated about one answer; no text, but where its text is kept. `moment` is in seconds since 1970."""

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
    text: Ref | None = None
    moment: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Said:
    """What was asked, without the specialist's own system prompt, and what was answered."""

    turns: tuple[Turn, ...] = field(repr=False)
    answer: str = field(repr=False)

    @property
    def characters(self) -> int:
        """Characters in all."""
        return len(self.answer) + sum(len(turn.content) for turn in self.turns)


@dataclass(frozen=True)
class DraftRecord:
    """A draft as the catalogue holds it, and the base that answered."""

    draft: Draft
    base: str


@dataclass(frozen=True)
class ServedReport:
    """Whether this replica serves a generation, and why not."""

    served: Served
    refusal: str = ""


class Stream(Protocol):
    """An answer on its way."""

    def __iter__(self) -> Iterator[Piece]:
        """The pieces; the last one has a finish reason. Unavailable if the engine dies, FailedPrecondition where it gives a schema up."""
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

    def check_schema(self, schema: str) -> None:
        """InvalidArgument where a JSON schema cannot be enforced, whole."""
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


class Texts(Protocol):
    """Where texts of drafts go."""

    def keep(self, draft: Draft, said: Said) -> None:
        """Keep a draft's text behind the barrier if its specialist wants that; it returns at once."""
        ...


class Archive(Protocol):
    """What is known of drafts that were served."""

    def draft(self, draft_id: str) -> DraftRecord:
        """A draft; NotFound where the catalogue holds none, Unavailable while it does not answer."""
        ...

    def text(self, ref: Ref) -> Said | None:
        """A kept text; None once it has expired."""
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


def in_share(percent: int, *names: str) -> bool:
    """True for so many percent of all names, always the same ones."""
    digest = hashlib.sha256("\n".join(names).encode()).digest()
    return int.from_bytes(digest[:8], "big") * 100 < percent * HASHED


def with_system(turns: tuple[Turn, ...], system_prompt: str) -> tuple[Turn, ...]:
    """The specialist's system prompt before a chat that has none."""
    if not system_prompt or turns[0].role == "system":
        return turns
    return (Turn("system", system_prompt), *turns)


def without_system(turns: tuple[Turn, ...], system_prompt: str) -> tuple[Turn, ...]:
    """The chat without the specialist's own system prompt."""
    return turns[1:] if system_prompt and turns[0] == Turn("system", system_prompt) else turns


def prompt_digest(key: bytes, turns: Sequence[Turn]) -> str:
    """Keyed digest of a chat, hexadecimal."""
    return keyed_digest(key, json.dumps([[turn.role, turn.content] for turn in turns], ensure_ascii=False))


def keyed_digest(key: bytes, text: str) -> str:
    """HMAC-SHA256 of a text, hexadecimal; without the key it cannot be guessed."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

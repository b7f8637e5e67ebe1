"""What the console shows, who may see it, and what it needs of the services."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from services.console.audits import Audit, NearDuplicates
from services.console.runs import Run, Watched
from services.console.views import (
    Adapter,
    Dataset,
    Document,
    Erasure,
    Evaluation,
    Flow,
    KeptText,
    Key,
    NewKey,
    Page,
    Piece,
    Rejection,
    Served,
    Serving,
    Specialist,
    Trace,
)
from tailor.errors import InvalidArgument, NotFound, PermissionDenied, Reason

T_co = TypeVar("T_co", covariant=True)

BASE = "base"
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MAX_PROMPT_CHARS = 20_000
MAX_COMMENT_CHARS = 4_000
MAX_TOKENS = 1_024
MAX_NAME_CHARS = 64
MAX_KEY_DAYS = 3_650


class Role(StrEnum):
    """What a visitor is to the installation."""

    CALLER = "caller"
    EXPERT = "expert"
    ENGINEER = "engineer"
    OPERATOR = "operator"
    DATA_PROTECTION = "data protection"


class Action(StrEnum):
    """What can be seen or done here."""

    FLOW = "flow"
    DOCUMENTS = "documents"
    DATASETS = "datasets"
    RUNS = "runs"
    ADAPTERS = "adapters"
    EVALUATIONS = "evaluations"
    SPECIALISTS = "specialists"
    ASK = "ask"
    TRACE = "trace"
    TRACE_DOCUMENTS = "trace documents"
    READ_DRAFT = "read draft"
    JUDGE = "judge"
    PROMOTE = "promote"
    KEYS = "keys"
    MANAGE_KEYS = "manage keys"
    AUDIT = "audit"
    ERASURES = "erasures"


_LOOK = {Action.FLOW, Action.DOCUMENTS, Action.AUDIT, Action.TRACE, Action.TRACE_DOCUMENTS}
_ENGINEER = _LOOK | {
    Action.DATASETS,
    Action.RUNS,
    Action.ADAPTERS,
    Action.EVALUATIONS,
    Action.SPECIALISTS,
    Action.ASK,
    Action.READ_DRAFT,
}
# The same as the contracts' `access` options; a test compares them.
ADMITTED: Mapping[Role, frozenset[Action]] = {
    Role.CALLER: frozenset({Action.ASK, Action.TRACE, Action.READ_DRAFT}),
    Role.EXPERT: frozenset(
        {Action.ASK, Action.TRACE, Action.READ_DRAFT, Action.JUDGE, Action.ADAPTERS, Action.SPECIALISTS}
    ),
    Role.ENGINEER: frozenset(_ENGINEER),
    Role.OPERATOR: frozenset(Action),
    Role.DATA_PROTECTION: frozenset(_LOOK | {Action.ERASURES}),
}


@dataclass(frozen=True)
class Visitor:
    """Who is signed in: the operator with the password, or the holder of an API key. No specialists means all of them."""

    name: str
    role: Role
    specialists: frozenset[str] = frozenset()
    key_id: str = ""
    key_sha256: str = ""

    def may(self, action: Action) -> bool:
        """True if the visitor's role admits the action."""
        return action in ADMITTED[self.role]

    def may_read(self, key_id: str) -> bool:
        """True if the visitor may read a draft that this key asked for: a caller's key only what it asked for itself."""
        mine = self.role is not Role.CALLER or (bool(key_id) and key_id == self.key_id)
        return mine and self.may(Action.READ_DRAFT)

    def may_hold(self, key: Key) -> bool:
        """True for an API key that may use no more specialists than the visitor."""
        return not self.specialists or (bool(key.specialists) and self.specialists.issuperset(key.specialists))

    def may_use(self, specialist: str) -> bool:
        """True if the visitor was given this specialist."""
        return not self.specialists or specialist in self.specialists

    def need(self, action: Action) -> None:
        """PermissionDenied unless the role admits the action."""
        if not self.may(action):
            raise PermissionDenied(Reason.ROLE_NOT_ADMITTED, f"The role '{self.role}' may not do this: {action}.")

    def need_specialist(self, specialist: str) -> None:
        """NotFound unless the visitor was given this specialist."""
        if not self.may_use(specialist):
            raise NotFound(Reason.UNKNOWN_SPECIALIST, "There is no such specialist, or it was not given to you.")


@dataclass(frozen=True)
class Question:
    """A prompt for the base or a specialist."""

    model: str
    prompt: str
    max_tokens: int = 256
    temperature: float = 0.0

    def __post_init__(self) -> None:
        wrong = {}
        if not SLUG.fullmatch(self.model):
            wrong["model"] = "the name of a specialist, or 'base'"
        if not self.prompt.strip() or len(self.prompt) > MAX_PROMPT_CHARS:
            wrong["prompt"] = f"1 to {MAX_PROMPT_CHARS:,} characters"
        if not 1 <= self.max_tokens <= MAX_TOKENS:
            wrong["max_tokens"] = f"1 to {MAX_TOKENS:,}"
        if not 0 <= self.temperature <= 2:
            wrong["temperature"] = "0 to 2"
        if wrong:
            raise InvalidArgument(
                Reason.INVALID_QUESTION, "The question cannot be asked as it is.", field_violations=wrong
            )


@dataclass(frozen=True)
class Judgement:
    """An expert's ranking from best to worst, marks of the best (1 to 5; 0 is not given) and a comment."""

    ranking: tuple[str, ...]
    accuracy: int = 0
    style: int = 0
    usefulness: int = 0
    comment: str = ""

    def __post_init__(self) -> None:
        wrong = {}
        if not self.ranking or not all(self.ranking) or len(set(self.ranking)) != len(self.ranking):
            wrong["ranking"] = "different drafts, the better one first"
        if any(not 0 <= mark <= 5 for mark in (self.accuracy, self.style, self.usefulness)):
            wrong["rubric"] = "marks from 1 to 5"
        if len(self.comment) > MAX_COMMENT_CHARS:
            wrong["comment"] = f"at most {MAX_COMMENT_CHARS:,} characters"
        if wrong:
            raise InvalidArgument(Reason.INVALID_JUDGEMENT, "The judgement cannot be recorded.", field_violations=wrong)


@dataclass(frozen=True)
class KeyTerms:
    """What a new API key is for and what it may do. No specialists means all, no methods all that the role may call, 0 calls a minute no
    limit, and 0 days that it does not end by itself. What only the registry can tell, the registry refuses."""

    name: str
    role: Role
    specialists: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0
    days: int = 0

    def __post_init__(self) -> None:
        wrong = {}
        if not self.name.strip() or len(self.name) > MAX_NAME_CHARS:
            wrong["name"] = f"1 to {MAX_NAME_CHARS} characters"
        if self.calls_per_minute < 0:
            wrong["calls_per_minute"] = "0 or more"
        if not 0 <= self.days <= MAX_KEY_DAYS:
            wrong["days"] = f"0 to {MAX_KEY_DAYS:,}"
        if wrong:
            raise InvalidArgument(Reason.INVALID_KEY, "The key cannot be made as it is.", field_violations=wrong)


class Stream(Protocol[T_co]):
    """Items as they come. Iterating may block and may raise a TailorError."""

    def __iter__(self) -> Iterator[T_co]:
        """The items."""
        ...

    def close(self) -> None:
        """End it; also from another thread, while an iteration waits."""
        ...


class Registry(Protocol):
    """The registry, as the console uses it. Every call may raise a TailorError."""

    def flow(self) -> Flow: ...
    def documents(self, token: str, specialist: str, size: int) -> Page[Document | Rejection]: ...
    def datasets(self, token: str) -> Page[Dataset]: ...
    def adapters(self, token: str) -> Page[Adapter]: ...
    def specialists(self, token: str) -> Page[Specialist]: ...
    def promote(self, specialist: str, adapter_digest: str, expected_generation: int) -> Serving: ...
    def roll_back(self, specialist: str, expected_generation: int) -> Serving: ...
    def start_canary(self, specialist: str, adapter_digest: str, expected_generation: int) -> Serving: ...
    def stop_canary(self, specialist: str, expected_generation: int) -> Serving: ...
    def trace(self, draft_id: str) -> Trace: ...
    def record_judgement(self, judgement: Judgement, request_id: str) -> str: ...
    def keys(self, token: str) -> Page[Key]: ...
    def create_key(self, terms: KeyTerms) -> NewKey: ...
    def revoke_key(self, key_id: str) -> None: ...
    def erasures(self, token: str) -> Page[Erasure]: ...
    def verify_key(self, secret_sha256: str) -> Visitor: ...


class Training(Protocol):
    """Training, as the console uses it."""

    def run(self, run_id: str) -> Run: ...
    def runs(self, token: str) -> Page[Run]: ...
    def watch(self, run_id: str) -> Stream[Watched]: ...


class EvaluationReports(Protocol):
    """Evaluation, as the console uses it."""

    def evaluation(self, adapter_digest: str) -> Evaluation: ...


class Inference(Protocol):
    """Inference, as the console uses it."""

    def specialists(self) -> tuple[Served, ...]: ...
    def ask(self, question: Question) -> Stream[Piece]: ...
    def draft(self, draft_id: str) -> KeptText: ...


class Auditing(Protocol):
    """What registry and synthetic know of the documents."""

    def audit(self, specialist: str) -> Audit: ...
    def near_duplicates(self, specialist: str) -> NearDuplicates: ...


class Health(Protocol):
    """How the services are."""

    def check(self, service: str) -> bool: ...


@dataclass(frozen=True)
class Services:
    """The services that the console asks."""

    registry: Registry
    training: Training
    evaluation: EvaluationReports
    inference: Inference
    health: Health
    auditing: Auditing

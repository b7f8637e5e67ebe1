"""The console's values and rules: visitors, what each role may do, and what a visitor can send. Imports no library."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

from tailor.errors import InvalidArgument, NotFound, PermissionDenied, Reason

T = TypeVar("T")

BASE = "base"
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MAX_PROMPT_CHARS = 20_000
MAX_COMMENT_CHARS = 4_000
# Of a judgement: eight drafts by five criteria.
MAX_DRAFT_MARKS = 40
# In any script, it fits the largest request that the console takes.
MAX_EDIT_CHARS = 60_000
MAX_TOKENS = 1_024
MAX_NAME_CHARS = 64
MAX_REASON_CHARS = 1_000
MAX_KEY_DAYS = 3_650
MAX_MAIL_CHARS = 254
MAX_INVITATION_DAYS = 30
MAX_FILTER_CHARS = 200
MAX_RECIPE_CHARS = 200
MAX_PRIORITY = 100
# In any script, it fits the largest request that the console takes.
MAX_DEFINITION_CHARS = 60_000
DATASET_KINDS = ("sft", "preference")
ORIGIN_KINDS = ("source", "examples", "tests")
MAX_MARKS = 50
SPLITS = ("train", "held_out")
DIGEST = re.compile(r"[0-9a-f]{64}")
DOCUMENT_ID = re.compile(r"doc_[0-9a-f]{32}")
PASSAGE_ID = re.compile(r"psg_[0-9a-f]{32}")


class Role(StrEnum):
    """The role of a visitor, as in the contracts."""

    CALLER = "caller"
    EXPERT = "expert"
    ENGINEER = "engineer"
    OPERATOR = "operator"
    DATA_PROTECTION = "data protection"


# The roles that the registry lets the console give to new keys and to people. Operators and data protection give their own with the command
# line.
GIVEN_ROLES = (Role.CALLER, Role.EXPERT, Role.ENGINEER)


class Permission(StrEnum):
    """A permission that a role can have."""

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
    MANAGE_SPECIALISTS = "manage specialists"
    KEYS = "keys"
    MANAGE_KEYS = "manage keys"
    PEOPLE = "people"
    AUDIT = "audit"
    ERASURES = "erasures"
    SYNTHESES = "syntheses"
    REVIEW_SAMPLES = "review samples"
    REVIEW = "review"
    RESIDUAL = "residual"
    SUBMISSIONS = "submissions"
    BUILD = "build datasets"
    MANAGE_RUNS = "start and cancel runs"
    EVALUATE = "evaluate adapters"


_READER = {
    Permission.FLOW,
    Permission.DOCUMENTS,
    Permission.AUDIT,
    Permission.TRACE,
    Permission.TRACE_DOCUMENTS,
    Permission.RESIDUAL,
}
_ENGINEER = _READER | {
    Permission.DATASETS,
    Permission.RUNS,
    Permission.ADAPTERS,
    Permission.EVALUATIONS,
    Permission.SPECIALISTS,
    Permission.ASK,
    Permission.READ_DRAFT,
    Permission.SYNTHESES,
    Permission.SUBMISSIONS,
    Permission.BUILD,
    Permission.MANAGE_RUNS,
    Permission.EVALUATE,
}
# The same as the contracts' `access` options; a test compares them.
ADMITTED: Mapping[Role, frozenset[Permission]] = {
    Role.CALLER: frozenset({Permission.ASK, Permission.TRACE, Permission.READ_DRAFT}),
    Role.EXPERT: frozenset(
        {
            Permission.ASK,
            Permission.TRACE,
            Permission.READ_DRAFT,
            Permission.JUDGE,
            Permission.ADAPTERS,
            Permission.SPECIALISTS,
            Permission.SYNTHESES,
            Permission.REVIEW_SAMPLES,
        }
    ),
    Role.ENGINEER: frozenset(_ENGINEER),
    # Only data protection reads passages that may still hold personal data.
    Role.OPERATOR: frozenset(Permission) - {Permission.REVIEW},
    Role.DATA_PROTECTION: frozenset(_READER | {Permission.ERASURES, Permission.REVIEW}),
}


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list. The token asks for the next page; it is empty on the last one."""

    items: tuple[T, ...] = ()
    next_token: str = ""


@dataclass(frozen=True)
class Visitor:
    """Somebody who is signed in: the operator by password, a person, or the holder of an API key. No specialists means all of them.

    `key_id` is the id of the person or of the key; empty for the operator by password.
    """

    name: str
    role: Role
    specialists: frozenset[str] = frozenset()
    key_id: str = ""

    def may(self, action: Permission) -> bool:
        """True if the visitor's role admits the action."""
        return action in ADMITTED[self.role]

    def may_read(self, key_id: str) -> bool:
        """True if the visitor may read a draft requested with this key. A caller may only read drafts that its key requested."""
        is_own = bool(key_id) and key_id == self.key_id
        return (is_own or self.role is not Role.CALLER) and self.may(Permission.READ_DRAFT)

    def may_grant(self, specialists: Collection[str]) -> bool:
        """True if an API key for these specialists (none means all) allows no more than the visitor's own."""
        return not self.specialists or (bool(specialists) and self.specialists.issuperset(specialists))

    def may_use(self, specialist: str) -> bool:
        """True if the visitor has access to this specialist."""
        return not self.specialists or specialist in self.specialists

    def may_trace(self, key_id: str) -> bool:
        """True if the visitor may see where a draft comes from that was requested with this key, or on the console (empty)."""
        return self.role is not Role.CALLER or key_id in ("", self.key_id)

    def require(self, action: Permission) -> None:
        """Raises PermissionDenied unless the role admits the action."""
        if not self.may(action):
            raise PermissionDenied(Reason.ROLE_NOT_ADMITTED, f"The role '{self.role}' does not allow this: {action}.")

    def focus(self, specialist: str) -> str:
        """The specialist to show documents of; empty for all. A visitor with access to some sees the first of them unless one is named.

        Raises NotFound as `require_specialist`.
        """
        if specialist:
            self.require_specialist(specialist)
        return specialist or min(self.specialists, default="")

    def require_all(self) -> None:
        """Raises PermissionDenied for a visitor with access to some specialists only."""
        if self.specialists:
            raise PermissionDenied(
                Reason.SPECIALIST_NEEDED,
                "Your key is limited to some specialists, and rejected documents belong to none.",
            )

    def require_specialist(self, specialist: str) -> None:
        """Raises NotFound unless the visitor has access to this specialist."""
        if not self.may_use(specialist):
            raise NotFound(
                Reason.UNKNOWN_SPECIALIST, "This specialist does not exist, or you do not have access to it."
            )


@dataclass(frozen=True)
class Question:
    """A prompt for the base or a specialist. Raises InvalidArgument with a violation per invalid field.

    Without `max_tokens` or `temperature`, the specialist's defaults apply.
    """

    model: str
    prompt: str
    max_tokens: int | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        violations = {}
        if not SLUG.fullmatch(self.model):
            violations["model"] = "must be the name of a specialist, or 'base'"
        if not self.prompt.strip() or len(self.prompt) > MAX_PROMPT_CHARS:
            violations["prompt"] = f"must have 1 to {MAX_PROMPT_CHARS:,} characters"
        if self.max_tokens is not None and not 1 <= self.max_tokens <= MAX_TOKENS:
            violations["max_tokens"] = f"must be 1 to {MAX_TOKENS:,}, or empty for the specialist's default"
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            violations["temperature"] = "must be 0 to 2"
        if violations:
            raise InvalidArgument(Reason.INVALID_QUESTION, "The question is invalid.", field_violations=violations)


@dataclass(frozen=True)
class RowQuery:
    """The rows of a dataset that a visitor wants to see; empty values admit all.

    Raises InvalidArgument with a violation per invalid field."""

    digest: str
    split: str = ""
    task: str = ""
    document: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        violations = {}
        if self.split not in ("", *SPLITS):
            violations["split"] = f"must be {' or '.join(SPLITS)}"
        for name in ("task", "document", "text"):
            if len(getattr(self, name)) > MAX_FILTER_CHARS:
                violations[name] = f"must have at most {MAX_FILTER_CHARS} characters"
        if violations:
            raise InvalidArgument(Reason.INVALID_REQUEST, "The filter is invalid.", field_violations=violations)

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set."""
        values = {"split": self.split, "task": self.task, "document": self.document, "text": self.text}
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True)
class RunTerms:
    """A run that a visitor wants: recipes on a dataset, from the base or an adapter, perhaps with a dataset of rankings.

    Raises InvalidArgument with a violation per invalid field; training checks the rest."""

    specialist: str
    dataset: str
    base: str
    recipe: str
    preferences: str = ""
    parent: str = ""
    priority: int = 0

    def __post_init__(self) -> None:
        violations = {
            name: "must be 64 hexadecimal digits" + (", or empty" if name != "dataset" else "")
            for name in ("dataset", "preferences", "parent")
            if not DIGEST.fullmatch(getattr(self, name)) and (name == "dataset" or getattr(self, name))
        }
        for name in ("specialist", "base", "recipe"):
            if not 0 < len(getattr(self, name)) <= MAX_RECIPE_CHARS:
                violations[name] = f"must have 1 to {MAX_RECIPE_CHARS} characters"
        if abs(self.priority) > MAX_PRIORITY:
            violations["priority"] = f"must be -{MAX_PRIORITY} to {MAX_PRIORITY}"
        if violations:
            raise InvalidArgument(Reason.INVALID_REQUEST, "The run cannot be started.", field_violations=violations)


@dataclass(frozen=True)
class GivenMark:
    """A mark from 1 to 5 for a draft, by the name of a criterion."""

    draft_id: str
    criterion: str
    mark: int


@dataclass(frozen=True)
class Judgement:
    """An expert's ranking from best to worst, marks for its drafts and a comment.

    `outcome` is `ranked`, `tie` or `both_bad`; the order of the drafts means something only if they are ranked. `places` are those of the
    ranked drafts, which equally good ones share; empty if no two are. `seconds` is the time from showing the drafts to the decision, 0 if
    it is unknown.

    Raises InvalidArgument with a violation per invalid field."""

    ranking: tuple[str, ...]
    marks: tuple[GivenMark, ...] = ()
    comment: str = ""
    outcome: str = "ranked"
    places: tuple[int, ...] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        violations = {}
        if not self.ranking or not all(self.ranking) or len(set(self.ranking)) != len(self.ranking):
            violations["ranking"] = "must list different drafts, the best one first"
        if len(self.marks) > MAX_DRAFT_MARKS or any(not 1 <= mark.mark <= 5 for mark in self.marks):
            violations["marks"] = f"must be at most {MAX_DRAFT_MARKS}, from 1 to 5"
        if len(self.comment) > MAX_COMMENT_CHARS:
            violations["comment"] = f"must have at most {MAX_COMMENT_CHARS:,} characters"
        if violations:
            raise InvalidArgument(Reason.INVALID_JUDGEMENT, "The judgement is invalid.", field_violations=violations)

    @classmethod
    def from_places(
        cls, drafts: Sequence[str], places: Sequence[int], marks: tuple[GivenMark, ...], comment: str
    ) -> "Judgement":
        """The judgement of drafts by the place of each, 1 for the best. It is a tie if all have the same one.

        Raises InvalidArgument unless each draft has a place.
        """
        if len(places) != len(drafts) or not all(1 <= place <= len(drafts) for place in places):
            field = {"places": f"must be a number from 1 to {len(drafts)} for each draft"}
            raise InvalidArgument(Reason.INVALID_JUDGEMENT, "Give each draft a place.", field_violations=field)
        order = sorted(range(len(drafts)), key=lambda index: places[index])
        ranking = tuple(drafts[index] for index in order)
        used = sorted(set(places))
        if len(used) == 1:
            return cls(ranking, marks, comment, "tie")
        dense = tuple(used.index(places[index]) + 1 for index in order)
        return cls(ranking, marks, comment, places=dense if len(used) < len(places) else ())

    def with_edit(self, edited: str) -> "Judgement":
        """The judgement with the best draft as it was edited, which is better than that draft."""
        places = (1, *(place + 1 for place in self.places)) if self.places else ()
        return replace(self, ranking=(edited, *self.ranking), places=places)


@dataclass(frozen=True)
class KeyTerms:
    """The purpose and the limits of a new API key.

    No specialists means all, no methods means all that the role may call, 0 calls per minute means no limit, and 0 days means that the key
    does not expire. Raises InvalidArgument with a violation per invalid field; the registry checks the rest."""

    name: str
    role: Role
    specialists: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0
    days: int = 0

    def __post_init__(self) -> None:
        violations = {}
        if not self.name.strip() or len(self.name) > MAX_NAME_CHARS:
            violations["name"] = f"must have 1 to {MAX_NAME_CHARS} characters"
        if self.calls_per_minute < 0:
            violations["calls_per_minute"] = "must be 0 or more"
        if not 0 <= self.days <= MAX_KEY_DAYS:
            violations["days"] = f"must be 0 to {MAX_KEY_DAYS:,}"
        if violations:
            raise InvalidArgument(Reason.INVALID_KEY, "The key cannot be created.", field_violations=violations)


@dataclass(frozen=True)
class InvitationTerms:
    """Whom to invite, and as what; 0 days is the registry's default. A person with a mail address signs in by the OpenID provider.

    Raises InvalidArgument with a violation per invalid field.
    """

    name: str
    role: Role
    mail: str = ""
    specialists: tuple[str, ...] = ()
    days: int = 0

    def __post_init__(self) -> None:
        violations = {}
        if not self.name.strip() or len(self.name) > MAX_NAME_CHARS:
            violations["name"] = f"must have 1 to {MAX_NAME_CHARS} characters"
        if len(self.mail) > MAX_MAIL_CHARS:
            violations["mail"] = f"must have at most {MAX_MAIL_CHARS} characters"
        if not 0 <= self.days <= MAX_INVITATION_DAYS:
            violations["days"] = f"must be 0 to {MAX_INVITATION_DAYS}"
        if violations:
            raise InvalidArgument(Reason.INVALID_PERSON, "The person cannot be invited.", field_violations=violations)


@dataclass(frozen=True)
class ProviderIdentity:
    """An account at the OpenID provider. `verified_mail` is empty if the provider has not verified the address."""

    issuer: str
    subject: str
    verified_mail: str = ""


@dataclass(frozen=True)
class SignInAttempt:
    """A sign-in whose user is at the OpenID provider, as the browser remembers it. All but `next` are random."""

    state: str
    nonce: str
    # Proves that the code is redeemed by the side that asked for it (PKCE, RFC 7636).
    verifier: str
    next: str


@dataclass(frozen=True)
class PassageDecision:
    """A reviewer's decision about a passage: (start, end, type) of each value left, or, without a type, of a stretch that is not personal.

    Raises InvalidArgument with a violation per invalid field."""

    passage_id: str
    marks: tuple[tuple[int, int, str], ...] = ()
    skip: bool = False

    def __post_init__(self) -> None:
        violations = {}
        if not PASSAGE_ID.fullmatch(self.passage_id):
            violations["passage_id"] = "must be `psg_` and 32 hexadecimal digits"
        if len(self.marks) > MAX_MARKS:
            violations["marks"] = f"must be at most {MAX_MARKS}"
        if any(not 0 <= start < end for start, end, _ in self.marks):
            violations["marks"] = "must end after they start"
        if violations:
            raise InvalidArgument(Reason.INVALID_MARKS, "The decision is invalid.", field_violations=violations)


@dataclass(frozen=True)
class PassagePiece:
    """A word, a punctuation mark or the space between them, at [start, end) of a passage's text in code points.

    `kind` is `context`, `replaced` or `word`; `entity_type` is the type that some detectors see in it.
    """

    start: int
    end: int
    text: str
    kind: str
    entity_type: str = ""

"""What anonymization knows: findings, the policy, texts, and what it needs from outside."""

import bisect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from services.anonymization.spans import Span
from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref

MAX_CHARS = 1_000_000
MAX_PREVIEW_CHARS = 200_000
MAX_POLICY_CHARS = 65_536
MAX_PROMPT_TEXTS = 1_024
MAX_PROMPT_CHARS = 200_000
MIN_PURPOSE_CHARS = 10

Labels = tuple[str, str, str]
LABELS = ("source", "department", "confidentiality")
NO_LABELS: Labels = ("", "", "")

# The types that are looked for. A policy may add types of the house by `[codes]` and `[deny]`.
ENTITY_TYPES = (
    "PERSON",
    "CLIENT",
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "ADDRESS",
    "IBAN",
    "CREDIT_CARD",
    "DATE_OF_BIRTH",
    "EMPLOYEE_CODE",
    "PROJECT_CODE",
    "IP_ADDRESS",
    "NATIONAL_ID",
    "ACCOUNT_NUMBER",
    "USERNAME",
    "URL",
    "SECRET",
    "COORDINATES",
    "VEHICLE",
    "LOCATION",
    "NRP",
    "DATE_TIME",
    "MONEY",
    "AGE",
)
# Too short or too common in form for a surrogate that could be told apart in an answer.
COARSE_ONLY = ("LOCATION", "NRP", "DATE_TIME", "MONEY", "AGE")


class Action(StrEnum):
    """What becomes of a value."""

    SURROGATE = "surrogate"
    MASK = "mask"
    GENERALISE = "generalise"
    KEEP = "keep"


@dataclass(frozen=True)
class Finding:
    """A personal value at [start, end) of a text."""

    start: int
    end: int
    entity_type: str
    score: float

    @property
    def length(self) -> int:
        """Characters covered."""
        return self.end - self.start

    def shifted(self, by: int) -> "Finding":
        """The same finding, further on in a longer text."""
        return Finding(self.start + by, self.end + by, self.entity_type, self.score)


@dataclass(frozen=True)
class Rule:
    """Actions for documents with certain labels. A label that is named admits its listed values; one that is not, any."""

    labels: Mapping[str, frozenset[str]]
    actions: Mapping[str, Action]

    def matches(self, labels: Labels) -> bool:
        """True where the rule is for documents with these labels."""
        return all(value in self.labels.get(name, {value}) for name, value in zip(LABELS, labels, strict=True))

    def covers(self, other: "Rule") -> bool:
        """True where this rule is for every document that the other is for."""
        return all(other.labels.get(name, frozenset({""})) <= values for name, values in self.labels.items())


@dataclass(frozen=True)
class Coarseness:
    """How far the action `generalise` goes, by type."""

    date_time: str = "month"
    date_of_birth: str = "year"
    address: str = "town"
    money_bands: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    age_years: int = 10


@dataclass(frozen=True)
class Policy:
    """How much is anonymised. `digest` is the SHA-256 of the file it was read from."""

    digest: str
    actions: Mapping[str, Action]
    codes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deny: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow_terms: tuple[str, ...] = ()
    allow_patterns: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    coarseness: Coarseness = Coarseness()

    def action(self, entity_type: str, labels: Labels = NO_LABELS) -> Action:
        """What becomes of a type: the first rule for the labels that names it decides, else the table; else it is masked."""
        for rule in self.rules:
            if entity_type in rule.actions and rule.matches(labels):
                return rule.actions[entity_type]
        return self.actions.get(entity_type, Action.MASK)

    def keeps(self, entity_type: str) -> bool:
        """True where no document needs the type to be found."""
        rules = (rule.actions.get(entity_type, Action.KEEP) for rule in self.rules)
        return all(action is Action.KEEP for action in (self.actions.get(entity_type, Action.MASK), *rules))

    def reversible(self) -> "Policy":
        """The policy for prompts, whose values come back: what it masks or makes coarser has a surrogate, too, where its type may."""

        def made(kind: str, action: Action) -> Action:
            return action if action is Action.KEEP or kind in COARSE_ONLY else Action.SURROGATE

        kinds = {*ENTITY_TYPES, *self.codes, *self.deny, *self.actions}
        actions = {kind: made(kind, self.actions.get(kind, Action.MASK)) for kind in kinds}
        rules = (
            replace(rule, actions={kind: made(kind, of) for kind, of in rule.actions.items()}) for rule in self.rules
        )
        return replace(self, actions=actions, rules=tuple(rules))

    def allowed(self, text: str) -> list[tuple[int, int]]:
        """Stretches of the text that stay as they are: the house's own terms and citations."""
        patterns = [*(rf"(?<!\w){re.escape(term)}(?!\w)" for term in self.allow_terms), *self.allow_patterns]
        return [match.span() for pattern in patterns for match in re.finditer(pattern, text)]


@dataclass(frozen=True)
class Text:
    """The words of one document; `prompt` for examples alone."""

    text: str
    prompt: str | None = None

    def encode(self) -> bytes:
        """The JSON object that is stored."""
        return json.dumps({"prompt": self.prompt, "text": self.text}, ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Text":
        """Read the stored JSON object; InvalidArgument where it is not one."""
        try:
            content = json.loads(data)
            text, prompt = content["text"], content["prompt"]
        except (ValueError, KeyError, TypeError):
            raise InvalidArgument(Reason.UNREADABLE, "The quarantined object is not a text.") from None
        if not isinstance(text, str) or not (prompt is None or isinstance(prompt, str)):
            raise InvalidArgument(Reason.UNREADABLE, "The quarantined object is not a text.")
        return cls(text, prompt)


@dataclass(frozen=True)
class Ingested:
    """A document that waits in quarantine. `kind` and `labels` travel on unchanged; `spans` are those of its text."""

    document_id: str
    submission_id: str
    sequence: int
    digest: str
    kind: int
    labels: Labels
    text: Ref
    format: str
    draft_id: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Passed:
    """What is stated of a document that passed; `spans` are those of its anonymised text."""

    ingested: Ingested
    text: Ref
    char_count: int
    findings: Mapping[str, int]
    policy_digest: str
    time_ms: int
    language: str = ""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """What is stated of a document whose quarantined bytes do not verify."""

    ingested: Ingested
    hint: str
    time_ms: int


Outcome = Passed | Unreadable


@dataclass(frozen=True)
class Change:
    """One value, at [start, end) of its text, and what stands in its place."""

    start: int
    end: int
    entity_type: str
    action: Action
    replacement: str

    @property
    def is_surrogate(self) -> bool:
        """True where a value stands there that somebody could bear."""
        return self.action is Action.SURROGATE and self.replacement != f"[{self.entity_type}]"


@dataclass(frozen=True)
class Anonymized:
    """Texts with surrogates, how many values of each type were found in them, and what became of those of each text, in order.
    `values` are the types and surrogates that the texts now hold, full names beside their words."""

    texts: tuple[str, ...]
    findings: Mapping[str, int]
    changes: tuple[tuple[Change, ...], ...] = ()
    values: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class AnonymizedPrompt:
    """The texts of a prompt with surrogates, and the values by surrogate, words of names beside whole ones."""

    texts: tuple[str, ...] = field(repr=False)
    pairs: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Resolved:
    """A person's documents, by id, and how many vault entries were destroyed, or would be."""

    document_ids: tuple[str, ...]
    vault_entries: int


class Anonymizer(Protocol):
    """Replaces personal values."""

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS) -> Anonymized:
        """Anonymise texts that belong together: a value found in one is replaced in all. The labels choose among the policy's rules."""
        ...


class PromptAnonymizer(Protocol):
    """Replaces the personal values of a prompt by surrogates of its own."""

    def anonymize(self, texts: tuple[str, ...], labels: Labels, beside: tuple[str, ...]) -> AnonymizedPrompt:
        """Anonymise texts that belong together, and keep nothing. What stands in the texts `beside`, which stay, becomes no surrogate."""
        ...


class Rehearsal(Anonymizer, Protocol):
    """Shows what texts would become under some policy, and keeps nothing."""

    @property
    def policy_digest(self) -> str:
        """The policy's digest."""
        ...


class Stage(Protocol):
    """Sets up rehearsals."""

    def rehearse(self, policy: str, text: str) -> Rehearsal:
        """For one text, under a policy in TOML, the installation's where empty; InvalidArgument names every wrong field of it."""
        ...


class Vault(Protocol):
    """Relates surrogates to true values. Both are unique within a type."""

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        """The surrogate of a value, issued at first sight; `key` is the value's normal form, `propose(n)` the n-th candidate."""
        ...

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        """The true value, or None where no such surrogate was issued."""
        ...


class Audit(Protocol):
    """Keeps who asked for true values."""

    def record(self, caller: str, entity_type: str, surrogate: str, purpose: str) -> None:
        """Keep one call, before its answer is given."""
        ...


class Quarantine(Protocol):
    """The encrypted texts that ingestion left."""

    def read(self, ingested: Ingested) -> Text:
        """The text; FailedPrecondition or InvalidArgument where it does not verify, NotFound where it is gone."""
        ...

    def delete(self, ref: Ref) -> None:
        """Remove the object; nothing happens where there is none."""
        ...

    def delete_all(self, document_id: str) -> int:
        """Remove every object of a document; how many there were."""
        ...


class Corpus(Protocol):
    """The anonymised texts."""

    def write(self, text: Text) -> Ref:
        """Store a text under the digest of its bytes."""
        ...

    def delete(self, ref: Ref) -> None:
        """Remove a text; nothing happens where there is none."""
        ...


class Subjects(Protocol):
    """Which document holds which surrogate, and who is suppressed."""

    def keep(self, document_id: str, values: frozenset[tuple[str, str]]) -> None:
        """Remember what a document holds."""
        ...

    def forget(self, document_id: str) -> int:
        """Drop what a document held, with the vault's entries that occur in no other; how many entries were destroyed."""
        ...

    def resolve(self, subject: str, *, dry_run: bool) -> Resolved:
        """The documents of a person; unless it is a dry run, the value is suppressed from now on and its vault entries are destroyed.
        InvalidArgument where the subject is none."""
        ...

    def lift(self, subject: str) -> bool:
        """End a value's suppression; False where it was not suppressed, InvalidArgument where the subject is none."""
        ...


class Ledger(Protocol):
    """What became of every version of a document."""

    def find(self, document_id: str, sequence: int) -> Outcome | None:
        """What was decided before."""
        ...

    def record(self, outcome: Outcome) -> Outcome:
        """Keep the decision, or read the one that another replica kept first."""
        ...

    def texts_of(self, document_id: str) -> list[Ref]:
        """A document's texts in the corpus that no other document shares."""
        ...

    def forget(self, document_id: str) -> int:
        """Drop what was decided about a document; how many versions it had."""
        ...


class Facts(Protocol):
    """States what became of documents."""

    def state(self, outcome: Outcome) -> None:
        """Send the event and wait until the broker has it; the same outcome gives the same event."""
        ...


def merge(findings: Iterable[Finding], text: str = "") -> list[Finding]:
    """Findings without overlaps, in order: the higher score wins, then the longer.

    What is left of a loser on either side is still personal where `text` has digits of a number there, or words of a person.
    """
    chosen: list[Finding] = []
    waiting = sorted(findings, key=lambda item: (-item.score, -item.length, item.start), reverse=True)
    while waiting:
        finding = waiting.pop()
        place = bisect.bisect_left(chosen, finding.start, key=lambda item: item.start)
        before, after = chosen[place - 1 : place] if place else [], chosen[place : place + 1]
        if before and before[0].end > finding.start:
            waiting += _left(finding, before[0].end, finding.end, text)
        elif after and after[0].start < finding.end:
            rest = (
                *_left(finding, after[0].end, finding.end, text),
                *_left(finding, finding.start, after[0].start, text),
            )
            waiting += rest
        else:
            chosen.insert(place, finding)
    return chosen


def _left(finding: Finding, start: int, end: int, text: str) -> list[Finding]:
    """The part of a finding from start to end, without blanks and marks around it; none where nothing personal can be in it."""
    while start < end and not text[start : start + 1].isalnum() and text[start : start + 1] != "+":
        start += 1
    while start < end and not text[end - 1 : end].isalnum():
        end -= 1
    part = text[start:end]
    personal = any(map(str.isdigit, part)) or (finding.entity_type == "PERSON" and part[:1].isupper())
    return [replace(finding, start=start, end=end)] if personal else []


def count(findings: Iterable[Finding]) -> dict[str, int]:
    """Findings by type."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.entity_type] = counts.get(finding.entity_type, 0) + 1
    return counts

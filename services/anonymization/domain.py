"""Anonymization's values and rules: findings, the policy, texts and their outcomes. Imports no library."""

import bisect
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import accumulate

from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref
from tailor.values import Labels, Span

MAX_CHARS = 1_000_000
MAX_PREVIEW_CHARS = 200_000
MAX_POLICY_CHARS = 65_536
MAX_PROMPT_TEXTS = 1_024
MAX_PROMPT_CHARS = 200_000
MAX_SUBJECT_CHARS = 256
MIN_PURPOSE_CHARS = 10
MAX_TYPE_CHARS, MAX_SURROGATE_CHARS, MAX_PURPOSE_CHARS = 40, 1_000, 1_000
MAX_SEARCH_TEXTS = 4_096
MAX_SEARCH_CHARS = 2_000_000
MAX_SEARCH_IDS = 1_000
LONGEST_PIECE = 1_000

# Reasons of rejection, as in documents.proto.
UNREADABLE = "UNREADABLE"
TIMEOUT = "TIMEOUT"
TOO_EXPENSIVE = "TOO_EXPENSIVE"
LANGUAGE_NOT_COVERED = "LANGUAGE_NOT_COVERED"

NO_LABELS = Labels()

# Facts about a person in the special categories of GDPR Art. 9, and the convictions and offences of Art. 10.
SPECIAL_CATEGORIES = (
    "RELIGION", "POLITICAL_OPINION", "TRADE_UNION", "HEALTH", "SEXUAL_ORIENTATION", "ETHNIC_ORIGIN", "BIOMETRIC_DATA", "GENETIC_DATA",
    "CRIMINAL_RECORD",
)  # fmt: skip
# The types that recognisers look for. A policy may add the company's own types in `[codes]` and `[deny]`.
ENTITY_TYPES = (
    "PERSON", "CLIENT", "EMAIL_ADDRESS", "PHONE_NUMBER", "ADDRESS", "IBAN", "CREDIT_CARD", "DATE_OF_BIRTH",
    "EMPLOYEE_CODE", "PROJECT_CODE", "IP_ADDRESS", "NATIONAL_ID", "ACCOUNT_NUMBER", "USERNAME", "URL", "SECRET",
    "COORDINATES", "VEHICLE", "LOCATION", "NRP", "DATE_TIME", "MONEY", "AGE", "CASE_NUMBER", "POSTCODE", *SPECIAL_CATEGORIES,
)  # fmt: skip
# Types without believable surrogates: too short or too common for a surrogate that could be recognised in an answer.
COARSE_ONLY = ("LOCATION", "NRP", "DATE_TIME", "MONEY", "AGE", "POSTCODE", *SPECIAL_CATEGORIES)


class Action(StrEnum):
    """An action of the policy on a value."""

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
        return self.end - self.start

    def shift(self, by: int) -> "Finding":
        """The same finding at its place in a longer text."""
        return Finding(self.start + by, self.end + by, self.entity_type, self.score)


@dataclass(frozen=True)
class Disagreement:
    """A stretch [start, end) of a text that some detectors call personal and others, which know the type, do not.

    `detectors` are the names of those that found it.
    """

    start: int
    end: int
    entity_type: str
    detectors: tuple[str, ...]

    def shift(self, by: int) -> "Disagreement":
        """The same disagreement at its place in a longer text."""
        return Disagreement(self.start + by, self.end + by, self.entity_type, self.detectors)


@dataclass(frozen=True)
class Rule:
    """Actions for documents with certain labels. A label that is not named admits any value."""

    labels: Mapping[str, frozenset[str]]
    actions: Mapping[str, Action]

    def matches(self, labels: Labels) -> bool:
        """True if the rule applies to documents with these labels."""
        return all(getattr(labels, name) in values for name, values in self.labels.items())

    def covers(self, other: "Rule") -> bool:
        """True if this rule applies to every document that the other rule applies to."""
        return all(other.labels.get(name, frozenset({""})) <= values for name, values in self.labels.items())


@dataclass(frozen=True)
class Coarseness:
    """How far the action `generalise` goes, by type. `age_years` 0 changes only ages of 90 and more."""

    date_time: str = "month"
    date_of_birth: str = "year"
    address: str = "town"
    money_bands: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    age_years: int = 10


@dataclass(frozen=True)
class Policy:
    """The rules for what is anonymised, and how. `digest` is the SHA-256 of the policy file."""

    digest: str
    actions: Mapping[str, Action]
    codes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deny: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow_terms: tuple[str, ...] = ()
    allow_patterns: tuple[str, ...] = ()
    # Files of the operator's lists folder with further names, which are read again when they change.
    deny_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow_files: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    coarseness: Coarseness = Coarseness()

    def action(self, entity_type: str, labels: Labels = NO_LABELS) -> Action:
        """The action for a type: from the first rule that applies and names it, otherwise from the table, otherwise `mask`."""
        for rule in self.rules:
            if entity_type in rule.actions and rule.matches(labels):
                return rule.actions[entity_type]
        return self.actions.get(entity_type, Action.MASK)

    def keeps(self, entity_type: str) -> bool:
        """True if the type is kept in every document, so that nobody needs to look for it."""
        rules = (rule.actions.get(entity_type, Action.KEEP) for rule in self.rules)
        return all(action is Action.KEEP for action in (self.actions.get(entity_type, Action.MASK), *rules))

    def reversible(self) -> "Policy":
        """The policy for prompts, whose values are restored: they get surrogates instead of masks or coarser values if their type may.

        Special categories stay: they have no surrogates, an answer without them would miss the point, and whom they are about is replaced.
        """

        def reversible_action(kind: str, action: Action) -> Action:
            if kind in SPECIAL_CATEGORIES:
                return Action.KEEP
            return action if action is Action.KEEP or kind in COARSE_ONLY else Action.SURROGATE

        kinds = {*ENTITY_TYPES, *self.codes, *self.deny, *self.deny_files, *self.actions}
        actions = {kind: reversible_action(kind, self.actions.get(kind, Action.MASK)) for kind in kinds}
        rules = (
            replace(rule, actions={kind: reversible_action(kind, action) for kind, action in rule.actions.items()})
            for rule in self.rules
        )
        return replace(self, actions=actions, rules=tuple(rules))

    def find_allowed(self, text: str) -> list[tuple[int, int]]:
        """The [start, end) stretches of a text that the allow list keeps as they are."""
        patterns = [*(rf"(?<!\w){re.escape(term)}(?!\w)" for term in self.allow_terms), *self.allow_patterns]
        return [
            (start + match.start(), start + match.end())
            for start, piece in _pieces(text)
            for pattern in patterns
            for match in re.finditer(pattern, piece)
        ]


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs with their offsets, long ones cut at a line or sentence end: a pattern's cost may grow faster than the text."""
    start = 0
    for end in [*(match.end() for match in re.finditer(r"\n[ \t]*\n", text)), len(text)]:
        while end - start > LONGEST_PIECE:
            limit = start + LONGEST_PIECE
            cut = next(
                (place + 1 for mark in ("\n", ". ", " ") if (place := text.rfind(mark, start, limit)) > start), limit
            )
            yield start, text[start:cut]
            start = cut
        yield start, text[start:end]
        start = end


@dataclass(frozen=True)
class InstalledPolicy:
    """A policy that is or was in force. `installed_by` is an API key's id, or what installed it: `settings`, `default`, `detectors`."""

    generation: int
    policy_digest: str
    detectors_digest: str
    installed_by: str
    create_time: datetime

    @property
    def barrier_digest(self) -> str:
        """SHA-256 of policy and detectors. What passed under another one may hold what would be masked now."""
        return hashlib.sha256(f"{self.policy_digest}\x1f{self.detectors_digest}".encode()).hexdigest()


@dataclass(frozen=True)
class PolicyDecision:
    """The action on a type: of a rule, for documents with its labels; or of the table, with the rule -1."""

    entity_type: str
    action: Action
    rule: int
    labels: Mapping[str, str]


@dataclass(frozen=True)
class FindingCount:
    """Stored documents with the same labels in which values of a type were found, and the number of these values."""

    labels: Labels
    entity_type: str
    documents: int
    values: int


@dataclass(frozen=True)
class PolicyDifference:
    """A type that two policies treat differently in documents with these labels, and how many stored documents that concerns."""

    entity_type: str
    labels: Labels
    before: Action
    after: Action
    documents: int
    values: int


@dataclass(frozen=True)
class DocumentText:
    """The text of one document. Only examples and golden documents have a `prompt`, only the latter `insights` as statements by kind."""

    text: str
    prompt: str | None = None
    insights: Mapping[str, tuple[str, ...]] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """All texts: the statements, the prompt if there is one, and last the text."""
        statements = tuple(entry for entries in (self.insights or {}).values() for entry in entries)
        return (*statements, *(() if self.prompt is None else (self.prompt,)), self.text)

    def with_parts(self, parts: Sequence[str]) -> "DocumentText":
        """The document with other texts in the place of `parts`."""
        texts = iter(parts)
        insights = None
        if self.insights is not None:
            insights = {kind: tuple(next(texts) for _ in entries) for kind, entries in self.insights.items()}
        prompt = None if self.prompt is None else next(texts)
        return DocumentText(next(texts), prompt, insights)

    def encode(self) -> bytes:
        """The JSON object that is stored."""
        content: dict[str, object] = {"prompt": self.prompt, "text": self.text}
        if self.insights is not None:
            content["key_insights"] = self.insights
        return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> "DocumentText":
        """Read the stored JSON object. Raises InvalidArgument (UNREADABLE) for anything else."""
        try:
            content = json.loads(data)
            text, prompt, insights = content["text"], content["prompt"], content.get("key_insights")
            if insights is not None:
                insights = {str(kind): tuple(map(str, entries)) for kind, entries in insights.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidArgument(Reason.UNREADABLE, "The quarantined object is not a text.") from None
        if not isinstance(text, str) or not (prompt is None or isinstance(prompt, str)):
            raise InvalidArgument(Reason.UNREADABLE, "The quarantined object is not a text.")
        return cls(text, prompt, insights)


@dataclass(frozen=True)
class Ingested:
    """A document that waits in quarantine. `kind`, `labels` and `removed` are passed on unchanged; `spans` refer to its text."""

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
    supersede_id: str = ""
    removed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Passed:
    """A document that passed the barrier. `spans` refer to its anonymised text."""

    ingested: Ingested
    text: Ref
    char_count: int
    findings: Mapping[str, int]
    policy_digest: str
    time_ms: int
    language: str = ""
    spans: tuple[Span, ...] = ()
    detectors_digest: str = ""
    rules_only_languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class RefusedDocument:
    """A document that goes no further. `reason` is the name of a reason of rejection in documents.proto.

    Its quarantined bytes are missing or do not verify, or finding its values meets a defect (UNREADABLE), takes too long (TIMEOUT) or more
    processor time or memory than it may (TOO_EXPENSIVE), or no detector covers one of its languages (LANGUAGE_NOT_COVERED).
    """

    ingested: Ingested
    hint: str
    time_ms: int
    reason: str = UNREADABLE


DocumentOutcome = Passed | RefusedDocument


@dataclass(frozen=True)
class HeldDocument:
    """What is held of a person's document: its labels and counts, and no text. A row that comes from no document has only its id."""

    document_id: str
    passed: Passed | None


@dataclass(frozen=True)
class HeldSubject:
    """What is held about a person."""

    entity_type: str
    documents: tuple[HeldDocument, ...]
    vault_entries: int
    suppressed: bool


@dataclass(frozen=True)
class Change:
    """One value at [start, end) of its text, and its replacement."""

    start: int
    end: int
    entity_type: str
    action: Action
    replacement: str

    @property
    def is_surrogate(self) -> bool:
        """True if the replacement is a surrogate and not a mask."""
        return self.action is Action.SURROGATE and self.replacement != f"[{self.entity_type}]"


@dataclass(frozen=True)
class Anonymized:
    """Anonymised texts, the number of values found by type, and the changes in each text, in order.

    `values` are the (type, surrogate) pairs that the texts now contain: full names and the words of names. `disagreements` are, like the
    changes, at their places in each text as it was given. `rules_only_languages` are those that no detector covers.
    """

    texts: tuple[str, ...]
    findings: Mapping[str, int]
    changes: tuple[tuple[Change, ...], ...] = ()
    values: frozenset[tuple[str, str]] = frozenset()
    policy_digest: str = ""
    disagreements: tuple[tuple[Disagreement, ...], ...] = ()
    detectors_digest: str = ""
    rules_only_languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnonymizedPrompt:
    """The anonymised texts of a prompt, and the true value of each surrogate; single words of names have entries too."""

    texts: tuple[str, ...] = field(repr=False)
    pairs: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Resolved:
    """The ids of a person's documents, and the number of vault entries destroyed (with a dry run: that would be)."""

    document_ids: tuple[str, ...]
    vault_entries: int


@dataclass(frozen=True)
class TrueValue:
    """A true value that a text has, by what stands for it: the (type, surrogate) pairs that occur in its documents.

    `as_surrogate` are the pairs that it would be if it were itself the surrogate of another value.
    """

    entity_type: str
    surrogates: tuple[tuple[str, str], ...]
    as_surrogate: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def merge(findings: Iterable[Finding], text: str = "") -> list[Finding]:
    """Remove overlaps: the higher score wins, then the longer finding. Returns the findings in order.

    The rest of a losing finding, on either side, remains a finding if `text` has digits of a number or words of a name there.
    """
    chosen: list[Finding] = []
    waiting = sorted(findings, key=lambda item: (-item.score, -item.length, item.start), reverse=True)
    while waiting:
        finding = waiting.pop()
        place = bisect.bisect_left(chosen, finding.start, key=lambda item: item.start)
        before, after = chosen[place - 1 : place] if place else [], chosen[place : place + 1]
        if before and before[0].end > finding.start:
            waiting += _rest(finding, before[0].end, finding.end, text)
        elif after and after[0].start < finding.end:
            waiting += (
                *_rest(finding, after[0].end, finding.end, text),
                *_rest(finding, finding.start, after[0].start, text),
            )
        else:
            chosen.insert(place, finding)
    return chosen


def _rest(finding: Finding, start: int, end: int, text: str) -> list[Finding]:
    """The part of a finding from start to end without surrounding spaces and punctuation; empty if nothing personal can be in it."""
    while start < end and not text[start : start + 1].isalnum() and text[start : start + 1] != "+":
        start += 1
    while start < end and not text[end - 1 : end].isalnum():
        end -= 1
    part = text[start:end]
    personal = any(map(str.isdigit, part)) or (finding.entity_type in ("PERSON", "CLIENT") and part[:1].isupper())
    return [replace(finding, start=start, end=end)] if personal else []


def count(findings: Iterable[Finding]) -> dict[str, int]:
    """The number of findings by type."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.entity_type] = counts.get(finding.entity_type, 0) + 1
    return counts


def apply_changes(text: str, changes: Sequence[Change]) -> str:
    """The text with each change's replacement. The changes must be in order and must not overlap."""
    parts, end = [], 0
    for change in changes:
        parts += [text[end : change.start], change.replacement]
        end = change.end
    return "".join([*parts, text[end:]])


def move_spans(spans: Sequence[Span], changes: Sequence[Change]) -> tuple[Span, ...]:
    """The spans in the changed text. `changes` must be in order and must not overlap.

    If a span begins or ends within a replaced value, the whole value belongs to the text before. Empty spans are dropped.
    """
    starts = [change.start for change in changes]
    growth = list(accumulate((len(change.replacement) - (change.end - change.start) for change in changes), initial=0))

    def move(offset: int) -> int:
        # Changes that begin before the offset have moved it.
        before = bisect.bisect_left(starts, offset)
        if before and changes[before - 1].end > offset:
            offset = changes[before - 1].end
        return offset + growth[before]

    moved = (replace(span, start=move(span.start), end=move(span.end)) for span in spans)
    return tuple(span for span in moved if span.start < span.end)

"""What anonymization knows: findings, the policy, texts, and what it needs from outside."""

import bisect
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from tailor.errors import InvalidArgument
from tailor.storage.ref import Ref

MAX_CHARS = 1_000_000
MIN_PURPOSE_CHARS = 10


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
class Policy:
    """How much is anonymised. `digest` is the SHA-256 of the file it was read from."""

    digest: str
    actions: Mapping[str, Action]
    codes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deny: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow_terms: tuple[str, ...] = ()
    allow_patterns: tuple[str, ...] = ()

    def action(self, entity_type: str) -> Action:
        """What becomes of a type; what the policy does not name is masked."""
        return self.actions.get(entity_type, Action.MASK)

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
            raise InvalidArgument("UNREADABLE", "The quarantined object is not a text.") from None
        if not isinstance(text, str) or not (prompt is None or isinstance(prompt, str)):
            raise InvalidArgument("UNREADABLE", "The quarantined object is not a text.")
        return cls(text, prompt)


@dataclass(frozen=True)
class Ingested:
    """A document that waits in quarantine. `kind` and `labels` travel on unchanged."""

    document_id: str
    submission_id: str
    sequence: int
    digest: str
    kind: int
    labels: tuple[str, str, str]
    text: Ref
    format: str
    draft_id: str


@dataclass(frozen=True)
class Passed:
    """What is stated of a document that passed."""

    ingested: Ingested
    text: Ref
    char_count: int
    findings: Mapping[str, int]
    policy_digest: str
    time_ms: int


@dataclass(frozen=True)
class Unreadable:
    """What is stated of a document whose quarantined bytes do not verify."""

    ingested: Ingested
    hint: str
    time_ms: int


Outcome = Passed | Unreadable


@dataclass(frozen=True)
class Anonymized:
    """Texts with surrogates, and how many values of each type were found in them."""

    texts: tuple[str, ...]
    findings: Mapping[str, int]


class Anonymizer(Protocol):
    """Replaces personal values."""

    def anonymize(self, texts: tuple[str, ...]) -> Anonymized:
        """Anonymise texts that belong together: a value found in one is replaced in all."""
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


class Corpus(Protocol):
    """The anonymised texts."""

    def write(self, text: Text) -> Ref:
        """Store a text under the digest of its bytes."""
        ...


class Ledger(Protocol):
    """What became of every version of a document."""

    def find(self, document_id: str, sequence: int) -> Outcome | None:
        """What was decided before."""
        ...

    def record(self, outcome: Outcome) -> Outcome:
        """Keep the decision, or read the one that another replica kept first."""
        ...


class Facts(Protocol):
    """States what became of documents."""

    def state(self, outcome: Outcome) -> None:
        """Send the event and wait until the broker has it; the same outcome gives the same event."""
        ...


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without overlaps, in order: the higher score wins, then the longer; what is left of a loser goes with it."""
    chosen: list[Finding] = []
    for finding in sorted(findings, key=lambda item: (-item.score, -item.length, item.start)):
        place = bisect.bisect_left(chosen, finding.start, key=lambda item: item.start)
        before, after = chosen[place - 1 : place] if place else [], chosen[place : place + 1]
        if not (before and before[0].end > finding.start) and not (after and after[0].start < finding.end):
            chosen.insert(place, finding)
    return chosen


def count(findings: Iterable[Finding]) -> dict[str, int]:
    """Findings by type."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.entity_type] = counts.get(finding.entity_type, 0) + 1
    return counts


def object_key(data: bytes) -> str:
    """The key of anonymised bytes in the corpus bucket."""
    return f"documents/{hashlib.sha256(data).hexdigest()}"
